//! The one task that owns the bridge.

use crate::protocol::canonical::Json;
use crate::protocol::packet::RuntimeId;
use crate::protocol::profile::Malformed;
use crate::protocol::view::{FieldState, PeerState, ReportReply, SafetyView};

/// The driver's queue is full, it is draining, or it did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Too many reports are waiting: try again after the given number of seconds.
    #[error("overloaded: try again in {0} s")]
    Overloaded(u32),
    /// The sidecar is stopping.
    #[error("stopping")]
    Stopping,
}

/// What `GET /field/state` and friends may answer instead of state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFault {
    /// The gate is isolated: nothing inbound reaches the runtime (P4).
    #[error("isolated: nothing inbound is shown until the gate reopens")]
    Isolated,
    /// No such peer, or nothing accepted from it yet.
    #[error("nothing accepted from {0}")]
    Unknown(String),
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a report got no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    /// The report breaks its profile: 422, and the gate is closed by it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Asks the driver. Cheap to clone; every call has a bounded answer time (P10).
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// Reports one cycle, parsed but not yet translated.
    ///
    /// # Errors
    /// [`ReportFault`].
    pub async fn report(&self, document: Json) -> Result<ReportReply, ReportFault> {
        let _ = document;
        Err(Unavailable::Stopping.into())
    }

    /// Tells the driver that a report arrived that is not even a document; it closes the gate (P6).
    /// Never waits.
    pub fn unreadable(&self) {}

    /// Own posture and the newest accepted packet of each peer.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn field_state(&self) -> Result<FieldState, ReadFault> {
        Err(Unavailable::Stopping.into())
    }

    /// The newest accepted packet of one peer.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn peer_state(&self, source: RuntimeId) -> Result<PeerState, ReadFault> {
        let _ = source;
        Err(Unavailable::Stopping.into())
    }

    /// Thresholds, band, reasons; readable in every band.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn safety(&self) -> Result<SafetyView, Unavailable> {
        Err(Unavailable::Stopping)
    }

    /// Whether the driver's heartbeat is younger than its bound: `/livez`.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        true
    }

    /// What `/readyz` says.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness {
            ready: false,
            broker: BrokerState::Connecting,
            band: crate::protocol::gate::Band::Blocked,
            degraded: Vec::new(),
        }
    }
}

/// Answer to `GET /readyz` (DESIGN section 4).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// Whether reports are accepted.
    pub ready: bool,
    /// The broker connection.
    pub broker: BrokerState,
    /// Present band.
    pub band: crate::protocol::gate::Band,
    /// What weakens a promise, in words.
    pub degraded: Vec<String>,
}

/// State of the broker connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// In use.
    Connected,
    /// First attempt, or reconnecting.
    Connecting,
    /// Attempts fail.
    Disconnected,
}
