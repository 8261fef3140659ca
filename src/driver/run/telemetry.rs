//! Live events: what the gate does, phase frames of ours and of peers, and what came in.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Driver, Event, Outgoing, Told};
use crate::nats::headers;
use crate::protocol::bridge::{Answer, Heard};
use crate::protocol::gate::{Band, Reason};
use crate::protocol::packet::RuntimeId;
use crate::protocol::phase::PhaseFrame;
use crate::protocol::seal::Fault;
use crate::protocol::time::{Now, Timestamp};

/// What became of phase frames.
#[derive(Clone, Debug, Default)]
pub(in crate::driver) struct Frames {
    /// Handed to the connection.
    pub(in crate::driver) sent: u64,
    /// Of peers, accepted.
    pub(in crate::driver) accepted: u64,
    /// On the subject of a peer, refused.
    pub(in crate::driver) refused: BTreeMap<Fault, u64>,
    /// The time of the newest notice of each peer that was told of. Bounded as they are.
    notices: BTreeMap<RuntimeId, Timestamp>,
}

/// A `phase` event.
#[derive(Serialize)]
struct Phase<'a> {
    external: bool,
    #[serde(flatten)]
    frame: &'a PhaseFrame,
}

/// A `held` event: nothing of the report but its number is in it.
#[derive(Serialize)]
struct Held<'a> {
    seq: Option<u64>,
    band: Band,
    reasons: &'a [Reason],
}

/// A `notice` event.
#[derive(Serialize)]
struct Notice {
    external: bool,
    source: RuntimeId,
    band: Band,
    reasons: Vec<String>,
    at: Timestamp,
}

/// A `packet` event.
#[derive(Serialize)]
struct Packet {
    external: bool,
    source: Option<RuntimeId>,
    seq: Option<u64>,
    status: &'static str,
    fault: Option<&'static str>,
}

impl Driver {
    /// Shows the phase of a report that was let through, and publishes it if peers may have it.
    pub(super) fn tell_phase(&mut self, frame: &PhaseFrame, seq: u64, is_published: bool) {
        self.feed.send("phase", || Phase { external: false, frame });
        // The process may have stood still since this was handed out: time has closed the gate.
        if !is_published || self.bridge.is_overdue(self.clock.now()) {
            return;
        }
        let Some((payload, token)) = self.bridge.signed_frame(frame, seq) else { return };
        let Some((link, settings)) = self.connector.link_and_settings() else { return };
        self.keeper.doubt();
        let subject = settings.broker.prefix.telemetry(&settings.runtime_id);
        let headers = headers::signed(Some(&token));
        match link.notify(Outgoing { subject, headers, payload }) {
            Ok(()) => self.frames.sent += 1,
            // The next one says more.
            Err(fault) => tracing::debug!(%fault, "a phase frame is not sent"),
        }
    }

    /// Tells of a report that was answered while the gate is closed, for it has no phase.
    pub(super) fn tell_held(&self, answer: &Answer) {
        let (seq, band, reasons) = match answer {
            Answer::Report(reply) => (Some(reply.seq), reply.band, &reply.reasons),
            Answer::Refused { state, .. } => (None, state.band, &state.reasons),
            Answer::Order(_) | Answer::Retry(_) => return,
        };
        if band.is_closed() {
            self.feed.send("held", || Held { seq, band, reasons });
        }
    }

    /// A peer has said where its gate stands: told once, for anybody can send a notice again.
    pub(super) fn tell_notice(&mut self, heard: Option<Heard>) {
        let Some(Heard { source, band, reasons, since: at }) = heard else { return };
        if self.frames.notices.get(&source).is_some_and(|told| at <= *told) {
            return;
        }
        self.frames.notices.insert(source.clone(), at);
        let notice = Notice { external: true, source, band, reasons, at };
        self.feed.send_external("notice", || notice);
    }

    /// A frame on the subject of a peer.
    pub(super) fn phase_heard(&mut self, now: Now, told: &Told) {
        let Told { source, token, body } = told;
        match self.bridge.phase_heard(now, source, token.as_deref(), body) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                self.frames.accepted += 1;
                self.feed.send_external("phase", || Phase { external: true, frame: &frame });
            }
            // Anybody can write there, as often as they like: it is counted, and not logged where
            // it would be read.
            Err(refusal) => {
                *self.frames.refused.entry(refusal.fault).or_default() += 1;
                tracing::debug!(fault = refusal.fault.word(), "a phase frame is refused");
            }
        }
    }

    /// Tells of the packets that came in since the driver last looked.
    pub(super) fn show_inbound(&mut self) {
        for (source, seq) in std::mem::take(&mut self.receiver.accepted) {
            let (source, seq, status) = (Some(source), Some(seq), "accepted");
            let packet = Packet { external: true, source, seq, status, fault: None };
            self.feed.send_external("packet", || packet);
        }
        for event in &self.receiver.events {
            if let Event::InboundRefused { fault, source, .. } = event {
                // A name that is no peer's may be any text.
                let source = source.clone().filter(|source| self.bridge.is_peer(source));
                let (status, fault) = ("refused", Some(fault.word()));
                let packet = Packet { external: true, source, seq: None, status, fault };
                self.feed.send_external("packet", || packet);
            }
        }
    }

    /// Hears the frames of the peers that are to be heard, and of no others.
    pub(super) async fn hear_telemetry(&mut self) {
        let sources: Vec<RuntimeId> = self.bridge.telemetry_sources().cloned().collect();
        self.order(|link| link.hear_telemetry(sources)).await;
    }
}
