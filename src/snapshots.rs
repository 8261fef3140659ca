//! Memory snapshots: accepted to disk, uploaded when the gate is open, fetched from peers.
//!
//! The walk of one snapshot: `http` streams it into the [`spool`], the gate allows it, it is
//! accepted; one worker encodes it against an earlier one, puts the object, and tells the driver,
//! who publishes the manifest and names the digest in packets. Everything that blocks or computes
//! runs on blocking threads, never on the driver's (P10).
//!
//! **The manifest travels with its object**, and an exchange envelope with the manifest: both stand
//! in the index, where one listing gives them all, and in the object's description, which is
//! written after the last chunk is acknowledged, so that nobody meets a manifest without its
//! object. The subject `{p}.snapshot.{source}` announces both. A peer's snapshot is judged by its
//! envelope before any of it is fetched, as a packet is (`protocol/envelope.rs`).
//!
//! **P5 and P8.** A closing verdict revokes what is accepted and unsent, on disk before its reply
//! leaves; it is never sent later, and stays readable for its own runtime. A crash, an outage or a
//! stop revokes nothing: what was answered 201 or 202 and was interrupted by those goes when the
//! gate has opened again. See [`spool`].
//!
//! **Memory.** A push streams to disk and takes no more than its buffers. One upload or restore is
//! under way at a time; its peak is bounded by [`peak_bytes_max`]. At most [`READINGS_MAX`] answers
//! hold a snapshot beside it.
//!
//! What deliberately is not here: the codec and the chain (`protocol/snapshot.rs`), what the gate
//! allows (`protocol/gate.rs`), the bucket's protocol (`nats/object.rs`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::nats;
use crate::protocol::digest::Digest;
use crate::protocol::keyring::Keyring;
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::{Evidence, Level, Manifest, Reader};
use crate::protocol::time::Timestamp;
use crate::telemetry::{Condition, Conditions, Feed};

pub mod bucket;
mod cache;
mod counts;
pub mod fetch;
mod frame;
pub mod gate;
mod incoming;
mod job;
mod memory;
pub mod progress;
mod reading;
pub mod spool;
mod upload;
mod worker;

pub use counts::unused_exposition;
pub use fetch::{FetchFault, Item};
pub use incoming::{Coding, Incoming, IncomingFault};
pub use job::Fetched;
pub use progress::Progress;

use cache::Cache;
use counts::Counts;
use frame::UploadFault;
use gate::{DriverEnd, GateClient, Question};
use job::Job;
use memory::{Memory, TooLittleMemory};
use spool::{Spool, SpoolEntry, SpoolFault, State, Stored};

/// Snapshots that may arrive at a time: one runtime pushes one after the other.
const INCOMING_MAX: usize = 4;
/// Snapshots that are read at a time: each is held in memory until its reader has it, or hangs up.
pub const READINGS_MAX: usize = 4;
/// How long one more reader waits for a place.
const READING_TIMEOUT: Duration = Duration::from_secs(2);
/// Jobs that may wait for the worker.
const JOBS_MAX: usize = 64;
/// How long a fetch may take before its route gives up; it goes on and is answered next time.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// How far ahead of our clock the number of a snapshot may be at least, whatever is configured for
/// packets: numbers count microseconds and are reserved ahead.
const SKEW_MIN: Duration = Duration::from_secs(30);
/// What zstd's tables take beside snapshots and cache, and what the allocator keeps of what it was
/// given back, in bytes. Measured with snapshots of 1 to 64 MiB and glibc: up to 20 MiB at level 3,
/// 105 MiB at level 9, where the codec's threads each leave pages with an arena of their own.
/// With `MALLOC_MMAP_THRESHOLD_=262144` in the environment glibc gives them back: 4 MiB snapshots
/// at level 9 then peak at 94 MiB in place of 130, cache included, at the same speed.
const SLACK_BYTES: u64 = 160 << 20;

/// What uploading or restoring one snapshot may add to the resident set at its peak, in bytes:
/// twice base and source, which are `both_bytes` together, the cache, and slack. Holds for levels
/// up to 9; a test and a bench keep it.
#[must_use]
pub fn peak_bytes_max(both_bytes: u64, cache_bytes_max: u64) -> u64 {
    both_bytes.saturating_mul(2).saturating_add(cache_bytes_max).saturating_add(SLACK_BYTES)
}

/// Whose snapshots may be read, and with which keys they are signed.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Signs ours, verifies theirs.
    pub keyring: Keyring,
    /// Authorised sources: the pinned key, and as what we read them.
    pub sources: BTreeMap<RuntimeId, (Option<String>, Reader)>,
    /// Those who may have ours.
    pub readers: Vec<Reader>,
}

impl Trust {
    /// Whether a peer may have our snapshots at that time.
    fn has_reader(&self, now: Timestamp) -> bool {
        self.readers.iter().any(|reader| reader.is_current(now))
    }

    /// A manifest's signed bytes, and the envelope that it travels in to those who may have it at
    /// its time.
    fn sign(
        &self,
        manifest: &Manifest,
        evidence: &Evidence,
    ) -> Result<(Bytes, String), UploadFault> {
        let readers = self.readers.iter().filter(|reader| reader.is_current(manifest.time));
        let signed = manifest.sign(&self.keyring).ok_or(UploadFault::Unsigned)?;
        let envelope = manifest.enclose(&self.keyring, readers, evidence);
        Ok((signed.into(), envelope.ok_or(UploadFault::Unsigned)?))
    }
}

/// What the room is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Us.
    pub runtime_id: RuntimeId,
    /// The broker.
    pub nats: nats::settings::Settings,
    /// The spool's folder.
    pub folder: PathBuf,
    /// Most bytes in it.
    pub spool_bytes_max: u64,
    /// Largest snapshot, in plain bytes, ours or a peer's.
    pub bytes_max: u64,
    /// Plain snapshots held in memory, in bytes.
    pub cache_bytes_max: u64,
    /// What all snapshots may take of memory, the cache included, where a limit says so.
    pub memory_bytes: Option<u64>,
    /// Full frames kept at the broker, at least 1.
    pub keep_full: usize,
    /// Age below which nothing is let go at the broker.
    pub keep_for: Duration,
    /// Most stored bytes of ours at the broker.
    pub stored_bytes_max: u64,
    /// How far ahead of our clock a number of a snapshot may be.
    pub clock_skew_max: Duration,
    /// zstd level.
    pub level: Level,
    /// How long a push waits for the broker before it is answered 202.
    pub reply_timeout: Duration,
    /// Where transfers tell how far they are.
    pub feed: Feed,
    /// Where it is said what weakens a promise.
    pub conditions: Conditions,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    /// Set when the spool is read; before that nothing can be accepted.
    spool: OnceLock<Arc<Spool>>,
    cache: Cache,
    trust: watch::Receiver<Trust>,
    gate: GateClient,
    jobs: mpsc::Sender<Job>,
    incoming: Arc<Semaphore>,
    readings: Arc<Semaphore>,
    /// Numbers are given and used in order.
    accepting: Mutex<()>,
    counts: Counts,
    memory: Memory,
}

/// The room's handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
    trust: Arc<watch::Sender<Trust>>,
}

/// A running room.
#[derive(Debug)]
pub struct Started {
    /// For the routes.
    pub snapshots: Snapshots,
    /// For the driver.
    pub driver_end: DriverEnd,
    /// The task that talks to the broker.
    pub worker: Worker,
}

/// The task that talks to the broker, owned by whoever has to know how it ended. Dropped, it is
/// told to stop.
#[derive(Debug)]
pub struct Worker {
    task: JoinHandle<Stopped>,
    stop: watch::Sender<bool>,
}

/// How the worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Whether the broker has confirmed all that was sent.
    pub confirmed: bool,
}

impl Worker {
    /// Stops it: nothing more is sent, and its connection is gone when this returns.
    pub async fn stop(self) -> Stopped {
        self.stop.send_replace(true);
        self.task.await.unwrap_or(Stopped { confirmed: false })
    }
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// At the broker.
    Stored(SpoolEntry, Stored),
    /// Safe on disk; it goes when gate and broker allow.
    Spooled(SpoolEntry),
    /// The same as the newest: nothing was stored.
    Unchanged(SpoolEntry),
}

/// Why a snapshot is refused or cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not in band `open`.
    #[error("snapshots are accepted in band open only")]
    NotOpen,
    /// Nobody is authorised to have it.
    #[error("no current peer may have snapshots: none has \"snapshot\" in its export")]
    NoReader,
    /// What is stored and waits fills what may be stored, and is too young to be let go.
    #[error(
        "{used} of {bytes_max} bytes of snapshot.stored_bytes_max hold what is younger than \
             snapshot.keep_for"
    )]
    StoredFull {
        /// Bytes at the broker and waiting for it.
        used: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// It cannot be held in memory.
    #[error(transparent)]
    Memory(#[from] TooLittleMemory),
    /// Isolated.
    #[error("isolated: no snapshot is shown or fetched until the gate reopens")]
    Isolated,
    /// The spool cannot be used, or is still being read.
    #[error("the spool is not ready")]
    NotReady,
    /// Too many pushes or readers at a time.
    #[error("too many snapshots are moved at a time")]
    Busy,
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolFault),
    /// A peer's, or one of ours that is only at the broker.
    #[error(transparent)]
    Fetch(#[from] FetchFault),
}

impl Refused {
    /// Why a fetch gave nothing, in one word for the metrics.
    fn fetch_word(&self) -> &'static str {
        match self {
            Self::Fetch(fault) => fault.word(),
            Self::Isolated => "isolated",
            Self::Busy
            | Self::Memory(_)
            | Self::NoReader
            | Self::NotOpen
            | Self::NotReady
            | Self::Spool(_)
            | Self::StoredFull { .. } => "not_ready",
        }
    }
}

/// Which snapshot of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Newest,
    /// The one with these plain bytes.
    Digest(Digest),
}

/// Takes the spool's folder and starts the worker. Reading the spool goes on behind it.
///
/// # Errors
/// [`SpoolFault::Held`] when another sidecar uses the folder, [`SpoolFault::Io`] when it cannot be
/// used.
pub fn start(settings: Settings, trust: Trust) -> Result<Started, SpoolFault> {
    let spool = Arc::new(Spool::open(&settings.folder, settings.spool_bytes_max)?);
    let (gate, driver_end) = gate::pair();
    let (jobs, job_queue) = mpsc::channel(JOBS_MAX);
    let (trust_sender, trust) = watch::channel(trust);
    let memory = Memory::of(settings.memory_bytes);
    let cache = Cache::new(settings.cache_bytes_max);
    let shared = Arc::new(Shared {
        settings,
        spool: OnceLock::new(),
        cache,
        trust,
        gate,
        jobs,
        incoming: Arc::new(Semaphore::new(INCOMING_MAX)),
        readings: Arc::new(Semaphore::new(READINGS_MAX)),
        accepting: Mutex::new(()),
        counts: Counts::new(),
        memory,
    });
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(worker::run(Arc::clone(&shared), spool, job_queue, stopping));
    let worker = Worker { task, stop };
    let snapshots = Snapshots { shared, trust: Arc::new(trust_sender) };
    Ok(Started { snapshots, driver_end, worker })
}

impl Snapshots {
    /// Largest snapshot, in plain bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.shared.settings.bytes_max
    }

    /// Whether one would be accepted now, before any of it is read.
    ///
    /// # Errors
    /// [`Refused::NotOpen`], [`Refused::NoReader`] or [`Refused::NotReady`].
    pub fn check_open(&self) -> Result<(), Refused> {
        if !self.shared.gate.order().is_open {
            return Err(Refused::NotOpen);
        }
        if self.shared.trust.borrow().readers.is_empty() {
            return Err(Refused::NoReader);
        }
        self.shared.spool().map(drop)
    }

    /// Begins to take one in.
    ///
    /// # Errors
    /// [`Refused`]: the gate, the spool, or too many at a time.
    pub fn begin(&self, coding: Coding) -> Result<Incoming, Refused> {
        self.check_open()?;
        let spool = self.shared.spool()?;
        let permit =
            Arc::clone(&self.shared.incoming).try_acquire_owned().map_err(|_| Refused::Busy)?;
        Incoming::begin(spool, coding, self.shared.settings.bytes_max, permit)
    }

    /// Accepts what has come in, and waits for the broker for at most the reply timeout.
    ///
    /// # Errors
    /// [`Refused`]; then it is gone.
    ///
    /// # Cancel safety
    /// A dropped call may have accepted the snapshot.
    pub async fn accept(
        &self,
        sealed: spool::Sealed,
        media_type: String,
    ) -> Result<Pushed, Refused> {
        let pushed = self.take(sealed, media_type).await?;
        self.shared.counts.pushed(&pushed);
        self.shared.settings.conditions.end(Condition::SpoolFull);
        Ok(pushed)
    }

    async fn take(&self, sealed: spool::Sealed, media_type: String) -> Result<Pushed, Refused> {
        let spool = self.shared.spool()?;
        let accepting = self.shared.accepting.lock().await;
        let newest = spool.newest().filter(|newest| newest.digest == sealed.digest());
        let (entry, is_new) = match newest {
            Some(entry) if entry.state != State::Revoked => (entry, false),
            Some(_) | None => {
                self.has_room(&spool, sealed.size()).await?;
                let grant = self.shared.gate.ask(Question::Accept).await.ok_or(Refused::NotOpen)?;
                if !self.shared.trust.borrow().has_reader(grant.now) {
                    return Err(Refused::NoReader);
                }
                let shelf = Arc::clone(&spool);
                let accepted = blocking(move || shelf.accept(sealed, grant, &media_type)).await??;
                (accepted, true)
            }
        };
        drop(accepting);
        if let State::Stored(_) = entry.state {
            return Ok(Pushed::Unchanged(entry));
        }
        let (answer, stored) = oneshot::channel();
        // A full queue only means that nobody is told when it is stored.
        let _ = self.shared.jobs.try_send(Job::Watch { seq: entry.seq, answer });
        let timeout = self.shared.settings.reply_timeout;
        match tokio::time::timeout(timeout, stored).await {
            Ok(Ok(stored)) if is_new => Ok(Pushed::Stored(entry, stored)),
            Ok(Ok(_)) => Ok(Pushed::Unchanged(entry)),
            Ok(Err(_)) | Err(_) => match spool.entry(entry.seq).map(|entry| entry.state) {
                Some(State::Stored(Some(stored))) => Ok(Pushed::Stored(entry, stored)),
                Some(State::Revoked) if is_new => Err(SpoolFault::Revoked.into()),
                Some(_) | None => Ok(Pushed::Spooled(entry)),
            },
        }
    }

    /// Whether what is at the broker, what waits for it and `more` bytes are within bounds, once
    /// retention has let go of what it may.
    async fn has_room(&self, spool: &Spool, more: u64) -> Result<(), Refused> {
        let bytes_max = self.shared.settings.stored_bytes_max;
        let used = || {
            let waiting = spool.entries().into_iter().filter(|entry| entry.state == State::Unsent);
            let waiting: u64 = waiting.map(|entry| entry.size).sum();
            self.shared.counts.stored_bytes().saturating_add(waiting)
        };
        let fits = |used: u64| used.saturating_add(more) <= bytes_max;
        if fits(used()) {
            return Ok(());
        }
        let (answer, collected) = oneshot::channel();
        if self.shared.jobs.try_send(Job::Collect { answer }).is_ok() {
            // Whether it was done or not, what counts is what is left.
            let _ = tokio::time::timeout(self.shared.settings.reply_timeout, collected).await;
        }
        let used = used();
        if fits(used) { Ok(()) } else { Err(Refused::StoredFull { used, bytes_max }) }
    }

    /// Takes over keys and authorisations from a changed configuration.
    pub fn reload(&self, trust: Trust) {
        self.trust.send_replace(trust);
    }
}

impl Shared {
    /// Highest number of a snapshot that counts at that time.
    fn seq_max(&self, now: Timestamp) -> u64 {
        let skew = u64::try_from(self.settings.clock_skew_max.max(SKEW_MIN).as_micros());
        now.unix_us().saturating_add(skew.unwrap_or(u64::MAX))
    }

    /// Says what of the index under our name does not count.
    fn show_ignored(&self, ignored: &[fetch::Ignored]) {
        let is_ahead = |ignored: &&fetch::Ignored| ignored.detail == fetch::AHEAD;
        let (ahead, foreign): (Vec<_>, Vec<_>) = ignored.iter().partition(is_ahead);
        let words = |ignored: Vec<&fetch::Ignored>| {
            ignored.iter().map(|ignored| format!("{}: {}", ignored.key, ignored.detail)).collect()
        };
        self.settings.conditions.set(Condition::ManifestAhead, words(ahead));
        self.settings.conditions.set(Condition::ManifestForeign, words(foreign));
    }

    /// Says what is wrong with the spool.
    fn show_spool(&self, spool: &Spool) {
        let damaged = spool.damaged().into_iter().rev().collect();
        self.settings.conditions.set(Condition::SnapshotDamaged, damaged);
        let due = "a revocation cannot be written; after a crash it would be forgotten";
        let due = spool.is_revocation_due().then(|| due.to_owned());
        self.settings.conditions.set(Condition::SnapshotUnrevoked, due.into_iter().collect());
    }

    fn spool(&self) -> Result<Arc<Spool>, Refused> {
        self.spool.get().cloned().ok_or(Refused::NotReady)
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SpoolFault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SpoolFault::Io(std::io::Error::other(error)))
}
