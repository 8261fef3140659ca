//! The way to the broker: slow, stalled, cut, reset, half-open, ending in the middle of a packet.

use std::time::{Duration, Instant};

use super::row;
use crate::support::forge::fleet_keyring;
use crate::support::load::Load;
use crate::support::nats_server::{NatsServer, eventually};
use crate::support::observer::{Observer, stored};
use crate::support::proxy::{Proxy, Way};
use crate::support::sentry::{Replies, Sentry};
use crate::support::sidecar::{Plan, Sidecar, seq, status};
use crate::support::wait::until;

/// A sidecar whose broker is behind a proxy, watched from the other side.
struct Rig {
    server: NatsServer,
    proxy: Proxy,
    sentry: Sentry,
    sidecar: Sidecar,
}

impl Rig {
    async fn start() -> Self {
        let server = NatsServer::start();
        let proxy = Proxy::start(&server.url()).await;
        let sentry = Sentry::start(&server.url(), "planner").await;
        let plan = Plan::new("planner", &["critic", "monitor"], &proxy.url()).short();
        let sidecar = Sidecar::connected(plan).await;
        Self { server, proxy, sentry, sidecar }
    }

    /// Reports that many times with these indices.
    async fn report(&self, replies: &mut Replies, indices: &[f64]) {
        for di in indices {
            replies.add(&self.sidecar.bounded(*di).await);
        }
    }

    /// Runs a load through `fault`; everything it promises is checked; returns a summary.
    async fn under_load(&self, fault: impl AsyncFnOnce()) -> String {
        let (_sender, api) = tokio::sync::watch::channel(self.sidecar.api);
        let load = Load::start(8, 2, &api, &self.sentry);
        fault().await;
        let (replies, slowest) = load.stop().await;
        assert!(slowest < crate::support::sidecar::BOUND, "{slowest:?}");
        let books = self.sidecar.settled().await;
        self.sentry.closed(0).await;
        let packets = self.sentry.check(&replies, false);
        format!(
            "{} reports, {} closings confirmed, {} unconfirmed, {packets} packets, {} stored, 0 leaks, \
             slowest answer {slowest:.0?}",
            replies.lines.len(),
            replies.confirmed,
            replies.unconfirmed,
            books.packets("stored"),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_delays_and_changes_nothing() {
    let rig = Rig::start().await;
    let slow = Way { latency: Duration::from_millis(50), ..Way::default() };
    rig.proxy.up(slow);
    rig.proxy.down(slow);
    let mut replies = Replies::default();
    rig.report(&mut replies, &[0.30, 0.31]).await;
    let begin = Instant::now();
    let closing = rig.sidecar.bounded(0.51).await;
    let took = begin.elapsed();
    replies.add(&closing);
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
    assert!(took >= Duration::from_millis(100), "{took:?}: an echo goes both ways");
    rig.sentry.closed(seq(&closing)).await;
    rig.report(&mut replies, &[0.52, 0.65, 0.30]).await;
    rig.sidecar.settled().await;
    rig.sentry.closed(seq(&closing)).await;
    let packets = rig.sentry.check(&replies, true);
    let observed = format!("confirmed after {took:.0?}, {packets} packets, 0 leaks");
    row("latency 50 ms each way", "P2: the reply waits for the echo", observed, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_stalled_way_ends_the_connection_and_the_reply_says_so() {
    let rig = Rig::start().await;
    let mut replies = Replies::default();
    rig.report(&mut replies, &[0.30]).await;
    rig.proxy.stall(true);
    rig.report(&mut replies, &[0.31, 0.32, 0.33]).await;
    let closing = rig.sidecar.bounded(0.51).await;
    replies.add(&closing);
    assert_eq!(closing["barrier"], "unconfirmed", "{closing}");
    let closed_at = seq(&closing);
    // Also what comes now must not wait in a buffer for the broker to come back.
    rig.report(&mut replies, &[0.52, 0.30, 0.31, 0.53]).await;
    assert_eq!(rig.sidecar.readiness().await["broker"], "connecting");
    let begin = Instant::now();
    rig.proxy.stall(false);
    rig.sidecar.is_connected().await;
    eventually("the broker to see the end of the dropped connection", || {
        rig.server.connz().iter().filter(|one| one["name"] == "driftgate-planner").count() == 1
    });
    rig.sentry.closed(0).await;
    let late: Vec<u64> = rig.sentry.seen().packets.keys().map(|(seq, _)| *seq).collect();
    assert!(late.iter().all(|seq| *seq < closed_at), "made after the closing: {late:?}");
    rig.sentry.closed(*replies.lines.keys().last().unwrap()).await;
    let reopened = rig.sidecar.stores().await;
    replies.add(&reopened);
    rig.sentry.closed(0).await;
    rig.sentry.check(&replies, false);
    let books = rig.sidecar.settled().await;
    let unconfirmed = books.sum("closings", &[("barrier", "unconfirmed")]);
    assert!(unconfirmed >= 1);
    let observed = format!(
        "reply says unconfirmed, connection dropped, {} packets of before the closing read late, 0 of after",
        late.len() - 2
    );
    row("stall both ways", "P2: unconfirmed, dropped with its buffer", observed, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_cut_way_loses_nothing_that_is_still_wanted() {
    let rig = Rig::start().await;
    let mut replies = Replies::default();
    rig.report(&mut replies, &[0.30]).await;
    rig.proxy.refuse(true);
    rig.proxy.cut();
    until("the loss to be noticed", async || {
        (rig.sidecar.readiness().await["broker"] != "connected").then_some(())
    })
    .await;
    let older = rig.sidecar.bounded(0.31).await;
    let newer = rig.sidecar.bounded(0.32).await;
    assert_eq!((status(&older), status(&newer)), ("pending", "pending"));
    replies.add(&older);
    replies.add(&newer);
    let begin = Instant::now();
    rig.proxy.refuse(false);
    let books = rig.sidecar.settled().await;
    let counts = ["stored", "superseded", "failed"].map(|status| books.packets(status));
    assert_eq!(counts, [4, 2, 0], "two targets, three reports, one superseded");
    rig.sentry.closed(0).await;
    assert_eq!(rig.sentry.check(&replies, false), 4);
    assert!(rig.sentry.seen().packets.contains_key(&(seq(&newer), "critic".to_owned())));
    row(
        "cut, then refused",
        "P8: the newest is stored later",
        "2 pending stored, 2 superseded",
        Some(begin),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_resets_under_load_leak_nothing() {
    let rig = Rig::start().await;
    let mut begin = Instant::now();
    let summary = rig
        .under_load(async || {
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            for _ in 0..10 {
                ticks.tick().await;
                rig.proxy.reset();
            }
            begin = Instant::now();
            rig.sidecar.is_connected().await;
        })
        .await;
    row("10 resets in 2 s under load", "P1 P2 P8 P10", summary, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_connection_that_ends_inside_a_packet_stores_no_part_of_it() {
    let rig = Rig::start().await;
    let mut begin = Instant::now();
    let summary = rig
        .under_load(async || {
            rig.proxy.up(Way { bytes_max: Some(60_001), ..Way::default() });
            rig.proxy.cut();
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            for _ in 0..5 {
                ticks.tick().await;
            }
            rig.proxy.up(Way::default());
            begin = Instant::now();
            rig.sidecar.is_connected().await;
        })
        .await;
    assert!(rig.sidecar.books().await.sum("broker_connections", &[]) > 2);
    let observer = Observer::start(&rig.server.url()).await;
    let kept = stored(&observer.client, "DRIFTGATE_STATE").await;
    let ring = fleet_keyring();
    assert!(!kept.is_empty() && kept.iter().all(|message| ring.open(&message.payload).is_ok()));
    row(
        "each connection ends after 60,001 bytes",
        "no part of a packet is stored",
        summary,
        Some(begin),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_half_open_connection_is_noticed_by_its_pings() {
    let rig = Rig::start().await;
    let mut replies = Replies::default();
    rig.report(&mut replies, &[0.30]).await;
    rig.proxy.abandon();
    let begin = Instant::now();
    let pending = rig.sidecar.bounded(0.31).await;
    assert_eq!(status(&pending), "pending");
    replies.add(&pending);
    // Nothing says that the connection is gone but its silence.
    let books = rig.sidecar.settled().await;
    assert_eq!((books.packets("stored"), books.packets("failed")), (4, 0));
    let took = begin.elapsed();
    // Three ping intervals of 1 s.
    assert!(took < Duration::from_secs(3 + 5), "{took:?}");
    rig.sentry.closed(0).await;
    assert_eq!(rig.sentry.check(&replies, false), 4);
    row(
        "half-open",
        "noticed within 3 ping intervals (1 s here), P10",
        "pending stored",
        Some(begin),
    );
}
