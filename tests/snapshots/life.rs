//! What was answered 201 or 202 survives `kill -9` and a broker that is away (P8).

use std::time::{Duration, Instant};

use driftgate::protocol::snapshot::Digest;

use super::rig::{ask, noise, objects, plan, pull, push};
use super::support::nats_server::NatsServer;
use super::support::report::Dice;
use super::support::sidecar::Sidecar;
use super::support::wait::until;

const QUICK: &str = "[listen]\nreply_timeout = \"200ms\"\n\
                     [containment]\nbarrier_timeout = \"200ms\"\n";
/// Deaths in a test run; `DRIFTGATE_KILLS=100` for the figure.
const KILLS: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_gets_the_snapshot_when_it_is_back() {
    let mut server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url()).with(QUICK);
    let sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    server.kill();
    let reply = push(&sidecar, b"while it was away").await;
    assert_eq!(reply.status, 202);
    assert!(reply.json()["stored_bytes"].is_null());
    server.restart();
    until("the snapshot to be stored", async || {
        let list = pull(&sidecar, "?list", "").await.json();
        (list["snapshots"][0]["state"] == "stored").then_some(())
    })
    .await;
    assert_eq!(objects(&server).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_names_the_newest_stored_snapshot_also_after_a_restart() {
    let server = NatsServer::start();
    let observer = super::support::observer::Observer::start(&server.url()).await;
    let mut sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let report = super::support::report::report(0.2).replacen(
        '{',
        r#"{"memory_snapshot": {"retention_index": 0.82}, "#,
        1,
    );
    sidecar.post(&report).await;
    assert_eq!(push(&sidecar, b"to be linked").await.status, 201);
    let digest = Digest::of(b"to be linked").to_string();
    for _ in 0..2 {
        let from = observer.mark().await;
        sidecar.post(&report).await;
        observer.mark().await;
        let packets = observer.packets(from);
        let link = &packets.last().expect("a packet").json["payload"]["memory_snapshot"];
        assert_eq!(link["summary_hash"], digest.as_str(), "{}", packets.last().unwrap().json);
        sidecar.kill();
        sidecar.start_again().await;
        sidecar.is_connected().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_death_loses_what_was_promised() {
    let server = NatsServer::start();
    let plan =
        plan("planner", "critic", &server.url()).with("[snapshot]\nkeep_full = 1000\n").with(QUICK);
    let mut sidecar = Sidecar::connected(plan).await;
    let mut dice = Dice::new(11);
    let kills = std::env::var("DRIFTGATE_KILLS").ok().and_then(|text| text.parse().ok());
    let mut text = noise(6, 300_000);
    let mut promised: Vec<Digest> = Vec::new();
    let mut recovery = Duration::ZERO;
    for life in 0..kills.unwrap_or(KILLS) {
        sidecar.report(0.2).await;
        let api = sidecar.api;
        let pushes = async {
            let mut accepted = Vec::new();
            for step in 0..1000_u64 {
                // Every seventh is something else, so that there are full frames to collect.
                let body =
                    if step % 7 == 6 { noise(life * 1000 + step, 100_000) } else { text.clone() };
                text.extend_from_slice(format!("line {life} {step}\n").as_bytes());
                match ask(api, "PUT /memory/snapshot", "", &body).await {
                    Some(reply) if [200, 201, 202].contains(&reply.status) => {
                        accepted.push(Digest::of(&body));
                    }
                    // The spool is still being read; nothing was promised.
                    Some(reply) if reply.status == 503 => {}
                    Some(reply) => panic!("{} {:?}", reply.head, reply.json()),
                    None => break,
                }
            }
            accepted
        };
        let delay = Duration::from_millis(20 + dice.below(400));
        let kill = async {
            let pause = tokio::time::Instant::now() + delay;
            tokio::time::sleep_until(pause).await;
            sidecar.kill();
        };
        let (accepted, ()) = tokio::join!(pushes, kill);
        promised.extend(accepted);
        let begin = Instant::now();
        sidecar.start_again().await;
        sidecar.is_connected().await;
        recovery = recovery.max(begin.elapsed());
    }
    sidecar.report(0.2).await;
    let known = until("everything to be stored", async || {
        let list = pull(&sidecar, "?list", "").await.json();
        let list = list["snapshots"].as_array()?.clone();
        list.iter().all(|item| item["state"] == "stored").then_some(list)
    })
    .await;
    promised.sort_unstable();
    promised.dedup();
    let lost: Vec<&Digest> = promised
        .iter()
        .filter(|digest| !known.iter().any(|item| item["digest"] == digest.to_string()))
        .collect();
    println!(
        "{} promised, {} lost, longest start to connected {recovery:?}",
        promised.len(),
        lost.len()
    );
    assert!(lost.is_empty(), "{lost:?}\n{known:#?}\n{}", sidecar.log());
    for digest in promised.iter().step_by(promised.len().div_ceil(20).max(1)) {
        let found = pull(&sidecar, &format!("?digest={digest}"), "").await;
        assert_eq!((found.status, Digest::of(&found.body)), (200, *digest));
    }
}
