//! A broker that is absent, dies, hangs and comes back: the runtime is answered in time (P10), and
//! what was accepted ends in exactly one column (P8).

use std::time::Duration;

use serde_json::Value;

use super::support::http::Answer;
use super::support::nats_server::NatsServer;
use super::support::observer::{Observer, Packet, stored};
use super::support::report::report;
use super::support::sidecar::{Plan, Sidecar};
use super::support::wait::until;

/// Short bounds, so that the tests are short; and what the machine may add.
const BOUNDS: &str = "[listen]\nreply_timeout = \"400ms\"\n[containment]\nbarrier_timeout = \"400ms\"\n\
                      [nats]\nack_timeout = \"500ms\"\nping_interval = \"1s\"";
const BOUND: Duration = Duration::from_millis(800 + 5000);

/// Posts, and holds the answer against its bound.
async fn bounded(sidecar: &Sidecar, di: f64) -> Value {
    let answer: Answer = sidecar.post(&report(di)).await;
    assert!(answer.took < BOUND, "{:?}", answer.took);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn status(reply: &Value) -> &str {
    reply["packets"][0]["status"].as_str().unwrap()
}

/// Waits for the stream to hold exactly the packets of these numbers.
async fn holds(server: &NatsServer, numbers: &[u64]) {
    let observer = Observer::start(&server.url()).await;
    let kept = stored(&observer.client, "DRIFTGATE_STATE").await;
    let kept: Vec<u64> = kept.iter().filter_map(Packet::of).map(|packet| packet.seq).collect();
    assert_eq!(kept, numbers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_absent_at_the_start_gets_the_newest_later() {
    let mut server = NatsServer::start();
    server.kill();
    let plan = Plan::new("planner", &["critic"], &server.url()).with(BOUNDS);
    let sidecar = Sidecar::start(plan).await;
    let older = bounded(&sidecar, 0.30).await;
    let newer = bounded(&sidecar, 0.31).await;
    assert_eq!((status(&older), status(&newer)), ("pending", "pending"));
    assert_ne!(sidecar.readiness().await["broker"], "connected");
    assert_eq!(sidecar.readiness().await["ready"], true);
    server.restart();
    let books = sidecar.settled().await;
    assert_eq!((books.packets("stored"), books.packets("superseded")), (1, 1));
    holds(&server, &[newer["seq"].as_u64().unwrap()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_gets_the_newest_when_it_is_back() {
    let mut server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).with(BOUNDS);
    let sidecar = Sidecar::connected(plan).await;
    let first = bounded(&sidecar, 0.30).await;
    assert_eq!(status(&first), "stored");
    server.kill();
    let mut last = Value::Null;
    for di in [0.31, 0.32, 0.33] {
        last = bounded(&sidecar, di).await;
        assert_eq!(status(&last), "pending");
    }
    server.restart();
    let books = sidecar.settled().await;
    assert_eq!((books.packets("stored"), books.packets("superseded")), (2, 2));
    holds(&server, &[&first, &last].map(|reply| reply["seq"].as_u64().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gate_revoked_during_an_outage_never_leaves() {
    let mut server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).with(BOUNDS);
    let sidecar = Sidecar::connected(plan).await;
    server.kill();
    // Else the packet might count as sent, with an outcome that nobody knows.
    until("the loss to be noticed", async || {
        (sidecar.readiness().await["broker"] != "connected").then_some(())
    })
    .await;
    assert_eq!(status(&bounded(&sidecar, 0.30).await), "pending");
    let closing = bounded(&sidecar, 0.51).await;
    assert_eq!((closing["band"].as_str(), status(&closing)), (Some("blocked"), "held"));
    assert!(closing["barrier"].is_string(), "{closing}");
    server.restart();
    sidecar.is_connected().await;
    let reopened = bounded(&sidecar, 0.30).await;
    let books = sidecar.settled().await;
    assert_eq!((books.packets("revoked"), books.packets("stored")), (1, 1));
    holds(&server, &[reopened["seq"].as_u64().unwrap()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_hurts_no_one_and_goes_on() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).with(BOUNDS);
    let sidecar = Sidecar::connected(plan).await;
    bounded(&sidecar, 0.30).await;
    server.freeze();
    let mut accepted = Vec::new();
    for di in [0.31, 0.32, 0.33, 0.34] {
        let reply = bounded(&sidecar, di).await;
        assert_eq!(status(&reply), "pending");
        accepted.push(reply["seq"].as_u64().unwrap());
    }
    let closing = bounded(&sidecar, 0.51).await;
    assert_eq!(closing["barrier"], "unconfirmed", "{closing}");
    assert!(closing["reasons"].to_string().contains("unconfirmed"), "{closing}");
    let closed_at = closing["seq"].as_u64().unwrap();
    for di in [0.52, 0.65] {
        bounded(&sidecar, di).await;
    }
    server.thaw();
    sidecar.is_connected().await;
    let place = observer.mark().await;
    // What the kernel had taken before the connection was dropped may be read now, never more.
    for packet in observer.packets(0) {
        assert!(packet.seq < closed_at && packet.di() < 0.5, "{packet:?}");
    }
    let reopened = bounded(&sidecar, 0.30).await;
    assert_eq!(status(&reopened), "stored", "{reopened}");
    observer.mark().await;
    let later: Vec<u64> = observer.packets(place).iter().map(|packet| packet.seq).collect();
    assert_eq!(later, [reopened["seq"].as_u64().unwrap()], "nothing stale after the reopening");
    let books = sidecar.settled().await;
    assert!(books.sum("closings", &[("barrier", "unconfirmed")]) >= 1);
}
