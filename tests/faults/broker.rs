//! The broker dies and returns, or loses what the sidecar relies on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::row;
use crate::support::load::Load;
use crate::support::nats_server::NatsServer;
use crate::support::observer::{Observer, Packet, stored};
use crate::support::sentry::{Replies, Sentry};
use crate::support::sidecar::{BOUND, Plan, Sidecar, seq};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_killed_broker_keeps_what_it_said_it_had_stored() {
    let mut server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    // Without the bound per subject, so that every packet stays to be counted.
    let mut config =
        observer.api("STREAM.INFO.DRIFTGATE_STATE", &Value::Null).await["config"].take();
    config["max_msgs_per_subject"] = json!(-1);
    let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    let sentry = Sentry::start(&server.url(), "planner").await;
    let (_sender, api) = tokio::sync::watch::channel(sidecar.api);
    let load = Load::start(8, 4, &api, &sentry);
    let mut ticks = tokio::time::interval(Duration::from_millis(700));
    ticks.tick().await;
    let mut recovery = Instant::now();
    for _ in 0..3 {
        ticks.tick().await;
        server.kill();
        ticks.tick().await;
        server.restart();
        recovery = Instant::now();
        sidecar.is_connected().await;
    }
    let connected = recovery.elapsed();
    let (replies, slowest) = load.stop().await;
    assert!(slowest < BOUND, "{slowest:?}");
    let books = sidecar.settled().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let kept = stored(&client, "DRIFTGATE_STATE").await;
    let kept: std::collections::BTreeSet<u64> =
        kept.iter().filter_map(Packet::of).map(|packet| packet.seq).collect();
    let said: Vec<u64> = replies
        .lines
        .iter()
        .filter(|(_, lines)| lines["critic"] == "stored")
        .map(|(seq, _)| *seq)
        .collect();
    assert!(said.iter().all(|seq| kept.contains(seq)), "said to be stored and is not");
    for seq in &kept {
        assert!(!replies.refused.contains(seq), "{seq} was refused by the gate");
        let status = replies.lines.get(seq).map(|lines| lines["critic"].as_str());
        assert!(!matches!(status, Some("held" | "throttled" | "revoked")), "{seq} {status:?}");
    }
    let observed = format!(
        "{} reports, {} replies said stored and all {} are on the stream of {}, {} confirmed, {} \
         unconfirmed, 0 leaks, slowest answer {slowest:.0?}, connected again after {connected:.0?}",
        replies.lines.len(),
        said.len(),
        said.len(),
        kept.len(),
        replies.confirmed,
        replies.unconfirmed,
    );
    assert!(usize::try_from(books.packets("stored")).unwrap() <= kept.len());
    sentry.closed(0).await;
    sentry.check(&replies, false);
    row("kill -9 of nats-server, 3 times under load", "P1 P2 P8 P10", observed, Some(recovery));
}

/// Starts planner and critic, lets `fault` happen to the broker, and measures how long it takes
/// until a packet of the one is shown by the other again.
async fn heals(name: &str, fault: impl AsyncFnOnce(&Observer)) {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let sentry = Sentry::start(&server.url(), "planner").await;
    let planner = Plan::new("planner", &["critic"], &server.url()).short();
    let planner = Sidecar::connected(planner).await;
    let critic = Plan::new("critic", &["planner"], &server.url()).short();
    let critic = Sidecar::connected(critic).await;
    planner.stores().await;
    let connections = planner.books().await.sum("broker_connections", &[]);
    fault(&observer).await;
    let begin = Instant::now();
    let last = seq(&planner.stores().await);
    let stores = begin.elapsed();
    until("the packet to arrive", async || {
        let shown = critic.shown("planner").await?;
        let token = shown["packet"]["signature"]["integrity_token"].to_string();
        token.contains(&format!(":{last}:")).then_some(())
    })
    .await;
    let books = planner.settled().await;
    let arrives = begin.elapsed();
    is_silent_when_closed(&planner, &sentry).await;
    let observed = format!(
        "stored again after {stores:.0?}, received after {arrives:.0?}, {} reconnects, closing \
         confirmed, 0 leaks",
        books.sum("broker_connections", &[]) - connections
    );
    row(name, "made again by provisioning, P2 P8 P10", observed, Some(begin));
}

/// Closes the gate: confirmed, nothing follows, and nothing unstable was ever sent.
async fn is_silent_when_closed(planner: &Sidecar, sentry: &Sentry) {
    let closing = planner.bounded(0.51).await;
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
    sentry.closed(seq(&closing)).await;
    sentry.check(&Replies::default(), false);
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_stream_deleted_under_us_is_made_again() {
    heals("stream deleted", async |observer| {
        let answer = observer.api("STREAM.DELETE.DRIFTGATE_STATE", &Value::Null).await;
        assert_eq!(answer["success"], true, "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_under_us_is_made_again() {
    heals("consumer deleted", async |observer| {
        let call = "CONSUMER.DELETE.DRIFTGATE_STATE.driftgate-critic";
        let answer = observer.api(call, &Value::Null).await;
        assert_eq!(answer["success"], true, "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_deleted_while_isolated_is_made_again_on_reopening() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sentry = Sentry::start(&server.url(), "planner").await;
    let sidecar = Sidecar::connected(plan).await;
    assert_eq!(sidecar.bounded(0.65).await["barrier"], "confirmed");
    let answer = observer.api("STREAM.DELETE.DRIFTGATE_STATE", &Value::Null).await;
    assert_eq!(answer["success"], true, "{answer}");
    let place = observer.mark().await;
    assert_eq!(sidecar.bounded(0.61).await["band"], "isolated");
    observer.mark().await;
    let asked = observer.heard(place).iter().any(|message| message.subject.contains("planner"));
    assert!(!asked, "an isolated sidecar asks the broker for nothing");
    let begin = Instant::now();
    // With an observer on every subject the server never says that nobody responds.
    sidecar.stores().await;
    let took = begin.elapsed();
    // One acknowledgement's wait of 500 ms, a pause of at most 100 ms, provisioning.
    assert!(took < Duration::from_millis(600) + BOUND, "{took:?}");
    is_silent_when_closed(&sidecar, &sentry).await;
    row(
        "stream deleted while isolated",
        "P2 P4: silent until it reopens, then made again",
        format!(
            "nothing asked while isolated, stored after {took:.0?}, closing confirmed, 0 leaks"
        ),
        Some(begin),
    );
}
