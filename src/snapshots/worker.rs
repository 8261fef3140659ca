//! The one task that talks to the bucket: uploads in order of acceptance, fetches between them.
//!
//! It holds a connection only while it has something to do and the gate allows it. An order to stop
//! is carried out before anything else: what is under way is dropped at its next await, the broker
//! confirms what had been sent, the connection is severed, what has to be revoked is revoked on
//! disk, and only then the driver is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::bucket::Bucket;
use super::fetch::{self, FetchFault, Item, Source};
use super::gate::{Ask, Order};
use super::progress::{Direction, Tracker, stored_total};
use super::spool::{Entry, Spool, SpoolFault, State, Stored};
use super::upload::{self, Holdings, UploadFault};
use super::{Room, Which, blocking};
use crate::nats::backoff::backoff;
use crate::nats::object::TOMBSTONE_AGE;
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::{Manifest, Plain};

/// An unused connection is given up after so long: an idle sidecar has one connection, not two.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The bucket is swept before the first upload, before one that follows a failure, and after so
/// long, for every deleted object leaves a tombstone that may go after [`TOMBSTONE_AGE`].
const SWEEP_INTERVAL: Duration = TOMBSTONE_AGE;
/// Pushes that wait to hear that they are stored; beyond it they are answered 202.
const WATCHERS_MAX: usize = 256;

/// What others want of the worker.
#[derive(Debug)]
pub(super) enum Job {
    /// Tell when this one is stored.
    Watch { seq: u64, answer: oneshot::Sender<Stored> },
    /// Fetch one.
    Fetch {
        source: RuntimeId,
        which: Which,
        answer: oneshot::Sender<Result<(String, Plain), FetchFault>>,
    },
    /// List a source.
    List { source: RuntimeId, answer: oneshot::Sender<Result<Vec<Item>, FetchFault>> },
}

struct Worker {
    room: Arc<Room>,
    spool: Arc<Spool>,
    bucket: Option<Bucket>,
    /// What the bucket has of ours; `None` when that has to be read (again).
    holdings: Option<Holdings>,
    /// When the bucket was last swept of what belongs to no object; `None` when an upload or a
    /// deletion of ours may have left some of it.
    swept: Option<Instant>,
    watchers: BTreeMap<u64, Vec<oneshot::Sender<Stored>>>,
    /// Highest number seen of each authorised source.
    floors: BTreeMap<RuntimeId, u64>,
    /// The newest order that was carried out.
    done: u64,
    attempt: u32,
    retry_at: Instant,
}

/// Reads the spool, then works until `stop` turns true.
pub(super) async fn run(
    room: Arc<Room>,
    spool: Arc<Spool>,
    jobs: mpsc::Receiver<Job>,
    stop: watch::Receiver<bool>,
) {
    let shelf = Arc::clone(&spool);
    let recovery = match blocking(move || shelf.recover()).await {
        Ok(Ok(recovery)) => recovery,
        Ok(Err(fault)) | Err(fault) => {
            tracing::error!(%fault, "the snapshot spool cannot be read");
            return;
        }
    };
    for damage in &recovery.damaged {
        tracing::error!(damage, "moved to damaged/");
    }
    let unsent = recovery.entries.iter().filter(|entry| entry.state == State::Unsent).count();
    tracing::info!(kept = recovery.entries.len(), unsent, "snapshot spool read");
    let stored = recovery.entries.iter().rev().find(|entry| entry.state.is_stored());
    if let Some(entry) = stored {
        let (digest, manifest) = (entry.digest.to_string(), bytes::Bytes::new());
        room.gate.tell(Ask::Stored { digest, manifest }).await;
    }
    let newest = recovery.entries.last().map_or(0, |entry| entry.seq);
    room.gate.tell(Ask::Recovered { newest, is_waiting: unsent > 0 }).await;
    // Set once, here.
    let _ = room.spool.set(Arc::clone(&spool));
    let worker = Worker {
        room,
        spool,
        bucket: None,
        holdings: None,
        swept: None,
        watchers: BTreeMap::new(),
        floors: BTreeMap::new(),
        done: 0,
        attempt: 0,
        retry_at: Instant::now(),
    };
    worker.work(jobs, stop).await;
}

impl Worker {
    async fn work(mut self, mut jobs: mpsc::Receiver<Job>, mut stop: watch::Receiver<bool>) {
        let mut orders = self.room.gate.orders.clone();
        loop {
            let order = *orders.borrow_and_update();
            if order.number > self.done {
                self.obey(order).await;
                continue;
            }
            let may_upload = order.is_open && self.spool.next_unsent().is_some();
            let idle_until = Instant::now() + IDLE_TIMEOUT;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                changed = orders.changed() => if changed.is_err() { break },
                job = jobs.recv() => match job {
                    None => break,
                    Some(Job::Watch { seq, answer }) => self.watch(seq, answer),
                    Some(job) => {
                        tokio::select! {
                            biased;
                            () = stopped(&mut stop) => break,
                            () = ordered(&mut orders, self.done) => {}
                            () = self.serve(job) => {}
                        }
                    }
                },
                () = tokio::time::sleep_until(self.retry_at), if may_upload => {
                    tokio::select! {
                        biased;
                        () = stopped(&mut stop) => break,
                        () = ordered(&mut orders, self.done) => self.distrust(),
                        () = self.upload_next() => {}
                    }
                }
                () = tokio::time::sleep_until(idle_until), if self.bucket.is_some() => {
                    self.hang_up().await;
                }
            }
        }
        self.hang_up().await;
    }

    /// Carries out an order to stop.
    async fn obey(&mut self, order: Order) {
        let mut orders = self.room.gate.orders.clone();
        let bucket = self.bucket.take();
        let quiet = async {
            let Some(bucket) = bucket else { return true };
            let confirmed = tokio::select! {
                confirmed = bucket.quiesce() => confirmed,
                () = severed(&mut orders, order.number) => false,
            };
            bucket.sever().await;
            confirmed
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
        // Whoever waits for a revoked one learns it from the spool.
        let spool = &self.spool;
        let is_unsent = |seq| spool.entry(seq).is_some_and(|entry| entry.state == State::Unsent);
        self.watchers.retain(|seq, _| is_unsent(*seq));
        self.done = order.number;
        let confirmed = confirmed && is_on_disk;
        self.room.gate.tell(Ask::Quiet { number: order.number, confirmed }).await;
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
                self.note(&entry, &stored).await;
                if let Err(fault) = self.collect().await {
                    tracing::warn!(%fault, "retention did not finish");
                    self.distrust();
                }
            }
            Err(UploadFault::Spool(SpoolFault::Damaged(_) | SpoolFault::Unknown)) => {}
            Err(fault) => {
                if !matches!(fault, UploadFault::NotOpen) {
                    self.room.books.upload_failed();
                    tracing::warn!(%fault, seq = entry.seq, "snapshot not uploaded yet");
                }
                self.distrust();
                self.hang_up().await;
                let pause = backoff(self.attempt.saturating_add(2), random());
                self.attempt = self.attempt.saturating_add(1);
                self.retry_at = Instant::now() + pause;
            }
        }
    }

    async fn try_upload(&mut self, entry: &Entry) -> Result<Stored, UploadFault> {
        let grant = self.room.gate.ask(Ask::Upload).await.ok_or(UploadFault::NotOpen)?;
        let bucket = open(&mut self.bucket, &self.room).await?;
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP_INTERVAL) {
            match bucket.purge_orphans().await {
                Ok(()) => self.swept = Some(Instant::now()),
                Err(fault) => tracing::warn!(%fault, "orphan chunks are not cleared away"),
            }
        }
        let holdings = match &mut self.holdings {
            Some(holdings) => holdings,
            None => self.holdings.insert(upload::read_holdings(&self.room, bucket).await?),
        };
        upload::upload(&self.room, &self.spool, bucket, &mut holdings.chain, entry, grant).await
    }

    /// What was under way may have left the bucket otherwise than we know it.
    fn distrust(&mut self) {
        (self.holdings, self.swept) = (None, None);
    }

    async fn note(&mut self, entry: &Entry, stored: &Stored) {
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

    async fn collect(&mut self) -> Result<(), UploadFault> {
        let (Some(bucket), Some(holdings)) = (&self.bucket, &mut self.holdings) else {
            return Ok(());
        };
        upload::collect(&self.room, &self.spool, bucket, holdings).await
    }

    async fn serve(&mut self, job: Job) {
        match job {
            Job::Watch { seq, answer } => self.watch(seq, answer),
            Job::Fetch { source, which, answer } => {
                let fetched = self.fetch(source, which).await;
                drop(answer.send(fetched));
            }
            Job::List { source, answer } => {
                let listed = match self.manifests(source).await {
                    Ok((_, manifests)) => Ok(manifests.iter().map(Item::of_manifest).collect()),
                    Err(fault) => Err(fault),
                };
                drop(answer.send(listed));
            }
        }
    }

    async fn fetch(
        &mut self,
        source: RuntimeId,
        which: Which,
    ) -> Result<(String, Plain), FetchFault> {
        let (source, manifests) = self.manifests(source).await?;
        let manifest = fetch::choose(&manifests, &source, which)?;
        if let Some(newest) = manifests.last() {
            let floor = self.floors.entry(source.id.clone()).or_default();
            *floor = newest.seq.max(*floor);
        }
        let media_type = manifest.media_type.clone();
        if let Some(plain) = self.room.cache.get(manifest.digest) {
            return Ok((media_type, plain));
        }
        let Some(bucket) = &self.bucket else {
            return Err(FetchFault::Broker("no connection".to_owned()));
        };
        let total = stored_total(&manifests, manifest);
        let tracker = Tracker::new(Direction::Fetch, manifest, total, &self.room.settings.feed);
        let bytes_max = self.room.settings.bytes_max;
        let step = |done| tracker.step(done);
        let plain = fetch::fetch(bucket, manifest, bytes_max, &step).await?;
        tracker.done();
        self.room.cache.put(&plain);
        Ok((media_type, plain))
    }

    /// Asks the gate, checks the authorisation, reads the list.
    async fn manifests(&mut self, id: RuntimeId) -> Result<(Source, Vec<Manifest>), FetchFault> {
        let grant = self.room.gate.ask(Ask::Fetch).await.ok_or(FetchFault::Isolated)?;
        let trust = self.room.trust.borrow().clone();
        let key_id = if id == self.room.settings.runtime_id {
            None
        } else {
            let found = trust
                .sources
                .get(&id)
                .filter(|(_, expires)| fetch::is_current(*expires, grant.now));
            let (key_id, _) = found.ok_or_else(|| FetchFault::Unauthorised(id.clone()))?;
            key_id.clone()
        };
        let floor = self.floors.get(&id).copied().unwrap_or(0);
        let source = Source { id, key_id, floor };
        let bucket = open(&mut self.bucket, &self.room).await?;
        match fetch::manifests(bucket, &source, &trust.keyring).await {
            Ok(manifests) => Ok((source, manifests)),
            Err(fault) => {
                self.hang_up().await;
                Err(fault)
            }
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
    room: &Room,
) -> Result<&'a Bucket, super::bucket::BucketFault> {
    match place {
        Some(bucket) => Ok(bucket),
        None => Ok(place.insert(Bucket::open(&room.settings.nats).await?)),
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
async fn ordered(orders: &mut watch::Receiver<Order>, done: u64) {
    // A driver that is gone gives no orders; `work` sees that.
    let _ = orders.wait_for(|order| order.number > done).await;
}

/// Done when the time of order `number` is over.
async fn severed(orders: &mut watch::Receiver<Order>, number: u64) {
    let _ = orders.wait_for(|order| order.sever >= number).await;
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
