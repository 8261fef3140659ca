//! One report explained step by step: what `GET /aegida/trace` shows.
//!
//! Numbers and words of tables only; of any other text its length (P9).

use schemars::JsonSchema;
use serde::Serialize;

use super::{Barrier, Decision, DriftView, PacketStatus, ReopeningView};
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::gate::{Band, Mode, Reason, Row};
use crate::protocol::packet::{AttractorType, Phase, RuntimeId};
use crate::protocol::profile::{Continuity, Malformed, StateReport};
use crate::protocol::seal::Step;
use crate::protocol::time::Timestamp;

/// Answer to `GET /aegida/trace`: the steps in their order.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct TraceView {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Whether what the gate lets through is exported at all.
    pub mode: Mode,
    /// Number of the report; null for one that was refused.
    pub seq: Option<u64>,
    /// When it came in.
    pub at: Timestamp,
    /// Name of the profile that it was read by.
    pub profile: String,
    /// What was read.
    pub parse: ParseView,
    /// Its cycle number.
    pub cycle: Option<u64>,
    /// How that follows the one before; null for a report that was refused.
    pub continuity: Option<Continuity>,
    /// What the index was made of; null for a report that was refused.
    pub index: Option<IndexView>,
    /// The rows of the table, strictest first: what each compared, and whether it applied.
    pub table: Vec<Row>,
    /// What the gate made of it.
    pub gate: GateView,
    /// What became of it, target by target, at most 256.
    pub targets: Vec<TargetTrace>,
    /// Targets that are not listed.
    pub targets_omitted: usize,
    /// What would reopen the gate after it, in words; null where it was not closed then.
    pub would_reopen: Option<String>,
    /// The same as data.
    pub reopening: Option<ReopeningView>,
}

/// What was read of a report.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize)]
pub struct ParseView {
    /// Why it was refused; null for a report that was judged.
    pub refused: Option<RefusedView>,
    /// Bytes of each key that nobody reads, as the reply names them.
    pub ignored_bytes: Vec<usize>,
    /// Bytes of the attractor's id as it leaves.
    pub id_bytes: Option<usize>,
    /// Type of the attractor.
    pub r#type: Option<AttractorType>,
    /// Its stability, 0 to 1.
    pub stability: Option<f64>,
    /// Its phase as a packet has it; null where none can carry it.
    pub phase: Option<&'static str>,
    /// Retention of its memory, 0 to 1.
    pub retention_index: Option<f64>,
}

impl ParseView {
    /// Of a report that was read.
    #[must_use]
    pub fn of(report: &StateReport, ignored: &[String]) -> Self {
        let attractor = &report.attractor;
        Self {
            refused: None,
            ignored_bytes: ignored.iter().map(String::len).collect(),
            id_bytes: attractor.id.as_ref().map(String::len),
            r#type: attractor.kind,
            stability: attractor.stability.map(|stability| stability.value()),
            phase: attractor.phase.as_deref().and_then(Phase::of_word).map(Phase::word),
            retention_index: report.retention_index.map(|retention| retention.value()),
        }
    }

    /// Of a report that breaks its profile, or of what is not even a document.
    #[must_use]
    pub fn refused(fault: Option<&Malformed>) -> Self {
        let problem = fault.map_or("not a document", |fault| &fault.problem);
        let refused = RefusedView {
            field: fault.map(|fault| fault.known_field().to_owned()),
            key_bytes: fault.map_or(0, |fault| fault.key_bytes),
            problem: problem.to_owned(),
        };
        Self { refused: Some(refused), ..Self::default() }
    }
}

/// Why a report was refused.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct RefusedView {
    /// JSON Pointer of the field at fault, as far as the profile knows it.
    pub field: Option<String>,
    /// Bytes of the rest, which is a key that the profile does not know; 0 where it knows all.
    pub key_bytes: usize,
    /// What is wrong.
    pub problem: String,
}

/// What the index was made of.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct IndexView {
    /// The parts that the runtime reported, and the formula over them.
    pub native: Option<DriftView>,
    /// The index that it reported.
    pub reported: Option<f64>,
    /// Parts that the profile estimated, and the formula over them where there is a coherence.
    pub derived: Option<DriftView>,
    /// The coherence that an operator assumes.
    pub assumed_scr: Option<f64>,
    /// The weakest provenance that counts as evidence.
    pub accept: &'static str,
    /// The provenance of what was used.
    pub source: &'static str,
    /// The value that the gate used: the larger of formula and report.
    pub used: Option<f64>,
}

/// What the gate made of a report.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct GateView {
    /// Band before.
    pub before: Band,
    /// Band that the table asked for.
    pub asked: Band,
    /// Band after: as asked, but for latch, dwell and hold.
    pub after: Band,
    /// What the runtime was answered.
    pub verdict: Decision,
    /// Why.
    pub reasons: Vec<Reason>,
    /// How the closing ended that the answer waited for; null where there was none.
    pub barrier: Option<Barrier>,
}

/// What became of a report for one target.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct TargetTrace {
    /// Who.
    pub target: RuntimeId,
    /// How much it may have.
    pub mode: ExchangeMode,
    /// How far its packet came.
    pub inspection: Inspection,
    /// What became of it, as it stands now.
    pub status: PacketStatus,
    /// Sequence number on the stream, once stored.
    pub stream_seq: Option<u64>,
}

/// How the inspection of one packet ended (SRIP-06 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspection {
    /// There was nothing to inspect, or it was not this report's turn.
    NotBegun,
    /// All five steps; the last is done again as the packet is signed, when its turn comes.
    Passed,
    /// This step does not hold, and those after it were not begun.
    Failed(Step),
}
