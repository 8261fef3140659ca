//! The bare client: async-nats as its documentation shows it, in a process of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::context::ContextBuilder;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::process::{Times, cpu};

/// Publishes before those that count.
const WARM_UP: usize = 1_000;

/// A packet as it stands on the stream.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) payload: String,
    pub(crate) headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Task {
    url: String,
    /// Subjects without their last number.
    subject: String,
    targets: usize,
    window: usize,
    seconds: f64,
    sample: Sample,
}

/// Publishes to all subjects in turn, `window` of them unacknowledged at a time.
pub(crate) async fn run(told: String) {
    let task: Task = serde_json::from_str(&told).unwrap();
    let client = async_nats::connect(&task.url).await.unwrap();
    let context = ContextBuilder::new().max_ack_inflight(task.window).build(client);
    let payload = Bytes::from(task.sample.payload.clone().into_bytes());
    let mut constant = HeaderMap::new();
    for (name, value) in &task.sample.headers {
        constant.insert(name.as_str(), value.as_str());
    }
    let subjects: Vec<String> =
        (0..task.targets).map(|target| format!("{}{target}", task.subject)).collect();
    let life = std::process::id();
    let mut times = Times::default();
    let mut number = 0;
    let mut acks = FuturesUnordered::new();
    let mut begin = (Instant::now(), cpu(life));
    let span = Duration::from_secs_f64(task.seconds);
    while number <= WARM_UP || begin.0.elapsed() < span {
        if number == WARM_UP {
            begin = (Instant::now(), cpu(life));
            times.clear();
        }
        if acks.len() >= task.window {
            times.push(acks.next().await.unwrap());
        }
        let mut headers = constant.clone();
        headers.insert("Nats-Msg-Id", format!("bare-{life}-{number}"));
        let subject = subjects[number % subjects.len()].clone();
        let sent = Instant::now();
        let ack = context.publish_with_headers(subject, headers, payload.clone()).await.unwrap();
        acks.push(async move {
            ack.await.unwrap();
            sent.elapsed()
        });
        number += 1;
    }
    while let Some(time) = acks.next().await {
        times.push(time);
    }
    let seconds = begin.0.elapsed().as_secs_f64();
    let stored = number - WARM_UP;
    let spent = (cpu(life) - begin.1).as_secs_f64() * 1e6 / stored as f64;
    println!("{}", json!({"rate": stored as f64 / seconds, "cpu": spent, "us": times.quantiles()}));
}

/// Connects and ends.
pub(crate) async fn connect(url: &str) {
    async_nats::connect(url).await.unwrap().flush().await.unwrap();
}

/// Connects, and does nothing until it is killed.
pub(crate) async fn wait(url: &str) {
    let client = async_nats::connect(url).await.unwrap();
    client.flush().await.unwrap();
    println!();
    core::future::pending::<()>().await;
}
