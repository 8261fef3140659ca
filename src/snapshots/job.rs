//! What is asked of the worker; each with a place for its answer.
//!
//! What deliberately is not here: doing it.

use tokio::sync::oneshot;

use super::Which;
use super::fetch::{FetchFault, Item};
use super::spool::Stored;
use crate::protocol::envelope::Admission;
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::Plain;

/// What a fetch has brought.
#[derive(Debug)]
pub struct Fetched {
    /// Its number.
    pub seq: u64,
    /// Media type of the plain bytes.
    pub media_type: String,
    /// The plain bytes.
    pub plain: Plain,
    /// Under what a peer's is taken.
    pub admission: Option<Admission>,
}

/// What others want of the worker.
#[derive(Debug)]
pub(super) enum Job {
    /// Tell when this one is stored.
    Watch { seq: u64, answer: oneshot::Sender<Stored> },
    /// Fetch one.
    Fetch { source: RuntimeId, which: Which, answer: oneshot::Sender<Result<Fetched, FetchFault>> },
    /// List a source.
    List { source: RuntimeId, answer: oneshot::Sender<Result<Vec<Item>, FetchFault>> },
    /// Let go of what retention does not keep.
    Collect { answer: oneshot::Sender<()> },
}
