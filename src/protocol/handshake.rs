//! Handshakes: who is there, which version it speaks, what is exchanged (SRIP-05 section 5).
//!
//! Question and answer are signed documents of one shape; the answer repeats the question's nonce
//! and adds what SRIP-17 VII.1 asks for beyond identity and version: scope, trust, authorisation,
//! artifact types and the posture. What a peer may have follows from its signed capabilities; a
//! handshake confirms it, and can only narrow: a peer that speaks another major gets nothing. What
//! deliberately is not here: when to ask and when to answer ([`Handshakes`] paces both, the driver
//! sends).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::canonical::Json;
use super::digest::Digest;
use super::exchange::{ExchangeMode, ModeReason, Version};
use super::fields::Fields;
use super::gate::Band;
use super::packet::{RuntimeId, WORD_BYTES_MAX};
use super::refusal::{Fault, Refusal};
use super::time::Timestamp;

/// Longest question or answer, in bytes; they take some 600 and 1,000.
pub const HANDSHAKE_BYTES_MAX: usize = 4 * 1024;
/// Hex digits of a nonce: 128 bits.
pub const NONCE_LEN: usize = 32;
/// A peer is answered once within this.
pub const ANSWER_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that answered is asked again after this.
pub const ASK_INTERVAL: Duration = Duration::from_secs(300);
/// One that did not, after this: longer than [`ANSWER_INTERVAL`], or it could not answer.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions of ours under way at a time, and in one [`ANSWER_TIMEOUT`]: peers that are not there
/// cost a few messages a second, however many are configured.
pub const ASKING_MAX: usize = 16;

/// What both sides say.
#[derive(Clone, Debug, Serialize)]
pub struct Handshake<'a> {
    /// Who says it.
    pub runtime_id: &'a RuntimeId,
    /// To whom.
    pub target: &'a RuntimeId,
    /// The version that it writes.
    pub protocol_version: &'a str,
    /// The question's, 128 random bits in hex.
    pub nonce: &'a str,
    /// When.
    pub at: Timestamp,
    /// `sha256:` and 64 hex digits over its capabilities, where it has any.
    pub capabilities_digest: Option<Digest>,
    /// What only an answer has.
    #[serde(flatten)]
    pub answer: Option<Terms>,
}

/// What one side exchanges with the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Terms {
    /// Every version that can be read, by its major: `1.0` reads all of `1.x`.
    pub supported: [&'static str; 1],
    /// How much is exchanged.
    pub mode: ExchangeMode,
    /// Why.
    pub reason: ModeReason,
    /// What may go which way.
    pub scope: Scope,
    /// `pinned`: one key alone may speak for the peer; `shared`: any key of the fleet may.
    pub trust: &'static str,
    /// Who has authorised it, and until when.
    pub authorization: Authorization,
    /// Kinds of artifacts that may go either way.
    pub artifact_types: Vec<&'static str>,
    /// Where the gate stands.
    pub posture: Posture,
}

/// What is allowed in each direction, as the answering side sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// From it to the peer.
    pub export: Vec<&'static str>,
    /// From the peer to it.
    pub import: Vec<&'static str>,
}

/// An operator's consent: peers that no configuration names are never heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Authorization {
    /// `operator`.
    pub by: &'static str,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
}

/// Safety and stability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Posture {
    /// The gate's band.
    pub band: Band,
}

/// A handshake of somebody else, its signature verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who says it.
    pub runtime_id: RuntimeId,
    /// To whom.
    pub target: RuntimeId,
    /// The version that it writes.
    pub version: Version,
    /// The question's.
    pub nonce: String,
    /// When.
    pub at: Timestamp,
    /// Of its capability manifest, where it has one.
    pub capabilities_digest: Option<Digest>,
    /// The number in its token.
    pub seq: u64,
}

impl Heard {
    /// Reads the members of a verified document; members of a later minor are passed over.
    ///
    /// # Errors
    /// `Malformed`, naming the field.
    pub fn read(members: &BTreeMap<String, Json>, seq: u64) -> Result<Self, Refusal> {
        let fields = Fields::new(members, "");
        let nonce = fields.text("nonce", WORD_BYTES_MAX)?;
        let is_nonce = nonce.len() == NONCE_LEN
            && nonce.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_nonce {
            return Err(fields.refuse("nonce", "must be 32 lower-case hex digits"));
        }
        Ok(Self {
            runtime_id: fields.runtime_id("runtime_id")?,
            target: fields.runtime_id("target")?,
            version: fields.made("protocol_version", Version::RULE, Version::parse)?,
            nonce: nonce.to_owned(),
            at: fields.time("at")?,
            capabilities_digest: fields.optional("capabilities_digest", Fields::digest)?,
            seq,
        })
    }
}

/// A question of ours that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asking {
    peer: RuntimeId,
    nonce: String,
    deadline: Duration,
}

/// When to ask whom, whom to answer, and what was last said of each in the audit log.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    /// Whether there is a connection to ask on.
    is_open: bool,
    /// Who is to be asked when, soonest first.
    due: BTreeSet<(Duration, RuntimeId)>,
    asking: BTreeMap<u64, Asking>,
    next_id: u64,
    /// When the newest questions were asked, oldest first, at most [`ASKING_MAX`].
    asked: Vec<Duration>,
    /// Number of the newest question of each peer that was answered, and when.
    answered: BTreeMap<RuntimeId, (u64, Duration)>,
    /// What was last audited of each peer, its questions and ours.
    audited: BTreeMap<(RuntimeId, bool), (Option<Version>, ExchangeMode, ModeReason)>,
}

impl Handshakes {
    /// There is a connection: every peer is asked. Twice is once.
    pub fn open(&mut self, now: Duration, peers: impl Iterator<Item = RuntimeId>) {
        if !core::mem::replace(&mut self.is_open, true) {
            self.due = peers.map(|peer| (now, peer)).collect();
        }
    }

    /// Cut, or the connection ended: nothing is asked and no answer is waited for.
    pub fn close(&mut self) {
        self.is_open = false;
        self.due.clear();
        self.asking.clear();
    }

    /// Capabilities or the configuration changed: these peers are asked anew.
    pub fn ask_again(&mut self, now: Duration, peers: impl Iterator<Item = RuntimeId>) {
        if self.is_open {
            let peers: BTreeSet<RuntimeId> = peers.collect();
            self.due.retain(|(_, peer)| !peers.contains(peer));
            self.due.extend(peers.into_iter().map(|peer| (now, peer)));
        }
    }

    /// Takes the next peer to be asked now, if there is one.
    pub fn next(&mut self, now: Duration) -> Option<RuntimeId> {
        if self.is_busy(now) || self.due.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        self.due.pop_first().map(|(_, peer)| peer)
    }

    fn is_busy(&self, now: Duration) -> bool {
        let oldest = self.asked.first().filter(|_| self.asked.len() >= ASKING_MAX);
        oldest.is_some_and(|at| now < *at + ANSWER_TIMEOUT)
    }

    /// It is being asked; gives the question's number.
    pub fn ask(&mut self, now: Duration, peer: RuntimeId, nonce: String) -> u64 {
        self.next_id += 1;
        self.asked.push(now);
        if self.asked.len() > ASKING_MAX {
            self.asked.remove(0);
        }
        self.asking.insert(self.next_id, Asking { peer, nonce, deadline: now + ANSWER_TIMEOUT });
        self.next_id
    }

    /// Who a question went to; it waits no more.
    pub fn take(&mut self, id: u64) -> Option<(RuntimeId, String)> {
        self.asking.remove(&id).map(|asking| (asking.peer, asking.nonce))
    }

    /// Plans the next question to a peer.
    pub fn plan(&mut self, now: Duration, peer: RuntimeId, answered: bool) {
        let pause = if answered { ASK_INTERVAL } else { RETRY_INTERVAL };
        if self.is_open && !self.due.iter().any(|(_, other)| *other == peer) {
            self.due.insert((now + pause, peer));
        }
    }

    /// A question whose answer is overdue.
    #[must_use]
    pub fn overdue(&self, now: Duration) -> Option<u64> {
        let late = self.asking.iter().find(|(_, asking)| asking.deadline <= now);
        late.map(|(id, _)| *id)
    }

    /// When there is something to do by time alone.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let late = self.asking.values().map(|asking| asking.deadline).min();
        let room = self.asked.first().filter(|_| self.asked.len() >= ASKING_MAX);
        let free = room.map_or(Duration::ZERO, |at| *at + ANSWER_TIMEOUT);
        let due = self.due.first().map(|(at, _)| (*at).max(free));
        [late, due].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Whether a peer's verified question is answered.
    ///
    /// # Errors
    /// `Replayed` for one that is no newer than the last, or that comes too soon after it.
    pub fn admit(&mut self, now: Duration, heard: &Heard) -> Result<(), Refusal> {
        let refused = |detail: &str| Refusal { fault: Fault::Replayed, detail: detail.to_owned() };
        if let Some((seq, at)) = self.answered.get(&heard.runtime_id) {
            if heard.seq <= *seq {
                return Err(refused("no newer than the last one"));
            }
            if now < *at + ANSWER_INTERVAL {
                return Err(refused("sooner than 10 s after the last one"));
            }
        }
        self.answered.insert(heard.runtime_id.clone(), (heard.seq, now));
        Ok(())
    }

    /// Whether this outcome is another than the last one with that peer in that direction.
    pub fn is_news(
        &mut self,
        peer: &RuntimeId,
        inbound: bool,
        outcome: (Option<Version>, ExchangeMode, ModeReason),
    ) -> bool {
        self.audited.insert((peer.clone(), inbound), outcome) != Some(outcome)
    }

    /// Forgets peers that are none any more.
    pub fn forget(&mut self, is_peer: impl Fn(&RuntimeId) -> bool) {
        self.due.retain(|(_, peer)| is_peer(peer));
        self.answered.retain(|peer, _| is_peer(peer));
        self.audited.retain(|(peer, _), _| is_peer(peer));
    }
}
