//! Reports, and the policy that they are judged by: from a document to a verdict that is booked.

use std::sync::Arc;

use super::{
    Answer, Band, Bridge, Cause, Decision, Effect, Event, Json, Judgement, Live, Newest, Now,
    Reason, Ticket, TraceParent,
};
use crate::protocol::profile::{Continuity, Translation};

impl Bridge {
    /// One report of the runtime, within the trace that it came with. The answer is
    /// [`Answer::Report`], or [`Answer::Refused`] when it breaks its profile and so closes.
    #[must_use]
    pub fn report(
        &mut self,
        now: Now,
        ticket: Ticket,
        document: &Json,
        trace: Option<TraceParent>,
    ) -> Vec<Effect> {
        self.pass(now);
        let (report, ignored) = match self.translator.translate(document) {
            Ok(Translation::Report { report, ignored }) => (report, ignored),
            Ok(Translation::Retry) => return self.retry(now, ticket),
            Err(malformed) => return self.refuse(now, ticket, Some(malformed)),
        };
        self.counters.reports += 1;
        if matches!(report.continuity, Continuity::Next { missed: 1.. }) {
            self.counters.cycle_gaps += 1;
        }
        let seq = self.take_seq(now);
        let mut judgement = self.judge.report(&report);
        self.fence_off(&mut judgement);
        if judgement.withholds_memory && !self.newest.withholds_memory {
            self.withhold_uploads();
        }
        self.newest = Newest {
            cycle: report.cycle,
            di: judgement.di,
            source: judgement.measurement.provenance,
            trace: trace.clone(),
            posture: report.posture,
            withholds_memory: judgement.withholds_memory,
            parts: judgement.measurement.parts,
            vitals: report.vitals,
            attractor: None,
        };
        if judgement.is_valid {
            self.last_valid = now.mono;
        }
        let cause = Cause {
            cycle: judgement.cycle,
            di: judgement.di,
            report: Some((seq, judgement.measurement.provenance)),
            trace: trace.clone(),
        };
        let mut closes = self.enter(now, &judgement.verdict, cause.clone());
        let failed_before = self.counters.inspection_failed;
        let mut reply = self.compose(now, (ticket, seq), &report, &judgement, trace);
        if reply.reasons.contains(&Reason::InspectionFailed) {
            let packets = self.counters.inspection_failed.saturating_sub(failed_before);
            self.effects.push(Effect::Record(Event::InspectionFailed { seq, packets }));
            // A packet that the gate let through and the inspection did not: something is wrong
            // with one of the two, so nothing more goes out (P6).
            let verdict = self.judge.tighten(Band::Blocked, Reason::InspectionFailed);
            closes |= self.enter(now, &verdict, cause);
            reply.band = verdict.band;
            reply.verdict = Decision::Block;
        }
        self.tell_phase(now, seq, &report, &judgement);
        reply.ignored = ignored;
        self.keep_trace((now, ticket), &report, &judgement, &reply);
        self.newest.attractor = Some((report.attractor, now.wall));
        self.remember(ticket);
        self.wait(now, ticket, Answer::Report(Box::new(reply)), closes);
        self.settle(now)
    }

    /// What would become of a report, or of what is not even a document, now: the answer before
    /// anything is sent or waited for. Nothing changes by it.
    #[must_use]
    pub fn check(&self, now: Now, document: Option<&Json>) -> Answer {
        let (mut copy, ticket) = (self.clone(), Ticket(u64::MAX));
        let effects = match document {
            Some(document) => copy.report(now, ticket, document, None),
            None => copy.unreadable(now, ticket),
        };
        let given = effects.into_iter().find_map(|effect| {
            let Effect::Answer { ticket: to, answer } = effect else { return None };
            (to == ticket).then_some(answer)
        });
        let waiting = copy.waiting.remove(&ticket).map(|waiting| waiting.answer);
        let refused = || Answer::Refused { fault: None, state: self.state() };
        let mut answer = given.or(waiting).unwrap_or_else(refused);
        answer.mark_as_check();
        answer
    }

    /// A body that is not even a document: it can close, never open. Its answer is
    /// [`Answer::Refused`].
    #[must_use]
    pub fn unreadable(&mut self, now: Now, ticket: Ticket) -> Vec<Effect> {
        self.pass(now);
        self.refuse(now, ticket, None)
    }

    /// The operator's choices change while the bridge runs. The newest report is judged again under
    /// them, which may close and never opens; what waits and may no longer leave is revoked.
    #[must_use]
    pub fn reload(&mut self, now: Now, live: Live) -> Vec<Effect> {
        self.pass(now);
        self.seal_waiting();
        self.judge.set_policy(live.policy.clone());
        self.live = Arc::new(live);
        self.forget_exchanges();
        if let Some(judgement) = self.judge.judge_again() {
            self.newest.di = judgement.di;
            self.newest.source = judgement.measurement.provenance;
            self.newest.parts = judgement.measurement.parts;
            if judgement.verdict.band > judgement.verdict.from {
                let Judgement { cycle, di, verdict, .. } = judgement;
                self.enter(now, &verdict, Cause { cycle, di, ..Cause::default() });
            }
        }
        self.revoke_waiting(now);
        self.stop_unread_uploads(now);
        self.settle(now)
    }
}
