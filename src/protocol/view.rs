//! What the local interface shows: replies and views, as its routes name them.
//!
//! Plain serialisable values. They hold nothing that the packet may not carry.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::exchange::{ExchangeMode, ModeReason};
use super::gate::{Band, Reason};
use super::packet::{PROTOCOL_VERSION, RuntimeId};
use super::presence::Shown;
use super::time::Timestamp;

mod field;
mod safety;
mod trace;

pub use field::{
    Absence, AttractorView, DriftView, FieldState, LifecycleState, PeerState, PeerView,
    PresenceView, RefusalView,
};
pub use safety::{
    CriticalView, EndsView, EnvelopeView, HoldView, ParametersView, PosturesView, ReopeningView,
    SafetyView, TargetView, ThresholdsView,
};

pub use trace::{GateView, IndexView, Inspection, ParseView, RefusedView, TargetTrace, TraceView};

/// Who is there, from presence alone.
#[derive(Clone, Debug, Serialize)]
pub struct FleetView {
    /// When it was read.
    pub at: Timestamp,
    /// Each runtime whose entry verifies.
    pub runtimes: Vec<Shown>,
}

/// Who waits for an answer: a number that the caller chooses, and that no two who wait share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of one packet of one report. Every packet ends in exactly one of these; `pending`
/// is the only one that can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum PacketStatus {
    /// The stream acknowledged it.
    Stored,
    /// Waiting for the broker; a newer report will supersede it, a closing one will revoke it.
    Pending,
    /// Caution: not this report's turn.
    Throttled,
    /// The gate holds it: nothing was made.
    Held,
    /// A newer report overtook it before it was sent.
    Superseded,
    /// The gate closed before it was sent.
    Revoked,
    /// The broker refused it, or never said what became of it.
    Failed,
    /// It would have been sent: this sidecar only observes.
    Shadow,
}

impl PacketStatus {
    /// The word in replies and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// What the gate lets the runtime do with one report.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::VariantArray,
    JsonSchema,
    Serialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Decision {
    /// At least one packet is on its way.
    Export,
    /// The same in shadow: nothing leaves.
    Observe,
    /// Caution: published to none this time.
    Throttle,
    /// The gate would let it through, but nothing is there to be published or nobody to have it.
    Hold,
    /// Held; the gate is blocked.
    Block,
    /// Held; the gate is isolated.
    Isolate,
}

impl Decision {
    /// Of a report that no packet was made of, in the band after it.
    #[must_use]
    pub fn without_packets(band: Band) -> Self {
        match band {
            Band::Open | Band::Caution => Self::Hold,
            Band::Blocked => Self::Block,
            Band::Isolated => Self::Isolate,
        }
    }

    /// The word in replies, `replay` and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// One target's line of a [`ReportReply`].
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct PacketLine {
    /// Target runtime.
    pub target: RuntimeId,
    /// What became of its packet.
    pub status: PacketStatus,
    /// Sequence number on the stream, once stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_seq: Option<u64>,
}

/// Whether the broker confirmed that nothing of ours is left in its hands or ours (P2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Barrier {
    /// The broker has processed everything that was published before.
    Confirmed,
    /// It did not say so in time, and the connection was dropped together with its buffer; or an
    /// earlier connection ended so recently that what had been sent on it may still arrive.
    Unconfirmed,
}

impl Barrier {
    /// The word in replies and in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Answer to `POST /field/state`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct ReportReply {
    /// What the gate decided.
    pub verdict: Decision,
    /// Band after this report.
    pub band: Band,
    /// Gate value, null when the report has no usable index.
    pub di: Option<f64>,
    /// `native`, `reported`, `derived` or `none`.
    pub drift_source: &'static str,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Sequence number of this report; every packet made from it carries it.
    pub seq: u64,
    /// One line per authorised target.
    pub packets: Vec<PacketLine>,
    /// Present on the reply to a report that closed or isolated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barrier: Option<Barrier>,
    /// Whether it only says what would happen: nothing was sent, moved or counted.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub check: bool,
    /// Top-level keys of the report that nobody reads, at most 16, shortened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// Answer to `POST /operator/isolate` and `POST /operator/release`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct OperatorReply {
    /// Present band. A release opens nothing: the next good report does.
    pub band: Band,
    /// Whether a hold is in force.
    pub operator_hold: bool,
    /// Who holds: `command` (a route or a signal), `file`.
    pub held_by: Vec<&'static str>,
    /// How the closing ended that this order began or found under way; null where there was none.
    pub barrier: Option<Barrier>,
    /// Whether the order is on disk. An isolate that is not is in force all the same.
    pub survives_restart: bool,
    /// Whether the order has its line in the audit log; false where there is none.
    pub audited: bool,
}

/// One change of band.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Transition {
    /// Band before.
    pub from: Band,
    /// Band after.
    pub to: Band,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Cycle of the report that caused it, if a numbered report did.
    pub cycle: Option<u64>,
    /// Gate value of that report.
    pub di: Option<f64>,
    /// Sequence number of that report; null where none caused it: silence, an operator, bytes that
    /// are no report.
    pub seq: Option<u64>,
    /// Provenance of its drift metrics.
    pub drift_source: &'static str,
    /// The trace that the report came within.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// Answer to `POST /runtime/handshake`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct HandshakeView {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// The id itself where it is a UUID, else its UUIDv5.
    pub runtime_uuid: String,
    /// The version that is written.
    pub protocol_version: &'static str,
    /// Every version that is read, each with all later minors.
    pub supported: [&'static str; 1],
    /// What is exchanged with each configured peer.
    pub peers: Vec<PeerMode>,
    /// Which surfaces there are (SRIP-17 XI, XIII), and by which rules.
    #[serde(flatten)]
    pub statement: Statement,
}

impl HandshakeView {
    /// What is said to the runtime with this id.
    #[must_use]
    pub fn new(runtime_id: RuntimeId, band: Band, peers: Vec<PeerMode>) -> Self {
        let uuid = Uuid::parse_str(runtime_id.as_str())
            .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, runtime_id.as_str().as_bytes()));
        Self {
            runtime_id,
            runtime_uuid: uuid.to_string(),
            protocol_version: PROTOCOL_VERSION,
            supported: [PROTOCOL_VERSION],
            peers,
            statement: Statement::new(band),
        }
    }
}

/// What SRIP-17 XIII asks an implementation to say of itself, in words that do not change while it
/// runs, and the posture.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Statement {
    /// Routes of SRIP-05 section 4.
    pub surfaces: [&'static str; 5],
    /// Who may exchange anything.
    pub authorization: &'static str,
    /// What may be exchanged.
    pub artifact_types: [&'static str; 4],
    /// What the gate does with it.
    pub gate: [&'static str; 4],
    /// How long it is kept.
    pub retention: &'static str,
    /// What is recorded.
    pub audit: &'static str,
    /// Where the gate stands.
    pub posture: Band,
}

impl Statement {
    fn new(posture: Band) -> Self {
        Self {
            surfaces: [
                "/field/state",
                "/memory/snapshot",
                "/phase/telemetry",
                "/aegida/safety",
                "/runtime/handshake",
            ],
            authorization: "peers that an operator lists, each kind and direction by name, until \
                            the listed expiry; every artifact signed",
            artifact_types: ["state", "snapshot", "telemetry", "containment"],
            gate: ["accept", "narrow", "quarantine", "reject"],
            retention: "streams expire by age and number; snapshots by snapshot.keep and keep_for",
            audit: "hash-chained log of transitions, refusals, handshakes and operators' acts",
            posture,
        }
    }
}

/// A configured peer and what is exchanged with it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct PeerMode {
    /// The peer.
    pub id: RuntimeId,
    /// How much.
    pub mode: ExchangeMode,
    /// Why.
    pub reason: ModeReason,
}
