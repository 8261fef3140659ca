//! One entry for each kind of bytes that reach us from outside. Each says what must hold whatever
//! the bytes are; that nothing panics holds without saying. libFuzzer drives them, and a plain test
//! runs them over their corpora.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use driftgate::config::Config;
use driftgate::http::listener::Bound;
use driftgate::nats::headers::{HEADER_BYTES_MAX, InboundHeaders};
use driftgate::protocol::bridge::{Bridge, Effect, Identity, Live, Memory};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::envelope::{About, ENVELOPE_BYTES_MAX, Terms, USES_MAX, is_term};
use driftgate::protocol::exchange::Artifact;
use driftgate::protocol::gate::Band;
use driftgate::protocol::inbox::{Arrival, Inbound, Peer};
use driftgate::protocol::judge::Policy;
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use driftgate::protocol::packet::{AttractorType, RuntimeId};
use driftgate::protocol::snapshot::{Expected, FrameKind, Limits, Plain, VerifiedManifest, decode};
use driftgate::protocol::time::{Now, Timestamp};
use driftgate::protocol::trace::TraceParent;
use driftgate::protocol::view::Ticket;
use driftgate::sidecar::Sidecar;
use driftgate::snapshots::spool::Spool;

/// 2026-01-01T00:00:00Z.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// Longest wait for an answer; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// The number of what an envelope is about.
const SEQ: u64 = 1_767_225_600_000_000;

type Entry = fn(&[u8]);

const ALL: [(&str, Entry); 8] = [
    ("report", report),
    ("packet", packet),
    ("headers", headers),
    ("manifest", manifest),
    ("frame", frame),
    ("config", config),
    ("spool", spool),
    ("http", http),
];

/// Holds what must hold of bytes of this kind, which is the name of a target and of its corpus.
pub(crate) fn run(kind: &str, bytes: &[u8]) {
    let entry = ALL.iter().find(|(name, _)| *name == kind);
    let (_, entry) = entry.unwrap_or_else(|| panic!("no entry is called {kind}"));
    entry(bytes);
}

fn id(text: &str) -> RuntimeId {
    RuntimeId::new(text).expect("a valid id")
}

fn keyring() -> Keyring {
    let key = KeyMaterial::hmac_secret(&[7; 32]).expect("32 bytes");
    Keyring::new([("k1".to_owned(), key)], Some("k1")).expect("a ring")
}

fn bridge(profile: &str) -> (Bridge, Now) {
    let peer = Peer {
        id: id("critic"),
        export_state: true,
        import_state: true,
        export_snapshot: true,
        import_snapshot: true,
        export_telemetry: true,
        import_telemetry: true,
        key_id: None,
        expires: None,
        terms: Terms::default(),
    };
    let identity = Identity {
        mode: driftgate::protocol::gate::Mode::Enforce,
        runtime_id: id("planner"),
        profile: driftgate::profiles::load(profile).expect("a built-in profile"),
        attractor_type: Some(AttractorType::Symbolic),
        reply_timeout: Duration::from_secs(2),
        ack_timeout: Duration::from_secs(5),
        window: 4,
        life: None,
    };
    let live = Live {
        keyring: keyring(),
        peers: BTreeMap::from([(peer.id.clone(), peer)]),
        policy: Policy::default(),
        caution_every: 3,
        caution_blocks: false,
        blocked_inbound_hold: false,
        stale_after: Duration::from_secs(120),
        silence_isolates_after: None,
        isolate_after: None,
        barrier_timeout: Duration::from_secs(2),
        packet_max_age: Duration::from_secs(300),
        clock_skew_max: Duration::from_secs(30),
        manifest: bytes::Bytes::new(),
    };
    let now = Now { mono: Duration::ZERO, wall: Timestamp::from_unix_ms(EPOCH_MS) };
    let mut bridge = Bridge::new(identity, live, Memory::default(), now);
    drop(bridge.connected(now));
    (bridge, now)
}

/// Reports, one a line, through every built-in profile: what is published was let through, and the
/// books add up.
fn report(bytes: &[u8]) {
    for profile in driftgate::profiles::names() {
        let (mut bridge, mut now) = bridge(profile);
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            now.mono += Duration::from_secs(1);
            let ticket = Ticket(number);
            let effects = match Json::parse(line) {
                Ok(document) => bridge.report(now, ticket, &document, None),
                Err(_) => bridge.unreadable(now, ticket),
            };
            let publishes = effects.iter().any(|effect| matches!(effect, Effect::Publish { .. }));
            let is_under = bridge.drift_index().is_some_and(|index| index < 0.5);
            assert!(!publishes || (is_under && bridge.band() < Band::Blocked), "{effects:?}");
            assert!(bridge.is_balanced());
        }
    }
}

/// Packets, as they come and signed anew with a key of the fleet: what is accepted is stable and
/// comes back as the same bytes.
fn packet(bytes: &[u8]) {
    let (mut bridge, now) = bridge("srip-05");
    for bytes in [Some(bytes.to_vec()), signed(bytes)].into_iter().flatten() {
        let subject = ("critic", "planner");
        let arrival = Arrival { subject, envelope: None, drift_source: None, bytes: &bytes };
        let inbound = bridge.receive(now, &arrival);
        if let Some(Inbound::Accepted { .. }) = inbound {
            let read = keyring().open(&bytes).expect("accepted, so it verifies");
            let di = read.packet().payload.di.value();
            assert!(di < 0.5, "{di} was accepted");
            assert_eq!(read.bytes(), &bytes);
        }
    }
}

/// The same header and payload with a signature that holds.
fn signed(bytes: &[u8]) -> Option<Vec<u8>> {
    let Json::Object(mut packet) = Json::parse(bytes).ok()? else { return None };
    packet.remove("signature");
    let checksum = Digest::of(&Json::Object(packet.clone()).to_canonical());
    let seq = u64::try_from(EPOCH_MS).expect("after 1970") * 1000;
    let token = keyring().sign_checksum(Domain::Token, seq, checksum)?;
    let texts = [("checksum", checksum.to_string()), ("integrity_token", token)];
    let signature = texts.map(|(name, text)| (name.to_owned(), Json::String(text)));
    packet.insert("signature".to_owned(), Json::Object(signature.into()));
    Some(Json::Object(packet).to_canonical())
}

/// Headers, `name: value` a line: what is handed over is short, a trace is one, and no envelope
/// admits what a source without one would not be taken for under the same terms.
fn headers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut map = HeaderMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            map.append(name, value);
        }
    }
    let read = InboundHeaders::of(Some(&map));
    let texts = [read.message_id, read.drift_source];
    assert!(texts.iter().flatten().all(|text| text.len() <= HEADER_BYTES_MAX));
    if let Some(trace) = read.traceparent {
        assert_eq!(TraceParent::parse(trace.as_str()), Some(trace));
    }
    let Some(envelope) = read.envelope else { return };
    assert!(envelope.len() <= ENVELOPE_BYTES_MAX + char::MAX.len_utf8());
    judged(&envelope, Digest::of(b"a packet"));
    if let Some((envelope, checksum)) = signed_envelope(&envelope) {
        judged(&envelope, checksum);
    }
}

/// Holds an envelope against the terms of an entry that says nothing.
fn judged(envelope: &str, checksum: Digest) {
    let now = Timestamp::from_unix_ms(EPOCH_MS);
    let (critic, planner) = (id("critic"), id("planner"));
    let about = About {
        artifact: Artifact::State,
        checksum,
        seq: SEQ,
        key_id: "k1",
        source: &critic,
        target: Some(&planner),
    };
    let judged = Terms::default().judge(&keyring(), Some(envelope), None, &about, now);
    let Ok((Some(read), admission)) = judged else { return };
    assert_eq!(admission.allowed_use, ["evidence"]);
    assert!(read.allowed_use.len() <= USES_MAX);
    assert!(read.allowed_use.iter().chain(&read.scope).all(|term| is_term(term)));
    assert_eq!(read.drift_source, Provenance::Native);
    assert!(read.expires.is_none_or(|expires| expires > now));
}

/// The same envelope with a signature that holds, and of the packet that it says it is about.
fn signed_envelope(text: &str) -> Option<(String, Digest)> {
    let Json::Object(mut members) = Json::parse(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()? else {
        return None;
    };
    members.remove("signature");
    let said = Json::Object(members.clone());
    let about = Digest::parse(said.pointer("/artifact/checksum")?.as_str()?)?;
    let checksum = Digest::of(&said.to_canonical());
    let token = keyring().sign_checksum(Domain::Exchange, SEQ, checksum)?;
    let texts = [("checksum", checksum.to_string()), ("integrity_token", token)];
    let signature = texts.map(|(name, text)| (name.to_owned(), Json::String(text)));
    members.insert("signature".to_owned(), Json::Object(signature.into()));
    Some((URL_SAFE_NO_PAD.encode(Json::Object(members).to_canonical()), about))
}

/// Manifests: what verifies is written again as the same bytes.
fn manifest(bytes: &[u8]) {
    let keyring = keyring();
    for bytes in [Some(bytes.to_vec()), signed_manifest(bytes)].into_iter().flatten() {
        if let Ok(verified) = VerifiedManifest::open(&keyring, &bytes) {
            assert_eq!(verified.manifest().sign(&keyring), Some(bytes));
        }
    }
}

/// The same members with a signature that holds.
fn signed_manifest(bytes: &[u8]) -> Option<Vec<u8>> {
    let Json::Object(mut members) = Json::parse(bytes).ok()? else { return None };
    members.retain(|name, _| name != "checksum" && name != "integrity_token");
    let seq = format!("{}", members.get("seq")?.as_f64()?).parse().ok()?;
    let checksum = Digest::of(&Json::Object(members.clone()).to_canonical());
    let token = keyring().sign_checksum(Domain::Token, seq, checksum)?;
    for (name, text) in [("checksum", checksum.to_string()), ("integrity_token", token)] {
        members.insert(name.to_owned(), Json::String(text));
    }
    Some(Json::Object(members).to_canonical())
}

/// Stored frames of both kinds: what decodes is what was named, and within the limits.
fn frame(bytes: &[u8]) {
    let limits = Limits { plain_bytes_max: 1 << 20, window_log_max: 22 };
    let base = Plain::new(vec![b'a'; 4096]);
    for kind in [FrameKind::Full, FrameKind::Delta] {
        for named in [Digest::of(bytes), Digest::of(b"a memory")] {
            let plain = decode(kind, bytes, Some(&base), &Expected::digest(named), &limits);
            if let Ok(plain) = plain {
                assert!(plain.digest() == named && plain.size() <= limits.plain_bytes_max);
            }
        }
    }
}

/// A configuration file in each of its two languages, alone and over one that is whole.
fn config(bytes: &[u8]) {
    const WHOLE: &str = "runtime = {id = \"planner\"}\n\
        integrity = {sign_with = \"k1\", keys = [{id = \"k1\", file = \"/k1\"}]}\n";
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    for name in ["/fuzz.toml", "/fuzz.yaml"] {
        let read = |path: &Path| match path.to_str() {
            Some("/whole.toml") => Ok(WHOLE.as_bytes().to_vec()),
            Some("/k1") => Ok(key.as_bytes().to_vec()),
            Some(path) if path == name => Ok(bytes.to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        for files in [vec![name.into()], vec!["/whole.toml".into(), name.into()]] {
            if let Err(mistakes) = Config::load(&files, &BTreeMap::new(), &read) {
                assert!(!mistakes.to_string().is_empty());
            }
        }
    }
}

/// Records that an earlier life left, as they come and sealed anew, under each name that a record
/// may have: what is kept reads as what was accepted, and what was revoked is not to be sent.
fn spool(bytes: &[u8]) {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let sealed = [line, format!("\n{}\n", Digest::of(line)).as_bytes()].concat();
    for record in [bytes, &sealed] {
        for name in ["unsent", "revoked", "stored", "unfinished"] {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("1.plain"), b"a memory").expect("a disk");
            std::fs::write(folder.path().join(format!("1.{name}")), record).expect("a disk");
            let spool = Spool::open(folder.path(), 1 << 20).expect("nobody else has it");
            let recovery = spool.recover().expect("a folder can be read");
            assert!(recovery.entries.len() <= 1);
            for entry in recovery.entries {
                assert_eq!(entry.state.word(), name);
                assert_eq!(
                    &spool.read(entry.seq).expect("it was checked").bytes()[..],
                    b"a memory"
                );
            }
        }
    }
}

/// Bytes on the API's socket, `HOST` in them being its address: it answers or hangs up, and answers
/// the next one.
fn http(bytes: &[u8]) {
    let api = served();
    let bytes = named(bytes, &api.to_string());
    let connect = || {
        let stream = TcpStream::connect(api).expect("the listener stands");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    };
    let mut stream = connect();
    // A peer that hangs up early is what some bytes deserve.
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = read(&mut stream);
    let mut stream = connect();
    let request = b"GET /aegida/safety HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";
    stream.write_all(&named(request, &api.to_string())).expect("it reads");
    answer.clear();
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

/// An answer, up to its end; of a stream of events, which has none while its reader is there, what
/// there is.
fn read(stream: &mut TcpStream) -> Vec<u8> {
    const EVENTS: &[u8] = b"text/event-stream";
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !answer.windows(EVENTS.len()).any(|window| window == EVENTS) {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => answer.extend(piece.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("no end after {PATIENCE:?}: {}", String::from_utf8_lossy(&answer))
            }
            Ok(_) | Err(_) => break,
        }
    }
    answer
}

fn named(bytes: &[u8], host: &str) -> Vec<u8> {
    const PLACE: &[u8] = b"HOST";
    let at = bytes.windows(PLACE.len()).position(|window| window == PLACE);
    let Some((head, tail)) = at.and_then(|at| bytes.split_at_checked(at)) else {
        return bytes.to_vec();
    };
    let tail = named(tail.strip_prefix(PLACE).unwrap_or_default(), host);
    [head, host.as_bytes(), &tail].concat()
}

/// The API of a sidecar whose broker is away; one for the whole process.
fn served() -> SocketAddr {
    static SERVED: OnceLock<SocketAddr> = OnceLock::new();
    *SERVED.get_or_init(|| {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("served".to_owned())
            .spawn(move || {
                let folder = tempfile::tempdir().expect("a folder");
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    // libFuzzer's `main` is not Rust's: a client that hangs up would end us.
                    let pipe = tokio::signal::unix::SignalKind::pipe();
                    let _pipe = tokio::signal::unix::signal(pipe).expect("a handler");
                    let sidecar = Sidecar::start(&settings(folder.path())).await.expect("starts");
                    let Bound::Tcp(api) = sidecar.api else { panic!("no address") };
                    tell.send(api).expect("somebody waits");
                    std::future::pending::<()>().await;
                });
            })
            .expect("a thread");
        told.recv().expect("an address")
    })
}

fn settings(folder: &Path) -> Config {
    let text = format!(
        "runtime = {{id = \"planner\"}}\n\
         nats = {{url = [\"nats://127.0.0.1:9\"]}}\n\
         listen = {{api = \"127.0.0.1:0\", admin = \"127.0.0.1:0\"}}\n\
         integrity = {{sign_with = \"k1\", keys = [{{id = \"k1\", file = \"/k1\"}}]}}\n\
         snapshot = {{spool = \"{0}/spool\"}}\naudit = {{file = \"{0}/audit\"}}\n",
        folder.display()
    );
    let read = |path: &Path| match path.to_str() {
        Some("/file.toml") => Ok(text.as_bytes().to_vec()),
        Some("/k1") => Ok(b"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    Config::load(&["/file.toml".into()], &BTreeMap::new(), &read)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}
