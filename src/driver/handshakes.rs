//! Handshakes over the broker: ours with each peer, and those of peers with us.
//!
//! Whom to ask when is for `protocol/handshake.rs` to say, what is said and believed for the
//! bridge; each outcome that is another than the last one is an audit record.

use bytes::Bytes;

use super::ReadFault;
use super::run::Driver;
use crate::nats::HeaderMap;
use crate::nats::responder::{Dropped, Question};
use crate::protocol::audit::Event;
use crate::protocol::exchange::{ExchangeMode, ModeReason, SUPPORTED, Version};
use crate::protocol::gate::Mode;
use crate::protocol::handshake::Heard;
use crate::protocol::packet::RuntimeId;
use crate::protocol::time::Now;
use crate::protocol::view::HandshakeView;

impl Driver {
    /// The subscriptions for questions stand: every peer is asked, where anything is exported.
    pub(super) fn start_handshakes(&mut self) {
        if self.bridge.mode() == Mode::Enforce {
            let now = self.clock.now();
            self.handshakes.open(now.mono, self.bridge.peers().cloned());
        }
    }

    /// Capabilities or the configuration changed: every peer is asked anew.
    pub(super) fn ask_again(&mut self) {
        let now = self.clock.now();
        self.handshakes.forget(|peer| self.bridge.is_peer(peer));
        self.handshakes.ask_again(now.mono, self.bridge.peers().cloned());
    }

    /// Asks whose turn it is, and gives up on what is overdue.
    pub(super) fn greet(&mut self) {
        let now = self.clock.now();
        while let Some(id) = self.handshakes.overdue(now.mono) {
            if let Some(link) = self.connector.link() {
                // Without room the connection is stalled and about to be severed.
                let _ = link.stop_asking(id);
            }
            self.greeted(id, None);
        }
        while self.bridge.may_answer() && !self.bridge.is_overdue(now) {
            let Some(peer) = self.handshakes.next(now.mono) else { break };
            self.ask(now, peer);
        }
    }

    fn ask(&mut self, now: Now, peer: RuntimeId) {
        let Some((link, settings)) = self.connector.link_and_settings() else { return };
        let Some(nonce) = link.nonce() else { return };
        self.keeper.reserve(self.bridge.seq_next(now));
        let Some(bytes) = self.bridge.handshake(now, &peer, &nonce, None) else { return };
        self.keeper.doubt();
        let subject = settings.broker.prefix.handshake(&peer);
        let id = self.handshakes.ask(now.mono, peer, nonce.clone());
        if link.ask(id, subject, &nonce, Bytes::from(bytes)).is_err() {
            self.greeted(id, None);
        }
    }

    /// What came back to a question of ours; `None` when nothing did in time.
    pub(super) fn greeted(&mut self, id: u64, answer: Option<Bytes>) {
        let Some((peer, nonce)) = self.handshakes.take(id) else { return };
        let now = self.clock.now();
        let heard = answer.and_then(|bytes| match self.bridge.hear_handshake(now, &bytes) {
            Ok(heard) if heard.runtime_id == peer && heard.nonce == nonce => Some(heard),
            Ok(_) => None,
            Err(refusal) => {
                tracing::debug!(%peer, fault = refusal.fault.word(), "no answer to a handshake");
                None
            }
        });
        self.handshakes.plan(now.mono, peer.clone(), heard.is_some());
        self.note_handshake(now, &peer, false, heard.as_ref());
    }

    /// A peer asks.
    pub(super) fn answer_handshake(&mut self, question: &Question) -> Result<(), Dropped> {
        let now = self.clock.now();
        let heard = self.bridge.hear_handshake(now, &question.payload);
        let heard = heard.and_then(|heard| self.handshakes.admit(now.mono, &heard).map(|()| heard));
        let heard = heard.map_err(|refusal| {
            // The detail may hold a peer's text.
            tracing::debug!(fault = refusal.fault.word(), "a handshake is refused");
            Dropped::Refused
        })?;
        let (peer, version) = (&heard.runtime_id, heard.version);
        self.note_handshake(now, peer, true, Some(&heard));
        self.keeper.reserve(self.bridge.seq_next(now));
        let answer = self.bridge.handshake(now, peer, &heard.nonce, Some(version));
        self.send_answer(&question.reply, HeaderMap::new(), answer.unwrap_or_default())
    }

    /// Books what was heard of a peer. One that names another manifest than the one that is known
    /// of it is looked up again.
    fn note_handshake(&mut self, now: Now, peer: &RuntimeId, inbound: bool, heard: Option<&Heard>) {
        let version = heard.map(|heard| heard.version);
        let digest = heard.and_then(|heard| heard.capabilities_digest);
        if digest.is_some() && digest != self.bridge.peer_digest(peer) {
            self.manifests.look_soon();
        }
        self.effects.extend(self.bridge.peer_heard(now, peer, version));
        let (mode, reason) = self.bridge.exchange_shown(now, peer);
        self.audit_handshake(
            now,
            Event::Handshake { peer: peer.clone(), inbound, theirs: version, mode, reason },
        );
    }

    /// The runtime negotiates, with what is known.
    pub(super) fn negotiate(
        &mut self,
        now: Now,
        runtime_id: &RuntimeId,
        version: Version,
    ) -> Result<HandshakeView, ReadFault> {
        let view = self.bridge.handshake_view(now).ok_or(ReadFault::Isolated)?;
        if view.runtime_id == *runtime_id {
            let is_spoken = version.major == SUPPORTED.major;
            let (mode, reason) = match is_spoken {
                true => (ExchangeMode::Full, ModeReason::Matching),
                false => (ExchangeMode::Rejected, ModeReason::UnsupportedMajor),
            };
            let (peer, theirs) = (runtime_id.clone(), Some(version));
            let event = Event::Handshake { peer, inbound: true, theirs, mode, reason };
            self.audit_handshake(now, event);
        }
        Ok(view)
    }

    /// Records an outcome that is another than the last one.
    pub(super) fn audit_handshake(&mut self, now: Now, event: Event) {
        if let Event::Handshake { peer, inbound, theirs, mode, reason } = &event
            && self.handshakes.is_news(peer, *inbound, (*theirs, *mode, *reason))
        {
            self.recorder.record(now, event);
        }
    }
}
