//! What came in from peers: the checks of P7 after the seal, and the newest accepted packet of
//! each.
//!
//! Evidence, never a command: nothing here can reach the runtime other than by being read or
//! delivered, and everything here is labelled external (SPEC R6, R70).

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::packet::RuntimeId;
use super::seal::{Fault, Keyring, Refusal, Verified, unstable};
use super::time::Timestamp;
use super::view::PeerState;

/// What is authorised with one peer, and until when (DESIGN section 6 `[[peers]]`).
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
    /// The only key its packets may be signed with; any known key when absent.
    pub key_id: Option<String>,
    /// When the authorisation ends.
    pub expires: Option<Timestamp>,
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

/// What to do with one inbound message.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// New and good.
    Accepted {
        /// Who sent it.
        source: RuntimeId,
        /// Its sequence number.
        seq: u64,
        /// What of it may be handed on: fields that no signature covers are left out.
        packet: Bytes,
    },
    /// Seen before, byte for byte by its sequence number: acknowledge and drop.
    Redelivered {
        /// Who sent it.
        source: RuntimeId,
        /// Its sequence number.
        seq: u64,
        /// See [`Inbound::Accepted`].
        packet: Bytes,
    },
    /// Never reaches the runtime; quarantine it.
    Refused(Refusal),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Inbox {
    me: RuntimeId,
    /// Highest accepted sequence number of each source. Bounded by the configured peers.
    floors: BTreeMap<RuntimeId, u64>,
    /// With the time at which it was made.
    newest: BTreeMap<RuntimeId, (Timestamp, PeerState)>,
}

impl Inbox {
    /// An inbox that remembers the highest sequence number per source from before a restart.
    #[must_use]
    pub fn new(me: RuntimeId, floors: BTreeMap<RuntimeId, u64>) -> Self {
        Self { me, floors, newest: BTreeMap::new() }
    }

    /// Highest accepted sequence number of each source, to be kept across restarts.
    #[must_use]
    pub fn floors(&self) -> &BTreeMap<RuntimeId, u64> {
        &self.floors
    }

    /// The newest accepted packet of each peer that is still authorised, unless it has aged out
    /// (SPEC R71).
    pub fn current(
        &self,
        now: Timestamp,
        peers: &BTreeMap<RuntimeId, Peer>,
        packet_max_age: Duration,
    ) -> impl Iterator<Item = &PeerState> {
        let is_current = move |source: &RuntimeId, sent: Timestamp| {
            now.since(sent) <= packet_max_age
                && peers.get(source).is_some_and(|peer| peer.import_state && peer.is_current(now))
        };
        let current =
            self.newest.iter().filter(move |(source, (sent, _))| is_current(source, *sent));
        current.map(|(_, (_, state))| state)
    }

    /// Checks one message in the order seal, address, authority, freshness, stability, replay; only
    /// a packet that passes all of them moves the floor.
    pub fn receive(
        &mut self,
        now: Timestamp,
        subject: (&str, &str),
        bytes: &[u8],
        keyring: &Keyring,
        peers: &BTreeMap<RuntimeId, Peer>,
        limits: &InboundLimits,
    ) -> Inbound {
        let verified = match keyring.open(bytes) {
            Ok(verified) => verified,
            Err(refusal) => return Inbound::Refused(refusal),
        };
        match self.judge(now, subject, &verified, peers, limits) {
            Err(refusal) => Inbound::Refused(refusal),
            Ok(source)
                if self.floors.get(&source).is_some_and(|floor| *floor == verified.seq()) =>
            {
                Inbound::Redelivered {
                    source,
                    seq: verified.seq(),
                    packet: verified.bytes().clone(),
                }
            }
            Ok(source) => self.accept(now, source, &verified),
        }
    }

    fn judge(
        &self,
        now: Timestamp,
        (subject_source, subject_target): (&str, &str),
        verified: &Verified,
        peers: &BTreeMap<RuntimeId, Peer>,
        limits: &InboundLimits,
    ) -> Result<RuntimeId, Refusal> {
        let refuse = |fault, detail: String| Err(Refusal { fault, detail });
        let header = &verified.packet().header;
        let source = header.source_runtime_id.clone();
        if source.as_str() != subject_source || header.target_runtime_id.as_str() != subject_target
        {
            return refuse(
                Fault::Misaddressed,
                "header and subject name different runtimes".into(),
            );
        }
        if header.target_runtime_id != self.me {
            return refuse(Fault::Misaddressed, "target_runtime_id is not this runtime".into());
        }
        let Some(peer) = peers.get(&source).filter(|peer| peer.import_state) else {
            return refuse(Fault::Unauthorised, "source is not listed for import".into());
        };
        if !peer.is_current(now) {
            return refuse(Fault::Unauthorised, "the source's authorisation has expired".into());
        }
        if peer.key_id.as_deref().is_some_and(|pinned| pinned != verified.key_id()) {
            return refuse(
                Fault::Unauthorised,
                "signed with a key that is not the source's".into(),
            );
        }
        let sent = header.timestamp;
        if now.since(sent) > limits.packet_max_age {
            return refuse(
                Fault::Expired,
                format!("timestamp is {} s old", now.since(sent).as_secs()),
            );
        }
        if sent.since(now) > limits.clock_skew_max {
            return refuse(
                Fault::Expired,
                format!("timestamp is {} s in the future", sent.since(now).as_secs()),
            );
        }
        if let Some(detail) = unstable(verified.packet(), limits.block) {
            return refuse(Fault::Unstable, detail);
        }
        if self.floors.get(&source).is_some_and(|floor| verified.seq() < *floor) {
            return refuse(Fault::Replayed, "seq is lower than one already accepted".into());
        }
        Ok(source)
    }

    fn accept(&mut self, now: Timestamp, source: RuntimeId, verified: &Verified) -> Inbound {
        let text = String::from_utf8_lossy(verified.bytes()).into_owned();
        let Ok(packet) = serde_json::value::RawValue::from_string(text) else {
            // Verified bytes are JSON; should the two parsers ever disagree, refuse.
            return Inbound::Refused(Refusal {
                fault: Fault::Malformed,
                detail: "not one JSON document".into(),
            });
        };
        self.floors.insert(source.clone(), verified.seq());
        let state = PeerState { source: source.clone(), external: true, received: now, packet };
        self.newest.insert(source.clone(), (verified.packet().header.timestamp, state));
        Inbound::Accepted { source, seq: verified.seq(), packet: verified.bytes().clone() }
    }
}
