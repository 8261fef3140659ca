//! From the report that closes the gate to the reply that promises silence, as a ratio to what a
//! bare client's round trips to the same broker take in the same run. Prints; asserts nothing about
//! time.
//!
//! `cargo bench --bench closing`. Under `cargo test` it exits at once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "a bench prints, takes times, and ends where something is wrong"
)]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt as _;
use support::books::Books;
use support::http::Caller;
use support::nats_server::NatsServer;
use support::report::report;
use support::sidecar::{Plan, Sidecar};

const ROUNDS: usize = 2_000;
/// Rounds before those that count.
const WARM_UP: usize = 200;

/// Times of one thing, one per round.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn at(&self, share: f64) -> f64 {
        let mut times: Vec<f64> = self.0.iter().map(Duration::as_secs_f64).collect();
        times.sort_by(f64::total_cmp);
        let place = (times.len() as f64 * share).ceil() as usize;
        times[place.saturating_sub(1).min(times.len() - 1)] * 1e6
    }

    fn row(&self, name: &str, base: &Self) {
        let [half, most] = [0.5, 0.99].map(|share| (self.at(share), base.at(share)));
        println!(
            "{name:<58} {:>8.0} {:>8.0}   {:>5.2} {:>5.2}",
            half.0,
            most.0,
            half.0 / half.1,
            most.0 / most.1
        );
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
    }
}

async fn run() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let responder = async_nats::connect(server.url()).await.unwrap();
    let mut asked = responder.subscribe("bench.echo").await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            responder.publish(message.reply.unwrap(), "".into()).await.unwrap();
        }
    });
    let mut own = client.subscribe("bench.own").await.unwrap();
    let context = jetstream::new(client.clone());
    let payload = bytes::Bytes::from(vec![b'x'; 900]);
    let mut caller = Caller::new(sidecar.api);
    let (mut own_echo, mut request, mut stored) =
        (Times::default(), Times::default(), Times::default());
    let (mut held, mut closing) = (Times::default(), Times::default());
    let mut before = String::new();
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            before = metrics(&sidecar).await;
            for times in [&mut own_echo, &mut request, &mut stored, &mut held, &mut closing] {
                times.0.clear();
            }
        }
        post(&mut caller, 0.30, "stored").await;
        closing.0.push(post(&mut caller, 0.51, "held").await);
        held.0.push(post(&mut caller, 0.52, "held").await);
        let begin = Instant::now();
        client.publish("bench.own", "".into()).await.unwrap();
        own.next().await.unwrap();
        own_echo.0.push(begin.elapsed());
        let begin = Instant::now();
        client.request("bench.echo", "".into()).await.unwrap();
        request.0.push(begin.elapsed());
        let begin = Instant::now();
        let sent = context.publish("driftgate.v1.state.bench.critic", payload.clone()).await;
        sent.unwrap().await.unwrap();
        stored.0.push(begin.elapsed());
    }
    println!("{ROUNDS} rounds, in turn; microseconds; ratios to the first row");
    println!("{:<58} {:>8} {:>8}   {:>5} {:>5}", "", "p50", "p99", "p50", "p99");
    own_echo.row("bare client: own echo through the broker", &own_echo);
    request.row("bare client: request to another client", &own_echo);
    stored.row("bare client: JetStream publish and acknowledgement", &own_echo);
    held.row("sidecar: held report over HTTP, no broker involved", &own_echo);
    closing.row("sidecar: closing report over HTTP, to its reply", &own_echo);
    let times = |metrics: &str| buckets(&Books::read(metrics));
    let (first, last) = (times(&before), times(&metrics(&sidecar).await));
    for share in [0.5, 0.99] {
        let micros = quantile(&first, &last, share) * 1e6;
        println!(
            "closing_seconds histogram, p{:<2.0} (interpolated): {micros:.0} us, {:.2} own echoes, {:.2} \
             acknowledged publishes",
            share * 100.0,
            micros / own_echo.at(share),
            micros / stored.at(share)
        );
    }
}

async fn metrics(sidecar: &Sidecar) -> String {
    Caller::new(sidecar.admin).get("/metrics").await.unwrap().text()
}

async fn post(caller: &mut Caller, di: f64, status: &str) -> Duration {
    let answer = caller.post("/field/state", &report(di)).await.unwrap();
    let reply = answer.json();
    assert_eq!(reply["packets"][0]["status"], status, "{reply}");
    answer.took
}

/// Upper bound and cumulated count of each bucket.
fn buckets(books: &Books) -> Vec<(f64, f64)> {
    let bounds =
        ["0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.05", "0.25", "1.0", "2.0"];
    let count = |bound: &str| books.select("closing_seconds_bucket", &[("le", bound)]).sum();
    bounds.iter().map(|bound| (bound.parse().unwrap(), count(bound))).collect()
}

/// Linear within its bucket, as Prometheus does it.
fn quantile(first: &[(f64, f64)], last: &[(f64, f64)], share: f64) -> f64 {
    let counts: Vec<(f64, f64)> =
        first.iter().zip(last).map(|(first, last)| (last.0, last.1 - first.1)).collect();
    let wanted = counts[counts.len() - 1].1 * share;
    let (mut floor, mut below) = (0.0, 0.0);
    for (bound, count) in counts {
        if count >= wanted {
            return floor + (bound - floor) * (wanted - below) / (count - below).max(1.0);
        }
        (floor, below) = (bound, count);
    }
    f64::INFINITY
}
