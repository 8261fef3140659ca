//! Every key of the configuration: one row each, with its meaning, type, kind and range, what
//! stands for it when absent, and when a change takes effect. Nothing else says any of these:
//! reading, comparing, `config/driftgate.toml` and `docs/configuration.md` come from here.
//!
//! A key that says `live` takes the function that tells which of two values is stricter; the others
//! take a restart. Deliberately not here: what two keys must agree on (`agree.rs`).

use core::time::Duration;
use std::net::SocketAddr;
use std::path::PathBuf;

use tracing::Level;

use super::key::{Effect, Key, Row, Section, differ, section};
use super::key::{higher, keep, lower, lower_or_any, lower_or_none};
use super::names::{AssetName, Prefix, ServerUrl};
use super::parse::{
    LIST_LEN_MAX, asset_name, attractor_type, capabilities, choice, coherence, duration, file,
    flag, host, host_name, http_url, integer, key_file, key_id, list, listener, mark, nkey_file,
    origin, path, profile, runtime_id, scopes, server, size, socket_address, subject_prefix, term,
    timestamp, token_file, word,
};
use super::secret::{KeyFile, SecretFile};
use super::table::Table;
use super::words::{BlockedInbound, Caution, DriftSource, Durability, Fleet, Listener};
use crate::protocol::capabilities::Declared;
use crate::protocol::drift::{Coherence, Provenance};
use crate::protocol::envelope::USES_MAX;
use crate::protocol::gate::{Mark, Mode};
use crate::protocol::keyring::Alg;
use crate::protocol::packet::{AttractorType, RuntimeId};
use crate::protocol::profile::Profile;
use crate::protocol::time::Timestamp;
use crate::telemetry::LogFormat;

/// Most packets in flight.
pub const WINDOW_MAX: usize = 2048;
/// The highest lock: what the specification calls critical.
const LOCK_MAX: f64 = 0.7;

section! {
    /// Whom this sidecar speaks for.
    Runtime at "runtime" {
        /// The runtime's name, unique in the fleet and the same after a restart.
        id: RuntimeId = runtime_id().required(
            "the name of this runtime, unique in the fleet and the same after a restart", "planner");
        /// Attractor type where a report names none.
        attractor_type: Option<AttractorType> = attractor_type()
            .optional("none, and such a report cannot be exported", "symbolic");
        /// The runtime_capabilities.yml that narrows what the sidecar says of itself to peers;
        /// config/runtime_capabilities.yml is an example.
        capabilities: Option<(PathBuf, Declared)> = capabilities().optional(
            "the sidecar's own knowledge", "/etc/driftgate/runtime_capabilities.yml").live(keep);
        /// What the runtime's reports look like: srip-05 (native), a public runtime's, or a file's.
        profile: Profile = profile().or("srip-05");
    }
}

section! {
    /// Who is reached and who is heard. Nobody is who is not listed. At most 10,000 entries.
    Peer at "peers[]" {
        /// The peer's runtime id: unique, and not runtime.id.
        id: RuntimeId = runtime_id().required("the runtime id of the peer", "critic").live(keep);
        /// What is sent to it.
        export: Scopes = scopes().or("").live(keep);
        /// What is accepted from it.
        import: Scopes = scopes().or("").live(keep);
        /// The only key of integrity.keys that it may sign with.
        key_id: Option<String> = key_id().optional("any of them", "k1").live(keep);
        /// When the authorisation ends.
        expires: Option<Timestamp> = timestamp().optional("never", "2030-01-01T00:00:00Z").live(keep);
        /// The weakest drift source that its packets may have: native, or derived, where a profile
        /// of its own computes parts of the index.
        accept: DriftSource =
            word(&[("native", DriftSource::Native), ("derived", DriftSource::Derived)])
                .or("native").live(keep);
        /// The name of this exchange, the same in both entries: it stands in the signed envelope of
        /// what is sent, and what comes under another or none is refused.
        scope: Option<String> = term().optional("none is asked for", "planning").live(keep);
        /// What the two may do with what they exchange: it stands in the envelope of what is sent,
        /// and what comes may be used for no more. Without an envelope that is evidence.
        allowed_use: Vec<String> = list(term(), 1..=USES_MAX).or("evidence").live(keep);
    }
}

section! {
    /// The broker.
    Nats at "nats" {
        /// Servers of one cluster.
        url: Vec<ServerUrl> = list(server(), 1..=LIST_LEN_MAX).or("nats://127.0.0.1:4222");
        /// What every subject begins with.
        prefix: Prefix = subject_prefix().or("driftgate.v1");
        /// Credentials with a JWT and a seed; at most one of creds_file, nkey_file and token_file,
        /// each read again at each connect.
        creds_file: Option<PathBuf> = file().optional("no such proof", "/etc/driftgate/nats.creds");
        /// Credentials with a user nkey seed.
        nkey_file: Option<PathBuf> = nkey_file().optional("no such proof", "/etc/driftgate/nats.nk");
        /// Credentials with a token.
        token_file: Option<PathBuf> = file().optional("no such proof", "/etc/driftgate/nats.token");
        /// Create streams, buckets and consumers that are absent; else only bind and compare.
        provision: bool = flag().or("true");
        /// Copies of what is created. An even number adds cost and no safety.
        replicas: u8 = choice(&[1, 3, 5]).or("1");
        /// How sure a stored packet is: acked (by the stream), replicated (and the stream has 3
        /// copies or more), synced (and it stands on servers with the tag sync:always, which write
        /// to disk before they acknowledge). A stream that falls short is named by /readyz.
        durability: Durability = word(&[
            ("acked", Durability::Acked),
            ("replicated", Durability::Replicated),
            ("synced", Durability::Synced),
        ]).or("acked");
        /// The stream that packets go to.
        stream_out: AssetName = asset_name().or("DRIFTGATE_STATE");
        /// The stream that packets come from; another one where clusters are joined by sourcing.
        stream_in: AssetName = asset_name().or("DRIFTGATE_STATE");
        /// The stream that keeps refused inbound bytes.
        stream_quarantine: AssetName = asset_name().or("DRIFTGATE_QUARANTINE");
        /// The JetStream domain of the streams and buckets.
        domain: Option<AssetName> = asset_name().optional("the server's own", "hub");
        /// What the subjects of replies begin with, so that server permissions can keep others from
        /// reading them.
        inbox_prefix: Option<Prefix> = subject_prefix()
            .optional("_INBOX. and the runtime id", "_INBOX.planner");
        /// Wait for a connection to one server.
        // Below, every handshake fails; above, an outage looks like a slow start.
        connect_timeout: Duration = duration("100ms", "1m").or("5s");
        /// Between pings. Two unanswered ones end the connection.
        ping_interval: Duration = duration("1s", "5m").or("10s");
        /// Packets in flight without an acknowledgement.
        // The connection's queues are made from the upper end.
        window: usize = integer(1..=WINDOW_MAX).or("256");
        /// Wait for one acknowledgement, before its outcome counts as unknown.
        ack_timeout: Duration = duration("100ms", "1m").or("5s");
    }
}

section! {
    /// Transport security towards the broker.
    Tls at "nats.tls" {
        /// Certificates to trust beside those of the system, PEM.
        ca_file: Option<PathBuf> = file().optional("only those", "/etc/driftgate/tls/ca.pem");
        /// Client certificate, PEM; needs key_file.
        cert_file: Option<PathBuf> = file().optional("none", "/etc/driftgate/tls/cert.pem");
        /// Its key, PEM; needs cert_file.
        key_file: Option<PathBuf> = file().optional("none", "/etc/driftgate/tls/key.pem");
        /// Refuse a server that offers no TLS.
        required: bool = flag().or("false");
        /// Speak TLS before the server's greeting, for servers with handshake_first.
        first: bool = flag().or("false");
    }
}

section! {
    /// The local interface.
    Listen at "listen" {
        /// The API. Port 0 takes a free one. Anything but loopback needs token_file.
        api: Listener = listener().or("127.0.0.1:7405");
        /// Probes and metrics; 0.0.0.0:7406 in a pod.
        admin: SocketAddr = socket_address().or("127.0.0.1:7406");
        /// The console, a page for a browser on this machine; 127.0.0.1:7407 in a pod, for `kubectl
        /// port-forward`. Loopback only; what it shows asks for operator_token_file.
        console: Option<SocketAddr> = socket_address().optional("no console", "127.0.0.1:7407");
        /// On a Unix socket: user ids that are let in beside the sidecar's own and root's.
        socket_uids: Vec<u32> = list(integer(0..=u32::MAX), 0..=LIST_LEN_MAX).or("");
        /// The bearer token that every call of the API must carry.
        token_file: Option<SecretFile> = token_file()
            .optional("none is asked for", "/etc/driftgate/token");
        /// The operator's bearer token, which POST /operator/release and the console ask for.
        operator_token_file: Option<SecretFile> = token_file()
            .optional("nobody can release over HTTP", "/etc/driftgate/operator-token");
        /// Origin values that are let in.
        allowed_origins: Vec<String> = list(origin(), 0..=LIST_LEN_MAX).or("");
        /// Host values that are let in beside the loopback ones.
        allowed_hosts: Vec<String> = list(host(), 0..=LIST_LEN_MAX).or("");
        /// Names by which the admin listener may be called, with any port, beside addresses and
        /// localhost.
        admin_hosts: Vec<String> = list(host_name(), 0..=LIST_LEN_MAX).or("");
        /// Largest body of a report.
        // Below, no report fits; above, it is not a report.
        body_bytes_max: u64 = size("1KiB", "16MiB").or("256KiB");
        /// Most connections on each listener. One in four may be an event stream.
        connections_max: usize = integer(1..=65_536).or("256");
        /// Wait for the head of a request.
        header_timeout: Duration = duration("100ms", "1m").or("5s");
        /// Longest time that any call takes, but one that waits for the next report's explanation.
        reply_timeout: Duration = duration("100ms", "1m").or("2s");
    }
}

section! {
    /// The page of listen.console.
    Console at "console" {
        /// Whose presence it shows: peers (the configured ones) or all that is in the bucket.
        fleet: Fleet = word(&[("peers", Fleet::Peers), ("all", Fleet::All)]).or("peers");
    }
}

section! {
    /// How reports come in; at least one way.
    Ingest at "ingest" {
        /// Serve POST /field/state.
        http: bool = flag().or("true");
    }
}

section! {
    /// Follow a JSONL file that the runtime appends to.
    TailKeys at "ingest.tail" {
        /// The file; it need not exist yet.
        path: Option<PathBuf> = path().optional("no file is followed", "/var/log/runtime/cycles.jsonl");
        /// Between two looks at it.
        // Below, an idle sidecar is not idle.
        interval: Duration = duration("10ms", "10s").or("250ms");
        /// Longest line that is read as a report.
        line_bytes_max: u64 = size("1KiB", "16MiB").or("256KiB");
    }
}

section! {
    /// The gate. Thresholds can be tightened, never loosened; reopen <= block <= isolate.
    Containment at "containment" {
        /// enforce, or shadow: all is judged, counted and shown, and nothing is exported.
        mode: Mode = word(&[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)]).or("enforce");
        /// Caution begins here, and a closed gate opens only below.
        reopen: f64 = mark(Mark::Reopen.limit()).or("0.45").live(lower);
        /// Publication is cut from here.
        block: f64 = mark(Mark::Block.limit()).or("0.5").live(lower);
        /// Subscription is cut from here.
        isolate: f64 = mark(Mark::Isolate.limit()).or("0.6").live(lower);
        /// An index from here up stays isolated until an operator releases it, also across
        /// restarts.
        lock: Option<f64> = mark(LOCK_MAX).optional("none", "0.7").live(lower_or_any);
        /// Good reports in a row that reopen.
        // Beyond, a gate would in effect never reopen.
        dwell: u32 = integer(1..=100).or("1").live(higher);
        /// The weakest evidence that counts: native (the runtime reports all four parts of the
        /// index), reported (a bare index), derived (a profile computes parts; an explicit opt-in).
        accept: Provenance = word(&[
            ("native", Provenance::Native),
            ("reported", Provenance::Reported),
            ("derived", Provenance::Derived),
        ]).or("native").live(higher);
        /// Coherence that you vouch for where a profile reports none.
        assumed_scr: Option<Coherence> = coherence().optional(
            "none, because a coherence that nobody measured makes the index look small", "0.8",
        ).live(lower_or_none);
        /// In caution: throttle (send one report in caution_every) or block (send nothing).
        caution: Caution = word(&[("throttle", Caution::Throttle), ("block", Caution::Block)])
            .or("throttle").live(higher);
        /// One report in so many is sent in caution. One would not be reduced.
        caution_every: u32 = integer(2..=1000).or("3").live(higher);
        /// Silence that blocks.
        // Below no runtime keeps up, above nobody is watching.
        stale_after: Duration = duration("1s", "24h").or("120s").live(lower);
        /// Silence that isolates, not below stale_after.
        silence_isolates_after: Option<Duration> = duration("1s", "30d").optional(
            "never, because an idle runtime is not a drifting one", "15m").live(lower_or_any);
        /// Time blocked that isolates.
        isolate_after: Option<Duration> = duration("1s", "30d").optional("never", "30m")
            .live(lower_or_any);
        /// Packets that arrive while blocked: deliver (to the runtime, as evidence) or hold (on the
        /// stream).
        blocked_inbound: BlockedInbound =
            word(&[("deliver", BlockedInbound::Deliver), ("hold", BlockedInbound::Hold)])
                .or("deliver").live(higher);
        /// Wait for the broker's word that a cut is complete, not above listen.reply_timeout. After
        /// it the connection is dropped.
        barrier_timeout: Duration = duration("10ms", "1m").or("2s").live(keep);
        /// Oldest packet that is accepted.
        // The stream keeps packets for an hour.
        packet_max_age: Duration = duration("1s", "1h").or("5m").live(lower);
        /// How far ahead a packet may be dated.
        // Clocks further apart want mending, not allowance.
        clock_skew_max: Duration = duration("0s", "5m").or("30s").live(lower);
        /// For an operator without HTTP: while this file exists, the gate is isolated; taking it
        /// away takes the hold back (and opens nothing by itself). Seen at once, or within a second
        /// where the file system may not tell. The runtime must not be able to write its folder.
        hold_file: Option<PathBuf> = path()
            .optional("the file `hold` in snapshot.spool", "/var/lib/driftgate/spool/hold");
    }
}

section! {
    /// So many closings in so many cycles ask for a dwell of 3, twice as many isolate.
    FlappingKeys at "containment.flapping" {
        /// How many closings; needs cycles.
        closings: Option<u32> = integer(2..=100).optional("not looked at", "3").live(lower_or_any);
        /// In how many cycles, not fewer than closings; needs closings.
        cycles: Option<u32> = integer(2..=10_000).optional("not looked at", "50").live(higher);
    }
}

section! {
    /// The keys. `driftgate keygen` makes one.
    Integrity at "integrity" {
        /// hmac-sha256, or ed25519 with the runtime's nkey.
        alg: Alg = word(&[("hmac-sha256", Alg::HmacSha256), ("ed25519", Alg::Ed25519)])
            .or("hmac-sha256").live(keep);
        /// The key that signs: one of integrity.keys, of the kind that alg asks for.
        sign_with: String = key_id()
            .required("the id of the key that signs, one of integrity.keys", "k1").live(keep);
    }
}

section! {
    /// All keys; each of them verifies. At least one, at most 20,000.
    KeyKeys at "integrity.keys[]" {
        /// The name of the key: unique.
        id: String = key_id().required("the name of the key", "k1").live(keep);
        /// What it is.
        file: KeyFile = key_file().required(
            "the path of the key; `driftgate keygen` makes one", "/etc/driftgate/keys/k1").live(keep);
    }
}

section! {
    /// Memory snapshots.
    Snapshot at "snapshot" {
        /// Folder for what is accepted and not yet at the broker, and for the sidecar's memory.
        spool: PathBuf = path().or("/var/lib/driftgate/spool");
        /// zstd level. Higher ones need memory that a sidecar does not have.
        level: i32 = integer(1..=19).or("3");
        /// Largest snapshot, in plain bytes. Under a container's memory limit a quarter of what it
        /// leaves beside 48MiB, at most: the default shrinks to that, and more is refused.
        bytes_max: u64 = size("1KiB", "4GiB").or("64MiB");
        /// The whole spool, not below bytes_max. Keep it under 80 % of the volume: a pod is
        /// evicted, not told, when its volume is full.
        spool_bytes_max: u64 = size("1MiB", "1024GiB").or("512MiB");
        /// Snapshots held in memory between uploads; a container's memory limit bounds it as it
        /// does bytes_max. An upload adds at its peak twice what the snapshot and its base have
        /// together, and for zstd's tables and what glibc's allocator keeps some 25MiB at level 3,
        /// up to 160MiB at level 9; less with MALLOC_MMAP_THRESHOLD_=262144 in the environment.
        cache_bytes_max: u64 = size("0", "16GiB").or("64MiB");
        /// Full snapshots that are kept at the broker.
        keep_full: u32 = integer(1..=1000).or("2");
        /// What is younger than this is never collected.
        keep_for: Duration = duration("0s", "30d").or("1h");
        /// Bytes of ours at the broker, as stored. Beyond them a push is refused.
        stored_bytes_max: u64 = size("1MiB", "1024GiB").or("1GiB");
    }
}

section! {
    /// Inbound packets handed to the runtime as they arrive.
    Deliver at "deliver" {
        /// Where they are posted.
        url: Option<hyper::Uri> = http_url()
            .optional("nowhere; the runtime asks GET /field/state", "http://127.0.0.1:8080/inbox");
        /// Wait for the runtime to take one.
        timeout: Duration = duration("10ms", "1m").or("2s");
    }
}

section! {
    /// A hash-chained log of containment events.
    Audit at "audit" {
        /// The file.
        file: Option<PathBuf> = path().optional("none is written", "/var/lib/driftgate/audit.jsonl");
        /// When a file of it is full.
        bytes_max: u64 = size("64KiB", "16GiB").or("16MiB");
        /// Files that are kept, the newest among them.
        files_max: u32 = integer(1..=1000).or("8");
    }
}

section! {
    /// The log of the sidecar itself, on standard error.
    Log at "log" {
        /// How much.
        level: Level = word(&[
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ]).or("info").live(keep);
        /// json (one object per line), or text for people.
        format: LogFormat = word(&[("json", LogFormat::Json), ("text", LogFormat::Text)]).or("json");
    }
}

/// What may pass between this runtime and one peer, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Packets.
    pub state: bool,
    /// Memory snapshots.
    pub snapshot: bool,
    /// Phase telemetry.
    pub telemetry: bool,
}

impl Scopes {
    /// Nothing.
    pub const NONE: Self = Self { state: false, snapshot: false, telemetry: false };

    /// The words, in the order of the fields.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let all =
            [(self.state, "state"), (self.snapshot, "snapshot"), (self.telemetry, "telemetry")];
        all.into_iter().filter_map(|(granted, word)| granted.then_some(word)).collect()
    }

    /// Everything that either grants.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            state: self.state || other.state,
            snapshot: self.snapshot || other.snapshot,
            telemetry: self.telemetry || other.telemetry,
        }
    }

    /// What both grant.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            state: self.state && other.state,
            snapshot: self.snapshot && other.snapshot,
            telemetry: self.telemetry && other.telemetry,
        }
    }

    /// Whether nothing may pass.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}
