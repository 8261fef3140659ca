//! The runtime that packets are delivered to: quick, slow, refusing or away (P4, P7, P10).

use std::collections::BTreeMap;

use driftgate::protocol::delivery::{Miss, REQUESTS_MAX, Rest, Schedule, Start};
use driftgate::protocol::gate::Band;
use driftgate::protocol::packet::RuntimeId;

use crate::broker::Command;
use crate::node::{Node, id_of, place_of};
use crate::world::World;

/// How a runtime treats what is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manners {
    #[default]
    Quick,
    /// Takes 150 ms for each.
    Slow,
    Refusing,
    Away,
}

#[derive(Clone, Debug)]
struct Request {
    source: usize,
    seq: u64,
    done_us: u64,
}

/// A runtime, and what its sidecar hands on to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime {
    schedule: Schedule<u64>,
    pub(crate) manners: Manners,
    /// Requests under way, as the runtime sees them.
    requests: Vec<Request>,
    rests: Vec<(u64, Option<RuntimeId>)>,
    /// Highest number taken, by source.
    pub(crate) taken: BTreeMap<usize, u64>,
}

impl Runtime {
    pub(crate) fn is_idle(&self) -> bool {
        self.schedule.is_idle()
    }

    /// It is well again, and the pauses are over.
    pub(crate) fn calm(&mut self) {
        self.manners = Manners::Quick;
        self.rests.iter_mut().for_each(|(until_us, _)| *until_us = 0);
    }

    /// Its sidecar dies or cuts: the requests end with their connections.
    pub(crate) fn cut(&mut self) {
        self.requests.clear();
        self.rests.clear();
        self.schedule.cut();
    }

    /// The sidecar's side begins anew; the runtime remembers.
    pub(crate) fn forget(&mut self) {
        self.cut();
        self.schedule = Schedule::default();
    }
}

impl World<'_> {
    /// An accepted packet, or the newest one again; `stream_seq` acknowledges it.
    pub(crate) fn hand_on(&mut self, place: usize, source: usize, seq: u64, stream_seq: u64) {
        let runtime = &mut self.nodes[place].runtime;
        if let Some(done) = runtime.schedule.take(id_of(source), seq, stream_seq) {
            self.acknowledge(place, done);
        }
    }

    pub(crate) fn acknowledge(&mut self, place: usize, stream_seq: u64) {
        if let Some(link) = self.nodes[place].life.link
            && stream_seq > 0
        {
            // An acknowledgement that finds the link full is not repeated: the message is.
            self.broker.order(link, Command::Ack(stream_seq));
        }
    }

    /// The end of a turn: what may start, starts.
    pub(crate) fn start_requests(&mut self, place: usize) {
        if !self.nodes[place].life.bridge.may_receive() {
            return;
        }
        loop {
            let now = self.nodes[place].clock(self.now_us);
            let Node { runtime, life, .. } = &mut self.nodes[place];
            let bridge = &life.bridge;
            let start = runtime.schedule.start(|id, seq| bridge.deliverable(now, id, seq));
            match start {
                Some(Start::Request { source, seq, .. }) => {
                    let source = place_of(&source);
                    self.check_request(place, source, seq);
                    let takes_us = match self.nodes[place].runtime.manners {
                        Manners::Slow => 150_000,
                        Manners::Quick | Manners::Refusing | Manners::Away => 300,
                    };
                    let done_us = self.now_us + takes_us;
                    self.tally.requests += 1;
                    self.trace.event(self.now_us, place, "hands on", seq);
                    self.nodes[place].runtime.requests.push(Request { source, seq, done_us });
                }
                Some(Start::GivenUp { reply, .. }) => self.acknowledge(place, reply),
                None => return,
            }
        }
    }

    /// What a request has to be (P4, P7, P10).
    fn check_request(&mut self, place: usize, source: usize, seq: u64) {
        let node = &self.nodes[place];
        let now = node.clock(self.now_us);
        let Node { runtime, life, .. } = node;
        let peer = node.live.peers.get(&id_of(source));
        let is_heard = peer.is_some_and(|peer| peer.import_state && peer.is_current(now.wall));
        let packet = life.accepted.get(&source).filter(|(newest, _)| *newest == seq);
        let max_age = node.live.packet_max_age;
        let is_young = packet.is_some_and(|(_, wall_ms)| {
            let age_ms = now.wall.unix_ms() - wall_ms;
            u64::try_from(age_ms).is_ok_and(|age| u128::from(age) <= max_age.as_millis())
                || age_ms < 0
        });
        let rules = [
            (life.oracle.band != Band::Isolated, "P4: handed on while isolated"),
            (is_heard, "P7: handed on for a source that may not be heard"),
            (packet.is_some(), "P7: handed on though it is not the newest"),
            (is_young, "P7: handed on after it has expired"),
            (
                runtime.taken.get(&source).is_none_or(|taken| *taken < seq),
                "P7: handed on again after it was taken",
            ),
            (
                runtime.requests.iter().all(|request| request.source != source),
                "P10: two requests of one source at once",
            ),
            (runtime.requests.len() < REQUESTS_MAX, "P10: too many requests at once"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, promise)| *promise);
        self.demand(broken.is_none(), || {
            format!("{} (seq {seq} of n{source})", broken.unwrap_or_default())
        });
    }

    /// A request or a pause that is over, of some node.
    pub(crate) fn runtime(&mut self) -> bool {
        let place = self.random.index(self.nodes.len());
        let now_us = self.now_us;
        let runtime = &mut self.nodes[place].runtime;
        if let Some(at) = runtime.rests.iter().position(|(until_us, _)| *until_us <= now_us) {
            let (_, source) = runtime.rests.remove(at);
            runtime.schedule.rested(source);
        } else if let Some(at) = runtime.requests.iter().position(|it| it.done_us <= now_us) {
            self.answer_request(place, at);
        } else {
            return false;
        }
        self.turn(place, Vec::new());
        true
    }

    fn answer_request(&mut self, place: usize, at: usize) {
        let now_us = self.now_us;
        let runtime = &mut self.nodes[place].runtime;
        let Request { source, seq, .. } = runtime.requests.remove(at);
        let outcome = match runtime.manners {
            Manners::Quick | Manners::Slow => Ok(()),
            Manners::Refusing => Err(Miss::Failed),
            Manners::Away => Err(Miss::Absent),
        };
        if outcome.is_ok() {
            runtime.taken.insert(source, seq);
            self.tally.delivered += 1;
        }
        let (reply, rest) = runtime.schedule.answered(id_of(source), outcome);
        if let Some(Rest { source, pause }) = rest {
            let pause_us = u64::try_from(pause.as_micros()).expect("short");
            runtime.rests.push((now_us + pause_us, source));
        }
        self.trace.event(now_us, place, "runtime", u64::from(outcome.is_ok()));
        if let Some(done) = reply {
            self.acknowledge(place, done);
        }
    }
}
