//! The gate and snapshots: only in band open, and what was revoked never leaves (P1, P2, P5).

use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{noise, objects, plan, pull, push};
use crate::support::wait::until;

const QUICK: &str = "[listen]\nreply_timeout = \"300ms\"\n[containment]\nbarrier_timeout = \"300ms\"\n\
                     [nats]\nping_interval = \"1s\"";

async fn object_subjects(observer: &Observer, from: usize) -> usize {
    observer.mark().await;
    let heard = observer.heard(from);
    heard.iter().filter(|message| message.subject.starts_with("$O.")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_band_but_open_takes_a_snapshot() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    for (di, band, status) in
        [(0.2, "open", 201), (0.47, "caution", 423), (0.52, "blocked", 423), (0.7, "isolated", 423)]
    {
        assert_eq!(sidecar.report(di).await["band"], band);
        let reply = push(&sidecar, format!("at {di}").as_bytes()).await;
        assert_eq!(reply.status, status, "{band}: {}", reply.json());
    }
    assert_eq!(pull(&sidecar, "", "").await.status, 423, "isolated shows nothing");
    assert_eq!(objects(&server).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spooled_and_unsent_when_the_gate_closed_never_leaves() {
    let mut server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url()).with(QUICK);
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    assert_eq!(push(&sidecar, b"stored").await.status, 201);
    server.kill();
    let revoked = noise(5, 20_000);
    assert_eq!(push(&sidecar, &revoked).await.status, 202);
    assert_eq!(sidecar.report(0.52).await["verdict"], "block");
    server.restart();
    let observer = Observer::start(&server.url()).await;
    let from = observer.mark().await;
    sidecar.is_connected().await;
    assert_eq!(sidecar.report(0.2).await["verdict"], "export");
    // It is still there for its own runtime, and says what it is.
    let own = pull(&sidecar, "", "").await;
    assert_eq!((own.status, own.body), (200, revoked.clone()));
    let list = pull(&sidecar, "?list", "").await.json();
    assert_eq!(list["snapshots"][1]["state"], "revoked", "{list}");
    // A crash does not bring it back either.
    sidecar.kill();
    sidecar.start_again().await;
    sidecar.is_connected().await;
    sidecar.report(0.2).await;
    assert_eq!(push(&sidecar, b"the next").await.status, 201);
    let names: Vec<u64> = objects(&server).await.iter().map(|info| info.size).collect();
    assert_eq!(names.len(), 2, "the first and the last: {names:?}");
    let largest =
        observer.heard(from).iter().map(|message| message.payload.len()).max().unwrap_or(0);
    assert!(largest < 10_000, "a chunk of the revoked snapshot was published");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_closing_reply_nothing_of_an_upload_follows() {
    let server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url())
        .with("[snapshot]\nbytes_max = \"64MiB\"\n[listen]\nreply_timeout = \"2s\"");
    let sidecar = Sidecar::connected(plan).await;
    let observer = Observer::start(&server.url()).await;
    for round in 0..5 {
        assert_eq!(sidecar.report(0.2).await["verdict"], "export");
        let from = observer.mark().await;
        let large = noise(100 + round, 24 << 20);
        let pushing = push(&sidecar, &large);
        let closing = async {
            // The first chunk is out: the upload is under way.
            observer.find(from, "a chunk", |message| message.subject.starts_with("$O.")).await;
            let reply = sidecar.report(0.52).await;
            (reply, observer.mark().await)
        };
        let (reply, (closed, silent_from)) = tokio::join!(pushing, closing);
        assert_eq!(closed["verdict"], "block");
        assert!(closed.get("barrier").is_none_or(|barrier| barrier == "confirmed"), "{closed}");
        assert!([201, 202, 423].contains(&reply.status), "{}", reply.status);
        until("the push to be settled", async || {
            let list = pull(&sidecar, "?list", "").await.json();
            let newest = list["snapshots"].as_array()?.last()?["state"].as_str()?.to_owned();
            (newest != "unsent").then_some(())
        })
        .await;
        assert_eq!(object_subjects(&observer, silent_from).await, 0, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_sidecar_has_no_snapshot_connection() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    sidecar.report(0.2).await;
    assert_eq!(push(&sidecar, b"stored").await.status, 201);
    assert_eq!(sidecar.report(0.7).await["verdict"], "isolate");
    let ours = |connection: &serde_json::Value| {
        connection["name"].as_str().is_some_and(|name| name.starts_with("driftgate-planner"))
    };
    let subscriptions: u64 = server
        .connz()
        .iter()
        .filter(|connection| ours(connection))
        .map(|connection| connection["subscriptions"].as_u64().unwrap_or(0))
        .sum();
    assert_eq!(subscriptions, 0);
    assert_eq!(pull(&sidecar, "?source=critic", "").await.status, 423);
}
