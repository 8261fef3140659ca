//! The object store against a real nats-server: bytes there and back, also with async-nats and the
//! `nats` command at the other end, and what remains when something breaks in the middle.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the report, and a part that is skipped is said aloud"
)]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, object_store, stream};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use driftgate::nats::object::{CHUNK_BYTES, Label, Store, StoreFault, WINDOW};
use driftgate::nats::settings::Settings;
use futures_util::{FutureExt, StreamExt};
use support::nats_server::{NatsServer, PATIENCE, eventually};
use tokio::io::AsyncReadExt;

const BUCKET: &str = "driftgate-snapshots";
const STREAM: &str = "OBJ_driftgate-snapshots";
const MIB: usize = 1024 * 1024;
const NO_LIMIT: u64 = u64::MAX;

/// Bytes that neither repeat nor compress, from a seed.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

fn label(name: &str) -> Label {
    Label {
        name: name.to_owned(),
        media_type: Some("application/zstd".to_owned()),
        metadata: BTreeMap::from([("seq".to_owned(), "7".to_owned())]),
    }
}

fn quiet(_: u64) {}

/// Settings with short deadlines: a stall is three times this.
fn hasty(server: &NatsServer) -> Settings {
    let mut settings = server.settings("planner");
    settings.call_timeout = Duration::from_millis(300);
    settings
}

async fn open(server: &NatsServer) -> Store {
    Store::open(&server.settings("planner"), BUCKET).await.unwrap()
}

async fn foreign(server: &NatsServer) -> (jetstream::Context, stream::Stream) {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream(STREAM).await.unwrap();
    (context, stream)
}

/// Messages per subject of the bucket.
async fn subjects(server: &NatsServer, filter: &str) -> Vec<(String, usize)> {
    let (_, stream) = foreign(server).await;
    let mut subjects = stream.info_with_subjects(format!("$O.{BUCKET}.{filter}")).await.unwrap();
    let mut found = Vec::new();
    while let Some(subject) = subjects.next().await {
        found.push(subject.unwrap());
    }
    found
}

async fn chunks(server: &NatsServer) -> usize {
    subjects(server, "C.>").await.iter().map(|(_, count)| count).sum()
}

/// A foreign client that hears everything in every bucket.
async fn observer(server: &NatsServer) -> (Client, Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let subscriber = client.subscribe("$O.>").await.unwrap();
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    (client, subscriber)
}

/// What the observer hears before a sentinel that is published now, by another connection.
async fn heard_before_now(server: &NatsServer, observer: &mut Subscriber) -> usize {
    let client = async_nats::connect(server.url()).await.unwrap();
    client.publish("$O.sentinel", "".into()).await.unwrap();
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    let mut heard = 0;
    loop {
        let message = tokio::time::timeout(PATIENCE, observer.next()).await.unwrap().unwrap();
        if message.subject.as_str() == "$O.sentinel" {
            return heard;
        }
        heard += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_got_at_every_size_around_a_chunk() {
    let server = NatsServer::start();
    let store = open(&server).await;
    assert_eq!(store.differences(), [""; 0]);
    for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * MIB] {
        let (name, bytes) = (format!("planner/{len}.zst"), noise(len, 1));
        let (sent, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
        let rises = |done| assert!(sent.swap(done, Ordering::Relaxed) <= done);
        let info = store.put(&label(&name), bytes.clone(), &rises).await.unwrap();
        assert_eq!(usize::try_from(info.size).unwrap(), len);
        assert_eq!(usize::try_from(info.chunks).unwrap(), len.div_ceil(CHUNK_BYTES));
        let counts = |done| arrived.store(done, Ordering::Relaxed);
        let got = store.get(&name, info.size, &counts).await.unwrap();
        assert!(got == bytes, "{len} bytes differ");
        assert_eq!((sent.into_inner(), arrived.into_inner()), (info.size, info.size));
        let seen = store.info(&name).await.unwrap().unwrap();
        assert!(seen.modified.is_some());
        assert_eq!(seen.media_type.as_deref(), Some("application/zstd"));
        assert_eq!(seen.metadata["seq"], "7");
        assert_eq!((seen.nuid, seen.digest), (info.nuid, info.digest));
    }
    let listing = store.list("planner/", 100).await.unwrap();
    assert_eq!((listing.objects.len(), listing.is_cut, listing.unreadable), (6, false, 0));
    assert_eq!(listing.objects[5].name, format!("planner/{}.zst", 5 * MIB));
    let listing = store.list("planner/1", 1).await.unwrap();
    assert_eq!((listing.objects.len(), listing.is_cut), (1, true));
    assert_eq!(store.list("critic/", 100).await.unwrap().objects, []);
    assert_eq!(
        store.get("planner/none", NO_LIMIT, &quiet).await,
        Err(StoreFault::NotFound("planner/none".to_owned()))
    );
    let fault = store.get("planner/1.zst", 0, &quiet).await.unwrap_err();
    assert!(matches!(fault, StoreFault::TooLarge { size: 1, bytes_max: 0, .. }), "{fault}");
}
