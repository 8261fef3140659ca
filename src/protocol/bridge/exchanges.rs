//! How much is exchanged with each peer: what an operator authorised, no more than its manifest
//! matches.

use std::collections::BTreeMap;

use super::{Bridge, Effect, Live, Now, RuntimeId};
use crate::protocol::exchange::{Exchange, ExchangeMode, ModeReason, Offer};
use crate::protocol::inbox::{Peer, Trust};
use crate::protocol::time::Timestamp;

/// Whether a packet may go to `target` now.
pub(super) fn may_reach(
    peers: &BTreeMap<RuntimeId, Peer>,
    exchanges: &BTreeMap<RuntimeId, Exchange>,
    now: Timestamp,
    target: &RuntimeId,
) -> bool {
    peers.get(target).is_some_and(|peer| peer.export_state && peer.is_current(now))
        && exchanges.get(target).is_none_or(|known| known.mode(now) > ExchangeMode::Rejected)
}

/// What inbound packets are held against.
pub(super) fn trust<'a>(live: &'a Live, exchanges: &'a BTreeMap<RuntimeId, Exchange>) -> Trust<'a> {
    Trust { keyring: &live.keyring, peers: &live.peers, exchanges, limits: live.limits() }
}

impl Bridge {
    /// What was found of a peer's capabilities: what its verified manifest offers, or why that
    /// cannot be believed. Takes effect on what waits, too; a name that is no peer's changes
    /// nothing.
    #[must_use]
    pub fn peer_capabilities(
        &mut self,
        now: Now,
        peer: &RuntimeId,
        found: Result<Offer, ModeReason>,
    ) -> Vec<Effect> {
        self.change_exchange(now, peer, |exchange| exchange.learn(found))
    }

    /// Changes what is known of a peer, and revokes what it may no longer have.
    pub(super) fn change_exchange(
        &mut self,
        now: Now,
        peer: &RuntimeId,
        change: impl FnOnce(&mut Exchange),
    ) -> Vec<Effect> {
        self.pass(now);
        if self.live.peers.contains_key(peer) {
            let before = self.exchange_mode(now, peer);
            change(self.exchanges.entry(peer.clone()).or_default());
            let after = self.exchange_mode(now, peer);
            if after < before {
                // What was sealed for it holds more than it may have now.
                self.outbox.revoke_unless(|target| target != peer);
                self.stop_unread_uploads(now);
            }
        }
        self.settle(now)
    }

    /// What is exchanged with a peer: rejected, minimal or full.
    #[must_use]
    pub fn exchange_mode(&self, now: Now, peer: &RuntimeId) -> ExchangeMode {
        self.exchanges.get(peer).map_or(ExchangeMode::Minimal, |known| known.mode(now.wall))
    }

    /// Mode and reason of one peer, as they are shown.
    #[must_use]
    pub fn exchange_shown(&self, now: Now, peer: &RuntimeId) -> (ExchangeMode, ModeReason) {
        let unknown = || Exchange::default().shown(now.wall);
        self.exchanges.get(peer).map_or_else(unknown, |known| known.shown(now.wall))
    }

    /// Mode and reason of every configured peer, as they are shown.
    pub fn exchanges(
        &self,
        now: Now,
    ) -> impl Iterator<Item = (&RuntimeId, (ExchangeMode, ModeReason))> {
        let unknown = Exchange::default().shown(now.wall);
        self.live.peers.keys().map(move |id| {
            (id, self.exchanges.get(id).map_or(unknown, |known| known.shown(now.wall)))
        })
    }

    /// Digest of the newest manifest of a peer that was believed.
    #[must_use]
    pub fn peer_digest(&self, peer: &RuntimeId) -> Option<&str> {
        self.exchanges.get(peer)?.digest()
    }

    /// Whether a snapshot, or the link to one, may be shared with this peer now.
    pub(super) fn may_have_memory(&self, now: Now, peer: &Peer) -> bool {
        peer.export_snapshot
            && peer.is_current(now.wall)
            && self.exchange_mode(now, &peer.id) == ExchangeMode::Full
    }

    /// Whether anybody may have a snapshot now.
    pub(super) fn has_reader(&self, now: Now) -> bool {
        self.live.peers.values().any(|peer| self.may_have_memory(now, peer))
    }

    /// Peers that were removed are forgotten.
    pub(super) fn forget_exchanges(&mut self) {
        let live = &self.live;
        self.exchanges.retain(|peer, _| live.peers.contains_key(peer));
    }
}
