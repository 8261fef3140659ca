//! Readers of `GET /phase/telemetry`: what one costs in memory, and how long an event takes to
//! reach all of them, beside a reader that has frozen. In turns with a single reader. Prints;
//! asserts nothing about time.
//!
//! `cargo bench --bench readers`. Under `cargo test` it exits at once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "a bench prints, takes times, and ends where something is wrong"
)]

#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::http::Caller;
use support::nats_server::NatsServer;
use support::report::report;
use support::sidecar::{Plan, Sidecar};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const READERS: usize = 1_000;
const REPORTS: usize = 100;
/// Between two reports: a runtime with short cycles.
const PAUSE: Duration = Duration::from_millis(100);
/// One in four connections may be a stream.
const LIMITS: &str = "[listen]\nconnections_max = 4400\n";

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
    }
}

/// A stream whose first line has come: the sidecar has it among its listeners.
async fn connect(api: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(api).await.unwrap();
    let request = format!("GET /phase/telemetry HTTP/1.1\r\nHost: {api}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reader = BufReader::with_capacity(4096, stream);
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        assert!(reader.read_line(&mut line).await.unwrap() > 0, "no place for a stream");
    }
    reader
}

/// Tells when each phase has come.
fn listen(reader: BufReader<TcpStream>, heard: mpsc::UnboundedSender<Instant>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = reader.lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == "event: phase" && heard.send(Instant::now()).is_err() {
                return;
            }
        }
    })
}

/// Resident memory of the sidecar, in KiB.
fn resident(sidecar: &Sidecar) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn at(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let place = (times.len() as f64 * share).ceil() as usize;
    times[place.saturating_sub(1)].as_secs_f64() * 1e3
}

/// Reports, each told to all readers before the next; prints how long that took.
async fn turn(sidecar: &Sidecar, name: &str, readers: usize, frozen: bool) {
    let before = resident(sidecar);
    let (heard, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    let asleep = if frozen { Some(connect(sidecar.api).await) } else { None };
    for _ in 0..readers {
        tasks.push(listen(connect(sidecar.api).await, heard.clone()));
    }
    let idle = resident(sidecar);
    let mut caller = Caller::new(sidecar.api);
    let (mut each, mut last, mut replies) = (Vec::new(), Vec::new(), Vec::new());
    let mut pace = tokio::time::interval(PAUSE);
    for number in 0..REPORTS {
        pace.tick().await;
        let begin = Instant::now();
        let body = report(0.30 + number as f64 / 10_000.0);
        replies.push(caller.post("/field/state", &body).await.unwrap().took);
        let mut newest = Duration::ZERO;
        for _ in 0..readers {
            let delay = arrivals.recv().await.unwrap().duration_since(begin);
            each.push(delay);
            newest = newest.max(delay);
        }
        last.push(newest);
    }
    let busy = resident(sidecar);
    let per = |now: usize| now.saturating_sub(before) as f64 / readers as f64;
    println!(
        "{name:<26} {:>7.1} {:>7.1}   {:>7.2} {:>7.2}   {:>7.2} {:>7.2}   {:>7.2} {:>7.2}",
        per(idle),
        per(busy),
        at(&mut each, 0.5),
        at(&mut each, 0.99),
        at(&mut last, 0.5),
        at(&mut last, 0.99),
        at(&mut replies, 0.5),
        at(&mut replies, 0.99),
    );
    drop(asleep);
    for task in tasks {
        task.abort();
    }
}

async fn run() {
    let server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).with(LIMITS);
    let sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    println!(
        "{REPORTS} reports a turn; KiB of resident memory per reader, idle and after the turn;"
    );
    println!("ms from the report's first byte: to each reader, to the last one, to the reply");
    println!(
        "{:<26} {:>7} {:>7}   {:>7} {:>7}   {:>7} {:>7}   {:>7} {:>7}",
        "", "idle", "after", "p50", "p99", "p50", "p99", "p50", "p99"
    );
    for _ in 0..2 {
        turn(&sidecar, "1 reader", 1, false).await;
        turn(&sidecar, "1,000 readers", READERS, false).await;
        turn(&sidecar, "1,000 and a frozen one", READERS, true).await;
    }
}
