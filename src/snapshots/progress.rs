//! How far a long transfer is, at a rate that a human reads.
//!
//! The worker sends each step to a watch channel and, at most every [`LOG_INTERVAL`], to the log.
//! What deliberately is not here: drawing it (`commands/snapshot.rs`).

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The log says how far it is at most this often: short transfers say nothing but that they ended.
pub const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How far one transfer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `upload` or `fetch`.
    pub what: &'static str,
    /// Object or snapshot.
    pub name: String,
    /// Bytes moved.
    pub done: u64,
    /// Bytes in all; 0 when that is not known.
    pub total: u64,
}

/// Follows one transfer.
#[derive(Debug)]
pub(super) struct Tracker {
    what: &'static str,
    name: String,
    total: u64,
    started: Instant,
    logged: std::sync::Mutex<Instant>,
    sender: watch::Sender<Option<Progress>>,
}

impl Tracker {
    pub(super) fn new(
        what: &'static str,
        name: &str,
        total: u64,
        sender: &watch::Sender<Option<Progress>>,
    ) -> Self {
        let started = Instant::now();
        let (name, sender) = (name.to_owned(), sender.clone());
        Self { what, name, total, started, logged: std::sync::Mutex::new(started), sender }
    }

    /// `done` bytes are moved.
    pub(super) fn step(&self, done: u64) {
        let progress =
            Progress { what: self.what, name: self.name.clone(), done, total: self.total };
        self.sender.send_replace(Some(progress));
        let now = Instant::now();
        let Ok(mut logged) = self.logged.lock() else { return };
        if now.duration_since(*logged) >= LOG_INTERVAL {
            *logged = now;
            let speed = rate(done, now.duration_since(self.started));
            tracing::info!(
                object = self.name,
                done_bytes = done,
                total_bytes = self.total,
                bytes_per_s = speed,
                remaining_s = self.total.saturating_sub(done).checked_div(speed).unwrap_or(0),
                "snapshot {}",
                self.what
            );
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.sender.send_replace(None);
    }
}

/// Bytes per second.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> u64 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / ms
}
