//! Bytes that change on the way. Without TLS nothing below notices; what is stored changed must be
//! refused by its receiver, and the sidecar must find back by itself.

use std::time::{Duration, Instant};

use super::row;
use crate::support::forge::fleet_keyring;
use crate::support::load::Load;
use crate::support::nats_server::NatsServer;
use crate::support::observer::{Packet, kept};
use crate::support::proxy::{Proxy, Way};
use crate::support::sentry::Sentry;
use crate::support::sidecar::{BOUND, Plan, Sidecar};
use crate::support::wait::until;

/// One bit in so many bytes: every few dozen packets.
const CORRUPT_EVERY: u64 = 30_011;
const LENGTH: Duration = Duration::from_secs(3);

/// `DRIFTGATE_CORRUPT_EVERY` to look for more.
fn corrupt_every() -> u64 {
    let text = std::env::var("DRIFTGATE_CORRUPT_EVERY").ok();
    text.map_or(CORRUPT_EVERY, |text| text.parse().expect("a number of bytes"))
}

async fn corrupted(fault: impl Fn(&Proxy, Way), name: &str) {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let sentry = Sentry::start(&server.url(), "planner").await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    let plan = Plan::new("planner", &["critic", "monitor"], &proxy.url()).short();
    let planner = Sidecar::connected(plan).await;
    fault(&proxy, Way { corrupt_every: corrupt_every(), ..Way::default() });
    let (_sender, api) = tokio::sync::watch::channel(planner.api);
    let load = Load::start(8, 3, &api, &sentry);
    let ring = fleet_keyring();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let begin = Instant::now();
    while begin.elapsed() < LENGTH {
        ticks.tick().await;
        if let Some(peer) = critic.shown("planner").await {
            let bytes = crate::support::forge::canonical(&peer["packet"]);
            assert!(ring.open(&bytes).is_ok(), "shown though it does not verify: {peer}");
        }
    }
    let recovery = Instant::now();
    fault(&proxy, Way::default());
    let (replies, slowest) = load.stop().await;
    assert!(slowest < BOUND, "{slowest:?}");
    let last = planner.stores().await;
    let took = recovery.elapsed();
    sentry.closed(0).await;
    // Replies of `stores` that were not kept have no line; the packets are good ones all the same.
    let packets = sentry.check(&replies, false);
    assert!(last["seq"].is_u64());
    planner.settled().await;
    let books = refused_what_was_changed(&server, &critic, &ring).await;
    let broken = sentry.seen().broken;
    let observed = format!(
        "{} reports, {packets} good packets, {broken} changed ones seen, {} of them refused by critic, {} \
         connections, {} closings confirmed, {} unconfirmed, 0 leaks",
        replies.lines.len(),
        books.sum("inbound_refused", &[]),
        planner.books().await.sum("broker_connections", &[]),
        replies.confirmed,
        replies.unconfirmed,
    );
    row(
        name,
        "P1 P2 P7 P8 P10",
        format!("{observed}, stored again after {took:.0?}"),
        Some(recovery),
    );
}

/// Whatever is on the stream for critic and does not verify has to be refused by it.
async fn refused_what_was_changed(
    server: &NatsServer,
    critic: &Sidecar,
    ring: &driftgate::protocol::keyring::Keyring,
) -> crate::support::books::Books {
    // A client that hears only answers: headers that were changed end any other.
    let client = async_nats::connect(server.url()).await.expect("a connection");
    let kept = kept(&client, "DRIFTGATE_STATE").await;
    let bad = kept
        .iter()
        .filter_map(|(message, _)| Packet::of(message))
        .filter(|packet| packet.target == "critic" && ring.open(&packet.bytes).is_err())
        .count();
    until("critic to judge all of them", async || {
        let books = critic.books().await;
        (books.sum("inbound_refused", &[]) >= i64::try_from(bad).expect("few")).then_some(books)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_bytes_changed_on_the_way_to_the_broker_reach_no_runtime() {
    corrupted(Proxy::up, "bits flipped towards the broker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_bytes_changed_on_the_way_from_the_broker_confirm_nothing() {
    corrupted(Proxy::down, "bits flipped from the broker").await;
}
