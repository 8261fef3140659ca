//! A tiny HTTP/1.1 client: one connection, kept alive, opened again when it is gone. What it is
//! answered is held against `/openapi.json`.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::described::{self, Seen};
use super::wait::LONG;

/// An answer and how long it took.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }
}

/// One client connection.
pub(crate) struct Caller {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Caller {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    pub(crate) async fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.call("GET", path, "", "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.call("POST", path, "Content-Type: application/json\r\n", body).await
    }

    /// One request with extra header lines. An error closes the connection; the next call opens
    /// another.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<Answer> {
        let begin = Instant::now();
        let outcome = tokio::time::timeout(LONG, self.exchange(method, path, headers, body)).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("no answer to {method} {path}"));
        if outcome.is_err() {
            self.stream = None;
        }
        let (status, body) = outcome?;
        Ok(Answer { status, body, took: begin.elapsed() })
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<(u16, Vec<u8>)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                self.stream.insert(BufReader::new(stream))
            }
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(bad)?;
        let mut length = 0;
        let mut media_type = None;
        let mut is_coded = false;
        let mut closes = false;
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            closes |= header == "connection: close";
            is_coded |= header.starts_with("content-encoding:");
            if let Some(text) = header.strip_prefix("content-type:") {
                media_type = Some(text.trim().to_owned());
            }
            if let Some(text) = header.strip_prefix("content-length:") {
                length = text.trim().parse().map_err(|_| bad())?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        if closes {
            self.stream = None;
        }
        if !is_coded {
            let (target, media_type, body) = (path, media_type.as_deref(), &body);
            described::check(&Seen { method, target, status, media_type, body });
        }
        Ok((status, body))
    }
}
