//! The typed configuration, one struct per section of `config/driftgate.toml`, and every default.
//!
//! A value that exists has passed its range. Deliberately not here: how it was written down
//! (`parse.rs`), and what two sections must agree on (`read.rs`).

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use async_nats::ServerAddr;

use super::secret::SecretFile;
use crate::protocol::drift::Coherence;
use crate::protocol::judge::Policy;
use crate::protocol::keyring::Keyring;
use crate::protocol::packet::{AttractorType, RuntimeId};
use crate::protocol::profile::Profile;
use crate::protocol::time::Timestamp;

/// `[runtime]`: whom this sidecar speaks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// The runtime's identity. Stable across restarts, one NATS token.
    pub id: RuntimeId,
    /// Attractor type where a report names none. Without it such a report cannot fill a packet.
    pub attractor_type: Option<AttractorType>,
    /// How reports are translated (DESIGN section 4 "Profiles"). The default is `srip-05`.
    pub profile: Profile,
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

    /// Whether nothing may pass.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// One entry of `[[peers]]`. Who is not listed is neither reached nor heard (SPEC R67).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// What is sent to it.
    pub export: Scopes,
    /// What is accepted from it.
    pub import: Scopes,
    /// The only key that it may sign with; any key of the ring otherwise.
    pub key_id: Option<String>,
    /// When the authorisation ends; open-ended otherwise.
    pub expires: Option<Timestamp>,
    /// The weakest drift source that its packets may have.
    pub accept: DriftSource,
}

/// Where the drift metrics of a packet may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriftSource {
    /// The runtime reported all four parts. The default.
    #[default]
    Native,
    /// Or a profile computed parts that it does not report.
    Derived,
}

/// How sure a stored packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The stream has acknowledged it. The default.
    #[default]
    Acked,
    /// And the stream has at least three replicas.
    Replicated,
    /// And it stands on servers that write to disk before they acknowledge (placement tag
    /// `sync:always`).
    Synced,
}

/// How the sidecar identifies itself to NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all, or by its client certificate.
    #[default]
    None,
    /// A credentials file with a JWT and a seed.
    CredsFile(PathBuf),
    /// A file with a user nkey seed.
    NkeyFile(PathBuf),
    /// A file with a token.
    TokenFile(PathBuf),
}

impl Credentials {
    /// The key that names the file, and the file.
    #[must_use]
    pub fn file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::None => None,
            Self::CredsFile(file) => Some(("nats.creds_file", file)),
            Self::NkeyFile(file) => Some(("nats.nkey_file", file)),
            Self::TokenFile(file) => Some(("nats.token_file", file)),
        }
    }
}

/// `[nats.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates to trust beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    pub client: Option<ClientCertificate>,
    /// Refuse a server that offers no TLS.
    pub required: bool,
    /// Speak TLS before the server's greeting, for servers with `handshake_first`.
    pub first: bool,
}

/// Certificate and key that the sidecar shows to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

/// `[nats]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Nats {
    /// Servers, at least one.
    pub url: Vec<ServerAddr>,
    /// What every subject begins with.
    pub prefix: String,
    /// Identity towards the server.
    pub credentials: Credentials,
    /// Transport security.
    pub tls: Tls,
    /// Create streams, buckets and consumers that are absent; else only bind and compare.
    pub provision: bool,
    /// Copies of each stream and bucket, one of `limit::REPLICAS`.
    pub replicas: usize,
    /// How sure a stored packet is.
    pub durability: Durability,
    /// The stream that packets are published to.
    pub stream_out: String,
    /// The stream that packets are read from; another one where clusters are joined by sourcing.
    pub stream_in: String,
    /// The stream that keeps refused inbound bytes.
    pub stream_quarantine: String,
    /// The JetStream domain of the streams and buckets; without it the server's own.
    pub domain: Option<String>,
    /// What the subjects of replies begin with; without it `_INBOX.` and the runtime id, so that
    /// permissions can keep others from reading them.
    pub inbox_prefix: Option<String>,
    /// Wait for a connection to one server.
    pub connect_timeout: Duration,
    /// Between pings to the server.
    pub ping_interval: Duration,
    /// Packets in flight without an acknowledgement.
    pub window: usize,
    /// Wait for one acknowledgement before its outcome counts as unknown.
    pub ack_timeout: Duration,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            // An address that is written here and always parses; an empty list is refused by
            // `read.rs`, so a failure would be seen at once.
            url: "nats://127.0.0.1:4222".parse().into_iter().collect(),
            prefix: "driftgate.v1".to_owned(),
            credentials: Credentials::None,
            tls: Tls::default(),
            provision: true,
            replicas: 1,
            durability: Durability::Acked,
            stream_out: "DRIFTGATE_STATE".to_owned(),
            stream_in: "DRIFTGATE_STATE".to_owned(),
            stream_quarantine: "DRIFTGATE_QUARANTINE".to_owned(),
            domain: None,
            inbox_prefix: None,
            connect_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
            window: 256,
            ack_timeout: Duration::from_secs(5),
        }
    }
}

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, an absolute path.
    Unix(PathBuf),
}

impl Listener {
    /// Whether only processes of this machine (in a pod: of this pod) can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The API of DESIGN section 4.
    pub api: Listener,
    /// Probes, metrics and the console.
    pub admin: SocketAddr,
    /// On a Unix socket: peer user ids that are let in beside the sidecar's own and root's.
    pub socket_uids: Vec<u32>,
    /// Bearer token that every call of the API must carry.
    pub token: Option<SecretFile>,
    /// Bearer token of the operator, which releasing asks for.
    pub operator_token: Option<SecretFile>,
    /// `Origin` values that are let in; none by default.
    pub allowed_origins: Vec<String>,
    /// `Host` values that are let in beside the loopback ones.
    pub allowed_hosts: Vec<String>,
    /// Largest body of a report, in bytes.
    pub body_bytes_max: u64,
    /// Most connections on each listener.
    pub connections_max: usize,
    /// Wait for the head of a request.
    pub header_timeout: Duration,
    /// Longest time that a call takes (P10).
    pub reply_timeout: Duration,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            api: Listener::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 7405))),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 7406)),
            socket_uids: Vec::new(),
            token: None,
            operator_token: None,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            body_bytes_max: 256 * 1024,
            connections_max: 256,
            header_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(2),
        }
    }
}

/// `[ingest]`: how reports come in. At least one way is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    /// `POST /field/state` is served.
    pub http: bool,
    /// A file is followed.
    pub tail: Option<Tail>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { http: true, tail: None }
    }
}

/// `[ingest.tail]`: a JSONL file that the runtime appends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The file; it need not exist yet.
    pub path: PathBuf,
    /// Between two looks at it.
    pub interval: Duration,
    /// Longest line that is read as a report, in bytes.
    pub line_bytes_max: u64,
}

impl Tail {
    /// Follows `path` with the defaults.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, interval: Duration::from_millis(250), line_bytes_max: 256 * 1024 }
    }
}

/// What becomes of packets that arrive while blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockedInbound {
    /// They reach the runtime as evidence. The default.
    #[default]
    Deliver,
    /// They stay on the stream.
    Hold,
}

/// What the caution band does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caution {
    /// One report in `caution_every` is sent. The default.
    #[default]
    Throttle,
    /// The strict reading of SRIP-05 section 9: nothing is sent.
    Block,
}

/// Whether anything is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What the gate lets through. The default.
    #[default]
    Enforce,
    /// Nothing: all is judged, counted and shown only.
    Shadow,
}

/// `[containment.flapping]`: so many closings in so many cycles ask for a dwell of 3, twice as many
/// isolate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// Closings.
    pub closings: u32,
    /// Cycles, not fewer than `closings`.
    pub cycles: u32,
}

/// `[containment]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Containment {
    /// Whether anything is exported.
    pub mode: Mode,
    /// An index from here up stays isolated until an operator releases it; none by default.
    pub lock: Option<f64>,
    /// Closings that follow each other too fast; not looked at by default.
    pub flapping: Option<Flapping>,
    /// Thresholds (`reopen`, `block`, `isolate`), `accept` and `dwell`.
    pub policy: Policy,
    /// One report in this many is sent in caution.
    pub caution_every: u32,
    /// What the caution band does.
    pub caution: Caution,
    /// Silence that blocks.
    pub stale_after: Duration,
    /// Silence that isolates; never by default.
    pub silence_isolates_after: Option<Duration>,
    /// Time blocked that isolates; never by default.
    pub isolate_after: Option<Duration>,
    /// Coherence that the operator vouches for where a profile reports none. No default: a
    /// coherence that nobody measured makes the index look small.
    pub assumed_scr: Option<Coherence>,
    /// What becomes of packets that arrive while blocked.
    pub blocked_inbound: BlockedInbound,
    /// The file whose existence isolates; [`crate::config::Config::hold_file`] has its default.
    pub hold_file: Option<PathBuf>,
    /// Wait for the broker's word that a cut is complete (P2).
    pub barrier_timeout: Duration,
    /// Oldest packet that is accepted.
    pub packet_max_age: Duration,
    /// How far ahead a packet may be dated.
    pub clock_skew_max: Duration,
}

impl Default for Containment {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            lock: None,
            flapping: None,
            policy: Policy::default(),
            caution_every: 3,
            caution: Caution::Throttle,
            stale_after: Duration::from_secs(120),
            silence_isolates_after: None,
            isolate_after: None,
            assumed_scr: None,
            blocked_inbound: BlockedInbound::Deliver,
            hold_file: None,
            barrier_timeout: Duration::from_secs(2),
            packet_max_age: Duration::from_secs(300),
            clock_skew_max: Duration::from_secs(30),
        }
    }
}

/// `[integrity]`.
#[derive(Clone, Debug)]
pub struct Integrity {
    /// Where each key comes from and what its file holds, by id.
    pub keys: BTreeMap<String, SecretFile>,
    /// The same keys, ready for use: `sign_with` is one of them and of the kind that `alg` asks
    /// for.
    pub keyring: Keyring,
}

impl PartialEq for Integrity {
    /// The files decide: a ring is nothing but them and the id of its signer.
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys && self.keyring.sign_with() == other.keyring.sign_with()
    }
}

/// `[snapshot]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Folder for what is accepted and not yet at the broker.
    pub spool: PathBuf,
    /// zstd level.
    pub level: i32,
    /// Largest snapshot, in plain bytes.
    pub bytes_max: u64,
    /// The whole spool, in bytes on disk.
    pub spool_bytes_max: u64,
    /// Snapshots held in memory, in bytes.
    pub cache_bytes_max: u64,
    /// Full snapshots that are kept at the broker.
    pub keep_full: u32,
    /// What is younger than this is never collected.
    pub keep_for: Duration,
    /// Bytes of ours at the broker, as stored; beyond them a push is refused.
    pub stored_bytes_max: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            spool: PathBuf::from("/var/lib/driftgate/spool"),
            level: 3,
            bytes_max: 64 << 20,
            spool_bytes_max: 512 << 20,
            cache_bytes_max: 64 << 20,
            keep_full: 2,
            keep_for: Duration::from_secs(3600),
            stored_bytes_max: 1 << 30,
        }
    }
}

/// `[deliver]`: inbound packets handed to the runtime as they arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// Where they are posted; without it the runtime asks `GET /field/state`.
    pub url: Option<hyper::Uri>,
    /// Wait for the runtime to take one.
    pub timeout: Duration,
}

impl Default for Deliver {
    fn default() -> Self {
        Self { url: None, timeout: Duration::from_secs(2) }
    }
}

/// `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Hash-chained log of containment events; without it none is written.
    pub file: Option<PathBuf>,
    /// When a file of it is full, in bytes.
    pub bytes_max: u64,
    /// How many files are kept, the newest among them.
    pub files_max: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file: None, bytes_max: 16 << 20, files_max: 8 }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// `error`
    Error,
    /// `warn`
    Warn,
    /// `info`, the default.
    #[default]
    Info,
    /// `debug`
    Debug,
    /// `trace`
    Trace,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line. The default.
    #[default]
    Json,
    /// For people.
    Text,
}

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// How much.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}
