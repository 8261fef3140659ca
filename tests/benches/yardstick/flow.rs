//! Reports in, packets stored: the sidecar under load beside the bare client.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use serde_json::json;

use super::bare::Sample;
use super::process::{cpu, quantiles, said};
use super::support::nats_server::NatsServer;
use super::support::sidecar::{Plan, Sidecar};
use super::table::Row;

/// Packets without an acknowledgement at a time, by default.
const WINDOW: usize = 256;

/// One row.
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    targets: usize,
    /// Reporters over HTTP; 0 for one stream of reports.
    connections: usize,
    /// Of the bare client.
    window: usize,
}

/// Where a report makes many packets, as many reporters as keep the window full.
pub(crate) const FLOWS: [Flow; 8] = [
    Flow { name: "HTTP, 1 connection, 1 target", targets: 1, connections: 1, window: 1 },
    Flow { name: "HTTP, 16 connections, 1 target", targets: 1, connections: 16, window: 16 },
    Flow { name: "HTTP, 64 connections, 1 target", targets: 1, connections: 64, window: 64 },
    Flow { name: "NDJSON stream, 1 target", targets: 1, connections: 0, window: WINDOW },
    Flow { name: "fan-out, 10 targets", targets: 10, connections: 51, window: WINDOW },
    Flow { name: "fan-out, 100 targets", targets: 100, connections: 5, window: WINDOW },
    Flow { name: "fan-out, 1,000 targets", targets: 1_000, connections: 1, window: WINDOW },
    Flow { name: "fan-out, 10,000 targets", targets: 10_000, connections: 1, window: WINDOW },
];

/// What one side did in one turn.
struct Side {
    rate: f64,
    cpu: f64,
    superseded: f64,
    times: [f64; 3],
}

pub(crate) async fn measure(flow: Flow, span: Duration, turns: usize) -> Row {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan(&flow, &server.url())).await;
    sidecar.stores().await;
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream("DRIFTGATE_STATE").await.unwrap();
    let sample = sample(&stream).await;
    let mut pairs = Vec::new();
    // Once before those that count: caches, clocks, the broker's memory.
    ours(&flow, &sidecar, span / 4).await;
    for turn in 0..turns {
        let (mut mine, mut theirs) = (None, None);
        for is_ours in [turn % 2 == 0, turn % 2 != 0] {
            if is_ours {
                mine = Some(ours(&flow, &sidecar, span).await);
            } else {
                theirs = Some(bare(&flow, &server, &sample, span).await);
            }
            // So that no turn finds a longer stream than another.
            stream.purge().await.unwrap();
        }
        pairs.push((mine.unwrap(), theirs.unwrap()));
    }
    pairs.sort_by(|left, right| {
        (left.0.rate / left.1.rate).total_cmp(&(right.0.rate / right.1.rate))
    });
    let (ours, bare) = &pairs[pairs.len() / 2];
    Row {
        cpu: Some([ours.cpu, bare.cpu]),
        superseded: Some(ours.superseded),
        times: Some([ours.times, bare.times]),
        ..Row::of(flow.name, "packets/s", ours.rate, Some(bare.rate))
    }
}

fn plan(flow: &Flow, url: &str) -> Plan {
    let peers: String = (0..flow.targets)
        .map(|target| format!("[[peers]]\nid = \"t{target}\"\nexport = [\"state\"]\n"))
        .collect();
    // The same number in flight on both sides.
    let nats = format!("[nats]\nwindow = {WINDOW}\n");
    Plan::new("planner", &[], url).with(&peers).with(&nats)
}

async fn ours(flow: &Flow, sidecar: &Sidecar, span: Duration) -> Side {
    let before = (sidecar.settled().await, cpu(sidecar.id()));
    let told = json!({
        "api": sidecar.api, "connections": flow.connections, "seconds": span.as_secs_f64()
    });
    let said = said("load", told).await;
    let spent = cpu(sidecar.id()) - before.1;
    let after = sidecar.settled().await;
    let count = |status: &str| (after.packets(status) - before.0.packets(status)) as f64;
    let (stored, superseded) = (count("stored"), count("superseded"));
    Side {
        rate: stored / said["seconds"].as_f64().unwrap(),
        cpu: spent.as_secs_f64() * 1e6 / stored,
        superseded: superseded / (stored + superseded),
        times: quantiles(&said),
    }
}

async fn bare(flow: &Flow, server: &NatsServer, sample: &Sample, span: Duration) -> Side {
    let told = json!({
        "url": server.url(), "subject": "driftgate.v1.state.planner.t", "targets": flow.targets,
        "window": flow.window, "seconds": span.as_secs_f64(), "sample": sample,
    });
    let said = said("bare", told).await;
    let number = |key: &str| said[key].as_f64().unwrap();
    Side { rate: number("rate"), cpu: number("cpu"), superseded: 0.0, times: quantiles(&said) }
}

/// A packet of the sidecar as it stands on the stream: the bare client publishes the same bytes.
async fn sample(stream: &jetstream::stream::Stream) -> Sample {
    let subject = "driftgate.v1.state.planner.t0";
    let message = stream.get_last_raw_message_by_subject(subject).await.unwrap();
    let headers = message.headers.iter();
    let headers: BTreeMap<String, String> =
        headers.map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
    Sample { payload: String::from_utf8(message.payload.to_vec()).unwrap(), headers }
}
