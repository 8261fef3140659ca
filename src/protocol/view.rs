//! What the local interface shows: replies and views, as the routes of DESIGN section 4 name them.
//!
//! Plain serialisable values. They hold nothing that the packet may not carry.

use std::collections::VecDeque;

use serde::Serialize;
use uuid::Uuid;

use super::exchange::{ExchangeMode, ModeReason};
use super::gate::{Band, Mode, Reason};
use super::packet::{PROTOCOL_VERSION, Posture, RuntimeId};
use super::time::Timestamp;

/// Who waits for an answer: a number that the caller chooses, and that no two who wait share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of one packet of one report. Every packet ends in exactly one of these; `pending`
/// is the only one that can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, Serialize)]
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
    /// The word in replies, `replay` and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// One target's line of a [`ReportReply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// Top-level keys of the report that nobody reads, at most 16, shortened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// Answer to `POST /operator/isolate` and `POST /operator/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize)]
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
}

/// Answer to `GET /aegida/safety`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SafetyView {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Whether what the gate lets through is exported at all.
    pub mode: Mode,
    /// Present band.
    pub band: Band,
    /// Why the gate stands where it stands.
    pub reasons: Vec<Reason>,
    /// Since when.
    pub since: Timestamp,
    /// Restarts of the runtime seen since this sidecar started.
    pub epoch: u64,
    /// Gate value of the newest report.
    pub di: Option<f64>,
    /// Provenance of the newest report.
    pub drift_source: &'static str,
    /// Posture of the newest report.
    pub posture: Posture,
    /// The marks in force.
    pub thresholds: ThresholdsView,
    /// Other limits in force.
    pub envelope: EnvelopeView,
    /// What would reopen a closed gate, in words; null while it is not closed.
    pub would_reopen: Option<String>,
    /// Whether an operator holds it.
    pub operator_hold: bool,
    /// Who holds it and why, as far as this life was told.
    pub hold: Option<HoldView>,
    /// Whether the broker may still come to read what an ended connection had sent; no closing is
    /// called confirmed meanwhile.
    pub in_doubt: bool,
    /// The newest transitions, oldest first, at most 32.
    pub transitions: VecDeque<Transition>,
}

impl SafetyView {
    /// What others than the operator may see of it while the gate is open: no number of a report
    /// that the gate refused (P1), and no remark.
    #[must_use]
    pub fn without_refused(mut self) -> Self {
        self.hold = None;
        for transition in &mut self.transitions {
            (transition.di, transition.cycle, transition.seq) = (None, None, None);
        }
        self
    }
}

/// Answer to `POST /runtime/handshake`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerMode {
    /// The peer.
    pub id: RuntimeId,
    /// How much.
    pub mode: ExchangeMode,
    /// Why.
    pub reason: ModeReason,
}

/// An operator's hold as shown by `GET /aegida/safety`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HoldView {
    /// `command` (a route or a signal), `file`.
    pub held_by: Vec<&'static str>,
    /// Who says to have isolated. Nothing proves it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When the newest isolate came in; null when that was before the start.
    pub at: Option<Timestamp>,
}

/// Thresholds as shown by `GET /aegida/safety`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ThresholdsView {
    /// Closed gates open strictly below; caution begins here.
    pub reopen: f64,
    /// The same mark under its other name.
    pub caution: f64,
    /// Publication is cut from here.
    pub block: f64,
    /// Subscription is cut from here.
    pub isolate: f64,
}

/// Limits other than thresholds, as shown by `GET /aegida/safety`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EnvelopeView {
    /// Weakest provenance accepted as evidence.
    pub accept: &'static str,
    /// One report in this many is sent in caution.
    pub caution_every: u32,
    /// Good reports in a row that reopen.
    pub dwell: u32,
    /// Seconds without a valid report before the gate blocks.
    pub stale_after_s: f64,
    /// Seconds of silence before it isolates; null means never.
    pub silence_isolates_after_s: Option<f64>,
    /// Seconds blocked before it isolates; null means never.
    pub isolate_after_s: Option<f64>,
}

/// A peer's newest accepted packet. Always labelled external (SPEC R70).
#[derive(Clone, Debug, Serialize)]
pub struct PeerState {
    /// Who sent it.
    pub source: RuntimeId,
    /// Always true: evidence from outside, never a command.
    pub external: bool,
    /// When it was accepted here.
    pub received: Timestamp,
    /// The packet as it came, byte for byte.
    pub packet: Box<serde_json::value::RawValue>,
}

/// Answer to `GET /field/state`.
#[derive(Clone, Debug, Serialize)]
pub struct FieldState {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Present band.
    pub band: Band,
    /// Gate value of the newest report.
    pub di: Option<f64>,
    /// Provenance of the newest report.
    pub drift_source: &'static str,
    /// Posture of the newest report.
    pub posture: Posture,
    /// Why the gate stands where it stands.
    pub reasons: Vec<Reason>,
    /// Since when.
    pub since: Timestamp,
    /// Cycle of the newest report.
    pub cycle: Option<u64>,
    /// Newest accepted packet of each peer, by source.
    pub peers: Vec<PeerState>,
}
