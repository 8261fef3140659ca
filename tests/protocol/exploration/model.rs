//! The bridge in its small world, and what has to hold there.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;
use std::time::Duration;

use driftgate::protocol::audit;
use driftgate::protocol::bridge::{Answer, Bridge, Effect, Fence, LINGER_MAX, Memory};
use driftgate::protocol::gate::Band;
use driftgate::protocol::inbox::Arrival;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::time::{Now, Timestamp};
use driftgate::protocol::view::{Barrier, Ticket};

mod lives;
mod rules;
mod uploads;

use uploads::Uploads;

use super::events::Event;
use super::start::Start;
use crate::support::rig::EPOCH_MS;

/// Answers that may be open, and things on the wire: with more, this event waits.
const WAITING_MAX: usize = 3;
const WIRE_MAX: usize = 5;
const STALE_AFTER: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Something that was sent and that the broker has not read yet, as far as we were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    Packet,
    Beside,
    Echo,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug)]
struct Owed {
    until: Duration,
    /// Whether it has to say how a closing ended.
    closes: bool,
}

#[derive(Clone)]
pub(crate) struct World {
    start: Rc<Start>,
    bridge: Bridge,
    now: Now,
    tickets: u64,
    band: Band,
    held: bool,
    last_valid: Duration,
    is_closing: bool,
    /// The closing's end that is being told was confirmed.
    confirmed: bool,
    /// Reports since the last closing whose packets may leave.
    exportable: Vec<u64>,
    is_connected: bool,
    has_acks: bool,
    pulls: bool,
    newest_number: u64,
    wire: VecDeque<(u64, Item)>,
    /// Until then the broker may read what an ended connection had sent.
    lingers_until: Duration,
    owed: BTreeMap<Ticket, Owed>,
    is_listed: bool,
    is_tight: bool,
    is_fenced: bool,
    /// The newest report, which a reload judges again.
    newest: Option<usize>,
    /// The event under way leaps over deadlines.
    jumps: bool,
    uploads: Uploads,
    effects: VecDeque<Effect>,
    /// The first promise that was broken.
    pub(crate) broken: Option<String>,
}

impl World {
    pub(crate) fn new(start: &Rc<Start>) -> Self {
        let now = Now { wall: Timestamp::from_unix_ms(EPOCH_MS), mono: Duration::ZERO };
        Self::life(start, Memory::default(), now, Duration::ZERO)
    }

    pub(crate) fn band_word(&self) -> &'static str {
        self.band.word()
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let numbers: Vec<u64> = self.wire.iter().map(|(number, _)| *number).collect();
        self.bridge.fingerprint(self.now, &numbers, &mut hasher);
        self.wire.iter().for_each(|(_, item)| item.hash(&mut hasher));
        let flags = [self.has_acks, self.pulls, self.is_listed, self.is_tight];
        (flags, self.is_connected, self.is_closing, self.uploads).hash(&mut hasher);
        self.lingers_until.saturating_sub(self.now.mono).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the event can happen here.
    pub(crate) fn can(&self, event: Event) -> bool {
        let has = |item| self.wire.iter().any(|(_, other)| *other == item);
        let has_room = self.owed.len() < WAITING_MAX && self.wire.len() < WIRE_MAX;
        match event {
            Event::Good
            | Event::Weak
            | Event::Bad
            | Event::Worse
            | Event::Unreadable
            | Event::Hold => has_room,
            Event::Release => has_room && self.held,
            Event::StoreOldest | Event::RefuseForNow | Event::RefuseForGood => {
                self.has_acks && has(Item::Packet)
            }
            Event::StoreNewest => {
                let packets = self.wire.iter().filter(|(_, item)| *item == Item::Packet);
                self.has_acks && packets.count() > 1
            }
            Event::Echo => has(Item::Echo),
            Event::Lose => self.is_connected,
            Event::Connect => !self.is_connected,
            Event::Full => self.wire.back().is_some_and(|(_, item)| *item == Item::Packet),
            Event::Tick => self.bridge.deadline(self.now) < Duration::MAX,
            Event::Linger | Event::Reload | Event::Tighten | Event::Fence | Event::Restart => true,
            Event::Arrive => self.pulls,
            Event::Upload(event) => self.can_upload(event),
        }
    }

    pub(crate) fn take(&mut self, event: Event) {
        self.pass(event);
        match event {
            Event::Good => self.report(0),
            Event::Weak => self.report(1),
            Event::Bad => self.report(2),
            Event::Worse => self.report(3),
            Event::Unreadable => {
                self.enter(self.band.max(Band::Blocked));
                self.uploads.is_doomed |= self.held;
                let ticket = self.owe(self.is_closing);
                self.perform(|bridge, now| bridge.unreadable(now, ticket));
            }
            Event::Hold => self.hold(true),
            Event::Release => self.hold(false),
            Event::StoreOldest => self.answer(false, STORED),
            Event::StoreNewest => self.answer(true, STORED),
            Event::RefuseForNow => self.answer(false, Outcome::Later),
            Event::RefuseForGood => self.answer(false, Outcome::Refused),
            Event::Echo => self.echo(),
            Event::Lose => {
                self.drop_connection();
                self.perform(Bridge::disconnected);
            }
            Event::Connect => {
                self.is_connected = true;
                self.perform(Bridge::connected);
            }
            Event::Full => {
                let (number, _) = self.wire.pop_back().expect("it can");
                self.perform(|bridge, now| bridge.not_sent(now, number));
            }
            Event::Tick | Event::Linger => self.tick(),
            Event::Reload => {
                self.is_listed = !self.is_listed;
                self.reload();
            }
            Event::Tighten => {
                self.is_tight = !self.is_tight;
                self.reload();
            }
            Event::Fence => self.fence(),
            Event::Arrive => self.arrive(),
            Event::Upload(event) => self.upload(event),
            Event::Restart => self.restart(),
        }
        self.check();
    }

    /// Time comes first, whatever the event.
    fn pass(&mut self, event: Event) {
        let mut now = self.now.mono;
        self.jumps = event == Event::Linger;
        if event == Event::Tick {
            now = self.bridge.deadline(self.now);
        } else if self.jumps {
            now += LINGER_MAX;
        }
        self.now.wall = self.now.wall.plus(now.saturating_sub(self.now.mono));
        self.now.mono = now;
        if self.band < Band::Blocked && now.saturating_sub(self.last_valid) >= STALE_AFTER {
            self.enter(Band::Blocked);
        }
    }

    fn tick(&mut self) {
        self.perform(Bridge::tick);
        let is_later = self.bridge.deadline(self.now) > self.now.mono;
        self.demand(is_later, "P10: wants to be woken at once, for ever");
        let is_late = self.owed.values().any(|owed| owed.until <= self.now.mono);
        self.demand(!is_late, "P8: an answer is overdue");
    }

    fn fence(&mut self) {
        self.is_fenced = !self.is_fenced;
        if self.is_fenced {
            self.enter(self.band.max(Band::Blocked));
        }
        let fence = self.is_fenced.then_some(Fence::Twin);
        self.perform(|bridge, now| bridge.fence(now, fence));
    }

    fn hold(&mut self, held: bool) {
        self.held = held;
        if held {
            self.enter(Band::Isolated);
            self.uploads.is_doomed = true;
        }
        let ticket = self.owe(self.is_closing);
        self.perform(|bridge, now| bridge.hold(now, ticket, held));
    }

    /// The broker has read everything up to the first echo that was asked for.
    fn echo(&mut self) {
        let at = self.wire.iter().position(|(_, item)| *item == Item::Echo).expect("it can");
        let (number, _) = self.wire.drain(..=at).next_back().expect("at least one");
        self.perform(|bridge, now| bridge.confirmed(now, number));
    }

    /// A report: the first row of the table that applies (P3).
    fn report(&mut self, kind: usize) {
        self.last_valid = self.now.mono;
        self.newest = Some(kind);
        let called = self.called(kind);
        self.uploads.is_doomed |= called >= Band::Blocked || self.held;
        let is_closed = self.band.is_closed();
        let before = self.band;
        let to = match called {
            _ if self.held => Band::Isolated,
            Band::Open | Band::Caution if self.is_fenced => self.band.max(Band::Blocked),
            Band::Open => Band::Open,
            _ if is_closed => self.band.max(called.max(Band::Blocked)),
            Band::Caution | Band::Blocked | Band::Isolated => called,
        };
        self.enter(to);
        let ticket = self.owe(to.is_closed() && to > before);
        let next = self.bridge.memory(self.now).seq + 1;
        let seq = next.max(self.now.wall.unix_us());
        if !to.is_closed() {
            self.exportable.push(seq);
            let surplus = self.exportable.len().saturating_sub(8);
            self.exportable.drain(..surplus);
        }
        let start = Rc::clone(&self.start);
        self.perform(|bridge, now| bridge.report(now, ticket, &start.documents[kind], None));
    }

    fn owe(&mut self, closes: bool) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let bound = if closes { 2 * TIMEOUT } else { TIMEOUT };
        self.owed.insert(ticket, Owed { until: self.now.mono + bound, closes });
        ticket
    }

    fn enter(&mut self, to: Band) {
        if to.is_closed() && to > self.band {
            self.is_closing = true;
            self.exportable.clear();
            self.uploads.is_doomed |= !self.band.is_closed();
        }
        self.band = to;
    }

    /// The broker says what became of a packet, and has read all before it.
    fn answer(&mut self, newest: bool, outcome: Outcome) {
        let is_packet = |(_, item): &(u64, Item)| *item == Item::Packet;
        let at = if newest {
            self.wire.iter().rposition(is_packet)
        } else {
            self.wire.iter().position(is_packet)
        };
        let at = at.expect("it can");
        let number = self.wire[at].0;
        if matches!(outcome, Outcome::Stored { .. }) {
            self.wire.drain(..=at);
        } else {
            // A refusal may come from the server that we are connected to, or from our own side.
            self.wire.remove(at);
        }
        self.perform(|bridge, now| bridge.answered(now, number, outcome));
    }

    fn arrive(&mut self) {
        let start = Rc::clone(&self.start);
        let arrival = Arrival {
            subject: ("critic", "planner"),
            envelope: None,
            drift_source: None,
            bytes: &start.inbound,
        };
        let is_taken = self.bridge.receive(self.now, &arrival).is_some();
        let is_isolated = self.band == Band::Isolated;
        self.demand(is_taken != is_isolated, "P4: inbound while isolated, or none while not");
    }

    fn drop_connection(&mut self) {
        let ours = self.wire.iter().any(|(_, item)| *item != Item::Echo);
        if ours {
            self.lingers_until = self.now.mono + LINGER_MAX;
        }
        self.wire.clear();
        (self.is_connected, self.has_acks, self.pulls) = (false, false, false);
    }

    /// One input, and what follows from it, in order.
    fn perform(&mut self, input: impl FnOnce(&mut Bridge, Now) -> Vec<Effect>) {
        let effects = input(&mut self.bridge, self.now);
        self.effects.extend(effects);
        while let Some(effect) = self.effects.pop_front() {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Publish { token, packet, .. } => {
                let is_open = !self.band.is_closed() && !self.is_shadow();
                self.demand(is_open, "P1: published while closed, or in shadow");
                self.demand(!self.is_closing, "P2: published during a closing");
                let is_exportable = self.exportable.contains(&packet.seq());
                self.demand(is_exportable, "P5: made from a refused report, or before a closing");
                self.demand(self.is_listed, "P7: its target is not authorised");
                self.send(token, Item::Packet);
            }
            Effect::Phase { seq, is_published, .. } => {
                let is_exportable = self.exportable.contains(&seq);
                self.demand(is_exportable, "P1: a frame of a refused report");
                if is_published {
                    let is_open = !self.band.is_closed() && !self.is_shadow() && !self.is_closing;
                    self.demand(is_open, "P1, P2: a frame while closed or closing, or in shadow");
                    self.demand(self.is_listed, "P7: nobody is authorised to have the frame");
                    self.send(self.newest_number + 1, Item::Beside);
                }
            }
            Effect::Notify(notice) => {
                let is_covered = self.is_closing || !self.band.is_closed();
                self.demand(is_covered, "P2: a notice after the end of a closing");
                drop(notice);
                self.send(self.newest_number + 1, Item::Beside);
            }
            Effect::Announce(_) => {
                let is_open = self.band == Band::Open && !self.is_closing && !self.is_shadow();
                self.demand(is_open, "P1: a manifest is announced while not open");
                self.send(self.newest_number + 1, Item::Beside);
            }
            Effect::Declare { .. } => {
                let may = self.band != Band::Isolated && !self.is_closing && !self.is_shadow();
                self.demand(may, "P4: declares itself while isolated, closing or in shadow");
                self.send(self.newest_number + 1, Item::Beside);
            }
            Effect::Confirm(number) => self.send(number, Item::Echo),
            Effect::Cut => (self.has_acks, self.pulls) = (false, false),
            Effect::Subscribe { pull } => {
                let is_allowed =
                    self.band != Band::Isolated && self.is_connected && !(pull && self.is_shadow());
                self.demand(is_allowed, "P4: subscribes while isolated");
                (self.has_acks, self.pulls) = (true, pull);
            }
            Effect::Sever => {
                self.drop_connection();
                let effects = self.bridge.disconnected(self.now);
                self.effects.extend(effects);
            }
            Effect::StopUploads { revoke } => self.stop_uploads(revoke),
            Effect::SeverUploads => {
                self.uploads.stopped();
                self.lingers_until = self.now.mono + LINGER_MAX;
            }
            Effect::Record(audit::Event::Barrier(barrier)) => self.end_closing(barrier),
            Effect::Presence(_) | Effect::Record(_) => {}
            Effect::Answer { ticket, answer } => self.settle(ticket, &answer),
        }
    }

    fn send(&mut self, number: u64, item: Item) {
        self.demand(number > self.newest_number, "P2: two things under one number");
        self.demand(self.is_connected, "P2: sent without a connection");
        self.newest_number = number;
        self.wire.push_back((number, item));
    }

    fn end_closing(&mut self, barrier: Barrier) {
        self.demand(self.is_closing, "P2: a closing ends that never began");
        self.is_closing = false;
        self.confirmed = barrier == Barrier::Confirmed;
        let unread = self.wire.iter().any(|(_, item)| *item != Item::Echo);
        if self.confirmed {
            self.demand(!unread, "P2: confirmed with something unread");
            let is_over = self.now.mono >= self.lingers_until;
            self.demand(is_over, "P2: confirmed while an ended connection may be read");
            self.demand(!self.uploads.is_stopping, "P2: confirmed before the uploads were quiet");
        } else {
            self.demand(!unread, "P2: unconfirmed, and the connection was kept");
        }
    }

    fn settle(&mut self, ticket: Ticket, answer: &Answer) {
        let Some(owed) = self.owed.remove(&ticket) else {
            self.demand(false, "P8: answered twice");
            return;
        };
        let barrier = match answer {
            Answer::Report(reply) | Answer::Retry(reply) => reply.barrier,
            Answer::Refused { state, .. } | Answer::Order(state) => state.barrier,
        };
        self.demand(barrier.is_some() == owed.closes, "P2: barrier and closing disagree");
        let is_proved = barrier != Some(Barrier::Confirmed) || (self.confirmed && !self.is_closing);
        self.demand(is_proved, "P2: confirmed before its closing has ended");
        self.demand(self.jumps || self.now.mono <= owed.until, "P8: late");
    }
}

const STORED: Outcome = Outcome::Stored { stream_seq: 9, duplicate: false };
