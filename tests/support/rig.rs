//! A bridge with a stepped clock and no world around it.

#![allow(dead_code, reason = "each test file uses its part of the rig")]
#![allow(
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and looks for one kind of effect"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use driftgate::protocol::bridge::{
    Announcement, Answer, Bridge, Effect, Fence, GateState, Identity, Live, Memory,
};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::envelope::Terms;
use driftgate::protocol::exchange::{ModeReason, Offer, SUPPORTED};
use driftgate::protocol::gate::Mode;
use driftgate::protocol::inbox::{Arrival, Inbound, Peer};
use driftgate::protocol::judge::Policy;
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::packet::{AttractorType, RuntimeId};
use driftgate::protocol::seal::Sealed;
use driftgate::protocol::time::{Now, Timestamp};
use driftgate::protocol::view::{ReportReply, Ticket};

/// 2026-01-01T00:00:00Z.
pub(crate) const EPOCH_MS: i64 = 1_767_225_600_000;

pub(crate) fn id(text: &str) -> RuntimeId {
    RuntimeId::new(text).expect("a valid id")
}

pub(crate) fn peer(text: &str) -> Peer {
    Peer {
        id: id(text),
        export_state: true,
        import_state: true,
        export_snapshot: true,
        import_snapshot: true,
        export_telemetry: true,
        import_telemetry: true,
        key_id: None,
        expires: None,
        terms: Terms::default(),
    }
}

/// What a peer offers that does all that we do, in its `seq`th manifest.
pub(crate) fn offer(seq: u64) -> Offer {
    let (digest, versions) = (Digest::of(&seq.to_be_bytes()), vec![SUPPORTED]);
    Offer { seq, digest, versions, state: true, snapshot: true, expires: None }
}

/// What a bridge is started with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) identity: Identity,
    pub(crate) live: Live,
}

pub(crate) fn settings(me: &str, peers: &[&str]) -> Setup {
    let identity = Identity {
        mode: Mode::Enforce,
        runtime_id: id(me),
        profile: driftgate::profiles::load("srip-05").expect("the native profile"),
        attractor_type: Some(AttractorType::Symbolic),
        reply_timeout: Duration::from_secs(2),
        ack_timeout: Duration::from_secs(5),
        window: 256,
        life: None,
    };
    Setup { identity, live: live(peers) }
}

pub(crate) fn live(peers: &[&str]) -> Live {
    Live {
        keyring: keyring(),
        peers: peers.iter().map(|text| (id(text), peer(text))).collect(),
        policy: Policy::default(),
        caution_every: 3,
        caution_blocks: false,
        blocked_inbound_hold: false,
        stale_after: Duration::from_secs(120),
        silence_isolates_after: None,
        isolate_after: None,
        barrier_timeout: Duration::from_secs(2),
        packet_max_age: Duration::from_secs(300),
        clock_skew_max: Duration::from_secs(30),
        manifest: bytes::Bytes::new(),
    }
}

pub(crate) fn keyring() -> Keyring {
    let key = KeyMaterial::hmac_secret(&[7; 32]).expect("32 bytes");
    Keyring::new([("k1".to_owned(), key)], Some("k1")).expect("a ring")
}

/// A native report whose formula index is `di` with coherence 1: all three parts equal `di`, so
/// that no critical mark is passed below 0.45 and the index decides alone up to there.
pub(crate) fn report(cycle: u64, di: f64) -> Json {
    report_in(cycle, di, "stable")
}

/// The same in another phase.
pub(crate) fn report_in(cycle: u64, di: f64, phase: &str) -> Json {
    // Parts that stay under their own critical marks for any index the tests use: the sum is spread
    // as SDI 0.55, SV 0.65, PD 0.45 at most, and coherence shrinks only when that is not enough.
    let sum = 3.0 * di;
    let sdi = sum.min(0.55);
    let sv = (sum - sdi).min(0.65);
    let pd = (sum - sdi - sv).clamp(0.0, 0.45);
    let scr = if di > 0.0 { ((sdi + sv + pd) / (3.0 * di)).min(1.0) } else { 1.0 };
    let text = format!(
        r#"{{"cycle": {cycle},
            "attractor_state": {{"id": "a-1", "type": "symbolic", "stability": 0.91,
                                 "phase": "{phase}", "scr": {scr}}},
            "drift_metrics": {{"sdi": {sdi}, "sv": {sv}, "pd": {pd}, "di": {di}}}}}"#
    );
    Json::parse(text.as_bytes()).expect("a report")
}

/// One bridge and its clock.
pub(crate) struct Rig {
    pub(crate) bridge: Bridge,
    pub(crate) now: Now,
    pub(crate) cycle: u64,
    ticket: u64,
    /// Everything it asked for since the last look.
    pub(crate) effects: Vec<Effect>,
}

impl Rig {
    pub(crate) fn new(settings: Setup) -> Self {
        Self::with(settings, Memory::default())
    }

    pub(crate) fn with(setup: Setup, memory: Memory) -> Self {
        let now = Now { wall: Timestamp::from_unix_ms(EPOCH_MS), mono: Duration::ZERO };
        Self::at(setup, memory, now)
    }

    pub(crate) fn at(Setup { identity, live }: Setup, memory: Memory, now: Now) -> Self {
        let peers: Vec<_> = live.peers.keys().cloned().collect();
        let mut bridge = Bridge::new(identity, live, memory, now);
        for peer in peers {
            assert!(bridge.peer_capabilities(now, &peer, Ok(offer(1))).is_empty());
        }
        Self { bridge, now, cycle: 0, ticket: 0, effects: Vec::new() }
    }

    pub(crate) fn learn(&mut self, peer: &str, found: Result<Offer, ModeReason>) {
        self.note(|bridge, now| bridge.peer_capabilities(now, &id(peer), found));
    }

    /// Connected to three targets, nothing reported yet.
    pub(crate) fn connected() -> Self {
        let mut rig = Self::new(settings("planner", &["critic", "monitor", "scribe"]));
        rig.connect();
        rig
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall = self.now.wall.plus(time);
        self.tick();
    }

    /// Reports the next cycle and returns its ticket, which is also its sequence number.
    pub(crate) fn report(&mut self, di: f64) -> u64 {
        self.report_in(di, "stable")
    }

    pub(crate) fn report_in(&mut self, di: f64, phase: &str) -> u64 {
        self.cycle += 1;
        self.report_document(&report_in(self.cycle, di, phase))
    }

    pub(crate) fn report_document(&mut self, document: &Json) -> u64 {
        let newest = self.bridge.memory(self.now).seq;
        let ticket = Ticket(self.now.wall.unix_us().max(newest + 1));
        self.note(|bridge, now| bridge.report(now, ticket, document, None));
        ticket.0
    }

    pub(crate) fn unreadable(&mut self) -> u64 {
        let ticket = self.ticket();
        self.note(|bridge, now| bridge.unreadable(now, ticket));
        ticket.0
    }

    pub(crate) fn hold(&mut self, hold: bool) -> u64 {
        let ticket = self.ticket();
        self.note(|bridge, now| bridge.hold(now, ticket, hold));
        ticket.0
    }

    pub(crate) fn answered(&mut self, token: u64, outcome: Outcome) {
        self.note(|bridge, now| bridge.answered(now, token, outcome));
    }

    pub(crate) fn not_sent(&mut self, token: u64) {
        self.note(|bridge, now| bridge.not_sent(now, token));
    }

    pub(crate) fn connect(&mut self) {
        self.note(Bridge::connected);
    }

    pub(crate) fn disconnect(&mut self) {
        self.note(Bridge::disconnected);
    }

    pub(crate) fn confirm(&mut self, id: u64) {
        self.note(|bridge, now| bridge.confirmed(now, id));
    }

    pub(crate) fn uploads_quiet(&mut self, confirmed: bool) {
        self.note(|bridge, now| bridge.uploads_quiet(now, confirmed));
    }

    pub(crate) fn recovered(&mut self, newest: u64, is_waiting: bool) {
        self.note(|bridge, now| bridge.recovered(now, newest, is_waiting));
    }

    pub(crate) fn stored(&mut self, digest: Digest, manifest: Option<&'static [u8]>) {
        let announced = manifest.map(|manifest| Announcement {
            manifest: bytes::Bytes::from_static(manifest),
            envelope: "".into(),
        });
        self.note(|bridge, now| bridge.stored(now, digest, announced));
    }

    pub(crate) fn fence(&mut self, fence: Option<Fence>) {
        self.note(|bridge, now| bridge.fence(now, fence));
    }

    pub(crate) fn tick(&mut self) {
        self.note(Bridge::tick);
    }

    pub(crate) fn reload(&mut self, live: Live) {
        self.note(|bridge, now| bridge.reload(now, live));
    }

    /// One inbound message whose header says native.
    pub(crate) fn receive(&mut self, subject: (&str, &str), bytes: &[u8]) -> Option<Inbound> {
        self.receive_of(subject, Some("native"), bytes)
    }

    /// The same with any header, or none.
    pub(crate) fn receive_of(
        &mut self,
        subject: (&str, &str),
        drift_source: Option<&str>,
        bytes: &[u8],
    ) -> Option<Inbound> {
        self.bridge.receive(self.now, &Arrival { subject, envelope: None, drift_source, bytes })
    }

    /// The same in an exchange envelope, whatever it is.
    pub(crate) fn receive_in(
        &mut self,
        subject: (&str, &str),
        envelope: &str,
        bytes: &[u8],
    ) -> Option<Inbound> {
        let (envelope, drift_source) = (Some(envelope), None);
        self.bridge.receive(self.now, &Arrival { subject, envelope, drift_source, bytes })
    }

    fn ticket(&mut self) -> Ticket {
        self.ticket += 1;
        Ticket(self.ticket)
    }

    /// Gives one input and keeps what follows from it.
    fn note(&mut self, input: impl FnOnce(&mut Bridge, Now) -> Vec<Effect>) {
        self.effects.extend(input(&mut self.bridge, self.now));
        assert!(self.bridge.is_balanced(), "the books do not add up");
    }

    /// Packets it asked to publish since the last call, with their tokens.
    pub(crate) fn published(&mut self) -> Vec<(u64, Sealed)> {
        let mut published = Vec::new();
        self.effects.retain(|effect| match effect {
            Effect::Publish { token, packet, .. } => {
                published.push((*token, packet.clone()));
                false
            }
            _ => true,
        });
        published
    }

    /// Replies to reports that were judged since the last call, by ticket.
    pub(crate) fn answers(&mut self) -> BTreeMap<u64, ReportReply> {
        let mut answers = BTreeMap::new();
        self.effects.retain(|effect| match effect {
            Effect::Answer { ticket, answer: Answer::Report(reply) } => {
                answers.insert(ticket.0, (**reply).clone());
                false
            }
            _ => true,
        });
        answers
    }

    /// The other answers since the last call, by ticket.
    pub(crate) fn states(&mut self) -> BTreeMap<u64, GateState> {
        let mut states = BTreeMap::new();
        self.effects.retain(|effect| match effect {
            Effect::Answer {
                ticket,
                answer: Answer::Order(state) | Answer::Refused { state, .. },
            } => {
                states.insert(ticket.0, state.clone());
                false
            }
            _ => true,
        });
        states
    }

    /// Echoes it asked for since the last call.
    pub(crate) fn confirms(&mut self) -> Vec<u64> {
        let mut ids = Vec::new();
        self.effects.retain(|effect| match effect {
            Effect::Confirm(id) => {
                ids.push(*id);
                false
            }
            _ => true,
        });
        ids
    }
}
