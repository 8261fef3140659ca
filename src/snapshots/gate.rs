//! The two ends between this room and the driver: what the room asks, what it is told.
//!
//! The driver owns the gate and the clock, so every permission, number and time comes from there.
//! It never waits for this room: orders are the newest value of a watch channel, and whether they
//! were carried out comes back as [`Question::Quiet`]. What deliberately is not here: any decision.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::protocol::digest::Digest;
use crate::protocol::envelope::Admission;
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::packet::RuntimeId;
use crate::protocol::refusal::Fault;
use crate::protocol::snapshot::Evidence;
use crate::protocol::time::Timestamp;
use crate::protocol::trace::TraceParent;

/// Questions that may wait for the driver: one per open connection of the API and a few of the
/// worker's. More means that the driver does not run, and the question fails.
const QUESTIONS_MAX: usize = 512;

/// A permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// When it was given. A snapshot takes its number from it: the spool the next free one, in
    /// microseconds.
    pub now: Timestamp,
    /// [`GateOrder::revocations`] at that time.
    pub revocations: u64,
}

/// A snapshot that was just stored, for those who are told.
#[derive(Debug)]
pub struct Announced {
    /// Its signed manifest.
    pub manifest: Bytes,
    /// Its exchange envelope.
    pub envelope: Arc<str>,
    /// Its number.
    pub seq: u64,
    /// Under what it left.
    pub evidence: Evidence,
}

/// What became of a peer's snapshot that the runtime asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Whose.
    pub source: RuntimeId,
    /// Its number.
    pub seq: u64,
    /// Under what it is taken, or why it is not.
    pub verdict: Result<(Admission, Option<TraceParent>), Fault>,
}

/// What the room asks of the driver. An answer of `None` is the gate's refusal.
#[derive(Debug)]
pub enum Question {
    /// May a snapshot be accepted now? Only in band `open`.
    Accept(oneshot::Sender<Option<Grant>>),
    /// May one be uploaded now, and under what? Only in band `open`.
    Upload(oneshot::Sender<Option<(Grant, Evidence)>>),
    /// May a peer's be fetched now, and how much is exchanged with it? Not while isolated.
    Fetch {
        /// Whose.
        source: RuntimeId,
        /// The permission.
        answer: oneshot::Sender<Option<(Grant, ExchangeMode)>>,
    },
    /// What an earlier life has left in the spool.
    Recovered {
        /// Whether something waits for the gate.
        is_waiting: bool,
    },
    /// The order with this number is carried out: nothing is sent, the connection is gone, what had
    /// to be revoked is revoked on disk.
    Quiet {
        /// Which order.
        number: u64,
        /// Whether the broker has acknowledged or echoed all that was sent.
        confirmed: bool,
    },
    /// This is the newest stored snapshot.
    Stored {
        /// Of its plain bytes.
        digest: Digest,
        /// What to announce; nothing after a restart, when it is no news.
        announced: Option<Announced>,
    },
    /// A peer's snapshot was judged, otherwise than the one before.
    Judged(Judged),
}

/// What the room is told, as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateOrder {
    /// Rises with each order to stop.
    pub number: u64,
    /// Counts the orders that revoke: what was granted before the newest of them and is not yet
    /// sent, never will be.
    pub revocations: u64,
    /// The newest order whose time is over: its connection has to be dropped at once.
    pub sever: u64,
    /// Whether a snapshot would be accepted now.
    pub is_open: bool,
    /// Whether what is accepted would be uploaded now.
    pub is_shared: bool,
    /// Whether the gate is isolated.
    pub is_isolated: bool,
}

/// The driver's end.
#[derive(Debug)]
pub struct DriverEnd {
    /// Questions, in order.
    pub questions: mpsc::Receiver<Question>,
    /// Orders.
    pub orders: watch::Sender<GateOrder>,
}

/// The room's end. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct GateClient {
    questions: mpsc::Sender<Question>,
    pub(super) orders: watch::Receiver<GateOrder>,
}

/// Both ends.
pub(super) fn pair() -> (GateClient, DriverEnd) {
    let (question_sender, questions) = mpsc::channel(QUESTIONS_MAX);
    let (order_sender, orders) = watch::channel(GateOrder::default());
    (
        GateClient { questions: question_sender, orders },
        DriverEnd { questions, orders: order_sender },
    )
}

impl GateClient {
    /// Asks; `None` when the gate refuses, or nobody answers because the driver is gone.
    pub(super) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Option<T>>) -> Question,
    ) -> Option<T> {
        let (answer, reply) = oneshot::channel();
        self.questions.try_send(question(answer)).ok()?;
        reply.await.ok().flatten()
    }

    /// Tells. Waits for room: what is told must not be lost.
    pub(super) async fn tell(&self, message: Question) {
        // A driver that is gone has severed everything already.
        let _ = self.questions.send(message).await;
    }

    /// What is ordered now.
    pub(super) fn order(&self) -> GateOrder {
        *self.orders.borrow()
    }
}
