//! The books as metrics. Names are part of the interface; each is listed in the README.

use super::{Books, BrokerState};
use crate::protocol::gate::Band;
use crate::telemetry::{Distribution, Exposition, Family};

/// A count as a metric value. Counts fit an f64 exactly up to 2^53; no counter here gets there.
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "exact up to 2^53")]
pub fn number(count: u64) -> f64 {
    count as f64
}

fn counter(name: &'static str, help: &'static str, count: u64) -> Family {
    Family { name, help, labels: &[], rows: vec![(Vec::new(), number(count))], is_counter: true }
}

fn counters(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    rows: impl Iterator<Item = (Vec<String>, u64)>,
) -> Family {
    let rows = rows.map(|(words, count)| (words, number(count))).collect();
    Family { name, help, labels, rows, is_counter: true }
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Family {
    Family { name, help, labels: &[], rows: vec![(Vec::new(), value)], is_counter: false }
}

impl Books {
    /// Whether the books of every target add up (P8).
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.ledgers.iter().all(|(_, ledger)| ledger.is_balanced())
    }

    /// What `/metrics` shows.
    #[must_use]
    pub fn exposition(&self) -> Exposition {
        let mut families = self.traffic();
        families.extend(self.state());
        Exposition {
            families,
            distributions: vec![Distribution {
                name: "closing_seconds",
                help: "From closing verdict to confirmed silence",
                histogram: self.closings.clone(),
            }],
        }
    }

    fn traffic(&self) -> Vec<Family> {
        let packets = self.ledgers.iter().flat_map(|(target, ledger)| {
            [
                ("stored", ledger.stored),
                ("superseded", ledger.superseded),
                ("held", ledger.held),
                ("throttled", ledger.throttled),
                ("revoked", ledger.revoked),
                ("failed", ledger.failed),
            ]
            .map(|(status, count)| (vec![target.to_string(), status.to_owned()], count))
        });
        let reports =
            self.ledgers.iter().map(|(target, ledger)| (vec![target.to_string()], ledger.reports));
        let pending = self
            .ledgers
            .iter()
            .map(|(target, ledger)| (vec![target.to_string()], number(ledger.pending)))
            .collect();
        let verdicts = self.verdicts.iter().map(|(word, count)| (vec![(*word).to_owned()], *count));
        let refused =
            self.refused.iter().map(|(fault, count)| (vec![fault.word().to_owned()], *count));
        let delivered =
            self.delivered.iter().map(|(word, count)| (vec![(*word).to_owned()], *count));
        vec![
            counters("reports", "Reports by verdict", &["verdict"], verdicts),
            counter("reports_malformed", "Reports that could not be read", self.counters.malformed),
            counters("target_reports", "Reports that were to go to a target", &["target"], reports),
            counters("packets", "Packets by how they ended", &["target", "status"], packets),
            Family {
                name: "packets_pending",
                help: "Packets unsent or unacknowledged",
                labels: &["target"],
                rows: pending,
                is_counter: false,
            },
            counter("inbound_accepted", "Packets accepted from peers", self.counters.accepted),
            counter("inbound_redelivered", "Packets seen again", self.counters.redelivered),
            counters("inbound_refused", "Refused inbound packets", &["fault"], refused),
            counter("inbound_quarantined", "Refused packets kept", self.quarantined),
            counters("deliveries", "Deliveries to the runtime", &["outcome"], delivered),
        ]
    }

    fn state(&self) -> Vec<Family> {
        let flag = |is_set: bool| if is_set { 1.0 } else { 0.0 };
        let bands = [Band::Open, Band::Caution, Band::Blocked, Band::Isolated];
        let band_rows =
            bands.map(|band| (vec![band.word().to_owned()], flag(band == self.band))).to_vec();
        vec![
            Family {
                name: "band",
                help: "1 for the present band",
                labels: &["band"],
                rows: band_rows,
                is_counter: false,
            },
            gauge("drift_index", "Gate value of the newest report", self.di.unwrap_or(f64::NAN)),
            counter("transitions", "Changes of band", self.counters.transitions),
            counters(
                "closings",
                "Closings by whether the broker confirmed the silence",
                &["barrier"],
                [
                    (vec!["confirmed".to_owned()], self.counters.confirmed),
                    (vec!["unconfirmed".to_owned()], self.counters.unconfirmed),
                ]
                .into_iter(),
            ),
            counter(
                "inspection_failed",
                "Packets that failed inspection though the gate was open",
                self.counters.inspection_failed,
            ),
            counter(
                "message_id_alarms",
                "First attempts that the stream called duplicates",
                self.duplicate_alarms,
            ),
            gauge(
                "broker_connected",
                "1 while connected",
                flag(self.broker == BrokerState::Connected),
            ),
            counter("broker_connections", "Connections made", self.connections),
            gauge("audit_seq", "Newest line of the audit log", number(self.audit_seq)),
            counter("audit_lost", "Events without an audit line", self.audit_lost),
            gauge("books_balanced", "1 while the books add up", flag(self.is_balanced())),
        ]
    }
}
