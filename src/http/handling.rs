//! Work that outlives its connection: a request that changes something is handled to its end.
//!
//! hyper drops the handling of a request when its client hangs up. That is right for a question;
//! a report or an order whose bytes have arrived takes effect though nobody waits for the answer.
//! So this future, when it is dropped before its end, goes on in a task of its own. While the
//! client stays it costs nothing but its place.

use core::convert::Infallible;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use futures_util::future::{Either, Ready, ready as at_once};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::service::Service as HyperService;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service as _;

use super::Observer;
use super::access::ORDER_PREFIX;
use super::connections::{Activity, Arriving, Busy, OpenConnection};
use super::problem::{Outcome, Problem};
use super::report_stream;

/// Handling ends within seconds.
const RETRY_S: u32 = 1;

/// Handles the requests of one listener.
#[derive(Clone)]
pub(super) struct Handler {
    router: Router,
    observer: Observer,
    places: Arc<Semaphore>,
    /// Of their own: no order waits behind reports.
    order_places: Arc<Semaphore>,
}

impl Handler {
    pub(super) fn new(router: Router, observer: Observer, connections_max: usize) -> Self {
        // As many again may go on without a client; each ends within the driver's answer times.
        let places = connections_max.saturating_mul(2).min(Semaphore::MAX_PERMITS);
        Self {
            router,
            observer,
            places: Arc::new(Semaphore::new(places)),
            order_places: Arc::new(Semaphore::new(places)),
        }
    }

    /// For one connection.
    pub(super) fn of(self, activity: Arc<Activity>) -> ConnectionHandler {
        ConnectionHandler { handler: self, activity }
    }
}

/// Handles the requests of one connection.
pub(super) struct ConnectionHandler {
    handler: Handler,
    activity: Arc<Activity>,
}

impl HyperService<Request<Incoming>> for ConnectionHandler {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Handling, Ready<Result<Response, Infallible>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let activity = Arc::clone(&self.activity);
        let busy = Some(activity.begin());
        let Handler { router, observer, places, order_places } = &self.handler;
        // A question is dropped with its client.
        let place = if request.method().is_safe() {
            None
        } else {
            let is_order = request.uri().path().starts_with(ORDER_PREFIX);
            let places = if is_order { order_places } else { places };
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                let detail = "too many are handled whose clients have hung up";
                let problem = Problem::new(Outcome::Overloaded, detail).retry_after(RETRY_S);
                observer.tell("connection", problem.status());
                return Either::Right(at_once(Ok(problem.into_response())));
            };
            Some(place)
        };
        let headers = request.headers();
        if headers.contains_key(UPGRADE) || report_stream::is_asked_for(headers) {
            request.extensions_mut().insert(OpenConnection(Arc::clone(&activity)));
        }
        let work =
            router.clone().call(request.map(|body| Body::new(Arriving::new(body, activity))));
        Either::Left(Handling { work: Some(work), place, busy })
    }
}

/// The handling of one request; see the module's documentation.
pub(super) struct Handling {
    /// `None` when it is done.
    work: Option<RouteFuture<Infallible>>,
    /// `None`: it ends with its client.
    place: Option<OwnedSemaphorePermit>,
    /// Until there is an answer.
    busy: Option<Busy>,
}

impl Future for Handling {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let Ok(response) = ready!(Pin::new(work).poll(context));
        self.work = None;
        Poll::Ready(Ok(match self.busy.take() {
            Some(busy) => busy.through(response),
            None => response,
        }))
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let (Some(work), Some(place)) = (self.work.take(), self.place.take()) else { return };
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = work.await;
                drop(place);
            });
        }
    }
}
