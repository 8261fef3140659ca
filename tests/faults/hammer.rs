//! The hammer: 64 reporters on one sidecar, drift crossing the marks at random. After each
//! confirmed closing a marker goes out from the observer's side, and must never be followed by a
//! packet from before it; and no packet may exist whose report was refused.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::nats_server::NatsServer;
use crate::support::sentry::Sentry;
use crate::support::sidecar::{Plan, Sidecar};

const REPORTERS: u64 = 64;

/// `DRIFTGATE_HAMMER_SECONDS`, 5 when it is not set.
fn length() -> Duration {
    let seconds = std::env::var("DRIFTGATE_HAMMER_SECONDS").ok();
    Duration::from_secs(seconds.map_or(5, |text| text.parse().expect("whole seconds")))
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_no_packet_follows_a_closing_reply() {
    let server = NatsServer::start();
    let sentry = Sentry::start(&server.url(), "planner").await;
    let plan = Plan::new("planner", &["critic", "monitor"], &server.url());
    let sidecar = Sidecar::connected(plan).await;
    let (_sender, api) = tokio::sync::watch::channel(sidecar.api);
    let load = Load::start(REPORTERS, 1, &api, &sentry);
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    let deadline = tokio::time::Instant::now() + length();
    while looks.tick().await < deadline {
        // P8 holds at any moment, also in the middle of it.
        sidecar.books().await.check();
    }
    let (replies, slowest) = load.stop().await;
    let books = sidecar.settled().await;
    // The last marker comes after everything that the broker has routed.
    sentry.closed(u64::MAX).await;
    let packets = sentry.check(&replies, replies.lost == 0);
    assert_eq!(sentry.seen().fallen, 0, "numbers rise");
    let stored = usize::try_from(books.packets("stored")).unwrap();
    assert_eq!(packets, stored, "what is booked as stored is what was seen");
    let closings = [("confirmed", replies.confirmed), ("unconfirmed", replies.unconfirmed)];
    for (word, count) in closings {
        let booked = books.sum("closings", &[("barrier", word)]);
        assert!(u64::try_from(booked).unwrap() <= count, "{booked} {word} of {count}");
    }
    let timed = books.sum("closing_seconds_count", &[]);
    assert_eq!(timed, books.sum("closings", &[]), "every closing is in the histogram");
    let seen = sentry.seen();
    println!(
        "HAMMER | {:?} | {REPORTERS} reporters | {} reports, {} without a reply | {} closing replies \
         confirmed, {} unconfirmed, {timed} closings | {} crossings | {packets} packets in {} \
         messages | {} leaks | slowest answer {slowest:?}",
        length(),
        replies.lines.len(),
        replies.lost,
        replies.confirmed,
        replies.unconfirmed,
        books.sum("transitions", &[]),
        seen.messages,
        seen.leaks.len(),
    );
}
