//! `kill -9` of the sidecar at random moments under load: nothing that it said is broken by it, and
//! what starts in its place is closed.

use std::time::{Duration, Instant};

use super::row;
use crate::support::load::Load;
use crate::support::nats_server::{NatsServer, eventually};
use crate::support::report::Dice;
use crate::support::sentry::Sentry;
use crate::support::sidecar::{BOUND, Plan, Sidecar};

const ROUNDS: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn p6_p8_a_killed_sidecar_breaks_no_promise_and_returns_closed() {
    let server = NatsServer::start();
    let sentry = Sentry::start(&server.url(), "planner").await;
    let plan = Plan::new("planner", &["critic", "monitor"], &server.url()).short();
    let mut sidecar = Sidecar::connected(plan).await;
    let (moved, api) = tokio::sync::watch::channel(sidecar.api);
    let load = Load::start(16, 5, &api, &sentry);
    let mut dice = Dice::new(7);
    let mut recoveries = Vec::new();
    for _ in 0..ROUNDS {
        let life = Duration::from_millis(200 + dice.below(500));
        let mut moment = tokio::time::interval(life);
        moment.tick().await;
        moment.tick().await;
        sidecar.kill();
        // What the dead process had handed to its kernel the broker still reads; when it has let
        // the connection go it has read all, and the marker comes after that.
        eventually("the broker to let the dead connection go", || {
            server.subscriptions_of("planner").is_none()
        });
        sentry.closed(0).await;
        let newest = newest(&sentry);
        let begin = Instant::now();
        sidecar.start_again().await;
        let safety = sidecar.get("/aegida/safety").await.json();
        assert_eq!(
            (&safety["band"], &safety["reasons"][0]),
            (&"blocked".into(), &"starting".into())
        );
        sidecar.is_connected().await;
        recoveries.push(begin.elapsed());
        // Blocked: still nothing has left.
        sentry.closed(0).await;
        assert_eq!(self::newest(&sentry), newest);
        moved.send_replace(sidecar.api);
    }
    let (replies, slowest) = load.stop().await;
    assert!(slowest < BOUND, "{slowest:?}");
    sidecar.settled().await;
    sentry.closed(u64::MAX).await;
    let packets = sentry.check(&replies, false);
    let seen = sentry.seen();
    let missing = replies
        .lines
        .iter()
        .flat_map(|(seq, lines)| lines.iter().map(move |(target, status)| (*seq, target, status)))
        .filter(|(seq, target, status)| {
            *status == "stored" && !seen.packets.contains_key(&(*seq, (*target).clone()))
        })
        .count();
    assert_eq!(seen.fallen, 0, "numbers rise, also across restarts");
    assert_eq!(missing, 0, "said to be stored and never seen");
    let observed = format!(
        "{} reports, {} replies lost with the process, {} closings confirmed, {packets} packets, 0 \
         leaks, 0 stored missing, numbers rise; connected again after {:.0?} at most",
        replies.lines.len(),
        replies.lost,
        replies.confirmed,
        recoveries.iter().max().unwrap(),
    );
    row(
        &format!("kill -9 of the sidecar, {ROUNDS} times under load"),
        "P1 P2 P6 P8",
        observed,
        None,
    );
}

/// Highest number seen, and how many packets.
fn newest(sentry: &Sentry) -> (u64, usize) {
    let seen = sentry.seen();
    (seen.packets.keys().map(|(seq, _)| *seq).max().unwrap_or(0), seen.packets.len())
}
