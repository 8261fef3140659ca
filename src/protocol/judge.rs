//! From a report to a verdict: evidence policy, epochs, jumps, collapse and flapping, then the
//! gate.
//!
//! `gate.rs` is the table; this is what has to be remembered between two reports in order to read
//! it. `bridge.rs` (live) and `driftgate replay` (recorded) both judge with this type, so a replay
//! says what the sidecar would have done. The policy is looked at here and nowhere else, each time
//! a report is judged, so that the newest one can be judged again under another policy.

use core::hash::{Hash as _, Hasher};
use std::collections::VecDeque;

use super::drift::{
    Coherence, Drift, DriftIndex, DriftParts, Fraction, Measurement, Provenance, Vitals,
};
use super::gate::{
    Band, CC_MIN, CI_MIN, COLLAPSE_CYCLES, Gate, Reason, Sample, Thresholds, Verdict,
};
use super::packet::Posture;
use super::profile::{Continuity, StateReport};

/// SRIP-06 section 5: stability below this counts towards collapse.
pub const COLLAPSE_STABILITY: f64 = 0.5;
/// SRIP-06 section 5: and coherence below this, or phase drift above [`COLLAPSE_PD`].
pub const COLLAPSE_SCR: f64 = 0.6;
/// SRIP-06 section 5.
pub const COLLAPSE_PD: f64 = 0.25;
/// Good reports in a row that a gate that flaps asks for.
pub const FLAPPING_DWELL: u32 = 3;
/// Most closings that are remembered: twice as many as `containment.flapping` can ask for.
const CLOSINGS_MAX: usize = 200;

/// What an operator may set about judging.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Marks of the drift index.
    pub thresholds: Thresholds,
    /// The weakest provenance that counts as evidence. Default native.
    pub accept: Provenance,
    /// Good reports in a row that a closed gate asks for. Default 1, the specification's number.
    pub dwell: u32,
    /// Coherence that the operator assumes for a runtime that reports none. There is no default: a
    /// coherence that nobody measured makes the index look small.
    pub assumed_scr: Option<Coherence>,
    /// An index from here up stays isolated until an operator releases it, if set.
    pub lock: Option<f64>,
    /// Closings that follow each other too fast, if looked at.
    pub flapping: Option<Flapping>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            accept: Provenance::Native,
            dwell: 1,
            assumed_scr: None,
            lock: None,
            flapping: None,
        }
    }
}

impl Policy {
    /// The strongest measurement that a report has, where derived parts are looked at only if they
    /// are accepted or nothing else is there. The reported index is kept beside derived parts, so
    /// that the gate takes the larger of the two.
    #[must_use]
    pub fn choose(&self, drift: &Drift) -> Measurement {
        let reported = drift.reported;
        if let Some(parts) = drift.native {
            return Measurement { parts: Some(parts), reported, provenance: Provenance::Native };
        }
        let is_wanted = self.accept <= Provenance::Derived || reported.is_none();
        let derived = drift.derived.filter(|_| is_wanted);
        if let Some(parts) = derived.and_then(|estimate| estimate.with(self.assumed_scr)) {
            return Measurement { parts: Some(parts), reported, provenance: Provenance::Derived };
        }
        let provenance = if reported.is_some() { Provenance::Reported } else { Provenance::None };
        Measurement { parts: None, reported, provenance }
    }
}

/// So many closings in so many cycles ask for [`FLAPPING_DWELL`], twice as many isolate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// Closings, at most 100.
    pub closings: u32,
    /// Cycles, not fewer than `closings`.
    pub cycles: u32,
}

/// Proof that the gate let one report through. Only a [`Judge`] makes one, and only
/// [`Keyring::seal`](super::seal::Keyring::seal) takes one, so no code path can sign what the gate
/// refused.
///
/// ```compile_fail,E0451
/// let clearance = driftgate::protocol::judge::Clearance { block: 0.5 };
/// ```
#[derive(Debug, PartialEq)]
pub struct Clearance {
    block: f64,
}

impl Clearance {
    /// Any index at or above this fails inspection, whatever the verdict said.
    #[must_use]
    pub fn block(&self) -> f64 {
        self.block
    }

    /// The same permission, held against this mark as well.
    pub(super) fn under(&self, block: f64) -> Self {
        Self { block: self.block.min(block) }
    }
}

/// What was decided about one report.
#[derive(Debug, PartialEq)]
pub struct Judgement {
    /// Gate verdict with its reasons.
    pub verdict: Verdict,
    /// What the policy took the drift metrics for.
    pub measurement: Measurement,
    /// What the table was read for.
    pub sample: Sample,
    /// Gate value, the larger of formula and reported index.
    pub di: Option<DriftIndex>,
    /// Cycle number of the report, if it gave one.
    pub cycle: Option<u64>,
    /// Whether this report may be exported: the gate is not closed and the sample is evidence.
    pub clearance: Option<Clearance>,
    /// Whether this report says something about the runtime: it ends a silence.
    pub is_valid: bool,
    /// Whether the runtime's memory is too weak to be shared, whatever the band.
    pub withholds_memory: bool,
}

/// What of a report is looked at when it is judged, and judged again.
#[derive(Clone, Copy, Debug)]
struct Basis {
    cycle: Option<u64>,
    continuity: Continuity,
    drift: Drift,
    /// The drift of the cycle before, where there is one to compare with.
    before: Option<Drift>,
    vitals: Vitals,
    posture: Posture,
    nominal: bool,
    untrusted: Option<Reason>,
}

/// The memory between two reports.
#[derive(Clone, Debug)]
pub struct Judge {
    gate: Gate,
    policy: Policy,
    epoch: u64,
    /// The newest report that could be read.
    newest: Option<Basis>,
    unstable_cycles: u32,
    /// Reports judged, readable or not.
    judged: u64,
    /// At which of them the gate closed, oldest first.
    closings: VecDeque<u64>,
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
            newest: None,
            unstable_cycles: 0,
            judged: 0,
            closings: VecDeque::new(),
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

    /// Replaces the rules; the gate keeps its state until the next report, or until
    /// [`Self::judge_again`].
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Judges one report.
    pub fn report(&mut self, report: &StateReport) -> Judgement {
        let from = self.gate.band();
        if report.continuity == Continuity::Restart {
            // Its past does not speak for it: start closed, then judge.
            self.epoch = self.epoch.saturating_add(1);
            self.unstable_cycles = 0;
            (self.gate, _) = self.gate.tighten(Band::Blocked, Reason::NewEpoch);
        }
        // The same cycle again is no further cycle, however often it is reported.
        if report.continuity != Continuity::Same {
            self.count_unstable(report.attractor.stability);
        }
        let before = match report.continuity {
            // The first number follows whatever was reported without one.
            Continuity::First | Continuity::Next { .. } | Continuity::Unknown => {
                self.newest.map(|basis| basis.drift)
            }
            Continuity::Same => self.newest.and_then(|basis| basis.before),
            Continuity::Restart => None,
        };
        let basis = Basis {
            cycle: report.cycle,
            continuity: report.continuity,
            drift: report.drift,
            before,
            vitals: report.vitals,
            posture: report.posture,
            nominal: report.nominal,
            untrusted: report.untrusted,
        };
        self.newest = Some(basis);
        let (measurement, sample) = self.sample(&basis);
        let verdict = self.step(from, &sample);
        let mut judgement = self.judgement(&basis, measurement, &sample, verdict);
        let reasons = &mut judgement.verdict.reasons;
        match report.continuity {
            Continuity::Next { missed: 1.. } => reasons.push(Reason::CycleGap),
            Continuity::Restart if !reasons.contains(&Reason::NewEpoch) => {
                reasons.push(Reason::NewEpoch);
            }
            Continuity::First
            | Continuity::Next { .. }
            | Continuity::Same
            | Continuity::Restart
            | Continuity::Unknown => {}
        }
        judgement
    }

    /// Judges the newest report again under the present policy; `None` before the first. It may
    /// tighten and never opens.
    pub fn judge_again(&mut self) -> Option<Judgement> {
        let basis = self.newest?;
        let (measurement, sample) = self.sample(&basis);
        let verdict;
        (self.gate, verdict) = self.gate.judge_again(&sample, &self.policy.thresholds);
        Some(self.judgement(&basis, measurement, &sample, verdict))
    }

    /// Mixes what the next verdict depends on, beside the gate and the policy, into `into`: all but
    /// cycle numbers.
    pub(super) fn fingerprint(&self, into: &mut impl Hasher) {
        let bits = |drift: Drift| {
            self.policy.choose(&drift).gate_value().map(|index| index.value().to_bits())
        };
        let newest = self.newest.map(|basis| {
            let words = (basis.posture, basis.nominal, basis.untrusted);
            (bits(basis.drift), basis.before.map(bits), words)
        });
        (newest, self.unstable_cycles.min(COLLAPSE_CYCLES + 1)).hash(into);
        self.closings.iter().for_each(|at| self.judged.saturating_sub(*at).hash(into));
    }

    /// A report that could not be read: it closes the gate and changes nothing else (P6).
    pub fn malformed(&mut self) -> Verdict {
        self.step(self.gate.band(), &Sample::absent(Reason::Invalid))
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

    fn step(&mut self, from: Band, sample: &Sample) -> Verdict {
        self.judged = self.judged.saturating_add(1);
        let flaps = |judge: &Self, times: u32| {
            judge.policy.flapping.is_some_and(|Flapping { closings, cycles }| {
                judge.closings_within(cycles) >= closings.saturating_mul(times)
            })
        };
        let flapped = flaps(self, 1);
        let dwell = self.policy.dwell.max(if flapped { FLAPPING_DWELL } else { 1 });
        let mut verdict;
        (self.gate, verdict) = self.gate.step(sample, &self.policy.thresholds, dwell);
        verdict.from = from;
        if verdict.band.is_closed() && !from.is_closed() {
            self.closings.push_back(self.judged);
            if self.closings.len() > CLOSINGS_MAX {
                self.closings.pop_front();
            }
            if flaps(self, 2) {
                (self.gate, _) = self.gate.tighten(Band::Isolated, Reason::Flapping);
                verdict.band = Band::Isolated;
                verdict.reasons.insert(0, Reason::Flapping);
            }
        } else if flapped && verdict.reasons.contains(&Reason::Dwell) {
            verdict.reasons.push(Reason::Flapping);
        }
        verdict
    }

    /// Closings in the newest `cycles` reports.
    fn closings_within(&self, cycles: u32) -> u32 {
        let since = self.judged.saturating_sub(u64::from(cycles));
        let recent = self.closings.iter().rev().take_while(|at| **at > since).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    fn sample(&self, basis: &Basis) -> (Measurement, Sample) {
        let measurement = self.policy.choose(&basis.drift);
        let di = measurement.gate_value();
        let is_native = measurement.provenance == Provenance::Native;
        let native = measurement.parts.filter(|_| is_native);
        let rise = |before: Drift| {
            let before = self.policy.choose(&before).gate_value()?;
            Some(di?.value() - before.value())
        };
        // Collapse, like the marks of the parts, is read off native metrics only: a derived phase
        // drift is 1 on most cycles of a healthy public runtime.
        let is_weak =
            |parts: &DriftParts| parts.scr.value() < COLLAPSE_SCR || parts.pd.value() > COLLAPSE_PD;
        let sample = Sample {
            di,
            posture: basis.posture,
            parts: native,
            vitals: basis.vitals,
            collapse: native.filter(is_weak).map(|_| self.unstable_cycles),
            apart: measurement.apart(),
            rise: basis.before.and_then(rise),
            lock: self.policy.lock,
            untrusted: self.untrusted(basis, &measurement),
            nominal: basis.nominal,
        };
        (measurement, sample)
    }

    /// Why a report is no evidence under the present policy.
    fn untrusted(&self, basis: &Basis, measurement: &Measurement) -> Option<Reason> {
        let is_restart = basis.continuity == Continuity::Restart;
        let is_refused = measurement.provenance < self.policy.accept
            && measurement.provenance != Provenance::None;
        lack(basis, measurement)
            .or_else(|| is_restart.then_some(Reason::NewEpoch))
            .or_else(|| is_refused.then_some(Reason::ProvenanceRefused))
    }

    fn judgement(
        &self,
        basis: &Basis,
        measurement: Measurement,
        sample: &Sample,
        verdict: Verdict,
    ) -> Judgement {
        let below = |vital: Option<Fraction>, mark| vital.is_some_and(|vital| vital.value() < mark);
        let is_clear = !verdict.band.is_closed() && sample.untrusted.is_none();
        Judgement {
            clearance: is_clear.then_some(Clearance { block: self.policy.thresholds.block }),
            verdict,
            measurement,
            sample: *sample,
            di: sample.di,
            cycle: basis.cycle,
            is_valid: sample.di.is_some() && lack(basis, &measurement).is_none(),
            withholds_memory: below(basis.vitals.ci, CI_MIN) || below(basis.vitals.cc, CC_MIN),
        }
    }

    /// A cycle that does not say how stable it was neither adds to a collapse nor ends one.
    fn count_unstable(&mut self, stability: Option<Fraction>) {
        let Some(stability) = stability else { return };
        let unstable = stability.value() < COLLAPSE_STABILITY;
        self.unstable_cycles = if unstable { self.unstable_cycles.saturating_add(1) } else { 0 };
    }
}

/// Why a report says nothing about the runtime, whatever the policy.
fn lack(basis: &Basis, measurement: &Measurement) -> Option<Reason> {
    let is_zero = match (measurement.parts, measurement.reported) {
        (Some(parts), _) => parts.are_zero(),
        (None, Some(reported)) => reported.value() <= 0.0,
        (None, None) => false,
    };
    let is_same = basis.continuity == Continuity::Same;
    is_same
        .then_some(Reason::DuplicateCycle)
        .or(basis.untrusted)
        .or_else(|| is_zero.then_some(Reason::NoEvidence))
}
