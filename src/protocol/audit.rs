//! The audit log: events as lines, each holding the hash of the line before.
//!
//! One JSON object per line in RFC 8785 bytes. [`Chain::append`] makes lines, [`Verifier`] reads
//! them back and finds what was deleted, altered, repeated or put in another order. What
//! deliberately is not here: files, rotation and queues, which are `src/audit.rs`; and any text of
//! the runtime or of a peer: an event holds closed words, numbers, runtime ids and what an operator
//! said (P9).
//!
//! **What a chain cannot show.** Whoever may write the file can cut lines off its end, or compute a
//! whole new chain. So the sidecar also logs the head of the chain at every start and stop: a head
//! that is kept elsewhere pins everything up to it (`driftgate audit verify --head`).

use std::collections::BTreeMap;

use super::canonical::{INTEGER_MAX, Json};
use super::digest::Digest;
use super::drift::Provenance;
use super::envelope::{Admission, Ruling};
use super::exchange::{Artifact, ExchangeMode, ModeReason, Version};
use super::gate::{Band, Reason};
use super::packet::{RuntimeId, is_text};
use super::refusal::Fault;
use super::time::Timestamp;
use super::trace::TraceParent;
use super::view::{Barrier, Transition};

mod line;
mod schema;
mod verify;

pub use line::Link;
pub use schema::audit as line_schema;
pub use verify::{Broken, Summary, Verifier, Why, verify};

/// Longest line that is written or read, without its newline: the longest event holds an operator's
/// two remarks, every byte of them escaped, and stays under 4 KiB.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Longest name of who acts, in bytes.
pub const BY_BYTES_MAX: usize = 64;
/// Longest reason that an operator gives, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// `previous` of a chain's first line.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What an operator says about an act: one line of printable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark(String);

impl Remark {
    /// `None` when `text` is empty, longer than `bytes_max` or holds control characters.
    #[must_use]
    pub fn new(text: &str, bytes_max: usize) -> Option<Self> {
        is_text(text, bytes_max).then(|| Self(text.to_owned()))
    }

    /// What was said.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Act {
    /// Isolates and holds.
    Isolate,
    /// Takes the hold back. Opens nothing.
    Release,
}

impl Act {
    /// The word in routes and in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// How an operator's act came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Way {
    /// The hold file appeared or went.
    File,
    /// A route of the API listener.
    Http,
    /// The presence that another life of the runtime has left.
    Presence,
    /// SIGUSR1 or SIGUSR2.
    Signal,
}

impl Way {
    /// The word in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Why events have no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Loss {
    /// The writer's queue was full: the disk was full, failing or slow.
    QueueFull,
    /// More refusals than the log takes per second; metrics have counted each.
    Throttled,
}

impl Loss {
    /// The word in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// What happened. Closed: a kind of event that is not here is not audited.
#[derive(Clone, Debug, PartialEq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Event {
    /// The sidecar started.
    Started {
        /// Its version.
        version: &'static str,
        /// Band at the start.
        band: Band,
        /// Whether an operator's hold outlived the restart.
        operator_hold: bool,
    },
    /// The gate changed its band.
    Transition(Transition),
    /// A report broke its profile, or was not even a document; it closes the gate.
    ReportRefused {
        /// [`Fault::Malformed`] words would say too little: `malformed` broke its profile,
        /// `unreadable` was no document.
        unreadable: bool,
    },
    /// Packets that the gate let through failed their own inspection.
    InspectionFailed {
        /// The report that they were made from.
        seq: u64,
        /// How many.
        packets: u64,
    },
    /// A snapshot of ours is at the broker, where those whom we list may have it.
    SnapshotStored {
        /// Its number.
        seq: u64,
        /// Of its plain bytes.
        digest: Digest,
        /// Where the drift metrics come from under which the gate let it go.
        drift_source: Provenance,
        /// The trace that they belong to.
        trace: Option<TraceParent>,
    },
    /// What a peer sent was taken under other terms than what it sent before, or is the first, or
    /// the first after a refusal.
    InboundAccepted {
        /// A packet or a snapshot.
        artifact: Artifact,
        /// Who sent it.
        source: RuntimeId,
        /// Its sequence number.
        seq: u64,
        /// Under what.
        admission: Admission,
        /// The trace that it belongs to, where that is signed.
        trace: Option<TraceParent>,
    },
    /// What a peer sent was refused.
    InboundRefused {
        /// A packet or a snapshot.
        artifact: Artifact,
        /// Why.
        fault: Fault,
        /// Who the subject says sent it, when the subject names anybody.
        source: Option<RuntimeId>,
    },
    /// The quarantine stream has acknowledged a refused packet.
    Quarantined {
        /// Why it was refused.
        fault: Fault,
        /// Who the subject says sent it.
        source: Option<RuntimeId>,
    },
    /// A handshake ended otherwise than the one before.
    Handshake {
        /// The other side.
        peer: RuntimeId,
        /// Whether the peer asked.
        inbound: bool,
        /// Its protocol version, if it named one.
        theirs: Option<Version>,
        /// What is exchanged with it from here on.
        mode: ExchangeMode,
        /// Why.
        reason: ModeReason,
    },
    /// An operator acted.
    Operator {
        /// What was done.
        act: Act,
        /// How it came in.
        way: Way,
        /// Who says to have done it. Nothing proves it.
        by: Option<Remark>,
        /// Why.
        reason: Option<Remark>,
        /// Whether a hold is in force from here on.
        operator_hold: bool,
    },
    /// A closing ended (P2).
    Barrier(Barrier),
    /// A changed configuration is in force.
    Reloaded,
    /// The sidecar stopped in order.
    Stopped,
    /// Events that have no line.
    Lost {
        /// How many.
        count: u64,
        /// Why.
        loss: Loss,
    },
    /// Bytes before this line are no line: a crash or a full disk cut a write short. The chain goes
    /// on from the last whole line before them.
    Torn {
        /// How many bytes, with their closing newline.
        bytes: u64,
        /// Hex SHA-256 of them.
        digest: String,
    },
}

impl Event {
    /// The word of the `event` member.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.into()
    }

    /// Whether others decide how often this happens: a flood of them must not push older
    /// evidence out of the rotated files.
    #[must_use]
    pub fn is_of_others(&self) -> bool {
        match self {
            Self::ReportRefused { .. }
            | Self::InspectionFailed { .. }
            | Self::SnapshotStored { .. }
            | Self::InboundAccepted { .. }
            | Self::InboundRefused { .. }
            | Self::Quarantined { .. } => true,
            Self::Started { .. }
            | Self::Transition(_)
            | Self::Handshake { .. }
            | Self::Operator { .. }
            | Self::Barrier(_)
            | Self::Reloaded
            | Self::Stopped
            | Self::Lost { .. }
            | Self::Torn { .. } => false,
        }
    }
}

/// One event at one moment, before it has its place in a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When, by the wall clock.
    pub time: Timestamp,
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// What.
    pub event: Event,
}

/// Where a chain stands: its id, and the sequence number and hash of its newest line.
///
/// ```
/// use driftgate::protocol::audit::{Chain, Entry, Event, verify};
/// use driftgate::protocol::{packet::RuntimeId, time::Timestamp};
/// let (time, runtime_id) = (Timestamp::default(), RuntimeId::new("planner").unwrap());
/// let mut chain = Chain::new(&runtime_id, time);
/// let line = chain.append(&Entry { time, runtime_id, event: Event::Stopped });
/// assert_eq!(verify([line.as_slice()]).unwrap().head, chain.head());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    id: String,
    seq: u64,
    head: String,
}

impl Chain {
    /// A chain without lines. Its id is taken from whose it is and when it began.
    #[must_use]
    pub fn new(runtime_id: &RuntimeId, now: Timestamp) -> Self {
        let now = now.to_string();
        let id = Digest::of_parts(&[runtime_id.as_str().as_bytes(), now.as_bytes()]).start();
        Self { id, seq: 0, head: NOTHING_BEFORE.to_owned() }
    }

    /// The chain that `link` is the newest line of.
    #[must_use]
    pub fn after(link: &Link) -> Self {
        Self { id: link.chain.clone(), seq: link.seq, head: link.digest.clone() }
    }

    /// Sequence number of the newest line, 0 when there is none.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Hex SHA-256 of the newest line, zeros when there is none.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.head
    }

    /// The next line, without a newline.
    pub fn append(&mut self, entry: &Entry) -> Vec<u8> {
        self.seq = self.seq.saturating_add(1);
        let mut members = line::members(entry);
        members.insert("chain".to_owned(), line::text(&self.id));
        members.insert("previous".to_owned(), line::text(&self.head));
        members.insert("seq".to_owned(), line::number(self.seq));
        let bytes = Json::Object(members).to_canonical();
        self.head = Digest::of(&bytes).hex();
        bytes
    }
}
