//! The newest report once more: its sender did not hear the answer, so it gets that, as it stands
//! now. Nothing is judged, sent or moved.

use super::{Answer, Bridge, Decision, Effect, Now, ReportReply, Ticket};
use crate::protocol::outbox::Settled;

/// The newest report, for whoever repeats it.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    /// Who reported it first.
    ticket: Ticket,
    /// What he was told, once he was; before that the answer is among those that wait.
    told: Option<Box<ReportReply>>,
}

impl Bridge {
    /// Answers a report that only repeats the newest one, when a closing that is under way has
    /// ended.
    pub(super) fn retry(&mut self, now: Now, ticket: Ticket) -> Vec<Effect> {
        let latest = self.latest_answer();
        let Some((first, reply)) = latest.map(|(first, reply)| (first, self.as_it_stands(reply)))
        else {
            // No report, no retry: the two memories disagree, so nothing is to be trusted.
            return self.refuse(now, ticket, None);
        };
        self.counters.retries += 1;
        self.wait(now, ticket, Answer::Retry(Box::new(reply)), self.closing.is_some());
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.repeats = Some(first);
        }
        self.settle(now)
    }

    /// From here on this is the newest report.
    pub(super) fn remember(&mut self, ticket: Ticket) {
        self.latest = Some(Latest { ticket, told: None });
    }

    /// An answer is being given; the newest report's is kept.
    pub(super) fn keep_answer(&mut self, ticket: Ticket, answer: &Answer) {
        self.traces.answer(ticket, answer);
        let latest = self.latest.as_mut().filter(|latest| latest.ticket == ticket);
        if let (Some(latest), Answer::Report(reply)) = (latest, answer) {
            latest.told = Some(reply.clone());
        }
    }

    /// A packet has settled: whoever else was told of it, or waits for it, is to know.
    pub(super) fn settle_retries(&mut self, settled: &Settled) {
        let latest = self.latest.as_mut().filter(|latest| latest.ticket == settled.ticket);
        let Some(latest) = latest else { return };
        if let Some(reply) = &mut latest.told {
            settled.write(reply);
        }
        let repeats = |ticket: Option<Ticket>| ticket == Some(settled.ticket);
        for (ticket, waiting) in &mut self.waiting {
            if let (true, Answer::Retry(reply)) = (repeats(waiting.repeats), &mut waiting.answer)
                && settled.write(reply)
            {
                waiting.open = waiting.open.saturating_sub(1);
                self.touched.push(*ticket);
            }
        }
    }

    fn latest_answer(&self) -> Option<(Ticket, &ReportReply)> {
        let latest = self.latest.as_ref()?;
        let told = latest.told.as_deref();
        let waiting = || match &self.waiting.get(&latest.ticket)?.answer {
            Answer::Report(reply) => Some(&**reply),
            Answer::Retry(_) | Answer::Refused { .. } | Answer::Order(_) => None,
        };
        Some((latest.ticket, told.or_else(waiting)?))
    }

    /// The gate may have moved since.
    fn as_it_stands(&self, reply: &ReportReply) -> ReportReply {
        let mut reply = reply.clone();
        if self.band() != reply.band {
            reply.band = self.band();
            reply.reasons.clone_from(&self.reasons);
            if reply.band.is_closed() {
                reply.verdict = Decision::without_packets(reply.band);
            }
        }
        reply
    }
}
