//! Every section read into its type, with what its keys must agree on.
//!
//! A refused value is noted and its default used in its place, only to go on looking: the
//! configuration that comes of it is thrown away by `config.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::limit;
use super::parse;
use super::secret::{Key, KeyMaterial, Secret, SecretFile};
use super::section::Section;
use super::settings::{
    Audit, ClientCertificate, Containment, Credentials, Deliver, Durability, Ingest, Integrity,
    Listen, Listener, Log, Nats, Peer, Profile, Runtime, Scopes, Snapshot, Tail, Tls,
};
use crate::protocol::drift::Coherence;
use crate::protocol::gate::{Mark, Thresholds};
use crate::protocol::judge::Policy;
use crate::protocol::packet::RuntimeId;

/// `None` when the id is absent or was refused.
pub(super) fn runtime(section: &mut Section<'_, '_>) -> Option<Runtime> {
    let id = section.required(
        "id",
        "the name of this runtime, unique in the fleet and the same after a restart",
        parse::runtime_id,
    );
    let attractor_type = section.read("attractor_type", parse::attractor_type);
    let profile = profile(section).unwrap_or_default();
    Some(Runtime { id: id?, attractor_type, profile })
}

fn profile(section: &mut Section<'_, '_>) -> Option<Profile> {
    const WORDS: &str = "srip-05, reference-0.1, reference-0.3";
    let path = match section.read("profile", parse::text)?.as_str() {
        "srip-05" => return Some(Profile::Srip05),
        "reference-0.1" => return Some(Profile::Reference01),
        "reference-0.3" => return Some(Profile::Reference03),
        file if file.contains(['/', '.']) => PathBuf::from(file),
        word => {
            let problem = format!("must be one of {WORDS}, or the path of a profile, not {word:?}");
            section.refuse("profile", problem);
            return None;
        }
    };
    let content = section.content("profile", &path)?;
    let Ok(text) = String::from_utf8(content) else {
        section.refuse("profile", format!("the file {} is not UTF-8", path.display()));
        return None;
    };
    Some(Profile::File { path, text })
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
            key_id: section.read("key_id", parse::token(limit::KEY_ID_BYTES_MAX)),
            expires: section.read("expires", parse::timestamp),
        };
        let Some(id) = id else { return };
        if Some(&id) == own {
            section.refuse("id", format!("must not be runtime.id itself, {id}"));
        } else if peers.contains_key(&id) {
            section.refuse("id", format!("must be unique, and {id} stands above already"));
        } else {
            peers.insert(id, peer);
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
        inbox_prefix: section
            .read("inbox_prefix", parse::subject_prefix)
            .unwrap_or(default.inbox_prefix),
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
    let creds = section.file("creds_file");
    let nkey = section.file("nkey_file");
    match (creds, nkey) {
        (Some(_), Some(_)) => {
            section.refuse("nkey_file", "must not be given together with nats.creds_file");
            Credentials::None
        }
        (Some((path, _)), None) => Credentials::CredsFile(path),
        (None, Some((path, content))) => {
            let text = core::str::from_utf8(&content).unwrap_or_default().trim();
            if nkeys::KeyPair::from_seed(text).is_err() {
                section.refuse("nkey_file", "must name a file with an nkey seed (SU...)");
            }
            Credentials::NkeyFile(path)
        }
        (None, None) => Credentials::None,
    }
}

fn tls(section: &mut Section<'_, '_>) -> Tls {
    let ca_file = section.file("ca_file").map(|(path, _)| path);
    let cert = section.read("cert_file", parse::path);
    let key = section.read("key_file", parse::path);
    let required = section.read("required", parse::flag).unwrap_or(false);
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
    Tls { ca_file, client, required }
}

/// Reads `[listen]`.
pub(super) fn listen(section: &mut Section<'_, '_>) -> Listen {
    let default = Listen::default();
    let listen = Listen {
        api: section.read("api", parse::listener).unwrap_or(default.api),
        admin: section.read("admin", parse::socket_address).unwrap_or(default.admin),
        token: token(section),
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

fn token(section: &mut Section<'_, '_>) -> Option<SecretFile> {
    let (file, content) = section.file("token_file")?;
    let token = content.trim_ascii();
    if limit::TOKEN_BYTES.contains(&token.len()) && token.iter().all(u8::is_ascii_graphic) {
        return Some(SecretFile { file, secret: Secret::new(token.to_vec()) });
    }
    let (start, end) = (limit::TOKEN_BYTES.start(), limit::TOKEN_BYTES.end());
    let problem = format!(
        "the file {} must hold one token of {start} to {end} printable ASCII characters",
        file.display()
    );
    section.refuse("token_file", problem);
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

/// `None` when there is no usable key to sign with.
pub(super) fn integrity(section: &mut Section<'_, '_>) -> Option<Integrity> {
    let algorithm = section.read("alg", parse::word).unwrap_or_default();
    let key_id = || parse::token(limit::KEY_ID_BYTES_MAX);
    let sign_with = section.required(
        "sign_with",
        "the id of the key that signs, one of integrity.keys",
        key_id(),
    );
    let mut keys = BTreeMap::new();
    let mut ids = Vec::new();
    section.each("keys", limit::KEYS_MAX, |section| {
        let id = section.required("id", "the name of the key", key_id());
        let key = key(section);
        let Some(id) = id else { return };
        if ids.contains(&id) {
            section.refuse("id", format!("must be unique, and {id} stands above already"));
        }
        ids.push(id.clone());
        if let Some(key) = key {
            keys.insert(id, key);
        }
    });
    if ids.is_empty() {
        section.refuse("keys", "must hold at least one key; `driftgate keygen` makes one");
    }
    let sign_with = sign_with?;
    match keys.get(&sign_with) {
        Some(key) if key.material.signs() != Some(algorithm) => {
            section
                .refuse("sign_with", format!("the key {sign_with} cannot sign with integrity.alg"));
        }
        Some(_) => {}
        None if ids.contains(&sign_with) => {}
        None => section.refuse("sign_with", format!("{sign_with} is not in integrity.keys")),
    }
    Some(Integrity { algorithm, sign_with, keys })
}

fn key(section: &mut Section<'_, '_>) -> Option<Key> {
    if !section.has("file") {
        section.refuse("file", "is required: the path of the key; `driftgate keygen` makes one");
    }
    let (file, content) = section.file("file")?;
    let material = KeyMaterial::parse(&content);
    if material.is_none() {
        let problem = format!(
            "the file {} must hold the base64 of 32 bytes, a user nkey seed (SU...) or a user \
             nkey (U...)",
            file.display()
        );
        section.refuse("file", problem);
    }
    Some(Key { file, material: material? })
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
