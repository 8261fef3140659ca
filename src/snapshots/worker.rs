//! The one task that talks to the bucket: uploads in order of acceptance, fetches between them.
//!
//! It holds a connection only while it has something to do and the gate allows it. An order to stop
//! is carried out before anything else: what is under way is dropped at its next await, the broker
//! confirms what had been sent, the connection is severed, what has to be revoked is revoked on
//! disk, and only then the driver is told.
//!
//! It is supervised: a panic drops the connection, is said, and the work begins anew with what the
//! spool knows. What that connection had sent is then in doubt, and the next order says so.

mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::bucket::Bucket;
use super::frame::UploadFault;
use super::gate::{GateOrder, Judged, Question};
use super::job::Job;
use super::spool::{Spool, SpoolEntry, SpoolFault, State, Stored};
use super::upload::{self, Holdings};
use super::{Shared, Stopped, blocking};
use crate::nats::backoff::backoff;
use crate::protocol::packet::RuntimeId;
use crate::protocol::time::Timestamp;
use crate::telemetry::Condition;

/// An unused connection is given up after so long: an idle sidecar has one connection, not two.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between a panic and the next attempt.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Between attempts to write a revocation.
const REVOCATION_PAUSE: Duration = Duration::from_secs(1);
/// How long the broker may take to confirm what was sent when the sidecar stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Pushes that wait to hear that they are stored; beyond it they are answered 202.
const WATCHERS_MAX: usize = 256;

/// What outlives a panic.
struct Task {
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    jobs: mpsc::Receiver<Job>,
    stop: watch::Receiver<bool>,
    /// The newest order that was carried out.
    done: u64,
    /// Whether a connection ended with a panic, and nobody knows what the broker has read of it.
    in_doubt: bool,
    /// Whether the driver was told what the spool holds.
    is_recovered: bool,
}

struct Worker<'a> {
    task: &'a mut Task,
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    bucket: Option<Bucket>,
    /// What the bucket has of ours; `None` when that has to be read (again).
    holdings: Option<Holdings>,
    /// Ours whose objects were found to be gone or altered.
    gone: BTreeSet<u64>,
    watchers: BTreeMap<u64, Vec<oneshot::Sender<Stored>>>,
    /// Highest number seen of each authorised source.
    floors: BTreeMap<RuntimeId, u64>,
    /// How the newest snapshot of each authorised source was judged that was asked for.
    judged: BTreeMap<RuntimeId, Judged>,
    attempt: u32,
    retry_at: Instant,
}

/// Reads the spool, then works until `stop` turns true.
pub(super) async fn run(
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    jobs: mpsc::Receiver<Job>,
    stop: watch::Receiver<bool>,
) -> Stopped {
    let mut task =
        Task { shared, spool, jobs, stop, done: 0, in_doubt: false, is_recovered: false };
    loop {
        let Err(panic) = AssertUnwindSafe(task.life()).catch_unwind().await else {
            return Stopped { confirmed: !task.in_doubt };
        };
        let words = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(panic = words, "the snapshot worker has panicked; it begins anew");
        task.shared.counts.restarted();
        task.in_doubt = true;
        let text = format!("it has panicked: {words}");
        task.shared.settings.conditions.begin(Condition::SnapshotWorker, text);
        // An order to stop must be obeyed at once; the life that begins then does.
        let (mut stop, mut orders) = (task.stop.clone(), task.shared.gate.orders.clone());
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = ordered(&mut orders, task.done) => {}
            () = tokio::time::sleep(RESTART_PAUSE) => {}
        }
    }
}

impl Task {
    async fn life(&mut self) {
        if !self.is_recovered && !self.recover().await {
            return;
        }
        let (shared, spool) = (Arc::clone(&self.shared), Arc::clone(&self.spool));
        let worker = Worker {
            task: self,
            shared,
            spool,
            bucket: None,
            holdings: None,
            gone: BTreeSet::new(),
            watchers: BTreeMap::new(),
            floors: BTreeMap::new(),
            judged: BTreeMap::new(),
            attempt: 0,
            retry_at: Instant::now(),
        };
        worker.work().await;
    }

    /// Reads the spool and tells the driver what it holds; whether it could be read.
    async fn recover(&mut self) -> bool {
        let (shared, shelf) = (&self.shared, Arc::clone(&self.spool));
        let recovery = match blocking(move || shelf.recover()).await {
            Ok(Ok(recovery)) => recovery,
            Ok(Err(fault)) | Err(fault) => {
                tracing::error!(%fault, "the snapshot spool cannot be read");
                let text = format!("the spool cannot be read: {fault}");
                shared.settings.conditions.begin(Condition::SnapshotWorker, text);
                return false;
            }
        };
        shared.show_spool(&self.spool);
        for damage in &recovery.damaged {
            tracing::error!(damage, "a snapshot in damaged/");
        }
        let unsent = recovery.entries.iter().filter(|entry| entry.state == State::Unsent).count();
        tracing::info!(kept = recovery.entries.len(), unsent, "snapshot spool read");
        if let Some(entry) = recovery.entries.iter().rev().find(|entry| entry.state.is_stored()) {
            let digest = entry.digest;
            shared.gate.tell(Question::Stored { digest, announced: None }).await;
        }
        shared.gate.tell(Question::Recovered { is_waiting: unsent > 0 }).await;
        self.is_recovered = true;
        // Set once, here.
        let _ = shared.spool.set(Arc::clone(&self.spool));
        true
    }
}

impl Worker<'_> {
    async fn work(mut self) {
        let mut orders = self.shared.gate.orders.clone();
        let mut stop = self.task.stop.clone();
        loop {
            let order = *orders.borrow_and_update();
            if order.number > self.task.done {
                self.obey(order).await;
                continue;
            }
            let may_upload = order.is_shared && self.spool.next_unsent().is_some();
            let idle_until = Instant::now() + IDLE_TIMEOUT;
            let due_at = Instant::now() + REVOCATION_PAUSE;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                changed = orders.changed() => if changed.is_err() { break },
                job = self.task.jobs.recv() => match job {
                    None => break,
                    Some(Job::Watch { seq, answer }) => self.watch(seq, answer),
                    Some(job) => {
                        let done = self.task.done;
                        tokio::select! {
                            biased;
                            () = stopped(&mut stop) => break,
                            () = ordered(&mut orders, done) => self.holdings = None,
                            () = self.serve(job) => {}
                        }
                    }
                },
                () = tokio::time::sleep_until(self.retry_at), if may_upload => {
                    let done = self.task.done;
                    tokio::select! {
                        biased;
                        () = stopped(&mut stop) => break,
                        () = ordered(&mut orders, done) => self.holdings = None,
                        () = self.upload_next() => {}
                    }
                }
                () = tokio::time::sleep_until(due_at), if self.spool.is_revocation_due() => {
                    let spool = Arc::clone(&self.spool);
                    if let Ok(Err(fault)) = blocking(move || spool.write_revocations()).await {
                        tracing::error!(%fault, "the revocation cannot be written");
                    }
                    self.shared.show_spool(&self.spool);
                }
                () = tokio::time::sleep_until(idle_until), if self.bucket.is_some() => {
                    self.hang_up().await;
                }
            }
        }
        // What was dropped just now may have been sent; the broker is asked what it has read.
        if let Some(bucket) = self.bucket.take() {
            let quiet = tokio::time::timeout(STOP_TIMEOUT, bucket.quiesce()).await;
            self.task.in_doubt |= quiet != Ok(true);
            bucket.sever().await;
        }
    }

    /// Carries out an order to stop.
    async fn obey(&mut self, order: GateOrder) {
        let mut orders = self.shared.gate.orders.clone();
        let bucket = self.bucket.take();
        let in_doubt = std::mem::take(&mut self.task.in_doubt);
        let quiet = async {
            let Some(bucket) = bucket else { return !in_doubt };
            let confirmed = tokio::select! {
                confirmed = bucket.quiesce() => confirmed,
                () = severed(&mut orders, order.number) => false,
            };
            bucket.sever().await;
            confirmed && !in_doubt
        };
        let spool = Arc::clone(&self.spool);
        let revoke = blocking(move || spool.revoke(order.revocations));
        let (confirmed, revoked) = tokio::join!(quiet, revoke);
        let is_on_disk = match revoked {
            Ok(Ok(count)) => {
                if count > 0 {
                    tracing::warn!(
                        count,
                        "snapshots revoked: the gate closed before they were sent"
                    );
                }
                true
            }
            Ok(Err(fault)) | Err(fault) => {
                tracing::error!(%fault, "the revocation cannot be written");
                false
            }
        };
        self.shared.show_spool(&self.spool);
        // Whoever waits for a revoked one learns it from the spool.
        let spool = &self.spool;
        let is_unsent = |seq| spool.entry(seq).is_some_and(|entry| entry.state == State::Unsent);
        self.watchers.retain(|seq, _| is_unsent(*seq));
        self.task.done = order.number;
        let confirmed = confirmed && is_on_disk;
        self.shared.gate.tell(Question::Quiet { number: order.number, confirmed }).await;
    }

    fn watch(&mut self, seq: u64, answer: oneshot::Sender<Stored>) {
        match self.spool.entry(seq).map(|entry| entry.state) {
            Some(State::Stored(Some(stored))) => drop(answer.send(stored)),
            Some(State::Unsent) if self.watchers.len() < WATCHERS_MAX => {
                self.watchers.entry(seq).or_default().push(answer);
                // Somebody waits: a pause after a failure is over.
                self.retry_at = self.retry_at.min(Instant::now());
            }
            Some(_) | None => {}
        }
    }

    /// Uploads the oldest that waits. A failure is logged, and tried again after a pause.
    async fn upload_next(&mut self) {
        let Some(entry) = self.spool.next_unsent() else { return };
        match self.try_upload(&entry).await {
            Ok(stored) => {
                self.attempt = 0;
                self.shared.settings.conditions.end(Condition::SnapshotWaiting);
                self.shared.settings.conditions.end(Condition::SnapshotWorker);
                self.note(&entry, &stored).await;
            }
            Err(UploadFault::Spool(SpoolFault::Damaged(_) | SpoolFault::Unknown)) => {
                self.shared.show_spool(&self.spool);
            }
            Err(fault) => {
                if !matches!(fault, UploadFault::NotOpen) {
                    self.shared.counts.upload_failed();
                    tracing::warn!(%fault, seq = entry.seq, "snapshot not uploaded yet");
                }
                if let UploadFault::StoredFull(_) | UploadFault::NoReader = &fault {
                    let text = format!("snapshot {}: {fault}", entry.seq);
                    self.shared.settings.conditions.begin(Condition::SnapshotWaiting, text);
                }
                if let UploadFault::BaseGone(seq) = &fault {
                    self.gone.insert(*seq);
                }
                // What was under way may have left the bucket otherwise than we know it.
                self.holdings = None;
                self.hang_up().await;
                let pause = backoff(self.attempt.saturating_add(2), random());
                self.attempt = self.attempt.saturating_add(1);
                self.retry_at = Instant::now() + pause;
            }
        }
    }

    async fn try_upload(&mut self, entry: &SpoolEntry) -> Result<Stored, UploadFault> {
        let granted = self.shared.gate.ask(Question::Upload).await;
        let (grant, evidence) = granted.ok_or(UploadFault::NotOpen)?;
        if !self.shared.trust.borrow().has_reader(grant.now) {
            return Err(UploadFault::NoReader);
        }
        self.collect(grant.now, entry.size).await?;
        let (Some(bucket), Some(holdings)) = (&self.bucket, &mut self.holdings) else {
            return Err(UploadFault::NotOpen);
        };
        let granted = (grant, evidence);
        let stored =
            upload::upload(&self.shared, &self.spool, bucket, holdings, entry, granted).await?;
        if let Err(fault) = self.collect(grant.now, u64::MAX).await {
            tracing::warn!(%fault, "retention did not finish");
            self.holdings = None;
        }
        Ok(stored)
    }

    /// Knows what the bucket has of ours, settles what is unfinished there, and lets go of what
    /// retention does not keep if `more` bytes are beyond what may be stored.
    async fn collect(&mut self, now: Timestamp, more: u64) -> Result<(), UploadFault> {
        let bucket = open(&mut self.bucket, &self.shared).await?;
        if !self.spool.unfinished().is_empty() {
            self.holdings = None;
            upload::settle(&self.shared, &self.spool, bucket, now).await?;
        }
        let holdings = match &mut self.holdings {
            Some(holdings) => holdings,
            None => {
                let (shared, spool, gone) = (&self.shared, &self.spool, &self.gone);
                let read = upload::read_holdings(shared, spool, bucket, gone, now).await?;
                self.holdings.insert(read)
            }
        };
        if holdings.bytes().saturating_add(more) > self.shared.settings.stored_bytes_max {
            upload::collect(&self.shared, &self.spool, bucket, holdings, now).await?;
        }
        Ok(())
    }

    async fn note(&mut self, entry: &SpoolEntry, stored: &Stored) {
        tracing::info!(
            seq = entry.seq,
            kind = stored.kind.word(),
            bytes = entry.size,
            stored_bytes = stored.stored_bytes,
            "snapshot stored"
        );
        self.spool.note_stored(entry.seq, stored);
        let (spool, seq) = (Arc::clone(&self.spool), entry.seq);
        if let Ok(Err(fault)) | Err(fault) = blocking(move || spool.write_stored(seq)).await {
            tracing::warn!(%fault, "not noted on disk; the bucket will tell after a restart");
        }
        for answer in self.watchers.remove(&entry.seq).unwrap_or_default() {
            drop(answer.send(stored.clone()));
        }
    }

    async fn hang_up(&mut self) {
        if let Some(bucket) = self.bucket.take() {
            bucket.sever().await;
        }
    }
}

/// The connection, opened if need be.
async fn open<'a>(
    place: &'a mut Option<Bucket>,
    shared: &Shared,
) -> Result<&'a Bucket, super::bucket::BucketFault> {
    match place {
        Some(bucket) => Ok(bucket),
        None => Ok(place.insert(Bucket::open(&shared.settings.nats).await?)),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}

/// Done when there is an order newer than `done`.
async fn ordered(orders: &mut watch::Receiver<GateOrder>, done: u64) {
    // A driver that is gone gives no orders; `work` sees that.
    let _ = orders.wait_for(|order| order.number > done).await;
}

/// Done when the time of order `number` is over.
async fn severed(orders: &mut watch::Receiver<GateOrder>, number: u64) {
    let _ = orders.wait_for(|order| order.sever >= number).await;
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
