//! Storage that is full: the broker's by its limit, the broker's disk, the sidecar's own disk.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::row;
use crate::support::http::{Answer, Caller};
use crate::support::manifest::meet;
use crate::support::nats_server::NatsServer;
use crate::support::observer::{Observer, Packet, stored};
use crate::support::sentry::{Replies, Sentry};
use crate::support::sidecar::{BOUND, Plan, Sidecar, seq, status};
use crate::support::wait::until;

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
    let sentry = Sentry::start(&server.url(), "planner").await;
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
    let held = sidecar.bounded(0.31).await;
    let closing = sidecar.bounded(0.51).await;
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
    sentry.closed(seq(&closing)).await;
    let newest = sidecar.bounded(0.32).await;
    // The server has frozen the stream: space alone does not help, a restart does.
    std::fs::remove_file(&ballast).unwrap();
    let begin = Instant::now();
    server.restart();
    let books = sidecar.settled().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let numbers = numbers(&client).await;
    assert!(said.iter().rev().take(7).all(|seq| numbers.contains(seq)), "{said:?} {numbers:?}");
    assert!(numbers.contains(&seq(&newest)) && !numbers.contains(&seq(&first)));
    assert!(!numbers.contains(&seq(&held)), "revoked by the closing");
    sentry.closed(0).await;
    sentry.check(&Replies::default(), false);
    let observed = format!(
        "no answer (stream frozen): pending, closing confirmed, all {} stored are kept, {} \
             failed by the closing, 0 leaks",
        said.len(),
        books.packets("failed")
    );
    row(
        "disk full at the broker (ENOSPC)",
        "P2, P8 after room and a restart, P10",
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
    observer.mark().await;
    let heard = observer.packets(0);
    assert!(heard.iter().all(|packet| packet.di() < 0.5));
    let numbers = numbers(&observer.client).await;
    assert!(numbers.contains(&seq(&newer)) && numbers.contains(&seq(&first)), "{numbers:?}");
    assert_eq!(books.packets("failed"), 0);
    row(name, "P8: the newest is stored later, P10", refusal, Some(begin));
}

/// Pushes a snapshot; the answer has its bound whatever the disk does (P10).
async fn push(sidecar: &Sidecar, body: &str) -> Answer {
    let headers = "Content-Type: text/plain\r\n";
    let mut caller = Caller::new(sidecar.api);
    let answer = caller.call("PUT", "/memory/snapshot", headers, body).await.expect("an answer");
    assert!(answer.took < BOUND, "{:?}", answer.took);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_p10_a_full_disk_under_the_spool_hurts_no_one_and_is_said() {
    let Some(disk) = SmallDisk::mount() else {
        println!("FAULT | spool's disk full | - | mounting a small disk is not permitted here | -");
        return;
    };
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let spool = format!("[snapshot]\nspool = {:?}", disk.0.path().join("spool"));
    let peer = "[[peers]]\nid = \"critic\"\nexport = [\"state\", \"snapshot\"]";
    meet(&server.url(), "critic").await;
    let plan = Plan::new("planner", &[], &server.url()).short().with(&spool).with(peer);
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    let kept = push(&sidecar, &"a memory ".repeat(1000)).await;
    assert_eq!(kept.status, 201, "{}", kept.text());
    let ballast = disk.0.path().join("ballast");
    assert!(std::fs::write(&ballast, vec![0; 4 * 1024 * 1024]).is_err(), "it does not fit");
    let refused = push(&sidecar, &"another memory ".repeat(10_000)).await;
    assert_eq!(refused.status, 507, "{}", refused.text());
    // The gate works on, and so do packets.
    let reply = sidecar.bounded(0.31).await;
    assert_eq!(status(&reply), "stored", "{reply}");
    let place = observer.mark().await;
    let closing = sidecar.bounded(0.51).await;
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
    let mark = observer.mark().await;
    sidecar.bounded(0.52).await;
    observer.mark().await;
    assert!(observer.packets(place).is_empty() && observer.packets(mark).is_empty());
    until("/readyz to say it", async || {
        sidecar.bounded(0.52).await;
        let degraded = sidecar.readiness().await["degraded"].to_string();
        degraded.contains("spool_full").then_some(())
    })
    .await;
    // Dies with the disk full, and returns closed; what it promised is there.
    sidecar.kill();
    sidecar.start_again().await;
    sidecar.is_connected().await;
    assert_eq!(sidecar.bounded(0.55).await["verdict"], "block");
    std::fs::remove_file(&ballast).unwrap();
    let begin = Instant::now();
    let after = sidecar.stores().await;
    assert!(seq(&after) > seq(&closing), "numbers rise");
    let pushed = until("a snapshot to be kept", async || {
        let answer = push(&sidecar, &"another memory ".repeat(10_000)).await;
        (answer.status < 300).then_some(answer)
    })
    .await;
    until("/readyz to say it no longer", async || {
        sidecar.bounded(0.30).await;
        let degraded = sidecar.readiness().await["degraded"].to_string();
        (!degraded.contains("spool_full")).then_some(())
    })
    .await;
    let took = begin.elapsed();
    let first = sidecar.get(&format!("/memory/snapshot?digest={}", digest(&kept))).await;
    assert_eq!((first.status, first.text().len()), (200, 9000));
    let observed = format!(
        "PUT {} then {} with room, reports stored, closing confirmed, nothing while closed, restart \
         closed, what was promised is there",
        refused.status, pushed.status
    );
    assert!(took < BOUND, "{took:?}");
    row("disk full under the spool (ENOSPC)", "P2 P6 P8 P10", observed, Some(begin));
}

fn digest(answer: &Answer) -> String {
    answer.json()["digest"].as_str().expect("a digest").to_owned()
}
