//! Many sidecars on one broker: what a fleet costs, beside as many bare clients that publish and
//! read the same packets at the same pace.
//!
//! `cargo bench --bench fleet -- [--sizes 10,100,300,1000] [--seconds S] [--json]`. Each sidecar is
//! a process of its own with ten peers, five on each side of it in a ring, whom it tells and hears.
//! The pace of reports is the fleet's as a whole and the same for every size, so what the broker
//! spends on one packet can be compared. Prints; asserts nothing about time. Under `cargo test` it
//! exits at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "a bench prints, takes times, and ends where something is wrong"
)]

#[path = "fleet/bare.rs"]
mod bare;
#[path = "fleet/pace.rs"]
mod pace;
#[allow(dead_code, reason = "the yardstick uses the rest")]
#[path = "yardstick/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream;
use process::{Times, cpu, memory, wakeups, watch_for};
use serde_json::{Value, json};
use support::nats_server::NatsServer;
use support::sidecar::{Plan, Sidecar};
use support::wait::until;

/// Peers on each side of a runtime in the ring.
const NEIGHBOURS: usize = 5;
/// Sidecars that are started at a time.
const STARTS: usize = 8;
/// Reports of the whole fleet in a second; each makes ten packets.
const REPORTS_PER_S: f64 = 40.0;
/// More connections than a server takes by default, and no limit that a fleet would meet.
const SERVER: &str = "max_connections: 65536\n";

fn main() {
    let mut arguments = std::env::args().skip(1);
    if std::env::var(process::TASK).is_ok() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(bare::run(arguments.next().unwrap()));
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (mut sizes, mut seconds, mut is_json) = (vec![10, 100, 300, 1_000], 20, false);
    let mut arguments = arguments.filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut word = || arguments.next().expect("a word after the option");
        match argument.as_str() {
            "--json" => is_json = true,
            "--seconds" => seconds = word().parse().unwrap(),
            "--sizes" => sizes = word().split(',').map(|size| size.parse().unwrap()).collect(),
            other => panic!("unknown: {other}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for (place, size) in sizes.into_iter().enumerate() {
            let row = measure(size, Duration::from_secs(seconds)).await;
            if is_json {
                println!("{row}");
            } else {
                print(&row, place == 0);
            }
        }
    });
}

fn print(row: &Value, is_first: bool) {
    let Value::Object(members) = row else { return };
    if is_first {
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        println!("{}", names.join(" | "));
    }
    let number = |value: &Value| match value.as_f64() {
        Some(number) if number.fract() == 0.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.3}"),
        None => value.to_string(),
    };
    println!("{}", members.values().map(number).collect::<Vec<_>>().join(" | "));
}

fn id(number: usize) -> String {
    format!("r{number}")
}

/// The ten peers of one runtime; fewer where the ring is shorter.
fn peers(number: usize, size: usize) -> Vec<String> {
    let mut all: Vec<usize> = (1..=NEIGHBOURS)
        .flat_map(|step| [(number + step) % size, (number + size - step % size) % size])
        .filter(|peer| *peer != number)
        .collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(id).collect()
}

async fn start(number: usize, size: usize, url: &str) -> Sidecar {
    let peers = peers(number, size);
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
    let plan = Plan::new(&id(number), &peers, url).with("[log]\nlevel = \"info\"\n");
    Sidecar::connected(plan).await
}

async fn fleet(size: usize, url: &str) -> Vec<Sidecar> {
    let mut sidecars = Vec::new();
    for first in (0..size).step_by(STARTS) {
        let batch = (first..size.min(first + STARTS)).map(|number| start(number, size, url));
        sidecars.extend(futures_util::future::join_all(batch).await);
    }
    sidecars
}

/// CPU of the broker, and of all sidecars.
fn spent(server: &NatsServer, sidecars: &[Sidecar]) -> [f64; 2] {
    let all: Duration = sidecars.iter().map(|sidecar| cpu(sidecar.id())).sum();
    [cpu(server.id()).as_secs_f64(), all.as_secs_f64()]
}

async fn measure(size: usize, span: Duration) -> Value {
    let mut server = NatsServer::start_with(SERVER);
    let begin = Instant::now();
    let sidecars = fleet(size, &server.url()).await;
    let started = begin.elapsed().as_secs_f64();
    let seconds = span.as_secs_f64();
    // Every gate opens once; then what follows from the start is over.
    pace::open(&sidecars).await;
    watch_for(Duration::from_secs(10)).await;

    let (before, woken) = (spent(&server, &sidecars), wakeups(sidecars[0].id()));
    watch_for(span).await;
    let (after, wakes) = (spent(&server, &sidecars), wakeups(sidecars[0].id()));
    let idle = [0, 1].map(|side| (after[side] - before[side]) / seconds);
    let wakes = wakes.saturating_sub(woken) as f64 / seconds;

    let before = spent(&server, &sidecars);
    let mut load = pace::run(&sidecars, REPORTS_PER_S, span).await;
    let after = spent(&server, &sidecars);
    let packets = load.packets as f64;
    // What the broker spends idle is no packet's.
    let each = |side: usize| {
        let idle = idle[side] * load.seconds;
        (after[side] - before[side] - idle).max(0.0) * 1e6 / packets
    };
    let kib = |name: &str| {
        let all: f64 = sidecars.iter().map(|sidecar| memory(sidecar.id(), name)).sum();
        all / size as f64
    };
    let (private, resident) = (kib("RssAnon:"), kib("VmRSS:"));
    let assets = assets(&server).await;
    let again = restart(&mut server, size).await;
    drop(sidecars);
    let bare = bare::measure(size, REPORTS_PER_S, span).await;
    json!({
        "sidecars": size,
        "start s": started,
        "private KiB": private,
        "resident KiB": resident,
        "idle ms CPU/s": idle[1] * 1e3 / size as f64,
        "wakeups/s": wakes,
        "broker idle ms CPU/s": idle[0] * 1e3,
        "packets": packets,
        "broker us/packet": each(0),
        "bare us/packet": bare.broker_us,
        "ratio": each(0) / bare.broker_us,
        "sidecars us/packet": each(1),
        "delivery p50 ms": load.delivery.at(0.5) / 1e3,
        "p99 ms": load.delivery.at(0.99) / 1e3,
        "bare p50 ms": bare.delivery[0] / 1e3,
        "bare p99 ms": bare.delivery[1] / 1e3,
        "consumers": assets[0],
        "subjects": assets[1],
        "presence keys": assets[2],
        "reconnected s": again,
    })
}

/// Consumers and subjects of the packets' stream, and keys of presence.
async fn assets(server: &NatsServer) -> [u64; 3] {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let state = context.get_stream("DRIFTGATE_STATE").await.unwrap();
    let state = &state.get_info().await.unwrap().state;
    let presence = context.get_stream("KV_driftgate-presence").await.unwrap();
    let keys = presence.get_info().await.unwrap().state.subjects_count;
    [state.consumer_count as u64, state.subjects_count, keys]
}

/// Ends the broker and starts it again; until as many are connected as before.
async fn restart(server: &mut NatsServer, size: usize) -> f64 {
    server.restart();
    let begin = Instant::now();
    until("all to connect again", async || {
        let connections = server.get("/varz")["connections"].as_u64().unwrap();
        (connections >= size as u64).then_some(())
    })
    .await;
    begin.elapsed().as_secs_f64()
}

/// Times from both ends.
#[derive(Default)]
struct Load {
    packets: u64,
    seconds: f64,
    delivery: Times,
}
