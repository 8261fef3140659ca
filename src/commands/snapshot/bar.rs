//! A progress bar: one line on standard error where that is a terminal, and nothing elsewhere.
//!
//! Some crates draw bars; the small ones among the well-kept ones bring three more crates and a
//! terminal abstraction for what is one line here. Speed and remaining time are those of
//! `snapshots/progress.rs`, the same as in the log and on the event stream.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::snapshots::progress::{rate, remaining_s};

/// Five pictures a second: as fast as a human reads. What is shorter draws nothing.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
/// Nobody waits longer than this, or twice this, for a byte or an answer. The sidecar itself gives
/// up a fetch after 60 s.
const STALL_TIMEOUT: Duration = Duration::from_secs(90);
/// Cells of the bar itself.
const CELLS: u64 = 24;
/// Columns of a terminal that does not tell.
const COLUMNS: u16 = 80;

/// How far one piece of work is.
#[derive(Debug)]
pub(super) struct Meter {
    label: &'static str,
    done: AtomicU64,
    /// 0 while it is not known.
    total: AtomicU64,
}

impl Meter {
    pub(super) fn new(label: &'static str) -> Self {
        Self { label, done: AtomicU64::new(0), total: AtomicU64::new(0) }
    }

    /// So many bytes there will be.
    pub(super) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// So many bytes are there.
    pub(super) fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// So many bytes more.
    pub(super) fn add(&self, more: usize) {
        self.done.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Does `work`, and draws how far it is meanwhile.
    pub(super) async fn drawn<T>(&self, work: impl Future<Output = T>) -> T {
        if !stderr().is_terminal() {
            return work.await;
        }
        let started = Instant::now();
        let mut ticks = interval_at(started + DRAW_INTERVAL, DRAW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = pin!(work);
        let mut is_drawn = false;
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut work => break outcome,
                _ = ticks.tick() => {
                    let total = self.total.load(Ordering::Relaxed);
                    let line = line(self.label, self.done(), total, started.elapsed(), columns());
                    drop(write!(stderr(), "\r{line}\x1b[K"));
                    is_drawn = true;
                }
            }
        };
        if is_drawn {
            drop(write!(stderr(), "\r\x1b[K"));
        }
        outcome
    }

    /// Does `work`; `None` when nothing has moved for too long.
    pub(super) async fn unless_stalled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut seen = self.done();
        loop {
            match timeout(STALL_TIMEOUT, &mut work).await {
                Ok(outcome) => return Some(outcome),
                Err(_) if self.done() == seen => return None,
                Err(_) => seen = self.done(),
            }
        }
    }
}

fn columns() -> u16 {
    rustix::termios::tcgetwinsize(stderr()).map_or(COLUMNS, |size| size.ws_col.max(1))
}

/// The picture: what fits into the columns, one of which stays free for the cursor.
fn line(label: &str, done: u64, total: u64, elapsed: Duration, columns: u16) -> String {
    let speed = rate(done, elapsed);
    let mut line = label.to_owned();
    // Writing into a String does not fail.
    let _ = match (done, total) {
        (0, _) => write!(line, "  waiting, {} s", elapsed.as_secs()),
        (_, 0) => write!(line, "  {}  {}/s", size(done), size(speed)),
        _ if done >= total => write!(line, "  {} moved, waiting", size(total)),
        _ => {
            let full = usize::try_from(done.saturating_mul(CELLS) / total).unwrap_or(0);
            let empty = usize::try_from(CELLS).unwrap_or(0).saturating_sub(full);
            let left = remaining_s(done, total, speed);
            let left = left.map_or_else(String::new, |left| format!("  {left} s left"));
            write!(
                line,
                "  [{}{}] {:>3} %  {} of {}  {}/s{left}",
                "#".repeat(full),
                "-".repeat(empty),
                done.saturating_mul(100) / total,
                size(done),
                size(total),
                size(speed),
            )
        }
    };
    line.chars().take(usize::from(columns).saturating_sub(1)).collect()
}

/// Bytes with one decimal and a unit.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            let tenths = bytes.saturating_mul(10) / unit;
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn check(done: u64, total: u64, ms: u64, columns: u16, expected: &str) {
        let elapsed = Duration::from_millis(ms);
        assert_eq!(line("put", done, total, elapsed, columns), expected);
    }

    #[test]
    fn a_line_says_bytes_speed_and_remaining_time() {
        let whole =
            "put  [######------------------]  25 %  4.0 MiB of 16.0 MiB  2.0 MiB/s  6 s left";
        check(4 * MIB, 16 * MIB, 2_000, 120, whole);
        check(4 * MIB, 16 * MIB, 2_000, 20, &whole[..19]);
        check(4 * MIB, 16 * MIB, 2_000, 1, "");
        check(0, 16 * MIB, 3_900, 80, "put  waiting, 3 s");
        check(1536, 0, 1_000, 80, "put  1.5 KiB  1.5 KiB/s");
        check(16 * MIB, 16 * MIB, 9_000, 80, "put  16.0 MiB moved, waiting");
    }
}
