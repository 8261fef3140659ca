//! A broker that is absent, dies, hangs and comes back: the runtime is answered in time (P10), and
//! what was accepted ends in exactly one column (P8).

use serde_json::Value;

use crate::support::nats_server::NatsServer;
use crate::support::observer::{Observer, Packet, stored};
use crate::support::sidecar::{Plan, Sidecar, seq, status};
use crate::support::wait::until;

/// Waits for the stream to hold exactly the packets of these numbers.
async fn holds(server: &NatsServer, numbers: &[u64]) {
    let observer = Observer::start(&server.url()).await;
    let kept = stored(&observer.client, "DRIFTGATE_STATE").await;
    let kept: Vec<u64> = kept.iter().filter_map(Packet::of).map(|packet| packet.seq).collect();
    assert_eq!(kept, numbers);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_broker_that_is_absent_at_the_start_gets_the_newest_later() {
    let mut server = NatsServer::start();
    server.kill();
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::start(plan).await;
    let older = sidecar.bounded(0.30).await;
    let newer = sidecar.bounded(0.31).await;
    assert_eq!((status(&older), status(&newer)), ("pending", "pending"));
    assert_ne!(sidecar.readiness().await["broker"], "connected");
    assert_eq!(sidecar.readiness().await["ready"], true);
    server.restart();
    let books = sidecar.settled().await;
    assert_eq!((books.packets("stored"), books.packets("superseded")), (1, 1));
    holds(&server, &[seq(&newer)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_p10_a_broker_that_dies_gets_the_newest_when_it_is_back() {
    let mut server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    let first = sidecar.bounded(0.30).await;
    assert_eq!(status(&first), "stored");
    server.kill();
    let mut last = Value::Null;
    for di in [0.31, 0.32, 0.33] {
        last = sidecar.bounded(di).await;
        assert_eq!(status(&last), "pending");
    }
    server.restart();
    let books = sidecar.settled().await;
    assert_eq!((books.packets("stored"), books.packets("superseded")), (2, 2));
    holds(&server, &[&first, &last].map(seq)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_what_the_gate_revoked_during_an_outage_never_leaves() {
    let mut server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    server.kill();
    // Else the packet might count as sent, with an outcome that nobody knows.
    until("the loss to be noticed", async || {
        (sidecar.readiness().await["broker"] != "connected").then_some(())
    })
    .await;
    assert_eq!(status(&sidecar.bounded(0.30).await), "pending");
    let closing = sidecar.bounded(0.51).await;
    assert_eq!((closing["band"].as_str(), status(&closing)), (Some("blocked"), "held"));
    assert!(closing["barrier"].is_string(), "{closing}");
    server.restart();
    sidecar.is_connected().await;
    let reopened = sidecar.bounded(0.30).await;
    let books = sidecar.settled().await;
    assert_eq!((books.packets("revoked"), books.packets("stored")), (1, 1));
    holds(&server, &[seq(&reopened)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_broker_that_hangs_hurts_no_one_and_goes_on() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    sidecar.bounded(0.30).await;
    server.freeze();
    let mut accepted = Vec::new();
    for di in [0.31, 0.32, 0.33, 0.34] {
        let reply = sidecar.bounded(di).await;
        assert_eq!(status(&reply), "pending");
        accepted.push(seq(&reply));
    }
    let closing = sidecar.bounded(0.51).await;
    assert_eq!(closing["barrier"], "unconfirmed", "{closing}");
    assert!(closing["reasons"].to_string().contains("unconfirmed"), "{closing}");
    let closed_at = seq(&closing);
    for di in [0.52, 0.65] {
        sidecar.bounded(di).await;
    }
    server.thaw();
    sidecar.is_connected().await;
    let place = observer.mark().await;
    // What the kernel had taken before the connection was dropped may be read now, never more.
    for packet in observer.packets(0) {
        assert!(packet.seq < closed_at && packet.di() < 0.5, "{packet:?}");
    }
    let reopened = sidecar.bounded(0.30).await;
    assert_eq!(status(&reopened), "stored", "{reopened}");
    observer.mark().await;
    let later: Vec<u64> = observer.packets(place).iter().map(|packet| packet.seq).collect();
    assert_eq!(later, [seq(&reopened)], "nothing stale after the reopening");
    let books = sidecar.settled().await;
    assert!(books.sum("closings", &[("barrier", "unconfirmed")]) >= 1);
}
