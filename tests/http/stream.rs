//! `GET /phase/telemetry` over real sockets: events, heartbeat, places, slow readers, the end.

use core::time::Duration;

use driftgate::http::settings::{ApiSettings, Limits, Token};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::rig::{Client, Mood, Served, settings, soon};

const PATH: &str = "GET /phase/telemetry";

/// One open stream.
struct Listener {
    stream: TcpStream,
    chunked: Vec<u8>,
    text: String,
}

/// One event: its name, and its data; a comment has the name `:`.
type Event = (String, String);

impl Listener {
    /// Opens one and waits for its first words, after which it misses nothing.
    async fn open(served: &Served) -> Self {
        let mut client = served.connect().await;
        client.send(served.head(PATH, "Accept: text/event-stream\r\n")).await;
        let mut listener = Self { stream: client.stream, chunked: Vec::new(), text: String::new() };
        let head = listener.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains("\r\ncontent-type: text/event-stream\r\n"), "{head}");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
        assert_eq!(listener.next().await, Some((":".to_owned(), "listening".to_owned())));
        listener
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.chunked.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.chunked.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.more().await, "the end of the connection");
        }
    }

    /// The next event, `None` when the stream ends as it should: with the last chunk.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                return Some(event(&block));
            }
            match self.chunk() {
                Some(chunk) if chunk.is_empty() => return None,
                Some(chunk) => self.text.push_str(&chunk),
                None => assert!(self.more().await, "the stream broke off"),
            }
        }
    }

    fn chunk(&mut self) -> Option<String> {
        let line = self.chunked.windows(2).position(|window| window == b"\r\n")?;
        let length = std::str::from_utf8(&self.chunked[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let end = line + 2 + length;
        if self.chunked.len() < end + 2 {
            return None;
        }
        let chunk = String::from_utf8(self.chunked[line + 2..end].to_vec()).unwrap();
        self.chunked.drain(..end + 2);
        Some(chunk)
    }

    async fn more(&mut self) -> bool {
        soon(self.stream.read_buf(&mut self.chunked)).await.unwrap_or(0) > 0
    }
}

fn event(block: &str) -> Event {
    let mut event = (String::new(), String::new());
    for line in block.lines().filter(|line| !line.is_empty()) {
        match line.split_once(':').unwrap() {
            ("", comment) => event = (":".to_owned(), comment.trim().to_owned()),
            ("event", name) => event.0 = name.trim().to_owned(),
            ("data", data) => event.1 = data.trim().to_owned(),
            ("retry", _) | ("id", _) => {}
            (field, _) => panic!("{field}"),
        }
    }
    event
}

fn limited(limits: Limits) -> ApiSettings {
    ApiSettings { limits, ..settings() }
}

#[tokio::test]
async fn a_listener_hears_every_event_in_order_and_a_heartbeat_in_silence() {
    let heartbeat = Duration::from_millis(50);
    let served =
        Served::start(Mood::Calm, limited(Limits { heartbeat, ..Limits::default() })).await;
    let mut listener = Listener::open(&served).await;
    assert_eq!(listener.next().await, Some((":".to_owned(), "heartbeat".to_owned())));
    let feed = served.actor.with(|script| script.feed.clone());
    for number in 0..100 {
        feed.send("transition", || json!({ "number": number }));
    }
    let mut heard = 0;
    while heard < 100 {
        let (name, data) = listener.next().await.unwrap();
        if name == "transition" {
            assert_eq!(data, format!("{{\"number\":{heard}}}"));
            heard += 1;
        }
    }
    served.assert_works().await;
}

#[tokio::test]
async fn a_slow_listener_loses_the_oldest_and_never_holds_up_who_sends() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut slow = Listener::open(&served).await;
    let mut prompt = Listener::open(&served).await;
    let feed = served.actor.with(|script| script.feed.clone());
    let (events, text) = (50_000_u64, "x".repeat(900));
    // Far more than all buffers between hold; nothing of it is read meanwhile, and to send it takes
    // no await at all.
    for number in 0..events {
        feed.send("snapshot", || json!({ "number": number, "text": text }));
    }
    feed.send("transition", || json!({}));
    for listener in [&mut slow, &mut prompt] {
        let (mut heard, mut lost, mut newest) = (0, 0, None);
        loop {
            let (name, data) = listener.next().await.unwrap();
            let data: Value = serde_json::from_str(&data).unwrap_or_default();
            match name.as_str() {
                "snapshot" => {
                    let number = data["number"].as_u64().unwrap();
                    assert!(newest.is_none_or(|newest| newest < number), "out of order");
                    (heard, newest) = (heard + 1, Some(number));
                }
                "lagged" => lost += data["events"].as_u64().unwrap(),
                "transition" => break,
                _ => {}
            }
        }
        assert_eq!((heard + lost, newest), (events, Some(events - 1)));
        assert!(lost > 0 && heard >= 255, "{lost} lost, {heard} heard");
    }
    served.assert_works().await;
}

#[tokio::test]
async fn streams_have_places_of_their_own_and_leave_connections_to_reports() {
    let limits = Limits { connections_max: 5, ..Limits::default() };
    assert_eq!((limits.streams_max(), Limits::default().streams_max()), (2, 64));
    let served = Served::start(Mood::Calm, limited(limits)).await;
    let first = Listener::open(&served).await;
    let _second = Listener::open(&served).await;
    let mut third = served.connect().await;
    third.send(served.head(PATH, "")).await;
    let refused = third.answer().await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["type"], "urn:driftgate:problem:too-many-streams");
    assert!(refused.header("retry-after").is_some());
    drop(third);
    served.assert_works().await;
    // A listener that goes makes place, which the server learns when it next writes to it.
    drop(first);
    let feed = served.actor.with(|script| script.feed.clone());
    let freed = async {
        loop {
            feed.send("transition", || json!({}));
            let mut client = served.connect().await;
            client.send(served.head("HEAD /phase/telemetry", "")).await;
            if client.answer_to_head().await.status == 200 {
                break;
            }
        }
    };
    soon(freed).await;
}

#[tokio::test]
async fn a_listener_that_reads_nothing_is_hung_up_on() {
    let write_timeout = Duration::from_millis(100);
    let limits = Limits { connections_max: 3, write_timeout, ..Limits::default() };
    let served = Served::start(Mood::Calm, limited(limits)).await;
    let deaf = Listener::open(&served).await;
    let feed = served.actor.with(|script| script.feed.clone());
    let text = "x".repeat(8_000);
    let freed = async {
        loop {
            // More than the sockets hold: sooner or later a write is stuck.
            for _ in 0..100 {
                feed.send("transition", || json!({ "text": text }));
            }
            let mut client = served.connect().await;
            client.send(served.head("HEAD /phase/telemetry", "")).await;
            if client.answer_to_head().await.status == 200 {
                break;
            }
        }
    };
    soon(freed).await;
    served.assert_works().await;
    drop(deaf);
}

#[tokio::test]
async fn a_stream_passes_the_same_checks_and_takes_no_parameter() {
    let token = Some(Token::new("0123456789abcdef").unwrap());
    let served = Served::start(Mood::Isolated, ApiSettings { token, ..settings() }).await;
    let bearer = "Authorization: Bearer 0123456789abcdef\r\n";
    let host = format!("Host: {}\r\n", served.address());
    let cases = [
        (PATH.to_owned(), format!("Host: example.org\r\n{bearer}"), 421),
        (PATH.to_owned(), format!("{host}Origin: http://example.org\r\n{bearer}"), 403),
        (PATH.to_owned(), host.clone(), 401),
        (format!("{PATH}?all"), format!("{host}{bearer}"), 400),
        (PATH.to_owned(), format!("{host}{bearer}Accept: application/json\r\n"), 406),
        ("POST /phase/telemetry".to_owned(), format!("{host}{bearer}"), 405),
    ];
    for (line, headers, status) in cases {
        let mut client = Client::new(TcpStream::connect(served.address()).await.unwrap());
        client.send(format!("{line} HTTP/1.1\r\n{headers}\r\n")).await;
        let reply = client.answer().await;
        assert_eq!(reply.status, status, "{line} {headers}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
    // Isolated, it still tells what happens: everything on it is our own.
    let mut client = served.connect().await;
    client.send(served.head(PATH, &format!("{bearer}Accept: text/html, */*;q=0.1\r\n"))).await;
    let mut first = [0; 15];
    soon(client.stream.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn streams_end_when_the_sidecar_stops() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut listener = Listener::open(&served).await;
    served.stop.send(()).unwrap();
    assert_eq!(listener.next().await, None);
    let stopped = soon(served.server).await.unwrap();
    assert_eq!(stopped.cut, 0, "nobody had to be cut off");
}
