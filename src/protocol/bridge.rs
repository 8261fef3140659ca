//! The composed machine: reports, broker answers and ticks in, effects and replies out.
//!
//! It owns nothing outside itself. `now` is an argument of every input; what is to be done comes
//! back as [`Effect`]s, in the order in which it has to be done. The driver does it and reports
//! what happened. There is no other place where anything is decided.
//!
//! The methods are of four kinds:
//! - **Inputs** tell what happened, and return what is to be done: [`Bridge::report`],
//!   [`Bridge::unreadable`], [`Bridge::hold`], [`Bridge::reload`], [`Bridge::fence`] and
//!   [`Bridge::tick`] from this side; [`Bridge::connected`], [`Bridge::disconnected`],
//!   [`Bridge::answered`], [`Bridge::not_sent`], [`Bridge::confirmed`] and
//!   [`Bridge::peer_capabilities`] from the broker; [`Bridge::recovered`], [`Bridge::stored`],
//!   [`Bridge::uploads_quiet`] and [`Bridge::uploads_unread`] from the snapshots.
//! - **Questions** are answered at once, and the answer counts as used: [`Bridge::receive`] for a
//!   packet that came in, [`Bridge::grant_push`], [`Bridge::grant_upload`] and
//!   [`Bridge::grant_fetch`] for a snapshot.
//! - **Timers**: [`Bridge::deadline`] says when [`Bridge::tick`] is due at the latest, and
//!   [`Bridge::is_overdue`] that nothing may be done before it.
//! - **Views** change nothing: [`Bridge::safety`], [`Bridge::field_state`], [`Bridge::memory`] and
//!   the rest.
//!
//! **Order of calls.** All effects of one input are carried out before the next input. Each
//! [`Effect::Publish`] is followed by one `answered` or `not_sent` with its token, or by
//! `disconnected`; [`Effect::Confirm`] by `confirmed`; [`Effect::Sever`] by `disconnected`;
//! [`Effect::StopUploads`] by `uploads_quiet`. A missing one costs time and opens nothing.
//!
//! **Closing.** When the gate closes, what is unsent is revoked, a notice goes out and the broker
//! is asked to echo ([`Effect::Confirm`]); until it has, and every acknowledgement is in, nothing
//! new is sent and the reply waits (P2). Isolation waits for the acknowledgements first, then cuts
//! every subscription and asks for the echo after that (P4). If the bound passes, the connection is
//! severed with its buffer and the reply says `unconfirmed`.
#![doc = include_str!("bridge/example.md")]

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::audit::Event;
use super::canonical::Json;
use super::digest::Digest;
use super::drift::{DriftIndex, DriftParts, Provenance, Vitals};
use super::envelope::Ruling;
use super::exchange::Exchange;
use super::gate::{Band, Mode, Reason, Verdict};
use super::inbox::{Arrival, Inbound, Inbox};
use super::judge::{Judge, Judgement};
use super::outbox::{Ledger, Origin, Outbox, Outcome};
use super::packet::{
    AttractorState, Header, MemorySnapshot, PROTOCOL_VERSION, Payload, Phase, Posture, RuntimeId,
    SafetyFlags,
};
use super::profile::{Malformed, ReportedAttractor, StateReport, Translator};
use super::seal::EncodedPayload;
use super::time::{Now, Timestamp};
use super::trace::TraceParent;
use super::view::{
    Barrier, Decision, PacketLine, PacketStatus, PeerState, ReportReply, Ticket, Transition,
};

mod closing;
mod compose;
mod show;
mod fence;
mod handshakes;
mod fingerprint;
mod notice;
mod presence;
mod time;
mod effect;
mod exchanges;
mod reports;
mod retry;
mod sending;
mod settings;
mod telemetry;
mod traces;
mod uploads;
mod views;

pub use super::presence::Fence;
pub use effect::{Announcement, Answer, Effect, GateState};
pub use notice::{Heard, NOTICE_BYTES_MAX, Notice};
pub use presence::{PresenceEffect, Written};
pub use settings::{Identity, Live, Memory};
pub use show::Counters;
pub use traces::{TRACE_TARGETS_MAX, TRACES_MAX, Traced};

/// Transitions kept for `GET /aegida/safety`.
pub const TRANSITIONS_MAX: usize = 32;
/// Answers that may wait for the broker at a time; one more is given at once, its packets
/// `pending`, its barrier `unconfirmed`.
pub const WAITING_MAX: usize = 1024;
/// How long the broker may still come to read what an ended connection had sent: a Linux kernel
/// tries for some 100 s to deliver what a closed socket holds, and a network that parts and heals
/// lets it. An echo on a later connection says nothing about the bytes of an earlier one.
pub const LINGER_MAX: Duration = Duration::from_secs(120);
/// Retention below this withholds the snapshot link.
pub const RETENTION_MIN: f64 = 0.7;

/// An answer that somebody waits for.
#[derive(Clone, Debug)]
struct Waiting {
    answer: Answer,
    /// Packets without a final status.
    open: usize,
    deadline: Duration,
    /// Waits for the closing, whatever its packets do.
    closing: bool,
    /// Whose report this only repeats.
    repeats: Option<Ticket>,
}

/// What brought a verdict about.
#[derive(Clone, Debug, Default)]
struct Cause {
    cycle: Option<u64>,
    di: Option<DriftIndex>,
    /// The report's sequence number and the provenance of its metrics.
    report: Option<(u64, Provenance)>,
    /// The trace that it came within.
    trace: Option<TraceParent>,
}

/// The connection to the broker, and the subscriptions of ours that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Connection {
    /// There is none.
    Down,
    /// No subscription: isolated, or not asked for yet.
    Bare,
    /// Acknowledgements arrive.
    Acks,
    /// Acknowledgements and inbound packets arrive.
    Pull,
}

/// How far a closing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Waits for acknowledgements, until then: a cut takes their subscription away.
    Settling(Duration),
    /// The broker was asked to echo this number.
    Asked(u64),
    /// It did, or there is no connection that it could echo on.
    Echoed,
}

/// A closing under way.
#[derive(Clone, Debug)]
struct Closing {
    /// Subscriptions have to go too.
    cut: bool,
    step: Step,
    deadline: Duration,
    started: Duration,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Bridge {
    identity: Arc<Identity>,
    live: Arc<Live>,
    translator: Translator,
    judge: Judge,
    outbox: Outbox,
    inbox: Inbox,
    seq: u64,
    connection: Connection,
    /// Until then the broker may still read what was sent on a connection that ended before all of
    /// it was confirmed; no closing is called confirmed before.
    uncertain_until: Duration,
    closing: Option<Closing>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Answers that may have become complete since [`Bridge::collect`] last looked.
    touched: Vec<Ticket>,
    /// The earliest deadline of an answer.
    answer_deadline: Duration,
    last_valid: Duration,
    band_since: Now,
    /// The band of the newest notice.
    notified: Band,
    reasons: Vec<Reason>,
    newest: Newest,
    /// Another sidecar has this runtime's id.
    fence: Option<Fence>,
    presence: Option<presence::Showing>,
    latest: Option<retry::Latest>,
    snapshot_digest: Option<Digest>,
    uploads: uploads::Uploads,
    /// What is exchanged with each peer of which anything is known.
    exchanges: BTreeMap<RuntimeId, Exchange>,
    telemetry: telemetry::Telemetry,
    transitions: VecDeque<Transition>,
    traces: traces::Traces,
    counters: Counters,
    closing_times: Vec<Duration>,
    /// What the call under way asks for; empty between two calls.
    effects: Vec<Effect>,
}

#[derive(Clone, Debug)]
struct Newest {
    cycle: Option<u64>,
    di: Option<DriftIndex>,
    source: Provenance,
    /// The trace that it came within.
    trace: Option<TraceParent>,
    posture: Posture,
    /// Its memory is too weak to be shared.
    withholds_memory: bool,
    parts: Option<DriftParts>,
    vitals: Vitals,
    /// Its attractor, and when it was reported.
    attractor: Option<(ReportedAttractor, Timestamp)>,
}

impl Bridge {
    /// A bridge that has seen nothing: blocked, disconnected.
    #[must_use]
    pub fn new(identity: Identity, live: Live, memory: Memory, now: Now) -> Self {
        let judge = Judge::new(live.policy.clone(), memory.operator_hold);
        let first = if memory.operator_hold { Reason::Operator } else { Reason::Starting };
        Self {
            outbox: Outbox::new(identity.window, identity.ack_timeout),
            inbox: Inbox::new(identity.runtime_id.clone(), memory.floors),
            seq: memory.seq,
            connection: Connection::Down,
            uncertain_until: if memory.in_doubt { now.mono + LINGER_MAX } else { Duration::ZERO },
            closing: None,
            waiting: BTreeMap::new(),
            touched: Vec::new(),
            answer_deadline: Duration::MAX,
            last_valid: now.mono,
            band_since: now,
            notified: judge.gate().band(),
            reasons: vec![first],
            fence: None,
            presence: identity
                .life
                .clone()
                .map(|life| presence::Showing::new(life, memory.instance, now)),
            newest: Newest {
                cycle: None,
                di: None,
                source: Provenance::None,
                trace: None,
                posture: Posture::Unknown,
                withholds_memory: false,
                parts: None,
                vitals: Vitals::default(),
                attractor: None,
            },
            latest: None,
            snapshot_digest: None,
            uploads: uploads::Uploads::new(),
            exchanges: exchanges::remembered(memory.manifests, live.limits().seq_max(now.wall)),
            telemetry: telemetry::Telemetry::default(),
            transitions: VecDeque::new(),
            traces: traces::Traces::default(),
            counters: Counters::default(),
            closing_times: Vec::new(),
            effects: Vec::new(),
            translator: Translator::new(identity.profile.clone()),
            identity: Arc::new(identity),
            live: Arc::new(live),
            judge,
        }
    }

    /// An operator isolates (`true`) or releases (`false`). Release never opens. Its answer is
    /// [`Answer::Order`], when a closing that it begins or finds under way has ended.
    #[must_use]
    pub fn hold(&mut self, now: Now, ticket: Ticket, hold: bool) -> Vec<Effect> {
        self.pass(now);
        if hold != self.judge.gate().operator_hold() || hold {
            let verdict = self.judge.hold(hold);
            self.enter(now, &verdict, Cause::default());
        }
        let state = self.state();
        self.wait(now, ticket, Answer::Order(state), self.closing.is_some());
        self.settle(now)
    }

    /// What the broker said about one attempt.
    #[must_use]
    pub fn answered(&mut self, now: Now, token: u64, outcome: Outcome) -> Vec<Effect> {
        self.pass(now);
        self.outbox.answered(now, token, outcome);
        if self.outbox.is_refused() {
            self.answer_waiting();
        }
        self.settle(now)
    }

    /// The connection could not take a packet (its queue is full).
    #[must_use]
    pub fn not_sent(&mut self, now: Now, token: u64) -> Vec<Effect> {
        self.pass(now);
        self.outbox.not_sent(now.mono, token);
        self.settle(now)
    }

    /// A connection is up. It has no subscriptions yet; the effects say which it gets.
    #[must_use]
    pub fn connected(&mut self, now: Now) -> Vec<Effect> {
        self.pass(now);
        self.connection = Connection::Bare;
        self.settle(now)
    }

    /// The connection and its buffers are gone.
    #[must_use]
    pub fn disconnected(&mut self, now: Now) -> Vec<Effect> {
        self.pass(now);
        if !self.outbox.is_read() {
            self.uncertain_until = now.mono + LINGER_MAX;
        }
        self.connection = Connection::Down;
        self.outbox.disconnected();
        self.answer_waiting();
        self.settle(now)
    }

    /// Something was sent on this connection that the caller keeps the books of, and the broker may
    /// come to read it late.
    pub fn sent(&mut self) {
        self.outbox.stamp();
    }

    /// The broker echoed, so it has read everything up to there.
    #[must_use]
    pub fn confirmed(&mut self, now: Now, id: u64) -> Vec<Effect> {
        self.pass(now);
        self.outbox.read_to(id);
        if let Some(closing) = &mut self.closing
            && closing.step == Step::Asked(id)
        {
            closing.step = Step::Echoed;
        }
        self.settle(now)
    }

    /// One inbound message. Only while something may come in: an isolated bridge answers `None`,
    /// and the message is left on the stream (P4).
    pub fn receive(&mut self, now: Now, arrival: &Arrival<'_>) -> Option<Inbound> {
        if !self.may_receive() || self.is_overdue(now) {
            return None;
        }
        let trust = exchanges::trust(&self.live, &self.exchanges);
        let inbound = self.inbox.receive(now.wall, arrival, &trust);
        match &inbound {
            Inbound::Accepted { admission, .. } => {
                self.counters.accepted += 1;
                self.counters.narrowed += u64::from(admission.verdict == Ruling::Narrow);
                self.counters.enveloped += u64::from(admission.drift_source.is_some());
            }
            Inbound::Redelivered { .. } => self.counters.redelivered += 1,
            Inbound::Refused(_) => {}
        }
        Some(inbound)
    }

    /// Time passed: silence, bands held too long, deadlines.
    #[must_use]
    pub fn tick(&mut self, now: Now) -> Vec<Effect> {
        self.pass(now);
        self.settle(now)
    }

    /// The sequence number that the next report or grant gets. Numbers start from the wall clock in
    /// microseconds and strictly rise, also when the clock steps back and across restarts, for
    /// which the caller keeps on the disk that this one is taken before it is used.
    #[must_use]
    pub fn seq_next(&self, now: Now) -> u64 {
        self.seq.saturating_add(1).max(now.wall.unix_us())
    }

    fn take_seq(&mut self, now: Now) -> u64 {
        self.seq = self.seq_next(now);
        self.seq
    }

    /// Books a verdict: history, notice, and the start of a closing. Returns whether this verdict
    /// closed or cut something, so that its reply has to wait.
    fn enter(&mut self, now: Now, verdict: &Verdict, cause: Cause) -> bool {
        self.reasons.clone_from(&verdict.reasons);
        self.judge_uploads(verdict);
        if verdict.band == verdict.from {
            return false;
        }
        self.band_since = now;
        self.counters.transitions += 1;
        let transition = Transition {
            from: verdict.from,
            to: verdict.band,
            at: now.wall,
            reasons: verdict.reasons.clone(),
            cycle: cause.cycle,
            di: cause.di.map(DriftIndex::value),
            seq: cause.report.map(|(seq, _)| seq),
            drift_source: cause.report.map_or(Provenance::None, |(_, source)| source).word(),
            trace_id: cause.trace.map(|trace| trace.trace_id().to_owned()),
        };
        self.transitions.push_back(transition.clone());
        if self.transitions.len() > TRANSITIONS_MAX {
            self.transitions.pop_front();
        }
        self.effects.push(Effect::Record(Event::Transition(transition)));
        let closes = verdict.band.is_closed() && verdict.band > verdict.from;
        if closes {
            self.outbox.revoke(cause.report.map_or(self.seq, |(seq, _)| seq));
        }
        let cut = verdict.band == Band::Isolated;
        match &self.closing {
            None => {
                self.notify(now);
                if closes {
                    self.start_closing(now, cut, now.mono);
                }
            }
            // Isolation on top of a block: the cut needs an echo of its own.
            Some(closing) if closes && cut && !closing.cut => {
                let started = closing.started;
                self.notify(now);
                self.start_closing(now, cut, started);
            }
            // Nothing has been sent since the closing began, so its echo serves this verdict too.
            Some(_) => {}
        }
        closes
    }

    /// Whether anything inbound may reach the runtime now.
    #[must_use]
    pub fn may_receive(&self) -> bool {
        if self.identity.mode == Mode::Shadow {
            return false;
        }
        match self.judge.gate().band() {
            Band::Open | Band::Caution => true,
            Band::Blocked => !self.live.blocked_inbound_hold,
            Band::Isolated => false,
        }
    }

    /// Brings everything that follows from the state up to date: the closing, subscriptions,
    /// packets that may go, answers that are complete. Returns all that is to be done.
    fn settle(&mut self, now: Now) -> Vec<Effect> {
        loop {
            self.advance_closing(now);
            self.subscribe();
            self.present(now);
            if self.send(now) {
                break;
            }
        }
        self.collect(now);
        core::mem::take(&mut self.effects)
    }

    /// Subscriptions follow the band, except while a closing is under way.
    fn subscribe(&mut self) {
        let is_isolated = self.judge.gate().band() == Band::Isolated;
        if self.connection == Connection::Down || self.closing.is_some() || is_isolated {
            return;
        }
        let pull = self.may_receive();
        let wanted = if pull { Connection::Pull } else { Connection::Acks };
        if self.connection != wanted {
            if self.connection == Connection::Bare {
                self.begin_showing();
            }
            self.connection = wanted;
            self.effects.push(Effect::Subscribe { pull });
        }
    }
}
