//! What listeners, scrapers and the log are told of snapshots.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftgate::protocol::digest::Digest;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::proxy::{Proxy, Way};
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{ask, noise, plan, pull, push};
use crate::support::wait::until;

/// A stream of events, read as it comes.
struct Listener {
    text: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
}

impl Listener {
    async fn open(sidecar: &Sidecar) -> Self {
        let mut stream = TcpStream::connect(sidecar.api).await.unwrap();
        let head = format!("GET /phase/telemetry HTTP/1.1\r\nHost: {}\r\n\r\n", sidecar.api);
        stream.write_all(head.as_bytes()).await.unwrap();
        let text = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&text);
        let reading = tokio::spawn(async move {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut piece).await {
                heard.lock().unwrap().push_str(std::str::from_utf8(&piece[..length]).unwrap());
            }
        });
        let listener = Self { text, reading };
        until("the stream", async || listener.text().contains(": listening").then_some(())).await;
        listener
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// The events of this name so far. Each is a chunk of its own, so no line is torn.
    fn events(&self, name: &str) -> Vec<Value> {
        let text = self.text();
        let mark = format!("event: {name}\ndata: ");
        let data = text.split(&mark).skip(1).filter_map(|rest| rest.split_once('\n'));
        data.map(|(line, _)| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a transfer to end so.
    async fn ended(&self, direction: &str, digest: Digest, state: &str) -> Value {
        let digest = digest.to_string();
        until("the end of a transfer", async || {
            self.events("snapshot").into_iter().find(|event| {
                event["direction"] == direction
                    && event["digest"] == digest.as_str()
                    && event["state"] == state
            })
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_hear_transfers_and_transitions_and_no_word_of_the_memory() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let critic = Sidecar::connected(plan("critic", "planner", &server.url())).await;
    let (near, far) = (Listener::open(&planner).await, Listener::open(&critic).await);
    planner.report(0.2).await;
    let first = b"the canary sings of a secret motif".to_vec();
    let second = [noise(31, 200_000), first.clone()].concat();
    push(&planner, &first).await;
    let receipt = push(&planner, &second).await.json();

    let upload = near.ended("upload", Digest::of(&second), "done").await;
    assert_eq!((&upload["runtime_id"], &upload["seq"]), (&"planner".into(), &receipt["seq"]));
    assert_eq!(upload["bytes_done"], receipt["stored_bytes"]);
    assert_eq!(
        (&upload["bytes_total"], &upload["remaining_s"]),
        (&upload["bytes_done"], &0.into())
    );
    let begun = &near.events("snapshot")[0];
    assert_eq!((&begun["state"], &begun["bytes_done"]), (&"running".into(), &0.into()));
    assert_eq!(begun["remaining_s"], Value::Null, "nobody knows yet");

    assert_eq!(pull(&critic, "?source=planner", "").await.status, 200);
    let fetch = far.ended("fetch", Digest::of(&second), "done").await;
    assert_eq!(fetch["runtime_id"], "planner");
    assert_eq!(fetch["bytes_total"], fetch["bytes_done"], "all objects that restore it: {fetch}");

    planner.report(0.7).await;
    let isolated = until("the transition", async || near.events("transition").pop()).await;
    assert_eq!((&isolated["from"], &isolated["to"]), (&"open".into(), &"isolated".into()));
    assert_eq!(near.events("transition")[0]["to"], "open", "the first report opened it");
    for listener in [&near, &far] {
        assert!(!listener.text().contains("canary"), "P9: {}", listener.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_upload_is_told_at_a_human_rate() {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let sidecar = Sidecar::connected(plan("planner", "critic", &proxy.url())).await;
    sidecar.report(0.2).await;
    let listener = Listener::open(&sidecar).await;
    // What is under way is bounded, so latency is a slow line.
    proxy.up(Way { latency: Duration::from_millis(400), ..Way::default() });
    let large = noise(32, 13 << 20);
    let begin = Instant::now();
    let pushed = push(&sidecar, &large).await;
    assert_eq!(pushed.status, 202, "{}", pushed.json());
    let done = listener.ended("upload", Digest::of(&large), "done").await;
    let took = begin.elapsed();
    proxy.up(Way::default());
    assert_eq!(done["bytes_done"], done["bytes_total"]);
    assert!(took > Duration::from_secs(5), "the line was too fast for this test: {took:?}");

    let running: Vec<Value> = listener
        .events("snapshot")
        .into_iter()
        .filter(|event| event["state"] == "running" && event["bytes_done"] != 0)
        .collect();
    let most = usize::try_from(took.as_millis() / 200).unwrap() + 1;
    assert!((3..=most).contains(&running.len()), "{} events in {took:?}", running.len());
    assert!(running.is_sorted_by_key(|event| event["bytes_done"].as_u64()));
    let last = running.last().unwrap();
    assert!(last["bytes_per_s"].as_u64() > Some(0) && last["remaining_s"].is_u64(), "{last}");

    let log = sidecar.log();
    let lines = |how: &str| log.lines().filter(|line| line.contains(how)).collect::<Vec<_>>();
    let on_its_way = lines("snapshot upload on its way");
    let most = usize::try_from(took.as_secs() / 5).unwrap();
    assert!((1..=most).contains(&on_its_way.len()), "{took:?} {on_its_way:#?}");
    let line: Value = serde_json::from_str(on_its_way[0]).unwrap();
    for key in ["done_bytes", "total_bytes", "bytes_per_s", "remaining_s", "elapsed_s"] {
        assert!(line[key].as_u64() > Some(0), "{key}: {line}");
    }
    assert_eq!(lines("snapshot upload done").len(), 1, "and how long it took");
    println!("{took:?}: {} events, {} lines", running.len(), on_its_way.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_gate_cuts_off_is_told_as_stopped() {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let sidecar = Sidecar::connected(plan("planner", "critic", &proxy.url())).await;
    sidecar.report(0.2).await;
    let listener = Listener::open(&sidecar).await;
    proxy.up(Way { latency: Duration::from_millis(200), ..Way::default() });
    let large = noise(34, 13 << 20);
    let closing = async {
        until("the upload to be under way", async || {
            let events = listener.events("snapshot");
            events.iter().any(|event| event["bytes_done"].as_u64() > Some(0)).then_some(())
        })
        .await;
        sidecar.report(0.52).await
    };
    let (pushed, closed) = tokio::join!(push(&sidecar, &large), closing);
    assert_eq!(closed["verdict"], "block");
    assert!([202, 423].contains(&pushed.status), "{}", pushed.json());
    let stopped = listener.ended("upload", Digest::of(&large), "stopped").await;
    assert!(stopped["bytes_done"].as_u64() < stopped["bytes_total"].as_u64(), "{stopped}");
    assert_eq!(stopped["remaining_s"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_counted_by_what_became_of_them() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let critic = Sidecar::connected(plan("critic", "planner", &server.url())).await;
    push(&planner, b"too early").await;
    planner.report(0.2).await;
    let first = noise(33, 10_000);
    let second = [first.as_slice(), b"more"].concat();
    push(&planner, &first).await;
    let receipt = push(&planner, &second).await.json();
    push(&planner, &second).await;
    let digest = "Content-Digest: nonsense\r\n";
    ask(planner.api, "PUT /memory/snapshot", digest, b"bytes").await.unwrap();
    pull(&critic, "?source=planner", "").await;
    pull(&critic, "?source=stranger", "").await;

    let books = planner.books().await;
    let sum = |name: &str, labels: &[(&str, &str)]| books.sum(&format!("snapshot_{name}"), labels);
    let delta = i64::try_from(receipt["stored_bytes"].as_u64().unwrap()).unwrap();
    let full = sum("uploaded_bytes", &[("kind", "full")]);
    assert_eq!((sum("accepted", &[]), sum("unchanged", &[])), (2, 1));
    assert_eq!(sum("refused", &[("reason", "not-open")]), 1);
    assert_eq!(sum("refused", &[("reason", "digest-mismatch")]), 1);
    assert_eq!(sum("uploaded_objects", &[("kind", "full")]), 1);
    assert_eq!(sum("uploaded_objects", &[("kind", "delta")]), 1);
    assert_eq!(sum("uploaded_bytes", &[("kind", "delta")]), delta);
    assert!(full > 10_000, "{full}");
    assert_eq!((sum("stored_objects", &[]), sum("stored_bytes", &[])), (2, full + delta));
    assert_eq!(sum("upload_seconds_count", &[]), 2);
    assert_eq!(sum("spool_entries", &[("state", "stored")]), 2);
    assert_eq!(sum("spool_bytes", &[]), 20_004);
    for name in ["upload_failures", "revoked", "collected", "spool_damaged", "fetched"] {
        assert_eq!(sum(name, &[]), 0, "{name}");
    }
    let books = critic.books().await;
    let sum = |name: &str, labels: &[(&str, &str)]| books.sum(&format!("snapshot_{name}"), labels);
    assert_eq!((sum("fetched", &[]), sum("fetched_bytes", &[])), (1, 10_004));
    assert_eq!(sum("fetch_failures", &[("reason", "unauthorised")]), 1);
    assert_eq!(critic.readiness().await["degraded"], serde_json::json!([]));

    // Names are part of the interface.
    let exposition = Caller::new(planner.admin).get("/metrics").await.unwrap().text();
    let page = include_str!("../../../docs/snapshots.md");
    let mut names = 0;
    for line in exposition.lines().filter(|line| line.starts_with("# TYPE driftgate_snapshot_")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(page.contains(&format!("`{name}")), "docs/snapshots.md does not list {name}");
        assert!(exposition.contains(&format!("# HELP {name} ")), "{name}");
        names += 1;
    }
    assert_eq!(names, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_is_named_in_readiness() {
    let mut server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url())
        .with("[listen]\nreply_timeout = \"300ms\"\n[containment]\nbarrier_timeout = \"300ms\"\n");
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    server.kill();
    let reply = push(&sidecar, b"safe on disk").await;
    assert_eq!(reply.status, 202);
    let seq = reply.json()["seq"].as_u64().unwrap();
    sidecar.kill();
    let file = sidecar.folder().join(format!("spool/snapshots/{seq}.plain"));
    std::fs::write(file, b"other bytes!").unwrap();
    server.restart();
    sidecar.start_again().await;
    let word = until("readiness to say so", async || {
        let readiness = sidecar.readiness().await;
        let words = readiness["degraded"].as_array()?.clone();
        words.into_iter().find(|word| word.to_string().contains("snapshot_damaged"))
    })
    .await;
    let expected = format!("snapshot_damaged: snapshot {seq} was lost from the spool: ");
    assert!(word.as_str().unwrap().starts_with(&expected), "{word}");
    assert_eq!(sidecar.books().await.sum("snapshot_spool_damaged", &[]), 1);
    // It takes the next one all the same.
    sidecar.is_connected().await;
    sidecar.report(0.2).await;
    assert!([201, 202].contains(&push(&sidecar, b"the next").await.status));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_revoked_or_makes_way_is_counted_too() {
    let mut server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url()).with(
        "[listen]\nreply_timeout = \"300ms\"\n[containment]\nbarrier_timeout = \"300ms\"\n\
         [snapshot]\nkeep_full = 1\nkeep_for = \"0s\"\n",
    );
    let sidecar = Sidecar::connected(plan).await;
    let counted = async |name: &str, labels: &[(&str, &str)], count: i64| {
        let name = format!("snapshot_{name}");
        until(&format!("{name} to be {count}"), async || {
            (sidecar.books().await.sum(&name, labels) == count).then_some(())
        })
        .await;
    };
    sidecar.report(0.2).await;
    // Nothing in common: both are full frames, and one of those is kept.
    for seed in [41, 42] {
        push(&sidecar, &noise(seed, 5_000)).await;
    }
    counted("uploaded_objects", &[("kind", "full")], 2).await;
    counted("collected", &[], 1).await;
    counted("stored_objects", &[], 1).await;

    server.kill();
    assert_eq!(push(&sidecar, b"not sent").await.status, 202);
    counted("spool_entries", &[("state", "unsent")], 1).await;
    until("an attempt to fail", async || {
        (sidecar.books().await.sum("snapshot_upload_failures", &[]) > 0).then_some(())
    })
    .await;
    assert_eq!(pull(&sidecar, "?source=critic", "").await.status, 503);
    counted("fetch_failures", &[("reason", "broker")], 1).await;
    sidecar.report(0.52).await;
    counted("revoked", &[], 1).await;
    counted("spool_entries", &[("state", "revoked")], 1).await;
    assert_eq!(pull(&sidecar, "?source=stranger", "").await.status, 404);
    counted("fetch_failures", &[("reason", "unauthorised")], 1).await;
    sidecar.report(0.7).await;
    assert_eq!(pull(&sidecar, "?source=critic", "").await.status, 423);
    counted("fetch_failures", &[("reason", "isolated")], 1).await;
}
