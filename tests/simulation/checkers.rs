//! What has to hold, after every step.
//!
//! Every check looks at what was reported, what the broker got and what the replies said; of the
//! bridge's own opinions only those are used that it shows, and they are what is being checked.

use std::rc::Rc;

use driftgate::protocol::bridge::{TRANSITIONS_MAX, WAITING_MAX};
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::inbox::Peer;
use driftgate::protocol::seal::Sealed;
use driftgate::protocol::view::{Barrier, Decision, PacketStatus, ReportReply, Ticket};

use crate::broker::{Command, Message, Packet};
use crate::letter::{Letter, Reading};
use crate::node::{Lane, Line, RINGS, place_of};
use crate::oracle::Opinion;
use crate::world::World;

/// Packets of the past that an attacker holds ready.
const ARCHIVE_LEN_MAX: usize = 256;
/// The furthest that a clock is set back without old packets counting as new.
pub(crate) const DAY_US: u64 = 24 * 3_600_000_000;

/// What has to become of an inbound message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// Isolated, or held back while blocked: left on the stream.
    Unheard,
    Accept,
    Redelivered,
    Refuse,
}

impl Hearing {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unheard => "unheard",
            Self::Accept => "accepted",
            Self::Redelivered => "redelivered",
            Self::Refuse => "refused",
        }
    }
}

impl World<'_> {
    pub(crate) fn demand(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.trace.violate(text());
        }
    }

    /// What the reply to this report has to say, target by target (P8), and whether a packet of it
    /// could not be signed, which closes the gate.
    pub(crate) fn expected_lines(
        &mut self,
        place: usize,
        opinion: Opinion,
        is_fillable: bool,
    ) -> (Vec<(driftgate::protocol::packet::RuntimeId, Line)>, bool) {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let can_sign = RINGS[node.ring].1.is_some();
        let targets: Vec<_> =
            node.live.peers.keys().filter(|id| node.may_reach(now, id)).cloned().collect();
        let mut lines = Vec::new();
        let mut is_distrusted = false;
        for target in targets {
            let lane = node.life.lanes.entry(target.clone()).or_default();
            lane.reports += 1;
            let line = if !is_fillable {
                Line::Held
            } else if opinion.band == Band::Caution
                && !is_due(lane, node.live.caution_blocks, node.live.caution_every)
            {
                Line::Throttled
            } else if can_sign {
                lane.since_offer = Some(0);
                Line::Made
            } else {
                is_distrusted = true;
                Line::Held
            };
            lines.push((target, line));
        }
        (lines, is_distrusted)
    }

    /// A phase frame that the bridge tells of (P1, P2, P7).
    pub(crate) fn check_frame(&mut self, place: usize, seq: u64, is_published: bool) {
        let node = &self.nodes[place];
        let (life, wall) = (&node.life, node.clock(self.now_us).wall);
        let may_listen = |peer: &Peer| peer.export_telemetry && peer.is_current(wall);
        let rules = [
            (
                life.made.get(&seq).is_some_and(|made| made.exportable || !is_published),
                "P1: a frame of a refused report",
            ),
            (life.oracle.band < Band::Blocked, "P1: a frame while the gate is closed"),
            (!is_published || !life.is_closing, "P2: a frame while a closing is under way"),
            (!is_published || node.live.peers.values().any(may_listen), "P7: for nobody"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, promise)| *promise);
        self.demand(broken.is_none(), || format!("{} (seq {seq})", broken.unwrap_or_default()));
    }

    /// A packet that the bridge wants to be published (P1, P2, P5, P7).
    pub(crate) fn check_emission(
        &mut self,
        place: usize,
        token: u64,
        packet: &Sealed,
        envelope: &str,
    ) {
        let (seq, target) = (packet.seq(), place_of(packet.target()));
        let node = &self.nodes[place];
        let now = node.clock(self.now_us);
        let life = &node.life;
        let lane = life.lanes.get(packet.target()).copied().unwrap_or_default();
        let made = life.made.get(&seq).cloned();
        let band = life.oracle.band;
        let rules = [
            (made.as_ref().is_some_and(|made| made.exportable), "P1: made from a refused report"),
            (band < Band::Blocked, "P1: published while the gate is closed"),
            (!life.is_closing, "P2: published while a closing is under way"),
            (seq > life.closed_through, "P5: made before a closing, published after it"),
            (seq >= lane.newest_emitted, "P8: older than what its target was sent already"),
            (node.may_reach(now, packet.target()), "P7: its target is not authorised"),
            (node.is_name_known(self.now_us), "twins: nobody has looked who has the name"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, promise)| *promise);
        self.demand(broken.is_none(), || {
            format!("{} (seq {seq} for n{target})", broken.unwrap_or_default())
        });
        let Some(made) = made else { return };
        let life = &mut self.nodes[place].life;
        life.lanes.entry(packet.target().clone()).or_default().newest_emitted = seq;
        life.tokens.insert(token, (seq, target));
        if let Some(known) = life.emitted.get(&(seq, target)) {
            let is_same = known.bytes == *packet.bytes();
            self.demand(is_same, || format!("P8: seq {seq} again with other bytes"));
            return;
        }
        let is_true = says(packet.bytes(), place, target, seq, made.di);
        self.demand(is_true, || format!("P1: seq {seq} does not say what was reported"));
        let node = &mut self.nodes[place];
        let is_rising = seq >= node.newest_emitted;
        node.newest_emitted = node.newest_emitted.max(seq);
        let packet = Rc::new(Packet {
            source: place,
            life: node.life_number(),
            target,
            seq,
            wall_ms: made.wall_ms,
            di: made.di,
            key_id: made.key_id.unwrap_or("none"),
            bytes: packet.bytes().clone(),
            envelope: Some(envelope.to_owned()),
        });
        node.life.emitted.insert((seq, target), Rc::clone(&packet));
        self.demand(is_rising, || format!("P7: seq {seq} is below one of an earlier life"));
        self.trace.mix(&packet.bytes);
        self.archive.push_back(packet);
        if self.archive.len() > ARCHIVE_LEN_MAX {
            self.archive.pop_front();
        }
        self.tally.packets += 1;
    }

    /// A publication leaves our side (P2).
    pub(crate) fn check_leaving(&mut self, packet: &Packet) {
        let node = &self.nodes[packet.source];
        let is_allowed = packet.life != node.life_number() || packet.seq > node.life.silent_through;
        self.demand(is_allowed, || {
            format!("P2: seq {} leaves after its closing has ended", packet.seq)
        });
    }

    /// The broker has processed a publication (P1, P2).
    pub(crate) fn check_processed(&mut self, packet: &Packet) {
        let node = &self.nodes[packet.source];
        let is_allowed = packet.seq > node.confirmed_through[packet.life];
        self.trace.event(self.now_us, packet.source, "processed", packet.seq);
        self.tally.processed += 1;
        self.demand(is_allowed, || {
            format!("P2: the broker processes seq {} after a confirmed closing", packet.seq)
        });
        self.demand(packet.di < 0.5, || format!("P1: seq {} at {}", packet.seq, packet.di));
    }

    /// The bridge says that a closing is over: from here on it may send what a reopened gate lets
    /// through.
    pub(crate) fn check_end_of_closing(&mut self, place: usize) {
        let life = &mut self.nodes[place].life;
        let was_closing = std::mem::take(&mut life.is_closing);
        life.ended.push_back(life.closed_through);
        let doomed = std::mem::take(&mut life.uploader.doomed);
        life.uploader.ended.push_back(doomed);
        self.demand(was_closing, || "P2: a closing ends that never began".to_owned());
    }

    /// The replies of a closing go (P2, P4).
    pub(crate) fn check_closed(&mut self, place: usize, barrier: Barrier) {
        let life = &mut self.nodes[place].life;
        let through = life.ended.pop_front().unwrap_or(0);
        life.silent_through = life.silent_through.max(through);
        self.trace.event(self.now_us, place, "closed", u64::from(barrier == Barrier::Confirmed));
        self.check_doomed(place, barrier == Barrier::Confirmed);
        match barrier {
            Barrier::Confirmed => {
                self.tally.confirmed += 1;
                let number = self.nodes[place].life_number();
                let confirmed = &mut self.nodes[place].confirmed_through[number];
                *confirmed = (*confirmed).max(through);
                // What an earlier life had sent is not to be read any more either.
                for earlier in &mut self.nodes[place].confirmed_through[..number] {
                    *earlier = u64::MAX;
                }
                self.check_nothing_left(place, through, true);
            }
            Barrier::Unconfirmed => {
                self.tally.unconfirmed += 1;
                self.check_nothing_left(place, through, false);
            }
        }
    }

    /// Looks for publications that may still be processed: on our side of the link, and with
    /// `on_wires` also on their way or with the broker.
    fn check_nothing_left(&mut self, place: usize, through: u64, on_wires: bool) {
        let life = self.nodes[place].life_number();
        let is_ours = |command: &Command| {
            matches!(command, Command::Publish { packet, .. }
                if packet.life == life && packet.seq <= through)
                || (on_wires && matches!(command, Command::Notify | Command::Show { .. }))
        };
        let left = self.broker.connections.iter().find(|(_, connection)| {
            connection.node == place
                && (connection.queue.iter().any(is_ours)
                    || (on_wires && connection.wire.iter().any(is_ours)))
        });
        let left = left.map(|(id, connection)| (*id, connection.is_held));
        self.demand(left.is_none(), || {
            let word = if on_wires { "confirmed" } else { "unconfirmed" };
            format!("P2: {word} up to seq {through} with packets left on connection {left:?}")
        });
    }

    /// A reply leaves (P2, P3, P8).
    pub(crate) fn check_answer(&mut self, place: usize, ticket: Ticket, reply: &ReportReply) {
        let life = &mut self.nodes[place].life;
        let Some(owed) = life.owed.remove(&ticket) else {
            self.trace.violate(format!("P8: a second reply to {ticket:?}"));
            return;
        };
        let seq = owed.seq;
        self.trace.event(self.now_us, place, "answer", seq);
        let decision = match owed.band {
            Band::Blocked => Some(Decision::Block),
            Band::Isolated => Some(Decision::Isolate),
            Band::Open | Band::Caution => None,
        };
        let is_marked = reply.reasons.contains(&Reason::Unconfirmed);
        let rules = [
            (self.now_us <= owed.until_us, "P8: late"),
            (reply.seq == seq, "P8: for another report"),
            (reply.band == owed.band, "P3: another band than the table's"),
            (decision.is_none_or(|decision| decision == reply.verdict), "P3: another verdict"),
            (reply.barrier.is_some() == owed.closes, "P2: barrier and closing disagree"),
            ((reply.barrier == Some(Barrier::Unconfirmed)) == is_marked, "P2: reason missing"),
            (reply.packets.len() == owed.lines.len(), "P8: other targets"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, promise)| *promise);
        let mut is_told = true;
        for (line, (target, expected)) in reply.packets.iter().zip(&owed.lines) {
            let stored = life.stored.get(&(seq, place_of(target)));
            is_told &= line.target == *target
                && match (expected, line.status) {
                    (Line::Held, status) => status == PacketStatus::Held,
                    (Line::Throttled, status) => status == PacketStatus::Throttled,
                    (Line::Made, PacketStatus::Stored) => stored
                        .zip(line.stream_seq)
                        .is_some_and(|(told, stream_seq)| told.contains(&stream_seq)),
                    (Line::Made, status) => {
                        !matches!(status, PacketStatus::Held | PacketStatus::Throttled)
                    }
                };
        }
        let confirmed = self.nodes[place].confirmed_through.last().copied().unwrap_or(0);
        let is_proved = reply.barrier != Some(Barrier::Confirmed) || seq <= confirmed;
        self.demand(broken.is_none(), || {
            format!("{}: {reply:?}, owed {owed:?}", broken.unwrap_or_default())
        });
        self.demand(is_told, || format!("P8: {reply:?}, owed {owed:?}"));
        self.demand(is_proved, || format!("P2: report {seq} confirmed before its closing ended"));
        if reply.barrier == Some(Barrier::Unconfirmed) {
            let life = &mut self.nodes[place].life;
            life.silent_through = life.silent_through.max(seq);
            self.check_nothing_left(place, seq, false);
        }
    }

    /// What has to become of an inbound message (P4, P7), from what is known of its bytes.
    pub(crate) fn hearing(&self, place: usize, message: &Message) -> Hearing {
        let node = &self.nodes[place];
        let wall = node.clock(self.now_us).wall;
        match node.life.oracle.band {
            // Time has closed the gate and the bridge does not know yet: nothing is heard before.
            band if band != node.life.bridge.band() => return Hearing::Unheard,
            Band::Isolated => return Hearing::Unheard,
            Band::Blocked if node.live.blocked_inbound_hold => return Hearing::Unheard,
            Band::Open | Band::Caution | Band::Blocked => {}
        }
        let Some(genuine) = &message.genuine else { return Hearing::Refuse };
        let peer = node.live.peers.get(&crate::node::id_of(genuine.source));
        let is_authorised = peer.is_some_and(|peer| {
            peer.import_state
                && peer.expires.is_none_or(|expires| wall < expires)
                && peer.key_id.as_deref().is_none_or(|pinned| pinned == genuine.key_id)
        });
        let age_ms = wall.unix_ms() - genuine.wall_ms;
        let limits = (node.live.packet_max_age, node.live.clock_skew_max);
        let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).expect("short");
        // Whoever holds a key may say when it came; who may not be heard any more says nothing new.
        let is_genuine = message.bytes == genuine.bytes
            && message.subject == (genuine.source, genuine.target)
            && genuine.target == place
            && RINGS[node.ring].0.contains(&genuine.key_id);
        let is_near = genuine.seq <= wall.unix_us() + 30_000_000;
        let is_good = is_authorised
            && is_near
            && age_ms <= millis(limits.0)
            && -age_ms <= millis(limits.1)
            && genuine.di < node.live.policy.thresholds.block;
        // A clock set back by more than a day makes the old packets new.
        let is_known = |floor: &u64| *floor <= wall.unix_us() + DAY_US;
        let floor = node.life.floors.get(&genuine.source).copied().filter(is_known).unwrap_or(0);
        match genuine.seq.cmp(&floor) {
            _ if !is_genuine => Hearing::Refuse,
            std::cmp::Ordering::Equal => Hearing::Redelivered,
            std::cmp::Ordering::Greater if is_good => Hearing::Accept,
            std::cmp::Ordering::Less | std::cmp::Ordering::Greater => Hearing::Refuse,
        }
    }

    /// The same of one that comes in that envelope, and under what it is taken.
    pub(crate) fn hearing_in(
        &mut self,
        place: usize,
        message: &Message,
        letter: &Letter,
    ) -> (Hearing, Option<Reading>) {
        let hearing = self.hearing(place, message);
        let Some(genuine) = message.genuine.as_ref().filter(|_| hearing == Hearing::Accept) else {
            return (hearing, None);
        };
        let node = &self.nodes[place];
        let peer = &node.live.peers[&crate::node::id_of(genuine.source)];
        let reading = letter.reading(peer, node.clock(self.now_us).wall);
        if reading == Reading::Refuse {
            self.tally.unfit += 1;
            return (Hearing::Refuse, None);
        }
        (hearing, Some(reading))
    }

    /// After every turn of a sidecar: P4 at the broker, P8 in the books, P10 in time, and bounds.
    pub(crate) fn check_turn(&mut self, place: usize) {
        let node = &self.nodes[place];
        let life = &node.life;
        let now = node.clock(self.now_us);
        let is_isolated = life.oracle.band == Band::Isolated;
        let link = life.link.and_then(|link| self.broker.connections.get(&link));
        let is_cut = link.is_none_or(|link| {
            let subscribes =
                |command: &Command| matches!(command, Command::SubscribeAcks | Command::Pull(true));
            let comes = link.queue.iter().chain(&link.wire).any(subscribes);
            !link.has_acks && !link.pulls && !comes
        });
        let mut pending = 0;
        let mut is_booked = true;
        let mut lanes = 0;
        for (target, ledger) in life.bridge.ledgers() {
            let settled = ledger.stored
                + ledger.superseded
                + ledger.held
                + ledger.throttled
                + ledger.revoked
                + ledger.failed;
            let reports = life.lanes.get(target).map_or(0, |lane| lane.reports);
            is_booked &= ledger.reports == reports && reports == settled + ledger.pending;
            pending += ledger.pending;
            lanes += 1;
        }
        let is_late = life.owed.values().any(|owed| owed.until_us < self.now_us);
        // The same bound as for the reply to a report that closes.
        let bound = node.identity.reply_timeout + node.live.barrier_timeout;
        let bound_us = u64::try_from(bound.as_micros()).expect("short");
        let is_deferral_late =
            life.deferred.values().any(|(at_us, _)| at_us + bound_us < self.now_us);
        let deadline = life.bridge.deadline(now);
        let rules = [
            (!is_isolated || life.is_closing || is_cut, "P4: subscriptions while isolated"),
            (!is_isolated || life.bridge.field_state(now).is_none(), "P4: shows peers"),
            (
                !is_isolated || life.is_closing || life.uploader.link.is_none(),
                "P4: an uploader's connection while isolated",
            ),
            (life.bridge.is_closing() == life.is_closing, "P2: is_closing is wrong"),
            (node.disk.is_held() == life.oracle.held, "P6: a hold is not what is on disk"),
            (is_booked && life.bridge.is_balanced(), "P8: the books do not add up"),
            (!is_late, "P8: a reply is overdue"),
            (!is_deferral_late, "P8: an answer that is no reply is overdue"),
            (deadline > now.mono, "P10: the bridge asks to be woken at once, for ever"),
            (pending <= node.window_and(lanes), "bound: more is pending than window and lanes"),
            (life.owed.len() <= WAITING_MAX, "bound: too many replies are open"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, promise)| *promise);
        self.demand(broken.is_none(), || broken.unwrap_or_default().to_owned());
    }

    /// Bounds that cost too much to look at after every turn.
    pub(crate) fn check_sizes(&mut self, place: usize) {
        let nodes = self.nodes.len();
        let now = self.nodes[place].clock(self.now_us);
        let life = &mut self.nodes[place].life;
        let transitions = life.bridge.safety(now).transitions.len();
        let floors = life.bridge.memory(now).floors.len();
        self.demand(transitions <= TRANSITIONS_MAX && floors <= nodes, || {
            format!("bound: {transitions} transitions, {floors} floors")
        });
    }
}

/// Caution: a report goes to a target only if at least `every` have passed since the last one that
/// did.
fn is_due(lane: &mut Lane, blocks: bool, every: u32) -> bool {
    if blocks {
        return false;
    }
    let since = lane.since_offer.map_or(every, |since| since + 1);
    lane.since_offer = Some(since);
    since >= every
}

/// Reads the wire bytes without any parser of the program: addresses, number, index, posture.
fn says(bytes: &[u8], source: usize, target: usize, seq: u64, di: f64) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let after = |key: &str| text.split_once(key).map(|(_, rest)| rest);
    let index = after("\"di\":")
        .and_then(|rest| rest.split([',', '}']).next())
        .and_then(|number| number.parse::<f64>().ok());
    let is_stable = text.contains("\"phase\":\"stable\"") || text.contains("\"phase\":\"forming\"");
    text.contains(&format!("\"source_runtime_id\":\"n{source}\""))
        && text.contains(&format!("\"target_runtime_id\":\"n{target}\""))
        && after("\"integrity_token\":").is_some_and(|rest| rest.contains(&format!(":{seq}:")))
        && index.is_some_and(|index| (index - di).abs() < 1e-9 && index < 0.5)
        && is_stable
}
