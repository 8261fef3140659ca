//! Every section read into its type, with what its keys must agree on.
//!
//! A refused value is noted and its default used in its place, only to go on looking: the
//! configuration that comes of it is thrown away by `config.rs`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::limit;
use super::parse;
use super::secret::{Secret, SecretFile};
use super::section::Section;
use super::settings::{
    Audit, ClientCertificate, Containment, Credentials, Deliver, Durability, Flapping, Ingest,
    Integrity, Listen, Listener, Log, Nats, Peer, Runtime, Scopes, Snapshot, Tail, Tls,
};
use crate::keys;
use crate::profiles;
use crate::protocol::drift::Coherence;
use crate::protocol::gate::{Mark, Thresholds};
use crate::protocol::judge::Policy;
use crate::protocol::keyring::{Alg, KEY_ID_BYTES_MAX, KEYS_MAX, KeyMaterial, Keyring};
use crate::protocol::packet::RuntimeId;
use crate::protocol::profile::Profile;

/// `None` when the id or the profile is missing or was refused.
pub(super) fn runtime(section: &mut Section<'_, '_>) -> Option<Runtime> {
    let id = section.required(
        "id",
        "the name of this runtime, unique in the fleet and the same after a restart",
        parse::runtime_id,
    );
    let attractor_type = section.read("attractor_type", parse::attractor_type);
    let profile = profile(section);
    Some(Runtime { id: id?, attractor_type, profile: profile? })
}

fn profile(section: &mut Section<'_, '_>) -> Option<Profile> {
    const DEFAULT: &str = "srip-05";
    let default = || DEFAULT.to_owned();
    let name = if section.has("profile") {
        section.read("profile", parse::text)?
    } else {
        section.read("profile", parse::text).unwrap_or_else(default)
    };
    let built_in = profiles::names();
    if built_in.contains(&name.as_str()) {
        return profiles::load(&name).ok();
    }
    if !name.contains(['/', '.']) {
        let words = built_in.join(", ");
        let problem = format!("must be one of {words}, or the path of a profile, not {name:?}");
        section.refuse("profile", problem);
        return None;
    }
    let content = section.content("profile", Path::new(&name))?;
    let text = String::from_utf8_lossy(&content);
    match profiles::parse(&text) {
        Ok(profile) => Some(profile),
        Err(fault) => {
            section.refuse("profile", format!("the file {name} is no profile: {fault}"));
            None
        }
    }
}

/// Reads `[[peers]]`. `own` is this runtime's id, if it has one.
pub(super) fn peers(
    root: &mut Section<'_, '_>,
    own: Option<&RuntimeId>,
) -> BTreeMap<RuntimeId, Peer> {
    let mut peers = BTreeMap::new();
    root.each("peers", limit::PEERS_MAX, |section| {
        let id = section.required("id", "the runtime id of the peer", parse::runtime_id);
        let scopes = |list: Vec<Scopes>| list.into_iter().fold(Scopes::default(), Scopes::or);
        let peer = Peer {
            export: section.list("export", parse::scope).map(scopes).unwrap_or_default(),
            import: section.list("import", parse::scope).map(scopes).unwrap_or_default(),
            key_id: section.read("key_id", parse::token(KEY_ID_BYTES_MAX)),
            expires: section.read("expires", parse::timestamp),
            accept: section.read("accept", parse::word).unwrap_or_default(),
        };
        let Some(id) = id else { return };
        if Some(&id) == own {
            section.refuse("id", format!("must not be runtime.id itself, {id}"));
        } else if let Entry::Vacant(vacant) = peers.entry(id) {
            vacant.insert(peer);
        } else {
            section.refuse("id", "must be unique, and stands above already");
        }
    });
    peers
}

/// Reads `[nats]`.
pub(super) fn nats(section: &mut Section<'_, '_>) -> Nats {
    let default = Nats::default();
    let url = section.list("url", parse::server).unwrap_or(default.url);
    let stream = || parse::token(limit::STREAM_NAME_BYTES_MAX);
    let replicas =
        section.read("replicas", |scalar| match parse::integer(1..=usize::MAX)(scalar) {
            Ok(number) if limit::REPLICAS.contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err("must be 1, 3 or 5".into()),
        });
    let nats = Nats {
        url,
        prefix: section.read("prefix", parse::subject_prefix).unwrap_or(default.prefix),
        credentials: credentials(section),
        tls: section.within("tls", tls),
        provision: section.read("provision", parse::flag).unwrap_or(default.provision),
        replicas: replicas.unwrap_or(default.replicas),
        durability: section.read("durability", parse::word).unwrap_or(default.durability),
        stream_out: section.read("stream_out", stream()).unwrap_or(default.stream_out),
        stream_in: section.read("stream_in", stream()).unwrap_or(default.stream_in),
        stream_quarantine: section
            .read("stream_quarantine", stream())
            .unwrap_or(default.stream_quarantine),
        domain: section.read("domain", parse::token(limit::STREAM_NAME_BYTES_MAX)),
        inbox_prefix: section.read("inbox_prefix", parse::subject_prefix),
        connect_timeout: section
            .read("connect_timeout", parse::duration(limit::CONNECT_TIMEOUT))
            .unwrap_or(default.connect_timeout),
        ping_interval: section
            .read("ping_interval", parse::duration(limit::PING_INTERVAL))
            .unwrap_or(default.ping_interval),
        window: section.read("window", parse::integer(limit::WINDOW)).unwrap_or(default.window),
        ack_timeout: section
            .read("ack_timeout", parse::duration(limit::ACK_TIMEOUT))
            .unwrap_or(default.ack_timeout),
    };
    if nats.url.is_empty() {
        section.refuse("url", "must name at least one server, such as nats://127.0.0.1:4222");
    }
    if nats.durability != Durability::Acked && nats.replicas < 3 {
        section.refuse("durability", "needs nats.replicas of 3 or 5 for anything but acked");
    }
    nats
}

fn credentials(section: &mut Section<'_, '_>) -> Credentials {
    let creds = section.file("creds_file").map(|(path, _)| Credentials::CredsFile(path));
    let nkey = section.file("nkey_file").map(|(path, content)| {
        let text = core::str::from_utf8(&content).unwrap_or_default().trim();
        if nkeys::KeyPair::from_seed(text).is_err() {
            section.refuse("nkey_file", "must name a file with an nkey seed (SU...)");
        }
        Credentials::NkeyFile(path)
    });
    let token = section.file("token_file").map(|(path, _)| Credentials::TokenFile(path));
    let mut given = [creds, nkey, token].into_iter().flatten();
    let credentials = given.next().unwrap_or_default();
    if let Some((key, _)) = given.next().as_ref().and_then(Credentials::file) {
        let key = key.trim_start_matches("nats.");
        section.refuse(key, "must be the only one of creds_file, nkey_file and token_file");
    }
    credentials
}

fn tls(section: &mut Section<'_, '_>) -> Tls {
    let ca_file = section.file("ca_file").map(|(path, _)| path);
    let cert = section.read("cert_file", parse::path);
    let key = section.read("key_file", parse::path);
    let required = section.read("required", parse::flag).unwrap_or(false);
    let first = section.read("first", parse::flag).unwrap_or(false);
    let client = match (cert, key) {
        (Some(cert_file), Some(key_file)) => {
            section.content("cert_file", &cert_file);
            section.content("key_file", &key_file);
            Some(ClientCertificate { cert_file, key_file })
        }
        (Some(_), None) => {
            section.refuse("cert_file", "needs nats.tls.key_file beside it");
            None
        }
        (None, Some(_)) => {
            section.refuse("key_file", "needs nats.tls.cert_file beside it");
            None
        }
        (None, None) => None,
    };
    Tls { ca_file, client, required, first }
}

/// Reads `[listen]`.
pub(super) fn listen(section: &mut Section<'_, '_>) -> Listen {
    let default = Listen::default();
    let listen = Listen {
        api: section.read("api", parse::listener).unwrap_or(default.api),
        admin: section.read("admin", parse::socket_address).unwrap_or(default.admin),
        socket_uids: section
            .list("socket_uids", |scalar| parse::integer(0..=u32::MAX)(scalar))
            .unwrap_or_default(),
        token: token(section, "token_file"),
        operator_token: token(section, "operator_token_file"),
        allowed_origins: section.list("allowed_origins", parse::origin).unwrap_or_default(),
        allowed_hosts: section.list("allowed_hosts", parse::host).unwrap_or_default(),
        body_bytes_max: section
            .read("body_bytes_max", parse::size(limit::BODY_BYTES_MAX))
            .unwrap_or(default.body_bytes_max),
        connections_max: section
            .read("connections_max", parse::integer(limit::CONNECTIONS_MAX))
            .unwrap_or(default.connections_max),
        header_timeout: section
            .read("header_timeout", parse::duration(limit::HEADER_TIMEOUT))
            .unwrap_or(default.header_timeout),
        reply_timeout: section
            .read("reply_timeout", parse::duration(limit::REPLY_TIMEOUT))
            .unwrap_or(default.reply_timeout),
    };
    if let Listener::Tcp(address) = listen.api {
        // A refused token file is reported by itself; that one was named is enough here.
        if !address.ip().is_loopback() && !section.has_read("token_file") {
            let problem = format!("{address} is not loopback: it needs listen.token_file");
            section.refuse("api", problem);
        }
        if address == listen.admin && address.port() != 0 {
            section.refuse("admin", format!("must differ from listen.api, {address}"));
        }
    }
    listen
}

fn token(section: &mut Section<'_, '_>, key: &'static str) -> Option<SecretFile> {
    let (file, content) = section.file(key)?;
    let token = content.trim_ascii();
    // RFC 6750 section 2.1, `b64token`.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if limit::TOKEN_BYTES.contains(&token.len()) && token.iter().all(allowed) {
        return Some(SecretFile { file, secret: Secret::new(token.to_vec()) });
    }
    let (start, end) = (limit::TOKEN_BYTES.start(), limit::TOKEN_BYTES.end());
    let problem = format!(
        "the file {} must hold one token of {start} to {end} of A-Z a-z 0-9 - . _ ~ + / =",
        file.display()
    );
    section.refuse(key, problem);
    None
}

/// Reads `[ingest]`.
pub(super) fn ingest(section: &mut Section<'_, '_>) -> Ingest {
    let default = Ingest::default();
    let http = section.read("http", parse::flag).unwrap_or(default.http);
    let tail = section.if_within("tail", |section| {
        let path = section.required("path", "the JSONL file to follow", parse::path);
        let default = Tail::new(path.clone().unwrap_or_default());
        let interval = section
            .read("interval", parse::duration(limit::TAIL_INTERVAL))
            .unwrap_or(default.interval);
        let line_bytes_max = section
            .read("line_bytes_max", parse::size(limit::BODY_BYTES_MAX))
            .unwrap_or(default.line_bytes_max);
        Some(Tail { path: path?, interval, line_bytes_max })
    });
    if !http && !section.has_read("tail") {
        section.refuse("http", "nothing would feed the gate: set it to true or give ingest.tail");
    }
    Ingest { http, tail }
}

/// Reads `[containment]`.
pub(super) fn containment(section: &mut Section<'_, '_>) -> Containment {
    let default = Containment::default();
    let policy = Policy {
        thresholds: thresholds(section),
        accept: section.read("accept", parse::word).unwrap_or(default.policy.accept),
        dwell: section.read("dwell", parse::integer(limit::DWELL)).unwrap_or(default.policy.dwell),
    };
    let isolates = || parse::duration(limit::ISOLATES_AFTER);
    let containment = Containment {
        mode: section.read("mode", parse::word).unwrap_or(default.mode),
        lock: section.read("lock", |scalar| {
            let lock = parse::number(scalar).ok();
            let refused = || format!("must be above 0 and at most {}", limit::LOCK_MAX).into();
            lock.filter(|lock| *lock > 0.0 && *lock <= limit::LOCK_MAX).ok_or_else(refused)
        }),
        flapping: section.if_within("flapping", flapping),
        policy,
        caution_every: section
            .read("caution_every", parse::integer(limit::CAUTION_EVERY))
            .unwrap_or(default.caution_every),
        caution: section.read("caution", parse::word).unwrap_or(default.caution),
        stale_after: section
            .read("stale_after", parse::duration(limit::STALE_AFTER))
            .unwrap_or(default.stale_after),
        silence_isolates_after: section.read("silence_isolates_after", isolates()),
        isolate_after: section.read("isolate_after", isolates()),
        assumed_scr: section.read("assumed_scr", |scalar| {
            let coherence = parse::number(scalar).ok().and_then(Coherence::new);
            coherence.ok_or_else(|| "must be above 0 and at most 1".into())
        }),
        blocked_inbound: section
            .read("blocked_inbound", parse::word)
            .unwrap_or(default.blocked_inbound),
        hold_file: section.read("hold_file", parse::path),
        barrier_timeout: section
            .read("barrier_timeout", parse::duration(limit::BARRIER_TIMEOUT))
            .unwrap_or(default.barrier_timeout),
        packet_max_age: section
            .read("packet_max_age", parse::duration(limit::PACKET_MAX_AGE))
            .unwrap_or(default.packet_max_age),
        clock_skew_max: section
            .read("clock_skew_max", parse::duration(limit::CLOCK_SKEW_MAX))
            .unwrap_or(default.clock_skew_max),
    };
    if containment.silence_isolates_after.is_some_and(|span| span < containment.stale_after) {
        let stale_after = parse::show_duration(containment.stale_after);
        let problem = format!("must not be shorter than containment.stale_after, {stale_after}");
        section.refuse("silence_isolates_after", problem);
    }
    containment
}

fn flapping(section: &mut Section<'_, '_>) -> Option<Flapping> {
    let closings = section.required(
        "closings",
        "how many closings count as flapping",
        parse::integer(limit::FLAPPING_CLOSINGS),
    );
    let cycles = section.required(
        "cycles",
        "in how many cycles they count",
        parse::integer(limit::FLAPPING_CYCLES),
    );
    let flapping = Flapping { closings: closings?, cycles: cycles? };
    if flapping.cycles < flapping.closings {
        section.refuse("cycles", "must not be fewer than containment.flapping.closings");
    }
    Some(flapping)
}

fn thresholds(section: &mut Section<'_, '_>) -> Thresholds {
    let default = Thresholds::default();
    let mut mark = |key: &'static str, mark: Mark| {
        section.read(key, |scalar| {
            let limit = mark.limit();
            let number = parse::number(scalar).ok();
            number.filter(|number| *number > 0.0 && *number <= limit).ok_or_else(|| {
                format!(
                    "must be above 0 and at most {limit}: thresholds can be tightened, never \
                     loosened"
                )
                .into()
            })
        })
    };
    let reopen = mark("reopen", Mark::Reopen).unwrap_or(default.reopen);
    let block = mark("block", Mark::Block).unwrap_or(default.block);
    let isolate = mark("isolate", Mark::Isolate).unwrap_or(default.isolate);
    Thresholds::new(reopen, block, isolate).unwrap_or_else(|fault| {
        section.refuse("block", format!("{reopen}, {block}, {isolate} {fault}"));
        default
    })
}

/// `None` when the keys make no ring; and the ids of all keys, usable or not, for what refers to
/// them.
pub(super) fn integrity(section: &mut Section<'_, '_>) -> (Option<Integrity>, BTreeSet<String>) {
    let alg = section.read("alg", parse::word).unwrap_or(Alg::HmacSha256);
    let key_id = || parse::token(KEY_ID_BYTES_MAX);
    let sign_with = section.required(
        "sign_with",
        "the id of the key that signs, one of integrity.keys",
        key_id(),
    );
    let mut ids = BTreeSet::new();
    let mut keys = BTreeMap::new();
    let mut materials = BTreeMap::new();
    section.each("keys", KEYS_MAX, |section| {
        let id = section.required("id", "the name of the key", key_id());
        let key = key(section);
        let Some(id) = id else { return };
        if !ids.insert(id.clone()) {
            section.refuse("id", format!("must be unique, and {id} stands above already"));
        } else if let Some((file, material)) = key {
            keys.insert(id.clone(), file);
            materials.insert(id, material);
        }
    });
    if ids.is_empty() {
        section.refuse("keys", "must hold at least one key; `driftgate keygen` makes one");
    }
    let keyring = sign_with.and_then(|id| keyring(section, &id, alg, materials, &ids));
    (keyring.map(|keyring| Integrity { keys, keyring }), ids)
}

fn keyring(
    section: &mut Section<'_, '_>,
    sign_with: &str,
    alg: Alg,
    materials: BTreeMap<String, KeyMaterial>,
    ids: &BTreeSet<String>,
) -> Option<Keyring> {
    let problem = match materials.get(sign_with) {
        Some(material) if material.alg() != alg => format!(
            "{sign_with} is a key for {}, and integrity.alg is {}",
            material.alg().word(),
            alg.word()
        ),
        Some(_) => match Keyring::new(materials, Some(sign_with)) {
            Ok(keyring) => return Some(keyring),
            Err(fault) => fault.to_string(),
        },
        // A key that was refused has been reported as that.
        None if ids.contains(sign_with) => return None,
        None => format!("{sign_with} is not in integrity.keys"),
    };
    section.refuse("sign_with", problem);
    None
}

fn key(section: &mut Section<'_, '_>) -> Option<(SecretFile, KeyMaterial)> {
    if !section.has("file") {
        section.refuse("file", "is required: the path of the key; `driftgate keygen` makes one");
    }
    let (file, content) = section.file("file")?;
    match keys::material(&content) {
        Ok(material) => {
            let secret = Secret::new(content.trim_ascii().to_vec());
            Some((SecretFile { file, secret }, material))
        }
        Err(problem) => {
            section.refuse("file", format!("the file {} {problem}", file.display()));
            None
        }
    }
}

/// Reads `[snapshot]`.
pub(super) fn snapshot(section: &mut Section<'_, '_>) -> Snapshot {
    let default = Snapshot::default();
    let snapshot = Snapshot {
        spool: section.read("spool", parse::path).unwrap_or(default.spool),
        level: section.read("level", parse::integer(limit::LEVEL)).unwrap_or(default.level),
        bytes_max: section
            .read("bytes_max", parse::size(limit::SNAPSHOT_BYTES_MAX))
            .unwrap_or(default.bytes_max),
        spool_bytes_max: section
            .read("spool_bytes_max", parse::size(limit::SPOOL_BYTES_MAX))
            .unwrap_or(default.spool_bytes_max),
        cache_bytes_max: section
            .read("cache_bytes_max", parse::size(limit::CACHE_BYTES_MAX))
            .unwrap_or(default.cache_bytes_max),
        keep_full: section
            .read("keep_full", parse::integer(limit::KEEP_FULL))
            .unwrap_or(default.keep_full),
        keep_for: section
            .read("keep_for", parse::duration(limit::KEEP_FOR))
            .unwrap_or(default.keep_for),
        stored_bytes_max: section
            .read("stored_bytes_max", parse::size(limit::STORED_BYTES_MAX))
            .unwrap_or(default.stored_bytes_max),
    };
    if snapshot.spool_bytes_max < snapshot.bytes_max {
        let problem =
            format!("must not be smaller than snapshot.bytes_max, {}", snapshot.bytes_max);
        section.refuse("spool_bytes_max", problem);
    }
    snapshot
}

/// Reads `[deliver]`.
pub(super) fn deliver(section: &mut Section<'_, '_>) -> Deliver {
    let default = Deliver::default();
    Deliver {
        url: section.read("url", parse::http_url),
        timeout: section
            .read("timeout", parse::duration(limit::DELIVER_TIMEOUT))
            .unwrap_or(default.timeout),
    }
}

/// Reads `[audit]`.
pub(super) fn audit(section: &mut Section<'_, '_>) -> Audit {
    let default = Audit::default();
    Audit {
        file: section.read("file", parse::path),
        bytes_max: section
            .read("bytes_max", parse::size(limit::AUDIT_BYTES_MAX))
            .unwrap_or(default.bytes_max),
        files_max: section
            .read("files_max", parse::integer(limit::AUDIT_FILES_MAX))
            .unwrap_or(default.files_max),
    }
}

/// Reads `[log]`.
pub(super) fn log(section: &mut Section<'_, '_>) -> Log {
    let default = Log::default();
    Log {
        level: section.read("level", parse::word).unwrap_or(default.level),
        format: section.read("format", parse::word).unwrap_or(default.format),
    }
}
