//! What the kernel has booked for a process, and children of our own.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Names the task of a child that runs this program again.
pub(crate) const TASK: &str = "DRIFTGATE_BENCH_TASK";
/// Ticks of `/proc/PID/stat` in a second, on every Linux that we know.
const TICKS_PER_S: f64 = 100.0;

/// CPU of a process so far, of all its threads, also of those that have ended.
pub(crate) fn cpu(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |place: usize| fields[place].parse::<u32>().unwrap();
    Duration::from_secs_f64(f64::from(ticks(11) + ticks(12)) / TICKS_PER_S)
}

/// How often the threads that live now have waited and been woken.
pub(crate) fn wakeups(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        number(&text, "voluntary_ctxt_switches:")
    };
    tasks.flatten().map(of).sum()
}

/// Memory of a process by this name in its `status`, in KiB.
pub(crate) fn memory(process: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    number(&text, name) as f64
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Lets time pass: what is measured is what happens in it.
pub(crate) async fn watch_for(span: Duration) {
    let _ = tokio::time::timeout(span, core::future::pending::<()>()).await;
}

/// This program again, with a task and what it is told.
pub(crate) fn child(task: &str, told: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(TASK, task).arg(told).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Runs it to its end; gives what it has said.
pub(crate) async fn said(task: &'static str, told: Value) -> Value {
    let run = move || child(task, &told.to_string()).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{task}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Times of one thing, in microseconds.
#[derive(Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The least time that this share of all is not above.
    pub(crate) fn at(&mut self, share: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        let place = (self.0.len() as f64 * share).ceil() as usize;
        self.0[place.saturating_sub(1).min(self.0.len() - 1)]
    }

    /// p50, p99, p99.9.
    pub(crate) fn quantiles(&mut self) -> [f64; 3] {
        [0.5, 0.99, 0.999].map(|share| self.at(share))
    }
}

/// The quantiles that a child has said.
pub(crate) fn quantiles(said: &Value) -> [f64; 3] {
    [0, 1, 2].map(|place| said["us"][place].as_f64().unwrap())
}
