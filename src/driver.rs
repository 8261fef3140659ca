//! The one task that owns the bridge.
//!
//! It stamps `now` (it alone reads the clock), performs effects in order, keeps the connection and
//! hands replies back. A closed enum of commands comes in over one bounded queue; nothing is shared
//! and nothing is locked. What deliberately is not here: any decision about what may leave.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config;
use crate::nats;
use crate::protocol::bridge::{self, GateState, Identity, Live, Memory};
use crate::protocol::canonical::Json;
use crate::protocol::exchange::Version;
use crate::protocol::gate::Band;
use crate::protocol::packet::RuntimeId;
use crate::protocol::trace::TraceParent;
use crate::protocol::view::{
    AttractorView, FieldState, FleetView, HandshakeView, OperatorReply, PeerView, ReportReply,
    SafetyView, TraceView,
};
use crate::snapshots::Snapshots;
use crate::snapshots::gate::DriverEnd;
use crate::telemetry::{Conditions, Feed};

mod books;
mod clock;
mod connection;
mod fault;
mod handshakes;
mod inbound;
mod manifests;
mod memory;
mod metrics;
mod operator;
mod presence;
mod quarantine;
mod run;
mod service;
mod slots;
mod traces;
mod uploads;

pub use books::{Books, CLOSING_BUCKETS_S};
pub use fault::{ReadFault, ReportFault, Unavailable};
pub use memory::load as load_memory;
pub use operator::{Holds, MEMORY_TIMEOUT, ORDERS_MAX, OperatorOrder};
pub use traces::{NEXT_TIMEOUT, TraceOf};

/// Commands that may wait for the driver. Beyond this a report is refused with `Overloaded`: the
/// newest state is worth more than a long queue of older ones.
pub const COMMANDS_MAX: usize = 1024;
/// How long a view waits for the driver before the route gives up.
pub const VIEW_TIMEOUT: Duration = Duration::from_secs(2);
/// How long stopping waits for acknowledgements and the broker's last echo. Short enough to fit the
/// 2 s that Kubernetes leaves a native sidecar whose pod has used up its grace period.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(1500);

/// Everything the driver is started with.
#[derive(Debug)]
pub struct Options {
    /// Who this is, what its reports look like, what the broker is waited for.
    pub identity: Identity,
    /// Gate, peers, keys, limits.
    pub live: Live,
    /// What survived the last restart.
    pub memory: Memory,
    /// Who holds the gate from the start on.
    pub holds: Holds,
    /// Where it is kept; `None` keeps nothing.
    pub memory_file: Option<PathBuf>,
    /// The broker.
    pub nats: nats::settings::Settings,
    /// Where accepted packets are handed to the runtime, if anywhere.
    pub deliver: config::Deliver,
    /// Memory snapshots, where there is a spool for them.
    pub snapshots: Option<Snapshots>,
    /// The driver's end of their room.
    pub uploads: Option<DriverEnd>,
    /// The audit log, if there is one.
    pub audit: config::Audit,
    /// What weakens a promise, for `/readyz`.
    pub conditions: Conditions,
    /// Where the gate's transitions are told live.
    pub feed: Feed,
}

type Reply<T> = oneshot::Sender<T>;

/// The receiving ends of a [`Handle`].
#[derive(Debug)]
struct Inputs {
    commands: mpsc::Receiver<Command>,
    orders: mpsc::Receiver<(OperatorOrder, Reply<OperatorReply>)>,
    reloads: mpsc::Receiver<(Box<Live>, Reply<()>)>,
    stop: watch::Receiver<bool>,
}

/// What came in for judgement, and who waits for what becomes of it.
#[derive(Debug)]
pub enum Submission {
    /// A document.
    Report {
        /// Parsed, not yet translated.
        document: Json,
        /// The trace that it belongs to.
        trace: Option<TraceParent>,
        /// Who waits.
        answer: oneshot::Sender<Result<ReportReply, ReportFault>>,
    },
    /// What is not even a document; it closes the gate (P6).
    Unreadable {
        /// Who waits.
        answer: oneshot::Sender<GateState>,
    },
}

#[derive(Debug)]
enum Command {
    Judge(Submission),
    /// Lines of one stream, in order, and who waits until all of them are judged.
    Stream {
        lines: VecDeque<Submission>,
        judged: Reply<()>,
    },
    Check {
        document: Option<Json>,
        answer: Reply<bridge::Answer>,
    },
    Trace {
        which: TraceOf,
        answer: Reply<Result<TraceView, ReadFault>>,
    },
    FieldState {
        answer: Reply<Result<FieldState, ReadFault>>,
    },
    PeerState {
        source: RuntimeId,
        answer: Reply<Result<PeerView, ReadFault>>,
    },
    Attractor {
        id: String,
        answer: Reply<Result<AttractorView, ReadFault>>,
    },
    Fleet {
        all: bool,
        answer: Reply<Result<FleetView, ReadFault>>,
    },
    Safety {
        answer: Reply<SafetyView>,
    },
    Handshake {
        runtime_id: RuntimeId,
        version: Version,
        answer: Reply<Result<HandshakeView, ReadFault>>,
    },
    Books {
        answer: Reply<Books>,
    },
    Ping {
        answer: Reply<()>,
    },
}

/// Asks the driver. Cheap to clone; every call has a bounded answer time (P10).
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    orders: mpsc::Sender<(OperatorOrder, Reply<OperatorReply>)>,
    reloads: mpsc::Sender<(Box<Live>, Reply<()>)>,
    /// Bound on one report, above the bridge's own bounds: it is reached only by a driver that does
    /// not run.
    report_timeout: Duration,
    standing: watch::Receiver<Standing>,
    conditions: Conditions,
    snapshots: Option<Snapshots>,
    feed: Feed,
}

/// What the driver shows of itself without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    ready: bool,
    broker: BrokerState,
    band: Band,
}

/// Starts the driver's task. It ends when `stop` turns true or every [`Handle`] is gone.
#[must_use]
pub fn spawn(options: Options, stop: watch::Receiver<bool>) -> (Handle, JoinHandle<()>) {
    let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
    let (orders, order_queue) = mpsc::channel(ORDERS_MAX);
    let (reloads, reload_queue) = mpsc::channel(1);
    // A barrier is waited for no longer than a reply, whatever a reload says.
    let report_timeout = options.identity.reply_timeout * 2 + VIEW_TIMEOUT;
    let (standing_sender, standing) = watch::channel(Standing {
        ready: true,
        broker: BrokerState::Connecting,
        band: if options.holds.any() { Band::Isolated } else { Band::Blocked },
    });
    let (snapshots, feed) = (options.snapshots.clone(), options.feed.clone());
    let conditions = options.conditions.clone();
    let inputs =
        Inputs { commands: command_queue, orders: order_queue, reloads: reload_queue, stop };
    let task = tokio::spawn(run::run(options, inputs, standing_sender));
    (
        Handle { commands, orders, reloads, report_timeout, standing, conditions, snapshots, feed },
        task,
    )
}

impl Handle {
    /// Reports one cycle, parsed but not yet translated, with the trace it belongs to. The answer
    /// comes when its packets are settled, or the silence after a closing is confirmed, or a named
    /// time limit passes.
    ///
    /// # Errors
    /// [`ReportFault`].
    ///
    /// # Cancel safety
    /// A dropped call does not undo the report.
    pub async fn report(
        &self,
        document: Json,
        trace: Option<TraceParent>,
    ) -> Result<ReportReply, ReportFault> {
        let (answer, reply) = oneshot::channel();
        self.try_send(Command::Judge(Submission::Report { document, trace, answer }))?;
        match tokio::time::timeout(self.report_timeout, reply).await {
            Ok(answer) => answer.map_err(|_| Unavailable::Stopping)?,
            Err(_) => Err(Unavailable::Overloaded(1).into()),
        }
    }

    /// Tells the driver that a report arrived that is not even a document; it closes the gate (P6).
    /// Returns when the silence that follows from it is confirmed, with where the gate stands then.
    ///
    /// # Errors
    /// [`Unavailable`]: valid reports are waiting, and this one is dropped as any other would be.
    pub async fn unreadable(&self) -> Result<GateState, Unavailable> {
        let (answer, reply) = oneshot::channel();
        self.try_send(Command::Judge(Submission::Unreadable { answer }))?;
        match tokio::time::timeout(self.report_timeout, reply).await {
            Ok(answer) => answer.map_err(|_| Unavailable::Stopping),
            Err(_) => Err(Unavailable::Overloaded(1)),
        }
    }

    /// Hands in lines of a stream and returns when all of them are judged. After a line that closes
    /// the gate none is judged before the silence that follows is confirmed or its time limit has
    /// passed. Each line's answer comes to whoever waits for it.
    ///
    /// # Errors
    /// [`Unavailable::Stopping`]; lines that were not judged are dropped with their senders.
    ///
    /// # Cancel safety
    /// A dropped call does not take the lines back, once they were handed in.
    pub async fn stream(&self, lines: VecDeque<Submission>) -> Result<(), Unavailable> {
        let (judged, done) = oneshot::channel();
        let command = Command::Stream { lines, judged };
        self.commands.send(command).await.map_err(|_| Unavailable::Stopping)?;
        done.await.map_err(|_| Unavailable::Stopping)
    }

    /// Isolates, or takes a hold back. Takes effect before anything else that waits. The answer
    /// comes when the silence that follows from it is confirmed (P2) and the hold is on disk, or
    /// their named time limits have passed.
    ///
    /// # Errors
    /// [`Unavailable`]; then nothing was done.
    ///
    /// # Cancel safety
    /// A dropped call does not undo the order.
    pub async fn operate(&self, order: OperatorOrder) -> Result<OperatorReply, Unavailable> {
        let (answer, reply) = oneshot::channel();
        self.orders.try_send((order, answer)).map_err(unavailable)?;
        match tokio::time::timeout(self.report_timeout + MEMORY_TIMEOUT, reply).await {
            Ok(answer) => answer.map_err(|_| Unavailable::Stopping),
            Err(_) => Err(Unavailable::Overloaded(1)),
        }
    }

    /// Own posture and every configured peer.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn field_state(&self) -> Result<FieldState, ReadFault> {
        self.view(|answer| Command::FieldState { answer }).await?
    }

    /// One configured peer.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn peer_state(&self, source: RuntimeId) -> Result<PeerView, ReadFault> {
        self.view(|answer| Command::PeerState { source, answer }).await?
    }

    /// Our newest attractor or a peer's, by its id.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn attractor(&self, id: String) -> Result<AttractorView, ReadFault> {
        self.view(|answer| Command::Attractor { id, answer }).await?
    }

    /// Who is there, from presence: the configured peers and ourselves, or `all` that is there.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn fleet(&self, all: bool) -> Result<FleetView, ReadFault> {
        self.view(|answer| Command::Fleet { all, answer }).await?
    }

    /// Thresholds, band, reasons; readable in every band.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn safety(&self) -> Result<SafetyView, Unavailable> {
        self.view(|answer| Command::Safety { answer }).await
    }

    /// The runtime negotiates: who we are, which versions we read, what is exchanged with whom.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn handshake(
        &self,
        runtime_id: RuntimeId,
        version: Version,
    ) -> Result<HandshakeView, ReadFault> {
        self.view(|answer| Command::Handshake { runtime_id, version, answer }).await?
    }

    /// The books for `/metrics`.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn books(&self) -> Result<Books, Unavailable> {
        self.view(|answer| Command::Books { answer }).await
    }

    /// Whether the driver answers: `/livez`. Asking beats a heartbeat, which would wake an idle
    /// sidecar for nobody.
    pub async fn is_alive(&self) -> bool {
        self.view(|answer| Command::Ping { answer }).await.is_ok()
    }

    /// Memory snapshots; `None` without a spool.
    #[must_use]
    pub fn snapshots(&self) -> Option<&Snapshots> {
        self.snapshots.as_ref()
    }

    /// Live events: `GET /phase/telemetry`.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What weakens a promise at present.
    #[must_use]
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// What `/readyz` says.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let Standing { ready, broker, band } = *self.standing.borrow();
        let degraded = self.conditions.lines();
        Readiness { ready, broker, band, degraded }
    }

    /// Replaces gate settings, peers and keys; returns when that has taken effect. A queue of its
    /// own, so that reports never take its place; whoever finds it full waits.
    ///
    /// # Errors
    /// [`Unavailable::Stopping`]; then nothing was done.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have taken effect.
    pub async fn reload(&self, live: Live) -> Result<(), Unavailable> {
        let (answer, reply) = oneshot::channel();
        let sent = self.reloads.send((Box::new(live), answer)).await;
        sent.map_err(|_| Unavailable::Stopping)?;
        reply.await.map_err(|_| Unavailable::Stopping)
    }

    fn try_send(&self, command: Command) -> Result<(), Unavailable> {
        self.commands.try_send(command).map_err(unavailable)
    }

    async fn view<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Unavailable> {
        let (answer, reply) = oneshot::channel();
        self.try_send(command(answer))?;
        match tokio::time::timeout(VIEW_TIMEOUT, reply).await {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(_)) => Err(Unavailable::Stopping),
            Err(_) => Err(Unavailable::Overloaded(1)),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unavailable<T>(error: mpsc::error::TrySendError<T>) -> Unavailable {
    match error {
        mpsc::error::TrySendError::Full(_) => Unavailable::Overloaded(1),
        mpsc::error::TrySendError::Closed(_) => Unavailable::Stopping,
    }
}

/// Answer to `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// Whether reports are accepted.
    pub ready: bool,
    /// The broker connection.
    pub broker: BrokerState,
    /// Present band.
    pub band: Band,
    /// What weakens a promise, as `code: text`.
    pub degraded: Vec<String>,
}

/// State of the broker connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// In use.
    Connected,
    /// First attempt, or reconnecting.
    Connecting,
    /// Attempts fail.
    Disconnected,
}
