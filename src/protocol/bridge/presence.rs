//! When presence is written and read: an effect of the bridge like every other.
//!
//! The own entry is read when a connection has its subscription for answers, before any packet goes
//! out on it, for the name may be somebody else's by now. From then on it is written every ten
//! seconds and whenever the gate has moved: before the echo that ends a closing, and before a cut,
//! after which nothing is written until the gate reopens. Each write has its number among all that
//! is sent on the connection, so that one mark says what the broker has read.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Band, Bridge, Cause, Connection, Duration, Effect, Now, RuntimeId};
use crate::protocol::presence::{
    Fence, Held, Instance, Lease, LeaseStep, Life, PEERS_INTERVAL, Presence, Reading, Shown,
};
use crate::protocol::reason::Reason;
use crate::protocol::time::Timestamp;
use crate::protocol::view::{FleetView, PresenceView};

/// What the driver has to do about presence.
#[derive(Clone, Debug)]
pub enum PresenceEffect {
    /// Read the own entry, then call [`Bridge::presence_read`].
    ReadOwn,
    /// Read the entries of these peers, then call [`Bridge::peers_read`].
    ReadPeers(Vec<RuntimeId>),
    /// Write the own entry, then call [`Bridge::presence_written`].
    Write {
        /// Names the write, among the numbers of all that is sent.
        token: u64,
        /// What to write.
        bytes: Bytes,
        /// The newest sequence number that the key may have.
        expected: u64,
        /// Whether it stays; else it expires after [`TTL`](crate::protocol::presence::TTL).
        lasting: bool,
    },
    /// An operator holds the runtime, by the word of another life of it: keep that on the disk.
    Hold,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Stored under this sequence number.
    Stored(u64),
    /// Not stored: somebody else has written since.
    Lost,
    /// Not stored, for another reason.
    Refused,
    /// It was not even sent.
    NotSent,
}

#[derive(Clone, Debug)]
pub(super) struct Showing {
    life: Life,
    started: Timestamp,
    lease: Lease,
    /// The write under way.
    token: Option<u64>,
    /// What was told last, or is about to be: band, since when, hold.
    told: Option<(Band, Timestamp, bool)>,
    has_stopped: bool,
    /// Why what stands under the own key counts as nothing.
    foreign: Option<String>,
    /// The newest verified entry of each peer, and when it was read.
    peers: BTreeMap<RuntimeId, (Presence, Timestamp)>,
    peers_due: Duration,
}

impl Showing {
    pub(super) fn new(life: Life, earlier: Option<Instance>, now: Now) -> Self {
        Self {
            lease: Lease::new(life.instance, earlier),
            life,
            started: now.wall,
            token: None,
            told: None,
            has_stopped: false,
            foreign: None,
            peers: BTreeMap::new(),
            peers_due: Duration::ZERO,
        }
    }
}

impl Bridge {
    /// Ourselves and whom the configuration names.
    #[must_use]
    pub fn fleet_owners(&self) -> Vec<RuntimeId> {
        let me = core::iter::once(&self.identity.runtime_id);
        me.chain(self.live.peers.keys()).cloned().collect()
    }

    /// What of these entries is true: each that verifies under the key of whom it is about. A
    /// runtime that is no peer may have any key of the ring.
    #[must_use]
    pub fn fleet(&self, now: Now, found: Vec<(String, Held)>) -> FleetView {
        let live = &self.live;
        let shown = |(key, Held { bytes, .. }): (String, Held)| {
            let owner = RuntimeId::new(&key)?;
            let signer = if owner == self.identity.runtime_id {
                live.keyring.sign_with()
            } else {
                live.peers.get(&owner).and_then(|peer| peer.key_id.as_deref())
            };
            let entry = Presence::open(&live.keyring, signer, &owner, &bytes?).ok()?;
            Some(Shown::at(entry, now.wall))
        };
        FleetView { at: now.wall, runtimes: found.into_iter().filter_map(shown).collect() }
    }

    /// What stands under the own key; `None` when the broker does not say.
    #[must_use]
    pub fn presence_read(&mut self, now: Now, held: Option<Held>) -> Vec<Effect> {
        self.pass(now);
        let skew_max = self.live.clock_skew_max;
        let reading = held.map_or(Reading::Unreachable, |Held { revision, bytes }| {
            let signer = self.live.keyring.sign_with();
            let open = |bytes: Bytes| {
                Presence::open(&self.live.keyring, signer, &self.identity.runtime_id, &bytes)
            };
            Reading::Found { revision, entry: bytes.map(open).transpose() }
        });
        let Some(showing) = &mut self.presence else { return self.settle(now) };
        if let Reading::Found { entry, .. } = &reading {
            showing.foreign = entry.as_ref().err().map(ToString::to_string);
        }
        if showing.lease.found(now, skew_max, &reading) {
            let verdict = self.judge.hold(true);
            self.enter(now, &verdict, Cause::default());
            self.effects.push(Effect::Presence(PresenceEffect::Hold));
        }
        self.heed_lease(now);
        self.settle(now)
    }

    /// What became of a write of the own entry.
    #[must_use]
    pub fn presence_written(&mut self, now: Now, token: u64, written: Written) -> Vec<Effect> {
        self.pass(now);
        if written != Written::NotSent {
            self.outbox.read_to(token);
        }
        if let Some(showing) = self.presence.as_mut().filter(|one| one.token == Some(token)) {
            showing.token = None;
            match written {
                Written::Stored(revision) => {
                    showing.foreign = None;
                    showing.lease.written(now, Some(revision));
                }
                Written::Lost => showing.lease.written(now, None),
                Written::Refused | Written::NotSent => showing.lease.unwritten(now),
            }
        }
        self.heed_lease(now);
        self.settle(now)
    }

    /// What stands under the keys of peers. What does not verify counts as absent.
    pub fn peers_read(&mut self, now: Now, held: Vec<(RuntimeId, Held)>) {
        let live = &self.live;
        let Some(showing) = &mut self.presence else { return };
        for (id, Held { bytes, .. }) in held {
            let Some(peer) = live.peers.get(&id) else { continue };
            let signer = peer.key_id.as_deref();
            let open = |bytes: Bytes| Presence::open(&live.keyring, signer, &id, &bytes).ok();
            match bytes.and_then(open) {
                Some(entry) => drop(showing.peers.insert(id, (entry, now.wall))),
                None => drop(showing.peers.remove(&id)),
            }
        }
        showing.peers.retain(|id, _| live.peers.contains_key(id));
    }

    /// The sidecar stops: its last word, if there is a connection that it may be said on. Nothing
    /// is said after it.
    #[must_use]
    pub fn stop(&mut self, now: Now) -> Vec<Effect> {
        self.pass(now);
        if let Some(showing) = &mut self.presence {
            showing.has_stopped = true;
            if self.can_show() {
                self.show_last(now, false);
            }
        }
        self.settle(now)
    }

    /// Whether no write of the own entry is unanswered.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.presence.as_ref().is_none_or(|showing| showing.lease.is_quiet())
    }

    /// Why the gate is closed for a reason that is another sidecar.
    #[must_use]
    pub fn fenced_by(&self) -> Option<Fence> {
        self.fence
    }

    /// Why what stands under the own key is not ours, if it is not.
    #[must_use]
    pub fn presence_foreign(&self) -> Option<&str> {
        self.presence.as_ref()?.foreign.as_deref()
    }

    /// The newest verified entry of a peer, as it was read a minute ago at most, or before that
    /// where the broker has not answered since.
    pub(super) fn presence_of(&self, peer: &RuntimeId) -> Option<PresenceView> {
        let (entry, read) = self.presence.as_ref()?.peers.get(peer)?;
        Some(PresenceView::of(entry, *read))
    }

    /// Follows what is known of the name.
    pub(super) fn heed_lease(&mut self, now: Now) {
        let Some(showing) = &mut self.presence else { return };
        showing.lease.lapse(now.mono);
        let fence = showing.lease.fence();
        if fence != self.fence {
            self.set_fence(now, fence);
        }
    }

    /// A report would open the gate, which is fenced.
    pub(super) fn is_fit(&mut self) {
        if let Some(showing) = &mut self.presence {
            showing.lease.fit();
        }
    }

    /// Whether packets may follow: the name was looked at on this connection.
    pub(super) fn is_name_known(&self) -> bool {
        self.presence.as_ref().is_none_or(|showing| showing.lease.is_read())
    }

    /// The subscription for answers is new.
    pub(super) fn begin_showing(&mut self) {
        if let Some(showing) = &mut self.presence {
            showing.token = None;
            showing.lease.reset();
        }
    }

    fn can_show(&self) -> bool {
        self.connection >= Connection::Acks
            && self.closing.is_none()
            && self.judge.gate().band() != Band::Isolated
    }

    /// Brings the bucket up to date, except while a closing is under way.
    pub(super) fn present(&mut self, now: Now) {
        if !self.can_show() {
            return;
        }
        let told = self.told();
        let Some(showing) = self.presence.as_mut().filter(|one| !one.has_stopped) else { return };
        if showing.told != Some(told) {
            showing.told = Some(told);
            showing.lease.touch();
        }
        let order = showing.lease.next(now, self.identity.ack_timeout);
        if showing.peers_due <= now.mono && showing.lease.is_read() {
            showing.peers_due = now.mono + PEERS_INTERVAL;
            let peers: Vec<RuntimeId> = self.live.peers.keys().cloned().collect();
            if !peers.is_empty() {
                self.effects.push(Effect::Presence(PresenceEffect::ReadPeers(peers)));
            }
        }
        match order {
            Some(LeaseStep::Read) => self.effects.push(Effect::Presence(PresenceEffect::ReadOwn)),
            Some(LeaseStep::Write { claim, expected }) => self.show(now, claim, expected, false),
            None => {}
        }
    }

    /// When [`Self::present`] has something to do by time alone.
    pub(super) fn showing_deadline(&self) -> Option<Duration> {
        let showing = self.presence.as_ref().filter(|one| !one.has_stopped && self.can_show())?;
        // Peers are read after the own entry.
        let peers_due = showing.lease.is_read().then_some(showing.peers_due);
        Some(showing.lease.deadline().min(peers_due.unwrap_or(Duration::MAX)))
    }

    /// The last word before an echo, a cut or the end.
    pub(super) fn show_last(&mut self, now: Now, lasting: bool) {
        if self.connection < Connection::Acks {
            return;
        }
        let told = self.told();
        let Some(showing) = &mut self.presence else { return };
        showing.told = Some(told);
        let order = showing.lease.last(now, self.identity.ack_timeout);
        if let Some(LeaseStep::Write { claim, expected }) = order {
            self.show(now, claim, expected, lasting);
        }
    }

    fn told(&self) -> (Band, Timestamp, bool) {
        let gate = self.judge.gate();
        (gate.band(), self.band_since.wall, gate.operator_hold())
    }

    fn show(&mut self, now: Now, claim: u64, expected: u64, lasting: bool) {
        let Some(showing) = &mut self.presence else { return };
        let gate = self.judge.gate();
        let words = self.reasons.iter().map(|reason| reason.word().to_owned());
        let (band, reasons) = if showing.has_stopped {
            (gate.band().max(Band::Blocked), vec![Reason::Stopped.word().to_owned()])
        } else {
            (gate.band(), words.collect())
        };
        let presence = Presence {
            runtime_id: self.identity.runtime_id.clone(),
            mode: self.identity.mode,
            band,
            reasons,
            since: self.band_since.wall,
            epoch: self.judge.epoch(),
            hold: gate.operator_hold(),
            instance: showing.life.instance,
            claim,
            version: showing.life.version.clone(),
            started: showing.started,
            at: now.wall,
        };
        let Some(bytes) = presence.sign(&self.live.keyring) else {
            showing.lease.unwritten(now);
            return;
        };
        let (token, bytes) = (self.outbox.stamp(), bytes.into());
        showing.token = Some(token);
        let write = PresenceEffect::Write { token, bytes, expected, lasting };
        self.effects.push(Effect::Presence(write));
    }
}
