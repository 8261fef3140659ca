//! Who has the name of a runtime: the entry that each sidecar writes of itself, and another sidecar
//! that writes there, too.

use bytes::Bytes;
use driftgate::protocol::bridge::{Effect, Fence, PresenceEffect, Written};
use driftgate::protocol::gate::{Band, Mode};
use driftgate::protocol::presence::{Held, Instance, Presence, TTL};

use crate::broker::{Command, Event};
use crate::driver::Input;
use crate::node::{RINGS, id_of};
use crate::world::World;

/// What a connection has found out about the name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Name {
    /// When it was asked who has it.
    pub(crate) asked_us: Option<u64>,
    pub(crate) is_read: bool,
    /// The write that the broker has not answered.
    writing: Option<u64>,
}

impl World<'_> {
    /// Does what the bridge asks for.
    pub(crate) fn presence(&mut self, place: usize, effect: PresenceEffect) {
        let link = self.nodes[place].life.link;
        match effect {
            PresenceEffect::ReadOwn => {
                let name = &mut self.nodes[place].life.name;
                name.asked_us.get_or_insert(self.now_us);
                // A write whose answer was waited for in vain is waited for no longer.
                name.writing = None;
                self.trace.event(self.now_us, place, "reads its name", 0);
                if !link.is_some_and(|link| self.broker.order(link, Command::ReadOwn)) {
                    self.name_read(place, None);
                }
            }
            PresenceEffect::ReadPeers(peers) => {
                let held = |id| (crate::node::place_of(&id), id);
                let held = peers.into_iter().map(held);
                let held = held.map(|(at, id)| (id, self.broker.entry(at).clone())).collect();
                let node = &mut self.nodes[place];
                let now = node.clock(self.now_us);
                node.life.bridge.peers_read(now, held);
            }
            PresenceEffect::Write { token, bytes, expected, .. } => {
                self.nodes[place].disk.doubt(true);
                let is_alone = self.nodes[place].life.name.writing.is_none();
                self.demand(is_alone, || "twins: two writes of one entry at once".to_owned());
                self.nodes[place].life.name.writing = Some(token);
                self.trace.event(self.now_us, place, "shows itself", token);
                let show = Command::Show { token, bytes, expected };
                if !link.is_some_and(|link| self.broker.order(link, show)) {
                    self.shown(place, token, Written::NotSent);
                }
            }
            PresenceEffect::Hold => self.input(place, Input::Hold(true)),
        }
    }

    /// What a sidecar says of itself is so, and after a cut it says nothing (P4).
    pub(crate) fn check_show(&mut self, place: usize, bytes: &Bytes, lasting: bool) {
        let node = &self.nodes[place];
        let life = &node.life;
        let entry = Presence::open(&node.live.keyring, None, &id_of(place), bytes);
        let is_true = entry.as_ref().is_ok_and(|entry| {
            entry.band == life.oracle.band
                && entry.hold == life.oracle.held
                && Some(entry.instance) == node.instance()
        });
        let is_isolated = life.oracle.band == Band::Isolated;
        let rules = [
            (is_true, "P3: an entry that is not so"),
            (!is_isolated || (lasting && life.is_closing), "P4: shows itself while isolated"),
            (life.bridge.fenced_by() != Some(Fence::Replaced), "twins: writes though replaced"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, promise)| *promise);
        self.demand(broken.is_none(), || format!("{}: {entry:?}", broken.unwrap_or_default()));
    }

    /// What stands under the own name, or that the broker does not say.
    pub(crate) fn name_read(&mut self, place: usize, held: Option<Held>) {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        node.life.name.is_read = true;
        let (was_fenced, me) = (node.life.oracle.is_fenced, node.instance());
        let entry = held.as_ref().and_then(|held| held.bytes.as_ref()).and_then(|bytes| {
            Presence::open(&node.live.keyring, RINGS[node.ring].1, &id_of(place), bytes).ok()
        });
        let is_rival = entry.is_some_and(|entry| {
            Some(entry.instance) != me && !entry.has_stopped() && now.wall.since(entry.at) < TTL
        });
        let effects = node.life.bridge.presence_read(now, held);
        self.trace.event(self.now_us, place, "has read its name", u64::from(is_rival));
        if effects.iter().any(|effect| matches!(effect, Effect::Presence(PresenceEffect::Hold))) {
            let node = &mut self.nodes[place];
            let opinion = node.life.oracle.hold(self.now_us, true);
            node.life.uploader.may_revoke = true;
            self.judged(place, opinion);
        }
        self.heed(place);
        let is_fenced = self.nodes[place].life.oracle.is_fenced;
        self.demand(is_rival || was_fenced || !is_fenced, || {
            "twins: fenced by nobody who is there".to_owned()
        });
        self.collect(place, effects);
    }

    /// What became of a write.
    pub(crate) fn shown(&mut self, place: usize, token: u64, written: Written) {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let name = &mut node.life.name;
        name.writing = name.writing.filter(|writing| *writing != token);
        let effects = node.life.bridge.presence_written(now, token, written);
        self.trace.event(self.now_us, place, "is shown", token);
        self.heed(place);
        self.collect(place, effects);
    }

    /// Follows the bridge's opinion of who has the name; what that means for the gate is the
    /// oracle's.
    pub(crate) fn heed(&mut self, place: usize) {
        let life = &mut self.nodes[place].life;
        let is_fenced = life.bridge.fenced_by().is_some();
        if is_fenced != life.oracle.is_fenced {
            let opinion = life.oracle.fence(self.now_us, is_fenced);
            self.tally.twins += u64::from(is_fenced);
            self.trace.event(self.now_us, place, "fence", u64::from(is_fenced));
            self.judged(place, opinion);
        }
    }

    /// Another sidecar of the same name writes its entry, or somebody writes what is none.
    pub(crate) fn rival(&mut self, place: usize) {
        let node = &self.nodes[place];
        let wall = node.clock(self.now_us).wall;
        let known = self.broker.entry(place).bytes.as_ref().and_then(|bytes| {
            Presence::open(&self.parts.rings[0], None, &id_of(place), bytes).ok()
        });
        let known = known.map_or(0, |entry| entry.claim);
        let now_us = wall.unix_us();
        let far = now_us + 3_600_000_000;
        let claim = self.random.pick(&[now_us, known + 1, known + 1, now_us - 1_000_000, far]);
        let has_stopped = self.random.in_thousand(200);
        let words: &[&str] = if has_stopped { &["stopped"] } else { &[] };
        let presence = Presence {
            runtime_id: id_of(place),
            mode: Mode::Enforce,
            band: self.random.pick(&[Band::Open, Band::Open, Band::Blocked, Band::Isolated]),
            reasons: words.iter().map(|word| (*word).to_owned()).collect(),
            since: wall,
            epoch: 1,
            hold: self.random.in_thousand(100),
            instance: Instance::new(u128::from(self.random.next())),
            claim,
            version: "0".to_owned(),
            started: wall,
            at: wall,
        };
        let bytes = match self.random.below(8) {
            0 => None,
            1 => presence.sign(&self.parts.foreign),
            2 => Some(b"{}".to_vec()),
            _ => presence.sign(&self.parts.rings[0]),
        };
        let revision = self.broker.put(place, bytes.map(Bytes::from));
        self.trace.event(self.now_us, place, "rival", revision);
    }

    /// The other sidecars are gone, and with them what they had written.
    pub(crate) fn forget_twins(&mut self) {
        for place in 0..self.nodes.len() {
            self.broker.put(place, None);
        }
        for connection in self.broker.connections.values_mut() {
            connection.back.retain(|event| !matches!(event, Event::OwnRead(_)));
        }
        if !self.nodes.iter().any(|node| node.life.oracle.is_fenced) {
            return;
        }
        let until_us = self.now_us + u64::try_from(TTL.as_micros()).expect("short");
        while self.now_us < until_us {
            self.pass(100_000);
            for _ in 0..30 {
                self.settle();
            }
        }
    }
}
