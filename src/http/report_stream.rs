//! `POST /field/state` as `application/x-ndjson`: a report in each line, an answer in each line, in
//! order.
//!
//! The walk: lines are cut from the body as it comes, parsed, and handed to the driver in batches;
//! the next batch goes when every line of the last one is judged, which is not before a closing
//! among them has ended (P2). Answers are written as they come, first in first out. Three bounds
//! hold: lines without an answer (`nats.window`), their bytes, and the time for which a client
//! reads nothing (`listen.reply_timeout`), after which it is hung up on.
//!
//! A line that cannot be read gets its problem and closes the gate as any other report does (P6);
//! the stream goes on. What has arrived whole is judged, whether or not the client is still there:
//! a line ends with a line feed, or with the body's own end, and not where a connection breaks off.

use core::future::Future;
use core::pin::Pin;
use std::collections::VecDeque;
use std::io;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, FuturesOrdered, StreamExt};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::accept::preferred;
use super::coding::Coding;
use super::connections::OpenConnection;
use super::document::{Budget, NoMemory, media_type};
use super::problem::{Outcome, Problem};
use super::server::Stopping;
use super::settings::{BodyLimits, StreamLimits};
use super::{ApiState, Backend};
use crate::driver::{ReportFault, Submission, Unavailable};
use crate::protocol::bridge;
use crate::protocol::canonical::Json;
use crate::protocol::trace::TraceParent;
use crate::protocol::view::ReportReply;

/// The media type of both sides.
pub(super) const MEDIA_TYPE: &str = "application/x-ndjson";
/// Lines that are handed to the driver at once.
const BATCH_LINES_MAX: usize = 64;
/// Bytes of lines without an answer, beside one line that is longer.
const UNDER_WAY_BYTES_MAX: usize = 64 * 1024;
/// Answers that wait for the connection.
const ANSWERS_MAX: usize = 16;
/// Seconds until a place may be free. Streams are long, so asking more often is of no use.
const STREAMS_RETRY_S: u32 = 5;

/// Whether the body is a stream of reports.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|name| name.eq_ignore_ascii_case(MEDIA_TYPE))
}

/// Answers at once and goes on until the body or the client ends.
pub(super) fn answer<A: Backend>(
    state: ApiState<A>,
    request: Request,
    is_check: bool,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    preferred(&parts.headers, &[MEDIA_TYPE, "application/json"]).ok_or_else(|| {
        let detail = format!("a stream of reports is answered as {MEDIA_TYPE}");
        Problem::new(Outcome::NotAcceptable, detail).of_field(ACCEPT.as_str())
    })?;
    if Coding::of_body(&parts.headers)? != Coding::Identity {
        let detail = "a stream of reports comes without a content coding";
        return Err(Problem::new(Outcome::UnsupportedCoding, detail));
    }
    let place = state.report_streams.clone().try_acquire_owned().map_err(|_| {
        let detail = "every place for a stream of reports is taken";
        Problem::new(Outcome::TooManyStreams, detail).retry_after(STREAMS_RETRY_S)
    })?;
    let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let (answers, written) = mpsc::channel(ANSWERS_MAX);
    let work = Work {
        backend: state.backend,
        lines: Lines::new(body, state.body),
        budget: state.stream_budget,
        limits: state.stream,
        trace: trace.and_then(TraceParent::parse),
        is_check,
        waiting: FuturesOrdered::new(),
        bytes: 0,
        answers: Some(answers),
        connection: parts.extensions.get::<OpenConnection>().cloned(),
        stopping: parts.extensions.get::<Stopping>().cloned(),
        _place: place,
    };
    tokio::spawn(work.run());
    let written = stream::unfold(written, async |mut written: mpsc::Receiver<Bytes>| {
        let mut answers = Vec::with_capacity(ANSWERS_MAX);
        // What is there already goes out in one piece.
        let piece = match written.recv_many(&mut answers, ANSWERS_MAX).await {
            0 => return None,
            1 => answers.pop()?,
            _ => answers.concat().into(),
        };
        Some((Ok::<_, io::Error>(piece), written))
    });
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], Body::from_stream(written)).into_response())
}

/// The answer of one line, and the bytes that the line had.
type Waiting = Pin<Box<dyn Future<Output = (Bytes, usize)> + Send>>;
/// Until a batch is judged.
type Judging = Pin<Box<dyn Future<Output = Result<(), Unavailable>> + Send>>;

/// One stream.
struct Work<A> {
    backend: A,
    lines: Lines,
    budget: Budget,
    limits: StreamLimits,
    trace: Option<TraceParent>,
    /// Nothing is moved, sent or counted.
    is_check: bool,
    /// In the order of their lines.
    waiting: FuturesOrdered<Waiting>,
    /// Of the lines in `waiting`.
    bytes: usize,
    /// `None` when the client takes no more answers.
    answers: Option<mpsc::Sender<Bytes>>,
    connection: Option<OpenConnection>,
    stopping: Option<Stopping>,
    /// Given back when the stream ends.
    _place: OwnedSemaphorePermit,
}

impl<A: Backend> Work<A> {
    async fn run(mut self) {
        let mut judging: Option<Judging> = None;
        let mut is_over = false;
        loop {
            let has_room = self.waiting.len() < self.limits.window
                && self.bytes < UNDER_WAY_BYTES_MAX
                && judging.is_none()
                && !self.lines.has_more();
            if is_over && judging.is_none() && self.waiting.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(judged) = maybe(&mut judging) => {
                    judging = None;
                    is_over |= judged.is_err();
                }
                Some((answer, bytes)) = self.waiting.next(), if !self.waiting.is_empty() => {
                    self.bytes = self.bytes.saturating_sub(bytes);
                    is_over |= !self.write(answer).await;
                    if is_over {
                        self.lines.end();
                    }
                }
                () = stopped(&mut self.stopping), if !is_over => {
                    is_over = true;
                    self.lines.end();
                }
                more = self.lines.more(), if has_room && !is_over => is_over = !more,
            }
            // What has come whole is judged, even when the client has gone.
            if judging.is_none() && self.lines.has_more() {
                judging = self.hand_in().await;
            }
        }
    }

    /// Takes what lines there are, within the bounds, and hands them in. Their memory is given back
    /// when they are judged.
    async fn hand_in(&mut self) -> Option<Judging> {
        let (mut batch, mut places) = (VecDeque::new(), Vec::new());
        while batch.len() < BATCH_LINES_MAX
            && self.waiting.len() < self.limits.window
            && self.bytes < UNDER_WAY_BYTES_MAX
            && let Some(raw) = self.lines.next()
        {
            let bytes = raw.as_ref().map_or(0, Vec::len);
            let place = match self.budget.try_hold(bytes) {
                Ok(place) => place,
                // Whoever waits for memory holds none, neither here nor in an answer to come.
                Err(NoMemory) if batch.is_empty() && self.waiting.is_empty() => {
                    self.budget.hold(bytes).await
                }
                Err(NoMemory) => {
                    self.lines.put_back(raw);
                    break;
                }
            };
            self.bytes += bytes;
            let found = raw.and_then(|raw| Ok(Json::parse(&raw)?));
            let answer: Pin<Box<dyn Future<Output = Bytes> + Send>> = if self.is_check {
                let checked = check(self.backend.clone(), found);
                Box::pin(async move {
                    let checked = checked.await;
                    drop(place);
                    checked
                })
            } else {
                let (line, answer) = asked(found, self.trace.clone());
                batch.push_back(line);
                places.extend(place);
                answer
            };
            self.waiting.push_back(Box::pin(async move { (answer.await, bytes) }));
        }
        if batch.is_empty() {
            return None;
        }
        let backend = self.backend.clone();
        Some(Box::pin(async move {
            let judged = backend.stream(batch).await;
            drop(places);
            judged
        }))
    }

    /// Whether the client is still there.
    async fn write(&mut self, answer: Bytes) -> bool {
        let Some(answers) = &self.answers else { return false };
        match timeout(self.limits.read_timeout, answers.send(answer)).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => {
                self.answers = None;
                false
            }
            Err(_) => {
                tracing::warn!(
                    seconds = self.limits.read_timeout.as_secs_f64(),
                    "a client streams reports and does not read the answers; it is hung up on"
                );
                if let Some(connection) = &self.connection {
                    connection.hang_up();
                }
                self.answers = None;
                false
            }
        }
    }
}

async fn maybe(judging: &mut Option<Judging>) -> Option<Result<(), Unavailable>> {
    match judging {
        Some(judging) => Some(judging.await),
        None => core::future::pending().await,
    }
}

async fn stopped(stopping: &mut Option<Stopping>) {
    match stopping {
        Some(stopping) => stopping.wait().await,
        None => core::future::pending().await,
    }
}

/// What the driver is asked, and what comes of it.
fn asked(
    found: Result<Json, Problem>,
    trace: Option<TraceParent>,
) -> (Submission, Pin<Box<dyn Future<Output = Bytes> + Send>>) {
    match found {
        Ok(document) => {
            let (answer, reply) = oneshot::channel();
            let answered = async move {
                match reply.await {
                    Ok(Ok(reply)) => written(&reply),
                    Ok(Err(fault)) => told(&Problem::from(fault)),
                    Err(_) => told(&Problem::from(Unavailable::Stopping)),
                }
            };
            (Submission::Report { document, trace, answer }, Box::pin(answered))
        }
        Err(problem) => {
            let (answer, state) = oneshot::channel();
            let answered = async move {
                told(&match state.await {
                    Ok(state) => problem.that_closed(state),
                    Err(_) => problem,
                })
            };
            (Submission::Unreadable { answer }, Box::pin(answered))
        }
    }
}

async fn check<A: Backend>(backend: A, found: Result<Json, Problem>) -> Bytes {
    let (document, unread) = match found {
        Ok(document) => {
            (Some(document), Problem::new(Outcome::Malformed, "the report was not judged"))
        }
        Err(problem) => (None, problem),
    };
    let checked = backend.check(document).await.map_err(Problem::from);
    match checked.and_then(|checked| verdict(checked, unread)) {
        Ok(reply) => written(&reply),
        Err(problem) => told(&problem),
    }
}

/// What a check found; `unread` where there was no document.
pub(super) fn verdict(checked: bridge::Answer, unread: Problem) -> Result<ReportReply, Problem> {
    Err(match checked {
        bridge::Answer::Report(reply) | bridge::Answer::Retry(reply) => return Ok(*reply),
        bridge::Answer::Refused { fault: Some(malformed), state } => {
            Problem::from(ReportFault::Malformed { malformed, state }).of_check()
        }
        bridge::Answer::Refused { fault: None, state } | bridge::Answer::Order(state) => {
            unread.that_closed(state).of_check()
        }
    })
}

fn written(reply: &impl serde::Serialize) -> Bytes {
    match serde_json::to_vec(reply) {
        Ok(bytes) => ended(bytes),
        Err(_) => told(&Problem::new(Outcome::Unencodable, "a value cannot be written")),
    }
}

fn told(problem: &Problem) -> Bytes {
    ended(problem.body())
}

fn ended(mut line: Vec<u8>) -> Bytes {
    line.push(b'\n');
    line.into()
}

/// Cuts lines from a body.
struct Lines {
    body: Body,
    limits: BodyLimits,
    /// What has come of the line that is being read.
    buffer: Vec<u8>,
    /// What has come and is not looked at: lines are cut when they are taken, for a piece can hold
    /// thousands.
    rest: Bytes,
    /// Taken and put back, or the last: the bytes of a line, or why it is none.
    kept: Option<Result<Vec<u8>, Problem>>,
    /// When the line that is being read has to be there.
    due: Option<Instant>,
    /// The line that is being read is too long: it is dropped up to its end.
    is_skipping: bool,
    is_over: bool,
}

impl Lines {
    fn new(body: Body, limits: BodyLimits) -> Self {
        Self {
            body,
            limits,
            buffer: Vec::new(),
            rest: Bytes::new(),
            kept: None,
            due: None,
            is_skipping: false,
            is_over: false,
        }
    }

    /// Whether something has come that is not taken. Nothing more is read before.
    fn has_more(&self) -> bool {
        self.kept.is_some() || !self.rest.is_empty()
    }

    /// The next line that has come whole, in order. Without one, nothing is left to take.
    fn next(&mut self) -> Option<Result<Vec<u8>, Problem>> {
        if let Some(kept) = self.kept.take() {
            return Some(kept);
        }
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|byte| *byte == b'\n');
            let piece = self.rest.split_to(end.unwrap_or(self.rest.len()));
            self.gather(&piece);
            if end.is_some() {
                drop(self.rest.split_to(1));
                self.due = None;
                if let Some(line) = self.line() {
                    return Some(line);
                }
            }
        }
        if (self.is_skipping || !self.buffer.is_empty()) && self.due.is_none() {
            self.due = Some(Instant::now() + self.limits.timeout);
        }
        None
    }

    fn put_back(&mut self, line: Result<Vec<u8>, Problem>) {
        self.kept = Some(line);
    }

    /// Reads no more.
    fn end(&mut self) {
        self.is_over = true;
        self.body = Body::empty();
    }

    /// Waits for one piece of the body. `false` at the end.
    ///
    /// # Cancel safety
    /// Safe: what has come is kept.
    async fn more(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        let frame = match self.due {
            None => self.body.frame().await,
            Some(due) => match timeout_at(due, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    let detail = format!("a line took longer than {:?}", self.limits.timeout);
                    let problem = Problem::new(Outcome::BodyTooSlow, detail).of_field("/");
                    self.kept = Some(Err(problem));
                    self.end();
                    return false;
                }
            },
        };
        match frame {
            Some(Ok(frame)) => {
                // Trailers say nothing that a report needs.
                if let Ok(piece) = frame.into_data() {
                    self.rest = piece;
                }
                return true;
            }
            // A clean end ends the last line, too; half a line is none.
            None => self.kept = self.line(),
            Some(Err(_)) => {}
        }
        self.end();
        false
    }

    fn gather(&mut self, bytes: &[u8]) {
        if bytes.len() > self.limits.bytes_max.saturating_sub(self.buffer.len()) {
            self.is_skipping = true;
            self.buffer = Vec::new();
        }
        if !self.is_skipping {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The line that has been gathered, now that it is whole.
    fn line(&mut self) -> Option<Result<Vec<u8>, Problem>> {
        let line = core::mem::take(&mut self.buffer);
        if core::mem::take(&mut self.is_skipping) {
            let detail = format!("a line of more than {} bytes", self.limits.bytes_max);
            return Some(Err(Problem::new(Outcome::BodyTooLarge, detail).of_field("/")));
        }
        // An empty line is how some writers say that they are alive.
        (!line.trim_ascii().is_empty()).then_some(Ok(line))
    }
}
