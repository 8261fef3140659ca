//! The barrier and the cut (P2, P4): from the closing verdict to the broker's echo.

use super::{Band, Barrier, Bridge, Closing, Duration, Effect, Event, LINGER_MAX, Notice, Now};

impl Bridge {
    /// Starts a closing, or follows one that began at `started` with another echo: its wait begins
    /// anew, because that echo has to come after the cut, or after a notice that was kept back.
    ///
    /// However often the band changes meanwhile, the whole ends before the reply to its first
    /// report is due, and with it every answer that waits for it (P10).
    pub(super) fn start_closing(&mut self, now: Now, cut: bool, started: Duration) {
        let id = self.next_closing;
        self.next_closing += 1;
        let due = started + self.barrier_timeout() + self.identity.reply_timeout;
        self.closing = Some(Closing {
            id,
            cut,
            asked: false,
            echoed: false,
            acks_until: now.mono + self.barrier_timeout() / 2,
            deadline: due.min(now.mono + self.barrier_timeout()),
            started,
        });
        self.stop_uploads(now);
    }

    /// The bound on one closing.
    pub(super) fn barrier_timeout(&self) -> Duration {
        self.live.barrier_timeout.min(self.identity.reply_timeout)
    }

    /// Moves a closing on as far as it can go now.
    pub(super) fn advance_closing(&mut self, now: Now) {
        let quiet = self.outbox.is_quiet();
        let Some(closing) = self.closing.as_mut() else { return };
        if !self.connected {
            // No connection, no buffer of ours, and no echo to wait for. The uploads have their
            // own.
            closing.asked = true;
            closing.echoed = true;
        }
        // A block asks at once: the echo comes after everything that was sent before it. A cut
        // first lets the acknowledgements in, because it takes their subscription away.
        if !closing.asked && (!closing.cut || quiet || now.mono >= closing.acks_until) {
            closing.asked = true;
            let (id, cut) = (closing.id, closing.cut);
            if cut {
                self.subscribed = false;
                self.pulling = false;
                self.effects.push(Effect::Cut);
            } else if self.pulling && !self.may_receive() {
                self.pulling = false;
                self.effects.push(Effect::Subscribe { pull: false });
            }
            self.effects.push(Effect::Confirm(id));
            return;
        }
        let late = now.mono >= closing.deadline;
        let uploads_quiet = !self.uploads.is_stopping();
        if closing.echoed && uploads_quiet && quiet {
            self.end_closing(now);
        } else if late {
            let echoed = closing.echoed;
            if !uploads_quiet {
                self.sever_uploads(now);
            }
            if !echoed {
                self.uncertain_until = now.mono + LINGER_MAX;
                self.connected = false;
                self.subscribed = false;
                self.pulling = false;
                self.effects.push(Effect::Sever);
            }
            self.end_closing(now);
        }
    }

    /// Tells everybody who listens of the present band.
    pub(super) fn notify(&mut self, now: Now) {
        let band = self.judge.gate().band();
        self.notified = band;
        if self.connected {
            self.effects.push(Effect::Notify(Notice {
                runtime_id: self.identity.runtime_id.clone(),
                band,
                reasons: self.reasons.clone(),
                since: now.wall,
                epoch: self.judge.epoch(),
            }));
        }
    }

    fn end_closing(&mut self, now: Now) {
        let band = self.judge.gate().band();
        let started = self.closing.as_ref().map_or(now.mono, |closing| closing.started);
        let in_time = now.mono < started + self.barrier_timeout();
        if band != self.notified && band.is_closed() && self.connected && in_time {
            // Isolated, reopened and blocked within one closing: the notice that was kept back goes
            // out now, and the waiting replies wait for its echo as well. A runtime that goes on
            // like this is answered all the same, with the notice after the reply.
            self.notify(now);
            self.start_closing(now, band == Band::Isolated, started);
            self.advance_closing(now);
            return;
        }
        // Whatever is still unanswered will never be sent again and is not waited for any longer.
        self.outbox.abandon();
        if let Some(closing) = self.closing.take() {
            self.closing_times.push(now.mono.saturating_sub(closing.started));
        }
        // Nothing of ours is left on this connection, but perhaps on an earlier one.
        let barrier =
            if now.mono < self.uncertain_until { Barrier::Unconfirmed } else { Barrier::Confirmed };
        match barrier {
            Barrier::Confirmed => self.counters.confirmed += 1,
            Barrier::Unconfirmed => self.counters.unconfirmed += 1,
        }
        self.effects.push(Effect::Record(Event::Barrier(barrier)));
        for (ticket, waiting) in self.waiting.iter_mut().filter(|(_, waiting)| waiting.closing) {
            self.touched.push(*ticket);
            waiting.closing = false;
            waiting.answer.close(barrier);
        }
        if band != self.notified {
            self.notify(now);
        }
    }
}
