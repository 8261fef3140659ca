//! A runtime that reports without pause, and what else the sidecar has to do meanwhile.

use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::row;
use super::support::http::Caller;
use super::support::nats_server::NatsServer;
use super::support::report::report;
use super::support::sidecar::{Plan, Sidecar};
use super::support::wait::until;

/// Connections that report, each again as soon as it is answered.
const CONNECTIONS: usize = 64;
/// Targets of each report.
const TARGETS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_broker_that_comes_back_is_found_while_the_runtime_reports_without_pause() {
    let mut server = NatsServer::start();
    let names: Vec<String> = (0..TARGETS).map(|number| format!("peer-{number}")).collect();
    let peers: Vec<&str> = names.iter().map(String::as_str).collect();
    let sidecar = Sidecar::connected(Plan::new("planner", &peers, &server.url()).short()).await;
    server.kill();
    until("the sidecar to notice", async || {
        (sidecar.readiness().await["broker"] != "connected").then_some(())
    })
    .await;
    let (stop, stopping) = watch::channel(false);
    let mut load = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (mut caller, stopping) = (Caller::new(sidecar.api), stopping.clone());
        load.spawn(async move {
            let mut answers = 0_u64;
            while !*stopping.borrow() {
                let answer = caller.post("/field/state", &report(0.30)).await.expect("an answer");
                answers += u64::from(answer.status == 200);
            }
            answers
        });
    }
    // The load is on when one more report has come through it.
    sidecar.report(0.30).await;
    server.restart();
    let begin = Instant::now();
    sidecar.is_connected().await;
    let took = begin.elapsed();
    stop.send_replace(true);
    let answers: u64 = load.join_all().await.into_iter().sum();
    assert!(answers > 0, "there was a load");
    let observed = format!("connected after {took:.1?}, {answers} reports meanwhile");
    row(
        "broker back under 64 busy connections",
        "P10: found while it lasts",
        observed,
        Some(begin),
    );
}
