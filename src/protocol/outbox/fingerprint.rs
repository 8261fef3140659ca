//! What two outboxes have in common that will do the same from here on.

use core::hash::{Hash as _, Hasher};

use super::{Duration, Outbox, Ticket, Waiting};

impl Outbox {
    /// The outbox's part of the bridge's fingerprint: `place` gives the place of a number that was
    /// sent, `rank` that of a ticket.
    pub(crate) fn fingerprint(
        &self,
        now: Duration,
        caution_every: u32,
        place: impl Fn(u64) -> (usize, bool),
        rank: impl Fn(Ticket) -> usize,
        into: &mut impl Hasher,
    ) {
        let entry = |entry: &Waiting| {
            let seq = entry.seq();
            let newest = self.lanes.get(entry.lane).map(|lane| lane.newest_sent.cmp(&seq));
            (
                entry.lane,
                rank(entry.line.0),
                entry.attempts.min(2),
                seq <= self.revoked_through,
                newest,
            )
        };
        for lane in &self.lanes {
            let since = lane.since_offer.map(|since| since.min(caution_every));
            (lane.unsent.as_ref().map(entry), lane.queued, since).hash(into);
        }
        for (token, sent) in &self.in_flight {
            let is_covered = self.unread.map(|unread| unread >= *token);
            (entry(sent), place(*token), is_covered).hash(into);
            sent.deadline.saturating_sub(now).hash(into);
        }
        self.ready.hash(into);
        self.unread.map(place).hash(into);
        (self.cooldown, self.cooldown_until.saturating_sub(now)).hash(into);
    }
}
