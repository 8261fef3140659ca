//! The link beside a bare async-nats client: JetStream publishes of the same bytes to the same
//! stream with the same number in flight, in turns in one run. Prints rates and their ratio.
//!
//! `NATS_SERVER=... cargo bench --bench link`. Under `cargo test` it exits at once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a program to be run by hand that prints figures"
)]

#[path = "../support/mod.rs"]
mod support;

use std::time::Instant;

use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use driftgate::nats::headers::PacketHeaders;
use driftgate::nats::link::{Link, LinkEvent, Outgoing};
use driftgate::nats::{HeaderMap, Subject, assets};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::trace::TraceParent;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use support::nats_server::NatsServer;

const ROUNDS: usize = 9;
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers(seq: u64) -> HeaderMap {
    PacketHeaders {
        checksum: Digest::of(b""),
        seq,
        context: "https://example.org/context",
        traceparent: TraceParent::parse(TRACE).as_ref(),
        drift_source: Provenance::Native,
        envelope: "",
    }
    .to_headers()
}

fn subject(seq: u64) -> Subject {
    Subject::from(format!("driftgate.v1.state.planner.t{}", seq % 100))
}

async fn bare(context: &Context, first: u64, count: u64, window: usize, payload: &Bytes) -> f64 {
    let begin = Instant::now();
    let mut in_flight = FuturesUnordered::new();
    for seq in first..first + count {
        let sent = context
            .publish_with_headers(subject(seq), headers(seq), payload.clone())
            .await
            .unwrap();
        in_flight.push(sent.into_future());
        if in_flight.len() >= window {
            in_flight.next().await.unwrap().unwrap();
        }
    }
    while let Some(ack) = in_flight.next().await {
        ack.unwrap();
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

async fn ours(link: &mut Link, first: u64, count: u64, window: u64, payload: &Bytes) -> f64 {
    let begin = Instant::now();
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && sent - acked < window {
            let seq = first + sent;
            let message =
                Outgoing { subject: subject(seq), headers: headers(seq), payload: payload.clone() };
            link.publish(seq, message).unwrap();
            sent += 1;
        }
        let mut next = Some(link.event().await);
        while let Some(event) = next {
            match event {
                LinkEvent::Ack { outcome: Ok(_), .. } => acked += 1,
                other => panic!("{other:?}"),
            }
            next = link.try_event();
        }
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
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
    assets::ensure(&settings).await.unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut link = Link::connect(&settings).await.unwrap();
    link.subscribe_acks().unwrap();
    let payload = Bytes::from(vec![b'x'; 900]);
    let mut seq = 0;
    for (window, count) in [(1_u64, 4_000_u64), (64, 20_000), (256, 20_000)] {
        let (mut bare_rates, mut our_rates) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let ours_first = round % 2 == 0;
            for is_ours in [ours_first, !ours_first] {
                let rate = if is_ours {
                    ours(&mut link, seq, count, window, &payload).await
                } else {
                    bare(&context, seq, count, usize::try_from(window).unwrap(), &payload).await
                };
                seq += count;
                // The first round warms up.
                match (round, is_ours) {
                    (0, _) => {}
                    (_, true) => our_rates.push(rate),
                    (_, false) => bare_rates.push(rate),
                }
            }
        }
        let (our_rate, bare_rate) = (median(our_rates), median(bare_rates));
        println!(
            "{window:>4} in flight: link {our_rate:>8.0}/s, bare {bare_rate:>8.0}/s, ratio {:.3}",
            our_rate / bare_rate
        );
    }
}
