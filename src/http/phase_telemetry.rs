//! `GET /phase/telemetry`: what happens, as it happens, as server-sent events or over a WebSocket.
//!
//! `text/event-stream` as WHATWG HTML section 9.2 writes it: `event:` names the kind, `data:` is
//! one JSON object in one line; the kinds and their members are those of `telemetry/feed.rs`, which
//! also says what the gate lets be told and what is told again to whoever sends `Last-Event-ID`.
//! After 15 s of silence a comment keeps what stands between from hanging up and finds a listener
//! that is gone. A request that asks to upgrade gets the same over a WebSocket (`websocket.rs`).
//!
//! Streams have a cap of their own, for they stay open: one in four of the listener's connections,
//! so that reports always find one. A listener that reads nothing for the write timeout of its
//! connection is hung up on; until then it loses the oldest events and is told.

use core::convert::Infallible;
use core::time::Duration;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::accept::preferred;
use super::connections::OpenConnection;
use super::operation::{
    AnswerDoc, Content, Input, Location, Method, Operation, Parameter, Routes, schema_of,
};
use super::problem::{Outcome, Problem};
use super::server::Stopping;
use super::settings::Limits;
use super::{ApiState, Backend, websocket};
use crate::telemetry::feed::{self, Subscription};
use crate::telemetry::{EventId, Start};

const EVENT_STREAM: &str = "text/event-stream";
/// What a listener is told to wait before it connects again.
const RETRY: Duration = Duration::from_secs(2);
/// Seconds until a place may be free. Streams are long, so asking more often is of no use.
const STREAMS_RETRY_S: u32 = 5;

/// The streams of one listener.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    heartbeat: Duration,
}

impl Streams {
    pub(super) fn new(limits: &Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.streams_max()));
        Self { places, heartbeat: limits.heartbeat }
    }
}

static LISTEN: Operation = Operation {
    method: Method::Get,
    path: "/phase/telemetry",
    summary: "What happens, as it happens, as server-sent events or over a WebSocket",
    parameters: &[Parameter {
        name: "Last-Event-ID",
        location: Location::Header,
        text: "The event to go on after",
        schema: schema_of::<String>,
    }],
    body: Input::None,
    answers: &[
        AnswerDoc {
            status: 200,
            text: "Events until one side ends it",
            content: Content::Other(EVENT_STREAM),
            headers: &[],
        },
        AnswerDoc {
            status: 101,
            text: "The same over a WebSocket",
            content: Content::None,
            headers: &[],
        },
    ],
    problems: &[Outcome::NotAcceptable, Outcome::BadUpgrade, Outcome::TooManyStreams],
};

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new().on(&LISTEN, listen::<A>)
}

async fn listen<A: Backend>(
    State(state): State<ApiState<A>>,
    mut request: Request,
) -> Result<Response, Problem> {
    LISTEN.query(request.uri())?;
    let switched = if websocket::is_asked_for(request.headers()) {
        Some(websocket::accept(&request)?)
    } else {
        check_accept(request.headers())?;
        None
    };
    let Streams { places, heartbeat } = state.streams;
    let place = places.try_acquire_owned().map_err(|_| {
        let detail = "every place for a stream is taken";
        Problem::new(Outcome::TooManyStreams, detail).retry_after(STREAMS_RETRY_S)
    })?;
    let stopping = request.extensions().get::<Stopping>().cloned();
    let events = state.backend.feed().subscribe(start(request.headers()));
    let listener = Listener { events, stopping, _place: place };
    if let Some(response) = switched {
        let upgrade = hyper::upgrade::on(&mut request);
        // Every connection of the listener has one.
        if let Some(line) = request.extensions().get::<OpenConnection>() {
            line.go_on(websocket::tell(upgrade, listener, heartbeat));
        }
        return Ok(response);
    }
    let heartbeat = KeepAlive::new().interval(heartbeat).text("heartbeat");
    let mut response = Sse::new(listener.stream()).keep_alive(heartbeat).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Where `Last-Event-ID` (WHATWG HTML section 9.2.4) asks to go on.
fn start(headers: &HeaderMap) -> Start {
    let Some(id) = headers.get("last-event-id") else { return Start::Now };
    Start::After(id.to_str().ok().and_then(EventId::parse))
}

fn check_accept(headers: &HeaderMap) -> Result<(), Problem> {
    preferred(headers, &[EVENT_STREAM]).map(|_| ()).ok_or_else(|| {
        let detail = format!("this route answers {EVENT_STREAM}");
        Problem::new(Outcome::NotAcceptable, detail).of_field(ACCEPT.as_str())
    })
}

pub(super) struct Listener {
    events: Subscription,
    stopping: Option<Stopping>,
    /// Given back when the stream ends.
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next event, until the sidecar stops or nobody is left who could send.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self) -> Option<feed::Event> {
        let stopped = async {
            match &mut self.stopping {
                Some(stopping) => stopping.wait().await,
                None => core::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped => None,
            event = self.events.next() => event,
        }
    }

    /// The events as server-sent ones, until the listener is gone or there are no more.
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        // Something at once, so that the client knows that it listens, and from where.
        let first = Event::default().comment("listening").retry(RETRY);
        let first = first.id(self.events.id().to_string());
        stream::unfold((Some(first), self), async |(first, mut listener)| {
            let event = match first {
                Some(first) => first,
                None => {
                    let feed::Event { id, name, data } = listener.next().await?;
                    let event = Event::default().event(name).data(&*data);
                    match id {
                        Some(id) => event.id(id.to_string()),
                        None => event,
                    }
                }
            };
            Some((Ok(event), (None, listener)))
        })
    }
}
