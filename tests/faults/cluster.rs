//! Three servers, replicas = 3: the leader is killed, a server retires.

use std::time::{Duration, Instant};

use super::row;
use crate::support::cluster::Cluster;
use crate::support::observer::{self, Observer};
use crate::support::sentry::{Replies, Sentry};
use crate::support::sidecar::{Plan, Sidecar, seq};
use crate::support::wait::until;

/// A planner and a critic that know all servers.
async fn fleet(cluster: &Cluster) -> (Sidecar, Sidecar) {
    let plan = |me, peer| {
        Plan::new(me, &[peer], "")
            .with_urls(cluster.urls())
            .with("[listen]\nreply_timeout = \"400ms\"\n[containment]\nbarrier_timeout = \"400ms\"")
            .with("[nats]\nack_timeout = \"500ms\"\nping_interval = \"1s\"\nreplicas = 3\ndurability = \"replicated\"")
    };
    let planner = Sidecar::connected(plan("planner", "critic")).await;
    let critic = Sidecar::connected(plan("critic", "planner")).await;
    (planner, critic)
}

/// Waits until a packet of the planner is stored, and reports on until the critic shows that one or
/// a newer one: a packet that was on its way to a dead connection may come again after `ack_wait`
/// only, and by then it is superseded.
async fn works(planner: &Sidecar, critic: &Sidecar) -> (Duration, Duration) {
    let begin = Instant::now();
    let first = seq(&planner.stores().await);
    let stores = begin.elapsed();
    until("a packet to arrive", async || {
        planner.bounded(0.31).await;
        let shown = critic.shown("planner").await?;
        let token = shown["packet"]["signature"]["integrity_token"].as_str()?.to_owned();
        let newest: u64 = token.split(':').nth(2)?.parse().ok()?;
        (newest >= first).then_some(())
    })
    .await;
    (stores, begin.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_its_leader_is_used_again_as_soon_as_it_has_another() {
    let mut cluster = Cluster::start();
    let (planner, critic) = fleet(&cluster).await;
    works(&planner, &critic).await;
    let client = async_nats::connect(cluster.urls()).await.unwrap();
    let observer = Observer::of(client).await;
    let leader = cluster.leader(&observer, "DRIFTGATE_STATE").await;
    let consumer = cluster.consumer_leader(&observer, "critic").await;
    let homes = ["planner", "critic"].map(|runtime| cluster.home_of(runtime));
    // No word on silence from here: between servers, routes keep no order with markers.
    let sentry = Sentry::start(&cluster.servers[(leader + 1) % 3].url(), "planner").await;
    let before = seq(&planner.bounded(0.31).await);
    cluster.servers[leader].kill();
    let begin = Instant::now();
    let (stores, arrives) = works(&planner, &critic).await;
    let books = planner.settled().await;
    let survivor = (leader + 1) % 3;
    let client = async_nats::connect(cluster.servers[survivor].url()).await.unwrap();
    let kept = observer::kept(&client, "DRIFTGATE_STATE").await;
    let has = |seq: u64| {
        kept.iter().any(|(message, _)| {
            String::from_utf8_lossy(&message.payload).contains(&format!(":{seq}:"))
        })
    };
    assert!(has(before) || kept.len() >= 8, "what was stored before is still there");
    let observed = format!(
        "leader n{leader} (consumer's n{consumer}, homes {homes:?}): stored again after {stores:.0?}, \
         received after {arrives:.0?}, {} failed",
        books.packets("failed")
    );
    let packets = sentry.check(&Replies::default(), false);
    let observed = format!("{observed}, {packets} packets, 0 unstable");
    row("kill -9 of the stream leader, R3", "P1 P8 P10", observed, Some(begin));
    // The consumer's own server, if it was another one, is no single point of failure either.
    cluster.servers[leader].begin_again();
    cluster.servers[leader].is_healthy();
    let client = async_nats::connect(cluster.urls()).await.unwrap();
    let observer = Observer::of(client).await;
    let consumer = cluster.consumer_leader(&observer, "critic").await;
    let client = async_nats::connect(cluster.servers[(consumer + 1) % 3].url()).await.unwrap();
    let observer = Observer::of(client).await;
    cluster.servers[consumer].kill();
    let begin = Instant::now();
    let (stores, arrives) = works(&planner, &critic).await;
    observer.mark().await;
    assert!(observer.packets(0).iter().all(|packet| packet.di() < 0.5));
    let observed =
        format!("stored again after {stores:.0?}, received after {arrives:.0?}, 0 unstable");
    row("kill -9 of the consumer's leader, R3", "P1 P8 P10", observed, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retiring_server_is_left_for_another() {
    let cluster = Cluster::start();
    let (planner, critic) = fleet(&cluster).await;
    works(&planner, &critic).await;
    let home = cluster.home_of("planner").unwrap();
    let sentry = Sentry::start(&cluster.servers[(home + 1) % 3].url(), "planner").await;
    let begin = Instant::now();
    cluster.servers[home].retire();
    let next = until("the planner to move", async || {
        cluster.home_of("planner").filter(|place| *place != home)
    })
    .await;
    let moved = begin.elapsed();
    let (stores, arrives) = works(&planner, &critic).await;
    let books = planner.settled().await;
    assert_eq!(books.packets("failed"), 0);
    let packets = sentry.check(&Replies::default(), false);
    let observed = format!(
        "moved from n{home} to n{next} after {moved:.0?}, then stored after {stores:.0?}, received \
         after {arrives:.0?}, {packets} packets, 0 unstable"
    );
    row("lame duck", "left before it stops, P1 P8 P10", observed, Some(begin));
}
