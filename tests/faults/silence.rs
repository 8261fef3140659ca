//! A broker that answers nothing though the connection stands, and what was under way when one
//! ended.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::row;
use crate::support::forge::{draft, fleet_keyring, sign, unix_ms};
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::proxy::{FLIP, Garble, Proxy, Way};
use crate::support::sentry::{Replies, Sentry};
use crate::support::sidecar::{Plan, Sidecar, status};
use crate::support::wait::until;

/// What `/readyz` says about publishes without an answer.
async fn complains(sidecar: &Sidecar) -> bool {
    sidecar.readiness().await["degraded"].to_string().contains("publishes go unanswered")
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_without_an_answer_are_said_and_no_longer_said_once_they_are_answered() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    assert!(!complains(&sidecar).await);
    // The stream takes the planner's packets no longer, and somebody listens and says nothing.
    let mut config =
        observer.api("STREAM.INFO.DRIFTGATE_STATE", &Value::Null).await["config"].take();
    let subjects = config["subjects"].clone();
    config["subjects"] = json!(["driftgate.v1.state.*.planner"]);
    let mut attempts =
        observer.client.subscribe("driftgate.v1.state.planner.*").await.expect("a connection");
    let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    let place = observer.mark().await;
    let begin = Instant::now();
    let pending = sidecar.bounded(0.31).await;
    assert_eq!(status(&pending), "pending");
    until("/readyz to say it", async || complains(&sidecar).await.then_some(())).await;
    let said = begin.elapsed();
    // For longer than a link that hears nothing may last: this one hears, and stays.
    while begin.elapsed() < Duration::from_secs(4) {
        attempts.next().await.expect("another attempt");
    }
    assert!(complains(&sidecar).await);
    assert_eq!(sidecar.books().await.sum("broker_connections", &[]), 1);
    observer.mark().await;
    let packets = observer.packets(place);
    assert!(packets.iter().all(|packet| packet.bytes == packets[0].bytes), "the same, again");
    config["subjects"] = subjects;
    let begin = Instant::now();
    let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    let books = sidecar.settled().await;
    assert_eq!((books.packets("stored"), books.packets("failed")), (2, 0));
    until("/readyz to say it no longer", async || (!complains(&sidecar).await).then_some(())).await;
    let observed =
        format!("/readyz says so after {said:.0?}, 1 connection, stored, /readyz is content");
    row("publishes go unanswered", "P8 P10: said while it lasts", observed, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_sidecar_that_the_server_does_not_answer_connects_anew() {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let observer = Observer::start(&server.url()).await;
    // One byte of one line: the subscription on which every acknowledgement would arrive.
    let garble = Garble { words: b".a.* ", before: 0, flip: FLIP };
    proxy.up(Way { garbled: Some(garble), ..Way::default() });
    let plan = Plan::new("planner", &["critic"], &proxy.url()).short();
    // Deaf from the beginning, so its look at the streams is not answered: not connected yet.
    let sidecar = Sidecar::start(plan).await;
    let knocks = |message: &async_nats::Message| message.subject.ends_with(".a.knock");
    observer.find(0, "the question whether it is heard", knocks).await;
    let begin = Instant::now();
    let place = observer.mark().await;
    let pending = sidecar.bounded(0.31).await;
    assert_eq!(status(&pending), "pending", "{pending}");
    proxy.up(Way::default());
    let books = sidecar.settled().await;
    let took = begin.elapsed();
    assert_eq!((books.packets("stored"), books.packets("failed")), (1, 0));
    // The sign of hearing is awaited for 2 s.
    assert!(took < Duration::from_millis(2500 + 5000), "{took:?}");
    assert!(books.sum("broker_connections", &[]) >= 2, "it has connected anew");
    observer.mark().await;
    let packets = observer.packets(place);
    assert!(packets.iter().all(|packet| packet.bytes == packets[0].bytes), "one packet, repeated");
    let observed = format!("{} attempts under one id, a new connection, stored", packets.len());
    row("a garbled subscription: deaf for answers", "P8 P10", observed, Some(begin));
}

/// A length that arrives larger than it left: its reader waits for bytes that nobody sends.
async fn stalls(name: &str, garble: impl FnOnce(&Proxy)) {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let sentry = Sentry::start(&server.url(), "planner").await;
    // The interval of pings is the usual one: they notice within 30 s, and are not waited for.
    let plan = Plan::new("planner", &["critic"], &proxy.url())
        .with("[listen]\nreply_timeout = \"400ms\"\n[containment]\nbarrier_timeout = \"400ms\"")
        .with("[nats]\nack_timeout = \"500ms\"");
    let sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    garble(&proxy);
    let begin = Instant::now();
    let pending = sidecar.bounded(0.31).await;
    assert_eq!(status(&pending), "pending", "{pending}");
    // Where nothing follows the packet no error ends the connection, and the reply waits.
    // An echo that follows takes the place of missing bytes, and the server hangs up at once.
    let waited = begin.elapsed() >= Duration::from_millis(400);
    proxy.up(Way::default());
    proxy.down(Way::default());
    let books = sidecar.settled().await;
    let took = begin.elapsed();
    assert_eq!((books.packets("stored"), books.packets("failed")), (2, 0));
    assert!(took < Duration::from_millis(2500 + 5000), "{took:?}");
    // What was under way on the connection that stalled may still be read, and the reply says so,
    // unless an echo that overtook the acknowledgement has proved that it was read.
    let closing = sidecar.bounded(0.51).await;
    assert!(!closing["barrier"].is_null(), "{closing}");
    sentry.closed(0).await;
    let packets = sentry.check(&Replies::default(), false);
    assert_eq!(packets, 2);
    let connections = books.sum("broker_connections", &[]);
    assert_eq!(connections, 2);
    let observed = format!(
        "stored after {took:.0?} on a new connection, {packets} packets, 0 leaks; waited: {waited}"
    );
    row(name, "P8 P10: noticed by its silence", observed, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_length_that_grew_on_the_way_to_the_broker_stalls_for_a_bounded_time() {
    stalls("a packet's length grown, towards the broker", |proxy| {
        // The hundreds of the total: 870 becomes 970, and the server waits for 100 bytes more.
        let garble = Garble { words: b"\r\nNATS/1.0\r\n", before: 3, flip: 0x01 };
        proxy.up(Way { garbled: Some(garble), ..Way::default() });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_length_that_grew_on_the_way_from_the_broker_stalls_for_a_bounded_time() {
    stalls("an acknowledgement's length grown, from the broker", |proxy| {
        // The tens: 3 becomes 7, and the client waits for 40 bytes more.
        let garble = Garble { words: b"\r\n{\"stream\":", before: 2, flip: 0x04 };
        proxy.down(Way { garbled: Some(garble), ..Way::default() });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_packet_under_way_when_the_connection_ends_comes_again_at_once() {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let plan = Plan::new("critic", &["planner"], &proxy.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    // Not an observer of everything: to the broker somebody who hears the dead connection's inbox
    // is as good as the connection, and its pull goes on until it expires.
    let client = async_nats::connect(server.url()).await.expect("a connection");
    let seq = u64::try_from(unix_ms()).expect("after 1970") * 1000;
    let bytes = sign(&draft("planner", "critic"), &fleet_keyring(), seq);
    proxy.down(Way { stalled: true, ..Way::default() });
    let subject = "driftgate.v1.state.planner.critic";
    client.publish(subject, bytes.into()).await.expect("a connection");
    until("the packet to be under way", async || {
        let call = "$JS.API.CONSUMER.INFO.DRIFTGATE_STATE.driftgate-critic";
        let answer = client.request(call, "".into()).await.ok()?;
        let info: Value = serde_json::from_slice(&answer.payload).ok()?;
        (info["num_ack_pending"] == 1).then_some(())
    })
    .await;
    let begin = Instant::now();
    proxy.reset();
    proxy.down(Way::default());
    until("the packet to arrive", async || sidecar.shown("planner").await).await;
    let took = begin.elapsed();
    // Left alone the broker would bring it after ack_wait, 30 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let observed = format!("shown {took:.0?} after the reset, not after ack_wait (30 s)");
    row(
        "reset with a packet under way to us",
        "P8: nothing is lost or late",
        observed,
        Some(begin),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_process_that_stood_still_for_too_long_sends_nothing_when_it_goes_on() {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let observer = Observer::start(&server.url()).await;
    let names: Vec<String> = (0..100).map(|number| format!("peer-{number}")).collect();
    let peers: Vec<&str> = names.iter().map(String::as_str).collect();
    // One packet under way at a time, so that the others are unsent.
    let plan = Plan::new("planner", &peers, &proxy.url())
        .with("[listen]\nreply_timeout = \"400ms\"")
        .with("[containment]\nbarrier_timeout = \"400ms\"\nstale_after = \"10s\"")
        .with("[nats]\nwindow = 1\nack_timeout = \"60s\"");
    let sidecar = Sidecar::connected(plan).await;
    // Streams and consumer have been looked at: from here on a packet needs no other answer.
    sidecar.stores().await;
    sidecar.settled().await;
    let place = observer.mark().await;
    proxy.down(Way { stalled: true, ..Way::default() });
    let begin = Instant::now();
    sidecar.report(0.30).await;
    sidecar.signal("STOP");
    let is_packet = |message: &async_nats::Message| message.subject.contains(".state.planner.");
    observer.find(place, "the one under way", is_packet).await;
    // The acknowledgement arrives while the process stands still, for longer than it may be silent.
    proxy.down(Way::default());
    let mut ticks = tokio::time::interval(Duration::from_secs(11));
    ticks.tick().await;
    ticks.tick().await;
    sidecar.signal("CONT");
    until("silence to have closed the gate", async || {
        (sidecar.readiness().await["band"] == "blocked").then_some(())
    })
    .await;
    sidecar.settled().await;
    observer.mark().await;
    let packets = observer.packets(place).len();
    assert_eq!(packets, 1, "sent after it had stood still");
    row(
        "SIGSTOP beyond stale_after",
        "P6: nothing leaves on resume",
        "0 of 99 unsent",
        Some(begin),
    );
}
