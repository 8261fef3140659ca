//! One connection to a server in a thread of its own: the way to be sure that it is gone.
//!
//! async-nats keeps the socket in a task that it spawns. Dropping every `Client` lets that task
//! flush first, and a broken connection is opened again and everything queued is sent then. Here
//! the task lives in a runtime that holds nothing else. Ending the session drops the runtime, and
//! with it the task, its queues and the socket, whatever state they were in.
//!
//! A session that has connected has sent nothing but what the protocol demands: no subscription
//! exists before somebody asks for one, so an attempt to connect leaves nothing to be cut (P4).
//!
//! **The limit.** Bytes that the kernel has taken are out of reach: closing the socket sends what
//! its send buffer still holds, and what the server's own receive buffer holds will be read by the
//! server. Resetting instead of closing (`SO_LINGER` 0) would discard our send buffer, but
//! async-nats owns the socket and shows neither it nor its descriptor, and borrowing a
//! descriptor by number is `unsafe`. So a stalled broker that comes back may read packets that
//! were handed to the kernel before, at most the driver's window of them; it never reads one that
//! was published later. Measured on Linux loopback against a stopped server: some 300 KiB.

use std::collections::hash_map::RandomState;
use std::error::Error as _;
use std::future::{Future, pending};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::settings::{Settings, UnreadableSecret};
use crate::config::WINDOW_MAX;
use crate::config::names::ServerUrl;

/// Stack of a session's thread, in bytes: a TLS handshake in a debug build needs some hundred KiB.
/// Only touched pages are resident.
const STACK_BYTES: usize = 1024 * 1024;
/// Threads for DNS and certificate files of one session.
const BLOCKING_THREADS_MAX: usize = 2;
/// How long such a thread stays when idle: it is needed while connecting only.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_millis(500);
/// What waits to be written, and what one subscription holds while we do not read: the largest
/// window, so that a full one never finds a full queue, and as much again of acknowledgements,
/// requests and two pull requests of 256.
pub(super) const QUEUE_LEN_MAX: usize = 2 * WINDOW_MAX;
/// Server events that wait to be read; more are only a louder repetition.
const NOTICES_LEN_MAX: usize = 64;
/// Longer than any process lives: where async-nats would sleep before it reconnects.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How often the thread gives way to async-nats's event task when the connection is lost, so that
/// the server's last words are there before its end is told.
const LAST_WORDS_TURNS: usize = 3;

/// The owner of a session. Dropping it ends the session without waiting.
#[derive(Debug)]
pub(super) struct Session(End);

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.sever());
    }
}

/// Ends a session from anywhere, and tells when it has ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    is_severed: watch::Sender<bool>,
    /// Closed by the thread's end.
    gone: watch::Receiver<()>,
}

impl End {
    /// Ends the session now. The future is ready when the connection's tasks, queues and socket
    /// are gone; dropping it changes nothing.
    pub(super) fn sever(&self) -> impl Future<Output = ()> + Send + use<> {
        self.is_severed.send_replace(true);
        let mut gone = self.gone.clone();
        async move {
            // Nothing is ever sent: an error is the sign.
            let _ = gone.changed().await;
        }
    }

    pub(super) fn is_severed(&self) -> bool {
        *self.is_severed.borrow()
    }
}

/// A connection that does not connect again.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client,
    /// What the server says.
    pub(super) notices: mpsc::Receiver<Event>,
    /// Closed once the connection is lost.
    pub(super) lost: oneshot::Receiver<()>,
}

impl Session {
    /// Connects on a thread and runtime of its own within `nats.connect_timeout`. The session
    /// lasts until it is severed.
    ///
    /// # Cancel safety
    /// Dropping the future severs what has been begun.
    pub(super) async fn connect(settings: &Settings) -> Result<(Self, Connected), ConnectFault> {
        let (ready, connected) = oneshot::channel();
        let session = Self(start(settings.clone(), ready).map_err(|error| starved(&error))?);
        let connected = tokio::time::timeout(settings.broker.connect_timeout, connected)
            .await
            .map_err(|_| ConnectFault::TimedOut)?
            .map_err(|_| ConnectFault::Starved("the connection's thread ended".to_owned()))??;
        Ok((session, connected))
    }

    pub(super) fn end(&self) -> &End {
        &self.0
    }
}

fn starved(error: &std::io::Error) -> ConnectFault {
    ConnectFault::Starved(error.to_string())
}

fn start(
    settings: Settings,
    ready: oneshot::Sender<Result<Connected, ConnectFault>>,
) -> std::io::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .thread_stack_size(STACK_BYTES)
        .build()?;
    let (is_severed, mut severed) = watch::channel(false);
    let (here, gone) = watch::channel(());
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                // An error means that nobody is left who could sever, and so nobody who listens.
                _ = severed.wait_for(|is_severed| *is_severed) => {}
                () = hold(settings, ready) => {}
            }
        });
        // Not a plain drop: that would wait for a name lookup in progress.
        runtime.shutdown_background();
        drop(here);
    };
    std::thread::Builder::new().name("nats".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    Ok(End { is_severed, gone })
}

/// Connects and keeps the connection's tasks alive.
async fn hold(settings: Settings, ready: oneshot::Sender<Result<Connected, ConnectFault>>) {
    let (telling, lost) = oneshot::channel::<()>();
    let (client, notices, is_lost) = match connect(&settings).await {
        Ok(connected) => connected,
        Err(fault) => {
            // Without a listener the deadline has severed us.
            let _ = ready.send(Err(fault));
            return;
        }
    };
    let _ = ready.send(Ok(Connected { client, notices, lost }));
    is_lost.notified().await;
    for _ in 0..LAST_WORDS_TURNS {
        tokio::task::yield_now().await;
    }
    drop(telling);
    pending::<()>().await;
}

/// Why no connection came about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFault {
    /// The server knows us not, or a signature failed. Trying again helps only after a change.
    #[error("the server refused our credentials: {0}")]
    Denied(String),
    /// No name, no route, no listener, or no NATS server behind it.
    #[error("no server answers: {0}")]
    Unreachable(String),
    /// A credentials file.
    #[error(transparent)]
    Secret(#[from] UnreadableSecret),
    /// No thread or no socket on this machine.
    #[error("no resources for a connection: {0}")]
    Starved(String),
    /// Not within `connect_timeout`.
    #[error("no connection in time")]
    TimedOut,
    /// Certificates, or a server that does not speak TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
}

/// A client, what the server says, and a sign that cannot be lost of the connection's end.
type Fresh = (Client, mpsc::Receiver<Event>, Arc<Notify>);

/// Tries each server once, from a random one on.
async fn connect(settings: &Settings) -> Result<Fresh, ConnectFault> {
    let count = settings.broker.url.len();
    let share = settings.broker.connect_timeout / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let mut faults: Vec<(ConnectFault, String)> = Vec::new();
    for url in settings.broker.url.iter().cycle().skip(random_below(count)).take(count) {
        let options = settings.options()?.connection_timeout(share);
        match connect_to(url, options).await {
            Ok(connected) => return Ok(connected),
            Err(fault) => faults.push((fault, url.to_string())),
        }
    }
    Err(worst(faults))
}

/// A number below `count`, or 0: spreads a fleet over the servers. The keys of `RandomState` are
/// the standard library's only randomness, and good enough to choose a server.
fn random_below(count: usize) -> usize {
    usize::try_from(RandomState::new().hash_one(count))
        .ok()
        .and_then(|random| random.checked_rem(count))
        .unwrap_or(0)
}

/// The fault that tells most: credentials, then TLS, then whatever came last.
fn worst(mut faults: Vec<(ConnectFault, String)>) -> ConnectFault {
    let rank = |fault: &ConnectFault| match fault {
        ConnectFault::Denied(_) => 2,
        ConnectFault::Tls(_) => 1,
        ConnectFault::Secret(_)
        | ConnectFault::Starved(_)
        | ConnectFault::TimedOut
        | ConnectFault::Unreachable(_) => 0,
    };
    faults.sort_by_key(|(fault, _)| rank(fault));
    match faults.pop() {
        Some((ConnectFault::Denied(text), url)) => ConnectFault::Denied(format!("{url}: {text}")),
        Some((ConnectFault::Tls(text), url)) => ConnectFault::Tls(format!("{url}: {text}")),
        Some((ConnectFault::Unreachable(text), url)) => {
            ConnectFault::Unreachable(format!("{url}: {text}"))
        }
        Some((fault, _)) => fault,
        None => ConnectFault::Unreachable("no server is configured".to_owned()),
    }
}

async fn connect_to(url: &ServerUrl, options: ConnectOptions) -> Result<Fresh, ConnectFault> {
    let (notice_sender, notices) = mpsc::channel(NOTICES_LEN_MAX);
    let lost = Arc::new(Notify::new());
    let was_tried = AtomicBool::new(false);
    let options = options
        .client_capacity(QUEUE_LEN_MAX)
        .subscription_capacity(QUEUE_LEN_MAX)
        .event_callback(move |event| {
            // Full means that nobody reads; the events that matter are not sent this way.
            let _ = notice_sender.try_send(event);
            std::future::ready(())
        })
        .reconnect_delay_callback({
            let lost = Arc::clone(&lost);
            // Asked before each attempt. The first is ours; any later one is async-nats about to
            // reconnect, in the very poll that found the connection broken.
            move |_| {
                if was_tried.swap(true, Ordering::Relaxed) {
                    lost.notify_one();
                    NEVER
                } else {
                    Duration::ZERO
                }
            }
        });
    let client = options.connect(url.address().clone()).await.map_err(|error| {
        let text = error.to_string();
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ConnectFault::Denied(text)
            }
            ConnectErrorKind::Tls => ConnectFault::Tls(text),
            ConnectErrorKind::Io if is_tls_fault(&error) => ConnectFault::Tls(text),
            ConnectErrorKind::TimedOut => ConnectFault::TimedOut,
            ConnectErrorKind::Dns
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects
            | ConnectErrorKind::ServerParse => ConnectFault::Unreachable(text),
        }
    })?;
    Ok((client, notices, lost))
}

/// Whether a failed handshake is behind what async-nats reports as an IO error.
fn is_tls_fault(error: &async_nats::ConnectError) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::get_ref)
        .is_some_and(|inner| inner.is::<async_nats::rustls::Error>())
}

/// Longest text of the server's making that we keep, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// The beginning of a text of the server's making, printable.
pub(super) fn clipped(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .scan(0, |bytes, letter| {
            *bytes += letter.len_utf8();
            (*bytes <= TEXT_BYTES_MAX).then_some(letter)
        })
        .collect()
}
