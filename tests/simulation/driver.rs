//! The driver's side of a simulated sidecar: inputs, effects in order, link, memory file; as
//! `src/driver/run.rs` does it, without the clock and the sockets.

use driftgate::protocol::audit::Event as AuditEvent;
use driftgate::protocol::bridge::{Answer, Effect, Fence, GateState, Live, PresenceEffect};
use driftgate::protocol::envelope::Ruling;
use driftgate::protocol::inbox::{Arrival, Inbound};
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::view::Ticket;

use crate::broker::{Command, Event, Message};
use crate::checkers::{DAY_US, Hearing};
use crate::letter::Reading;
use crate::name::Name;
use crate::node::{Made, Owed, RINGS, id_of, meet, place_of};
use crate::oracle::Opinion;
use crate::report::RawReport;
use crate::world::World;

/// Pauses before another attempt to connect, at most.
const PAUSES_US_MAX: [u64; 3] = [5_000, 50_000, 3_000_000];

/// One input of the driver's loop.
#[derive(Debug)]
pub(crate) enum Input {
    Report(RawReport),
    /// A body that is no document.
    Unreadable,
    Hold(bool),
    Reload(Box<Live>, usize),
    /// A twin is seen, or is gone.
    Fence(bool),
    /// The connection that was tried is there.
    Up,
    /// The connection has ended without our doing.
    Gone,
    /// The next thing that has arrived on the link.
    Arrival,
}

impl World<'_> {
    /// One turn of the driver's loop: inputs, a tick, the effects, the memory.
    pub(crate) fn turn(&mut self, place: usize, inputs: Vec<Input>) {
        for input in inputs {
            self.input(place, input);
        }
        self.tick(place);
        if self.nodes[place].life.bridge.is_held() {
            self.nodes[place].disk.lock();
        }
        self.perform(place);
        self.start_requests(place);
        let in_doubt = self.nodes[place].life.bridge.in_doubt(self.nodes[place].clock(self.now_us));
        if !in_doubt && self.random.in_thousand(100) {
            self.nodes[place].disk.doubt(false);
        }
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let deadline = node.life.bridge.deadline(now);
        node.life.wake_us = u64::try_from(deadline.as_nanos().div_ceil(1000))
            .map_or(u64::MAX, |wake_us| wake_us.saturating_add(node.life.born_us));
        node.life.prune();
        self.check_turn(place);
    }

    pub(crate) fn input(&mut self, place: usize, input: Input) {
        if self.nodes[place].life.oracle.is_fenced {
            // What fences may be over by now.
            self.tick(place);
        }
        self.note_time(place);
        let now = self.nodes[place].clock(self.now_us);
        match input {
            Input::Report(raw) => self.report(place, &raw),
            Input::Unreadable => {
                self.trace.event(self.now_us, place, "unreadable", 0);
                let node = &mut self.nodes[place];
                let ticket = node.life.ticket();
                let effects = node.life.bridge.unreadable(now, ticket);
                // Whoever holds from before the start says so now.
                node.life.uploader.may_revoke |= node.life.oracle.held;
                let opinion = node.life.oracle.report(self.now_us, None, &node.live);
                self.judged(place, opinion);
                self.defer(place, ticket);
                self.collect(place, effects);
            }
            Input::Hold(hold) => {
                self.trace.event(self.now_us, place, "hold", u64::from(hold));
                let node = &mut self.nodes[place];
                let ticket = node.life.ticket();
                let effects = node.life.bridge.hold(now, ticket, hold);
                node.disk.hold(hold);
                let opinion = node.life.oracle.hold(self.now_us, hold);
                node.life.uploader.may_revoke |= hold;
                self.judged(place, opinion);
                self.defer(place, ticket);
                self.collect(place, effects);
            }
            Input::Reload(live, ring) => {
                self.trace.event(self.now_us, place, "reload", u64::try_from(ring).unwrap());
                let node = &mut self.nodes[place];
                node.live = *live;
                node.ring = ring;
                node.live.keyring = self.parts.rings[ring].clone();
                let mut effects = node.life.bridge.reload(now, node.live.clone());
                effects.extend(meet(&mut node.life.bridge, &node.live, now));
                let opinion = node.life.oracle.reload(self.now_us, &node.live);
                let block = node.live.policy.thresholds.block - 1e-9;
                let uploader = &mut node.life.uploader;
                uploader.may_revoke |= uploader.newest.is_some_and(|index| index >= block);
                self.judged(place, opinion);
                self.collect(place, effects);
            }
            Input::Fence(is_fenced) => {
                self.trace.event(self.now_us, place, "fence", u64::from(is_fenced));
                let node = &mut self.nodes[place];
                let effects = node.life.bridge.fence(now, is_fenced.then_some(Fence::Twin));
                let opinion = node.life.oracle.fence(self.now_us, is_fenced);
                self.judged(place, opinion);
                self.collect(place, effects);
            }
            Input::Up => {
                let link = self.broker.connect(place);
                self.trace.event(self.now_us, place, "up", link);
                self.nodes[place].life.link = Some(link);
                self.nodes[place].life.name = Name::default();
                let effects = self.nodes[place].life.bridge.connected(now);
                self.collect(place, effects);
            }
            Input::Gone => self.sever(place, "gone"),
            Input::Arrival => self.arrival(place),
        }
    }

    fn report(&mut self, place: usize, raw: &RawReport) {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let before = node.life.last_seq;
        let ticket = node.life.ticket();
        let refused = node.life.bridge.counters().malformed;
        if node.life.oracle.is_retry(raw) {
            return self.retry(place, raw);
        }
        node.disk.reserve(node.life.bridge.seq_next(now));
        let effects = node.life.bridge.report(now, ticket, &raw.to_json(), None);
        let mut opinion = node.life.oracle.report(self.now_us, Some(raw), &node.live);
        node.life.uploader.may_revoke |= raw.is_unstable(node.live.policy.thresholds.block);
        node.life.uploader.may_revoke |= node.life.oracle.held;
        node.life.uploader.newest = raw.index().or(node.life.uploader.newest);
        if node.life.bridge.counters().malformed > refused {
            self.trace.event(self.now_us, place, "malformed", 0);
            self.demand(raw.flaw.is_some(), || format!("P8: {raw:?} was called malformed"));
            self.judged(place, opinion);
            self.defer(place, ticket);
            self.collect(place, effects);
            return;
        }
        let seq = node.life.bridge.memory(now).seq;
        self.trace.event(self.now_us, place, "report", seq);
        self.demand(raw.flaw.is_none(), || format!("P6: {raw:?} was not called malformed"));
        self.demand(seq > before, || format!("P7: report {seq} follows report {before}"));
        let is_fillable = opinion.exportable && raw.parts.is_some();
        let (lines, is_distrusted) = self.expected_lines(place, opinion, is_fillable);
        let node = &mut self.nodes[place];
        if is_distrusted {
            let closed = node.life.oracle.distrust(self.now_us);
            // The gate has opened for this report and closes with it: a closing as any other.
            node.life.uploader.may_revoke |= closed.closes;
            opinion = Opinion { closes: opinion.closes || closed.closes, ..closed };
        }
        node.life.last_seq = seq;
        node.life.made.insert(
            seq,
            Made {
                exportable: is_fillable,
                wall_ms: now.wall.unix_ms(),
                di: raw.formula().unwrap_or(f64::MAX),
                key_id: RINGS[node.ring].1,
            },
        );
        let bound = node.identity.reply_timeout
            + if opinion.closes { node.live.barrier_timeout } else { std::time::Duration::ZERO };
        let until_us = self.now_us + u64::try_from(bound.as_micros()).expect("short");
        let owed = Owed { seq, until_us, closes: opinion.closes, band: opinion.band, lines };
        node.life.owed.insert(ticket, owed);
        self.tally.reports += 1;
        self.judged(place, opinion);
        self.collect(place, effects);
    }

    /// The newest report once more: nothing moves, and the answer is the first one's.
    fn retry(&mut self, place: usize, raw: &RawReport) {
        self.tick(place);
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let ticket = node.life.ticket();
        let view = |life: &crate::node::Life| {
            let counters = life.bridge.counters();
            let seq = life.bridge.memory(now).seq;
            (seq, life.bridge.band(), counters.reports, counters.transitions)
        };
        let (before, retries) = (view(&node.life), node.life.bridge.counters().retries);
        let effects = node.life.bridge.report(now, ticket, &raw.to_json(), None);
        let is_still =
            view(&node.life) == before && node.life.bridge.counters().retries == retries + 1;
        let seq = node.life.last_seq;
        self.trace.event(self.now_us, place, "retry", seq);
        self.tally.retries += 1;
        self.demand(is_still, || "P8: a retry moves something".to_owned());
        self.defer(place, ticket);
        self.collect(place, effects);
    }

    /// Books an opinion and holds the bridge against it (P3, P6).
    pub(crate) fn judged(&mut self, place: usize, opinion: Opinion) {
        self.book(place, opinion);
        let now = self.nodes[place].clock(self.now_us);
        let life = &self.nodes[place].life;
        let (band, safety) = (life.bridge.band(), life.bridge.safety(now));
        self.demand(band == opinion.band, || {
            let (table, why) = (opinion.band, safety.reasons);
            format!("P3: the bridge is {band} for {why:?} where the table says {table}")
        });
    }

    fn book(&mut self, place: usize, opinion: Opinion) {
        self.doom(place, opinion);
        let life = &mut self.nodes[place].life;
        if opinion.closes {
            life.closed_through = life.closed_through.max(life.last_seq);
            life.is_closing = true;
            self.tally.closings += 1;
        }
    }

    /// An order, and what could not be read, is answered when the closing has ended.
    fn defer(&mut self, place: usize, ticket: Ticket) {
        let life = &mut self.nodes[place].life;
        life.deferred.insert(ticket, (self.now_us, life.is_closing));
    }

    fn check_state(&mut self, place: usize, ticket: Ticket, state: &GateState) {
        let deferred = self.nodes[place].life.deferred.remove(&ticket);
        let waits = deferred.is_some_and(|(_, waits)| waits);
        self.demand(deferred.is_some() && waits == state.barrier.is_some(), || {
            format!("P2: {state:?} answers what waits for a closing: {waits}")
        });
    }

    /// What time alone has done to the gate by now, whichever input the bridge hears of it with.
    fn note_time(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if let Some(opinion) = node.life.oracle.tick(self.now_us, &node.live) {
            self.trace.event(self.now_us, place, "time closes", 0);
            self.book(place, opinion);
        }
    }

    fn tick(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let effects = node.life.bridge.tick(now);
        let opinion = node.life.oracle.tick(self.now_us, &node.live);
        if let Some(opinion) = opinion {
            self.trace.event(self.now_us, place, "time closes", 0);
            self.judged(place, opinion);
        }
        self.heed(place);
        self.collect(place, effects);
    }

    /// Takes what the bridge asks for and judges it at once, before anything is performed.
    pub(crate) fn collect(&mut self, place: usize, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Publish { token, packet, origin } = &effect {
                self.check_emission(place, *token, packet, &origin.envelope);
            } else if let Effect::Phase { seq, is_published, .. } = &effect {
                self.check_frame(place, *seq, *is_published);
            } else if let Effect::Presence(PresenceEffect::Write { bytes, lasting, .. }) = &effect {
                self.check_show(place, bytes, *lasting);
            } else if matches!(effect, Effect::Record(AuditEvent::Barrier(_))) {
                self.check_end_of_closing(place);
            }
            self.nodes[place].life.effects.push_back(effect);
        }
    }

    fn perform(&mut self, place: usize) {
        while let Some(effect) = self.nodes[place].life.effects.pop_front() {
            self.effect(place, effect);
        }
    }

    fn effect(&mut self, place: usize, effect: Effect) {
        match effect {
            Effect::Publish { token, packet, .. } => {
                let key = (packet.seq(), place_of(packet.target()));
                self.nodes[place].disk.doubt(true);
                let life = &mut self.nodes[place].life;
                let packet = life.emitted.get(&key).cloned();
                let is_taken = match (life.link, packet) {
                    (Some(link), Some(packet)) => {
                        self.broker.order(link, Command::Publish { token, packet })
                    }
                    _ => false,
                };
                self.trace.event(self.now_us, place, "publish", token);
                if !is_taken {
                    self.trace.event(self.now_us, place, "not sent", token);
                    self.tally.not_sent += 1;
                    let node = &mut self.nodes[place];
                    let now = node.clock(self.now_us);
                    let effects = node.life.bridge.not_sent(now, token);
                    self.collect(place, effects);
                }
            }
            Effect::Phase { is_published: false, .. } => {}
            Effect::Announce(_)
            | Effect::Declare { .. }
            | Effect::Notify(_)
            | Effect::Phase { .. } => {
                if let Some(link) = self.nodes[place].life.link {
                    self.nodes[place].disk.doubt(true);
                    self.broker.order(link, Command::Notify);
                }
            }
            Effect::Cut => {
                self.nodes[place].runtime.cut();
                self.nodes[place].life.name = Name::default();
                self.order(place, Command::UnsubscribeAll, "cut");
            }
            Effect::Subscribe { pull } => {
                self.order(place, Command::SubscribeAcks, "subscribe");
                self.order(place, Command::Pull(pull), if pull { "pull" } else { "stop pull" });
            }
            Effect::Confirm(id) => self.order(place, Command::Confirm(id), "confirm"),
            Effect::Sever => self.sever(place, "sever"),
            Effect::Record(AuditEvent::Barrier(barrier)) => self.check_closed(place, barrier),
            Effect::Answer { ticket, answer: Answer::Report(reply) } => {
                self.check_answer(place, ticket, &reply);
            }
            Effect::Answer { ticket, answer: Answer::Retry(reply) } => {
                let newest = self.nodes[place].life.last_seq;
                self.demand(reply.seq <= newest, || format!("P8: a retry is answered {reply:?}"));
                let (band, reasons, barrier) = (reply.band, reply.reasons, reply.barrier);
                let waited = self.nodes[place].life.deferred.get(&ticket).map(|(_, waits)| *waits);
                // The first one's barrier stays in its answer.
                let barrier = barrier.filter(|_| waited == Some(true));
                self.check_state(place, ticket, &GateState { band, reasons, barrier });
            }
            Effect::Answer {
                ticket,
                answer: Answer::Refused { state, .. } | Answer::Order(state),
            } => self.check_state(place, ticket, &state),
            Effect::StopUploads { revoke } => self.stop_uploads(place, revoke),
            Effect::SeverUploads => self.sever_uploads(place),
            Effect::Presence(effect) => self.presence(place, effect),
            Effect::Record(_) => {}
        }
    }

    /// A control order; a link that does not take it is severed.
    fn order(&mut self, place: usize, command: Command, what: &'static str) {
        let Some(link) = self.nodes[place].life.link else { return };
        self.trace.event(self.now_us, place, what, link);
        if !self.broker.order(link, command) {
            self.sever(place, "takes no orders");
        }
    }

    pub(crate) fn sever(&mut self, place: usize, why: &'static str) {
        self.trace.event(self.now_us, place, why, self.nodes[place].life.link.unwrap_or(0));
        let pause_us_max = self.random.pick(&PAUSES_US_MAX);
        let pause_us = self.random.below(pause_us_max);
        let node = &mut self.nodes[place];
        if let Some(link) = node.life.link.take() {
            self.broker.drop_connection(&mut self.random, self.now_us, link);
            self.tally.severed += 1;
        }
        node.life.next_attempt_us = self.now_us + pause_us;
        let now = node.clock(self.now_us);
        let effects = node.life.bridge.disconnected(now);
        self.collect(place, effects);
    }

    fn arrival(&mut self, place: usize) {
        let life = &mut self.nodes[place].life;
        let Some(event) = life
            .link
            .and_then(|link| self.broker.connections.get_mut(&link))
            .and_then(|connection| connection.back.pop_front())
        else {
            return;
        };
        let now = self.nodes[place].clock(self.now_us);
        let life = &mut self.nodes[place].life;
        match event {
            Event::Ack { token, outcome } => {
                self.trace.event(self.now_us, place, "acknowledged", token);
                if let (Outcome::Stored { stream_seq, .. }, Some(key)) =
                    (outcome, life.tokens.get(&token))
                {
                    life.stored.entry(*key).or_default().insert(stream_seq);
                }
                let effects = life.bridge.answered(now, token, outcome);
                self.collect(place, effects);
            }
            Event::Echo(id) => {
                self.trace.event(self.now_us, place, "echo", id);
                let effects = life.bridge.confirmed(now, id);
                self.collect(place, effects);
            }
            Event::Inbound(message) => self.receive(place, &message),
            Event::OwnRead(held) => self.name_read(place, held),
            Event::Shown { token, written } => self.shown(place, token, written),
            Event::Put(_) => unreachable!("the uploader has a connection of its own"),
        }
    }

    fn receive(&mut self, place: usize, message: &Message) {
        let letter = self.letter(place, message.genuine.as_deref());
        let (hearing, taken) = self.hearing_in(place, message, &letter);
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let (source, target) = (id_of(message.subject.0), id_of(message.subject.1));
        let subject = (source.as_str(), target.as_str());
        let envelope = letter.header.as_deref();
        let arrival = Arrival { subject, envelope, drift_source: None, bytes: &message.bytes };
        let inbound = node.life.bridge.receive(now, &arrival);
        let heard = match &inbound {
            None => Hearing::Unheard,
            Some(Inbound::Accepted { .. }) => Hearing::Accept,
            Some(Inbound::Redelivered { .. }) => Hearing::Redelivered,
            Some(Inbound::Refused(_)) => Hearing::Refuse,
        };
        self.trace.event(self.now_us, place, heard.word(), message.stream_seq);
        self.tally.heard(heard);
        // A floor from before a restart is a number without its packet: another packet of that
        // number counts as that one, and is not shown.
        let life = &self.nodes[place].life;
        let is_old = !life.accepted.contains_key(&message.subject.0)
            && matches!(&inbound, Some(Inbound::Redelivered { source, seq })
                if life.floors.get(&place_of(source)) == Some(seq));
        self.demand(heard == hearing || (is_old && hearing == Hearing::Refuse), || {
            format!(
                "{}: {heard:?} where {hearing:?} is right: {inbound:?}, {message:?}",
                if hearing == Hearing::Unheard { "P4" } else { "P7" }
            )
        });
        if let Some(Inbound::Accepted { admission, .. }) = &inbound {
            let is_whole = admission.verdict == Ruling::Accept;
            let found = Reading::Take(admission.allowed_use.clone(), is_whole);
            self.tally.narrowed += u64::from(!is_whole);
            self.demand(taken == Some(found), || format!("R69: {admission:?} of {letter:?}"));
        }
        if heard == Hearing::Accept
            && let Some(genuine) = &message.genuine
        {
            let node = &mut self.nodes[place];
            let older = node.life.floors.insert(genuine.source, genuine.seq);
            if older.is_some_and(|older| older > now.wall.unix_us() + DAY_US) {
                // The limit of the promise: it takes what it may have taken before.
                node.runtime.taken.remove(&genuine.source);
            }
            node.life.accepted.insert(genuine.source, (genuine.seq, genuine.wall_ms));
        }
        match inbound {
            None => {}
            Some(Inbound::Accepted { source, seq, .. }) => {
                let source = place_of(&source);
                self.nodes[place].disk.floor(source, seq);
                self.hand_on(place, source, seq, message.stream_seq);
            }
            Some(Inbound::Redelivered { source, seq })
                if self.nodes[place].life.bridge.peer_state(now, &source).is_some() =>
            {
                self.hand_on(place, place_of(&source), seq, message.stream_seq);
            }
            Some(Inbound::Redelivered { .. } | Inbound::Refused(_)) => {
                self.acknowledge(place, message.stream_seq);
            }
        }
    }
}
