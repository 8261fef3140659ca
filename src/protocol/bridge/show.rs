//! What the bridge tells of itself: where it stands, what may be handed on, books for the metrics.

use super::{
    Band, Bridge, Connection, DriftIndex, Duration, Ledger, Memory, Mode, Now, PeerState,
    RuntimeId, exchanges,
};
use crate::protocol::envelope::Admission;
use crate::protocol::gate::Thresholds;
use crate::protocol::refusal::Fault;
use crate::protocol::time::Timestamp;
use crate::protocol::view::PeerMode;

/// Counters that are not per target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reports that were judged.
    pub reports: u64,
    /// Reports that only repeated the newest one.
    pub retries: u64,
    /// Reports whose cycle number left some out.
    pub cycle_gaps: u64,
    /// Reports that could not be read.
    pub malformed: u64,
    /// Packets that failed inspection although the gate was open.
    pub inspection_failed: u64,
    /// Changes of band.
    pub transitions: u64,
    /// Closings that the broker confirmed.
    pub confirmed: u64,
    /// Closings that ended by severing the connection.
    pub unconfirmed: u64,
    /// Packets accepted from peers.
    pub accepted: u64,
    /// Of those, the ones that were taken for less than their sender allows.
    pub narrowed: u64,
    /// Of those, the ones with an exchange envelope.
    pub enveloped: u64,
    /// Packets seen again and dropped.
    pub redelivered: u64,
}

impl Bridge {
    /// The present band.
    #[must_use]
    pub fn band(&self) -> Band {
        self.judge.gate().band()
    }

    /// Since when.
    #[must_use]
    pub fn band_since(&self) -> Timestamp {
        self.band_since.wall
    }

    /// Whether anything is exported at all.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.identity.mode
    }

    /// Whether anybody who asks over the broker is answered: not while isolated, and not while
    /// what was asked before is being cut (P4).
    #[must_use]
    pub fn may_answer(&self) -> bool {
        let is_cutting = self.closing.as_ref().is_some_and(|closing| closing.cut);
        self.band() != Band::Isolated && !is_cutting
    }

    /// Every configured peer with its mode, in order.
    #[must_use]
    pub fn peer_modes(&self, now: Now) -> Vec<PeerMode> {
        let line =
            |(id, (mode, reason)): (&RuntimeId, _)| PeerMode { id: id.clone(), mode, reason };
        self.exchanges(now).map(line).collect()
    }

    /// Whether a closing is under way.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether inbound packets are to be pulled now.
    #[must_use]
    pub fn is_pulling(&self) -> bool {
        self.connection == Connection::Pull
    }

    /// Whether nothing waits for the broker: no packet unsettled, no reply open, no closing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.closing.is_none()
            && self.outbox.is_quiet()
            && (self.is_shown() || self.connection == Connection::Down)
            && self.waiting.is_empty()
            && (self.outbox.unsent() == 0 || self.connection == Connection::Down)
    }

    /// The marks in force.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        self.live.policy.thresholds
    }

    /// How long no valid report has come; since the start, before the first one.
    #[must_use]
    pub fn silence(&self, now: Now) -> Duration {
        now.mono.saturating_sub(self.last_valid)
    }

    /// When the newest packet of each peer was accepted.
    pub fn received(&self) -> impl Iterator<Item = (&RuntimeId, Timestamp)> {
        self.inbox.received()
    }

    /// Gate value of the newest report.
    #[must_use]
    pub fn drift_index(&self) -> Option<f64> {
        self.newest.di.map(DriftIndex::value)
    }

    /// The newest accepted packet of one peer; `None` while isolated too.
    #[must_use]
    pub fn peer_state(&self, now: Now, source: &RuntimeId) -> Option<&PeerState> {
        self.current_peers(now).find(|state| &state.source == source)
    }

    /// Every configured peer, in order.
    pub fn peers(&self) -> impl Iterator<Item = &RuntimeId> {
        self.live.peers.keys()
    }

    /// Whether this is a peer that may be heard or spoken to.
    #[must_use]
    pub fn is_peer(&self, id: &RuntimeId) -> bool {
        self.live.peers.contains_key(id)
    }

    /// Sources that are not heard because the clock was set back, and for how long it will be so.
    pub fn unheard(&self, now: Now) -> impl Iterator<Item = (&RuntimeId, Duration)> {
        self.inbox.unheard(now.wall, self.live.limits())
    }

    /// What peers said that are still authorised and whose packet is not older than
    /// `packet_max_age`: an expired packet never reaches the runtime (P7). Nothing while isolated
    /// (P4).
    fn current_peers(&self, now: Now) -> impl Iterator<Item = &PeerState> {
        let current = self.inbox.current(now.wall, exchanges::trust(&self.live, &self.exchanges));
        current.filter(|_| self.band() != Band::Isolated)
    }

    /// The accepted packet of that number, if it may be handed to the runtime now. To be asked only
    /// while [`Self::may_receive`].
    ///
    /// # Errors
    /// As [`Inbox::deliverable`](crate::protocol::inbox::Inbox::deliverable).
    pub fn deliverable(
        &self,
        now: Now,
        source: &RuntimeId,
        seq: u64,
    ) -> Result<(bytes::Bytes, Admission), Fault> {
        self.inbox.deliverable(
            now.wall,
            source,
            seq,
            &exchanges::trust(&self.live, &self.exchanges),
        )
    }

    /// What has to survive a restart of the sidecar.
    #[must_use]
    pub fn memory(&self, now: Now) -> Memory {
        Memory {
            in_doubt: self.in_doubt(now),
            seq: self.seq,
            floors: self.inbox.floors(),
            manifests: self.manifest_floors().map(|(id, at)| (id.clone(), at)).collect(),
            operator_hold: self.judge.gate().operator_hold(),
            instance: self.identity.life.as_ref().map(|life| life.instance),
        }
    }

    /// Whether the gate stays isolated until an operator releases it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.judge.gate().operator_hold()
    }

    /// Whether the broker may still have to read something that was sent: on this connection, or on
    /// one that ended. If the process were killed now, the next one would have to know.
    #[must_use]
    pub fn in_doubt(&self, now: Now) -> bool {
        now.mono < self.uncertain_until || !self.outbox.is_read() || self.uploads.is_sending()
    }

    /// The books, target by target.
    pub fn ledgers(&self) -> impl Iterator<Item = (&RuntimeId, &Ledger)> {
        self.outbox.ledgers()
    }

    /// Whether the books of every target add up (P8).
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.ledgers().all(|(_, ledger)| ledger.is_balanced())
    }

    /// Counters that are not per target.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Times from closing verdict to silence since the last call, for the histogram.
    pub fn take_closing_times(&mut self) -> Vec<Duration> {
        core::mem::take(&mut self.closing_times)
    }

    /// First attempts that the stream called duplicates: somebody used our message id.
    #[must_use]
    pub fn duplicate_alarms(&self) -> u64 {
        self.outbox.duplicate_alarms()
    }

    /// Attempts to publish that nobody answered in time: perhaps the stream is missing.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.outbox.unanswered()
    }
}
