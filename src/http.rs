//! The local interface: decode, ask the driver, encode.
//!
//! Two listeners. The API listener is for the one runtime beside us: every request passes
//! `access` (Host, Origin, token) before it is routed. The admin listener is for probes and
//! scrapers: it has no write route and no secrets, so anybody may ask. Both run under the
//! accept loop of [`server`], because `axum::serve` has no header timeout, no connection cap and no
//! way to say no.
//!
//! What deliberately is not here: verdicts, clocks and state, which are the driver's; and metric
//! names, which are the caller's (see [`Observer`] and [`admin_router`]).
//!
//! A new route is a file with an operation (`operation.rs`) and `routes()`, one line in `routes`
//! here, and nothing else: access, the labels, 404, 405 and `/openapi.json` come with it.

pub mod server;
pub mod listener;
mod handling;
mod connections;
mod write_timeout;
mod field_state;
mod report_stream;
mod handshake;
mod phase_telemetry;
mod websocket;
mod safety;
mod trace;
mod snapshot;
mod operator;
mod admin;
mod console;
pub mod describe;
mod access;
mod document;
mod accept;
mod coding;
mod problem;
mod operation;
mod openapi;
pub mod settings;

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use tokio::sync::Semaphore;
use tower::{ServiceExt, service_fn};

use crate::driver::{
    Handle, OperatorOrder, ReadFault, Readiness, ReportFault, Submission, TraceOf, Unavailable,
};
use crate::protocol::bridge::{Answer, GateState};
use crate::protocol::canonical::Json;
use crate::protocol::exchange::Version;
use crate::protocol::packet::RuntimeId;
use crate::protocol::trace::TraceParent;
use crate::protocol::view::{
    AttractorView, FieldState, FleetView, HandshakeView, OperatorReply, PeerView, ReportReply,
    SafetyView, TraceView,
};
use crate::snapshots::Snapshots;
use crate::telemetry::Feed;

use access::Access;
use document::Budget;
use listener::Bound;
use operation::Routes;
use phase_telemetry::Streams;
use problem::{Outcome, Problem};
use settings::{ApiSettings, BodyLimits, ConsoleSettings, StreamLimits};

/// What the routes ask of the driver. It exists so that the routes can be tested without one; every
/// method is [`Handle`]'s of the same name, and every answer time is bounded there (P10).
pub trait Backend: Clone + Send + Sync + 'static {
    /// See [`Handle::report`].
    fn report(
        &self,
        document: Json,
        trace: Option<TraceParent>,
    ) -> impl Future<Output = Result<ReportReply, ReportFault>> + Send;
    /// See [`Handle::unreadable`].
    fn unreadable(&self) -> impl Future<Output = Result<GateState, Unavailable>> + Send;
    /// See [`Handle::stream`].
    fn stream(
        &self,
        lines: VecDeque<Submission>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
    /// See [`Handle::check`].
    fn check(
        &self,
        document: Option<Json>,
    ) -> impl Future<Output = Result<Answer, Unavailable>> + Send;
    /// See [`Handle::trace`].
    fn trace(&self, which: TraceOf) -> impl Future<Output = Result<TraceView, ReadFault>> + Send;
    /// See [`Handle::operate`].
    fn operate(
        &self,
        order: OperatorOrder,
    ) -> impl Future<Output = Result<OperatorReply, Unavailable>> + Send;
    /// See [`Handle::field_state`].
    fn field_state(&self) -> impl Future<Output = Result<FieldState, ReadFault>> + Send;
    /// See [`Handle::peer_state`].
    fn peer_state(
        &self,
        source: RuntimeId,
    ) -> impl Future<Output = Result<PeerView, ReadFault>> + Send;
    /// See [`Handle::attractor`].
    fn attractor(
        &self,
        id: String,
    ) -> impl Future<Output = Result<AttractorView, ReadFault>> + Send;
    /// See [`Handle::fleet`].
    fn fleet(&self, all: bool) -> impl Future<Output = Result<FleetView, ReadFault>> + Send;
    /// See [`Handle::safety`].
    fn safety(&self) -> impl Future<Output = Result<SafetyView, Unavailable>> + Send;
    /// See [`Handle::handshake`].
    fn handshake(
        &self,
        runtime_id: RuntimeId,
        version: Version,
    ) -> impl Future<Output = Result<HandshakeView, ReadFault>> + Send;
    /// See [`Handle::is_alive`].
    fn is_alive(&self) -> impl Future<Output = bool> + Send;
    /// See [`Handle::readiness`].
    fn readiness(&self) -> Readiness;
    /// See [`Handle::snapshots`].
    fn snapshots(&self) -> Option<Snapshots> {
        None
    }
    /// See [`Handle::feed`].
    fn feed(&self) -> Feed;
}

impl Backend for Handle {
    async fn report(
        &self,
        document: Json,
        trace: Option<TraceParent>,
    ) -> Result<ReportReply, ReportFault> {
        Self::report(self, document, trace).await
    }

    async fn unreadable(&self) -> Result<GateState, Unavailable> {
        Self::unreadable(self).await
    }

    async fn stream(&self, lines: VecDeque<Submission>) -> Result<(), Unavailable> {
        Self::stream(self, lines).await
    }

    async fn check(&self, document: Option<Json>) -> Result<Answer, Unavailable> {
        Self::check(self, document).await
    }

    async fn trace(&self, which: TraceOf) -> Result<TraceView, ReadFault> {
        Self::trace(self, which).await
    }

    async fn operate(&self, order: OperatorOrder) -> Result<OperatorReply, Unavailable> {
        Self::operate(self, order).await
    }

    async fn field_state(&self) -> Result<FieldState, ReadFault> {
        Self::field_state(self).await
    }

    async fn peer_state(&self, source: RuntimeId) -> Result<PeerView, ReadFault> {
        Self::peer_state(self, source).await
    }

    async fn attractor(&self, id: String) -> Result<AttractorView, ReadFault> {
        Self::attractor(self, id).await
    }

    async fn fleet(&self, all: bool) -> Result<FleetView, ReadFault> {
        Self::fleet(self, all).await
    }

    async fn safety(&self) -> Result<SafetyView, Unavailable> {
        Self::safety(self).await
    }

    async fn handshake(
        &self,
        runtime_id: RuntimeId,
        version: Version,
    ) -> Result<HandshakeView, ReadFault> {
        Self::handshake(self, runtime_id, version).await
    }

    async fn is_alive(&self) -> bool {
        Self::is_alive(self).await
    }

    fn readiness(&self) -> Readiness {
        Self::readiness(self)
    }

    fn snapshots(&self) -> Option<Snapshots> {
        Self::snapshots(self).cloned()
    }

    fn feed(&self) -> Feed {
        Self::feed(self).clone()
    }
}

/// Told about every answer: the route's pattern, never the path as sent, and the status.
///
/// Routes that nobody knows are `unmatched`, what may not ask is `access`, what the accept loop
/// turned away is `connection`; so the label set is as small as the route table.
#[derive(Clone)]
#[expect(clippy::type_complexity, reason = "one function, and this type is its name")]
pub struct Observer(Arc<dyn Fn(&str, u16) + Send + Sync>);

impl Observer {
    /// Calls `observe(route, status)` once per answer. It runs on the request's task and must not
    /// block.
    pub fn new(observe: impl Fn(&str, u16) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    fn tell(&self, route: &str, status: StatusCode) {
        (self.0)(route, status.as_u16());
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Observer")
    }
}

/// Gives the whole exposition; `None` when the driver does not answer in time.
pub type Metrics =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync>;

/// What each API handler is given.
#[derive(Clone)]
struct ApiState<A> {
    backend: A,
    body: BodyLimits,
    budget: Budget,
    /// Whether reports come in here.
    reports: bool,
    streams: Streams,
    /// Places of streams of reports.
    report_streams: Arc<Semaphore>,
    stream: StreamLimits,
    stream_budget: Budget,
}

impl<A> ApiState<A> {
    fn new(backend: A, settings: &ApiSettings) -> Self {
        Self {
            backend,
            body: settings.body,
            budget: Budget::new(),
            reports: settings.reports,
            streams: Streams::new(&settings.limits),
            report_streams: Arc::new(Semaphore::new(settings.limits.streams_max())),
            stream: settings.stream,
            stream_budget: Budget::of_streams(),
        }
    }
}

/// The API router for a listener that is bound to `bound` (the port is part of the `Host` that is
/// allowed). What its routes do is at `/openapi.json`.
pub fn api_router<A: Backend>(
    backend: A,
    settings: &ApiSettings,
    bound: &Bound,
    observer: Observer,
) -> Router {
    let routes = finish(routes().router).with_state(ApiState::new(backend, settings));
    let access = Arc::new(Access::new(settings, bound));
    // Access is checked before the router, not inside it: a path trick can at most choose between
    // routes, never walk round the check.
    let entrance = service_fn(move |mut request: Request| {
        let (routes, access, observer) = (routes.clone(), Arc::clone(&access), observer.clone());
        async move {
            let response = match access.check(&request) {
                Err(problem) => {
                    let response = problem.into_response();
                    observer.tell("access", response.status());
                    response
                }
                Ok(may_release) => {
                    request.extensions_mut().insert(may_release);
                    tell(routes.oneshot(request).await, &observer)
                }
            };
            Ok::<_, Infallible>(guarded(response))
        }
    });
    Router::new().fallback_service(entrance)
}

/// What the API listener does, and what is told of it at `/openapi.json`.
fn routes<A: Backend>() -> Routes<ApiState<A>> {
    field_state::routes()
        .merge(phase_telemetry::routes())
        .merge(safety::routes())
        .merge(trace::routes())
        .merge(handshake::routes())
        .merge(snapshot::routes())
        .merge(operator::routes())
        .merge(describe::routes())
}

/// The admin router: probes and metrics, nothing that writes.
///
/// `metrics` gives the whole exposition in OpenMetrics text, or `None` when the driver does not
/// answer.
///
/// `hosts` are names by which it may be called beside addresses and `localhost`, with any port: a
/// kubelet and a scraper call by address, and a page that rebinds a name cannot.
pub fn admin_router<A: Backend>(
    backend: A,
    metrics: Metrics,
    hosts: Vec<String>,
    observer: Observer,
) -> Router {
    let routes = finish(admin::routes(metrics)).with_state(backend);
    let hosts = Arc::new(hosts);
    let entrance = service_fn(move |request: Request| {
        let (routes, hosts, observer) = (routes.clone(), Arc::clone(&hosts), observer.clone());
        async move {
            if let Err(problem) = admin::check_host(&request, &hosts) {
                observer.tell("access", problem.status());
                return Ok(guarded(problem.into_response()));
            }
            Ok::<_, Infallible>(guarded(tell(routes.oneshot(request).await, &observer)))
        }
    });
    Router::new().fallback_service(entrance)
}

/// The console's router: one page, and what it shows.
pub fn console_router<A: Backend>(
    backend: A,
    settings: &ConsoleSettings,
    bound: &Bound,
    metrics: Metrics,
    observer: Observer,
) -> Router {
    let gate = Arc::new(console::Entrance::new(settings, bound));
    let state = ApiState::new(backend, &ApiSettings { reports: false, ..ApiSettings::default() });
    let routes = finish(console::routes(metrics, settings.shows_all)).with_state(state);
    let entrance = service_fn(move |mut request: Request| {
        let (routes, gate, observer) = (routes.clone(), Arc::clone(&gate), observer.clone());
        async move {
            let response = match gate.check(&request) {
                Err(problem) => {
                    observer.tell("access", problem.status());
                    problem.into_response()
                }
                Ok(may_release) => {
                    request.extensions_mut().insert(may_release);
                    tell(routes.oneshot(request).await, &observer)
                }
            };
            Ok::<_, Infallible>(guarded(response))
        }
    });
    Router::new().fallback_service(entrance)
}

/// 404 and 405 as problems, and the route's pattern on every response.
fn finish<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .fallback(|| async { Problem::new(Outcome::UnknownRoute, "no such route") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Outcome::WrongMethod, "the Allow header lists what this route does")
        })
        .layer(from_fn(mark))
}

/// Copies the pattern of the matched route to the response, where [`tell`] finds it.
async fn mark(request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(matched);
    }
    response
}

fn tell(outcome: Result<Response, Infallible>, observer: &Observer) -> Response {
    let Ok(response) = outcome;
    let matched = response.extensions().get::<MatchedPath>();
    observer.tell(matched.map_or("unmatched", MatchedPath::as_str), response.status());
    response
}

/// Nothing here may be cached, or be taken for what its media type does not say.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
