//! Everything that a driver has counted, at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::BrokerState;
use crate::protocol::bridge::Counters;
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::gate::{Band, Thresholds};
use crate::protocol::outbox::Ledger;
use crate::protocol::packet::RuntimeId;
use crate::protocol::seal::Fault;
use crate::protocol::time::Timestamp;
use crate::protocol::view::DriftView;
use crate::telemetry::Histogram;

/// Upper bounds of the closing-time histogram, in seconds.
pub const CLOSING_BUCKETS_S: [f64; 10] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0];

/// Everything that is counted, for `/metrics` and the tests of P8.
#[derive(Clone, Debug)]
pub struct Books {
    /// Target by target.
    pub ledgers: Vec<(RuntimeId, Ledger)>,
    /// Not per target.
    pub counters: Counters,
    /// Reports by verdict word.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Refused inbound packets by fault.
    pub refused: Vec<(Fault, u64)>,
    /// Refused packets that the quarantine stream has acknowledged.
    pub quarantined: u64,
    /// Refused packets that it has no copy of.
    pub quarantine_lost: u64,
    /// Present band.
    pub band: Band,
    /// Since when.
    pub band_since: Timestamp,
    /// Whether an operator holds.
    pub operator_hold: bool,
    /// The marks in force.
    pub thresholds: Thresholds,
    /// Closings by each of their reasons.
    pub closing_reasons: BTreeMap<&'static str, u64>,
    /// Time since the newest valid report; since the start, before the first one.
    pub silence: Duration,
    /// When the newest packet of each peer was accepted.
    pub received: Vec<(RuntimeId, Timestamp)>,
    /// Time without a connection to the broker.
    pub away: Duration,
    /// Questions on core NATS that got no answer, by reason.
    pub questions_dropped: BTreeMap<&'static str, u64>,
    /// Configured peers by their mode of exchange.
    pub peers: Vec<(ExchangeMode, u64)>,
    /// Publishes that the broker refused, by reason.
    pub publish_refused: BTreeMap<&'static str, u64>,
    /// Drift metrics of the newest report that was judged.
    pub drift: DriftView,
    /// Where they came from.
    pub drift_source: &'static str,
    /// The broker connection.
    pub broker: BrokerState,
    /// Connections made so far.
    pub connections: u64,
    /// Seconds from closing verdict to confirmed silence.
    pub closings: Histogram,
    /// Times from the sealing of a peer's packet to its acceptance.
    pub latencies: Histogram,
    /// Message ids of ours that somebody else had used.
    pub duplicate_alarms: u64,
    /// Phase frames sent to peers.
    pub frames_sent: u64,
    /// Phase frames of peers that were accepted.
    pub frames_accepted: u64,
    /// Phase frames of peers that were refused, by fault.
    pub frames_refused: BTreeMap<Fault, u64>,
    /// Deliveries to the runtime.
    pub delivered: crate::deliver::Counts,
    /// Sequence number of the newest audit line on disk.
    pub audit_seq: u64,
    /// Events that have no audit line, though a line says how many.
    pub audit_lost: u64,
}
