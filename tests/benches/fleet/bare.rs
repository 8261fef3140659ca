//! As many bare clients, each with a durable consumer as a sidecar has it, at the same pace. They
//! share a process, which changes nothing for the broker.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::process::{Times, cpu, quantiles, said, watch_for};
use super::support::nats_server::NatsServer;
use super::{SERVER, id, peers};

/// Bytes of a packet, its envelope not counted.
const PACKET_BYTES: usize = 900;
/// The exchange envelope, as base64url.
const ENVELOPE_BYTES: usize = 1_100;
const SUBJECTS: &str = "driftgate.v1.state";

/// What the bare clients cost.
pub(crate) struct Bare {
    pub(crate) broker_us: f64,
    /// p50 and p99.
    pub(crate) delivery: [f64; 2],
}

#[derive(Deserialize)]
struct Task {
    url: String,
    size: usize,
    per_s: f64,
    seconds: f64,
}

pub(crate) async fn measure(size: usize, per_s: f64, span: Duration) -> Bare {
    let server = NatsServer::start_with(SERVER);
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = jetstream::stream::Config {
        name: "DRIFTGATE_STATE".to_owned(),
        subjects: vec![format!("{SUBJECTS}.*.*")],
        max_messages_per_subject: 64,
        ..Default::default()
    };
    context.create_stream(stream).await.unwrap();
    let seconds = span.as_secs_f64();
    let told = json!({"url": server.url(), "size": size, "per_s": per_s, "seconds": seconds});
    let watch = watch(server.id());
    let said = said("bare", told).await;
    let at = |key: &str| said[key].as_u64().unwrap();
    let spent = |from: &str, to: &str| watch.between(at(from), at(to));
    let idle = spent("idle", "begin") / (at("begin") - at("idle")) as f64;
    let busy = spent("begin", "end") - idle * (at("end") - at("begin")) as f64;
    let [p50, p99, _] = quantiles(&said);
    let broker_us = busy.max(0.0) * 1e6 / said["packets"].as_f64().unwrap();
    Bare { broker_us, delivery: [p50, p99] }
}

/// CPU of the broker, looked at ten times a second while others work.
struct Watch(std::sync::Arc<std::sync::Mutex<Vec<(u64, f64)>>>);

fn watch(process: u32) -> Watch {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = std::sync::Arc::downgrade(&seen);
    tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        while let Some(kept) = kept.upgrade() {
            kept.lock().unwrap().push((unix_ms(), cpu(process).as_secs_f64()));
            drop(kept);
            pace.tick().await;
        }
    });
    Watch(seen)
}

impl Watch {
    /// Seconds of CPU between two moments.
    fn between(&self, from: u64, to: u64) -> f64 {
        let seen = self.0.lock().unwrap();
        let at = |moment| seen[seen.partition_point(|(at, _)| *at < moment).min(seen.len() - 1)].1;
        at(to) - at(from)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// The process of the bare clients.
pub(crate) async fn run(told: String) {
    let task: Task = serde_json::from_str(&told).unwrap();
    let (heard, mut arrivals) = mpsc::unbounded_channel();
    let mut contexts = Vec::new();
    for number in 0..task.size {
        let context = jetstream::new(async_nats::connect(&task.url).await.unwrap());
        tokio::spawn(read(context.clone(), number, heard.clone()));
        contexts.push(context);
    }
    drop(heard);
    watch_for(Duration::from_secs(5)).await;
    let idle = unix_ms();
    watch_for(Duration::from_secs(10)).await;
    let begin = (unix_ms(), Instant::now());
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / task.per_s));
    let payload = bytes::Bytes::from(vec![b'x'; PACKET_BYTES]);
    let (mut packets, mut number) = (0_u64, 0);
    while begin.1.elapsed().as_secs_f64() < task.seconds {
        pace.tick().await;
        let place = number % task.size;
        number += 1;
        let mut acks = Vec::new();
        for peer in peers(place, task.size) {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("{place}-{peer}-{number}"));
            headers.insert("Envelope", "e".repeat(ENVELOPE_BYTES));
            headers.insert("At-Us", begin.1.elapsed().as_micros().to_string());
            let subject = format!("{SUBJECTS}.{}.{peer}", id(place));
            let sent = contexts[place].publish_with_headers(subject, headers, payload.clone());
            acks.push(sent.await.unwrap().into_future());
        }
        for ack in acks {
            ack.await.unwrap();
            packets += 1;
        }
    }
    let end = unix_ms();
    watch_for(Duration::from_secs(1)).await;
    let mut times = Times::default();
    while let Ok((sent_us, at)) = arrivals.try_recv() {
        let sent = begin.1 + Duration::from_micros(sent_us);
        times.push(Instant::duration_since(&at, sent));
    }
    let us = times.quantiles();
    println!(
        "{}",
        json!({"idle": idle, "begin": begin.0, "end": end, "packets": packets, "us": us})
    );
}

/// Reads what is for one runtime, as a sidecar does: a durable pull consumer, acknowledged.
async fn read(context: Context, number: usize, heard: mpsc::UnboundedSender<(u64, Instant)>) {
    let stream = context.get_stream("DRIFTGATE_STATE").await.unwrap();
    let name = format!("in-{}", id(number));
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: format!("{SUBJECTS}.*.{}", id(number)),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    };
    let consumer = stream.get_or_create_consumer(&name, config).await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(64).messages().await.unwrap();
    while let Some(Ok(message)) = messages.next().await {
        let at = Instant::now();
        let headers = message.headers.as_ref().unwrap();
        let sent_us = headers.get("At-Us").unwrap().as_str().parse().unwrap();
        message.ack().await.unwrap();
        if heard.send((sent_us, at)).is_err() {
            return;
        }
    }
}
