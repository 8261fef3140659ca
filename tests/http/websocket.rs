//! `GET /phase/telemetry` over a WebSocket: events, resumption, and clients that break its rules.

use core::time::Duration;

use driftgate::http::settings::{ApiSettings, Limits};
use driftgate::protocol::gate::Band;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::rig::{Mood, Served, settings, soon};

const PATH: &str = "GET /phase/telemetry";
const MASK: [u8; 4] = [0, 0, 0, 0];

/// Upgrades with further headers.
async fn open(
    served: &Served,
    headers: &[(&'static str, String)],
) -> Result<WebSocketStream<TcpStream>, Error> {
    let url = format!("ws://{}/phase/telemetry", served.address());
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = soon(TcpStream::connect(served.address())).await.unwrap();
    soon(client_async(request, stream)).await.map(|(socket, _)| socket)
}

/// The next event: its id, name and data.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> (Value, String, Value) {
    loop {
        let message = soon(socket.next()).await.expect("an event").expect("an event");
        if let Message::Text(text) = message {
            let mut event: Value = serde_json::from_str(&text).unwrap();
            let name = event["event"].as_str().unwrap().to_owned();
            return (event["id"].take(), name, event["data"].take());
        }
    }
}

#[tokio::test]
async fn a_websocket_hears_the_same_events_and_goes_on_where_it_was() {
    let heartbeat = Duration::from_millis(50);
    let limits = Limits { heartbeat, ..Limits::default() };
    let served = Served::start(Mood::Calm, ApiSettings { limits, ..settings() }).await;
    let feed = served.actor.with(|script| script.feed.clone());
    feed.enter(Band::Open);
    let mut socket = open(&served, &[]).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Ping("".into()));
    feed.send("phase", || json!({"number": 1}));
    let (id, name, data) = next(&mut socket).await;
    assert_eq!((name.as_str(), &data["number"]), ("phase", &json!(1)));
    drop(socket);
    feed.send("phase", || json!({"number": 2}));
    let id = id.as_str().unwrap().to_owned();
    let mut socket = open(&served, &[("last-event-id", id)]).await.unwrap();
    assert_eq!(next(&mut socket).await.2["number"], json!(2));
    // From another life.
    let mut lost = open(&served, &[("last-event-id", "00000000-7".to_owned())]).await.unwrap();
    let (id, name, data) = next(&mut lost).await;
    assert_eq!((id, name.as_str(), data), (Value::Null, "lagged", json!({"events": null})));
    served.stop.send(()).unwrap();
    let end = loop {
        let message = soon(socket.next()).await.expect("a close").expect("a close");
        if let Message::Close(frame) = message {
            break frame.expect("a code");
        }
    };
    assert_eq!(u16::from(end.code), 1001);
    drop((socket, lost));
    assert_eq!(soon(served.server).await.unwrap().cut, 0, "nobody had to be cut off");
}

/// Sends bytes after the handshake and gives the code that the stream is closed with.
async fn closed_by(served: &Served, bytes: &[u8]) -> u16 {
    let mut stream = open(served, &[]).await.unwrap().into_inner();
    // It may be closed before it has taken all.
    let _ = soon(stream.write_all(bytes)).await;
    loop {
        let mut head = [0; 2];
        soon(stream.read_exact(&mut head)).await.expect("a close, not the end");
        assert!(head[1] < 126, "no long frame was asked for");
        let mut payload = vec![0; usize::from(head[1])];
        soon(stream.read_exact(&mut payload)).await.expect("a close, not the end");
        if head[0] == 0x88 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

/// One masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()).unwrap() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_client_that_breaks_a_rule_is_told_which_and_nobody_else_is_hurt() {
    let served = Served::start(Mood::Calm, settings()).await;
    let fragments = |first: &[u8], next: &[u8], times| {
        [frame(0x01, first), frame(0x00, next).repeat(times)].concat()
    };
    let cases = [
        ("a text", frame(0x81, b"hello"), 1003),
        ("bytes", frame(0x82, b"hello"), 1003),
        ("too long", frame(0x82, &[0; 5000]), 1009),
        ("fragments without end", fragments(&[b'a'; 100], &[b'a'; 100], 60), 1009),
        ("empty fragments without end", fragments(b"", b"", 4000), 1008),
        ("pings without end", frame(0x89, b"").repeat(4000), 1008),
        ("not masked", vec![0x81, 1, b'a'], 1002),
        ("a reserved bit", frame(0xc1, b"a"), 1002),
        ("a reserved opcode", frame(0x83, b"a"), 1002),
        ("a long ping", frame(0x89, &[0; 126]), 1002),
        ("a ping in fragments", frame(0x09, b"a"), 1002),
        ("a continuation of nothing", frame(0x80, b"a"), 1002),
        ("not UTF-8", frame(0x81, &[0xff]), 1007),
        ("a close", frame(0x88, &1000_u16.to_be_bytes()), 1000),
    ];
    let mut witness = open(&served, &[]).await.unwrap();
    for (what, bytes, code) in cases {
        assert_eq!(closed_by(&served, &bytes).await, code, "{what}");
    }
    let feed = served.actor.with(|script| script.feed.clone());
    feed.send("transition", || json!({}));
    assert_eq!(next(&mut witness).await.1, "transition");
    served.assert_works().await;
}

#[tokio::test]
async fn a_websocket_passes_the_same_checks_and_takes_a_place_of_the_streams() {
    let limits = Limits { connections_max: 5, ..Limits::default() };
    let served = Served::start(Mood::Calm, ApiSettings { limits, ..settings() }).await;
    let refused = async |headers: &[(&'static str, String)]| {
        let Err(Error::Http(response)) = open(&served, headers).await else {
            panic!("it is let in, or cut off")
        };
        response.status().as_u16()
    };
    assert_eq!(refused(&[("host", "example.org".to_owned())]).await, 421);
    assert_eq!(refused(&[("origin", "http://example.org".to_owned())]).await, 403);
    let whole = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (line, replace, with) in [
        (PATH, "Version: 13", "Version: 8"),
        (PATH, "Connection: Upgrade", "Connection: keep-alive"),
        (PATH, "Sec-WebSocket-Key", "X-Key"),
        ("HEAD /phase/telemetry", "", ""),
    ] {
        let mut client = served.connect().await;
        client.send(served.head(line, &whole.replace(replace, with))).await;
        let head = line.starts_with("HEAD");
        let reply = if head { client.answer_to_head().await } else { client.answer().await };
        assert_eq!(reply.status, 426, "{with}");
        assert_eq!(reply.header("sec-websocket-version"), Some("13"));
    }
    let _first = open(&served, &[]).await.unwrap();
    let second = open(&served, &[]).await.unwrap();
    assert_eq!(refused(&[]).await, 503);
    served.assert_works().await;
    // Its connection counts for as long as it is open, and its place is free when it ends.
    drop(second);
    let again = async { while open(&served, &[]).await.is_err() {} };
    soon(again).await;
}
