//! A stream of reports: a line in, a line out, in order, within its bounds.

use core::time::Duration;

use driftgate::http::settings::{ApiSettings, BodyLimits, StreamLimits};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{Mood, REPORT, Served, settings, soon};

const HEAD: &str = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n";

/// A client that streams.
struct Streamer {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Streamer {
    async fn start(served: &Served, query: &str, more: &str) -> Self {
        let stream = soon(TcpStream::connect(served.address())).await.unwrap();
        let mut this = Self { stream, got: Vec::new() };
        let head = served.head(&format!("POST /field/state{query}"), &format!("{HEAD}{more}"));
        soon(this.stream.write_all(head.as_bytes())).await.unwrap();
        this
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        soon(self.stream.write_all(chunk.as_bytes())).await.unwrap();
    }

    async fn finish(&mut self) {
        soon(self.stream.write_all(b"0\r\n\r\n")).await.unwrap();
    }

    /// Reads until `done` says so, or to the end of the connection.
    async fn read_until(&mut self, done: impl Fn(&[u8]) -> bool) {
        let mut piece = [0; 4096];
        while !done(&self.got) {
            match soon(self.stream.read(&mut piece)).await {
                Ok(0) | Err(_) => return,
                Ok(count) => self.got.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.got).into_owned()
    }

    /// The JSON lines of the answer so far, out of their chunks.
    fn lines(&self) -> Vec<Value> {
        self.text()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(Value::is_object)
            .collect()
    }

    async fn answers(&mut self, count: usize) -> Vec<Value> {
        let is_there = |got: &[u8]| got.iter().filter(|byte| **byte == b'}').count() > 0;
        while self.lines().len() < count {
            let before = self.got.len();
            self.read_until(|got| got.len() > before && is_there(got)).await;
            assert!(self.got.len() > before, "it ended after {}", self.text());
        }
        self.lines()
    }

    /// Everything up to the last chunk.
    async fn whole(&mut self) -> Vec<Value> {
        self.read_until(|got| got.ends_with(b"\r\n0\r\n\r\n")).await;
        self.lines()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_answered_while_the_stream_is_open() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut streamer = Streamer::start(&served, "", "").await;
    for count in 1..=3 {
        streamer.send(&format!("{REPORT}\n")).await;
        let answers = streamer.answers(count).await;
        assert_eq!(answers[count - 1]["verdict"], "export", "{answers:?}");
    }
    assert!(streamer.text().starts_with("HTTP/1.1 200"), "{}", streamer.text());
    assert!(streamer.text().contains("content-type: application/x-ndjson"));
    streamer.finish().await;
    assert_eq!(streamer.whole().await.len(), 3);
    assert_eq!(served.actor.reports(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_gets_its_problem_and_the_stream_goes_on() {
    let body = BodyLimits { bytes_max: 200, ..BodyLimits::default() };
    let served = Served::start(Mood::Calm, ApiSettings { body, ..settings() }).await;
    let mut streamer = Streamer::start(&served, "", "").await;
    let long = "x".repeat(300);
    // An empty line is none; the last one ends with the body.
    streamer.send(&format!("{REPORT}\n\n{{\"a\": \n{long}")).await;
    streamer.send(&format!("{long}\r\n \r\n{REPORT}")).await;
    streamer.finish().await;
    let answers = streamer.whole().await;
    let shown: Vec<String> = answers
        .iter()
        .map(|answer| {
            let kind =
                answer["type"].as_str().unwrap_or_else(|| answer["verdict"].as_str().unwrap());
            kind.rsplit(':').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(shown, ["export", "unreadable", "body-too-large", "export"]);
    assert!(answers[1]["band"].is_string(), "what it closed: {}", answers[1]);
    assert_eq!((served.actor.reports(), served.actor.unreadable_count()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_came_whole_are_judged_and_half_a_line_is_not() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut streamer = Streamer::start(&served, "", "").await;
    let (half, _) = REPORT.split_at(20);
    streamer.send(&format!("{REPORT}\n{REPORT}\n{half}")).await;
    streamer.answers(2).await;
    drop(streamer);
    // The server has seen the end when it can stop without cutting anybody off.
    served.stop.send(()).unwrap();
    assert_eq!(soon(served.server).await.unwrap().cut, 0);
    assert_eq!((served.actor.reports(), served.actor.unreadable_count()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_never_ends_is_given_up_and_an_idle_stream_is_not() {
    let body = BodyLimits { timeout: Duration::from_millis(200), ..BodyLimits::default() };
    let served = Served::start(Mood::Calm, ApiSettings { body, ..settings() }).await;
    let mut streamer = Streamer::start(&served, "", "").await;
    streamer.send(&format!("{REPORT}\n")).await;
    streamer.answers(1).await;
    // Longer than a line may take.
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    ticks.tick().await;
    ticks.tick().await;
    streamer.send(&format!("{REPORT}\n{{")).await;
    let answers = streamer.whole().await;
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert_eq!(answers[2]["type"], "urn:driftgate:problem:body-too-slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_hung_up_on_and_what_it_sent_is_judged() {
    let stream = StreamLimits { window: 8, read_timeout: Duration::from_millis(300) };
    let served = Served::start(Mood::Calm, ApiSettings { stream, ..settings() }).await;
    let mut streamer = Streamer::start(&served, "", "").await;
    let lines = format!("{REPORT}\n").repeat(50);
    let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
    let mut sent: usize = 0;
    // Until the sockets are full of answers and the server hangs up.
    while soon(streamer.stream.write_all(chunk.as_bytes())).await.is_ok() {
        sent += 50;
        assert!(sent < 1_000_000, "it was never hung up on");
    }
    assert!(sent > 50, "{sent}");
    let taken = served.actor.reports();
    assert!(taken <= sent + 50, "{taken} of {sent}");
    served.assert_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_moves_nothing_and_what_cannot_be_streamed_is_refused_by_name() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut streamer = Streamer::start(&served, "?check", "").await;
    streamer.send(&format!("{REPORT}\n{{\n")).await;
    streamer.finish().await;
    let answers = streamer.whole().await;
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| answer["check"] == true), "{answers:?}");
    assert_eq!(served.actor.reports() + served.actor.unreadable_count(), 0);
    for (more, status) in
        [("Content-Encoding: gzip\r\n", "HTTP/1.1 415"), ("Accept: text/html\r\n", "HTTP/1.1 406")]
    {
        let mut streamer = Streamer::start(&served, "", more).await;
        streamer.read_until(|got| got.contains(&b'}')).await;
        assert!(streamer.text().starts_with(status), "{}", streamer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_reports_leave_room_for_single_ones() {
    let mut all = settings();
    all.limits.connections_max = 8;
    let served = Served::start(Mood::Calm, all).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut streamer = Streamer::start(&served, "", "").await;
        streamer.send(&format!("{REPORT}\n")).await;
        streamer.answers(1).await;
        open.push(streamer);
    }
    let mut third = Streamer::start(&served, "", "").await;
    third.read_until(|got| got.contains(&b'}')).await;
    assert!(third.text().starts_with("HTTP/1.1 503"), "{}", third.text());
    assert!(third.text().contains("too-many-streams"));
    served.assert_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_wait_for_memory_do_not_keep_each_other_waiting() {
    let mut all = settings();
    all.limits.connections_max = 256;
    let served = Served::start(Mood::Calm, all).await;
    // Each needs a place for every line, and together they need far more than there are.
    let padded = format!("{REPORT}{}\n", " ".repeat(30_000));
    let streams = (0..48).map(|_| async {
        let mut streamer = Streamer::start(&served, "?check", "").await;
        streamer.send(&padded.repeat(4)).await;
        streamer.finish().await;
        streamer.whole().await.len()
    });
    let answered = futures_util::future::join_all(streams).await;
    assert_eq!(answered, [4; 48]);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_lines_in_one_piece_are_answered_one_by_one() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut streamer = Streamer::start(&served, "", "").await;
    streamer.send(&"1\n".repeat(10_000)).await;
    streamer.finish().await;
    assert_eq!(streamer.whole().await.len(), 10_000);
    assert_eq!(served.actor.reports(), 10_000);
}
