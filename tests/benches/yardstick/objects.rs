//! The object store beside raw JetStream: 64 MiB uploaded as an object and as a windowed publish of
//! the same chunks with as many in flight, read back as an object and as plain pulled messages, in
//! turns. The digest is known before the upload begins, as it is for a snapshot.

use std::collections::VecDeque;
use std::time::Instant;

use async_nats::jetstream::{self, Context, consumer::AckPolicy, consumer::pull};
use bytes::Bytes;
use driftgate::nats::object::{CHUNK_BYTES, Content, Store, WINDOW};
use driftgate::protocol::digest::Digest;
use futures_util::StreamExt;

use super::support::nats_server::NatsServer;
use super::support::object::{BUCKET, MIB, NO_LIMIT, STREAM, label, noise, quiet};
use super::table::Row;

const LEN: usize = 64 * MIB;
const ROUNDS: usize = 7;

pub(crate) async fn measure() -> Vec<Row> {
    let server = NatsServer::start();
    let settings = server.settings("planner");
    let store = Store::open(&settings, BUCKET).await.unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream(STREAM).await.unwrap();
    let bytes = noise(LEN, 1);
    let raw = format!("$O.{BUCKET}.C.raw");
    let name = label("planner/object");
    let digest = Digest::of(&bytes);
    let (mut uploads, mut restores) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // Ours, then the bare client's.
        let (mut upload, mut restore) = ([0.0; 2], [0.0; 2]);
        for is_ours in [round % 2 == 0, round % 2 != 0] {
            if is_ours {
                let begin = Instant::now();
                let content = Content::Bytes(bytes.clone());
                store.put_hashed(&name, &store.next_id(), content, digest, &quiet).await.unwrap();
                upload[0] = rate(begin);
                let begin = Instant::now();
                assert!(store.get(&name.name, NO_LIMIT, &quiet).await.unwrap().len() == LEN);
                restore[0] = rate(begin);
                store.delete(&name.name).await.unwrap();
            } else {
                upload[1] = publish(&context, &raw, &bytes).await;
                restore[1] = read(&context, &raw).await;
                stream.purge().filter(raw.as_str()).await.unwrap();
            }
        }
        // The first round warms up.
        if round > 0 {
            uploads.push(upload);
            restores.push(restore);
        }
    }
    vec![row("objects, upload 64 MiB", uploads), row("objects, restore 64 MiB", restores)]
}

fn row(name: &str, mut pairs: Vec<[f64; 2]>) -> Row {
    pairs.sort_by(|left, right| (left[0] / left[1]).total_cmp(&(right[0] / right[1])));
    let [ours, bare] = pairs[pairs.len() / 2];
    Row::of(name, "MiB/s", ours, Some(bare))
}

/// Publishes the chunks to the same stream, `WINDOW` of them unacknowledged.
async fn publish(context: &Context, subject: &str, bytes: &Bytes) -> f64 {
    let begin = Instant::now();
    let mut in_flight = VecDeque::new();
    for first in (0..bytes.len()).step_by(CHUNK_BYTES) {
        let chunk = bytes.slice(first..bytes.len().min(first + CHUNK_BYTES));
        in_flight
            .push_back(context.publish(subject.to_owned(), chunk).await.unwrap().into_future());
        if in_flight.len() >= WINDOW {
            in_flight.pop_front().unwrap().await.unwrap();
        }
    }
    for ack in in_flight {
        ack.await.unwrap();
    }
    rate(begin)
}

/// Pulls them again and counts the bytes.
async fn read(context: &Context, subject: &str) -> f64 {
    let begin = Instant::now();
    let config = pull::Config {
        filter_subject: subject.to_owned(),
        ack_policy: AckPolicy::None,
        memory_storage: true,
        ..Default::default()
    };
    let consumer = context.create_consumer_on_stream(config, STREAM).await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(32).messages().await.unwrap();
    let mut left = LEN;
    while left > 0 {
        left -= messages.next().await.unwrap().unwrap().payload.len();
    }
    rate(begin)
}

fn rate(begin: Instant) -> f64 {
    LEN as f64 / begin.elapsed().as_secs_f64() / MIB as f64
}
