//! What the driver counted, gathered for one scrape.

use strum::VariantArray as _;

use super::{Band, Books, Decision, Driver};
use crate::driver::ReadFault;
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::refusal::Fault;
use crate::protocol::view::Transition;

impl Driver {
    /// Counts a verdict that was answered.
    pub(super) fn count(&mut self, verdict: Decision) {
        *self.verdicts.entry(verdict).or_default() += 1;
    }

    /// What is shown of peers; nothing while isolated (P4).
    pub(super) fn unless_isolated<T>(&self, view: Result<T, ReadFault>) -> Result<T, ReadFault> {
        if self.bridge.band() == Band::Isolated { Err(ReadFault::Isolated) } else { view }
    }

    /// Counts why the gate closed, or closed further.
    pub(super) fn count_reasons(&mut self, transition: &Transition) {
        if transition.to.is_closed() && transition.to > transition.from {
            for reason in &transition.reasons {
                *self.closing_reasons.entry(reason.word()).or_default() += 1;
            }
        }
    }

    /// Moves the closing times out of the bridge. Called in every turn, so that they are few there
    /// even where nobody scrapes.
    pub(super) fn count_closings(&mut self) {
        for time in self.bridge.take_closing_times() {
            self.closings.observe(time.as_secs_f64());
        }
    }

    pub(super) fn books(&mut self) -> Books {
        self.count_closings();
        let now = self.clock.now();
        let in_mode = |mode: &ExchangeMode| {
            let peers = self.bridge.standings(now).filter(|(_, (standing, _))| standing == mode);
            (*mode, peers.fold(0, |count, _| count + 1))
        };
        let counted = |word| (<&str>::from(word), *self.verdicts.get(word).unwrap_or(&0));
        Books {
            ledgers: self.bridge.ledgers().map(|(id, ledger)| (id.clone(), *ledger)).collect(),
            counters: self.bridge.counters(),
            verdicts: Decision::VARIANTS.iter().map(counted).collect(),
            band_since: self.bridge.band_since(),
            peers: ExchangeMode::VARIANTS.iter().map(in_mode).collect(),
            operator_hold: self.holds.any(),
            thresholds: self.bridge.thresholds(),
            closing_reasons: self.closing_reasons.clone(),
            silence: self.bridge.silence(now),
            received: self.bridge.received().map(|(peer, at)| (peer.clone(), at)).collect(),
            away: self.connector.away(),
            questions_dropped: self.service.dropped(),
            publish_refused: self.publish_refused.clone(),
            // Those at 0 too: the first one of its kind is then a rise, which an alert sees.
            refused: Fault::VARIANTS
                .iter()
                .map(|fault| (*fault, *self.receiver.refused.get(fault).unwrap_or(&0)))
                .collect(),
            quarantined: self.receiver.quarantine.kept,
            quarantine_lost: self.receiver.quarantine.lost,
            band: self.bridge.band(),
            drift: self.bridge.drift_metrics(),
            drift_source: self.bridge.drift_source(),
            broker: self.connector.state(),
            connections: self.connector.connections(),
            closings: self.closings.clone(),
            latencies: self.receiver.latencies.clone(),
            duplicate_alarms: self.bridge.duplicate_alarms(),
            frames_sent: self.frames.sent,
            frames_accepted: self.frames.accepted,
            frames_refused: self.frames.refused.clone(),
            delivered: self.receiver.deliveries(),
            audit_seq: self.recorder.seq(),
            audit_lost: self.recorder.lost(),
        }
    }
}
