//! What was answered 201 or 202 survives a broker that is away and a restart (P8).
//! What survives `kill -9` is in `death.rs`.

use driftgate::protocol::digest::Digest;

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{objects, plan, pull, push};
use crate::support::wait::until;

const QUICK: &str = "[listen]\nreply_timeout = \"200ms\"\n\
                     [containment]\nbarrier_timeout = \"200ms\"\n";

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
    let observer = crate::support::observer::Observer::start(&server.url()).await;
    let mut sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let report = crate::support::report::report(0.2).replacen(
        '{',
        r#"{"memory_snapshot": {"retention_index": 0.82}, "#,
        1,
    );
    sidecar.post(&report).await;
    assert_eq!(push(&sidecar, b"to be linked").await.status, 201);
    let digest = Digest::of(b"to be linked").to_string();
    for _ in 0..2 {
        sidecar.has_peers("full", 1).await;
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
