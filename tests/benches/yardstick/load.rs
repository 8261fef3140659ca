//! The load: reporters over HTTP, or one stream of reports, in a process of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::Times;

/// Without a cycle number, as a runtime may: reporters have no order between them.
const REPORT: &str = r#"{"attractor_state":{"id":"a-1","type":"symbolic","stability":0.91,"phase":"stable","scr":0.8},"drift_metrics":{"sdi":0.2,"sv":0.1,"pd":0.1}}"#;
/// Lines of one stream that are unanswered at a time.
const LINES_UNDER_WAY: usize = 256;

#[derive(Deserialize)]
struct Task {
    api: SocketAddr,
    /// 0: one stream of reports.
    connections: usize,
    seconds: f64,
}

pub(crate) async fn run(told: String) {
    let task: Task = serde_json::from_str(&told).unwrap();
    let span = Duration::from_secs_f64(task.seconds);
    let begin = Instant::now();
    let mut all = Times::default();
    let mut replies = 0;
    if task.connections == 0 {
        let times = stream(task.api, span).await;
        replies = times.len();
        times.into_iter().for_each(|time| all.push(time));
    } else {
        let reporters: Vec<_> =
            (0..task.connections).map(|_| tokio::spawn(reports(task.api, span))).collect();
        for reporter in reporters {
            let times = reporter.await.unwrap();
            replies += times.len();
            times.into_iter().for_each(|time| all.push(time));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", json!({"seconds": seconds, "replies": replies, "us": all.quantiles()}));
}

async fn open(api: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(api).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One report after the other on one connection; how long each reply took.
async fn reports(api: SocketAddr, span: Duration) -> Vec<Duration> {
    let mut stream = open(api).await;
    let request = format!(
        "POST /field/state HTTP/1.1\r\nHost: {api}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{REPORT}",
        REPORT.len()
    );
    let (begin, mut times) = (Instant::now(), Vec::new());
    let mut reply = Vec::with_capacity(64 << 10);
    while begin.elapsed() < span {
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        reply.clear();
        let mut whole = usize::MAX;
        while reply.len() < whole {
            assert!(stream.read_buf(&mut reply).await.unwrap() > 0, "hung up on");
            if whole == usize::MAX
                && let Some(end) = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n")
            {
                whole = end + 4 + length(&reply[..end]);
            }
        }
        assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
        times.push(sent.elapsed());
    }
    times
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
    line.trim().parse().unwrap()
}

/// Lines with so many unanswered at a time; how long each answer took.
async fn stream(api: SocketAddr, span: Duration) -> Vec<Duration> {
    let mut stream = open(api).await;
    let head = format!(
        "POST /field/state HTTP/1.1\r\nHost: {api}\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (begin, mut times) = (Instant::now(), Vec::new());
    let mut sent: VecDeque<Instant> = VecDeque::new();
    let mut reply = vec![0; 64 << 10];
    let mut last = 0;
    while begin.elapsed() < span || !sent.is_empty() {
        let more = if begin.elapsed() < span { LINES_UNDER_WAY - sent.len() } else { 0 };
        if more > 0 {
            let line = format!("{REPORT}\n");
            let mut piece = format!("{:x}\r\n", line.len() * more);
            (0..more).for_each(|_| piece.push_str(&line));
            piece.push_str("\r\n");
            sent.extend(std::iter::repeat_n(Instant::now(), more));
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
        let bytes = stream.read(&mut reply).await.unwrap();
        assert!(bytes > 0, "hung up on");
        for byte in &reply[..bytes] {
            // Only an answer ends so; the framing of pieces ends in CRLF.
            if (last, *byte) == (b'}', b'\n') {
                times.push(sent.pop_front().expect("an answer that was asked for").elapsed());
            }
            last = *byte;
        }
    }
    times
}
