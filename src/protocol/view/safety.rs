//! The safety envelope: what `GET /aegida/safety` shows.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Barrier, Transition};
use crate::protocol::drift::{PD, SCR, SDI, SV};
use crate::protocol::gate::{
    Band, CC_MIN, CI_MIN, DI_CRITICAL, ER_MAX, Mode, PSD_MAX, PSI_MIN, Reason,
};
use crate::protocol::packet::{Posture, RuntimeId};
use crate::protocol::time::Timestamp;

/// Answer to `GET /aegida/safety`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
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
    /// The marks of single metrics.
    pub critical: CriticalView,
    /// What each posture does whatever the index.
    pub postures: PosturesView,
    /// The safety parameters of SRIP-06 section 3.
    pub parameters: ParametersView,
    /// Other limits in force.
    pub envelope: EnvelopeView,
    /// What would reopen a closed gate, in words; null while it is not closed.
    pub would_reopen: Option<String>,
    /// The same as data.
    pub reopening: Option<ReopeningView>,
    /// Whether an operator holds it.
    pub operator_hold: bool,
    /// Who holds it and why, as far as this life was told.
    pub hold: Option<HoldView>,
    /// Whether the broker may still come to read what an ended connection had sent; no closing is
    /// called confirmed meanwhile.
    pub in_doubt: bool,
    /// When that ends by itself; null while it does not hold.
    pub in_doubt_until: Option<Timestamp>,
    /// What left for each target, and what was confirmed after it.
    pub targets: Vec<TargetView>,
    /// The newest transitions, oldest first, at most 32.
    pub transitions: VecDeque<Transition>,
}

impl SafetyView {
    /// What others than the operator may see of it while the gate is open: no number of a report
    /// that the gate refused (P1), no remark, and nothing of one target that is another's.
    #[must_use]
    pub fn without_refused(mut self) -> Self {
        self.hold = None;
        self.targets.clear();
        for transition in &mut self.transitions {
            (transition.di, transition.cycle, transition.seq) = (None, None, None);
        }
        self
    }
}

/// An operator's hold as shown by `GET /aegida/safety`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
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

/// The marks of single metrics. They are the specification's and cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct CriticalView {
    /// Above blocks.
    pub sdi: f64,
    /// Above blocks.
    pub sv: f64,
    /// Above blocks.
    pub pd: f64,
    /// Below blocks.
    pub scr: f64,
    /// From here up an isolation is called critical.
    pub di: f64,
    /// An index from here up stays isolated until an operator releases it; null: none does.
    pub lock: Option<f64>,
    /// Below isolates.
    pub psi: f64,
    /// From here up blocks.
    pub psd: f64,
    /// Above isolates.
    pub er: f64,
    /// Below withholds snapshots.
    pub ci: f64,
    /// Below withholds snapshots.
    pub cc: f64,
}

impl CriticalView {
    /// All of them; `lock` is the operator's.
    #[must_use]
    pub fn of(lock: Option<f64>) -> Self {
        Self {
            sdi: SDI.critical,
            sv: SV.critical,
            pd: PD.critical,
            scr: SCR.critical,
            di: DI_CRITICAL,
            lock,
            psi: PSI_MIN,
            psd: PSD_MAX,
            er: ER_MAX,
            ci: CI_MIN,
            cc: CC_MIN,
        }
    }
}

/// The band that a posture asks for at least; null asks for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct PosturesView {
    /// Leaves it to the index.
    pub stable: Option<Band>,
    /// No posture that is known.
    pub unknown: Option<Band>,
    /// In reflection.
    pub reflective: Option<Band>,
    /// To be recentered.
    pub recenter: Option<Band>,
}

impl PosturesView {
    /// The table.
    pub const IN_FORCE: Self = Self {
        stable: None,
        unknown: Some(Band::Blocked),
        reflective: Some(Band::Blocked),
        recenter: Some(Band::Isolated),
    };
}

/// SRIP-06 section 3. A parameter of what a sidecar cannot see is null: the runtime's own affair.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct ParametersView {
    /// Never known.
    pub max_recursion_depth: Option<u32>,
    /// In cycles, never known; `envelope.isolate_after_s` is the same in seconds.
    pub phase_lock_timeout: Option<u32>,
    /// The mark that blocks.
    pub drift_limit: f64,
    /// Never known.
    pub entropy_threshold: Option<f64>,
}

/// Limits other than thresholds, as shown by `GET /aegida/safety`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
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

/// All that a closed gate asks for before it opens.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct ReopeningView {
    /// An operator has to release it first.
    pub operator_release: bool,
    /// Another sidecar of this runtime has to go first.
    pub other_sidecar_ends: bool,
    /// Good reports in a row.
    pub reports: u32,
    /// Their index is below.
    pub di_below: f64,
    /// Their posture.
    pub posture: Posture,
    /// The weakest provenance of their drift metrics.
    pub drift_source: &'static str,
}

impl ReopeningView {
    /// The same in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let hold = if self.operator_release { "an operator's release, then " } else { "" };
        let fence =
            if self.other_sidecar_ends { "the end of the other sidecar, then " } else { "" };
        let reports = match self.reports {
            0 | 1 => "a report".to_owned(),
            reports => format!("{reports} reports in a row"),
        };
        let (di_below, posture, source) = (self.di_below, self.posture.word(), self.drift_source);
        format!(
            "{hold}{fence}{reports} with di < {di_below}, posture {posture} and {source} drift \
             metrics"
        )
    }
}

/// What left for one target, and what did not.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct TargetView {
    /// Who.
    pub target: RuntimeId,
    /// Whether its authorisation holds and the exchange with it is not rejected.
    pub authorised: bool,
    /// Sequence number on the stream of the newest packet that is stored; null: none in this life.
    pub stream_seq: Option<u64>,
    /// When the broker said so.
    pub stored_at: Option<Timestamp>,
    /// Number of the report that it was made from.
    pub seq: Option<u64>,
    /// Packets that the broker may have and has not acknowledged, or that wait.
    pub pending: u64,
    /// How the reports before those have ended.
    pub ends: EndsView,
    /// How the newest closing since then ended; null when there was none.
    pub barrier: Option<Barrier>,
    /// When it ended.
    pub barrier_at: Option<Timestamp>,
}

/// How the reports of this life that were to go to one target have ended; with `pending`, all of
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct EndsView {
    /// The stream has them.
    pub stored: u64,
    /// A newer report overtook them before they were sent.
    pub superseded: u64,
    /// The gate held them: nothing was made.
    pub held: u64,
    /// Left out in caution.
    pub throttled: u64,
    /// The gate closed before they were sent.
    pub revoked: u64,
    /// The broker refused them, or never said what became of them.
    pub failed: u64,
    /// Only observed: in shadow nothing leaves.
    pub shadow: u64,
}
