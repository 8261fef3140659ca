//! What the driver counted, gathered for one scrape.

use super::{Books, Decision, Driver, Duration};

/// Closing times kept between two scrapes of `/metrics`.
const CLOSINGS_MAX: usize = 4096;

impl Driver {
    pub(super) fn books(&mut self) -> Books {
        let fresh = self.bridge.take_closing_times();
        self.closings_s.extend(fresh.iter().map(Duration::as_secs_f64));
        let excess = self.closings_s.len().saturating_sub(CLOSINGS_MAX);
        self.closings_s.drain(..excess);
        let words = [Decision::Export, Decision::Throttle, Decision::Block, Decision::Isolate];
        let mut verdicts = words.map(|word| (word.word(), 0));
        for ((_, count), total) in verdicts.iter_mut().zip(self.verdicts) {
            *count = total;
        }
        Books {
            ledgers: self.bridge.ledgers().map(|(id, ledger)| (id.clone(), *ledger)).collect(),
            counters: self.bridge.counters(),
            verdicts,
            refused: self.receiver.refused.iter().map(|(fault, count)| (*fault, *count)).collect(),
            quarantined: self.receiver.quarantined,
            band: self.bridge.band(),
            di: self.bridge.drift_index(),
            broker: self.connector.state(),
            connections: self.connector.connections(),
            closings_s: self.closings_s.clone(),
            duplicate_alarms: self.bridge.duplicate_alarms(),
            delivered: [
                ("done", self.receiver.delivered),
                ("superseded", self.receiver.superseded),
                ("declined", self.receiver.declined),
            ],
        }
    }
}
