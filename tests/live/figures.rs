//! What `/metrics` tells of the gate, the peers and the broker.

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_tells_why_it_closed_and_how_old_everything_is() {
    let mut server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    critic.stores().await;
    planner.stores().await;
    until("the critic's packet", async || {
        let at =
            planner.books().await.select("peer_received_seconds", &[("peer", "critic")]).next();
        at.filter(|at| *at > 1.7e9)
    })
    .await;
    let books = planner.books().await;
    let one = |name| books.select(name, &[]).next().unwrap();
    assert!(one("report_age_seconds") < 10.0 && one("build_info") == 1.0);
    assert!(one("snapshot_spool_bytes_max") > one("snapshot_spool_bytes"));
    assert_eq!(books.sum("closing_reasons", &[]), 0);
    let before = one("broker_outage_seconds");
    planner.report(0.55).await;
    planner.report(0.65).await;
    let books = planner.books().await;
    for (reason, count) in [("di_block", 1), ("di_isolate", 1)] {
        assert_eq!(books.sum("closing_reasons", &[("reason", reason)]), count, "{books:?}");
    }
    server.kill();
    until("the outage to be counted", async || {
        let away = planner.books().await.select("broker_outage_seconds", &[]).next();
        away.filter(|away| *away > before + 0.2)
    })
    .await;
}
