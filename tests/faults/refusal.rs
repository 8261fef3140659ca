//! A broker that says no: permissions revoked, 429 and 503.

use std::time::Instant;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::row;
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::report::report;
use crate::support::sidecar::{Plan, Sidecar, seq, status};
use crate::support::wait::until;

/// A server that knows an administrator and a planner, who may publish `allowed`.
fn permissions(user: &nkeys::KeyPair, allowed: &str) -> String {
    format!(
        r#"authorization {{ users: [
            {{ user: admin, password: admin }}
            {{ nkey: {}, permissions {{
                publish {{ allow: [{allowed}] }}
                subscribe {{ allow: ["_INBOX.planner.>"] }} }} }} ] }}"#,
        user.public_key()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_revoked_permissions_hurt_no_one_and_are_said() {
    const ALL: &str = r#""driftgate.v1.*.planner.>", "driftgate.v1.*.planner", "$JS.API.>",
        "$JS.ACK.>", "_INBOX.planner.>""#;
    let user = nkeys::KeyPair::new_user();
    let server = NatsServer::start_with(&permissions(&user, ALL));
    let folder = tempfile::tempdir().unwrap();
    let seed = folder.path().join("planner.nk");
    std::fs::write(&seed, user.seed().unwrap()).unwrap();
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let observer = Observer::of(admin.connect(server.url()).await.unwrap()).await;
    let nkey = format!("nkey_file = {seed:?}");
    let plan = Plan::new("planner", &["critic"], &server.url()).short().with(&nkey);
    let sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    let place = observer.mark().await;
    server.reload_with(&permissions(&user, r#""nothing.at.all""#));
    let denied = sidecar.bounded(0.31).await;
    assert_eq!(status(&denied), "pending", "{denied}");
    let closing = sidecar.bounded(0.51).await;
    assert_eq!(closing["barrier"], "unconfirmed", "{closing}");
    let held = sidecar.bounded(0.30).await;
    assert_eq!(status(&held), "pending", "{held}");
    until("the loss of permissions to be said", async || {
        let degraded = sidecar.readiness().await["degraded"].to_string().to_lowercase();
        degraded.contains("permi").then_some(())
    })
    .await;
    observer.mark().await;
    assert!(observer.packets(place).is_empty());
    let begin = Instant::now();
    server.reload_with(&permissions(&user, ALL));
    let books = sidecar.settled().await;
    observer.mark().await;
    let sent: Vec<u64> = observer.packets(place).iter().map(|packet| packet.seq).collect();
    assert!(!sent.contains(&seq(&denied)), "revoked by the closing");
    assert!(sent.contains(&seq(&held)));
    let observed = format!(
        "pending, closing unconfirmed, /readyz says so, then {} stored, {} failed",
        books.packets("stored"),
        books.packets("failed")
    );
    row("permissions revoked by reload", "P2 P8 P10", observed, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_broker_that_says_429_or_503_is_asked_again_with_pauses() {
    let server = NatsServer::start();
    let observer = Observer::of(async_nats::connect(server.url()).await.unwrap()).await;
    // The stream takes everybody's packets but the planner's, so that the test can answer these.
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    let mut config =
        observer.api("STREAM.INFO.DRIFTGATE_STATE", &Value::Null).await["config"].take();
    let subjects = config["subjects"].clone();
    config["subjects"] = json!(["driftgate.v1.state.*.planner"]);
    let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    for (code, err_code, words) in [(429, 10_167, "too many requests"), (503, 10_008, "no leader")]
    {
        let mut asked = observer.client.subscribe("driftgate.v1.state.planner.*").await.unwrap();
        let client = observer.client.clone();
        let body = json!({"error": {"code": code, "err_code": err_code, "description": words}});
        let (told, count) = tokio::sync::watch::channel(0);
        let answering = tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let Some(reply) = message.reply else { continue };
                client.publish(reply, body.to_string().into()).await.unwrap();
                told.send_modify(|count: &mut u32| *count += 1);
            }
        });
        observer.mark().await;
        let place = observer.mark().await;
        let refused = sidecar.bounded(0.30).await;
        assert_eq!(status(&refused), "pending", "{refused}");
        let mut count = count;
        count.wait_for(|count| *count >= 3).await.unwrap();
        let attempts = observer.packets(place);
        assert!(attempts.iter().all(|packet| packet.seq == seq(&refused)));
        assert!(attempts.iter().all(|packet| packet.bytes == attempts[0].bytes), "the same bytes");
        let ids: Vec<_> =
            attempts.iter().map(|packet| packet.headers.get("Nats-Msg-Id").cloned()).collect();
        assert!(ids.iter().all(|id| id.is_some() && *id == ids[0]), "under the same id: {ids:?}");
        // The gate still has the last word.
        let closing = sidecar.bounded(0.51).await;
        assert_eq!(closing["barrier"], "confirmed");
        let place = observer.mark().await;
        let again = sidecar.bounded(0.32).await;
        answering.abort();
        assert!(answering.await.is_err());
        config["subjects"] = subjects.clone();
        let begin = Instant::now();
        let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
        assert!(answer["error"].is_null(), "{answer}");
        let books = sidecar.settled().await;
        observer.mark().await;
        let late = observer.packets(place);
        assert!(late.iter().all(|packet| packet.seq == seq(&again)), "{late:?}");
        let observed = format!(
            "{} attempts with the same id, then {} stored, {} failed by the closing",
            attempts.len(),
            books.packets("stored"),
            books.packets("failed")
        );
        row(&format!("JetStream answers {code}"), "P5 P8 P10", observed, Some(begin));
        config["subjects"] = json!(["driftgate.v1.state.*.planner"]);
        let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
        assert!(answer["error"].is_null(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_full_stream_is_said_with_its_reason_and_no_report_waits_for_it() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    // The usual bounds: a report waits for its packets for 2 s.
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    assert_eq!(status(&sidecar.report(0.30).await), "stored");
    let info = observer.api("STREAM.INFO.DRIFTGATE_STATE", &Value::Null).await;
    let mut config = info["config"].clone();
    let (discard, limit) = (config["discard"].take(), config["max_msgs"].take());
    config["discard"] = json!("new");
    config["max_msgs"] = json!(1);
    let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    let begin = Instant::now();
    sidecar.report(0.31).await;
    let degraded = until("the full stream to be said", async || {
        let degraded = sidecar.readiness().await["degraded"].to_string();
        degraded.contains("publish_refused: full: ").then_some(degraded)
    })
    .await;
    let refused = sidecar.books().await.sum("publish_refused", &[("reason", "full")]);
    assert!(refused > 0, "{degraded}");
    // A known fault: nobody waits for it. The fastest of some, for the machine may be busy.
    let mut fastest = std::time::Duration::MAX;
    for _ in 0..8 {
        let answer = sidecar.post(&report(0.32)).await;
        assert_eq!(status(&answer.json()), "pending");
        fastest = fastest.min(answer.took);
    }
    assert!(fastest < std::time::Duration::from_secs(1), "{fastest:?}");
    (config["discard"], config["max_msgs"]) = (discard, limit);
    let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    sidecar.settled().await;
    until("it to be said no longer", async || {
        let degraded = sidecar.readiness().await["degraded"].to_string();
        (!degraded.contains("publish_refused")).then_some(())
    })
    .await;
    let of_it = |line: &&str| line.contains("\"publish_refused\"");
    let log = sidecar.log();
    let lines: Vec<&str> = log.lines().filter(of_it).collect();
    assert_eq!(lines.len(), 2, "one when it begins and one when it ends: {lines:?}");
    let observed = format!("/readyz, metric and log say full, {fastest:.0?} a report");
    row("a full stream (discard new)", "P10: said, not waited for", observed, Some(begin));
}
