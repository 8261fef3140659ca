//! Reports at a steady pace, around the ring, and when their packets reach those who are watched.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::Load;
use super::process::watch_for;
use super::support::http::Caller;
use super::support::report::report;
use super::support::sidecar::{Sidecar, status};
use super::support::wait::until;

/// Sidecars whose live events are read.
const WATCHED: usize = 5;

/// A packet that was accepted: source, number, when it was told.
type Heard = (String, u64, Instant);

/// One report of everyone that is stored.
pub(crate) async fn open(sidecars: &[Sidecar]) {
    for sidecar in sidecars {
        until("a packet to be stored", async || {
            let answer = Caller::new(sidecar.api).post("/field/state", &report(0.3)).await.ok()?;
            (status(&answer.json()) == "stored").then_some(())
        })
        .await;
    }
}

pub(crate) async fn run(sidecars: &[Sidecar], per_s: f64, span: Duration) -> Load {
    let (heard, mut arrivals) = mpsc::unbounded_channel();
    let mut watches = Vec::new();
    for sidecar in sidecars.iter().take(WATCHED) {
        let watching = watch(sidecar.api, heard.clone());
        watches.push(tokio::spawn(watching));
    }
    drop(heard);
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let (begin, mut load) = (Instant::now(), Load::default());
    let mut sent = BTreeMap::new();
    let mut callers: Vec<Caller> =
        sidecars.iter().map(|sidecar| Caller::new(sidecar.api)).collect();
    let mut number = 0;
    while begin.elapsed() < span {
        pace.tick().await;
        // A step that meets neighbours of the watched ones as often as anybody else.
        let place = number % sidecars.len();
        number += 1;
        let at = Instant::now();
        let caller = &mut callers[place];
        let answer = match caller.post("/field/state", &report(0.3)).await {
            Ok(answer) => answer,
            // In a large fleet a connection has been idle too long when its turn comes.
            Err(_) => caller.post("/field/state", &report(0.3)).await.unwrap(),
        };
        let reply = answer.json();
        let packets = reply["packets"].as_array().unwrap();
        load.packets += packets.iter().filter(|line| line["status"] == "stored").count() as u64;
        sent.insert((super::id(place), reply["seq"].as_u64().unwrap()), at);
    }
    load.seconds = begin.elapsed().as_secs_f64();
    watch_for(Duration::from_secs(1)).await;
    for watch in &watches {
        watch.abort();
    }
    while let Some((source, seq, at)) = arrivals.recv().await {
        if let Some(sent) = sent.get(&(source, seq)) {
            load.delivery.push(at.duration_since(*sent));
        }
    }
    load
}

/// Tells of each packet that one sidecar accepts.
async fn watch(api: SocketAddr, heard: mpsc::UnboundedSender<Heard>) {
    let mut stream = TcpStream::connect(api).await.unwrap();
    let request = format!("GET /phase/telemetry HTTP/1.1\r\nHost: {api}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let at = Instant::now();
        let Some(data) = line.strip_prefix("data:").map(str::trim_start) else {
            continue;
        };
        let Ok(event) = serde_json::from_str::<Value>(data) else { continue };
        if event["status"] == "accepted"
            && let (Some(source), Some(seq)) = (event["source"].as_str(), event["seq"].as_u64())
            && heard.send((source.to_owned(), seq, at)).is_err()
        {
            return;
        }
    }
}
