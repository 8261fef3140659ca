//! Why the driver does not answer, or not with what was asked for.

use super::NEXT_TIMEOUT;
use crate::protocol::bridge::{GateState, TRACES_MAX};
use crate::protocol::profile::Malformed;

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
    /// No such peer.
    #[error("{0} is no peer")]
    Unknown(String),
    /// No attractor of that id, neither our newest one nor a peer's.
    #[error("no attractor of this id is known")]
    NoAttractor,
    /// The report is not one of those that are kept.
    #[error("this report is not among the newest {TRACES_MAX}")]
    NotKept,
    /// No report came in time.
    #[error("no report came within {NEXT_TIMEOUT:?}")]
    NoneCame,
    /// The broker is away or does not say.
    #[error("the broker says nothing of the fleet now")]
    NoBroker,
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a report got no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    /// The report breaks its profile: 422, and the gate is closed by it.
    #[error("{malformed}")]
    Malformed {
        /// Where.
        malformed: Malformed,
        /// Where the gate stands now.
        state: GateState,
    },
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
