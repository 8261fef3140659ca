//! A broker that says no: permissions revoked, storage full, 429 and 503.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::row;
use super::support::nats_server::NatsServer;
use super::support::observer::{Observer, Packet, stored};
use super::support::sidecar::{Plan, Sidecar, seq, status};
use super::support::wait::until;

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

/// A file system of 2 MiB, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path());
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        is_mounted.then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_storage_over_its_limit_delays_and_loses_nothing_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    full(folder.path(), "1M", "storage limit reached at the broker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_p10_a_full_disk_hurts_no_one_and_loses_nothing_that_is_wanted() {
    let Some(disk) = SmallDisk::mount() else {
        // The limit is what is left to test with, and the test above does.
        println!("FAULT | disk full | - | mounting a small disk is not permitted here | -");
        return;
    };
    let store = disk.0.path();
    let lines = format!("jetstream {{ store_dir: \"{}\", max_mem: 1M }}", store.display());
    let mut server = NatsServer::start_with(&lines);
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    let mut said = vec![seq(&sidecar.stores().await)];
    let ballast = store.join("ballast");
    let written = std::fs::write(&ballast, vec![0; 4 * 1024 * 1024]);
    assert!(written.is_err(), "it does not fit");
    let first = until("the disk to be full", async || {
        let reply = sidecar.bounded(0.31).await;
        if status(&reply) == "stored" {
            said.push(seq(&reply));
        }
        (status(&reply) == "pending").then_some(reply)
    })
    .await;
    let newest = sidecar.bounded(0.32).await;
    assert_eq!(status(&newest), "pending");
    // The server has frozen the stream: space alone does not help, a restart does.
    std::fs::remove_file(&ballast).unwrap();
    let begin = Instant::now();
    server.restart();
    let books = sidecar.settled().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let numbers = numbers(&client).await;
    assert!(said.iter().rev().take(7).all(|seq| numbers.contains(seq)), "{said:?} {numbers:?}");
    assert!(numbers.contains(&seq(&newest)) && !numbers.contains(&seq(&first)));
    assert_eq!(books.packets("failed"), 0);
    let observed =
        format!("no answer (stream frozen): pending, all {} stored are kept", said.len());
    row(
        "disk full at the broker (ENOSPC)",
        "P8 after room and a restart, P10",
        observed,
        Some(begin),
    );
}

/// Numbers of the packets on the stream.
async fn numbers(client: &async_nats::Client) -> Vec<u64> {
    let kept = stored(client, "DRIFTGATE_STATE").await;
    kept.iter().filter_map(Packet::of).map(|packet| packet.seq).collect()
}

async fn full(store: &Path, limit: &str, name: &str) {
    let store = store.display();
    let lines = format!("jetstream {{ store_dir: \"{store}\", max_mem: 1M, max_file: {limit} }}");
    let server = NatsServer::start_with(&lines);
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    let first = sidecar.stores().await;
    let config = json!({"name": "BULK", "subjects": ["bulk"], "storage": "file"});
    let answer = observer.api("STREAM.CREATE.BULK", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    let fill = async || {
        let reply = observer.client.request("bulk", vec![0; 32 * 1024].into()).await.unwrap();
        serde_json::from_slice::<Value>(&reply.payload).unwrap()["error"].clone()
    };
    let refusal = until("the store to be full", async || {
        let error = fill().await;
        (!error.is_null()).then_some(error)
    })
    .await;
    let older = sidecar.bounded(0.31).await;
    let newer = sidecar.bounded(0.32).await;
    assert_eq!((status(&older), status(&newer)), ("pending", "pending"), "{refusal}");
    let begin = Instant::now();
    let answer = observer.api("STREAM.DELETE.BULK", &Value::Null).await;
    assert_eq!(answer["success"], true, "{answer}");
    let books = sidecar.settled().await;
    let numbers = numbers(&observer.client).await;
    assert!(numbers.contains(&seq(&newer)) && numbers.contains(&seq(&first)), "{numbers:?}");
    assert_eq!(books.packets("failed"), 0);
    row(name, "P8: the newest is stored later, P10", refusal, Some(begin));
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
