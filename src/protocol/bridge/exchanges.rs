//! How much is exchanged with each peer: what an operator authorised, no more than its manifest
//! matches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Band, Bridge, Connection, Effect, Live, Mode, Now, RuntimeId};
use crate::protocol::capabilities::{Found, offered};
use crate::protocol::digest::Digest;
use crate::protocol::document::{sign_body, verify_body};
use crate::protocol::exchange::{Exchange, ExchangeMode, ModeReason, Offer};
use crate::protocol::inbox::{Peer, Trust};
use crate::protocol::keyring::Domain;
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

/// What is known of peers at a start. A number that no clock has reached is read as now's.
pub(super) fn remembered(
    manifests: BTreeMap<RuntimeId, u64>,
    seq_max: u64,
) -> BTreeMap<RuntimeId, Exchange> {
    let after = |(peer, number): (_, u64)| (peer, Exchange::after(number.min(seq_max)));
    manifests.into_iter().map(after).collect()
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
                // What waits for it holds more than it may have now.
                self.outbox.revoke_unless(|target, _, _| target != peer);
                self.stop_unread_uploads(now);
            }
        }
        self.settle(now)
    }

    /// The same from what stands under the peer's name at the broker.
    #[must_use]
    pub fn peer_manifest(
        &mut self,
        now: Now,
        peer: &RuntimeId,
        found: Option<Found<'_>>,
    ) -> Vec<Effect> {
        let live = Arc::clone(&self.live);
        let Some(listed) = live.peers.get(peer) else { return Vec::new() };
        let seq_max = live.limits().seq_max(now.wall);
        let offered = offered(&live.keyring, listed, found, now.wall, seq_max);
        self.peer_capabilities(now, peer, offered)
    }

    /// Whether what stands under our own name at the broker is proved to be of our making.
    #[must_use]
    pub fn is_own_manifest(&self, found: Found<'_>) -> bool {
        let keyring = &self.live.keyring;
        let verified = found.token.map(|token| {
            verify_body(keyring, Domain::Capabilities, token, found.body).map(|(key_id, _)| key_id)
        });
        matches!(verified, Some(Ok(key_id)) if keyring.sign_with() == Some(&key_id))
    }

    /// Whether manifests are read and our own is published now: not while isolated, in shadow, or
    /// while a closing is under way.
    #[must_use]
    pub fn may_declare(&self) -> bool {
        self.identity.mode == Mode::Enforce
            && self.connection >= Connection::Acks
            && self.closing.is_none()
            && self.band() != Band::Isolated
    }

    /// Our own manifest, published unless `found`, which stands under our name, is it, or it may
    /// not be published now.
    #[must_use]
    pub fn declare(&mut self, now: Now, found: Option<Found<'_>>) -> Vec<Effect> {
        self.pass(now);
        let body = self.live.manifest.clone();
        let stands = found.is_some_and(|found| found.body == body && self.is_own_manifest(found));
        if self.may_declare() && !stands && !body.is_empty() {
            let seq = self.take_seq(now);
            let token = sign_body(&self.live.keyring, Domain::Capabilities, seq, &body);
            if let Some(token) = token {
                let number = self.outbox.stamp();
                self.effects.push(Effect::Declare { number, body, token });
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

    /// Mode and reason of every configured peer as its manifest decides them, whether or not it
    /// answers.
    pub fn standings(
        &self,
        now: Now,
    ) -> impl Iterator<Item = (&RuntimeId, (ExchangeMode, ModeReason))> {
        let unknown = Exchange::default().standing(now.wall);
        self.live.peers.keys().map(move |id| {
            (id, self.exchanges.get(id).map_or(unknown, |known| known.standing(now.wall)))
        })
    }

    /// Digest of the newest manifest of a peer that was believed.
    #[must_use]
    pub fn peer_digest(&self, peer: &RuntimeId) -> Option<Digest> {
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

    /// Number of the newest manifest that was believed of each peer that ever was one; 0 for none.
    pub fn manifest_floors(&self) -> impl Iterator<Item = (&RuntimeId, u64)> {
        self.exchanges.iter().map(|(peer, known)| (peer, known.floor()))
    }

    /// Of peers that were removed nothing stays known but which manifests are too old.
    pub(super) fn forget_exchanges(&mut self) {
        for (peer, known) in &mut self.exchanges {
            if !self.live.peers.contains_key(peer) {
                *known = Exchange::after(known.floor());
            }
        }
    }
}
