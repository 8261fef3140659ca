//! The accept loop: HTTP/1 only, every wait bounded, every connection counted.
//!
//! `axum::serve` is not used: it sets no timer, so hyper's head timeout does nothing there, and it
//! accepts without bound. HTTP/2 deliberately is not spoken: one runtime beside us gains nothing
//! from it, and its resets are a way to flood.

use core::future::Future;
use core::pin::pin;
use core::time::Duration;
use std::sync::Arc;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Observer;
use super::connections::{Activity, Connections};
use super::handling::{ConnectionHandler, Handler};
use super::listener::{Arrival, Listener, Stream};
use super::problem::{Outcome, Problem};
use super::settings::Limits;
use super::write_timeout::WriteTimeout;

/// Connections that are told at one time why they are turned away. Beyond it they are closed
/// without a word, for a flood must not cost more than an open socket each.
const REFUSALS_MAX: usize = 32;
/// Longest time for such an answer: the client has only to read it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of the request that are read and thrown away meanwhile; closing a socket with unread
/// bytes resets it, and the client would lose the answer.
const REFUSAL_BYTES_MAX: u64 = 64 * 1024;
/// Connections come and go within seconds.
const CONNECTIONS_RETRY_S: u32 = 1;
/// Pause after an accept that failed for want of descriptors or memory, which does not pass faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes that one connection reads ahead, and at most the head of an answer beside its body: with
/// every connection open 8 MiB.
const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were still busy when `drain_timeout` was over, and were cut off.
    pub cut: usize,
}

/// Serves `router` on `listener` until `shutdown` is done.
///
/// Then it stops accepting at once, closes idle connections, lets requests in flight finish for at
/// most `limits.drain_timeout`, and cuts off what is left. For a connection beyond
/// `limits.connections_max` the one that keeps us waiting for longest makes way; where all are
/// busy, it is answered 503 with `Retry-After` and closed.
///
/// # Cancel safety
/// Dropping the future closes the listener and cuts every connection off.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    observer: Observer,
    shutdown: impl Future<Output = ()>,
) -> Stopped {
    let mut shutdown = pin!(shutdown);
    let mut connections = Connections::default();
    let mut refusals = JoinSet::new();
    let (stop, stopping) = watch::channel(());
    let router = router.layer(Extension(Stopping(stopping.clone())));
    let handler = Handler::new(router, observer.clone(), limits.connections_max);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(()) = connections.ended() => {}
            Some(_) = refusals.join_next() => {}
            arrival = listener.accept() => match arrival {
                Ok(arrival) => match turned_away(&arrival, &mut connections, limits) {
                    None => {
                        let stream = WriteTimeout::new(arrival.stream, limits.write_timeout);
                        let (handler, stopping) = (handler.clone(), stopping.clone());
                        connections.spawn(|activity| {
                            converse(stream, handler, activity, limits, stopping)
                        });
                    }
                    Some(problem) => {
                        observer.tell("connection", problem.status());
                        if refusals.len() < REFUSALS_MAX {
                            refusals.spawn(refuse(arrival.stream, problem));
                        }
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drop(stop);
    let finished = async { while connections.ended().await.is_some() {} };
    let _ = timeout(limits.drain_timeout, finished).await;
    let cut = connections.cut().await;
    if cut > 0 {
        tracing::warn!(cut, "requests were still in flight when the drain time was over");
    }
    Stopped { cut }
}

/// In the extensions of each request: tells an answer without an end that it has to find one, or
/// every stop would wait for it as long as it may.
#[derive(Clone, Debug)]
pub(super) struct Stopping(watch::Receiver<()>);

impl Stopping {
    /// Done when serving stops.
    pub(super) async fn wait(&mut self) {
        // The sender is dropped at stop, which is the one change there is.
        while self.0.changed().await.is_ok() {}
    }
}

fn turned_away(
    arrival: &Arrival,
    connections: &mut Connections,
    limits: Limits,
) -> Option<Problem> {
    if !arrival.is_allowed {
        let detail = "this user is not listed; the configuration can add one";
        return Some(Problem::new(Outcome::ForeignUser, detail));
    }
    (!connections.make_room(limits.connections_max)).then(|| {
        let detail = format!("{} requests are being handled", limits.connections_max);
        Problem::new(Outcome::TooManyConnections, detail).retry_after(CONNECTIONS_RETRY_S)
    })
}

/// One connection, from its first byte to its last.
async fn converse(
    stream: WriteTimeout<Box<dyn Stream>>,
    handler: Handler,
    activity: Arc<Activity>,
    limits: Limits,
    stopping: watch::Receiver<()>,
) {
    let served = serve_http(stream, handler.of(Arc::clone(&activity)), limits, stopping);
    tokio::select! {
        () = served => activity.go_on().await,
        () = activity.hung_up() => {}
    }
}

async fn serve_http(
    stream: WriteTimeout<Box<dyn Stream>>,
    handler: ConnectionHandler,
    limits: Limits,
    mut stopping: watch::Receiver<()>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes_max)
        .max_headers(limits.headers_max)
        .max_buf_size(BUFFER_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), handler).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // The sender is dropped at stop, which is the one change there is.
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // hyper's errors say what broke, never what was sent.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Says why, waits for the client to hang up, and closes.
async fn refuse(mut stream: Box<dyn Stream>, problem: Problem) {
    let answer = async {
        stream.write_all(&problem.to_wire()).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(REFUSAL_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = timeout(REFUSAL_TIMEOUT, answer).await;
}
