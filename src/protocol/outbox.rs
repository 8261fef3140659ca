//! What the gate let through and is not yet settled: one lane per target, one window over all of
//! them. A packet is sealed when its turn comes, once: it is sent again as the same bytes.
//!
//! A newer packet supersedes the unsent older one of its lane, a closing gate revokes all that is
//! unsent, and whatever is sent stays accounted for until the broker's acknowledgement, a deadline
//! or the end of the connection settles it (P5, P8). No clock and no socket: the driver sends what
//! [`Outbox::next`] hands out and reports what came back.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::packet::RuntimeId;
use super::seal::{Sealed, Step};
use super::time::{Now, Timestamp};
use super::view::{Barrier, PacketStatus, Ticket};

mod cleared;
mod fingerprint;
mod ledger;
mod settled;

pub use cleared::{Cleared, Origin};
pub use ledger::Ledger;
pub use settled::{Settled, Unmade};

/// First wait after the broker refused for the moment (no stream, no leader, too many requests);
/// it doubles up to [`COOLDOWN_MAX`].
pub const COOLDOWN_MIN: Duration = Duration::from_millis(100);
/// Longest such wait.
pub const COOLDOWN_MAX: Duration = Duration::from_secs(5);
/// Wait after the connection's own queue was full.
pub const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What the broker said about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored under this stream sequence; `duplicate` when the stream already had its id.
    Stored {
        /// Sequence number on the stream.
        stream_seq: u64,
        /// The stream had a message of the same id.
        duplicate: bool,
    },
    /// Not now: no stream, no leader, too many requests.
    Later,
    /// Never: too large, not permitted, refused by the stream's limits.
    Refused,
}

#[derive(Clone, Debug)]
struct Waiting {
    cleared: Arc<Cleared>,
    /// Whether its target may have the link to the newest snapshot.
    full: bool,
    /// What is sent, from its first turn on.
    sealed: Option<(Sealed, Origin)>,
    lane: usize,
    /// Who waits for it, and its line in the reply.
    line: (Ticket, usize),
    attempts: u32,
    /// When an unanswered attempt counts as lost.
    deadline: Duration,
}

#[derive(Clone, Debug)]
struct Lane {
    target: RuntimeId,
    unsent: Option<Waiting>,
    /// Whether the lane stands in the ready queue.
    queued: bool,
    /// Sequence number of the newest packet that was ever sent.
    newest_sent: u64,
    /// Exportable reports since the last one that was offered; `None` before the first.
    since_offer: Option<u32>,
    ledger: Ledger,
    departure: Departure,
}

/// What left for one target, and how the newest closing since then ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Number of the newest report of which a packet is stored, and its number on the stream.
    pub stored: Option<(u64, u64)>,
    /// When the broker said so.
    pub stored_at: Option<Timestamp>,
    /// The end of that closing.
    pub closing: Option<(Barrier, Timestamp)>,
}

impl Waiting {
    fn seq(&self) -> u64 {
        self.cleared.seq
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Outbox {
    lanes: Vec<Lane>,
    by_target: BTreeMap<RuntimeId, usize>,
    ready: VecDeque<usize>,
    in_flight: BTreeMap<u64, Waiting>,
    next_token: u64,
    window: usize,
    ack_timeout: Duration,
    cooldown: Duration,
    cooldown_until: Duration,
    /// Acknowledgements that called a first attempt a duplicate: somebody used our message id.
    duplicate_alarms: u64,
    /// Attempts that nobody answered in time.
    unanswered: u64,
    /// Whether that happened since something was stored.
    is_unanswered: bool,
    /// Packets up to this sequence number belong to a time before a closing: never sent again.
    revoked_through: u64,
    /// The newest number on this connection whose reading only a later one can prove: a notice, an
    /// echo that was asked for, an attempt that nobody answered.
    unread: Option<u64>,
    settled: Vec<Settled>,
}

impl Outbox {
    /// `window` packets at most are unacknowledged at a time; each waits `ack_timeout` at most.
    #[must_use]
    pub fn new(window: usize, ack_timeout: Duration) -> Self {
        Self {
            lanes: Vec::new(),
            by_target: BTreeMap::new(),
            ready: VecDeque::new(),
            in_flight: BTreeMap::new(),
            next_token: 1,
            window: window.max(1),
            ack_timeout,
            cooldown: Duration::ZERO,
            cooldown_until: Duration::ZERO,
            duplicate_alarms: 0,
            unanswered: 0,
            is_unanswered: false,
            revoked_through: 0,
            unread: None,
            settled: Vec::new(),
        }
    }

    /// The lane of a target, made on first use. Lanes are bounded by the configured peers, because
    /// only those are ever targets; a peer that is removed keeps its lane and its books.
    pub fn lane(&mut self, target: &RuntimeId) -> usize {
        if let Some(lane) = self.by_target.get(target) {
            return *lane;
        }
        let lane = self.lanes.len();
        self.lanes.push(Lane {
            target: target.clone(),
            unsent: None,
            queued: false,
            newest_sent: 0,
            since_offer: None,
            ledger: Ledger::default(),
            departure: Departure::default(),
        });
        self.by_target.insert(target.clone(), lane);
        lane
    }

    /// Whether a report in caution may go to this lane: at least `every` reports after the last one
    /// that did. Counting from the last one sent, not from the entry into caution, keeps the rate
    /// down for a runtime that flaps around the caution mark.
    pub fn is_due_in_caution(&mut self, lane: usize, every: u32) -> bool {
        let Some(lane) = self.lanes.get_mut(lane) else { return false };
        let since = lane.since_offer.map_or(every, |since| since.saturating_add(1));
        lane.since_offer = Some(since);
        since >= every
    }

    /// Books a report that makes no packet for this lane: held or throttled.
    pub fn book(&mut self, lane: usize, status: PacketStatus) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.ledger.reports += 1;
            lane.ledger.settle(status);
            if status == PacketStatus::Shadow {
                lane.since_offer = Some(0);
            }
        }
    }

    /// Takes the packet of a report. The unsent packet that stood in this lane is superseded.
    pub fn offer(
        &mut self,
        lane: usize,
        line: (Ticket, usize),
        (cleared, full): (Arc<Cleared>, bool),
    ) {
        let Some(slot) = self.lanes.get_mut(lane) else { return };
        slot.ledger.reports += 1;
        slot.ledger.pending += 1;
        slot.since_offer = Some(0);
        let (attempts, deadline) = (0, Duration::ZERO);
        let entry = Waiting { cleared, full, sealed: None, lane, line, attempts, deadline };
        if let Some(older) = slot.unsent.replace(entry) {
            self.settle(&older, PacketStatus::Superseded, None);
        }
        self.enqueue(lane);
    }

    /// The next packet to send with its token, or `None` when the window is full, the broker asked
    /// for a pause, or nothing waits. The caller counts on an outcome for every token.
    ///
    /// `may_reach` says who is authorised now: an authorisation that ended while a packet waited
    /// revokes the packet. `seal` makes it; one that cannot be made is held.
    pub fn next(
        &mut self,
        now: Duration,
        may_reach: impl Fn(&RuntimeId) -> bool,
        seal: impl Fn(&RuntimeId, &Cleared, bool) -> Result<(Sealed, Origin), Step>,
    ) -> Option<Result<(u64, Sealed, Origin), Unmade>> {
        if self.in_flight.len() >= self.window || now < self.cooldown_until {
            return None;
        }
        loop {
            let index = self.ready.pop_front()?;
            let lane = self.lanes.get_mut(index)?;
            lane.queued = false;
            let Some(mut entry) = lane.unsent.take() else { continue };
            if !may_reach(&lane.target) {
                self.settle_unsent(&entry);
                continue;
            }
            let sealed = match entry.sealed.take() {
                Some(sealed) => Ok(sealed),
                None => seal(&lane.target, &entry.cleared, entry.full),
            };
            let (packet, origin) = match sealed {
                Ok(sealed) => sealed,
                Err(step) => {
                    self.settle(&entry, PacketStatus::Held, None);
                    return Some(Err(Unmade { line: entry.line, seq: entry.seq(), step }));
                }
            };
            lane.newest_sent = lane.newest_sent.max(entry.seq());
            entry.attempts = entry.attempts.saturating_add(1);
            entry.deadline = now + self.ack_timeout;
            let token = self.next_token;
            self.next_token += 1;
            entry.sealed = Some((packet.clone(), origin.clone()));
            self.in_flight.insert(token, entry);
            return Some(Ok((token, packet, origin)));
        }
    }

    /// Makes what waits now: the settings that it was let through under are about to change, and
    /// its evidence is theirs. What cannot be made is left to its turn.
    pub fn seal_waiting(
        &mut self,
        seal: impl Fn(&RuntimeId, &Cleared, bool) -> Result<(Sealed, Origin), Step>,
    ) {
        for lane in &mut self.lanes {
            if let Some(entry) = lane.unsent.as_mut().filter(|entry| entry.sealed.is_none()) {
                entry.sealed = seal(&lane.target, &entry.cleared, entry.full).ok();
            }
        }
    }

    /// The connection could not take a packet after all: it was not sent and waits again, a little.
    pub fn not_sent(&mut self, now: Duration, token: u64) {
        if let Some(mut entry) = self.in_flight.remove(&token) {
            entry.attempts = entry.attempts.saturating_sub(1);
            self.cooldown_until = now + FULL_PAUSE;
            self.retry(entry);
        }
    }

    /// What the broker said. An unknown token (late, after a deadline) settles nothing.
    pub fn answered(&mut self, now: Now, token: u64, outcome: Outcome) {
        // The broker reads a connection in order, so what is stored was read, and all before it.
        if matches!(outcome, Outcome::Stored { .. }) {
            self.read_to(token);
        }
        let Some(entry) = self.in_flight.remove(&token) else { return };
        match outcome {
            Outcome::Stored { stream_seq, duplicate } => {
                self.cooldown = Duration::ZERO;
                self.is_unanswered = false;
                if duplicate && entry.attempts <= 1 {
                    self.duplicate_alarms += 1;
                }
                if let Some(lane) = self.lanes.get_mut(entry.lane) {
                    let stored = Some((entry.seq(), stream_seq));
                    let stored_at = Some(now.wall);
                    lane.departure = Departure { stored, stored_at, closing: None };
                }
                self.settle(&entry, PacketStatus::Stored, Some(stream_seq));
            }
            Outcome::Later => {
                self.cooldown = (self.cooldown * 2).clamp(COOLDOWN_MIN, COOLDOWN_MAX);
                self.cooldown_until = now.mono + self.cooldown;
                self.retry(entry);
            }
            Outcome::Refused => self.settle(&entry, PacketStatus::Failed, None),
        }
    }

    /// Attempts whose deadline has passed have an unknown outcome: the same bytes under the same
    /// message id go out again, unless something newer has been sent.
    pub fn expire(&mut self, now: Duration) {
        // Tokens rise with time and every attempt waits equally long, so the oldest come first.
        while let Some(oldest) = self.in_flight.first_entry()
            && oldest.get().deadline <= now
        {
            self.unread = self.unread.max(Some(*oldest.key()));
            let entry = oldest.remove();
            self.unanswered += 1;
            self.is_unanswered = true;
            self.retry(entry);
        }
    }

    /// The connection is gone with its buffers: every outcome that is still open is unknown.
    pub fn disconnected(&mut self) {
        self.cooldown = Duration::ZERO;
        self.is_unanswered = false;
        self.cooldown_until = Duration::ZERO;
        self.unread = None;
        for entry in core::mem::take(&mut self.in_flight).into_values() {
            self.retry(entry);
        }
    }

    /// The gate closed with the report of sequence number `through`: nothing up to it that is
    /// unsent will ever be sent, and nothing up to it that is in flight will be sent again (P5).
    pub fn revoke(&mut self, through: u64) {
        self.revoked_through = self.revoked_through.max(through);
        self.ready.clear();
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            lane.queued = false;
            if let Some(entry) = lane.unsent.take() {
                self.settle_unsent(&entry);
            }
        }
    }

    /// What waits and `may_leave` does not allow any more will not be sent: whom it is for, what
    /// it is made of, and whether with the link to the newest snapshot.
    pub fn revoke_unless(&mut self, may_leave: impl Fn(&RuntimeId, &Cleared, bool) -> bool) {
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            let target = &lane.target;
            let revoked =
                lane.unsent.take_if(|entry| !may_leave(target, &entry.cleared, entry.full));
            if let Some(entry) = revoked {
                self.settle_unsent(&entry);
            }
        }
    }

    /// Gives up on every open outcome: the gate is closed and the wait for the broker is over.
    pub fn abandon(&mut self) {
        for entry in core::mem::take(&mut self.in_flight).into_values() {
            self.settle(&entry, PacketStatus::Failed, None);
        }
    }

    /// A closing has ended, after all that was sent.
    pub fn closed(&mut self, barrier: Barrier, now: Timestamp) {
        for lane in &mut self.lanes {
            lane.departure.closing = Some((barrier, now));
        }
    }

    /// What left, target by target.
    pub fn departures(&self) -> impl Iterator<Item = (&RuntimeId, Departure, &Ledger)> {
        self.lanes.iter().map(|lane| (&lane.target, lane.departure, &lane.ledger))
    }

    /// Numbers one more thing that is sent on this connection beside packets. Everything that is
    /// sent has its number from here, so that one mark says what of it the broker has read.
    pub fn stamp(&mut self) -> u64 {
        let number = self.next_token;
        self.next_token += 1;
        self.unread = Some(number);
        number
    }

    /// The broker has read everything up to this number: it reads a connection in order.
    pub fn read_to(&mut self, number: u64) {
        self.unread = self.unread.filter(|unread| *unread > number);
    }

    /// Whether no outcome is open.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether the broker has read all that was sent on this connection, as far as its
    /// acknowledgements and echoes say.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_quiet() && self.unread.is_none()
    }

    /// How many packets are unsent.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.unsent.is_some()).count()
    }

    /// The next moment after `now` at which [`Self::expire`] or [`Self::next`] has something to do
    /// by time alone.
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let oldest = self.in_flight.first_key_value().map(|(_, entry)| entry.deadline);
        let cooldown =
            (!self.ready.is_empty() && self.cooldown_until > now).then_some(self.cooldown_until);
        [oldest, cooldown].into_iter().flatten().min()
    }

    /// Packets settled since the last call, in order.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        core::mem::take(&mut self.settled)
    }

    /// The books, target by target.
    pub fn ledgers(&self) -> impl Iterator<Item = (&RuntimeId, &Ledger)> {
        self.lanes.iter().map(|lane| (&lane.target, &lane.ledger))
    }

    /// How often a first attempt was called a duplicate.
    #[must_use]
    pub fn duplicate_alarms(&self) -> u64 {
        self.duplicate_alarms
    }

    /// Whether the broker is known not to take anything at present: it refused twice in a row, or
    /// an attempt went unanswered, and nothing was stored since.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.cooldown > COOLDOWN_MIN || self.is_unanswered
    }

    /// How many attempts nobody answered in time.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    fn enqueue(&mut self, index: usize) {
        let Some(lane) = self.lanes.get_mut(index).filter(|lane| !lane.queued) else { return };
        lane.queued = true;
        self.ready.push_back(index);
    }

    /// Puts an unsettled packet back, unless its lane has something newer: a late older packet
    /// would be refused by its receiver as replayed.
    fn retry(&mut self, entry: Waiting) {
        let index = entry.lane;
        let Some(lane) = self.lanes.get_mut(index) else { return };
        if entry.seq() <= self.revoked_through {
            self.settle(&entry, PacketStatus::Failed, None);
        } else if lane.unsent.is_some() || lane.newest_sent > entry.seq() {
            self.settle(&entry, PacketStatus::Superseded, None);
        } else {
            lane.unsent = Some(entry);
            self.enqueue(index);
        }
    }

    /// Settles a packet that will not be sent (again).
    fn settle_unsent(&mut self, entry: &Waiting) {
        let status = if entry.attempts == 0 { PacketStatus::Revoked } else { PacketStatus::Failed };
        self.settle(entry, status, None);
    }

    fn settle(&mut self, entry: &Waiting, status: PacketStatus, stream_seq: Option<u64>) {
        if let Some(lane) = self.lanes.get_mut(entry.lane) {
            lane.ledger.pending = lane.ledger.pending.saturating_sub(1);
            lane.ledger.settle(status);
        }
        let (ticket, line) = entry.line;
        self.settled.push(Settled { ticket, line, status, stream_seq });
    }
}
