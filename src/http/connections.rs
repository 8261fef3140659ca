//! The open connections of one listener, and which of them makes way when a place is needed.
//!
//! Sockets that do nothing must not keep out who has something to say: a probe that finds no place
//! restarts the pod. So the one that has kept us waiting for longest is closed: first among those
//! that never asked anything, then among those that ask nothing more, last among those whose body
//! does not come. A connection whose request has arrived and is being handled is never closed.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};

/// What [`Activity::waiting_since`] is while a request is handled.
const BUSY: u64 = u64::MAX;
/// A longer answer may take a while to be read: its connection is busy until hyper has all of it.
const BRIEF_BYTES_MAX: u64 = 16 * 1024;

/// What goes on over a connection after HTTP.
type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What one connection does.
pub(super) struct Activity {
    /// Since when we wait for the client: a turn of the listener's count, or [`BUSY`]. Turns order
    /// better than a clock and cost less.
    waiting_since: AtomicU64,
    /// What we wait for, one of the constants below; the lowest goes first.
    waiting_for: AtomicU64,
    turns: Arc<AtomicU64>,
    /// Left by the answer that switched protocols, taken when hyper has let go of the connection.
    session: Mutex<Option<Session>>,
    /// The client is to be hung up on.
    hang_up: Notify,
}

/// The connection that a request came over, among the request's extensions.
#[derive(Clone)]
pub(super) struct OpenConnection(pub(super) Arc<Activity>);

impl OpenConnection {
    /// Goes on with this when the answer that switches protocols is written.
    pub(super) fn go_on(&self, session: impl Future<Output = ()> + Send + 'static) {
        let mut place = self.0.session.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Box::pin(session));
    }

    /// Ends the connection, whatever is being written.
    pub(super) fn hang_up(&self) {
        self.0.hang_up.notify_one();
    }
}

const FIRST_REQUEST: u64 = 0;
const NEXT_REQUEST: u64 = 1;
const BODY: u64 = 2;

impl Activity {
    /// A request has come: the connection is busy until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.waiting_since.store(BUSY, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Goes on after HTTP, if that is what was agreed. The connection is busy meanwhile.
    pub(super) async fn go_on(self: &Arc<Self>) {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = session {
            let _busy = self.begin();
            session.await;
        }
    }

    /// Done when the client is to be hung up on.
    pub(super) async fn hung_up(&self) {
        self.hang_up.notified().await;
    }

    fn wait_for(&self, what: u64) {
        self.waiting_for.store(what, Ordering::Relaxed);
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        self.waiting_since.store(turn, Ordering::Relaxed);
    }
}

/// While it lives, its connection is busy. HTTP/1 has one request at a time.
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
        self.0.wait_for(NEXT_REQUEST);
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

/// The body of a request. From the first wait for it until its end, a trickle in between included,
/// it is the client that keeps us waiting.
pub(super) struct Arriving {
    body: Incoming,
    activity: Arc<Activity>,
    has_waited: bool,
}

impl Arriving {
    pub(super) fn new(body: Incoming, activity: Arc<Activity>) -> Self {
        Self { body, activity, has_waited: false }
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_pending() && !self.has_waited {
            self.has_waited = true;
            self.activity.wait_for(BODY);
        }
        let is_over = matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.is_end_stream();
        if is_over && self.has_waited {
            self.has_waited = false;
            self.activity.waiting_since.store(BUSY, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The tasks of all connections.
#[derive(Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Arc<Activity>)>,
    turns: Arc<AtomicU64>,
}

impl Connections {
    /// Makes a place below `connections_max`, if that takes no more than closing a connection that
    /// keeps us waiting.
    pub(super) fn make_room(&mut self, connections_max: usize) -> bool {
        if self.open.len() < connections_max {
            return true;
        }
        let rank = |activity: &Activity| {
            let since = activity.waiting_since.load(Ordering::Relaxed);
            (since != BUSY).then(|| (activity.waiting_for.load(Ordering::Relaxed), since))
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
            waiting_since: AtomicU64::new(turn),
            waiting_for: AtomicU64::new(FIRST_REQUEST),
            turns: Arc::clone(&self.turns),
            session: Mutex::new(None),
            hang_up: Notify::new(),
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
