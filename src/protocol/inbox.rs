//! What came in from peers: the checks of P7 after the tag, and the newest accepted packet of each.
//!
//! The order of the checks decides what becomes of a message that fails several: tag, address,
//! sequence number, freshness, authority, stability. The number comes before freshness, so that an
//! accepted packet whose acknowledgement was lost is recognised however old it has become.
//!
//! The newest number of a source is its floor, and stays so when the clock is set back: what was
//! taken since the time that it now shows would pass as new otherwise, and cannot be told from what
//! is. Until the clock has made up for it the source is not heard. A floor further ahead than
//! [`FLOOR_AHEAD_MAX`] binds only when the clock has come that near, so that a clock that ran far
//! ahead locks nobody out for longer. The limit of the promise: with a clock set back by more than
//! that, packets of then, kept for more than a day by whoever replays them, are taken once more.
//!
//! Evidence, never a command: nothing here can reach the runtime other than by being read or
//! delivered, and everything here is labelled external.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::digest::Digest;
use super::envelope::{About, Admission, Envelope, Terms};
use super::exchange::{Artifact, Exchange, ExchangeMode, incompatible};
use super::packet::{Payload, RuntimeId};
use super::seal::{Fault, Keyring, Refusal, Verified, unstable};
use super::time::Timestamp;
use super::trace::TraceParent;
use super::view::{Absence, PeerState, RefusalView};

/// How far ahead of the receiver's clock a sequence number may lie at least: it counts
/// microseconds, and a sender that restarts begins a little above what it had reserved.
pub const SEQ_AHEAD_MIN: Duration = Duration::from_secs(30);
/// How far ahead of the receiver's clock a floor may lie and still bind: more than any time zone is
/// wrong by, and than any stream of ours keeps a packet.
pub const FLOOR_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is authorised with one peer, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's runtime id.
    pub id: RuntimeId,
    /// Whether packets are published to it.
    pub export_state: bool,
    /// Whether packets are accepted from it.
    pub import_state: bool,
    /// Whether it may link to our snapshots: without this its packets use minimal exchange.
    pub export_snapshot: bool,
    /// Whether its snapshots may be fetched.
    pub import_snapshot: bool,
    /// Whether frames of phase telemetry are published while it may have them.
    pub export_telemetry: bool,
    /// Whether its frames are accepted.
    pub import_telemetry: bool,
    /// The only key its packets may be signed with; any known key when absent.
    pub key_id: Option<String>,
    /// When the authorisation ends.
    pub expires: Option<Timestamp>,
    /// Under which terms.
    pub terms: Terms,
}

impl Peer {
    /// Whether the authorisation still holds.
    #[must_use]
    pub fn is_current(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Limits on inbound packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InboundLimits {
    /// Older packets are expired. Default 5 min.
    pub packet_max_age: Duration,
    /// Packets from further in the future are expired. Default 30 s.
    pub clock_skew_max: Duration,
    /// Packets with an index from here up are unstable.
    pub block: f64,
}

impl InboundLimits {
    /// The highest sequence number that may be believed at `now`. One message beyond it would lock
    /// its source out for as long as it lies ahead.
    #[must_use]
    pub fn seq_max(&self, now: Timestamp) -> u64 {
        now.plus(self.clock_skew_max.max(SEQ_AHEAD_MIN)).unix_us()
    }
}

/// One message as it arrived. Nothing in it is proved.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Source and target that its subject names.
    pub subject: (&'a str, &'a str),
    /// Header `Driftgate-Exchange`; where it is there several times, all of them with commas
    /// between them.
    pub envelope: Option<&'a str>,
    /// Header `Driftgate-Drift-Source`, which counts where there is no envelope. No signature
    /// covers it: what it rules out is what an honest peer sends by another configuration than
    /// ours, not what a hostile one pretends.
    pub drift_source: Option<&'a str>,
    /// The packet.
    pub bytes: &'a [u8],
}

/// What the configuration says about inbound packets at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// Keys to verify with.
    pub keyring: &'a Keyring,
    /// Who may be heard.
    pub peers: &'a BTreeMap<RuntimeId, Peer>,
    /// What is exchanged with those of whom anything is known.
    pub exchanges: &'a BTreeMap<RuntimeId, Exchange>,
    /// Limits.
    pub limits: InboundLimits,
}

impl Trust<'_> {
    /// The peer, if it may be heard now in what `key_id` signed.
    pub(super) fn peer(
        &self,
        now: Timestamp,
        source: &RuntimeId,
        key_id: &str,
    ) -> Result<&Peer, Refusal> {
        self.peer_that(now, source, key_id, |peer| peer.import_state)
    }

    /// The same of a peer that `may` says something else.
    pub(super) fn peer_that(
        &self,
        now: Timestamp,
        source: &RuntimeId,
        key_id: &str,
        may: impl FnOnce(&Peer) -> bool,
    ) -> Result<&Peer, Refusal> {
        let refuse = |detail: &str| Err(Refusal::of(Fault::Unauthorised, detail));
        let Some(peer) = self.peers.get(source).filter(|peer| may(peer)) else {
            return refuse("source is not listed for import");
        };
        if !peer.is_current(now) {
            return refuse("the source's authorisation has expired");
        }
        let is_pinned = peer.key_id.as_deref().is_none_or(|pinned| pinned == key_id);
        if !is_pinned || !self.keyring.has(key_id) {
            return refuse("signed with a key that is not the source's");
        }
        let known = self.exchanges.get(source);
        if known.is_some_and(|known| known.mode(now) == ExchangeMode::Rejected) {
            return Err(incompatible());
        }
        Ok(peer)
    }

    pub(super) fn fresh(&self, now: Timestamp, sent: Timestamp) -> Result<(), Refusal> {
        let (age, ahead) = (now.since(sent), sent.since(now));
        if age > self.limits.packet_max_age {
            let detail = format!("timestamp is {} s old", age.as_secs());
            return Err(Refusal::of(Fault::Expired, &detail));
        }
        if ahead > self.limits.clock_skew_max {
            let detail = format!("timestamp is {} s in the future", ahead.as_secs());
            return Err(Refusal::of(Fault::Expired, &detail));
        }
        Ok(())
    }
}

/// What to do with one inbound message.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// New and good. Its number has to be kept before it is shown or delivered.
    Accepted {
        /// Who sent it.
        source: RuntimeId,
        /// Its sequence number.
        seq: u64,
        /// When it was sent, by its sender's clock.
        sent: Timestamp,
        /// Under what it was taken.
        admission: Admission,
        /// The trace that it belongs to, where that is signed.
        trace: Option<TraceParent>,
        /// Whether this differs from what the packet before was taken under, or there was none.
        is_news: bool,
    },
    /// The newest accepted packet once more: acknowledge, and do nothing else.
    Redelivered {
        /// Who sent it.
        source: RuntimeId,
        /// Its sequence number.
        seq: u64,
    },
    /// Never reaches the runtime; quarantine it.
    Refused(Refusal),
}

/// The highest accepted number of one source.
#[derive(Clone, Debug)]
struct Floor {
    seq: u64,
    /// Of the packet that had it; unknown when the number is from before a restart.
    checksum: Option<Digest>,
}

impl Floor {
    fn binds(&self, now: Timestamp) -> bool {
        self.seq <= now.plus(FLOOR_AHEAD_MAX).unix_us()
    }
}

/// The newest accepted packet of one source.
#[derive(Clone, Debug)]
struct Held {
    seq: u64,
    sent: Timestamp,
    key_id: String,
    payload: Payload,
    state: PeerState,
    envelope: Option<Envelope>,
    /// What the unsigned header said.
    drift_source: Option<String>,
    /// Under what it was accepted.
    taken: Admission,
}

/// A packet that may be shown.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// The packet.
    pub state: &'a PeerState,
    /// When it was sent, by its sender's clock.
    pub sent: Timestamp,
    /// Under what it may be used.
    pub admission: Admission,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Inbox {
    me: RuntimeId,
    /// Bounded by the peers that were ever configured.
    floors: BTreeMap<RuntimeId, Floor>,
    /// Bounded by the configured peers.
    held: BTreeMap<RuntimeId, Held>,
    /// When each source last said that its gate is closed: what it sent up to then is withheld.
    /// Bounded by the peers that were ever configured.
    closed: BTreeMap<RuntimeId, Timestamp>,
    /// The newest refusal in the name of each peer, since its newest accepted packet. Bounded as
    /// they are.
    refused: BTreeMap<RuntimeId, (Fault, Timestamp)>,
}

impl Inbox {
    /// An inbox that remembers the highest sequence number per source from before a restart.
    #[must_use]
    pub fn new(me: RuntimeId, floors: BTreeMap<RuntimeId, u64>) -> Self {
        let read = |(source, seq)| (source, Floor { seq, checksum: None });
        Self {
            me,
            floors: floors.into_iter().map(read).collect(),
            held: BTreeMap::new(),
            closed: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Sources that are not heard because the clock was set back, and for how long it will be so.
    pub(super) fn unheard(
        &self,
        now: Timestamp,
        limits: InboundLimits,
    ) -> impl Iterator<Item = (&RuntimeId, Duration)> {
        let seq_max = limits.seq_max(now);
        let ahead = move |(_, floor): &(_, &Floor)| floor.seq > seq_max && floor.binds(now);
        let left = move |seq: u64| Duration::from_micros(seq.saturating_sub(now.unix_us()));
        self.floors.iter().filter(ahead).map(move |(source, floor)| (source, left(floor.seq)))
    }

    /// The source's gate has been closed since then: what it sent up to then is neither shown nor
    /// handed on any more. An earlier time than the one known changes nothing.
    pub(super) fn withhold(&mut self, source: RuntimeId, since: Timestamp) {
        let known = self.closed.entry(source).or_insert(since);
        *known = since.max(*known);
    }

    /// Whether what a source sent then is withheld, for its gate has closed since.
    pub(super) fn is_withheld(&self, source: &RuntimeId, sent: Timestamp) -> bool {
        self.closed.get(source).is_some_and(|since| sent <= *since)
    }

    /// Under what the newest packet of a source may be shown or handed on now, if it may.
    fn check(
        &self,
        now: Timestamp,
        source: &RuntimeId,
        held: &Held,
        trust: &Trust<'_>,
    ) -> Result<Admission, Fault> {
        if self.is_withheld(source, held.sent) {
            return Err(Fault::Unstable);
        }
        let admitted = trust.peer(now, source, &held.key_id).and_then(|peer| {
            trust.fresh(now, held.sent)?;
            peer.terms.admit(held.envelope.as_ref(), held.drift_source.as_deref(), now)
        });
        admitted.map_err(|refusal| refusal.fault)
    }

    /// Highest accepted sequence number of each source, to be kept across restarts.
    #[must_use]
    pub fn floors(&self) -> BTreeMap<RuntimeId, u64> {
        self.floors.iter().map(|(source, floor)| (source.clone(), floor.seq)).collect()
    }

    /// When the newest packet of each peer was accepted, whatever has become of its authority.
    pub fn received(&self) -> impl Iterator<Item = (&RuntimeId, Timestamp)> {
        self.held.iter().map(|(source, held)| (source, held.state.received))
    }

    /// The newest accepted packet of each peer, unless its authority has ended or it has aged out.
    pub fn current<'a>(
        &'a self,
        now: Timestamp,
        trust: Trust<'a>,
    ) -> impl Iterator<Item = &'a PeerState> {
        let held = self.held.iter();
        let is_current = move |(source, held): &(&RuntimeId, &Held)| {
            self.check(now, source, held, &trust).is_ok()
        };
        let current = held.filter(is_current);
        current.map(|(_, held)| &held.state)
    }

    /// The newest accepted packet of a peer, or why there is none to be shown; and the newest
    /// refusal in its name since.
    pub fn shown(
        &self,
        now: Timestamp,
        peer: &Peer,
        trust: &Trust<'_>,
    ) -> (Result<Shown<'_>, Absence>, Option<RefusalView>) {
        let refused = self.refused.get(&peer.id).copied().map(RefusalView::of);
        let absence = |fault| match fault {
            Fault::Expired => Absence::Expired,
            Fault::Unstable => Absence::Withheld,
            Fault::Malformed
            | Fault::Incompatible
            | Fault::Forged
            | Fault::Misaddressed
            | Fault::Replayed
            | Fault::Unauthorised => Absence::Unauthorised,
        };
        let found = match self.held.get(&peer.id) {
            Some(held) => {
                let may_show = self.check(now, &peer.id, held, trust).map_err(absence);
                may_show.map(|admission| Shown { state: &held.state, sent: held.sent, admission })
            }
            None if !peer.import_state || !peer.is_current(now) => Err(Absence::Unauthorised),
            None if refused.is_some() => Err(Absence::Refused),
            None => Err(Absence::NeverHeard),
        };
        (found, refused)
    }

    /// What the newest packets that may be shown say, by source.
    pub fn payloads<'a>(
        &'a self,
        now: Timestamp,
        trust: Trust<'a>,
    ) -> impl Iterator<Item = (&'a RuntimeId, &'a Payload, Timestamp)> {
        let held = self.held.iter();
        let held = held.filter(move |(source, held)| self.check(now, source, held, &trust).is_ok());
        held.map(|(source, held)| (source, &held.payload, held.sent))
    }

    /// The packet of that number, if it is the newest of its source and may be handed on now.
    ///
    /// # Errors
    /// [`Fault::Replayed`], [`Fault::Unauthorised`], [`Fault::Expired`] or, where the source has
    /// closed since, [`Fault::Unstable`]: it never may again.
    pub fn deliverable(
        &self,
        now: Timestamp,
        source: &RuntimeId,
        seq: u64,
        trust: &Trust<'_>,
    ) -> Result<(Bytes, Admission), Fault> {
        let held = self.held.get(source).filter(|held| held.seq == seq).ok_or(Fault::Replayed)?;
        let admission = self.check(now, source, held, trust)?;
        Ok((Bytes::copy_from_slice(held.state.packet.get().as_bytes()), admission))
    }

    /// Checks one message; only a packet that passes every check moves the floor.
    pub fn receive(&mut self, now: Timestamp, arrival: &Arrival<'_>, trust: &Trust<'_>) -> Inbound {
        match self.judge(now, arrival, trust) {
            Ok(inbound) => inbound,
            Err(refusal) => {
                let named = RuntimeId::new(arrival.subject.0);
                if let Some(source) = named.filter(|source| trust.peers.contains_key(source)) {
                    self.refused.insert(source, (refusal.fault, now));
                }
                Inbound::Refused(refusal)
            }
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        arrival: &Arrival<'_>,
        trust: &Trust<'_>,
    ) -> Result<Inbound, Refusal> {
        let verified = trust.keyring.open(arrival.bytes)?;
        let source = self.addressed(arrival.subject, &verified)?;
        let seq = verified.seq();
        let floor = self.floors.get(&source).filter(|floor| floor.binds(now));
        if let Some(floor) = floor.filter(|floor| seq <= floor.seq) {
            if seq == floor.seq && floor.checksum.is_none_or(|known| known == verified.checksum()) {
                return Ok(Inbound::Redelivered { source, seq });
            }
            let problem = "seq is that of another packet, or lower than one already accepted";
            return Err(Refusal::of(Fault::Replayed, problem));
        }
        trust.fresh(now, verified.packet().header.timestamp)?;
        if seq > trust.limits.seq_max(now) {
            return Err(Refusal::of(Fault::Expired, "seq is too far ahead of the clock"));
        }
        let peer = trust.peer(now, &source, verified.key_id())?;
        let about = About {
            artifact: Artifact::State,
            checksum: verified.checksum(),
            seq,
            key_id: verified.key_id(),
            source: &source,
            target: Some(&self.me),
        };
        let (said, header) = (arrival.drift_source, arrival.envelope);
        let (envelope, admission) = peer.terms.judge(trust.keyring, header, said, &about, now)?;
        if let Some(detail) = unstable(verified.packet(), trust.limits.block) {
            return Err(Refusal { fault: Fault::Unstable, detail });
        }
        let drift_source = arrival.drift_source.map(str::to_owned);
        self.accept(now, source, &verified, (envelope, drift_source, admission))
    }

    /// The source, if header and subject agree and the packet is for us.
    fn addressed(
        &self,
        (source, target): (&str, &str),
        verified: &Verified,
    ) -> Result<RuntimeId, Refusal> {
        let header = &verified.packet().header;
        if header.source_runtime_id.as_str() != source
            || header.target_runtime_id.as_str() != target
        {
            let problem = "header and subject name different runtimes";
            return Err(Refusal::of(Fault::Misaddressed, problem));
        }
        if header.target_runtime_id != self.me {
            return Err(Refusal::of(Fault::Misaddressed, "target_runtime_id is not this runtime"));
        }
        Ok(header.source_runtime_id.clone())
    }

    fn accept(
        &mut self,
        now: Timestamp,
        source: RuntimeId,
        verified: &Verified,
        (envelope, drift_source, admission): (Option<Envelope>, Option<String>, Admission),
    ) -> Result<Inbound, Refusal> {
        let text = String::from_utf8_lossy(verified.bytes()).into_owned();
        // Verified bytes are JSON; should the two parsers ever disagree, refuse.
        let packet = serde_json::value::RawValue::from_string(text)
            .map_err(|_| Refusal::of(Fault::Malformed, "not one JSON document"))?;
        let seq = verified.seq();
        let checksum = Some(verified.checksum());
        self.floors.insert(source.clone(), Floor { seq, checksum });
        let state = PeerState { source: source.clone(), external: true, received: now, packet };
        let sent = verified.packet().header.timestamp;
        let key_id = verified.key_id().to_owned();
        let payload = verified.packet().payload.clone();
        let trace = envelope.as_ref().and_then(|envelope| envelope.trace.clone());
        let taken = admission.clone();
        let held = Held { seq, sent, key_id, payload, state, envelope, drift_source, taken };
        let before = self.held.insert(source.clone(), held).map(|held| held.taken);
        let was_refused = self.refused.remove(&source).is_some();
        let is_news = was_refused || before.as_ref() != Some(&admission);
        Ok(Inbound::Accepted { source, seq, sent, admission, trace, is_news })
    }
}
