//! `/memory/snapshot`: push one, read our own and those of peers.
//!
//! What deliberately is not here: the spool, the bucket and the gate (`snapshots.rs`); and ranges:
//! a snapshot is read whole or not at all.

use axum::extract::{Request, State};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::operation::Routes;
use super::problem::{Outcome, Problem};
use super::{ApiState, Backend};
use crate::protocol::digest::Digest;
use crate::snapshots::fetch::FetchFault;
use crate::snapshots::spool::SpoolFault;
use crate::snapshots::{Refused, Snapshots};

mod coding;
mod pull;
mod push;

/// Retry-After of what passes within seconds: a spool that is being read, a broker that is away.
const RETRY_S: u32 = 2;

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new().on(&pull::PULL, pull::<A>).on(&push::PUSH, push::<A>)
}

async fn push<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    let snapshots = snapshots(&state)?;
    let pushed = push::push(&snapshots, state.body.timeout, request).await;
    pushed.inspect_err(|problem| snapshots.count_refused(problem.word()))
}

async fn pull<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    pull::pull(&snapshots(&state)?, request.uri(), request.headers()).await
}

fn snapshots<A: Backend>(state: &ApiState<A>) -> Result<Snapshots, Problem> {
    state.backend.snapshots().ok_or_else(|| {
        Problem::new(Outcome::NoSnapshots, "the spool cannot be used; /readyz says why")
    })
}

/// What a push became.
#[derive(JsonSchema, Serialize)]
struct Receipt {
    digest: Digest,
    seq: u64,
    kind: Option<&'static str>,
    size: u64,
    stored_bytes: Option<u64>,
    base: Option<Digest>,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::NotOpen | Refused::Spool(SpoolFault::Revoked) => Self::new(
                Outcome::NotOpen,
                format!("{detail}; GET /aegida/safety says what would reopen it"),
            ),
            Refused::Isolated | Refused::Fetch(FetchFault::Isolated) => {
                Self::new(Outcome::Isolated, detail)
            }
            Refused::NoReader => Self::new(Outcome::NoReader, detail),
            Refused::NotReady
            | Refused::Busy
            | Refused::Memory(_)
            | Refused::Fetch(FetchFault::Broker(_)) => {
                Self::new(Outcome::NoSnapshots, detail).retry_after(RETRY_S)
            }
            Refused::StoredFull { .. } | Refused::Spool(SpoolFault::Full { .. }) => {
                Self::new(Outcome::SpoolFull, detail)
            }
            Refused::Spool(SpoolFault::TooLarge(_)) => Self::new(Outcome::BodyTooLarge, detail),
            Refused::Spool(SpoolFault::Io(error)) if is_full(&error) => {
                tracing::error!(detail, "the snapshot spool's disk is full");
                Self::new(Outcome::SpoolFull, "the spool's disk is full")
            }
            Refused::Spool(
                SpoolFault::Damaged(_)
                | SpoolFault::Held(_)
                | SpoolFault::Io(_)
                | SpoolFault::Unknown,
            ) => {
                // The path and the disk's words are the operator's to read, in the log.
                tracing::error!(detail, "the snapshot spool failed");
                Self::new(Outcome::NoSnapshots, "the spool's disk fails").retry_after(RETRY_S)
            }
            Refused::Fetch(FetchFault::Unauthorised(_)) => {
                Self::new(Outcome::UnknownPeer, detail).of_field("source")
            }
            Refused::Fetch(FetchFault::Unknown(_)) => Self::new(Outcome::UnknownSnapshot, detail),
            Refused::Fetch(FetchFault::Refused { .. }) => {
                Self::new(Outcome::SnapshotRefused, detail)
            }
            Refused::Fetch(FetchFault::TimedOut) => {
                Self::new(Outcome::SnapshotLate, detail).retry_after(RETRY_S)
            }
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
