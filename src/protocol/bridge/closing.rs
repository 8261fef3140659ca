//! The barrier and the cut (P2, P4): from the closing verdict to the broker's echo.

use super::{
    Band, Barrier, Bridge, Closing, Connection, Duration, Effect, Event, LINGER_MAX, Now, Step,
};

impl Bridge {
    /// Starts a closing, or follows one that began at `started` with another echo: its wait begins
    /// anew, because that echo has to come after the cut, or after a notice that was kept back.
    ///
    /// However often the band changes meanwhile, the whole ends before the reply to its first
    /// report is due, and with it every answer that waits for it (P10).
    pub(super) fn start_closing(&mut self, now: Now, cut: bool, started: Duration) {
        let bound = self.barrier_timeout();
        let due = started + bound + self.identity.reply_timeout;
        let deadline = due.min(now.mono + bound);
        // A block asks at once: the echo comes after everything that was sent before it. Only a
        // write of the own entry is waited for, since the next one depends on what became of it.
        let waits = cut || !self.is_shown();
        let settled = if waits { now.mono + bound / 2 } else { now.mono };
        self.closing = Some(Closing { cut, step: Step::Settling(settled), deadline, started });
        self.stop_uploads();
    }

    /// The bound on one closing.
    pub(super) fn barrier_timeout(&self) -> Duration {
        self.live.barrier_timeout.min(self.identity.reply_timeout)
    }

    /// Moves a closing on as far as it can go now.
    pub(super) fn advance_closing(&mut self, now: Now) {
        let (quiet, is_shown) = (self.outbox.is_quiet(), self.is_shown());
        let Some(closing) = self.closing.as_mut() else { return };
        if self.connection == Connection::Down {
            // No connection, no buffer of ours, and no echo to wait for. The uploads have their
            // own.
            closing.step = Step::Echoed;
        }
        match closing.step {
            Step::Echoed if quiet && !self.uploads.is_stopping() => self.end_closing(now),
            // Also where nothing was asked yet: no echo could come in time.
            _ if now.mono >= closing.deadline => {
                let is_echoed = closing.step == Step::Echoed;
                self.give_up(now, is_echoed);
            }
            Step::Settling(until) if is_shown && (quiet || !closing.cut) || now.mono >= until => {
                let cut = closing.cut;
                self.ask(now, cut);
            }
            Step::Settling(_) | Step::Asked(_) | Step::Echoed => {}
        }
    }

    /// Takes the subscriptions that a closed gate may not have, and asks for the echo.
    fn ask(&mut self, now: Now, cut: bool) {
        self.show_last(now, cut);
        if cut {
            self.connection = Connection::Bare;
            self.effects.push(Effect::Cut);
        } else if self.connection == Connection::Pull && !self.may_receive() {
            self.connection = Connection::Acks;
            self.effects.push(Effect::Subscribe { pull: false });
        }
        let id = self.outbox.stamp();
        if let Some(closing) = &mut self.closing {
            closing.step = Step::Asked(id);
        }
        self.effects.push(Effect::Confirm(id));
    }

    /// The bound has passed: what has not become quiet is dropped with its buffers.
    fn give_up(&mut self, now: Now, is_echoed: bool) {
        if self.uploads.is_stopping() {
            self.sever_uploads(now);
        }
        if !is_echoed {
            self.uncertain_until = now.mono + LINGER_MAX;
            self.connection = Connection::Down;
            self.effects.push(Effect::Sever);
        }
        self.end_closing(now);
    }

    fn end_closing(&mut self, now: Now) {
        let band = self.judge.gate().band();
        let started = self.closing.as_ref().map_or(now.mono, |closing| closing.started);
        let in_time = now.mono < started + self.barrier_timeout();
        if band != self.notified
            && band.is_closed()
            && self.connection != Connection::Down
            && in_time
        {
            // Isolated, reopened and blocked within one closing: the notice that was kept back goes
            // out now, and the waiting replies wait for its echo as well. A runtime that goes on
            // like this is answered all the same, without the notice: the last one said worse.
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
        self.outbox.closed(barrier, now.wall);
        self.effects.push(Effect::Record(Event::Barrier(barrier)));
        for (ticket, waiting) in self.waiting.iter_mut().filter(|(_, waiting)| waiting.closing) {
            self.touched.push(*ticket);
            waiting.closing = false;
            waiting.answer.close(barrier);
        }
        if band != self.notified && !band.is_closed() {
            self.notify(now);
        }
    }
}
