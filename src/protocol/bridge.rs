//! The composed machine: reports, broker answers and ticks in, effects and replies out.
//!
//! It owns nothing outside itself. `now` is an argument of every input; what is to be done comes
//! back as [`Effect`]s, in the order in which it has to be done. The driver does it and reports
//! what happened. There is no other place where anything is decided.
//!
//! **Closing.** When the gate closes, what is unsent is revoked, a notice goes out and the broker
//! is asked to echo ([`Effect::Confirm`]); until it has, and every acknowledgement is in, nothing
//! new is sent and the reply waits (P2). Isolation waits for the acknowledgements first, then cuts
//! every subscription and asks for the echo after that (P4). If the bound passes, the connection is
//! severed with its buffer and the reply says `unconfirmed`.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::canonical::Json;
use super::drift::{DriftIndex, Provenance};
use super::gate::{Band, Reason, Verdict};
use super::inbox::{Inbound, InboundLimits, Inbox};
use super::judge::{Judge, Judgement};
use super::outbox::{Ledger, Origin, Outbox, Outcome};
use super::packet::{
    AttractorState, Header, MemorySnapshot, PROTOCOL_VERSION, Payload, Phase, Posture, RuntimeId,
    SafetyFlags,
};
use super::profile::{Malformed, StateReport, Translator};
use super::seal::{EncodedPayload, Keyring};
use super::time::{Now, Timestamp};
use super::trace::TraceParent;
use super::view::{
    Barrier, Decision, EnvelopeView, FieldState, PacketLine, PacketStatus, PeerState, ReportReply,
    SafetyView, ThresholdsView, Transition,
};

mod closing;
mod compose;
mod show;
mod effect;
mod settings;
mod uploads;

pub use effect::{Effect, Notice};
pub use settings::{Memory, Settings};
pub use show::Counters;

/// Transitions kept for `GET /aegida/safety`.
pub const TRANSITIONS_MAX: usize = 32;
/// Replies that may wait for the broker at a time; one more report is answered at once, its packets
/// `pending`.
pub const OPEN_REPLIES_MAX: usize = 1024;
/// How long the broker may still come to read what an ended connection had sent: a Linux kernel
/// tries for some 100 s to deliver what a closed socket holds, and a network that parts and heals
/// lets it. An echo on a later connection says nothing about the bytes of an earlier one.
pub const LINGER_MAX: Duration = Duration::from_secs(120);
/// Retention below this withholds the snapshot link (SPEC R43).
pub const RETENTION_MIN: f64 = 0.7;

#[derive(Debug)]
struct OpenReply {
    reply: ReportReply,
    /// Packets without a final status.
    open: usize,
    deadline: Duration,
    /// Waits for the closing, whatever its packets do.
    closing: bool,
}

/// What brought a verdict about.
#[derive(Clone, Copy, Debug, Default)]
struct Cause {
    cycle: Option<u64>,
    di: Option<DriftIndex>,
    /// The report's sequence number and the provenance of its metrics.
    report: Option<(u64, Provenance)>,
}

/// A closing under way.
#[derive(Debug)]
struct Closing {
    id: u64,
    /// Subscriptions have to go too.
    cut: bool,
    /// The echo was asked for.
    asked: bool,
    echoed: bool,
    /// The acknowledgements' part of the bound.
    acks_until: Duration,
    deadline: Duration,
    started: Duration,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Bridge {
    settings: Settings,
    keyring: Keyring,
    translator: Translator,
    judge: Judge,
    outbox: Outbox,
    inbox: Inbox,
    seq: u64,
    connected: bool,
    /// Until then the broker may still read what was sent on a connection that ended before all of
    /// it was confirmed; no closing is called confirmed before.
    uncertain_until: Duration,
    /// Whether the broker holds subscriptions of ours on this connection.
    subscribed: bool,
    pulling: bool,
    closing: Option<Closing>,
    next_closing: u64,
    open_replies: BTreeMap<u64, OpenReply>,
    /// Replies that may have become complete since [`Bridge::collect`] last looked.
    touched: Vec<u64>,
    /// The earliest deadline of an open reply.
    reply_deadline: Duration,
    last_valid: Duration,
    band_since: Now,
    /// The band of the newest notice.
    notified: Band,
    reasons: Vec<Reason>,
    newest: Newest,
    snapshot_digest: Option<String>,
    uploads: uploads::Uploads,
    transitions: VecDeque<Transition>,
    counters: Counters,
    closing_times: Vec<Duration>,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Newest {
    cycle: Option<u64>,
    di: Option<DriftIndex>,
    source: &'static str,
    posture: Posture,
}

impl Bridge {
    /// A bridge that has seen nothing: blocked, disconnected.
    #[must_use]
    pub fn new(
        settings: Settings,
        keyring: Keyring,
        translator: Translator,
        memory: Memory,
        now: Now,
    ) -> Self {
        let judge = Judge::new(settings.policy.clone(), memory.operator_hold);
        let first = if memory.operator_hold { Reason::Operator } else { Reason::Starting };
        Self {
            outbox: Outbox::new(settings.window, settings.ack_timeout),
            inbox: Inbox::new(settings.runtime_id.clone(), memory.floors),
            seq: memory.seq,
            connected: false,
            uncertain_until: Duration::ZERO,
            subscribed: false,
            pulling: false,
            closing: None,
            next_closing: 1,
            open_replies: BTreeMap::new(),
            touched: Vec::new(),
            reply_deadline: Duration::MAX,
            last_valid: now.mono,
            band_since: now,
            notified: judge.gate().band(),
            reasons: vec![first],
            newest: Newest { cycle: None, di: None, source: "none", posture: Posture::Unknown },
            snapshot_digest: None,
            uploads: uploads::Uploads::Idle,
            transitions: VecDeque::new(),
            counters: Counters::default(),
            closing_times: Vec::new(),
            effects: Vec::new(),
            settings,
            keyring,
            translator,
            judge,
        }
    }

    /// Effects of the calls so far, in the order in which they have to be done.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.effects)
    }

    /// One report of the runtime. Returns its sequence number; the reply follows as
    /// [`Effect::Answer`], at once or when the broker has spoken.
    ///
    /// # Errors
    /// [`Malformed`], the runtime's fault. The gate is closed by it, the error is the answer.
    pub fn report(&mut self, now: Now, document: &Json) -> Result<u64, Malformed> {
        self.report_traced(now, document, None)
    }

    /// [`Self::report`] within the trace that the report came with.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn report_traced(
        &mut self,
        now: Now,
        document: &Json,
        trace: Option<TraceParent>,
    ) -> Result<u64, Malformed> {
        let report = match self.translator.translate(document) {
            Ok(report) => report,
            Err(malformed) => {
                self.malformed(now);
                return Err(malformed);
            }
        };
        self.counters.reports += 1;
        let seq = self.next_seq(now.wall);
        let judgement = self.judge.report(&report);
        self.newest = Newest {
            cycle: report.cycle,
            di: judgement.di,
            source: report.drift.provenance.word(),
            posture: report.posture,
        };
        if report.untrusted.is_none() {
            self.last_valid = now.mono;
        }
        let cause = Cause {
            cycle: judgement.cycle,
            di: judgement.di,
            report: Some((seq, report.drift.provenance)),
        };
        let mut closes = self.enter(now, &judgement.verdict, cause);
        let mut reply = self.compose(now, seq, &report, &judgement, trace);
        if reply.reasons.contains(&Reason::InspectionFailed) {
            // A packet that the gate let through and the inspection did not: something is wrong
            // with one of the two, so nothing more goes out (P6).
            let verdict = self.judge.tighten(Band::Blocked, Reason::InspectionFailed);
            closes |= self.enter(now, &verdict, cause);
            reply.band = verdict.band;
            reply.verdict = Decision::Block;
        }
        self.hold_reply(now, seq, reply, closes);
        self.settle(now);
        Ok(seq)
    }

    /// A report that is not even a document, or breaks its profile: it can close, never open.
    pub fn malformed(&mut self, now: Now) {
        self.counters.malformed += 1;
        let judgement = self.judge.malformed();
        self.enter(now, &judgement.verdict, Cause::default());
        self.settle(now);
    }

    /// An operator isolates (`true`) or releases (`false`). Release never opens.
    pub fn hold(&mut self, now: Now, hold: bool) {
        let verdict = self.judge.hold(hold);
        self.enter(now, &verdict, Cause::default());
        self.settle(now);
    }

    /// What the broker said about one attempt.
    pub fn answered(&mut self, now: Now, token: u64, outcome: Outcome) {
        self.outbox.answered(now.mono, token, outcome);
        self.settle(now);
    }

    /// The connection could not take a packet (its queue is full).
    pub fn not_sent(&mut self, now: Now, token: u64) {
        self.outbox.not_sent(now.mono, token);
        self.settle(now);
    }

    /// A connection is up. It has no subscriptions yet; the effects say which it gets.
    pub fn connected(&mut self, now: Now) {
        self.connected = true;
        self.subscribed = false;
        self.pulling = false;
        self.settle(now);
    }

    /// The connection and its buffers are gone.
    pub fn disconnected(&mut self, now: Now) {
        if !self.outbox.is_read() || self.closing.as_ref().is_some_and(|closing| !closing.echoed) {
            self.uncertain_until = now.mono + LINGER_MAX;
        }
        self.connected = false;
        self.subscribed = false;
        self.pulling = false;
        self.outbox.disconnected();
        self.answer_waiting();
        self.settle(now);
    }

    /// The broker echoed.
    pub fn confirmed(&mut self, now: Now, id: u64) {
        if let Some(closing) = self.closing.as_mut().filter(|closing| closing.id == id) {
            closing.echoed = true;
        }
        self.settle(now);
    }

    /// One inbound message with the ids of its subject. Only while something may come in: an
    /// isolated bridge answers `None`, and the message is left on the stream (P4).
    pub fn receive(&mut self, now: Now, subject: (&str, &str), bytes: &[u8]) -> Option<Inbound> {
        if !self.may_receive() {
            return None;
        }
        let limits = InboundLimits {
            packet_max_age: self.settings.packet_max_age,
            clock_skew_max: self.settings.clock_skew_max,
            block: self.settings.policy.thresholds.block,
        };
        let inbound = self.inbox.receive(
            now.wall,
            subject,
            bytes,
            &self.keyring,
            &self.settings.peers,
            &limits,
        );
        match &inbound {
            Inbound::Accepted { .. } => self.counters.accepted += 1,
            Inbound::Redelivered { .. } => self.counters.redelivered += 1,
            Inbound::Refused(_) => {}
        }
        Some(inbound)
    }

    /// Time passed: silence, bands held too long, deadlines.
    pub fn tick(&mut self, now: Now) {
        let silent = now.mono.saturating_sub(self.last_valid);
        let held = now.mono.saturating_sub(self.band_since.mono);
        let over =
            |limit: Option<Duration>, time: Duration| limit.is_some_and(|limit| time >= limit);
        let band = self.judge.gate().band();
        let tightened =
            if band < Band::Isolated && over(self.settings.silence_isolates_after, silent) {
                Some((Band::Isolated, Reason::Silent))
            } else if band == Band::Blocked && over(self.settings.isolate_after, held) {
                Some((Band::Isolated, Reason::BlockedTooLong))
            } else if band < Band::Blocked && silent >= self.settings.stale_after {
                Some((Band::Blocked, Reason::Stale))
            } else {
                None
            };
        if let Some((band, reason)) = tightened {
            let verdict = self.judge.tighten(band, reason);
            self.enter(now, &verdict, Cause::default());
        }
        self.outbox.expire(now.mono);
        self.settle(now);
    }

    /// The next moment at which [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self, now: Now) -> Duration {
        let band = self.judge.gate().band();
        let stale = (band < Band::Blocked).then(|| self.last_valid + self.settings.stale_after);
        let silent = self
            .settings
            .silence_isolates_after
            .filter(|_| band < Band::Isolated)
            .map(|after| self.last_valid + after);
        let held = self
            .settings
            .isolate_after
            .filter(|_| band == Band::Blocked)
            .map(|after| self.band_since.mono + after);
        let closing = self.closing.as_ref().map(|closing| {
            if closing.asked { closing.deadline } else { closing.acks_until.min(closing.deadline) }
        });
        let reply = Some(self.reply_deadline);
        let sending = if self.may_send() { self.outbox.deadline(now.mono) } else { None };
        [stale, silent, held, closing, reply, sending]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::MAX)
    }

    /// New settings and keys take effect with the next input; the gate keeps its state.
    pub fn reload(&mut self, now: Now, settings: Settings, keyring: Keyring) {
        self.judge.set_policy(settings.policy.clone());
        self.settings = settings;
        self.keyring = keyring;
        self.forget_ended(now);
        self.settle(now);
    }

    /// Sequence numbers start from the wall clock in microseconds and strictly rise, also when the
    /// clock steps back and across restarts (DESIGN section 3).
    fn next_seq(&mut self, now: Timestamp) -> u64 {
        self.seq = self.seq.saturating_add(1).max(now.unix_us());
        self.seq
    }

    /// Books a verdict: history, notice, and the start of a closing. Returns whether this verdict
    /// closed or cut something, so that its reply has to wait.
    fn enter(&mut self, now: Now, verdict: &Verdict, cause: Cause) -> bool {
        self.reasons.clone_from(&verdict.reasons);
        self.hold_uploads(now, verdict);
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
        };
        self.transitions.push_back(transition.clone());
        if self.transitions.len() > TRANSITIONS_MAX {
            self.transitions.pop_front();
        }
        self.effects.push(Effect::Record(transition));
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

    fn may_send(&self) -> bool {
        self.connected
            && self.subscribed
            && self.closing.is_none()
            && !self.judge.gate().band().is_closed()
    }

    fn may_receive(&self) -> bool {
        match self.judge.gate().band() {
            Band::Open | Band::Caution => true,
            Band::Blocked => !self.settings.blocked_inbound_hold,
            Band::Isolated => false,
        }
    }

    /// Brings everything that follows from the state up to date: the closing, subscriptions,
    /// packets that may go, replies that are complete.
    fn settle(&mut self, now: Now) {
        self.advance_closing(now);
        self.subscribe();
        while self.may_send() {
            let peers = &self.settings.peers;
            let may_reach = |target: &RuntimeId| {
                peers.get(target).is_some_and(|peer| peer.export_state && peer.is_current(now.wall))
            };
            let Some((token, packet, origin)) = self.outbox.next(now.mono, may_reach) else {
                break;
            };
            self.effects.push(Effect::Publish { token, packet, origin });
        }
        self.collect(now);
    }

    /// Subscriptions follow the band, except while a closing is under way.
    fn subscribe(&mut self) {
        if !self.connected || self.closing.is_some() {
            return;
        }
        if self.judge.gate().band() == Band::Isolated {
            return;
        }
        let pull = self.may_receive();
        if !self.subscribed || pull != self.pulling {
            self.subscribed = true;
            self.pulling = pull;
            self.effects.push(Effect::Subscribe { pull });
        }
    }
}
