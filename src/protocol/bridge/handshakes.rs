//! Handshakes with peers: what is said, and who is believed.

use super::{Bridge, Effect, Now, RuntimeId};
use crate::protocol::digest::Digest;
use crate::protocol::document;
use crate::protocol::exchange::{ExchangeMode, ModeReason, SUPPORTED, Version};
use crate::protocol::handshake::{
    Authorization, HANDSHAKE_BYTES_MAX, Handshake, Heard, Posture, Scope, Terms,
};
use crate::protocol::inbox::Peer;
use crate::protocol::keyring::Domain;
use crate::protocol::packet::PROTOCOL_VERSION;
use crate::protocol::refusal::{Fault, Refusal};
use crate::protocol::view::HandshakeView;

impl Bridge {
    /// A question to a peer, or with `version` the answer to one that speaks it. `None` when the
    /// peer is none, or nothing can be signed.
    pub fn handshake(
        &mut self,
        now: Now,
        peer: &RuntimeId,
        nonce: &str,
        version: Option<Version>,
    ) -> Option<Vec<u8>> {
        let configured = self.live.peers.get(peer)?;
        let answer = version.map(|version| self.terms(now, configured, version));
        let seq = self.take_seq(now);
        let manifest = &self.live.manifest;
        let handshake = Handshake {
            runtime_id: &self.identity.runtime_id,
            target: peer,
            protocol_version: PROTOCOL_VERSION,
            nonce,
            at: now.wall,
            capabilities_digest: (!manifest.is_empty()).then(|| Digest::of(manifest)),
            answer,
        };
        document::sign(&self.live.keyring, Domain::Handshake, seq, &handshake)
    }

    /// Reads a handshake that came in: signed by a peer that is authorised now, with the key that
    /// may speak for it, for us, and fresh.
    ///
    /// # Errors
    /// [`Refusal`], in this order: tag, source, address, freshness.
    pub fn hear_handshake(&self, now: Now, bytes: &[u8]) -> Result<Heard, Refusal> {
        let refuse = |fault, detail: &str| Err(Refusal { fault, detail: detail.to_owned() });
        let keyring = &self.live.keyring;
        let proved = document::open(keyring, Domain::Handshake, bytes, HANDSHAKE_BYTES_MAX)?;
        let heard = Heard::read(&proved.members, proved.seq)?;
        let Some(peer) = self.live.peers.get(&heard.runtime_id) else {
            return refuse(Fault::Unauthorised, "/runtime_id: no configured peer");
        };
        if peer.key_id.as_ref().is_some_and(|pinned| *pinned != proved.key_id) {
            return refuse(Fault::Forged, "/signature/integrity_token: not this peer's key");
        }
        if !peer.is_current(now.wall) {
            return refuse(Fault::Unauthorised, "its authorisation has ended");
        }
        if heard.target != self.identity.runtime_id {
            return refuse(Fault::Misaddressed, "/target: somebody else");
        }
        let skew = self.live.clock_skew_max;
        if now.wall.since(heard.at) > skew || heard.at.since(now.wall) > skew {
            return refuse(Fault::Expired, "/at: not within clock_skew_max of now");
        }
        Ok(heard)
    }

    /// Mode and reason of a peer as they are shown to it, given the version that it speaks.
    #[must_use]
    pub fn terms_mode(
        &self,
        now: Now,
        peer: &RuntimeId,
        version: Version,
    ) -> (ExchangeMode, ModeReason) {
        if version.major == SUPPORTED.major {
            self.exchange_shown(now, peer)
        } else {
            (ExchangeMode::Rejected, ModeReason::UnsupportedMajor)
        }
    }

    fn terms(&self, now: Now, peer: &Peer, version: Version) -> Terms {
        let (mode, reason) = self.terms_mode(now, &peer.id, version);
        let named = |is_set: bool, name: &'static str| is_set.then_some(name);
        let state = [named(peer.export_state, "state"), named(peer.export_snapshot, "snapshot")];
        let export: Vec<_> = state.into_iter().flatten().collect();
        let import: Vec<_> = named(peer.import_state, "state").into_iter().collect();
        let mut artifact_types = export.clone();
        artifact_types.extend(import.iter().filter(|name| !export.contains(name)));
        Terms {
            supported: [PROTOCOL_VERSION],
            mode,
            reason,
            scope: Scope { export, import },
            trust: if peer.key_id.is_some() { "pinned" } else { "shared" },
            authorization: Authorization { by: "operator", expires: peer.expires },
            artifact_types,
            posture: Posture { band: self.band() },
        }
    }

    /// What the runtime's own handshake is answered, of what is known. `None` while isolated.
    #[must_use]
    pub fn handshake_view(&self, now: Now) -> Option<HandshakeView> {
        let id = self.identity.runtime_id.clone();
        self.may_answer().then(|| HandshakeView::new(id, self.band(), self.peer_modes(now)))
    }

    /// A peer answered or asked in this version, or did not answer. A peer that speaks another
    /// major gets nothing from here on, until it says otherwise.
    #[must_use]
    pub fn peer_heard(
        &mut self,
        now: Now,
        peer: &RuntimeId,
        version: Option<Version>,
    ) -> Vec<Effect> {
        self.change_exchange(now, peer, |exchange| exchange.heard(version))
    }
}
