//! The exchange envelope of what arrives: what somebody on the way puts around a packet, and what a
//! reader of the rules makes of it on paper (R67 to R69). The opinion shares no code with
//! `envelope.rs`: it reads the text of a genuine envelope, and of any other it knows who wrote it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::envelope::{self, Draft, Terms};
use driftgate::protocol::exchange::Artifact;
use driftgate::protocol::inbox::Peer;
use driftgate::protocol::keyring::Keyring;
use driftgate::protocol::time::Timestamp;
use serde_json::Value;

use crate::broker::Packet;
use crate::node::{RINGS, id_of};
use crate::random::Random;
use crate::world::World;

/// What arrives beside a packet.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) header: Option<String>,
    /// Whether whoever signed the packet has signed this about it. Of none it is nothing wrong.
    is_sound: bool,
}

/// What becomes of a packet that is good in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Taken for these uses; whether they are all that is offered.
    Take(Vec<String>, bool),
    Refuse,
}

/// Terms as somebody may have configured them, without moving the dice of the world.
pub(crate) fn terms(random: &Random) -> Terms {
    let mut random = Random::new(random.clone().next());
    let scope = random.weighted(&[(6, None), (3, Some("planning")), (1, Some("auditing"))]);
    let uses: &[&str] = random.weighted(&[
        (6, &["evidence"][..]),
        (3, &["evaluation", "evidence"][..]),
        (1, &["evaluation"][..]),
    ]);
    Terms {
        scope: scope.map(str::to_owned),
        allowed_use: uses.iter().map(|word| (*word).to_owned()).collect(),
        accepts_derived: random.in_thousand(300),
    }
}

impl World<'_> {
    /// What a packet comes in: mostly its own envelope.
    pub(crate) fn letter(&mut self, place: usize, packet: Option<&Packet>) -> Letter {
        let Some(packet) = packet else { return Letter { header: None, is_sound: true } };
        let own = Letter { header: packet.envelope.clone(), is_sound: true };
        let random = &mut self.letters;
        let header = match random.weighted(&[(80, 0), (6, 1), (3, 2), (3, 3), (8, 4)]) {
            0 => return own,
            1 => return Letter { header: None, is_sound: true },
            2 => {
                let others = self.archive.iter().filter(|other| other.bytes != packet.bytes);
                let others: Vec<_> = others.filter_map(|other| other.envelope.clone()).collect();
                if others.is_empty() {
                    return own;
                }
                Some(others[random.index(others.len())].clone())
            }
            3 => own.header.map(|text| changed(random, text)),
            _ => {
                let now = self.nodes[place].clock(self.now_us).wall;
                return rewritten(random, &self.parts.rings, now, packet);
            }
        };
        Letter { is_sound: header.is_none(), header }
    }
}

/// One character of it is another.
fn changed(random: &mut Random, text: String) -> String {
    let mut bytes = text.into_bytes();
    let place = random.index(bytes.len());
    bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).expect("letters")
}

/// Signed by somebody of the fleet: by the packet's own signer about something else, about it but
/// under other terms, or by another.
fn rewritten(random: &mut Random, rings: &[Keyring], now: Timestamp, packet: &Packet) -> Letter {
    let ends = [id_of(packet.source), id_of(packet.target)];
    let checksum = checksum(packet);
    let mut terms = Terms { scope: Some("elsewhere".to_owned()), ..terms(random) };
    let mut draft = Draft {
        artifact: Artifact::State,
        checksum,
        seq: packet.seq,
        source: &ends[0],
        target: Some(&ends[1]),
        at: now,
        expires: None,
        drift_source: Provenance::Native,
        trace: None,
    };
    let mut key = packet.key_id;
    let is_sound = match random.below(8) {
        0 => true,
        1 => {
            terms.scope = None;
            draft.drift_source = Provenance::Derived;
            true
        }
        2 => {
            terms.scope = None;
            draft.expires = Some(now);
            true
        }
        3 => {
            draft.checksum = Digest::of(&packet.bytes);
            false
        }
        4 => {
            draft.artifact = Artifact::Snapshot;
            false
        }
        5 => {
            draft.target = None;
            false
        }
        6 => {
            draft.seq += 1;
            false
        }
        _ => {
            key = if key == "k1" { "k2" } else { "k1" };
            false
        }
    };
    let ring = RINGS.iter().position(|(_, signer)| *signer == Some(key));
    let written = ring.and_then(|ring| envelope::write(&rings[ring], &terms, &draft));
    Letter { header: Some(written.expect("a ring that signs")), is_sound }
}

/// What the packet says its checksum is.
fn checksum(packet: &Packet) -> Digest {
    let said: Value = serde_json::from_slice(&packet.bytes).expect("a packet");
    let text = said["signature"]["checksum"].as_str().expect("a signed packet");
    Digest::parse(text).expect("a digest")
}

impl Letter {
    /// What the entry of its source makes of a packet that comes in this.
    pub(crate) fn reading(&self, peer: &Peer, now: Timestamp) -> Reading {
        if !self.is_sound {
            return Reading::Refuse;
        }
        let said: Option<Value> = self.header.as_ref().map(|text| {
            let bytes = URL_SAFE_NO_PAD.decode(text).expect("who wrote it can write");
            serde_json::from_slice(&bytes).expect("JSON")
        });
        let word = |pointer: &str| said.as_ref()?.pointer(pointer)?.as_str();
        let offered: Vec<&str> = match said.as_ref() {
            None => vec!["evidence"],
            Some(said) => {
                let uses = said["constraints"]["allowed_use"].as_array().expect("uses");
                uses.iter().map(|word| word.as_str().expect("a word")).collect()
            }
        };
        let mine = |word: &&str| peer.terms.allowed_use.iter().any(|mine| mine == *word);
        let common: Vec<String> =
            offered.iter().filter(|word| mine(word)).map(|word| (*word).to_owned()).collect();
        let is_accepted_source = match word("/provenance/drift_source") {
            None | Some("native") => true,
            Some("derived") => peer.terms.accepts_derived,
            Some(_) => false,
        };
        let has_ended = word("/constraints/expires_at")
            .and_then(Timestamp::parse)
            .is_some_and(|end| end.unix_ms() <= now.unix_ms());
        let scope = peer.terms.scope.as_deref();
        let is_in_scope = scope.is_none() || scope == word("/constraints/scope");
        if is_accepted_source && !has_ended && is_in_scope && !common.is_empty() {
            let is_whole = common.len() == offered.len();
            return Reading::Take(common, is_whole);
        }
        Reading::Refuse
    }
}
