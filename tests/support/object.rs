//! Objects under test: bytes, stores, and what a foreign client sees of the bucket.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use driftgate::nats::object::{Label, Store};
use driftgate::nats::settings::Settings;
use futures_util::StreamExt;

use super::nats_server::{NatsServer, PATIENCE};

pub(crate) const BUCKET: &str = "driftgate-snapshots";
pub(crate) const STREAM: &str = "OBJ_driftgate-snapshots";
pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const NO_LIMIT: u64 = u64::MAX;

/// Bytes that neither repeat nor compress, from a seed.
pub(crate) fn noise(len: usize, seed: u64) -> Bytes {
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

pub(crate) fn label(name: &str) -> Label {
    Label {
        name: name.to_owned(),
        media_type: Some("application/zstd".to_owned()),
        metadata: BTreeMap::from([("seq".to_owned(), "7".to_owned())]),
    }
}

pub(crate) fn quiet(_: u64) {}

/// Settings with short deadlines: a stall is three times this.
pub(crate) fn hasty(server: &NatsServer) -> Settings {
    let mut settings = server.settings("planner");
    settings.call_timeout = Duration::from_millis(300);
    settings
}

pub(crate) async fn open(server: &NatsServer) -> Store {
    Store::open(&server.settings("planner"), BUCKET).await.unwrap()
}

pub(crate) async fn foreign(server: &NatsServer) -> (jetstream::Context, stream::Stream) {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream(STREAM).await.unwrap();
    (context, stream)
}

/// Messages per subject of the bucket.
pub(crate) async fn subjects(server: &NatsServer, filter: &str) -> Vec<(String, usize)> {
    let (_, stream) = foreign(server).await;
    let mut subjects = stream.info_with_subjects(format!("$O.{BUCKET}.{filter}")).await.unwrap();
    let mut found = Vec::new();
    while let Some(subject) = subjects.next().await {
        found.push(subject.unwrap());
    }
    found
}

pub(crate) async fn chunks(server: &NatsServer) -> usize {
    subjects(server, "C.>").await.iter().map(|(_, count)| count).sum()
}

/// A foreign client that hears everything in every bucket.
pub(crate) async fn observer(server: &NatsServer) -> (Client, Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let subscriber = client.subscribe("$O.>").await.unwrap();
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    (client, subscriber)
}

/// What the observer hears before a sentinel that is published now, by another connection.
pub(crate) async fn heard_before_now(server: &NatsServer, observer: &mut Subscriber) -> usize {
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
