//! Readers of `GET /phase/telemetry`: what one costs in memory, how long an event takes to reach
//! all of them, and what they cost the reply to the report behind it, beside a frozen reader and in
//! turns with a single reader.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::process::{Times, memory};
use super::support::http::Caller;
use super::support::nats_server::NatsServer;
use super::support::report::report;
use super::support::sidecar::{Plan, Sidecar};
use super::table::Row;

const READERS: usize = 1_000;
const REPORTS: usize = 50;
/// Between two reports: a runtime with short cycles.
const PAUSE: Duration = Duration::from_millis(100);
/// One in four connections may be a stream.
const LIMITS: &str = "[listen]\nconnections_max = 4400\n";

#[derive(Default)]
struct Turn {
    /// To the last of all readers.
    last: Times,
    replies: Times,
}

pub(crate) async fn measure() -> Vec<Row> {
    let server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).with(LIMITS);
    let sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    let before = memory(sidecar.id(), "VmRSS:");
    let (mut one, mut many) = (Turn::default(), Turn::default());
    for _ in 0..2 {
        turn(&sidecar, 1, &mut one).await;
        turn(&sidecar, READERS, &mut many).await;
    }
    let kib = (memory(sidecar.id(), "VmRSS:") - before) / READERS as f64;
    let row = |name: &str, many: &mut Times, one: &mut Times| {
        let times = Some([many.quantiles(), one.quantiles()]);
        Row { times, ..Row::of(name, "us", many.at(0.5), Some(one.at(0.5))) }
    };
    vec![
        row("1,000 readers, reply, to 1", &mut many.replies, &mut one.replies),
        row("1,000 readers, last one, to 1", &mut many.last, &mut one.last),
        Row::of("1,000 readers, for each", "KiB", kib, None),
    ]
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

/// Reports, each told to all readers before the next, beside one reader that reads nothing.
async fn turn(sidecar: &Sidecar, readers: usize, times: &mut Turn) {
    let (heard, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    let frozen = connect(sidecar.api).await;
    for _ in 0..readers {
        tasks.push(listen(connect(sidecar.api).await, heard.clone()));
    }
    let mut caller = Caller::new(sidecar.api);
    let mut pace = tokio::time::interval(PAUSE);
    for number in 0..REPORTS {
        pace.tick().await;
        let begin = Instant::now();
        let body = report(0.30 + number as f64 / 10_000.0);
        times.replies.push(caller.post("/field/state", &body).await.unwrap().took);
        let mut newest = Duration::ZERO;
        for _ in 0..readers {
            newest = newest.max(arrivals.recv().await.unwrap().duration_since(begin));
        }
        times.last.push(newest);
    }
    drop(frozen);
    for task in tasks {
        task.abort();
    }
}
