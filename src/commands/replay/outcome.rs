//! What the gate would have done, cycle by cycle, and the sums.

use crate::protocol::drift::{DriftIndex, DriftParts, Provenance};
use crate::protocol::gate::{Band, Reason};
use crate::protocol::judge::{Judge, Judgement, Policy};
use crate::protocol::packet::Posture;
use crate::protocol::profile::{Profile, StateReport, Translation, Translator};
use crate::protocol::view::Decision;

use super::log::{Position, Recorded};

/// One report and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) place: Position,
    pub(super) cycle: Option<u64>,
    pub(super) di: Option<f64>,
    pub(super) source: Provenance,
    /// What the index was made of.
    pub(super) parts: Option<DriftParts>,
    pub(super) posture: Posture,
    /// Before the report, and after it.
    pub(super) before: Band,
    pub(super) band: Band,
    pub(super) verdict: Decision,
    pub(super) reasons: Vec<Reason>,
    /// Why it is no valid report.
    pub(super) problem: Option<String>,
}

/// Rows and sums.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) profile: Profile,
    pub(super) policy: Policy,
    pub(super) caution_every: u32,
    pub(super) rows: Vec<Row>,
    /// Reports that only repeat the one before them: they have no row.
    pub(super) retries: usize,
    /// Changes of band; the gate starts blocked.
    pub(super) transitions: usize,
    /// Most reports in a row with publication cut.
    pub(super) longest_closed: usize,
}

impl Outcome {
    /// Judges a recorded run from its first cycle to its last.
    pub(super) fn of(
        cycles: &[Recorded],
        profile: Profile,
        policy: Policy,
        caution_every: u32,
    ) -> Self {
        let mut translator = Translator::new(profile.clone());
        let mut judge = Judge::new(policy.clone(), false);
        let mut pace = Pace { every: caution_every, since_export: None };
        let mut transitions = 0;
        let mut closed_run = 0;
        let mut longest_closed = 0;
        let mut retries = 0;
        let mut rows = Vec::with_capacity(cycles.len());
        for recorded in cycles {
            let before = judge.gate().band();
            let Some(row) = judge_one(recorded, before, &mut translator, &mut judge, &mut pace)
            else {
                retries += 1;
                continue;
            };
            transitions += usize::from(before != row.band);
            closed_run = if row.band.is_closed() { closed_run + 1 } else { 0 };
            longest_closed = longest_closed.max(closed_run);
            rows.push(row);
        }
        Self { profile, policy, caution_every, rows, retries, transitions, longest_closed }
    }

    /// Reports that left the gate in this band.
    pub(super) fn count(&self, band: Band) -> usize {
        self.rows.iter().filter(|row| row.band == band).count()
    }

    /// Reports with this verdict.
    pub(super) fn decided(&self, decision: Decision) -> usize {
        self.rows.iter().filter(|row| row.verdict == decision).count()
    }

    /// Reports that the gate let through and that cannot fill a packet.
    pub(super) fn unfillable(&self) -> usize {
        self.rows.iter().filter(|row| row.reasons.contains(&Reason::Unfillable)).count()
    }

    /// `part` of all reports, in percent.
    pub(super) fn percent(&self, part: usize) -> f64 {
        let number = |count: usize| u32::try_from(count).map_or(0.0, f64::from);
        100.0 * number(part) / number(self.rows.len()).max(1.0)
    }

    /// What to try where nothing in the log is evidence by the policy.
    pub(super) fn advice(&self) -> Option<String> {
        let total = self.rows.len();
        let carries = |row: &&Row| row.source == Provenance::Native;
        if self.policy.accept != Provenance::Native || self.rows.iter().any(|row| carries(&row)) {
            return None;
        }
        let opt_in = if self.profile.derives_parts() {
            "--accept derived --assumed-scr 0.8"
        } else {
            "--accept reported"
        };
        Some(format!("0 of {total} cycles carry all four parts; try {opt_in}"))
    }
}

/// `None` for a retry.
fn judge_one(
    recorded: &Recorded,
    before: Band,
    translator: &mut Translator,
    judge: &mut Judge,
    pace: &mut Pace,
) -> Option<Row> {
    let (translated, cycle) = match &recorded.document {
        Ok(document) => (
            translator.translate(document).map_err(|malformed| malformed.to_string()),
            translator.cycle_of(document),
        ),
        Err(fault) => (Err(format!("{}: {}", fault.field, fault.problem)), None),
    };
    Some(match translated {
        Ok(Translation::Retry) => return None,
        Ok(Translation::Report { report, .. }) => {
            let judgement = judge.report(&report);
            let (verdict, reasons) = decide(&report, &judgement, pace);
            Row {
                place: recorded.place,
                cycle,
                di: judgement.di.map(DriftIndex::value),
                source: judgement.measurement.provenance,
                parts: judgement.measurement.parts,
                posture: report.posture,
                before,
                band: judgement.verdict.band,
                verdict,
                reasons,
                problem: None,
            }
        }
        Err(problem) => {
            let verdict = judge.malformed();
            Row {
                place: recorded.place,
                cycle,
                di: None,
                source: Provenance::None,
                parts: None,
                posture: Posture::Unknown,
                before,
                band: verdict.band,
                verdict: Decision::without_packets(verdict.band),
                reasons: verdict.reasons,
                problem: Some(problem),
            }
        }
    })
}

/// As the bridge words it: a report that cannot fill a packet is let through by the gate and held
/// for want of content.
fn decide(report: &StateReport, judgement: &Judgement, pace: &mut Pace) -> (Decision, Vec<Reason>) {
    let band = judgement.verdict.band;
    let mut reasons = judgement.verdict.reasons.clone();
    if judgement.clearance.is_none() {
        return (Decision::without_packets(band), reasons);
    }
    if judgement.measurement.parts.is_none() || !report.attractor.is_fillable() {
        reasons.push(Reason::Unfillable);
        return (Decision::Hold, reasons);
    }
    if band == Band::Caution && !pace.is_due() {
        reasons.push(Reason::Throttled);
        return (Decision::Throttle, reasons);
    }
    pace.since_export = Some(0);
    (Decision::Export, reasons)
}

/// One target's pace in caution: a report is due when `every` have come since the last one sent.
struct Pace {
    every: u32,
    since_export: Option<u32>,
}

impl Pace {
    fn is_due(&mut self) -> bool {
        let since = self.since_export.map_or(self.every, |since| since.saturating_add(1));
        self.since_export = Some(since);
        since >= self.every
    }
}
