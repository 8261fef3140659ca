//! The field: what `GET /field/state` and `GET /field/attractors/{id}` show.

use schemars::JsonSchema;
use serde::Serialize;

use crate::protocol::drift::DriftParts;
use crate::protocol::envelope::Admission;
use crate::protocol::exchange::{ExchangeMode, ModeReason};
use crate::protocol::gate::{Band, Mode, Reason};
use crate::protocol::packet::{AttractorType, Posture, RuntimeId, StatePacket};
use crate::protocol::presence::{Condition, Instance, Presence};
use crate::protocol::refusal::Fault;
use crate::protocol::time::Timestamp;

/// A peer's newest accepted packet. Always labelled external.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct PeerState {
    /// Who sent it.
    pub source: RuntimeId,
    /// Always true: evidence from outside, never a command.
    pub external: bool,
    /// When it was accepted here.
    pub received: Timestamp,
    /// The packet as it came, byte for byte.
    #[schemars(with = "StatePacket")]
    pub packet: Box<serde_json::value::RawValue>,
}

/// Why nothing of a peer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    /// Its newest packet is too old.
    Expired,
    /// Nothing of it has come in during this life.
    NeverHeard,
    /// What came in its name was refused: `refused` says why.
    Refused,
    /// It is not authorised to be heard, or not any more.
    Unauthorised,
    /// It says that its gate has closed since.
    Withheld,
}

/// The newest refusal of what came in a peer's name. Nothing proves who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct RefusalView {
    /// Why.
    pub fault: &'static str,
    /// When.
    pub at: Timestamp,
}

impl RefusalView {
    /// As the inbox keeps it.
    #[must_use]
    pub fn of((fault, at): (Fault, Timestamp)) -> Self {
        Self { fault: fault.word(), at }
    }
}

/// What a peer's sidecar says of itself in the bucket `driftgate-presence`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct PresenceView {
    /// Whether somebody was there when it was read.
    pub state: Condition,
    /// When it was read: entries are read once a minute.
    pub read: Timestamp,
    /// Where its gate stands.
    pub band: Band,
    /// Why, in its words.
    pub reasons: Vec<String>,
    /// Since when.
    pub since: Timestamp,
    /// Whether anything is exported at all.
    pub mode: Mode,
    /// Whether an operator holds it.
    pub hold: bool,
    /// Which life of which sidecar wrote it: the id that `nats micro ls` shows.
    #[schemars(with = "String")]
    pub instance: Instance,
    /// Version of the sidecar.
    pub version: String,
    /// When that life started.
    pub started: Timestamp,
    /// When it was written, by the peer's clock.
    pub at: Timestamp,
}

impl PresenceView {
    /// Of an entry that was read then.
    #[must_use]
    pub fn of(entry: &Presence, read: Timestamp) -> Self {
        Self {
            state: entry.condition(read),
            read,
            band: entry.band,
            reasons: entry.reasons.clone(),
            since: entry.since,
            mode: entry.mode,
            hold: entry.hold,
            instance: entry.instance,
            version: entry.version.clone(),
            started: entry.started,
            at: entry.at,
        }
    }
}

/// One configured peer.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct PeerView {
    /// Who.
    pub source: RuntimeId,
    /// Always true: evidence from outside, never a command.
    pub external: bool,
    /// How much is exchanged with it.
    pub mode: ExchangeMode,
    /// Why so much.
    pub mode_reason: ModeReason,
    /// When its authorisation ends; null when it has no end.
    pub authorised_until: Option<Timestamp>,
    /// When its newest packet was accepted here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<Timestamp>,
    /// Seconds since its newest packet was sent, by its own clock; 0 when that is ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<f64>,
    /// Its newest accepted packet as it came, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StatePacket")]
    pub packet: Option<Box<serde_json::value::RawValue>>,
    /// Under what that packet may be used, and for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Admission>,
    /// What its sidecar says of itself, where that is proved and was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<PresenceView>,
    /// Why there is no packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<Absence>,
    /// The newest refusal since its newest accepted packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusalView>,
}

/// The drift metrics of one cycle; null where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize)]
pub struct DriftView {
    /// Semantic drift index, 0 to 1.
    pub sdi: Option<f64>,
    /// Symbolic variance, 0 to 1.
    pub sv: Option<f64>,
    /// Phase drift, 0 to 1.
    pub pd: Option<f64>,
    /// Semantic coherence rate, above 0 up to 1.
    pub scr: Option<f64>,
    /// The gate value, 0 or more.
    pub di: Option<f64>,
}

impl DriftView {
    /// Of a cycle with these parts and this gate value.
    #[must_use]
    pub fn of(parts: Option<DriftParts>, di: Option<f64>) -> Self {
        Self {
            sdi: parts.map(|parts| parts.sdi.value()),
            sv: parts.map(|parts| parts.sv.value()),
            pd: parts.map(|parts| parts.pd.value()),
            scr: parts.map(|parts| parts.scr.value()),
            di,
        }
    }
}

/// Answer to `GET /field/state`.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct FieldState {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Present band.
    pub band: Band,
    /// Gate value of the newest report.
    pub di: Option<f64>,
    /// Drift metrics of the newest report.
    pub drift_metrics: DriftView,
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
    /// Every configured peer, by id.
    pub peers: Vec<PeerView>,
}

/// The stage of an attractor (SRIP-02 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LifecycleState {
    /// Still forming.
    Forming,
    /// Coming apart.
    Fragmenting,
    /// Under recovery.
    Recovery,
    /// In reflection.
    Reflective,
    /// Settled.
    Stable,
}

impl LifecycleState {
    /// The stage that a phase word names; `None` for a word that names none.
    #[must_use]
    pub fn of_phase(word: &str) -> Option<Self> {
        match word {
            "forming" | "initializing" => Some(Self::Forming),
            "stable" => Some(Self::Stable),
            "reflection" | "reflective" => Some(Self::Reflective),
            "recenter" | "recovery" => Some(Self::Recovery),
            "fragmenting" => Some(Self::Fragmenting),
            _ => None,
        }
    }
}

/// Answer to `GET /field/attractors/{id}`: SRIP-02 section 4, null where nothing is known. Names,
/// motifs and tags are words of the runtime, which no report brings here.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct AttractorView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub source: RuntimeId,
    /// Whether it is a peer's.
    pub external: bool,
    /// Never known.
    pub name: Option<String>,
    /// Its type.
    pub r#type: Option<AttractorType>,
    /// Never known.
    pub motifs: Option<Vec<String>>,
    /// Phase stability index, 0 to 1.
    pub stability_index: Option<f64>,
    /// Phase stability delta, 0 to 1.
    pub phase_stability_delta: Option<f64>,
    /// Never known.
    pub phase_shift_delta: Option<f64>,
    /// Never known.
    pub phase_alignment: Option<f64>,
    /// Never known.
    pub density: Option<f64>,
    /// Drift index of its newest cycle, 0 or more.
    pub drift_index: Option<f64>,
    /// Its stage.
    pub lifecycle_state: Option<LifecycleState>,
    /// Never known.
    pub created_at: Option<Timestamp>,
    /// When its newest cycle was reported.
    pub updated_at: Timestamp,
    /// Never known.
    pub origin_cycle: Option<u64>,
    /// Never known.
    pub parent_id: Option<String>,
    /// Never known.
    pub tags: Option<Vec<String>>,
    /// `attractor_state.stability` of SRIP-05, which is not the index of SRIP-02; 0 to 1.
    pub stability: Option<f64>,
    /// Semantic coherence rate, above 0 up to 1.
    pub scr: Option<f64>,
}

impl AttractorView {
    /// One of our own of which nothing more is known.
    #[must_use]
    pub fn unknown(id: String, source: RuntimeId, at: Timestamp) -> Self {
        Self {
            id,
            source,
            external: false,
            name: None,
            r#type: None,
            motifs: None,
            stability_index: None,
            phase_stability_delta: None,
            phase_shift_delta: None,
            phase_alignment: None,
            density: None,
            drift_index: None,
            lifecycle_state: None,
            created_at: None,
            updated_at: at,
            origin_cycle: None,
            parent_id: None,
            tags: None,
            stability: None,
            scr: None,
        }
    }
}
