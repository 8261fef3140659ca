//! What a reload changes, and what of it takes effect without a restart.

use core::fmt;
use std::collections::BTreeSet;

use super::Config;

/// When a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// At once.
    Live,
    /// At the next start; until then the old value is in force.
    Restart,
}

/// One key that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; for one peer `peers.critic`, for one key `integrity.keys.k1`.
    pub key: String,
    /// When it takes effect.
    pub effect: Effect,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.effect {
            Effect::Live => write!(formatter, "{} (now in force)", self.key),
            Effect::Restart => write!(formatter, "{} (takes a restart)", self.key),
        }
    }
}

/// Two configurations and what has been found to differ.
struct Comparison<'a> {
    old: &'a Config,
    new: &'a Config,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn field<T: PartialEq>(&mut self, key: &str, effect: Effect, field: impl Fn(&Config) -> T) {
        if field(self.old) != field(self.new) {
            self.changes.push(Change { key: key.to_owned(), effect });
        }
    }
}

impl Config {
    /// Every key in which `new` differs from `old`, in the order of the sections. Values are not in
    /// the result, so it may be logged.
    #[must_use]
    pub fn difference(old: &Self, new: &Self) -> Vec<Change> {
        let mut comparison = Comparison { old, new, changes: Vec::new() };
        runtime_and_peers(&mut comparison);
        nats(&mut comparison);
        listen_and_ingest(&mut comparison);
        containment(&mut comparison);
        integrity(&mut comparison);
        rest(&mut comparison);
        comparison.changes
    }
}

fn runtime_and_peers(comparison: &mut Comparison<'_>) {
    comparison.field("runtime.id", Effect::Restart, |config| config.runtime.id.clone());
    comparison
        .field("runtime.attractor_type", Effect::Restart, |config| config.runtime.attractor_type);
    comparison.field("runtime.profile", Effect::Restart, |config| config.runtime.profile.clone());
    let ids: BTreeSet<_> = comparison.old.peers.keys().chain(comparison.new.peers.keys()).collect();
    for id in ids {
        comparison
            .field(&format!("peers.{id}"), Effect::Live, |config| config.peers.get(id).cloned());
    }
}

fn nats(comparison: &mut Comparison<'_>) {
    let mut restart = |key: &str, field: fn(&Config) -> String| {
        comparison.field(key, Effect::Restart, field);
    };
    restart("nats.url", |config| {
        let urls: Vec<&str> = config.nats.url.iter().map(|server| server.as_url_str()).collect();
        urls.join(",")
    });
    restart("nats.prefix", |config| config.nats.prefix.clone());
    restart("nats.stream_out", |config| config.nats.stream_out.clone());
    restart("nats.stream_in", |config| config.nats.stream_in.clone());
    restart("nats.stream_quarantine", |config| config.nats.stream_quarantine.clone());
    restart("nats.domain", |config| config.nats.domain.clone().unwrap_or_default());
    let mut file = |key: &str, field: fn(&Config) -> Option<&std::path::Path>| {
        comparison
            .field(key, Effect::Restart, |config| field(config).map(std::path::Path::to_owned));
    };
    file("nats.tls.ca_file", |config| config.nats.tls.ca_file.as_deref());
    file("nats.tls.cert_file", |config| {
        config.nats.tls.client.as_ref().map(|client| client.cert_file.as_path())
    });
    file("nats.tls.key_file", |config| {
        config.nats.tls.client.as_ref().map(|client| client.key_file.as_path())
    });
    for key in ["nats.creds_file", "nats.nkey_file", "nats.token_file"] {
        comparison.field(key, Effect::Restart, |config| {
            let file = config.nats.credentials.file().filter(|(name, _)| *name == key);
            file.map(|(_, path)| path.to_owned())
        });
    }
    comparison
        .field("nats.inbox_prefix", Effect::Restart, |config| config.nats.inbox_prefix.clone());
    comparison.field("nats.tls.first", Effect::Restart, |config| config.nats.tls.first);
    comparison.field("nats.tls.required", Effect::Restart, |config| config.nats.tls.required);
    comparison.field("nats.provision", Effect::Restart, |config| config.nats.provision);
    comparison.field("nats.replicas", Effect::Restart, |config| config.nats.replicas);
    comparison.field("nats.durability", Effect::Restart, |config| config.nats.durability);
    comparison.field("nats.connect_timeout", Effect::Restart, |config| config.nats.connect_timeout);
    comparison.field("nats.ping_interval", Effect::Restart, |config| config.nats.ping_interval);
    comparison.field("nats.window", Effect::Restart, |config| config.nats.window);
    comparison.field("nats.ack_timeout", Effect::Restart, |config| config.nats.ack_timeout);
}

fn listen_and_ingest(comparison: &mut Comparison<'_>) {
    let restart = Effect::Restart;
    comparison.field("listen.api", restart, |config| config.listen.api.clone());
    comparison.field("listen.admin", restart, |config| config.listen.admin);
    comparison.field("listen.socket_uids", restart, |config| config.listen.socket_uids.clone());
    comparison.field("listen.token_file", restart, |config| config.listen.token.clone());
    comparison.field("listen.operator_token_file", restart, |config| {
        config.listen.operator_token.clone()
    });
    comparison
        .field("listen.allowed_origins", restart, |config| config.listen.allowed_origins.clone());
    comparison.field("listen.allowed_hosts", restart, |config| config.listen.allowed_hosts.clone());
    comparison.field("listen.body_bytes_max", restart, |config| config.listen.body_bytes_max);
    comparison.field("listen.connections_max", restart, |config| config.listen.connections_max);
    comparison.field("listen.header_timeout", restart, |config| config.listen.header_timeout);
    comparison.field("listen.reply_timeout", restart, |config| config.listen.reply_timeout);
    comparison.field("ingest.http", restart, |config| config.ingest.http);
    let tails = (comparison.old.ingest.tail.as_ref(), comparison.new.ingest.tail.as_ref());
    match tails {
        (Some(_), Some(_)) => {
            let tail = |config: &Config| config.ingest.tail.clone();
            comparison.field("ingest.tail.path", restart, |config| tail(config).map(|t| t.path));
            comparison
                .field("ingest.tail.interval", restart, |config| tail(config).map(|t| t.interval));
            comparison.field("ingest.tail.line_bytes_max", restart, |config| {
                tail(config).map(|t| t.line_bytes_max)
            });
        }
        (_, None) | (None, _) => {
            comparison.field("ingest.tail", restart, |config| config.ingest.tail.is_some());
        }
    }
}

fn containment(comparison: &mut Comparison<'_>) {
    let mut mark = |key: &str, field: fn(&super::Containment) -> f64| {
        comparison.field(key, Effect::Live, |config| field(&config.containment));
    };
    mark("containment.reopen", |containment| containment.policy.thresholds.reopen);
    mark("containment.block", |containment| containment.policy.thresholds.block);
    mark("containment.isolate", |containment| containment.policy.thresholds.isolate);
    let mut number = |key: &str, field: fn(&super::Containment) -> u32| {
        comparison.field(key, Effect::Live, |config| field(&config.containment));
    };
    number("containment.caution_every", |containment| containment.caution_every);
    number("containment.dwell", |containment| containment.policy.dwell);
    let mut span = |key: &str, field: fn(&super::Containment) -> Option<core::time::Duration>| {
        comparison.field(key, Effect::Live, |config| field(&config.containment));
    };
    span("containment.stale_after", |containment| Some(containment.stale_after));
    span("containment.silence_isolates_after", |containment| containment.silence_isolates_after);
    span("containment.isolate_after", |containment| containment.isolate_after);
    span("containment.barrier_timeout", |containment| Some(containment.barrier_timeout));
    span("containment.packet_max_age", |containment| Some(containment.packet_max_age));
    span("containment.clock_skew_max", |containment| Some(containment.clock_skew_max));
    let live = Effect::Live;
    comparison.field("containment.accept", live, |config| config.containment.policy.accept);
    comparison.field("containment.assumed_scr", live, |config| config.containment.assumed_scr);
    comparison.field("containment.mode", Effect::Restart, |config| config.containment.mode);
    comparison.field("containment.lock", live, |config| config.containment.lock);
    comparison.field("containment.flapping.closings", live, |config| {
        config.containment.flapping.map(|flapping| flapping.closings)
    });
    comparison.field("containment.flapping.cycles", live, |config| {
        config.containment.flapping.map(|flapping| flapping.cycles)
    });
    comparison.field("containment.caution", live, |config| config.containment.caution);
    comparison
        .field("containment.blocked_inbound", live, |config| config.containment.blocked_inbound);
    comparison.field("containment.hold_file", Effect::Restart, |config| {
        config.containment.hold_file.clone()
    });
}

fn integrity(comparison: &mut Comparison<'_>) {
    comparison.field("integrity.alg", Effect::Live, |config| config.integrity.keyring.alg());
    comparison.field("integrity.sign_with", Effect::Live, |config| {
        config.integrity.keyring.sign_with().map(str::to_owned)
    });
    let (old, new) = (&comparison.old.integrity.keys, &comparison.new.integrity.keys);
    let ids: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for id in ids {
        comparison.field(&format!("integrity.keys.{id}"), Effect::Live, |config| {
            config.integrity.keys.get(id).cloned()
        });
    }
}

fn rest(comparison: &mut Comparison<'_>) {
    let restart = Effect::Restart;
    comparison.field("snapshot.spool", restart, |config| config.snapshot.spool.clone());
    comparison.field("snapshot.level", restart, |config| config.snapshot.level);
    comparison.field("snapshot.bytes_max", restart, |config| config.snapshot.bytes_max);
    comparison.field("snapshot.spool_bytes_max", restart, |config| config.snapshot.spool_bytes_max);
    comparison.field("snapshot.cache_bytes_max", restart, |config| config.snapshot.cache_bytes_max);
    comparison.field("snapshot.keep_full", restart, |config| config.snapshot.keep_full);
    comparison.field("snapshot.keep_for", restart, |config| config.snapshot.keep_for);
    comparison
        .field("snapshot.stored_bytes_max", restart, |config| config.snapshot.stored_bytes_max);
    comparison.field("deliver.url", restart, |config| config.deliver.url.clone());
    comparison.field("deliver.timeout", restart, |config| config.deliver.timeout);
    comparison.field("audit.file", restart, |config| config.audit.file.clone());
    comparison.field("audit.bytes_max", restart, |config| config.audit.bytes_max);
    comparison.field("audit.files_max", restart, |config| config.audit.files_max);
    comparison.field("log.level", Effect::Live, |config| config.log.level);
    comparison.field("log.format", restart, |config| config.log.format);
}
