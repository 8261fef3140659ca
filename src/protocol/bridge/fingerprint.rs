//! What two bridges have in common that will do the same from here on: for exploring all of them.

use core::hash::{Hash as _, Hasher};

use super::{Answer, Bridge, Duration, Now, Step};

impl Bridge {
    /// Mixes what the bridge will do from here on into `into`. Two bridges that differ only in when
    /// they live, in how far their numbers have come or in what their books hold mix in the same.
    ///
    /// Deadlines count from `now`, sequence numbers as what they are compared with, and the numbers
    /// of what was sent by their place among `sent`, which rises. What a runtime with cycle numbers
    /// adds is left out, as are the settings, the keys and the reasons.
    pub fn fingerprint(&self, now: Now, sent: &[u64], into: &mut impl Hasher) {
        let left = |at: Duration| at.saturating_sub(now.mono);
        let place = |number: u64| {
            (sent.partition_point(|other| *other < number), sent.binary_search(&number).is_ok())
        };
        let gate = self.judge.gate();
        (gate.band(), gate.operator_hold(), self.notified, self.connection, self.fence).hash(into);
        self.judge.fingerprint(into);
        self.newest.withholds_memory.hash(into);
        left(self.uncertain_until).hash(into);
        self.timers().for_each(|timer| left(timer.at).hash(into));
        if let Some(closing) = &self.closing {
            let asked = match closing.step {
                Step::Settling(until) => Err(left(until)),
                Step::Asked(id) => Ok(Some(place(id))),
                Step::Echoed => Ok(None),
            };
            let age = now.mono.saturating_sub(closing.started);
            (closing.cut, asked, left(closing.deadline), age).hash(into);
        }
        for waiting in self.waiting.values() {
            let kind = match &waiting.answer {
                Answer::Report(reply) | Answer::Retry(reply) => Some(reply.band),
                Answer::Refused { .. } | Answer::Order(_) => None,
            };
            (kind, waiting.open, waiting.closing, left(waiting.deadline)).hash(into);
        }
        left(self.answer_deadline.min(now.mono + Duration::from_secs(3600))).hash(into);
        self.uploads.hash(into);
        self.exchanges.hash(into);
        self.telemetry.hash(into);
        let rank = |ticket| self.waiting.range(..ticket).count();
        self.outbox.fingerprint(now.mono, self.live.caution_every, place, rank, into);
    }
}
