//! The audit file's writer: one task behind a bounded queue, so that no disk holds up the gate.
//!
//! [`Recorder::record`] never waits. While the file cannot be written (full disk, no permission,
//! another process), events wait in the queue and `/readyz` says so; when the queue is full too,
//! they are counted, and an explicit `lost` line says how many as soon as there is room again.
//! Each batch is synced to disk before the next one is taken. What deliberately is not here: what
//! an event is and how lines are chained, which is `protocol/audit.rs`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config;
use crate::protocol::audit::{Entry, Event, Loss};
use crate::protocol::packet::RuntimeId;
use crate::protocol::time::{Now, Timestamp};
use crate::telemetry::Condition;

mod file;

use file::LogFile;

/// Events that may wait for the disk: at under 1 KiB each, a bound on memory and on what a crash
/// loses.
pub const QUEUE_MAX: usize = 1024;
/// Events that are written and synced at a time: enough to share a sync, and few enough that a
/// crash tears little.
pub const BATCH_MAX: usize = 64;
/// Between two attempts at a file that cannot be written.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the sidecar's stop waits for the last lines: part of the 2 s that a native sidecar may
/// have left.
pub const FINISH_TIMEOUT: Duration = Duration::from_millis(250);
/// Refusals that are taken at once. Peers decide how many there are, and a flood of them must not
/// push everything else out of the rotated files.
pub const REFUSALS_BURST: u64 = 4096;
/// Time that buys room for one more refusal: 4 a second fill the default 8 files in most of a day.
pub const REFUSAL_INTERVAL: Duration = Duration::from_millis(250);

/// Takes events; owned by the driver.
#[derive(Debug)]
pub struct Recorder {
    runtime_id: RuntimeId,
    writer: Option<Writer>,
    refusals: Allowance,
    /// Events without a line that no `lost` line speaks of yet.
    throttled: u64,
    overflowed: u64,
    lost: u64,
    /// Events that the writer has taken.
    sent: u64,
}

/// How far the writer has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Sequence number of the newest line on disk.
    seq: u64,
    /// Events that are on disk, of those it has taken.
    events: u64,
}

/// The recorder's end of the writing task.
#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<Entry>,
    fault: watch::Receiver<Option<String>>,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Starts the writer; without a file nothing is recorded. Nothing waits for the disk, and a
    /// file that cannot be opened is a fault that `/readyz` shows, not a reason not to start.
    #[must_use]
    pub fn start(settings: config::Audit, runtime_id: RuntimeId) -> Self {
        let writer = settings.file.clone().map(|path| {
            let (queue, entries) = mpsc::channel(QUEUE_MAX);
            let (fault_sender, fault) = watch::channel(None);
            let (progress_sender, progress) = watch::channel(Progress::default());
            let task = tokio::spawn(write(path, settings, entries, fault_sender, progress_sender));
            Writer { queue, fault, progress, task }
        });
        let refusals = Allowance::default();
        Self { runtime_id, writer, refusals, throttled: 0, overflowed: 0, lost: 0, sent: 0 }
    }

    /// Records an event. Never waits: what there is no room for is counted as lost.
    pub fn record(&mut self, now: Now, event: Event) {
        if self.writer.is_none() {
            return;
        }
        if event.is_of_others() && !self.refusals.take(now.mono) {
            self.throttled += 1;
            self.lost += 1;
            return;
        }
        self.flush(now);
        if !self.send(now.wall, event) {
            self.overflowed += 1;
            self.lost += 1;
        }
    }

    /// Says how many events have no line, if there is room to say it.
    pub fn flush(&mut self, now: Now) {
        if self.throttled > 0 && self.refusals.take(now.mono) {
            let event = Event::Lost { count: self.throttled, loss: Loss::Throttled };
            if self.send(now.wall, event) {
                self.throttled = 0;
            }
        }
        if self.overflowed > 0 {
            let event = Event::Lost { count: self.overflowed, loss: Loss::QueueFull };
            if self.send(now.wall, event) {
                self.overflowed = 0;
            }
        }
    }

    fn send(&mut self, time: Timestamp, event: Event) -> bool {
        let entry = Entry { time, runtime_id: self.runtime_id.clone(), event };
        let taken = self.writer.as_ref().is_some_and(|writer| writer.queue.try_send(entry).is_ok());
        self.sent += u64::from(taken);
        taken
    }

    /// Waits until everything that was recorded up to now is on disk, and tells whether it is;
    /// `false` at once where there is no room or no log. The caller bounds the wait.
    pub fn written(&self) -> impl Future<Output = bool> + Send + use<> {
        let progress = self.writer.as_ref().map(|writer| writer.progress.clone());
        let (sent, is_whole) = (self.sent, self.overflowed == 0);
        async move {
            let Some(mut progress) = progress.filter(|_| is_whole) else { return false };
            progress.wait_for(|progress| progress.events >= sent).await.is_ok()
        }
    }

    /// What weakens the log at present.
    #[must_use]
    pub fn fault(&self) -> Option<(Condition, String)> {
        let writer = self.writer.as_ref()?;
        let fault = writer.fault.borrow().clone();
        let lost = self.overflowed > 0 || self.throttled > 0;
        match (fault, lost) {
            (Some(fault), true) => {
                Some((Condition::AuditUnwritable, format!("{fault}; events are being lost")))
            }
            (Some(fault), false) => {
                Some((Condition::AuditUnwritable, format!("{fault}; events wait in memory")))
            }
            (None, true) => Some((Condition::AuditLost, "events are being lost".to_owned())),
            (None, false) => None,
        }
    }

    /// Waits until [`Self::flush`] or [`Self::fault`] may have something new; for ever when all is
    /// well.
    ///
    /// # Cancel safety
    /// Safe: it takes nothing.
    pub async fn changed(&mut self) {
        let Some(writer) = &mut self.writer else { return std::future::pending().await };
        tokio::select! {
            changed = writer.fault.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            _ = writer.queue.reserve(), if self.overflowed > 0 => {}
            () = tokio::time::sleep(REFUSAL_INTERVAL), if self.throttled > 0 => {}
        }
    }

    /// Events without a line since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Sequence number of the newest line on disk; 0 before the first.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.progress.borrow().seq)
    }

    /// Writes what waits and ends. What is not on disk after `timeout` is no longer waited for.
    pub async fn finish(self, timeout: Duration) {
        let Some(Writer { queue, task, .. }) = self.writer else { return };
        drop(queue);
        if tokio::time::timeout(timeout, task).await.is_err() {
            tracing::warn!(
                "the audit log is still being written; the process does not wait for it"
            );
        }
    }
}

/// A token bucket on the monotonic clock.
#[derive(Debug)]
struct Allowance {
    left: u64,
    filled: Duration,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: REFUSALS_BURST, filled: Duration::ZERO }
    }
}

impl Allowance {
    fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.filled).as_millis() / REFUSAL_INTERVAL.as_millis();
        if let Ok(earned) = u32::try_from(earned) {
            self.filled += REFUSAL_INTERVAL * earned;
            self.left = self.left.saturating_add(u64::from(earned)).min(REFUSALS_BURST);
        } else {
            *self = Self { left: REFUSALS_BURST, filled: now };
        }
        let has = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has
    }
}

/// What moves between the task and the threads that block.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    settings: config::Audit,
    file: Option<LogFile>,
    batch: Vec<Entry>,
    /// Where the chain stood before a write that failed: tells what of the batch is on disk after
    /// all.
    doubtful: Option<u64>,
}

async fn write(
    path: PathBuf,
    settings: config::Audit,
    mut entries: mpsc::Receiver<Entry>,
    fault: watch::Sender<Option<String>>,
    progress: watch::Sender<Progress>,
) {
    let name = path.display().to_string();
    let mut work = Work { path, settings, file: None, batch: Vec::new(), doubtful: None };
    let mut taken = 0;
    loop {
        if work.batch.is_empty() {
            taken = entries.recv_many(&mut work.batch, BATCH_MAX).await;
            if taken == 0 {
                break;
            }
        }
        let Ok((returned, outcome)) = tokio::task::spawn_blocking(move || work.run()).await else {
            fault.send_replace(Some(format!("the writer of {name} has ended")));
            return;
        };
        work = returned;
        let next = outcome.err().map(|error| format!("{name}: {error}"));
        let faulty = next.is_some();
        fault.send_if_modified(|fault| {
            let changed = *fault != next;
            *fault = next;
            changed
        });
        if let Some(file) = &work.file {
            progress.send_modify(|progress| {
                progress.seq = file.chain().seq();
                progress.events += u64::try_from(taken).unwrap_or(0);
            });
        }
        if faulty {
            if entries.is_closed() {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
    if let Some(file) = &work.file {
        let chain = file.chain();
        tracing::info!(seq = chain.seq(), head = chain.head(), "audit log closed");
    }
}

impl Work {
    /// Writes the batch. What is on disk leaves it.
    fn run(mut self) -> (Self, io::Result<()>) {
        let outcome = self.attempt();
        if outcome.is_err() {
            // The next attempt opens it anew and so learns what is really there.
            self.file = None;
        }
        (self, outcome)
    }

    fn attempt(&mut self) -> io::Result<()> {
        let Some(first) = self.batch.first() else { return Ok(()) };
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let (path, limits) = (self.path.clone(), self.settings.clone());
                let (file, found_seq) = LogFile::open(path, limits, &first.runtime_id, first.time)?;
                let chain = file.chain();
                tracing::info!(seq = chain.seq(), head = chain.head(), "audit log opened");
                if let Some(before) = self.doubtful.take() {
                    let written = usize::try_from(found_seq.saturating_sub(before));
                    let written = written.unwrap_or(usize::MAX).min(self.batch.len());
                    self.batch.drain(..written);
                }
                self.file.insert(file)
            }
        };
        self.doubtful = Some(file.chain().seq());
        file.append(&self.batch)?;
        self.doubtful = None;
        self.batch.clear();
        Ok(())
    }
}
