//! Everything that goes wrong: with wires, clocks, processes, operators, configurations, and at the
//! hands of somebody hostile who sits on the broker.

use std::rc::Rc;

use driftgate::protocol::bridge::Live;
use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::gate::Thresholds;
use driftgate::protocol::keyring::Domain;
use driftgate::protocol::time::Timestamp;

use crate::broker::{Event, Message, Mood, Packet};
use crate::driver::Input;
use crate::node::{id_of, peer};
use crate::runtime::Manners;
use crate::world::World;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Lost,
    Frozen,
    Stalled,
    Mood,
    StreamLost,
    BrokerRestart,
    Hostile,
    Duplicated,
    Crash,
    RuntimeRestart,
    Collapse,
    Operator,
    Reload,
    ClockStep,
    /// Another sidecar with the same id comes or goes.
    Twin,
    /// A client hangs up, and sends the same once more.
    HangUp,
    /// The runtime changes how it takes what is delivered.
    Manners,
    /// The process does not run for a while, and then goes on with what has come meanwhile.
    Stopped,
}

/// How often each happens, relative to the others.
pub(crate) const FAULTS: [(u64, Fault); 18] = [
    (8, Fault::Lost),
    (8, Fault::Frozen),
    (4, Fault::Stalled),
    (10, Fault::Mood),
    (1, Fault::StreamLost),
    (2, Fault::BrokerRestart),
    (45, Fault::Hostile),
    (6, Fault::Duplicated),
    (4, Fault::Crash),
    (6, Fault::RuntimeRestart),
    (3, Fault::Collapse),
    (6, Fault::Operator),
    (10, Fault::Reload),
    (5, Fault::ClockStep),
    (4, Fault::Stopped),
    (20, Fault::Twin),
    (6, Fault::HangUp),
    (6, Fault::Manners),
];

impl World<'_> {
    pub(crate) fn fault(&mut self) {
        let place = self.random.index(self.nodes.len());
        let span_us = self.random.pick(&[50_000, 500_000, 3_000_000, 20_000_000]);
        let until_us = self.now_us + self.random.below(span_us);
        match self.random.weighted(&FAULTS) {
            Fault::Lost => {
                let place = self.frozen().unwrap_or(place);
                if self.random.in_thousand(300) {
                    self.drop_upload_link(place);
                }
                if self.nodes[place].life.link.is_some() {
                    self.turn(place, vec![Input::Gone]);
                }
            }
            Fault::Frozen => {
                let link = self.nodes[place].life.link;
                if let Some(link) = link.and_then(|link| self.broker.connections.get_mut(&link)) {
                    link.frozen_until_us = until_us;
                }
                if self.random.in_thousand(300) {
                    self.broker.mood = Mood::Busy;
                    self.broker.mood_until_us = until_us;
                }
                self.trace.event(self.now_us, place, "freezes until", until_us);
            }
            Fault::Stalled => {
                self.broker.stalled_until_us = until_us;
                self.trace.event(self.now_us, place, "broker stalls until", until_us);
            }
            Fault::Mood => {
                self.broker.mood =
                    self.random.pick(&[Mood::Busy, Mood::Refusing, Mood::Silent, Mood::Claiming]);
                self.broker.mood_until_us = until_us;
                self.trace.event(self.now_us, place, "broker is moody until", until_us);
            }
            Fault::StreamLost => {
                self.broker.lose_stream();
                self.broker.mood = Mood::Busy;
                self.broker.mood_until_us = until_us;
                self.trace.event(self.now_us, place, "stream lost until", until_us);
            }
            Fault::BrokerRestart => {
                self.trace.event(self.now_us, place, "broker restarts", 0);
                self.broker.stalled_until_us = until_us;
                for place in 0..self.nodes.len() {
                    self.drop_upload_link(place);
                    if self.nodes[place].life.link.is_some() {
                        self.turn(place, vec![Input::Gone]);
                    }
                }
            }
            Fault::Hostile => self.hostile(place),
            Fault::Duplicated => self.duplicate(place),
            Fault::Crash => self.crash(place),
            Fault::RuntimeRestart => self.nodes[place].cycle = 0,
            Fault::Collapse => self.nodes[place].weak_reports = 6,
            Fault::Operator => {
                let hold = !self.nodes[place].life.oracle.held;
                self.turn(place, vec![Input::Hold(hold)]);
            }
            Fault::Reload => self.reload(place),
            Fault::Twin => self.twin(place),
            Fault::HangUp => self.hang_up(place),
            Fault::Manners => self.change_manners(place),
            Fault::Stopped => self.stand_still(place),
            Fault::ClockStep => self.step_clock(place),
        }
    }

    /// What was sent is judged, though nobody waits for what becomes of it (P6).
    fn hang_up(&mut self, place: usize) {
        let mut inputs = vec![self.next_report(place)];
        inputs.extend(self.nodes[place].last_report.clone().map(Input::Report));
        self.tally.hung_up += 1;
        self.turn(place, inputs);
    }

    fn twin(&mut self, place: usize) {
        if self.nodes[place].identity.life.is_some() {
            return self.rival(place);
        }
        let is_fenced = !self.nodes[place].life.oracle.is_fenced;
        self.turn(place, vec![Input::Fence(is_fenced)]);
    }

    fn change_manners(&mut self, place: usize) {
        let all = [Manners::Quick, Manners::Slow, Manners::Refusing, Manners::Away];
        self.nodes[place].runtime.manners = self.random.pick(&all);
    }

    fn step_clock(&mut self, place: usize) {
        let step_ms = self.random.pick(&[200, 5_000, 25_000, 90_000, 3_600_000, 200_000_000]);
        let step_ms = if self.random.in_thousand(500) { step_ms } else { -step_ms };
        self.nodes[place].skew_ms += step_ms;
        self.trace.event(self.now_us, place, "clock steps", step_ms.unsigned_abs());
    }

    /// A process is stopped, and goes on with the first thing that has come meanwhile.
    fn stand_still(&mut self, place: usize) {
        let span_us = self.random.pick(&[200_000, 3_000_000, 130_000_000]);
        let span_us = self.random.below(span_us);
        self.now_us += span_us;
        self.broker.forget_idle(self.now_us);
        // Whoever does not run owes nobody an answer in time.
        for node in &mut self.nodes {
            node.life.owed.values_mut().for_each(|owed| owed.until_us += span_us);
            node.life.deferred.values_mut().for_each(|(at_us, _)| *at_us += span_us);
        }
        self.trace.event(self.now_us, place, "goes on", 0);
        self.tally.stopped += 1;
        let first = match self.random.below(4) {
            0 => self.next_report(place),
            1 if self.nodes[place].life.link.is_none() => Input::Up,
            2 => Input::Reload(Box::new(self.nodes[place].live.clone()), self.nodes[place].ring),
            _ => Input::Arrival,
        };
        self.turn(place, vec![first, Input::Arrival]);
    }

    /// A sidecar whose connection stands still: the one that is lost next, more often than not.
    fn frozen(&mut self) -> Option<usize> {
        let now_us = self.now_us;
        let mut connections = self.broker.connections.values();
        let frozen = connections.find(|link| link.is_held && link.frozen_until_us > now_us)?.node;
        self.random.in_thousand(600).then_some(frozen)
    }

    /// `kill -9`; a new process starts with what is on the disk.
    fn crash(&mut self, place: usize) {
        self.trace.event(self.now_us, place, "crash", 0);
        self.tally.crashes += 1;
        let node = &mut self.nodes[place];
        if let Some(link) = node.life.link.take() {
            self.broker.drop_connection(&mut self.random, self.now_us, link);
        }
        self.drop_upload_link(place);
        let memory = self.reread(place);
        self.reopen(place);
        let node = &mut self.nodes[place];
        node.runtime.forget();
        if self.random.in_thousand(700) {
            // The runtime goes down with it more often than not.
            node.cycle = 0;
        }
        node.restart(self.now_us, memory);
        self.turn(place, Vec::new());
    }

    fn reload(&mut self, place: usize) {
        let other = self.random.index(self.nodes.len());
        let wall_ms = self.nodes[place].clock(self.now_us).wall.unix_ms();
        let soon_ms = i64::try_from(self.random.below(20_000)).expect("small") - 2_000;
        let ring = self.nodes[place].ring;
        let mut settings = self.nodes[place].live.clone();
        let mut next_ring = ring;
        match self.random.below(10) {
            0 => drop(settings.peers.remove(&id_of(other))),
            1 | 2 if other != place => {
                let peer = peer(&mut self.random, other);
                settings.peers.insert(peer.id.clone(), peer);
            }
            3 => {
                if let Some(peer) = settings.peers.get_mut(&id_of(other)) {
                    peer.expires = Some(Timestamp::from_unix_ms(wall_ms + soon_ms));
                }
            }
            4 => {
                let marks = self.random.pick(&[(0.45, 0.5, 0.6), (0.3, 0.4, 0.5), (0.2, 0.2, 0.6)]);
                settings.policy.thresholds =
                    Thresholds::new(marks.0, marks.1, marks.2).expect("tightened");
            }
            5 => settings.policy.dwell = self.random.pick(&[1, 1, 2]),
            7 => {
                let accepts = [Provenance::Native, Provenance::Native, Provenance::Reported];
                settings.policy.accept = self.random.pick(&accepts);
            }
            8 => settings.policy.lock = self.random.pick(&[None, Some(0.5), Some(0.7)]),
            6 => settings.blocked_inbound_hold = !settings.blocked_inbound_hold,
            _ => next_ring = self.random.weighted(&[(60, 0), (20, 1), (6, 2), (6, 3), (4, 4)]),
        }
        if self.random.in_thousand(150) {
            // It also changed what takes a restart.
            settings = tightened(&self.nodes[place].live, &settings);
            next_ring = ring;
            self.tally.refused_reloads += 1;
        }
        self.turn(place, vec![Input::Reload(Box::new(settings), next_ring)]);
    }

    /// The same message again, later.
    fn duplicate(&mut self, place: usize) {
        let link = self.nodes[place].life.link;
        let Some(connection) = link.and_then(|link| self.broker.connections.get_mut(&link)) else {
            return;
        };
        let again = connection.back.iter().rev().find(|event| matches!(event, Event::Inbound(_)));
        if let Some(again) = again.cloned() {
            connection.back.push_back(again);
        }
    }

    /// Somebody puts a message of his own before a sidecar.
    fn hostile(&mut self, place: usize) {
        let Some(old) = self.pick_archived() else { return };
        let nodes = self.nodes.len();
        let mut message = Message::of(&old, 0);
        match self.random.below(11) {
            // Replayed, or sent to somebody whom it is not for.
            0..=2 => {}
            3 => message.subject.1 = place,
            4 => message.subject.0 = self.random.index(nodes),
            5 | 6 => flip(self, &mut message),
            7 => message = self.signed(place, &old, false),
            8 => message = self.signed(place, &old, true),
            9 => message = self.numbered(place, &old),
            _ => {
                let cut = self.random.index(message.bytes.len());
                message.bytes.truncate(cut);
                message.genuine = None;
            }
        }
        let link = self.nodes[place].life.link;
        if let Some(link) = link.and_then(|link| self.broker.connections.get_mut(&link)) {
            link.back.push_back(Event::Inbound(message));
            self.tally.hostile += 1;
        }
    }

    fn pick_archived(&mut self) -> Option<Rc<Packet>> {
        let len = self.archive.len();
        // The newest are the ones that hurt.
        let place = if self.random.in_thousand(600) {
            len.checked_sub(1 + self.random.index(len.min(8)))?
        } else {
            self.random.index(len)
        };
        self.archive.get(place).cloned()
    }

    /// A packet of somebody's own making: with a key that is not ours, or (`has_key`) by a peer
    /// that has the key and says what no gate would have let it say.
    fn signed(&mut self, place: usize, old: &Rc<Packet>, has_key: bool) -> Message {
        let mut document = Json::parse(&old.bytes).expect("a packet");
        let wall = self.nodes[place].clock(self.now_us).wall;
        let text = |text: &str| Json::String(text.to_owned());
        set(&mut document, &["header", "target_runtime_id"], text(&format!("n{place}")));
        set(&mut document, &["header", "timestamp"], text(&wall.to_string()));
        if has_key {
            let (section, field, value) = match self.random.below(5) {
                0 => ("drift_metrics", "di", Json::Number(0.5)),
                1 => ("attractor_state", "phase", text("reflective")),
                2 => ("safety_flags", "phase_lock", Json::Bool(true)),
                3 => ("safety_flags", "aegida_status", text("locked")),
                _ => {
                    // Parts that are over the mark together, beside an index that is not.
                    set(&mut document, &["payload", "drift_metrics", "sv"], Json::Number(1.0));
                    ("drift_metrics", "sdi", Json::Number(1.0))
                }
            };
            set(&mut document, &["payload", section, field], value);
        }
        let ring = if has_key { &self.parts.rings[0] } else { &self.parts.foreign };
        let bytes = seal(&mut document, ring, old.seq + 1);
        Message { stream_seq: 0, subject: (old.source, place), bytes: bytes.into(), genuine: None }
    }

    /// A good packet of a peer that chooses its number.
    fn numbered(&mut self, place: usize, old: &Rc<Packet>) -> Message {
        let wall = self.nodes[place].clock(self.now_us).wall;
        let near = [wall.unix_us() + 31_000_000, wall.unix_us() + 1_000_000];
        let seq = self.random.pick(&[u64::MAX, u64::MAX, 1 << 53, near[0], near[1]]);
        let mut document = Json::parse(&old.bytes).expect("a packet");
        let text = |text: &str| Json::String(text.to_owned());
        set(&mut document, &["header", "target_runtime_id"], text(&format!("n{place}")));
        set(&mut document, &["header", "timestamp"], text(&wall.to_string()));
        let bytes = seal(&mut document, &self.parts.rings[0], seq).into();
        let (wall_ms, key_id) = (wall.unix_ms(), "k1");
        let envelope = None;
        let packet =
            Packet { target: place, seq, wall_ms, key_id, bytes, envelope, ..(**old).clone() };
        Message::of(&Rc::new(packet), 0)
    }
}

/// What a reload that is refused does all the same: it removes and tightens.
fn tightened(old: &Live, new: &Live) -> Live {
    let mut both = old.clone();
    both.peers.retain(|id, peer| {
        let Some(new) = new.peers.get(id) else { return false };
        peer.export_state &= new.export_state;
        peer.import_state &= new.import_state;
        peer.expires = [peer.expires, new.expires].into_iter().flatten().min();
        peer.key_id.is_none() || peer.key_id == new.key_id
    });
    let (old, new) = (old.policy.thresholds, new.policy.thresholds);
    let marks = (old.reopen.min(new.reopen), old.block.min(new.block));
    both.policy.thresholds =
        Thresholds::new(marks.0, marks.1, old.isolate.min(new.isolate)).expect("tightened");
    both
}

/// Signs a document as a packet is signed.
fn seal(document: &mut Json, ring: &driftgate::protocol::keyring::Keyring, seq: u64) -> Vec<u8> {
    let Json::Object(members) = document else { panic!("a packet is an object") };
    members.remove("signature");
    let sum = Digest::of(&document.to_canonical());
    let token = ring.sign_checksum(Domain::Token, seq, sum).expect("a ring that signs");
    let signature = [("checksum", sum.to_string()), ("integrity_token", token)]
        .map(|(name, text)| (name.to_owned(), Json::String(text)));
    set(document, &["signature"], Json::Object(signature.into()));
    document.to_canonical()
}

fn set(document: &mut Json, path: &[&str], value: Json) {
    let Json::Object(members) = document else { panic!("a packet is made of objects") };
    match path {
        [] => {}
        [last] => drop(members.insert((*last).to_owned(), value)),
        [first, rest @ ..] => set(members.get_mut(*first).expect("is there"), rest, value),
    }
}

/// One bit of the bytes changes.
fn flip(world: &mut World<'_>, message: &mut Message) {
    let mut bytes = message.bytes.to_vec();
    let place = world.random.index(bytes.len());
    bytes[place] ^= 1 << world.random.below(8);
    message.bytes = bytes.into();
    message.genuine = None;
}
