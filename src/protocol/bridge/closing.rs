//! The barrier and the cut (P2, P4): from the closing verdict to the broker's echo.

use super::{Band, Barrier, Bridge, Closing, Effect, Now, Reason};

impl Bridge {
    /// Starts a closing, or turns the one under way into a cut: its wait begins anew, because the
    /// echo has to come after the subscriptions are gone.
    pub(super) fn start_closing(&mut self, now: Now, cut: bool) {
        let id = self.next_closing;
        self.next_closing += 1;
        let started = self.closing.as_ref().map_or(now.mono, |closing| closing.started);
        self.closing = Some(Closing {
            id,
            cut: cut || self.closing.as_ref().is_some_and(|closing| closing.cut),
            asked: false,
            echoed: false,
            acks_until: now.mono + self.settings.barrier_timeout / 2,
            deadline: now.mono + self.settings.barrier_timeout,
            started,
        });
    }

    /// Moves a closing on as far as it can go now.
    pub(super) fn advance_closing(&mut self, now: Now) {
        let quiet = self.outbox.is_quiet();
        let Some(closing) = self.closing.as_mut() else { return };
        if !self.connected {
            // No connection, no buffer of ours. Whether the broker has read all of the last one is
            // known only if nothing was open on it.
            let barrier = if self.uncertain { Barrier::Unconfirmed } else { Barrier::Confirmed };
            self.end_closing(now, barrier);
            return;
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
        if closing.echoed && (quiet || now.mono >= closing.deadline) {
            self.end_closing(now, Barrier::Confirmed);
        } else if now.mono >= closing.deadline {
            self.uncertain = true;
            self.connected = false;
            self.subscribed = false;
            self.pulling = false;
            self.effects.push(Effect::Sever);
            self.end_closing(now, Barrier::Unconfirmed);
        }
    }

    fn end_closing(&mut self, now: Now, barrier: Barrier) {
        let band = self.judge.gate().band();
        if band != self.notified && band.is_closed() && self.connected {
            // Isolated, reopened and blocked within one closing: the notice that was kept back goes
            // out now, and the waiting replies wait for its echo as well.
            self.notify(now);
            self.closing = None;
            self.start_closing(now, band == Band::Isolated);
            return;
        }
        // Whatever is still unanswered will never be sent again and is not waited for any longer.
        self.outbox.abandon();
        if let Some(closing) = self.closing.take() {
            self.closing_times.push(now.mono.saturating_sub(closing.started));
        }
        match barrier {
            Barrier::Confirmed => self.counters.confirmed += 1,
            Barrier::Unconfirmed => self.counters.unconfirmed += 1,
        }
        self.effects.push(Effect::Closed(barrier));
        for (seq, open) in self.open_replies.iter_mut().filter(|(_, open)| open.closing) {
            self.touched.push(*seq);
            open.closing = false;
            open.reply.barrier = Some(barrier);
            if barrier == Barrier::Unconfirmed {
                open.reply.reasons.push(Reason::Unconfirmed);
            }
        }
        if band != self.notified {
            self.notify(now);
        }
    }
}
