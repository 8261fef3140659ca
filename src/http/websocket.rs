//! The live events over a WebSocket (RFC 6455), for a client that asks to upgrade.
//!
//! One text message per event: `{"id", "event", "data"}`, with the names and members of
//! `telemetry/feed.rs`. A ping every heartbeat keeps what stands between from hanging up. The
//! client has nothing to say but pongs and a close: a message of it ends the stream with 1003, one
//! too long with 1009, a frame that breaks the protocol with 1002, and more bytes between two
//! heartbeats than any honest client sends with 1008, so that fragments and pings without end end
//! too. At stop the code is 1001.
//!
//! The connection stays with the listener that accepted it: counted, cut off in time at stop, and
//! hung up on when it reads nothing for the write timeout.

use core::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::HeaderMap;
use hyper::header::UPGRADE;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, Join, ReadHalf, Take, WriteHalf, copy, join, sink, split};
use tokio::time::{interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::phase_telemetry::Listener;
use super::problem::{Outcome, Problem};
use crate::telemetry::feed::Event;

/// Longest message of a client that is looked at, and the buffer it is read into.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Most bytes that a client may send between two heartbeats: some hundred pongs of full length.
const READ_BYTES_MAX: u64 = 16 * 1024;
/// Longest wait for a client to answer a close, or to read why.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that may wait for a socket that takes none: the largest event many times over.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// What a client sends is counted.
type Socket =
    WebSocketStream<Join<Take<ReadHalf<TokioIo<Upgraded>>>, WriteHalf<TokioIo<Upgraded>>>>;

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let protocols = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut protocols = protocols.flat_map(|value| value.split(','));
    protocols.any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

/// The answer that switches protocols.
///
/// # Errors
/// [`Outcome::BadUpgrade`].
pub(super) fn accept(request: &Request) -> Result<Response, Problem> {
    create_response_with_body(request, Body::empty).map_err(|_| {
        let detail = "a WebSocket is asked for by GET with Connection: Upgrade, Upgrade: \
                      websocket, Sec-WebSocket-Version: 13 and Sec-WebSocket-Key";
        Problem::new(Outcome::BadUpgrade, detail).of_field(UPGRADE.as_str())
    })
}

/// Tells the events until the client is gone or breaks a rule, or the sidecar stops.
pub(super) async fn tell(upgrade: OnUpgrade, mut listener: Listener, heartbeat: Duration) {
    // The client has hung up before it was answered.
    let Ok(upgraded) = upgrade.await else { return };
    let (read, write) = split(TokioIo::new(upgraded));
    let stream = join(read.take(READ_BYTES_MAX), write);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
    let mut beat = interval(heartbeat);
    beat.reset();
    let code = loop {
        let sent = tokio::select! {
            event = listener.next() => match event {
                Some(event) => socket.send(message(&event)).await,
                None => break CloseCode::Away,
            },
            _ = beat.tick() => {
                socket.get_mut().reader_mut().set_limit(READ_BYTES_MAX);
                socket.send(Message::Ping(Bytes::new())).await
            }
            heard = socket.next() => match fault(&socket, heard.as_ref()) {
                Ok(()) => continue,
                Err(None) => return,
                Err(Some(code)) => break code,
            },
        };
        if sent.is_err() {
            return;
        }
    };
    // Whether it hears why is its own affair.
    let _ = timeout(CLOSE_TIMEOUT, close(socket, code)).await;
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BYTES_MAX)
}

fn message(event: &Event) -> Message {
    let Event { id, name, data } = event;
    let id = id.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
    Message::text(format!("{{\"id\":{id},\"event\":\"{name}\",\"data\":{data}}}"))
}

/// Why what was heard ends the stream: a code to close with, or none where nobody is left.
fn fault(socket: &Socket, heard: Option<&Result<Message, Error>>) -> Result<(), Option<CloseCode>> {
    match heard {
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {
            Ok(())
        }
        Some(Ok(Message::Text(_) | Message::Binary(_))) => Err(Some(CloseCode::Unsupported)),
        Some(Err(Error::Capacity(_))) => Err(Some(CloseCode::Size)),
        Some(Err(Error::Utf8(_))) => Err(Some(CloseCode::Invalid)),
        Some(Err(_)) if socket.get_ref().reader().limit() == 0 => Err(Some(CloseCode::Policy)),
        Some(Err(Error::Protocol(_))) => Err(Some(CloseCode::Protocol)),
        Some(Err(_)) | None => Err(None),
    }
}

/// Says why, and reads on until the client has answered, or has had the time to see it: closing a
/// socket with unread bytes resets it, and the client would lose the code.
async fn close(socket: Socket, code: CloseCode) {
    let mut stream = socket.into_inner();
    stream.reader_mut().set_limit(READ_BYTES_MAX);
    // Anew: where the limit was reached the old one believes that the client is gone.
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
    if socket.close(Some(CloseFrame { code, reason: "".into() })).await.is_err() {
        return;
    }
    loop {
        match socket.next().await {
            None => return,
            Some(Ok(_)) => {}
            Some(Err(_)) => break,
        }
    }
    let mut rest = socket.into_inner();
    rest.reader_mut().set_limit(READ_BYTES_MAX);
    let _ = copy(&mut rest, &mut sink()).await;
}
