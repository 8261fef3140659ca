//! Phase telemetry: frames of ours while the gate lets reports through, and those of peers.
//!
//! A frame is of one report, and takes its number. It is made only with the report's clearance,
//! and published only where a packet of the same report could be: never while closed, during a
//! closing or in shadow, and in caution no more often than packets.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Band, Bridge, DriftIndex, Effect, Judgement, Mode, Now, RuntimeId, StateReport, exchanges,
};
use crate::protocol::document::verify_body;
use crate::protocol::drift::{Fraction, Provenance};
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::inbox::Peer;
use crate::protocol::keyring::Domain;
use crate::protocol::phase::PhaseFrame;
use crate::protocol::profile::SafetyStatus;
use crate::protocol::refusal::{Fault, Refusal};

/// What is remembered of frames.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Telemetry {
    /// Reports that were let through since the last published frame; none before the first.
    since_frame: Option<u32>,
    /// Number of the newest frame of each peer that was heard. Bounded by the configured peers.
    floors: BTreeMap<RuntimeId, u64>,
}

impl Bridge {
    /// Tells of the phase of a report that the gate has let through.
    pub(super) fn tell_phase(
        &mut self,
        now: Now,
        seq: u64,
        report: &StateReport,
        judgement: &Judgement,
    ) {
        if judgement.clearance.is_none() || self.band().is_closed() {
            return;
        }
        // An opening gets its subscriptions back first, as for packets.
        self.subscribe();
        // Who receives it believes no bare index.
        let is_published = judgement.measurement.parts.is_some()
            && self.may_send()
            && self.has_listener(now)
            && self.is_frame_due();
        if is_published {
            self.outbox.stamp();
        }
        let number = |fraction: Option<Fraction>| fraction.map(Fraction::value);
        let frame = PhaseFrame {
            runtime_id: self.identity.runtime_id.clone(),
            timestamp: now.wall,
            phase_vector: None,
            phase_expected: None,
            phase_state: report.posture,
            psi: number(report.vitals.psi),
            psd: number(report.vitals.psd),
            drift_index: judgement.di.map(DriftIndex::value),
            scr: judgement.measurement.parts.map(|parts| parts.scr.value()),
            symbolic_density: None,
            recursion_depth: None,
            safety_status: report.nominal.then_some(SafetyStatus::Nominal),
            drift_source: judgement.measurement.provenance,
        };
        self.effects.push(Effect::Phase { frame: Box::new(frame), seq, is_published });
    }

    /// Whether a peer may have frames now.
    fn has_listener(&self, now: Now) -> bool {
        self.live.peers.values().any(|peer| {
            peer.export_telemetry
                && peer.is_current(now.wall)
                && self.exchange_mode(now, &peer.id) > ExchangeMode::Rejected
        })
    }

    fn is_frame_due(&mut self) -> bool {
        let every = self.live.caution_every;
        let since = self.telemetry.since_frame.map_or(every, |since| since.saturating_add(1));
        let is_due = match self.band() {
            Band::Caution => !self.live.caution_blocks && since >= every,
            Band::Open => true,
            Band::Blocked | Band::Isolated => false,
        };
        self.telemetry.since_frame = Some(if is_due { 0 } else { since.min(every) });
        is_due
    }

    /// The bytes of a frame of ours and the token that proves them; `None` where there is no key to
    /// sign with, for nobody would believe it.
    #[must_use]
    pub fn signed_frame(&self, frame: &PhaseFrame, seq: u64) -> Option<(Bytes, String)> {
        let (body, token) = self.signed_body(Domain::Telemetry, seq, frame);
        Some((body, token?))
    }

    /// The peers whose frames are wanted.
    pub fn telemetry_sources(&self) -> impl Iterator<Item = &RuntimeId> {
        let is_heard = |peer: &&Peer| peer.import_telemetry && self.identity.mode == Mode::Enforce;
        self.live.peers.values().filter(is_heard).map(|peer| &peer.id)
    }

    /// A frame on the subject of `source`. `None` while nothing may come in, and for our own.
    ///
    /// # Errors
    /// [`Refusal`]: it is shown to nobody.
    pub fn phase_heard(
        &mut self,
        now: Now,
        source: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> Result<Option<PhaseFrame>, Refusal> {
        let is_own = source == self.identity.runtime_id.as_str();
        if is_own || !self.may_receive() || self.is_overdue(now) {
            return Ok(None);
        }
        let trust = exchanges::trust(&self.live, &self.exchanges);
        let Some(source) = RuntimeId::new(source).filter(|id| trust.peers.contains_key(id)) else {
            return Err(Refusal::of(Fault::Unauthorised, "source is not a peer"));
        };
        let token = token.ok_or_else(|| Refusal::forged("not signed"))?;
        let (key_id, seq) = verify_body(trust.keyring, Domain::Telemetry, token, body)?;
        let frame = PhaseFrame::read(&source, body)?;
        if self.telemetry.floors.get(&source).is_some_and(|floor| seq <= *floor) {
            return Err(Refusal::of(Fault::Replayed, "seq is not above the newest one heard"));
        }
        trust.fresh(now.wall, frame.timestamp)?;
        if seq > trust.limits.seq_max(now.wall) {
            return Err(Refusal::of(Fault::Expired, "seq is too far ahead of the clock"));
        }
        let peer = trust.peer_that(now.wall, &source, &key_id, |peer| peer.import_telemetry)?;
        let is_accepted = match frame.drift_source {
            Provenance::Native => true,
            Provenance::Derived => peer.terms.accepts_derived,
            Provenance::Reported | Provenance::None => false,
        };
        if !is_accepted {
            let detail = "its drift metrics are not native, which its entry does not accept";
            return Err(Refusal::of(Fault::Unauthorised, detail));
        }
        if self.inbox.is_withheld(&source, frame.timestamp) {
            return Err(Refusal::of(Fault::Unstable, "its source has closed since"));
        }
        if let Some(detail) = frame.unstable(trust.limits.block) {
            return Err(Refusal::of(Fault::Unstable, detail));
        }
        self.telemetry.floors.insert(source, seq);
        Ok(Some(frame))
    }
}
