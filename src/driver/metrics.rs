//! The books as metrics. Names are part of the interface; `docs/metrics.md` lists them.

use std::collections::BTreeMap;
use std::time::Duration;

use strum::VariantArray as _;

use super::inbound::LATENCY_BUCKETS_S;
use super::{Books, BrokerState, CLOSING_BUCKETS_S};
use crate::deliver::Counts;
use crate::protocol::bridge::Counters;
use crate::protocol::drift::Provenance;
use crate::protocol::envelope::Ruling;
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::gate::{Band, Thresholds};
use crate::protocol::outbox::Ledger;
use crate::protocol::refusal::Fault;
use crate::protocol::time::Timestamp;
use crate::protocol::view::{Decision, DriftView};
use crate::telemetry::{Distribution, Exposition, Family, Histogram, number};

/// Targets that have labels of their own; what there are more is added up under [`OTHER`].
const TARGET_LABELS_MAX: usize = 100;
/// A target of this name shares its label.
const OTHER: &str = "other";

/// A time as Prometheus takes it, in seconds since 1970.
fn seconds(at: Timestamp) -> f64 {
    number(at.unix_us()) / 1e6
}

/// Those of a sidecar that has just begun: every metric, nothing counted.
impl Default for Books {
    fn default() -> Self {
        Self {
            ledgers: Vec::new(),
            counters: Counters::default(),
            verdicts: Decision::VARIANTS.iter().map(|word| (word.into(), 0)).collect(),
            refused: Fault::VARIANTS.iter().map(|fault| (*fault, 0)).collect(),
            quarantined: 0,
            quarantine_lost: 0,
            band: Band::Blocked,
            band_since: Timestamp::default(),
            operator_hold: false,
            thresholds: Thresholds::default(),
            closing_reasons: BTreeMap::new(),
            silence: Duration::ZERO,
            received: Vec::new(),
            away: Duration::ZERO,
            questions_dropped: BTreeMap::new(),
            peers: ExchangeMode::VARIANTS.iter().map(|mode| (*mode, 0)).collect(),
            publish_refused: BTreeMap::new(),
            drift: DriftView::default(),
            drift_source: Provenance::WORDS[0],
            broker: BrokerState::Connecting,
            connections: 0,
            closings: Histogram::new(CLOSING_BUCKETS_S),
            latencies: Histogram::new(LATENCY_BUCKETS_S),
            duplicate_alarms: 0,
            frames_sent: 0,
            frames_accepted: 0,
            frames_refused: BTreeMap::new(),
            delivered: Counts::default(),
            audit_seq: 0,
            audit_lost: 0,
        }
    }
}

impl Books {
    /// The books of every target, as far as there are labels.
    fn labelled(&self) -> Vec<(String, Ledger)> {
        let (own, more) = self.ledgers.split_at(self.ledgers.len().min(TARGET_LABELS_MAX));
        let mut labelled: Vec<_> = own.iter().map(|(id, books)| (id.to_string(), *books)).collect();
        if !more.is_empty() {
            let sum = more.iter().fold(Ledger::default(), |sum, (_, books)| sum.plus(books));
            labelled.push((OTHER.to_owned(), sum));
        }
        labelled
    }

    /// Whether the books of every target add up (P8).
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.ledgers.iter().all(|(_, ledger)| ledger.is_balanced())
    }

    /// What `/metrics` shows.
    #[must_use]
    pub fn exposition(&self) -> Exposition {
        let mut families = self.traffic();
        families.extend(self.inbound());
        families.extend(self.exchanges());
        families.extend(self.state());
        families.extend(self.ages());
        Exposition {
            families,
            distributions: vec![
                Distribution {
                    name: "closing_seconds",
                    help: "From closing verdict to confirmed silence",
                    histogram: self.closings.clone(),
                },
                Distribution {
                    name: "exchange_seconds",
                    help: "From the sealing of a peer's packet to its acceptance, by both clocks",
                    histogram: self.latencies.clone(),
                },
            ],
        }
    }

    fn traffic(&self) -> Vec<Family> {
        let ledgers = self.labelled();
        let packets = ledgers.iter().flat_map(|(target, ledger)| {
            [
                ("stored", ledger.stored),
                ("superseded", ledger.superseded),
                ("held", ledger.held),
                ("throttled", ledger.throttled),
                ("revoked", ledger.revoked),
                ("failed", ledger.failed),
                ("shadow", ledger.shadow),
            ]
            .map(|(status, count)| (vec![target.to_string(), status.to_owned()], count))
        });
        let refused = self.publish_refused.iter();
        let refused = refused.map(|(reason, count)| (vec![(*reason).to_owned()], *count));
        let reports =
            ledgers.iter().map(|(target, ledger)| (vec![target.to_string()], ledger.reports));
        let pending = ledgers
            .iter()
            .map(|(target, ledger)| (vec![target.to_string()], number(ledger.pending)))
            .collect();
        let verdicts = self.verdicts.iter().map(|(word, count)| (vec![(*word).to_owned()], *count));
        vec![
            Family::counters("reports", "Reports by verdict", &["verdict"], verdicts),
            Family::counter(
                "report_retries",
                "Reports that only repeated the newest one",
                self.counters.retries,
            ),
            Family::counter(
                "cycle_gaps",
                "Reports whose cycle number left some out",
                self.counters.cycle_gaps,
            ),
            Family::counter(
                "reports_malformed",
                "Reports that could not be read",
                self.counters.malformed,
            ),
            Family::counters(
                "target_reports",
                "Reports that were to go to a target",
                &["target"],
                reports,
            ),
            Family::counters(
                "packets",
                "Packets by how they ended",
                &["target", "status"],
                packets,
            ),
            Family::counters(
                "publish_refused",
                "Publishes that the broker did not take",
                &["reason"],
                refused,
            ),
            Family::gauges(
                "packets_pending",
                "Packets unsent or unacknowledged",
                &["target"],
                pending,
            ),
        ]
    }

    fn inbound(&self) -> Vec<Family> {
        let refused =
            self.refused.iter().map(|(fault, count)| (vec![fault.word().to_owned()], *count));
        let frames_refused = self.frames_refused.iter();
        let frames_refused =
            frames_refused.map(|(fault, count)| (vec![fault.word().to_owned()], *count));
        let Counts { done, superseded, given_up, failed } = &self.delivered;
        let delivered = [("done", done), ("superseded", superseded), ("given_up", given_up)]
            .map(|(word, count)| (vec![word.to_owned()], *count));
        let failed = failed.iter().map(|(reason, count)| (vec![(*reason).to_owned()], *count));
        let dropped = self.questions_dropped.iter();
        let dropped = dropped.map(|(reason, count)| (vec![(*reason).to_owned()], *count));
        vec![
            Family::counters(
                "questions_dropped",
                "Questions on core NATS that got no answer",
                &["reason"],
                dropped,
            ),
            Family::counter(
                "inbound_accepted",
                "Packets accepted from peers",
                self.counters.accepted,
            ),
            Family::counter("inbound_redelivered", "Packets seen again", self.counters.redelivered),
            Family::counters("inbound_refused", "Refused inbound packets", &["fault"], refused),
            Family::counter("frames_sent", "Phase frames sent to peers", self.frames_sent),
            Family::counter(
                "frames_accepted",
                "Phase frames of peers accepted",
                self.frames_accepted,
            ),
            Family::counters(
                "frames_refused",
                "Phase frames of peers refused",
                &["fault"],
                frames_refused,
            ),
            Family::counter("inbound_quarantined", "Refused packets kept", self.quarantined),
            Family::counter(
                "inbound_quarantine_lost",
                "Refused packets not kept",
                self.quarantine_lost,
            ),
            Family::counters(
                "deliveries",
                "Deliveries to the runtime",
                &["outcome"],
                delivered.into_iter(),
            ),
            Family::counters(
                "delivery_failed",
                "Failed attempts to deliver, and packets barred before one",
                &["reason"],
                failed,
            ),
        ]
    }

    fn ages(&self) -> Vec<Family> {
        let (own, more) = self.received.split_at(self.received.len().min(TARGET_LABELS_MAX));
        let mut received: Vec<_> =
            own.iter().map(|(peer, at)| (vec![peer.to_string()], seconds(*at))).collect();
        if let Some(newest) = more.iter().map(|(_, at)| *at).max() {
            received.push((vec![OTHER.to_owned()], seconds(newest)));
        }
        let version = vec![env!("CARGO_PKG_VERSION").to_owned()];
        let mut away = Family::counter(
            "broker_outage_seconds",
            "Time without a connection to the broker since the start",
            0,
        );
        away.rows = vec![(Vec::new(), self.away.as_secs_f64())];
        vec![
            Family::gauge(
                "report_age_seconds",
                "Time since the newest valid report; since the start, before the first one",
                self.silence.as_secs_f64(),
            ),
            Family::gauges(
                "peer_received_seconds",
                "When the newest packet of a peer was accepted, in seconds since 1970",
                &["peer"],
                received,
            ),
            away,
            Family::gauges(
                "threshold",
                "Drift index from which the gate stays open no more, blocks, isolates",
                &["mark"],
                [
                    ("reopen", self.thresholds.reopen),
                    ("block", self.thresholds.block),
                    ("isolate", self.thresholds.isolate),
                ]
                .map(|(mark, index)| (vec![mark.to_owned()], index))
                .to_vec(),
            ),
            Family::counters(
                "closing_reasons",
                "Closings, and cuts further, by each of their reasons",
                &["reason"],
                self.closing_reasons
                    .iter()
                    .map(|(reason, count)| (vec![(*reason).to_owned()], *count)),
            ),
            Family::gauges(
                "build_info",
                "1 for the version that runs",
                &["version"],
                vec![(version, 1.0)],
            ),
        ]
    }

    /// From these follow acceptance, quarantine and completeness of provenance as SRIP-17 section
    /// IX has them.
    fn exchanges(&self) -> [Family; 2] {
        let refused = |verdict: Ruling| {
            let of = self.refused.iter().filter(|(fault, _)| Ruling::of(*fault) == verdict);
            of.map(|(_, count)| count).sum()
        };
        let Counters { accepted, narrowed, enveloped, .. } = self.counters;
        let verdicts = [
            (Ruling::Accept, accepted.saturating_sub(narrowed)),
            (Ruling::Narrow, narrowed),
            (Ruling::Quarantine, refused(Ruling::Quarantine)),
            (Ruling::Reject, refused(Ruling::Reject)),
        ];
        let provenance = [("signed", enveloped), ("unsigned", accepted.saturating_sub(enveloped))];
        [
            Family::counters(
                "exchanges",
                "Packets of peers by what became of them",
                &["verdict"],
                verdicts.into_iter().map(|(ruling, count)| (vec![ruling.word().into()], count)),
            ),
            Family::counters(
                "exchange_provenance",
                "Accepted packets by whether their provenance is signed",
                &["provenance"],
                provenance.into_iter().map(|(word, count)| (vec![word.into()], count)),
            ),
        ]
    }

    fn drift_rows(&self) -> Vec<(Vec<String>, f64)> {
        let DriftView { sdi, sv, pd, scr, di } = self.drift;
        let rows = [("sdi", sdi), ("sv", sv), ("pd", pd), ("scr", scr), ("di", di)];
        rows.into_iter().filter_map(|(word, value)| Some((vec![word.to_owned()], value?))).collect()
    }

    fn source_rows(&self) -> Vec<(Vec<String>, f64)> {
        let is_it = |word: &str| if word == self.drift_source { 1.0 } else { 0.0 };
        Provenance::WORDS.map(|word| (vec![word.to_owned()], is_it(word))).to_vec()
    }

    fn state(&self) -> Vec<Family> {
        let flag = |is_set: bool| if is_set { 1.0 } else { 0.0 };
        let bands = [Band::Open, Band::Caution, Band::Blocked, Band::Isolated];
        let band_rows =
            bands.map(|band| (vec![band.word().to_owned()], flag(band == self.band))).to_vec();
        let peers = self.peers.iter();
        let peers = peers.map(|(mode, count)| (vec![mode.word().to_owned()], number(*count)));
        vec![
            Family::gauges("band", "1 for the present band", &["band"], band_rows),
            Family::gauge(
                "band_since_seconds",
                "When the present band began, in seconds since 1970",
                seconds(self.band_since),
            ),
            Family::gauge("operator_hold", "1 while an operator holds", flag(self.operator_hold)),
            Family::gauges(
                "peers",
                "Configured peers by mode of exchange",
                &["mode"],
                peers.collect(),
            ),
            Family::gauge(
                "drift_index",
                "Gate value of the newest report",
                self.drift.di.unwrap_or(f64::NAN),
            ),
            Family::gauges(
                "drift_metric",
                "Drift metrics of the newest report, those that it has",
                &["metric"],
                self.drift_rows(),
            ),
            Family::gauges(
                "drift_source",
                "1 for where the newest report's drift metrics came from",
                &["source"],
                self.source_rows(),
            ),
            Family::counter("transitions", "Changes of band", self.counters.transitions),
            Family::counters(
                "closings",
                "Closings by whether the broker confirmed the silence",
                &["barrier"],
                [
                    (vec!["confirmed".to_owned()], self.counters.confirmed),
                    (vec!["unconfirmed".to_owned()], self.counters.unconfirmed),
                ]
                .into_iter(),
            ),
            Family::counter(
                "inspection_failed",
                "Packets that failed inspection though the gate was open",
                self.counters.inspection_failed,
            ),
            Family::counter(
                "message_id_alarms",
                "First attempts that the stream called duplicates",
                self.duplicate_alarms,
            ),
            Family::gauge(
                "broker_connected",
                "1 while connected",
                flag(self.broker == BrokerState::Connected),
            ),
            Family::counter("broker_connections", "Connections made", self.connections),
            Family::gauge("audit_seq", "Newest line of the audit log", number(self.audit_seq)),
            Family::counter("audit_lost", "Events without an audit line", self.audit_lost),
            Family::gauge("books_balanced", "1 while the books add up", flag(self.is_balanced())),
        ]
    }
}
