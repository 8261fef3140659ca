//! The object store against a real nats-server: bytes there and back, also with async-nats and the
//! `nats` command at the other end, and what remains when something breaks in the middle.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the report, and a part that is skipped is said aloud"
)]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, object_store, stream};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use driftgate::nats::object::{CHUNK_BYTES, Label, Store, StoreFault, WINDOW};
use driftgate::nats::settings::Settings;
use futures_util::{FutureExt, StreamExt};
use support::nats_server::{NatsServer, PATIENCE, eventually};
use tokio::io::AsyncReadExt;

const BUCKET: &str = "driftgate-snapshots";
const STREAM: &str = "OBJ_driftgate-snapshots";
const MIB: usize = 1024 * 1024;
const NO_LIMIT: u64 = u64::MAX;

/// Bytes that neither repeat nor compress, from a seed.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

fn label(name: &str) -> Label {
    Label {
        name: name.to_owned(),
        media_type: Some("application/zstd".to_owned()),
        metadata: BTreeMap::from([("seq".to_owned(), "7".to_owned())]),
    }
}

fn quiet(_: u64) {}

/// Settings with short deadlines: a stall is three times this.
fn hasty(server: &NatsServer) -> Settings {
    let mut settings = server.settings("planner");
    settings.call_timeout = Duration::from_millis(300);
    settings
}

async fn open(server: &NatsServer) -> Store {
    Store::open(&server.settings("planner"), BUCKET).await.unwrap()
}

async fn foreign(server: &NatsServer) -> (jetstream::Context, stream::Stream) {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream(STREAM).await.unwrap();
    (context, stream)
}

/// Messages per subject of the bucket.
async fn subjects(server: &NatsServer, filter: &str) -> Vec<(String, usize)> {
    let (_, stream) = foreign(server).await;
    let mut subjects = stream.info_with_subjects(format!("$O.{BUCKET}.{filter}")).await.unwrap();
    let mut found = Vec::new();
    while let Some(subject) = subjects.next().await {
        found.push(subject.unwrap());
    }
    found
}

async fn chunks(server: &NatsServer) -> usize {
    subjects(server, "C.>").await.iter().map(|(_, count)| count).sum()
}

/// A foreign client that hears everything in every bucket.
async fn observer(server: &NatsServer) -> (Client, Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let subscriber = client.subscribe("$O.>").await.unwrap();
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    (client, subscriber)
}

/// What the observer hears before a sentinel that is published now, by another connection.
async fn heard_before_now(server: &NatsServer, observer: &mut Subscriber) -> usize {
    let client = async_nats::connect(server.url()).await.unwrap();
    client.publish("$O.sentinel", "".into()).await.unwrap();
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    let mut heard = 0;
    loop {
        let message = tokio::time::timeout(PATIENCE, observer.next()).await.unwrap().unwrap();
        if message.subject.as_str() == "$O.sentinel" {
            return heard;
        }
        heard += 1;
    }
}

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
    assert_eq!((again.nuid, done.into_inner()), (first.nuid, first.size));
    let taken = Err(StoreFault::NameTaken("planner/a".to_owned()));
    assert_eq!(store.put(&label("planner/a"), noise(3 * CHUNK_BYTES, 7), &quiet).await, taken);
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
async fn a_full_bucket_says_so_and_keeps_no_half_object() {
    let server = NatsServer::start();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config = object_store::Config {
        bucket: BUCKET.to_owned(),
        max_bytes: 2 * 1024 * 1024,
        ..Default::default()
    };
    context.create_object_store(config).await.unwrap();
    let store = open(&server).await;
    let fault = store.put(&label("planner/big"), noise(5 * MIB, 9), &quiet).await.unwrap_err();
    assert!(
        matches!(&fault, StoreFault::Full(words) if words.contains("maximum bytes")),
        "{fault}"
    );
    assert!(fault.is_passing());
    assert_eq!(subjects(&server, ">").await, []);
    // Room for an object and not for a tombstone beside it.
    let bytes = noise(2 * MIB - 4096, 10);
    store.put(&label("planner/fits"), bytes.clone(), &quiet).await.unwrap();
    let name = format!("planner/{}", "x".repeat(500));
    for _ in 0..8 {
        let _ = store.put(&label(&name), Bytes::new(), &quiet).await;
        let _ = store.delete(&name).await;
    }
    assert!(store.get("planner/fits", NO_LIMIT, &quiet).await.unwrap() == bytes);
    assert!(store.delete("planner/fits").await.unwrap());
    assert_eq!(chunks(&server).await, 0);
    store.put(&label("planner/big"), noise(MIB, 9), &quiet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_no_object_and_what_it_leaves_is_removed() {
    let server = std::sync::Mutex::new(NatsServer::start());
    let settings = server.lock().unwrap().settings("planner");
    let store = Store::open(&settings, BUCKET).await.unwrap();
    store.put(&label("planner/kept"), noise(CHUNK_BYTES, 1), &quiet).await.unwrap();
    let kills = |done| {
        if done > 8 * 1024 * 1024 {
            server.lock().unwrap().kill();
        }
    };
    let cut = store.put(&label("planner/cut"), noise(64 * MIB, 2), &kills).await;
    let fault = cut.unwrap_err();
    assert!(matches!(fault, StoreFault::Lost(_)), "{fault}");
    assert!(matches!(store.info("planner/kept").await, Err(StoreFault::Lost(_))));
    let mut server = server.into_inner().unwrap();
    server.restart();
    let store = open(&server).await;
    assert!(chunks(&server).await > 8);
    assert_eq!(store.info("planner/cut").await, Ok(None));
    // Others' orphans are theirs, and so are young ones of ours while another may be uploading.
    let (context, _) = foreign(&server).await;
    let chunk = format!("$O.{BUCKET}.C.somebodyelses0rphan");
    context.publish(chunk, "chunk".into()).await.unwrap().await.unwrap();
    assert_eq!(store.purge_orphans(Duration::from_secs(3600)).await.unwrap().orphans, 0);
    assert_eq!(store.purge_orphans(Duration::ZERO).await.unwrap().orphans, 1);
    assert_eq!(chunks(&server).await, 2);
    assert_eq!(store.purge_orphans(Duration::ZERO).await.unwrap().orphans, 0);
    store.get("planner/kept", NO_LIMIT, &quiet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_put_leaves_orphans_that_are_removed() {
    let server = NatsServer::start();
    let store = open(&server).await;
    let (begun, mut has_begun) = tokio::sync::watch::channel(0);
    let tells = |done| {
        begun.send_replace(done);
    };
    let dropped = label("planner/dropped");
    tokio::select! {
        biased;
        _ = has_begun.wait_for(|done| *done >= 1024 * 1024) => {}
        _ = store.put(&dropped, noise(64 * MIB, 3), &tells) => panic!("faster than its beginning"),
    }
    assert_eq!(store.info("planner/dropped").await, Ok(None));
    // Another upload of the same store runs meanwhile and is left alone.
    begun.send_replace(0);
    let running = label("planner/running");
    let (put, purged) = tokio::join!(store.put(&running, noise(16 * MIB, 4), &tells), async {
        has_begun.wait_for(|done| *done >= 1024 * 1024).await.unwrap();
        store.purge_orphans(Duration::ZERO).await
    });
    put.unwrap();
    assert_eq!(purged.unwrap().orphans, 1);
    store.purge_orphans(Duration::ZERO).await.unwrap();
    assert_eq!(chunks(&server).await, 16 * MIB / CHUNK_BYTES);
    assert!(store.get("planner/running", NO_LIMIT, &quiet).await.unwrap() == noise(16 * MIB, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_bytes_are_never_handed_out() {
    let server = NatsServer::start();
    let store = open(&server).await;
    let bytes = noise(3 * CHUNK_BYTES, 5);
    let info = store.put(&label("planner/a"), bytes.clone(), &quiet).await.unwrap();
    let (context, stream) = foreign(&server).await;
    let subject = format!("$O.{BUCKET}.C.{}", info.nuid);
    let corrupt = async || match store.get("planner/a", NO_LIMIT, &quiet).await {
        Err(StoreFault::Corrupt { name, reason }) if name == "planner/a" => reason,
        other => panic!("{other:?}"),
    };
    let store_chunks = async |chunks: &[Bytes]| {
        stream.purge().filter(&subject).await.unwrap();
        for chunk in chunks {
            context.publish(subject.clone(), chunk.clone()).await.unwrap().await.unwrap();
        }
    };
    let parts: Vec<Bytes> =
        (0..3).map(|n| bytes.slice(n * CHUNK_BYTES..(n + 1) * CHUNK_BYTES)).collect();
    let mut flipped = parts[1].to_vec();
    flipped[77] ^= 1;
    store_chunks(&[parts[0].clone(), flipped.into(), parts[2].clone()]).await;
    assert_eq!(corrupt().await, "its digest does not match");
    store_chunks(&[parts[1].clone(), parts[0].clone(), parts[2].clone()]).await;
    assert_eq!(corrupt().await, "its digest does not match");
    store_chunks(&[parts[0].clone(), parts[2].clone()]).await;
    assert_eq!(corrupt().await, "2 chunks of 3");
    store_chunks(&[parts[0].clone(), parts[1].clone(), parts[2].slice(1..)]).await;
    assert_eq!(corrupt().await, format!("{} bytes of {}", bytes.len() - 1, bytes.len()));
    store_chunks(&[parts[0].clone(), parts[1].clone(), noise(CHUNK_BYTES + 1, 1)]).await;
    assert_eq!(corrupt().await, "it has more bytes than described");
    store_chunks(&parts).await;
    assert!(store.get("planner/a", NO_LIMIT, &quiet).await.unwrap() == bytes);
    assert!(store.delete("planner/a").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_description_does_no_harm() {
    let server = NatsServer::start();
    let store = open(&server).await;
    store.put(&label("planner/a"), noise(CHUNK_BYTES, 6), &quiet).await.unwrap();
    let (context, _) = foreign(&server).await;
    let digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=";
    let hostile = [
        format!(
            r#"{{"name": "x", "bucket": "b", "nuid": ">", "size": 1, "chunks": 1, "digest": "{digest}"}}"#
        ),
        format!(
            r#"{{"name": "y", "bucket": "b", "nuid": "n", "size": 0, "chunks": 0, "digest": "{digest}"}}"#
        ),
        r#"{"name": "x", "bucket": "b", "nuid": "n", "size": 0, "chunks": 0}"#.to_owned(),
        r#"{"name": "x", "options": {"link": {"bucket": "b", "name": "c"}}, "bucket": "b"}"#
            .to_owned(),
        r#"{"name": "x", "nuid": "n", "size": -1}"#.to_owned(),
        "no JSON".to_owned(),
    ];
    // The token of the name "x".
    let subject = format!("$O.{BUCKET}.M.eA==");
    for text in hostile {
        context.publish(subject.clone(), text.clone().into()).await.unwrap().await.unwrap();
        let fault = store.get("x", NO_LIMIT, &quiet).await.unwrap_err();
        assert!(matches!(fault, StoreFault::Malformed(_)), "{text}: {fault}");
        let fault = store.put(&label("x"), Bytes::new(), &quiet).await.unwrap_err();
        assert!(matches!(fault, StoreFault::Malformed(_)), "{text}: {fault}");
        let _ = store.delete("x").await;
        assert_eq!(store.list("planner/", 9).await.unwrap().objects.len(), 1);
        assert_eq!(store.purge_orphans(Duration::ZERO).await.unwrap().orphans, 0);
        assert_eq!(chunks(&server).await, 1, "{text}");
    }
    let huge = format!(
        r#"{{"name": "x", "nuid": "n", "size": 1152921504606846976, "chunks": 9, "digest": "{digest}"}}"#
    );
    context.publish(subject.clone(), huge.into()).await.unwrap().await.unwrap();
    let fault = store.get("x", 1024, &quiet).await.unwrap_err();
    assert!(matches!(fault, StoreFault::TooLarge { .. }), "{fault}");
    let fault = store.get("x", NO_LIMIT, &quiet).await.unwrap_err();
    assert!(matches!(fault, StoreFault::Corrupt { .. }), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_ends_every_call() {
    let server = NatsServer::start();
    let settings = hasty(&server);
    let store = Store::open(&settings, BUCKET).await.unwrap();
    let bytes = noise(64 * MIB, 7);
    store.put(&label("planner/a"), bytes.clone(), &quiet).await.unwrap();
    let freezes = |done| {
        if (1024 * 1024..2 * 1024 * 1024).contains(&done) {
            server.freeze();
        }
    };
    let stalls = async |what: &str, fault: StoreFault, since: Instant| {
        assert!(matches!(fault, StoreFault::Stalled(_)), "{what}: {fault}");
        assert!(since.elapsed() < Duration::from_secs(5), "{what}");
    };
    let since = Instant::now();
    let fault = store.get("planner/a", NO_LIMIT, &freezes).await.unwrap_err();
    stalls("get", fault, since).await;
    let since = Instant::now();
    stalls("info", store.info("planner/a").await.unwrap_err(), since).await;
    stalls("quiesce", store.clone().quiesce(Duration::from_millis(50)).await.unwrap_err(), since)
        .await;
    server.thaw();
    let store = Store::open(&settings, BUCKET).await.unwrap();
    let since = Instant::now();
    let fault = store.put(&label("planner/b"), noise(64 * MIB, 8), &freezes).await.unwrap_err();
    stalls("put", fault, since).await;
    store.sever().await;
    server.thaw();
    let store = open(&server).await;
    assert_eq!(store.info("planner/b").await, Ok(None));
    assert!(store.get("planner/a", NO_LIMIT, &quiet).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_quiesce_returns_nothing_follows() {
    let server = NatsServer::start();
    for round in 0..10 {
        let store = open(&server).await;
        let (_client, mut observer) = observer(&server).await;
        let (begun, mut has_begun) = tokio::sync::watch::channel(0);
        let running = tokio::spawn({
            let (store, name) = (store.clone(), label(&format!("planner/{round}")));
            async move {
                let tells = |done| {
                    begun.send_replace(done);
                };
                store.put(&name, noise(32 * MIB, 9), &tells).await
            }
        });
        has_begun.wait_for(|done| *done >= 512 * 1024).await.unwrap();
        store.quiesce(PATIENCE).await.unwrap();
        assert!(heard_before_now(&server, &mut observer).await >= 4);
        let revoked = Err(StoreFault::Revoked);
        assert_eq!(running.await.unwrap(), revoked);
        assert_eq!(store.put(&label("planner/late"), noise(9, 1), &quiet).await, revoked);
        assert_eq!(heard_before_now(&server, &mut observer).await, 0);
        assert_eq!(chunks(&server).await, 0, "the revoked upload removed its chunks");
        assert_eq!(store.info(&format!("planner/{round}")).await, Ok(None));
        store.quiesce(PATIENCE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_severed_store_is_gone_from_the_server() {
    let server = NatsServer::start();
    let store = open(&server).await;
    let (begun, mut has_begun) = tokio::sync::watch::channel(0);
    let running = tokio::spawn({
        let store = store.clone();
        async move {
            let tells = |done| {
                begun.send_replace(done);
            };
            store.put(&label("planner/a"), noise(64 * MIB, 9), &tells).await
        }
    });
    has_begun.wait_for(|done| *done > 0).await.unwrap();
    store.sever().await;
    assert_eq!(running.await.unwrap(), Err(StoreFault::Lost("severed".to_owned())));
    assert_eq!(store.quiesce(PATIENCE).await, Err(StoreFault::Lost("severed".to_owned())));
    assert_eq!(store.sever().now_or_never(), Some(()));
    eventually("the connection to be gone", || server.subscriptions_of("planner").is_none());
    // Dropping severs as well.
    let store = open(&server).await;
    assert!(server.subscriptions_of("planner").is_some());
    drop(store);
    eventually("the connection to be gone", || server.subscriptions_of("planner").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_created_or_compared() {
    let server = NatsServer::start();
    let mut settings = server.settings("planner");
    settings.provision = false;
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
    settings.provision = true;
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
