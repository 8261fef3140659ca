//! What is asked of the worker; each with a place for its answer.
//!
//! What deliberately is not here: doing it.

use tokio::sync::oneshot;

use super::Which;
use super::fetch::{FetchFault, Item};
use super::spool::Stored;
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::Plain;

/// What others want of the worker.
#[derive(Debug)]
pub(super) enum Job {
    /// Tell when this one is stored.
    Watch { seq: u64, answer: oneshot::Sender<Stored> },
    /// Fetch one.
    Fetch {
        source: RuntimeId,
        which: Which,
        answer: oneshot::Sender<Result<(String, Plain), FetchFault>>,
    },
    /// List a source.
    List { source: RuntimeId, answer: oneshot::Sender<Result<Vec<Item>, FetchFault>> },
    /// Let go of what retention does not keep.
    Collect { answer: oneshot::Sender<()> },
}
