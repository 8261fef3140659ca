//! How far a long transfer is, at a rate that a human reads.
//!
//! One measure for all who show it: the worker's log, the event stream (`telemetry/feed.rs`) and
//! the bar of `driftgate snapshot`. What deliberately is not here: drawing (`commands/`).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::digest::Digest;
use crate::protocol::snapshot::Manifest;
use crate::telemetry::Feed;

/// The log says how far a transfer is at most this often. One that is shorter says nothing here.
pub const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Listeners hear of it at most this often between its start and its end.
pub const EVENT_INTERVAL: Duration = Duration::from_millis(200);
/// Name of its events.
const EVENT: &str = "snapshot";

/// Which way the bytes go, as seen from the broker's side of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the broker.
    Fetch,
    /// To the broker.
    Upload,
}

impl Direction {
    fn word(self) -> &'static str {
        self.into()
    }
}

/// Whether a transfer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All bytes are there.
    Done,
    /// Bytes move.
    Running,
    /// It ended early: the gate closed, the broker failed, or the sidecar stops. The log says
    /// which. An upload that may go on begins again.
    Stopped,
}

/// How far one transfer is: the object of a `snapshot` event.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// `upload` or `fetch`.
    pub direction: Direction,
    /// Whose snapshot.
    pub runtime_id: String,
    /// Its number.
    pub seq: u64,
    /// SHA-256 of its plain bytes.
    pub digest: Digest,
    /// Stored bytes moved: acknowledged by the broker, or arrived.
    pub bytes_done: u64,
    /// Stored bytes in all; null when that is not known.
    pub bytes_total: Option<u64>,
    /// Mean since the start.
    pub bytes_per_s: u64,
    /// Seconds until the end at this speed, rounded up; null when that cannot be said.
    pub remaining_s: Option<u64>,
    /// `running`, `done` or `stopped`.
    pub state: State,
}

/// Follows one transfer; dropped before [`Tracker::done`], it says that the transfer stopped.
#[derive(Debug)]
pub(super) struct Tracker {
    name: String,
    started: Instant,
    feed: Feed,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    progress: Progress,
    log: Pace,
    event: Pace,
}

impl Tracker {
    /// A transfer begins, of `bytes_total` stored bytes.
    pub(super) fn new(
        direction: Direction,
        manifest: &Manifest,
        bytes_total: Option<u64>,
        feed: &Feed,
    ) -> Self {
        let progress = Progress {
            direction,
            runtime_id: manifest.runtime.to_string(),
            seq: manifest.seq,
            digest: manifest.digest,
            bytes_done: 0,
            bytes_total,
            bytes_per_s: 0,
            remaining_s: None,
            state: State::Running,
        };
        feed.send(EVENT, || progress.clone());
        let now = Now { progress, log: Pace::new(LOG_INTERVAL), event: Pace::new(EVENT_INTERVAL) };
        Self {
            name: manifest.object_name().to_string(),
            started: Instant::now(),
            feed: feed.clone(),
            now: Mutex::new(now),
        }
    }

    /// `done` bytes are moved.
    pub(super) fn step(&self, done: u64) {
        let elapsed = self.started.elapsed();
        let Ok(mut now) = self.now.lock() else { return };
        now.progress.measure(done, elapsed);
        if now.event.is_due(elapsed) {
            self.feed.send(EVENT, || now.progress.clone());
        }
        if now.log.is_due(elapsed) {
            self.log("on its way", &now.progress, elapsed);
        }
    }

    /// All of it is there. Returns how long that took.
    pub(super) fn done(self) -> Duration {
        if let Ok(mut now) = self.now.lock() {
            now.progress.state = State::Done;
        }
        self.started.elapsed()
    }

    fn log(&self, how: &'static str, progress: &Progress, elapsed: Duration) {
        tracing::info!(
            object = self.name,
            done_bytes = progress.bytes_done,
            total_bytes = progress.bytes_total,
            bytes_per_s = progress.bytes_per_s,
            remaining_s = progress.remaining_s,
            elapsed_s = elapsed.as_secs(),
            "snapshot {} {how}",
            progress.direction.word()
        );
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let Ok(mut now) = self.now.lock() else { return };
        let progress = &mut now.progress;
        progress.measure(progress.bytes_done, elapsed);
        let how = match progress.state {
            State::Done => "done",
            State::Running | State::Stopped => {
                (progress.state, progress.remaining_s) = (State::Stopped, None);
                "stopped"
            }
        };
        self.feed.send(EVENT, || progress.clone());
        if elapsed >= LOG_INTERVAL {
            self.log(how, progress, elapsed);
        }
    }
}

impl Progress {
    fn measure(&mut self, done: u64, elapsed: Duration) {
        self.bytes_done = done;
        self.bytes_per_s = rate(done, elapsed);
        let total = self.bytes_total;
        self.remaining_s = total.and_then(|total| remaining_s(done, total, self.bytes_per_s));
    }
}

/// Says yes at most once per interval.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    last: Duration,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        Self { interval, last: Duration::ZERO }
    }

    fn is_due(&mut self, elapsed: Duration) -> bool {
        let is_due = elapsed.saturating_sub(self.last) >= self.interval;
        if is_due {
            self.last = elapsed;
        }
        is_due
    }
}

/// Objects that are fetched side by side, each of which tells its own bytes only.
pub(super) struct Sum<'a> {
    moved: AtomicU64,
    tell: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Sum<'a> {
    pub(super) fn new(tell: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { moved: AtomicU64::new(0), tell }
    }

    /// What one of them tells is added to what the others have told.
    pub(super) fn part(&self) -> impl Fn(u64) + Sync {
        let before = AtomicU64::new(0);
        move |done| {
            let more = done.saturating_sub(before.swap(done, Ordering::Relaxed));
            (self.tell)(self.moved.fetch_add(more, Ordering::Relaxed).saturating_add(more));
        }
    }
}

/// Stored bytes of all objects that restore one of these snapshots; `None` when one of them is not
/// among those that were listed.
#[must_use]
pub fn stored_total(manifests: &[Manifest], wanted: &Manifest) -> Option<u64> {
    let known: BTreeMap<String, u64> = manifests
        .iter()
        .map(|manifest| (manifest.object_name().to_string(), manifest.stored_bytes))
        .collect();
    wanted.objects.iter().map(|name| known.get(name).copied()).sum()
}

/// Bytes per second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / ms
}

/// Seconds until all is done at `bytes_per_s`, rounded up; `None` while nothing moves.
fn remaining_s(done: u64, total: u64, bytes_per_s: u64) -> Option<u64> {
    (bytes_per_s > 0).then(|| total.saturating_sub(done).div_ceil(bytes_per_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_most_once_per_interval() {
        let mut pace = Pace::new(LOG_INTERVAL);
        let due = (1..=120u64).filter(|tenth| pace.is_due(Duration::from_millis(tenth * 100)));
        assert_eq!(due.collect::<Vec<_>>(), [50, 100]);
    }

    #[test]
    fn speed_and_remaining_time_are_means() {
        assert_eq!(rate(3_000, Duration::from_millis(1_500)), 2_000);
        assert_eq!(rate(7, Duration::ZERO), 7_000);
        assert_eq!(remaining_s(3_000, 8_001, 2_000), Some(3));
        assert_eq!(remaining_s(9, 8, 2_000), Some(0));
        assert_eq!(remaining_s(0, 8, 0), None);
    }

    #[test]
    fn objects_fetched_side_by_side_add_up() {
        let told = Mutex::new(Vec::new());
        let tell = |done| told.lock().unwrap().push(done);
        let sum = Sum::new(&tell);
        let (first, second) = (sum.part(), sum.part());
        first(10);
        second(5);
        first(20);
        second(6);
        assert_eq!(*told.lock().unwrap(), [10, 15, 25, 26]);
    }
}
