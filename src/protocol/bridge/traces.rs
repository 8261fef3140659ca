//! The newest reports as they were judged, kept to be explained: `GET /aegida/trace`.
//!
//! What is kept is typed, and of texts the length (P9). The rows of the table are made anew from
//! the sample when somebody asks: by the function that the verdict was made with.

use std::collections::VecDeque;

use super::{
    Answer, Band, Bridge, Decision, Judgement, Malformed, Now, Reason, ReportReply, StateReport,
    Ticket, Verdict,
};
use crate::protocol::drift::{Coherence, DriftIndex, DriftParts, Estimate, Fraction};
use crate::protocol::gate::{Sample, Thresholds};
use crate::protocol::judge::Policy;
use crate::protocol::outbox::{Settled, Unmade};
use crate::protocol::view::{
    Barrier, DriftView, GateView, IndexView, Inspection, ParseView, ReopeningView, TargetTrace,
    TraceView,
};

/// Reports that are kept, the newest.
pub const TRACES_MAX: usize = 32;
/// Targets that are kept of each: with 32 reports at most 400 KiB.
pub const TRACE_TARGETS_MAX: usize = 256;

/// Which report is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// The newest one.
    Newest,
    /// That of this number.
    Seq(u64),
    /// That whose answer has this ticket.
    Ticket(Ticket),
}

/// One report. What follows from the rest is put into the view when somebody asks.
#[derive(Clone, Debug)]
struct Trace {
    ticket: Ticket,
    sample: Sample,
    thresholds: Thresholds,
    view: TraceView,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Traces {
    kept: VecDeque<Trace>,
    /// Of the report that is being judged.
    targets: Vec<TargetTrace>,
    targets_omitted: usize,
}

impl Traces {
    /// One more target of the report that is being judged.
    pub(super) fn target(&mut self, target: TargetTrace) {
        if self.targets.len() < TRACE_TARGETS_MAX {
            self.targets.push(target);
        } else {
            self.targets_omitted += 1;
        }
    }

    fn keep(&mut self, mut trace: Trace) {
        trace.view.targets = core::mem::take(&mut self.targets);
        trace.view.targets_omitted = core::mem::take(&mut self.targets_omitted);
        if self.kept.len() >= TRACES_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(trace);
    }

    fn of(&mut self, ticket: Ticket) -> Option<&mut Trace> {
        self.kept.iter_mut().rev().find(|trace| trace.ticket == ticket)
    }

    /// A packet could not be made when its turn came.
    pub(super) fn unmade(&mut self, Unmade { line: (ticket, line), step, .. }: Unmade) {
        let targets = self.of(ticket).map(|trace| &mut trace.view.targets);
        if let Some(target) = targets.and_then(|targets| targets.get_mut(line)) {
            target.inspection = Inspection::Failed(step);
        }
    }

    /// A packet has settled.
    pub(super) fn settle(&mut self, settled: &Settled) {
        let targets = self.of(settled.ticket).map(|trace| &mut trace.view.targets);
        if let Some(target) = targets.and_then(|targets| targets.get_mut(settled.line)) {
            target.status = settled.status;
            target.stream_seq = settled.stream_seq;
        }
    }

    /// An answer is being given.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        if let (Some(trace), Some(barrier)) = (self.of(ticket), answer.barrier()) {
            let gate = &mut trace.view.gate;
            gate.barrier = Some(barrier);
            if barrier == Barrier::Unconfirmed && !gate.reasons.contains(&Reason::Unconfirmed) {
                gate.reasons.push(Reason::Unconfirmed);
            }
        }
    }
}

impl Bridge {
    /// One of the newest reports explained; `None` for one that is not kept. A retry has none.
    #[must_use]
    pub fn trace(&self, which: Traced) -> Option<TraceView> {
        let is_meant = |trace: &&Trace| match which {
            Traced::Newest => true,
            Traced::Seq(seq) => trace.view.seq == Some(seq),
            Traced::Ticket(ticket) => trace.ticket == ticket,
        };
        let Trace { sample, thresholds, view, .. } =
            self.traces.kept.iter().rev().find(is_meant)?;
        let mut view = view.clone();
        view.table = sample.rows(thresholds).into();
        let applying = view.table.iter().filter(|row| row.applies);
        view.gate.asked = applying.map(|row| row.band).max().unwrap_or(Band::Open);
        view.profile = self.identity.profile.name().to_owned();
        view.would_reopen = view.reopening.as_ref().map(ReopeningView::in_words);
        Some(view)
    }

    /// Keeps what was made of a report.
    pub(super) fn keep_trace(
        &mut self,
        (now, ticket): (Now, Ticket),
        report: &StateReport,
        judgement: &Judgement,
        reply: &ReportReply,
    ) {
        let policy = self.judge.policy();
        let gate = GateView {
            before: judgement.verdict.from,
            asked: Band::Open,
            after: reply.band,
            verdict: reply.verdict,
            reasons: reply.reasons.clone(),
            barrier: None,
        };
        let view = TraceView {
            seq: Some(reply.seq),
            cycle: report.cycle,
            continuity: Some(report.continuity),
            index: Some(index(policy, report, judgement)),
            ..self.explained(now, ParseView::of(report, &reply.ignored), gate)
        };
        let thresholds = policy.thresholds;
        self.traces.keep(Trace { ticket, sample: judgement.sample, thresholds, view });
    }

    /// Keeps why a report was refused, and what that did.
    pub(super) fn keep_refusal(
        &mut self,
        (now, ticket): (Now, Ticket),
        fault: Option<&Malformed>,
        verdict: Verdict,
    ) {
        let gate = GateView {
            before: verdict.from,
            asked: Band::Open,
            after: verdict.band,
            verdict: Decision::without_packets(verdict.band),
            reasons: verdict.reasons,
            barrier: None,
        };
        let (sample, thresholds) =
            (Sample::absent(Reason::Invalid), self.judge.policy().thresholds);
        let view = self.explained(now, ParseView::refused(fault), gate);
        self.traces.keep(Trace { ticket, sample, thresholds, view });
    }

    fn explained(&self, now: Now, parse: ParseView, gate: GateView) -> TraceView {
        TraceView {
            runtime_id: self.identity.runtime_id.clone(),
            mode: self.identity.mode,
            seq: None,
            at: now.wall,
            profile: String::new(),
            parse,
            cycle: None,
            continuity: None,
            index: None,
            table: Vec::new(),
            gate,
            targets: Vec::new(),
            targets_omitted: 0,
            would_reopen: None,
            reopening: self.reopening(),
        }
    }
}

fn index(policy: &Policy, report: &StateReport, judgement: &Judgement) -> IndexView {
    let drift = report.drift;
    let formula = |parts: DriftParts| parts.index().value();
    let number = |fraction: Fraction| Some(fraction.value());
    let estimated = |estimate: Estimate| DriftView {
        sdi: number(estimate.sdi),
        sv: number(estimate.sv),
        pd: number(estimate.pd),
        scr: estimate.scr.map(Coherence::value),
        di: estimate.with(policy.assumed_scr).map(formula),
    };
    IndexView {
        native: drift.native.map(|parts| DriftView::of(Some(parts), Some(formula(parts)))),
        reported: drift.reported.map(DriftIndex::value),
        derived: drift.derived.map(estimated),
        assumed_scr: policy.assumed_scr.map(Coherence::value),
        accept: policy.accept.word(),
        source: judgement.measurement.provenance.word(),
        used: judgement.di.map(DriftIndex::value),
    }
}
