//! The object store against a real nats-server: bytes there and back, also with async-nats and the
//! `nats` command at the other end.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the report, and what is skipped is said aloud"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::nats_server::NatsServer;
use crate::support::object::{
    BUCKET, MIB, NO_LIMIT, chunks, foreign, label, noise, open, quiet, subjects,
};
use async_nats::jetstream::{self, object_store, stream};
use bytes::Bytes;
use driftgate::nats::object::{CHUNK_BYTES, Content, Store, StoreFault, WINDOW};
use driftgate::protocol::digest::Digest;
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_got_at_every_size_around_a_chunk() {
    let server = NatsServer::start();
    let store = open(&server).await;
    assert_eq!(store.differences(), [""; 0]);
    for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * MIB] {
        let (name, bytes) = (format!("planner/{len}.zst"), noise(len, 1));
        let (sent, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
        let rises = |done| assert!(sent.swap(done, Ordering::Relaxed) <= done);
        let info = store.put(&label(&name), bytes.clone(), &rises).await.unwrap();
        assert_eq!(usize::try_from(info.size).unwrap(), len);
        assert_eq!(usize::try_from(info.chunks).unwrap(), len.div_ceil(CHUNK_BYTES));
        let counts = |done| arrived.store(done, Ordering::Relaxed);
        let got = store.get(&name, info.size, &counts).await.unwrap();
        assert!(got == bytes, "{len} bytes differ");
        assert_eq!((sent.into_inner(), arrived.into_inner()), (info.size, info.size));
        let seen = store.info(&name).await.unwrap().unwrap();
        assert!(seen.modified.is_some());
        assert_eq!(seen.media_type.as_deref(), Some("application/zstd"));
        assert_eq!(seen.metadata["seq"], "7");
        assert_eq!((seen.nuid, seen.digest), (info.nuid, info.digest));
    }
    let listing = store.list("planner/", 100).await.unwrap();
    assert_eq!((listing.objects.len(), listing.is_cut, listing.unreadable), (6, false, 0));
    assert_eq!(listing.objects[5].name, format!("planner/{}.zst", 5 * MIB));
    let listing = store.list("planner/1", 1).await.unwrap();
    assert_eq!((listing.objects.len(), listing.is_cut), (1, true));
    assert_eq!(store.list("critic/", 100).await.unwrap().objects, []);
    assert_eq!(
        store.get("planner/none", NO_LIMIT, &quiet).await,
        Err(StoreFault::NotFound("planner/none".to_owned()))
    );
    let fault = store.get("planner/1.zst", 0, &quiet).await.unwrap_err();
    assert!(matches!(fault, StoreFault::TooLarge { size: 1, bytes_max: 0, .. }), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn async_nats_reads_what_we_put_and_we_read_what_it_puts() {
    let server = NatsServer::start();
    let store = open(&server).await;
    let (context, _) = foreign(&server).await;
    let theirs = context.get_object_store(BUCKET).await.unwrap();
    let bytes = noise(MIB + 17, 2);
    let info = store.put(&label("planner/ours"), bytes.clone(), &quiet).await.unwrap();
    let mut object = theirs.get("planner/ours").await.unwrap();
    let mut read = Vec::new();
    object.read_to_end(&mut read).await.unwrap();
    assert!(bytes == read);
    assert_eq!((&object.info.nuid, object.info.size), (&info.nuid, bytes.len()));
    assert_eq!(
        object.info.headers.as_ref().unwrap().get("Content-Type").unwrap().as_str(),
        "application/zstd"
    );
    assert_eq!(object.info.metadata["seq"], "7");
    assert_eq!(theirs.list().await.unwrap().count().await, 1);

    let other = noise(MIB + 18, 3);
    let meta = object_store::ObjectMetadata {
        name: "critic/theirs".to_owned(),
        chunk_size: Some(4096),
        ..Default::default()
    };
    theirs.put(meta, &mut other.as_ref()).await.unwrap();
    assert!(store.get("critic/theirs", NO_LIMIT, &quiet).await.unwrap() == other);
    theirs.delete("critic/theirs").await.unwrap();
    assert_eq!(store.info("critic/theirs").await, Ok(None));
    assert!(store.delete("planner/ours").await.unwrap());
    assert!(theirs.info("planner/ours").await.unwrap().deleted);
    assert_eq!(theirs.list().await.unwrap().count().await, 0);
    assert_eq!(chunks(&server).await, 0);
}

/// The `nats` command: `$NATS_CLI`, or the one on the path.
fn nats_command() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_CLI").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("nats"));
    let works = Command::new(&program).arg("--version").output();
    works.is_ok_and(|output| output.status.success()).then_some(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_command_reads_what_we_put_and_we_read_what_it_puts() {
    let Some(program) = nats_command() else {
        eprintln!(
            "SKIPPED: no `nats` command: set NATS_CLI or install it. NOTHING WAS TESTED HERE."
        );
        return;
    };
    let server = NatsServer::start();
    let store = open(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(&program)
            .env("HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .args(["--server", &server.url(), "object"])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    };
    let bytes = noise(MIB + 19, 4);
    store.put(&label("planner/7-ab.zst"), bytes.clone(), &quiet).await.unwrap();
    let path = folder.path().join("got");
    let path = path.to_str().unwrap();
    run(&["get", BUCKET, "planner/7-ab.zst", "--output", path, "--force", "--no-progress"]);
    assert!(bytes == std::fs::read(path).unwrap());
    assert!(run(&["ls", BUCKET]).contains("planner/7-ab.zst"));
    assert!(run(&["ls"]).contains(BUCKET));
    let shown = run(&["info", BUCKET, "planner/7-ab.zst"]);
    assert!(shown.contains("application/zstd"), "{shown}");

    let other = noise(MIB + 20, 5);
    std::fs::write(path, &other).unwrap();
    run(&["put", BUCKET, path, "--name", "critic/theirs", "--force", "--no-progress"]);
    assert!(store.get("critic/theirs", NO_LIMIT, &quiet).await.unwrap() == other);
    run(&["rm", BUCKET, "critic/theirs", "--force"]);
    assert_eq!(store.info("critic/theirs").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_keeps_its_bytes() {
    let server = NatsServer::start();
    let store = open(&server).await;
    let bytes = noise(3 * CHUNK_BYTES, 6);
    let first = store.put(&label("planner/a"), bytes.clone(), &quiet).await.unwrap();
    let done = AtomicU64::new(0);
    let counts = |bytes| done.store(bytes, Ordering::Relaxed);
    let again = store.put(&label("planner/a"), bytes.clone(), &counts).await.unwrap();
    assert_eq!((&again.nuid, done.into_inner()), (&first.nuid, first.size));
    let taken = Err(StoreFault::NameTaken("planner/a".to_owned()));
    assert_eq!(store.put(&label("planner/a"), noise(3 * CHUNK_BYTES, 7), &quiet).await, taken);
    let (id, content) = (store.next_id(), || Content::Bytes(bytes.clone()));
    let known = store.put_hashed(&label("planner/a"), &id, content(), first.digest, &quiet).await;
    assert_eq!(known.unwrap().nuid, again.nuid);
    assert_eq!(
        store.put_hashed(&label("planner/a"), &id, content(), Digest::of(b""), &quiet).await,
        taken
    );
    assert_eq!(chunks(&server).await, 3);
    assert!(store.get("planner/a", NO_LIMIT, &quiet).await.unwrap() == bytes);

    assert!(store.delete("planner/a").await.unwrap());
    assert!(!store.delete("planner/a").await.unwrap());
    assert!(!store.delete("planner/never").await.unwrap());
    assert_eq!(subjects(&server, ">").await.len(), 1, "a tombstone and nothing else");
    store.put(&label("planner/a"), noise(1, 8), &quiet).await.unwrap();
    assert_eq!(store.list("", 9).await.unwrap().objects.len(), 1);
    for name in ["", "a\nb", &"x".repeat(513)] {
        let fault = store.put(&label(name), Bytes::new(), &quiet).await.unwrap_err();
        assert!(matches!(fault, StoreFault::BadLabel(_)), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_put_one_name_one_wins_and_nothing_is_left_over() {
    let server = NatsServer::start();
    let (one, other) = (open(&server).await, open(&server).await);
    for round in 0..10 {
        let name = label(&format!("planner/{round}"));
        let (ours, theirs) = (noise(2 * CHUNK_BYTES, 1), noise(2 * CHUNK_BYTES, 2));
        let (a, b) = tokio::join!(
            one.put(&name, ours.clone(), &quiet),
            other.put(&name, theirs.clone(), &quiet)
        );
        let winner = match (a, b) {
            (Ok(_), Err(StoreFault::NameTaken(_))) => ours,
            (Err(StoreFault::NameTaken(_)), Ok(_)) => theirs,
            other => panic!("{other:?}"),
        };
        assert!(one.get(&name.name, NO_LIMIT, &quiet).await.unwrap() == winner);
        assert_eq!(chunks(&server).await, 2);
        let same = label("planner/same");
        let (a, b) = tokio::join!(
            one.put(&same, noise(CHUNK_BYTES, 3), &quiet),
            other.put(&same, noise(CHUNK_BYTES, 3), &quiet)
        );
        assert_eq!(a.unwrap().nuid, b.unwrap().nuid);
        for name in [&name.name, "planner/same"] {
            assert!(one.delete(name).await.unwrap());
        }
        assert_eq!(chunks(&server).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_created_or_compared() {
    let server = NatsServer::start();
    let mut settings = server.settings("planner");
    settings.broker.provision = false;
    let absent = Store::open(&settings, BUCKET).await.unwrap_err();
    assert_eq!(absent, StoreFault::Absent(BUCKET.to_owned()));
    let fault = Store::open(&settings, "a.b").await.unwrap_err();
    assert!(matches!(fault, StoreFault::BadLabel(_)), "{fault}");
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config = object_store::Config {
        bucket: BUCKET.to_owned(),
        max_age: Duration::from_secs(3600),
        compression: true,
        storage: stream::StorageType::Memory,
        ..Default::default()
    };
    context.create_object_store(config).await.unwrap();
    settings.broker.provision = true;
    let store = Store::open(&settings, BUCKET).await.unwrap();
    let said = store.differences().join("\n");
    for word in ["storage", "max_age", "compression"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(store.differences().len(), 3);
    let server = NatsServer::start_with("");
    let store = open(&server).await;
    assert!(store.server().contains("2."));
    let created = foreign(&server).await.1.info().await.unwrap().config.clone();
    assert_eq!(created.discard, stream::DiscardPolicy::New);
    assert!(created.allow_rollup && created.allow_direct);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_payloads_make_small_chunks() {
    let server = NatsServer::start_with("max_payload: 32KB");
    let store = open(&server).await;
    let info = store.put(&label("planner/a"), noise(MIB, 1), &quiet).await.unwrap();
    assert_eq!(info.chunks, 32);
    assert!(store.get("planner/a", NO_LIMIT, &quiet).await.unwrap() == noise(MIB, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn side_by_side_reads_and_a_window_of_writes_do_not_starve_each_other() {
    let server = NatsServer::start();
    let store = open(&server).await;
    let names: Vec<String> = (0..20).map(|n| format!("planner/{n}")).collect();
    let puts = names.iter().zip(0..).map(async |(name, seed)| {
        store.put(&label(name), noise(WINDOW * CHUNK_BYTES / 8, seed), &quiet).await.unwrap();
    });
    futures_util::future::join_all(puts).await;
    let gets = names.iter().zip(0..).map(async |(name, seed)| {
        let bytes = store.get(name, NO_LIMIT, &quiet).await.unwrap();
        assert!(bytes == noise(WINDOW * CHUNK_BYTES / 8, seed));
    });
    futures_util::future::join_all(gets).await;
    assert!(foreign(&server).await.1.info().await.unwrap().state.consumer_count == 0);
}
