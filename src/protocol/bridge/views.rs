//! What the routes show: the safety envelope, the field, and attractors.

use std::collections::BTreeMap;

use super::{Band, Bridge, Duration, Ledger, Now, Posture, RuntimeId, exchanges};
use crate::protocol::drift::Fraction;
use crate::protocol::outbox::Departure;
use crate::protocol::packet::Payload;
use crate::protocol::time::Timestamp;
use crate::protocol::view::{
    AttractorView, CriticalView, DriftView, EndsView, EnvelopeView, FieldState, LifecycleState,
    ParametersView, PeerView, PosturesView, ReopeningView, SafetyView, TargetView, ThresholdsView,
};

impl Bridge {
    /// Thresholds, band and reasons: `GET /aegida/safety`, in every band.
    #[must_use]
    pub fn safety(&self, now: Now) -> SafetyView {
        let policy = &self.live.policy;
        let thresholds = policy.thresholds;
        let seconds = |duration: Duration| duration.as_secs_f64();
        let reopening = self.reopening();
        let doubt = self.uncertain_until.checked_sub(now.mono).filter(|left| !left.is_zero());
        SafetyView {
            runtime_id: self.identity.runtime_id.clone(),
            mode: self.identity.mode,
            band: self.band(),
            reasons: self.reasons.clone(),
            since: self.band_since.wall,
            epoch: self.judge.epoch(),
            di: self.drift_index(),
            drift_source: self.newest.source.word(),
            posture: self.newest.posture,
            thresholds: ThresholdsView {
                reopen: thresholds.reopen,
                caution: thresholds.reopen,
                block: thresholds.block,
                isolate: thresholds.isolate,
            },
            critical: CriticalView::of(policy.lock),
            postures: PosturesView::IN_FORCE,
            parameters: ParametersView {
                max_recursion_depth: None,
                phase_lock_timeout: None,
                drift_limit: thresholds.block,
                entropy_threshold: None,
            },
            envelope: EnvelopeView {
                accept: policy.accept.word(),
                caution_every: self.live.caution_every,
                dwell: policy.dwell,
                stale_after_s: seconds(self.live.stale_after),
                silence_isolates_after_s: self.live.silence_isolates_after.map(seconds),
                isolate_after_s: self.live.isolate_after.map(seconds),
            },
            would_reopen: reopening.as_ref().map(ReopeningView::in_words),
            reopening,
            operator_hold: self.judge.gate().operator_hold(),
            // The driver knows who holds.
            hold: None,
            in_doubt: doubt.is_some(),
            in_doubt_until: doubt.map(|left| now.wall.plus(left)),
            targets: self.targets(now.wall),
            transitions: self.transitions.clone(),
        }
    }

    /// Whom the configuration exports to, and who has books from before a reload, by id.
    fn targets(&self, now: Timestamp) -> Vec<TargetView> {
        let exported = self.live.peers.values().filter(|peer| peer.export_state);
        let mut known: BTreeMap<&RuntimeId, (Departure, Ledger)> =
            exported.map(|peer| (&peer.id, Default::default())).collect();
        let departures = self.outbox.departures();
        known.extend(departures.map(|(target, departure, ledger)| (target, (departure, *ledger))));
        let view = |(target, (departure, ledger)): (&RuntimeId, (Departure, Ledger))| {
            let peers = &self.live.peers;
            let authorised = exchanges::may_reach(peers, &self.exchanges, now, target);
            target_view(target.clone(), authorised, departure, &ledger)
        };
        known.into_iter().map(view).collect()
    }

    pub(super) fn reopening(&self) -> Option<ReopeningView> {
        let policy = &self.live.policy;
        self.band().is_closed().then(|| ReopeningView {
            operator_release: self.judge.gate().operator_hold(),
            other_sidecar_ends: self.fence.is_some(),
            reports: policy.dwell,
            di_below: policy.thresholds.reopen,
            posture: Posture::Stable,
            drift_source: policy.accept.word(),
        })
    }

    /// Drift metrics of the newest report that was judged.
    #[must_use]
    pub fn drift_metrics(&self) -> DriftView {
        DriftView::of(self.newest.parts, self.drift_index())
    }

    /// Where the newest report's drift metrics came from.
    #[must_use]
    pub fn drift_source(&self) -> &'static str {
        self.newest.source.word()
    }

    /// Own posture and every configured peer: `GET /field/state`. `None` while isolated.
    #[must_use]
    pub fn field_state(&self, now: Now) -> Option<FieldState> {
        (self.band() != Band::Isolated).then(|| FieldState {
            runtime_id: self.identity.runtime_id.clone(),
            band: self.band(),
            di: self.drift_index(),
            drift_metrics: self.drift_metrics(),
            drift_source: self.newest.source.word(),
            posture: self.newest.posture,
            reasons: self.reasons.clone(),
            since: self.band_since.wall,
            cycle: self.newest.cycle,
            peers: self.live.peers.keys().filter_map(|id| self.peer_view(now, id)).collect(),
        })
    }

    /// One peer: `GET /field/state?source=`. `None` for a name that is no peer's, and while
    /// isolated.
    #[must_use]
    pub fn peer_view(&self, now: Now, id: &RuntimeId) -> Option<PeerView> {
        let peer = self.live.peers.get(id).filter(|_| self.band() != Band::Isolated)?;
        let exchange = self.exchanges.get(id).cloned().unwrap_or_default();
        let (mode, mode_reason) = exchange.shown(now.wall);
        let trust = exchanges::trust(&self.live, &self.exchanges);
        let (found, refused) = self.inbox.shown(now.wall, peer, &trust);
        let (shown, absent) = match found {
            Ok(found) => (Some(found), None),
            Err(absence) => (None, Some(absence)),
        };
        Some(PeerView {
            source: id.clone(),
            external: true,
            mode,
            mode_reason,
            authorised_until: peer.expires,
            received: shown.as_ref().map(|shown| shown.state.received),
            age_s: shown.as_ref().map(|shown| now.wall.since(shown.sent).as_secs_f64()),
            packet: shown.as_ref().map(|shown| shown.state.packet.clone()),
            exchange: shown.map(|shown| shown.admission),
            presence: self.presence_of(id),
            absent,
            refused,
        })
    }

    /// An attractor: `GET /field/attractors/{id}`. Our own newest one, or that of the newest packet
    /// of a peer that may be shown, the first of its id. `None` where there is none.
    #[must_use]
    pub fn attractor(&self, now: Now, id: &str) -> Option<AttractorView> {
        let trust = exchanges::trust(&self.live, &self.exchanges);
        let found = |(_, payload, _): &(_, &Payload, _)| payload.attractor_state.id == id;
        self.own_attractor(id).or_else(|| {
            let (source, payload, sent) = self.inbox.payloads(now.wall, trust).find(found)?;
            Some(external(source, payload, sent))
        })
    }

    fn own_attractor(&self, id: &str) -> Option<AttractorView> {
        let (attractor, at) = self.newest.attractor.as_ref()?;
        let id = attractor.id.clone().filter(|own| own == id)?;
        let number = |fraction: Option<Fraction>| fraction.map(Fraction::value);
        let phase = attractor.phase.as_deref();
        Some(AttractorView {
            r#type: attractor.kind.or(self.identity.attractor_type),
            stability_index: number(self.newest.vitals.psi),
            phase_stability_delta: number(self.newest.vitals.psd),
            drift_index: self.drift_index(),
            lifecycle_state: phase.and_then(LifecycleState::of_phase),
            stability: number(attractor.stability),
            scr: self.newest.parts.map(|parts| parts.scr.value()),
            ..AttractorView::unknown(id, self.identity.runtime_id.clone(), *at)
        })
    }
}

/// As the outbox has it in its books.
fn target_view(
    target: RuntimeId,
    authorised: bool,
    departure: Departure,
    ledger: &Ledger,
) -> TargetView {
    let (seq, stream_seq) = departure.stored.unzip();
    let (barrier, barrier_at) = departure.closing.unzip();
    let stored_at = departure.stored_at;
    let Ledger { stored, superseded, held, throttled, revoked, failed, shadow, pending, .. } =
        *ledger;
    let ends = EndsView { stored, superseded, held, throttled, revoked, failed, shadow };
    TargetView {
        target,
        authorised,
        stream_seq,
        stored_at,
        seq,
        pending,
        ends,
        barrier,
        barrier_at,
    }
}

fn external(source: &RuntimeId, payload: &Payload, sent: Timestamp) -> AttractorView {
    let attractor = &payload.attractor_state;
    AttractorView {
        external: true,
        r#type: Some(attractor.kind),
        drift_index: Some(payload.di.value()),
        lifecycle_state: LifecycleState::of_phase(&attractor.phase),
        stability: Some(attractor.stability.value()),
        scr: Some(payload.drift.scr.value()),
        ..AttractorView::unknown(attractor.id.clone(), source.clone(), sent)
    }
}
