//! Pushes and pulls with the headers in hand, and what the bucket holds.

use std::net::SocketAddr;

use driftgate::nats::object::{ObjectInfo, Store};
use driftgate::snapshots::bucket::{BUCKET, INDEX};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::manifest::meet_now;
use super::nats_server::NatsServer;
use super::sidecar::{Plan, Sidecar};
use super::wait::LONG;

/// Peers that exchange snapshots as well, and are known to.
pub(crate) fn plan(runtime: &str, peer: &str, url: &str) -> Plan {
    meet_now(url, peer);
    let scopes = r#"["state", "snapshot"]"#;
    Plan::new(runtime, &[], url)
        .with(&format!("[[peers]]\nid = {peer:?}\nexport = {scopes}\nimport = {scopes}\n"))
}

/// An answer with its head.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}{}", self.head, String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One request on a connection of its own; `None` when the server hung up on it.
pub(crate) async fn ask(api: SocketAddr, line: &str, headers: &str, body: &[u8]) -> Option<Reply> {
    let exchange = async {
        let mut stream = TcpStream::connect(api).await.ok()?;
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        // The server may answer before it has read all.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        // It may reset what it does not want to read, after its answer.
        let _ = stream.read_to_end(&mut bytes).await;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Reply { status, head, body: bytes[end..].to_vec() })
    };
    tokio::time::timeout(LONG, exchange).await.expect("an answer in time")
}

pub(crate) async fn push(sidecar: &Sidecar, bytes: &[u8]) -> Reply {
    let reply = ask(sidecar.api, "PUT /memory/snapshot", "Content-Type: text/plain\r\n", bytes);
    reply.await.expect("an answer")
}

pub(crate) async fn pull(sidecar: &Sidecar, query: &str, headers: &str) -> Reply {
    let line = format!("GET /memory/snapshot{query}");
    ask(sidecar.api, &line, headers, b"").await.expect("an answer")
}

/// Everything in the bucket, oldest first.
pub(crate) async fn objects(server: &NatsServer) -> Vec<ObjectInfo> {
    let store = Store::open(&server.settings("observer"), BUCKET).await.expect("the bucket");
    let listing = store.list("", 1000).await.expect("a list");
    store.sever().await;
    listing.objects
}

/// The index of manifests, for whoever may write to it.
pub(crate) async fn index(server: &NatsServer) -> async_nats::jetstream::kv::Store {
    let client = async_nats::connect(server.url()).await.expect("a connection");
    let context = async_nats::jetstream::new(client);
    match context.get_key_value(INDEX).await {
        Ok(index) => index,
        Err(_) => {
            let config = async_nats::jetstream::kv::Config {
                bucket: INDEX.to_owned(),
                ..Default::default()
            };
            context.create_key_value(config).await.expect("an index")
        }
    }
}

/// The key of an object's manifest.
pub(crate) fn key(name: &str) -> String {
    let (runtime, rest) = name.split_once('/').expect("an object of ours");
    format!("{runtime}.{}", rest.split('-').next().expect("a number"))
}

/// Text that hardly compresses, the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
