//! A NATS client of a few lines that reads no headers and writes any: what a hostile peer can
//! publish, and an observer whom nothing published can hurt.

use std::net::SocketAddr;
use std::sync::Arc;

use async_nats::Message;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\
    \"no_responders\":true,\"lang\":\"raw\",\"version\":\"1\",\"protocol\":1}\r\n";

/// The sending half.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Mutex<OwnedWriteHalf>>);

/// The receiving half.
pub(crate) struct Reader {
    lines: BufReader<OwnedReadHalf>,
    writer: Writer,
    /// The server dropped us for reading too slowly.
    pub(crate) was_slow: bool,
}

/// Connects without credentials. `None` when nobody listens.
pub(crate) async fn connect(url: &str) -> Option<(Writer, Reader)> {
    let address: SocketAddr = url.trim_start_matches("nats://").parse().expect("an address");
    let (read, write) = TcpStream::connect(address).await.ok()?.into_split();
    let writer = Writer(Arc::new(Mutex::new(write)));
    writer.send(CONNECT).await?;
    let reader = Reader { lines: BufReader::new(read), writer: writer.clone(), was_slow: false };
    Some((writer, reader))
}

impl Writer {
    /// `None` when the connection is gone.
    async fn send(&self, bytes: &[u8]) -> Option<()> {
        self.0.lock().await.write_all(bytes).await.ok()
    }

    pub(crate) async fn subscribe(&self, subject: &str) -> Option<()> {
        self.send(format!("SUB {subject} 1\r\n").as_bytes()).await
    }

    pub(crate) async fn publish(&self, subject: &str, body: &[u8]) -> Option<()> {
        let head = format!("PUB {subject} {}\r\n", body.len());
        self.send(&[head.as_bytes(), body, b"\r\n"].concat()).await
    }

    /// With a header block of whatever bytes.
    pub(crate) async fn publish_with(
        &self,
        subject: &[u8],
        block: &[u8],
        body: &[u8],
    ) -> Option<()> {
        let lengths = format!(" {} {}\r\n", block.len(), block.len() + body.len());
        let parts = [b"HPUB ", subject, lengths.as_bytes(), block, body, b"\r\n"];
        self.send(&parts.concat()).await
    }
}

impl Reader {
    /// The next message, without its headers; `None` when the connection is gone.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let mut line = Vec::new();
            self.lines.read_until(b'\n', &mut line).await.ok().filter(|count| *count > 0)?;
            let line = String::from_utf8_lossy(&line);
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (subject, reply, header, total) = match words.as_slice() {
                ["PING"] => {
                    self.writer.send(b"PONG\r\n").await?;
                    continue;
                }
                ["MSG", subject, _, total] => (subject, None, "0", total),
                ["MSG", subject, _, reply, total] => (subject, Some(*reply), "0", total),
                ["HMSG", subject, _, header, total] => (subject, None, *header, total),
                ["HMSG", subject, _, reply, header, total] => {
                    (subject, Some(*reply), *header, total)
                }
                ["-ERR", words @ ..] => {
                    self.was_slow |= words.concat().contains("SlowConsumer");
                    continue;
                }
                _ => continue,
            };
            let (header, total): (usize, usize) = (header.parse().ok()?, total.parse().ok()?);
            let mut bytes = vec![0; total + 2];
            self.lines.read_exact(&mut bytes).await.ok()?;
            return Some(Message {
                subject: (*subject).into(),
                reply: reply.map(Into::into),
                payload: bytes[header..total].to_vec().into(),
                headers: None,
                status: None,
                description: None,
                length: total,
            });
        }
    }
}
