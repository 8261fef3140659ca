//! The configuration: built-in defaults, then files, then the environment, read into types once.
//!
//! Nothing later sees a string that could be wrong. All mistakes are found in one run and each
//! names its key. Secrets come only from files, and no `Debug` shows them. What is deliberately not
//! here: reading the environment (`main.rs` hands it in), and what the values do.
//!
//! Modules in the order of the walk: `source` merges, `section`, `parse` and `word` read, `read`
//! builds `settings`; `difference` and `warning` look at the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::protocol::packet::RuntimeId;
use crate::protocol::profile::Options;
use crate::protocol::{bridge, inbox};

mod source;
mod section;
mod parse;
mod read;
mod word;
mod settings;
mod secret;
mod difference;
mod warning;
mod mistake;
pub mod limit;

pub use difference::{Change, Effect};
pub use mistake::{MISTAKES_MAX, Mistake, Mistakes};
pub use parse::show_duration;
pub use secret::{Secret, SecretFile};
pub use settings::{
    Audit, BlockedInbound, Caution, ClientCertificate, Containment, Credentials, Deliver,
    DriftSource, Durability, Flapping, Ingest, Integrity, Listen, Listener, Log, LogFormat,
    LogLevel, Mode, Nats, Peer, Runtime, Scopes, Snapshot, Tail, Tls,
};
pub use source::{ENVIRONMENT_PREFIX, ReadFile, read_from_disk};
pub use warning::Warning;

/// The whole configuration (DESIGN section 6). `config/driftgate.toml` documents every key.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whom this sidecar speaks for.
    pub runtime: Runtime,
    /// Who is reached and heard, at most `limit::PEERS_MAX`.
    pub peers: BTreeMap<RuntimeId, Peer>,
    /// The broker.
    pub nats: Nats,
    /// The local interface.
    pub listen: Listen,
    /// How reports come in.
    pub ingest: Ingest,
    /// The gate.
    pub containment: Containment,
    /// The keys.
    pub integrity: Integrity,
    /// Memory snapshots.
    pub snapshot: Snapshot,
    /// Inbound packets handed to the runtime.
    pub deliver: Deliver,
    /// The log of containment events.
    pub audit: Audit,
    /// The log.
    pub log: Log,
}

impl Config {
    /// Reads a configuration: `files` in order, a later one winning over an earlier one, then the
    /// variables of `environment` that begin with [`ENVIRONMENT_PREFIX`].
    ///
    /// `read_file` reads the files themselves and those that they name (keys, token, credentials,
    /// certificates, profile); [`read_from_disk`] outside tests.
    ///
    /// # Errors
    /// [`Mistakes`], all of them at once; the operator's to mend.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use driftgate::config::Config;
    /// let environment = BTreeMap::from([("DRIFTGATE__NATS__WINDOW".into(), "0".into())]);
    /// let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    /// let mistakes = Config::load(&[], &environment, &nothing).unwrap_err();
    /// assert!(mistakes.to_string().contains("nats.window: must be a whole number, 1 to 2048"));
    /// ```
    pub fn load(
        files: &[PathBuf],
        environment: &BTreeMap<String, String>,
        read_file: ReadFile<'_>,
    ) -> Result<Self, Mistakes> {
        let values = source::merge(files, environment, read_file)?;
        let mut reader = section::Reader { read_file, mistakes: Mistakes::default() };
        let mut root = section::Section::root(&mut reader, values);
        let config = Self::read(&mut root);
        root.finish();
        reader.mistakes.into_result()?;
        config.ok_or_else(|| {
            // Every part that can be missing has noted why; this keeps the types honest.
            let mut mistakes = Mistakes::default();
            mistakes.push(Mistake::new("configuration", "is incomplete"));
            mistakes
        })
    }

    fn read(root: &mut section::Section<'_, '_>) -> Option<Self> {
        let runtime = root.within("runtime", read::runtime);
        let peers = read::peers(root, runtime.as_ref().map(|runtime| &runtime.id));
        let nats = root.within("nats", read::nats);
        let listen = root.within("listen", read::listen);
        let ingest = root.within("ingest", read::ingest);
        let containment = root.within("containment", read::containment);
        let (integrity, key_ids) = root.within("integrity", read::integrity);
        let snapshot = root.within("snapshot", read::snapshot);
        let deliver = root.within("deliver", read::deliver);
        let audit = root.within("audit", read::audit);
        let log = root.within("log", read::log);
        if containment.barrier_timeout > listen.reply_timeout {
            let reply = show_duration(listen.reply_timeout);
            // The reply to a closing report waits for the barrier, and must itself be in time.
            root.refuse(
                "containment.barrier_timeout",
                format!("must not be longer than listen.reply_timeout, {reply}"),
            );
        }
        for (id, peer) in peers.iter().filter(|_| !key_ids.is_empty()) {
            let unknown = peer.key_id.as_ref().filter(|key_id| !key_ids.contains(*key_id));
            if let Some(key_id) = unknown {
                let problem = format!("{key_id} is not in integrity.keys");
                root.refuse(&format!("peers.{id}.key_id"), problem);
            }
        }
        Some(Self {
            runtime: runtime?,
            peers,
            nats,
            listen,
            ingest,
            containment,
            integrity: integrity?,
            snapshot,
            deliver,
            audit,
            log,
        })
    }

    /// Every file with a secret that the configuration names, each with the key that names it, for
    /// watching and for looking at its permissions.
    #[must_use]
    pub fn secret_files(&self) -> Vec<(String, &Path)> {
        let nats = self.nats.credentials.file();
        let client = self.nats.tls.client.as_ref();
        let tls = client.map(|client| ("nats.tls.key_file", client.key_file.as_path()));
        let token =
            self.listen.token.as_ref().map(|token| ("listen.token_file", token.file.as_path()));
        let operator = self
            .listen
            .operator_token
            .as_ref()
            .map(|token| ("listen.operator_token_file", token.file.as_path()));
        let single = [nats, tls, token, operator].into_iter().flatten();
        let keys = self
            .integrity
            .keys
            .iter()
            .map(|(id, key)| (format!("integrity.keys.{id}"), key.file.as_path()));
        single.map(|(key, file)| (key.to_owned(), file)).chain(keys).collect()
    }

    /// What the bridge is told.
    #[must_use]
    pub fn bridge(&self) -> bridge::Settings {
        let containment = &self.containment;
        let peer = |(id, peer): (&RuntimeId, &Peer)| {
            let policy = inbox::Peer {
                id: id.clone(),
                export_state: peer.export.state,
                import_state: peer.import.state,
                export_snapshot: peer.export.snapshot,
                key_id: peer.key_id.clone(),
                expires: peer.expires,
            };
            (id.clone(), policy)
        };
        bridge::Settings {
            runtime_id: self.runtime.id.clone(),
            attractor_type: self.runtime.attractor_type,
            peers: self.peers.iter().map(peer).collect(),
            policy: containment.policy.clone(),
            caution_every: containment.caution_every,
            caution_blocks: containment.caution == Caution::Block,
            blocked_inbound_hold: containment.blocked_inbound == BlockedInbound::Hold,
            stale_after: containment.stale_after,
            silence_isolates_after: containment.silence_isolates_after,
            isolate_after: containment.isolate_after,
            barrier_timeout: containment.barrier_timeout,
            reply_timeout: self.listen.reply_timeout,
            ack_timeout: self.nats.ack_timeout,
            window: self.nats.window,
            packet_max_age: containment.packet_max_age,
            clock_skew_max: containment.clock_skew_max,
        }
    }

    /// The file whose existence isolates.
    #[must_use]
    pub fn hold_file(&self) -> PathBuf {
        let beside_spool = || self.snapshot.spool.join("hold");
        self.containment.hold_file.clone().unwrap_or_else(beside_spool)
    }

    /// What the operator says about evidence, for the translator of reports.
    #[must_use]
    pub fn evidence(&self) -> Options {
        Options {
            accept: self.containment.policy.accept,
            assumed_scr: self.containment.assumed_scr,
        }
    }
}
