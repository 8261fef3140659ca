//! From a report to a verdict: provenance policy, epochs, evidence and collapse, then the gate.
//!
//! `gate.rs` is the table; this is what has to be remembered between two reports in order to read
//! it. `bridge.rs` (live) and `driftgate replay` (recorded) both judge with this type, so a replay
//! says what the sidecar would have done.

use super::drift::{Coherence, Criticals, DriftIndex, Provenance};
use super::gate::{Band, Gate, Reason, Sample, Thresholds, Verdict};
use super::profile::StateReport;

/// SRIP-06 section 5: stability below this counts towards collapse.
pub const COLLAPSE_STABILITY: f64 = 0.5;
/// SRIP-06 section 5: collapse takes more than this many such cycles in a row.
pub const COLLAPSE_CYCLES: u32 = 3;
/// SRIP-06 section 5: and coherence below this, or phase drift above [`COLLAPSE_PD`].
pub const COLLAPSE_SCR: f64 = 0.6;
/// SRIP-06 section 5.
pub const COLLAPSE_PD: f64 = 0.25;

/// What an operator may set about judging.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Marks of the drift index.
    pub thresholds: Thresholds,
    /// The weakest provenance that counts as evidence. Default native.
    pub accept: Provenance,
    /// Good reports in a row that a closed gate asks for. Default 1, the specification's number.
    pub dwell: u32,
    /// Coherence that the operator assumes for a runtime that reports none. There is no default
    /// (SPEC A15).
    pub assumed_scr: Option<Coherence>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            accept: Provenance::Native,
            dwell: 1,
            assumed_scr: None,
        }
    }
}

/// What was decided about one report.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Gate verdict with its reasons.
    pub verdict: Verdict,
    /// Gate value, the larger of formula and reported index.
    pub di: Option<DriftIndex>,
    /// Cycle number of the report, if it gave one.
    pub cycle: Option<u64>,
    /// Whether this report may be exported: the gate is not closed and the sample is evidence.
    pub exportable: bool,
}

/// The memory between two reports.
#[derive(Clone, Debug)]
pub struct Judge {
    gate: Gate,
    policy: Policy,
    epoch: u64,
    last_cycle: Option<u64>,
    unstable_cycles: u32,
}

impl Judge {
    /// A judge that has seen nothing: blocked, or isolated if an operator's hold outlived a
    /// restart.
    #[must_use]
    pub fn new(policy: Policy, operator_hold: bool) -> Self {
        Self {
            gate: Gate::new(operator_hold),
            policy,
            epoch: 0,
            last_cycle: None,
            unstable_cycles: 0,
        }
    }

    /// The present state of the gate.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.gate
    }

    /// How often the runtime's cycle numbers have fallen back since this sidecar started.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The rules in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Replaces the rules; the gate keeps its state until the next report.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Judges one report.
    pub fn report(&mut self, report: &StateReport) -> Judgement {
        let from = self.gate.band();
        let mut extra = Vec::new();
        let mut sample = self.sample(report);
        match (self.last_cycle, report.cycle) {
            (Some(last), Some(cycle)) if cycle == last => {
                sample.untrusted = Some(Reason::DuplicateCycle);
            }
            (Some(last), Some(cycle)) if cycle < last => {
                // The runtime restarted. Its past does not speak for it: start closed, then judge.
                self.epoch = self.epoch.saturating_add(1);
                self.unstable_cycles = 0;
                (self.gate, _) = self.gate.tighten(Band::Blocked, Reason::NewEpoch);
                extra.push(Reason::NewEpoch);
            }
            (_, Some(_) | None) => {}
        }
        self.last_cycle = report.cycle.or(self.last_cycle);
        if report.drift.disagrees() {
            extra.push(Reason::DiMismatch);
        }
        // The same cycle again is no further cycle, however often it is reported.
        if sample.untrusted != Some(Reason::DuplicateCycle) {
            self.count_unstable(report);
        }
        sample.collapse = self.is_collapse(report);
        let mut judgement = self.step(&sample);
        judgement.cycle = report.cycle;
        judgement.verdict.from = from;
        judgement.verdict.reasons.extend(extra);
        judgement
    }

    /// A report that could not be read: it closes the gate and changes nothing else (P6).
    pub fn malformed(&mut self) -> Judgement {
        self.step(&Sample::absent(Reason::Invalid))
    }

    /// Silence, or a band held too long: the gate tightens without a report.
    pub fn tighten(&mut self, band: Band, reason: Reason) -> Verdict {
        let verdict;
        (self.gate, verdict) = self.gate.tighten(band, reason);
        verdict
    }

    /// An operator isolates (`true`) or releases (`false`).
    pub fn hold(&mut self, hold: bool) -> Verdict {
        let verdict;
        (self.gate, verdict) = self.gate.hold(hold);
        verdict
    }

    fn step(&mut self, sample: &Sample) -> Judgement {
        let verdict;
        (self.gate, verdict) = self.gate.step(sample, &self.policy.thresholds, self.policy.dwell);
        let exportable = !verdict.band.is_closed() && sample.untrusted.is_none();
        Judgement { verdict, di: sample.di, cycle: None, exportable }
    }

    fn sample(&self, report: &StateReport) -> Sample {
        let native = report.drift.provenance == Provenance::Native;
        let criticals = match report.drift.parts {
            Some(parts) if native => parts.criticals(),
            Some(_) | None => Criticals::default(),
        };
        let refused = (report.drift.provenance < self.policy.accept
            && report.drift.provenance != Provenance::None)
            .then_some(Reason::ProvenanceRefused);
        Sample {
            di: report.drift.gate_value(),
            posture: report.posture,
            criticals,
            collapse: false,
            untrusted: report.untrusted.or(refused),
            nominal: report.nominal,
        }
    }

    /// A cycle that does not say how stable it was neither adds to a collapse nor ends one.
    fn count_unstable(&mut self, report: &StateReport) {
        let Some(stability) = report.attractor.stability else { return };
        let unstable = stability.value() < COLLAPSE_STABILITY;
        self.unstable_cycles = if unstable { self.unstable_cycles.saturating_add(1) } else { 0 };
    }

    /// Collapse, like the critical marks, is read off native metrics only: a derived phase drift is
    /// 1 on most cycles of a healthy public runtime (SPEC section 4b).
    fn is_collapse(&self, report: &StateReport) -> bool {
        let weak = |scr: Coherence| scr.value() < COLLAPSE_SCR;
        self.unstable_cycles > COLLAPSE_CYCLES
            && report.drift.provenance == Provenance::Native
            && report
                .drift
                .parts
                .is_some_and(|parts| weak(parts.scr) || parts.pd.value() > COLLAPSE_PD)
    }
}
