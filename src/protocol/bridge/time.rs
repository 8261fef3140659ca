//! Time: what of it tightens the gate, and when the bridge wants to be woken.
//!
//! Every input looks at the time first. A process that stood still for longer than the runtime may
//! be silent finds its gate closed before it sends anything.

use super::{Band, Bridge, Cause, Duration, Now, Reason, Step};

/// When time alone tightens the gate, to what, and why.
pub(super) struct Timer {
    pub(super) at: Duration,
    band: Band,
    reason: Reason,
}

impl Bridge {
    /// What time may still do to the gate in its present band, strictest first.
    pub(super) fn timers(&self) -> impl Iterator<Item = Timer> {
        let band = self.judge.gate().band();
        let (silent, held) = (self.last_valid, self.band_since.mono);
        let timer = |is_set: bool, from: Duration, after: Option<Duration>, band, reason| {
            let at = after.filter(|_| is_set).map(|after| from.saturating_add(after));
            at.map(|at| Timer { at, band, reason })
        };
        let live = &self.live;
        [
            timer(
                band < Band::Isolated,
                silent,
                live.silence_isolates_after,
                Band::Isolated,
                Reason::Silent,
            ),
            timer(
                band == Band::Blocked,
                held,
                live.isolate_after,
                Band::Isolated,
                Reason::BlockedTooLong,
            ),
            timer(
                band < Band::Blocked,
                silent,
                Some(live.stale_after),
                Band::Blocked,
                Reason::Stale,
            ),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether time has tightened the gate, though no input has said so yet.
    #[must_use]
    pub fn is_overdue(&self, now: Now) -> bool {
        self.timers().any(|timer| timer.at <= now.mono)
    }

    /// Lets time do what it has to do by now.
    pub(super) fn pass(&mut self, now: Now) {
        let due = self.timers().find(|timer| timer.at <= now.mono);
        if let Some(Timer { band, reason, .. }) = due {
            let verdict = self.judge.tighten(band, reason);
            self.enter(now, &verdict, Cause::default());
        }
        self.outbox.expire(now.mono);
        self.heed_lease(now);
    }

    /// The next moment at which [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self, now: Now) -> Duration {
        let closing = self.closing.as_ref().map(|closing| match closing.step {
            Step::Settling(until) => until.min(closing.deadline),
            Step::Asked(_) | Step::Echoed => closing.deadline,
        });
        let sending = if self.may_send() { self.outbox.deadline(now.mono) } else { None };
        let gate = self.timers().map(|timer| timer.at);
        let showing = self.showing_deadline();
        let others = [closing, sending, showing, Some(self.answer_deadline)].into_iter().flatten();
        gate.chain(others).min().unwrap_or(Duration::MAX)
    }
}
