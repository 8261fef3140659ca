//! The open connections of one listener, and which of them makes way when a place is needed.
//!
//! Sockets that do nothing must not keep out who has something to say: a probe that finds no place
//! restarts the pod. So the one that has been idle for longest is closed, first among those that
//! never asked anything. A connection whose request is being handled is never closed.

use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::task::{AbortHandle, Id, JoinSet};

/// What [`Activity::idle_since`] is while a request is handled.
const BUSY: u64 = u64::MAX;
/// A longer answer may take a while to be read: its connection is busy until hyper has all of it.
const BRIEF_BYTES_MAX: u64 = 16 * 1024;

/// What one connection does.
#[derive(Debug)]
pub(super) struct Activity {
    /// A turn of the listener's count, or [`BUSY`]. Turns order better than a clock and cost less.
    idle_since: AtomicU64,
    /// Whether any request has come; with `idle_since` it says who goes first.
    asked: AtomicU64,
    turns: Arc<AtomicU64>,
}

impl Activity {
    /// A request has come: the connection is busy until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.asked.store(1, Ordering::Relaxed);
        self.idle_since.store(BUSY, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// While it lives, its connection is busy. HTTP/1 has one request at a time.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    /// Keeps the connection busy until a long answer is handed over.
    pub(super) fn through(self, response: Response) -> Response {
        if response.body().size_hint().upper().is_some_and(|bytes| bytes <= BRIEF_BYTES_MAX) {
            return response;
        }
        response.map(|body| Body::new(Held { body, _busy: self }))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let turn = self.0.turns.fetch_add(1, Ordering::Relaxed);
        self.0.idle_since.store(turn, Ordering::Relaxed);
    }
}

/// A body whose connection is busy.
struct Held {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The tasks of all connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Arc<Activity>)>,
    turns: Arc<AtomicU64>,
}

impl Connections {
    /// Makes a place below `connections_max`, if that takes no more than closing an idle
    /// connection.
    pub(super) fn make_room(&mut self, connections_max: usize) -> bool {
        if self.open.len() < connections_max {
            return true;
        }
        let rank = |activity: &Activity| {
            let idle_since = activity.idle_since.load(Ordering::Relaxed);
            (idle_since != BUSY).then(|| (activity.asked.load(Ordering::Relaxed), idle_since))
        };
        let ranked =
            self.open.iter().filter_map(|(id, (_, activity))| Some((rank(activity)?, *id)));
        let Some((_, id)) = ranked.min_by_key(|(rank, _)| *rank) else { return false };
        if let Some((task, _)) = self.open.remove(&id) {
            task.abort();
        }
        true
    }

    /// Runs one more connection.
    pub(super) fn spawn<F>(&mut self, converse: impl FnOnce(Arc<Activity>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity {
            idle_since: AtomicU64::new(turn),
            asked: AtomicU64::new(0),
            turns: Arc::clone(&self.turns),
        });
        let task = self.tasks.spawn(converse(Arc::clone(&activity)));
        self.open.insert(task.id(), (task, activity));
    }

    /// Waits for one to end; `None` when there is none.
    ///
    /// # Cancel safety
    /// Safe: an end that was not returned is returned next time.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let id = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        self.open.remove(&id);
        Some(())
    }

    /// Cuts off what is open, and says how many that were.
    pub(super) async fn cut(mut self) -> usize {
        let count = self.open.len();
        self.tasks.shutdown().await;
        count
    }
}
