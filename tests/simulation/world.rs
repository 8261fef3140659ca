//! Time, chance, and the steps that move things on when nothing goes wrong.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use driftgate::protocol::drift::Provenance;
use driftgate::protocol::gate::Band;

use crate::broker::{Broker, Command, Mood, Packet, Processed};
use crate::driver::Input;
use crate::node::{Node, Parts};
use crate::random::Random;
use crate::report::RawReport;
use crate::tally::Tally;
use crate::trace::Trace;

/// Steps that a run may take to come to rest once everything is well again.
const CALM_STEPS_MAX: u32 = 20_000;
/// Bounds that are costly to look at are looked at this often, in steps.
const SIZES_EVERY: u64 = 64;

pub(crate) struct World<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) random: Random,
    /// The dice of what is put around packets.
    pub(crate) letters: Random,
    pub(crate) now_us: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) broker: Broker,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    /// Packets of the past, for those who replay and change them.
    pub(crate) archive: VecDeque<Rc<Packet>>,
    /// How many reports in a thousand are not simply good.
    trouble: u64,
    /// How many steps in a thousand are faults.
    faults: u64,
    /// Nothing new happens any more.
    is_calm: bool,
}

/// What moves on in one step.
#[derive(Clone, Copy, Debug)]
enum Move {
    Report,
    Burst,
    Leave,
    Process,
    ReleaseAck,
    Deliver,
    Arrive,
    Connect,
    Upload,
    Runtime,
}

const MOVES: [(u64, Move); 10] = [
    (20, Move::Report),
    (2, Move::Burst),
    (60, Move::Leave),
    (80, Move::Process),
    (40, Move::ReleaseAck),
    (40, Move::Deliver),
    (90, Move::Arrive),
    (30, Move::Connect),
    (40, Move::Upload),
    (40, Move::Runtime),
];

impl<'a> World<'a> {
    pub(crate) fn new(parts: &'a Parts, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = random.pick(&[3, 3, 4, 5, 6]);
        let nodes = (0..count).map(|place| Node::new(parts, &mut random, place, count)).collect();
        let trouble = random.pick(&[60, 250, 250, 450]);
        let faults = random.pick(&[0, 10, 30, 80]);
        Self {
            parts,
            letters: Random::new(!seed),
            random,
            now_us: 1,
            nodes,
            broker: Broker::new(count),
            trace: Trace::new(),
            tally: Tally::default(),
            archive: VecDeque::new(),
            trouble,
            faults,
            is_calm: false,
        }
    }

    /// Runs until a promise is broken or the steps are used up, then until everything is at rest.
    pub(crate) fn run(&mut self, steps: u64) {
        while self.tally.steps < steps && self.trace.violation.is_none() {
            self.step();
        }
        if self.trace.violation.is_none() {
            self.come_to_rest();
        }
    }

    fn step(&mut self) {
        self.tally.steps += 1;
        if self.tally.steps.is_multiple_of(SIZES_EVERY) {
            let place = self.random.index(self.nodes.len());
            self.check_sizes(place);
        }
        let (odds, span_us) = (self.random.below(2000), self.random.next());
        let pass_us = match odds {
            0 => span_us % 200_000_000,
            1..=8 => span_us % 3_000_000,
            9..=200 => span_us % 20_000,
            _ => span_us % 200,
        };
        if self.pass(pass_us) {
            return;
        }
        if self.random.in_thousand(self.faults) {
            self.fault();
            return;
        }
        // A move that is impossible now is not a step.
        for _ in 0..16 {
            let next = self.random.weighted(&MOVES);
            if self.advance(next) {
                return;
            }
        }
    }

    /// Lets time pass, up to the next moment at which a bridge wants to be woken; `true` when there
    /// was one.
    pub(crate) fn pass(&mut self, pass_us: u64) -> bool {
        let until_us = self.now_us + pass_us;
        let wakes = self.nodes.iter().enumerate().map(|(place, node)| (node.life.wake_us, place));
        let (wake_us, place) = wakes.min().expect("there are nodes");
        if wake_us > until_us {
            self.now_us = until_us;
            return false;
        }
        self.now_us = self.now_us.max(wake_us);
        self.broker.forget_idle(self.now_us);
        self.turn(place, Vec::new());
        true
    }

    fn advance(&mut self, next: Move) -> bool {
        match next {
            Move::Report => self.report_next(1),
            Move::Burst => {
                let reports = self.random.between(2, 5);
                self.report_next(reports)
            }
            Move::Leave => self.leave(),
            Move::Process => self.process(),
            Move::ReleaseAck => {
                let link = self.pick_connection(|connection| connection.is_held);
                link.is_some_and(|link| self.broker.release_ack(&mut self.random, link))
            }
            Move::Deliver => {
                let link = self.pick_connection(|connection| connection.pulls);
                !self.broker.is_stalled(self.now_us)
                    && link.is_some_and(|link| self.broker.deliver(self.now_us, link))
            }
            Move::Arrive => self.arrive(),
            Move::Connect => self.connect(),
            Move::Upload => self.upload(self.is_calm),
            Move::Runtime => self.runtime(),
        }
    }

    /// A runtime reports, now and then several times before its sidecar has turned.
    fn report_next(&mut self, reports: u64) -> bool {
        let place = self.random.index(self.nodes.len());
        let mut inputs = Vec::new();
        for _ in 0..reports {
            inputs.push(self.next_report(place));
        }
        if self.random.in_thousand(100) {
            inputs.push(Input::Arrival);
        }
        if self.random.in_thousand(3) && self.nodes[place].life.link.is_some() {
            inputs.push(Input::Gone);
        }
        self.turn(place, inputs);
        true
    }

    pub(crate) fn next_report(&mut self, place: usize) -> Input {
        let node = &mut self.nodes[place];
        let random = &mut self.random;
        if let Some(report) = node.last_report.as_ref().filter(|_| random.in_thousand(20)) {
            return Input::Report(report.clone());
        }
        // 2 % repeat the last cycle, 1 % fall back by some.
        match random.below(100) {
            0 | 1 => {}
            2 => node.cycle = node.cycle.saturating_sub(3),
            _ => node.cycle += 1,
        }
        // Now and then a number is missing.
        let cycle = (node.has_cycles && !random.in_thousand(20)).then_some(node.cycle);
        if random.in_thousand(5) {
            return Input::Unreadable;
        }
        if node.weak_reports > 0 {
            node.weak_reports -= 1;
            return Input::Report(RawReport::weak(random, cycle));
        }
        let mut report = RawReport::random(random, cycle, self.trouble);
        // Where a bare index is evidence it comes often: it opens the gate and offers no packet, so
        // what lies in a lane is not superseded by the report that reopens.
        let counts = node.live.policy.accept == Provenance::Reported && report.flaw.is_none();
        if counts && random.in_thousand(400) {
            report.make_bare();
        }
        node.last_report = Some(report.clone());
        Input::Report(report)
    }

    fn pick_connection(
        &mut self,
        is_wanted: impl Fn(&crate::broker::Connection) -> bool,
    ) -> Option<u64> {
        let now_us = self.now_us;
        let wanted = |connection: &crate::broker::Connection| {
            connection.frozen_until_us <= now_us && is_wanted(connection)
        };
        let connections = &self.broker.connections;
        let count = connections.values().filter(|connection| wanted(connection)).count();
        let place = self.random.index(count);
        let mut found = connections.iter().filter(|(_, connection)| wanted(connection));
        found.nth(place).map(|(id, _)| *id)
    }

    /// Commands leave our side. Also onto a frozen wire: the kernel takes them.
    fn leave(&mut self) -> bool {
        let place = self.random.index(self.nodes.len());
        let life = &self.nodes[place].life;
        let is_upload = life.uploader.link.is_some() && self.random.in_thousand(400);
        let link = if is_upload { life.uploader.link } else { life.link };
        let Some(link) = link.filter(|link| {
            self.broker.connections.get(link).is_some_and(|connection| !connection.queue.is_empty())
        }) else {
            return false;
        };
        let count = self.random.between(1, 6);
        for _ in 0..count {
            let connection = self.broker.connections.get_mut(&link).expect("it is there");
            let Some(command) = connection.queue.pop_front() else { break };
            connection.wire.push_back(command.clone());
            if let Command::Publish { packet, .. } = command {
                self.check_leaving(&packet);
            }
        }
        true
    }

    /// The broker processes what has reached it on one connection.
    fn process(&mut self) -> bool {
        if self.broker.is_stalled(self.now_us) {
            return false;
        }
        let Some(id) = self.pick_connection(|connection| !connection.wire.is_empty()) else {
            return false;
        };
        let count = self.random.between(1, 6);
        for _ in 0..count {
            match self.broker.process(&mut self.random, self.now_us, id) {
                Some(Some(Processed::Packet(packet))) => self.check_processed(&packet),
                Some(Some(Processed::Put { node, seq })) => self.check_put(node, seq),
                Some(Some(Processed::Shown)) => self.tally.shown += 1,
                Some(None) => {}
                None => break,
            }
        }
        true
    }

    fn arrive(&mut self) -> bool {
        let link =
            self.pick_connection(|connection| !connection.is_upload && !connection.back.is_empty());
        let Some(connection) = link.and_then(|link| self.broker.connections.get(&link)) else {
            return false;
        };
        let place = connection.node;
        let mut inputs = Vec::new();
        for _ in 0..self.random.between(1, 3) {
            inputs.push(Input::Arrival);
        }
        // A report may be waiting beside what has arrived.
        if !self.is_calm && self.random.in_thousand(30) {
            let report = self.next_report(place);
            inputs.insert(0, report);
        }
        self.turn(place, inputs);
        true
    }

    fn connect(&mut self) -> bool {
        let place = self.random.index(self.nodes.len());
        let life = &self.nodes[place].life;
        let is_possible = life.link.is_none()
            && life.next_attempt_us <= self.now_us
            && !self.broker.is_stalled(self.now_us);
        if is_possible {
            self.turn(place, vec![Input::Up]);
        }
        is_possible
    }

    /// Everything is well again and the runtimes report nothing but good: every gate reopens, every
    /// packet ends, every reply goes (P3, P8).
    fn come_to_rest(&mut self) {
        self.is_calm = true;
        self.broker.mood = Mood::Well;
        self.broker.mood_until_us = u64::MAX;
        self.broker.stalled_until_us = 0;
        for place in 0..self.nodes.len() {
            let mut settings = self.nodes[place].live.clone();
            settings.policy.dwell = 1;
            settings.policy.flapping = None;
            settings.stale_after = Duration::from_secs(3600);
            settings.silence_isolates_after = None;
            let mut inputs = vec![Input::Reload(Box::new(settings), 0), Input::Hold(false)];
            if self.nodes[place].identity.life.is_none() {
                inputs.push(Input::Fence(false));
            }
            self.turn(place, inputs);
        }
        for link in self.broker.connections.values_mut() {
            link.frozen_until_us = 0;
        }
        self.forget_twins();
        for place in 0..self.nodes.len() {
            let mut inputs = Vec::new();
            let node = &mut self.nodes[place];
            node.runtime.calm();
            node.cycle = 1_000_000_000;
            for _ in 0..2 {
                node.cycle += 1;
                let cycle = node.has_cycles.then_some(node.cycle);
                let report = RawReport::of_index(&mut self.random, cycle, 0.1);
                inputs.push(Input::Report(report));
            }
            self.turn(place, inputs);
        }
        for _ in 0..CALM_STEPS_MAX {
            let is_open = |node: &Node| {
                let life = &node.life;
                life.link.is_some()
                    && life.bridge.is_idle()
                    && life.owed.is_empty()
                    && node.runtime.is_idle()
            };
            let is_uploaded = (0..self.nodes.len()).all(|place| self.is_uploaded(place));
            if (is_uploaded && self.nodes.iter().all(is_open)) || self.trace.violation.is_some() {
                break;
            }
            if self.pass(300) {
                continue;
            }
            self.settle();
        }
        self.check_rest();
    }

    /// One step of what goes well.
    pub(crate) fn settle(&mut self) {
        let next = self.random.pick(&[
            Move::Leave,
            Move::Process,
            Move::ReleaseAck,
            Move::Arrive,
            Move::Connect,
            Move::Upload,
            Move::Runtime,
        ]);
        // What piled up while time was passed goes at once.
        let times = if matches!(next, Move::ReleaseAck | Move::Arrive) { 16 } else { 1 };
        for _ in 0..times {
            self.advance(next);
        }
    }

    fn check_rest(&mut self) {
        for place in 0..self.nodes.len() {
            let life = &self.nodes[place].life;
            let is_well = life.bridge.band() == Band::Open
                && self.nodes[place].runtime.is_idle()
                && life.bridge.is_idle()
                && life.owed.is_empty()
                && life.bridge.ledgers().all(|(_, ledger)| ledger.pending == 0);
            let safety = life.bridge.safety(self.nodes[place].clock(self.now_us));
            let owed = life.owed.len();
            let is_idle = life.bridge.is_idle();
            let is_delivered = self.nodes[place].runtime.is_idle();
            let pending: Vec<_> = life.bridge.ledgers().map(|(_, ledger)| ledger.pending).collect();
            let is_uploaded = self.is_uploaded(place);
            self.demand(is_uploaded, || format!("P8: n{place} keeps an accepted snapshot"));
            self.demand(is_well, || {
                let idle = (is_idle, is_delivered, pending);
                format!("P8: n{place} does not come to rest, {owed} replies are open, {idle:?}: {safety:?}")
            });
        }
    }
}
