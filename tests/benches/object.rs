//! The object store beside raw JetStream: 64 MiB uploaded as an object and as a windowed publish of
//! the same chunks with as many in flight, read back as an object and as plain pulled messages, in
//! turns in one run. The digest is known before the upload begins, as it is for a snapshot. Prints
//! rates and their ratio.
//!
//! `NATS_SERVER=... cargo bench --bench object`. Under `cargo test` it exits at once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a program to be run by hand that prints figures"
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::VecDeque;
use std::time::Instant;

use async_nats::jetstream::{self, Context, consumer::AckPolicy, consumer::pull};
use bytes::Bytes;
use driftgate::nats::object::{CHUNK_BYTES, Content, Store, WINDOW};
use driftgate::protocol::digest::Digest;
use futures_util::StreamExt;
use support::nats_server::NatsServer;
use support::object::{BUCKET, MIB, NO_LIMIT, STREAM, label, noise, quiet};

const LEN: usize = 64 * MIB;
const ROUNDS: usize = 9;

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

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let server = NatsServer::start();
    let settings = server.settings("planner");
    let store = Store::open(&settings, BUCKET).await.unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream(STREAM).await.unwrap();
    let bytes = noise(LEN, 1);
    let raw = format!("$O.{BUCKET}.C.raw");
    let name = label("planner/object");
    let digest = Digest::of(&bytes);
    // Object put, raw publish, object get, raw read.
    let mut rates: [Vec<f64>; 4] = Default::default();
    for round in 0..=ROUNDS {
        let mut said = [0.0; 4];
        for is_object in [round % 2 == 0, round % 2 != 0] {
            if is_object {
                let begin = Instant::now();
                let content = Content::Bytes(bytes.clone());
                store.put_hashed(&name, &store.next_id(), content, digest, &quiet).await.unwrap();
                said[0] = rate(begin);
                let begin = Instant::now();
                assert!(store.get(&name.name, NO_LIMIT, &quiet).await.unwrap().len() == LEN);
                said[2] = rate(begin);
                store.delete(&name.name).await.unwrap();
            } else {
                said[1] = publish(&context, &raw, &bytes).await;
                said[3] = read(&context, &raw).await;
                stream.purge().filter(raw.as_str()).await.unwrap();
            }
        }
        // The first round warms up.
        if round > 0 {
            rates.iter_mut().zip(said).for_each(|(rates, rate)| rates.push(rate));
        }
    }
    let [put, publish, get, read] = rates.each_mut().map(|rates| median(rates));
    println!("{} MiB, medians of {ROUNDS} rounds, MiB/s", LEN / MIB);
    println!("{:<10} {:>8} {:>8} {:>8}", "", "object", "raw", "ratio");
    for (what, ours, raw) in [("upload", put, publish), ("restore", get, read)] {
        println!("{what:<10} {ours:>8.0} {raw:>8.0} {:>8.3}", ours / raw);
    }
}
