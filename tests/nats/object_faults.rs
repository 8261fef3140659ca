//! The object store when something breaks in the middle, on either side: what is left, what is
//! handed out, and when every call ends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the report, and what is skipped is said aloud"
)]

use std::time::{Duration, Instant};

use crate::support::nats_server::{NatsServer, PATIENCE, eventually};
use crate::support::object::{
    BUCKET, MIB, NO_LIMIT, chunks, foreign, hasty, heard_before_now, label, noise, observer, open,
    quiet, subjects,
};
use async_nats::jetstream::{self, object_store};
use bytes::Bytes;
use driftgate::nats::object::{CHUNK_BYTES, Content, Store, StoreFault};
use driftgate::protocol::digest::Digest;
use futures_util::FutureExt;

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
    // An object, and then no room for a tombstone beside it.
    let bytes = noise(MIB, 10);
    store.put(&label("planner/fits"), bytes.clone(), &quiet).await.unwrap();
    let filler = format!("$O.{BUCKET}.C.filler");
    for len in [100_000, 1_000, 1] {
        while let Ok(ack) = context.publish(filler.clone(), noise(len, 1)).await
            && ack.await.is_ok()
        {}
    }
    let fault = store.put(&label("planner/none"), Bytes::new(), &quiet).await.unwrap_err();
    assert!(matches!(fault, StoreFault::Full(_)), "{fault}");
    assert!(store.get("planner/fits", NO_LIMIT, &quiet).await.unwrap() == bytes);
    assert!(store.delete("planner/fits").await.unwrap());
    assert_eq!(subjects(&server, "C.>").await.len(), 1, "the filler alone");
    store.put(&label("planner/big"), noise(MIB / 2, 9), &quiet).await.unwrap();
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
    let (id, bytes) = (store.next_id(), noise(64 * MIB, 2));
    let (content, digest) = (Content::Bytes(bytes.clone()), Digest::of(&bytes));
    let cut = store.put_hashed(&label("planner/cut"), &id, content, digest, &kills).await;
    let fault = cut.unwrap_err();
    assert!(matches!(fault, StoreFault::Lost(_)), "{fault}");
    assert!(matches!(store.info("planner/kept").await, Err(StoreFault::Lost(_))));
    let mut server = server.into_inner().unwrap();
    server.restart();
    let store = open(&server).await;
    assert!(chunks(&server).await > 8);
    assert_eq!(store.info("planner/cut").await, Ok(None));
    // Others' orphans are theirs.
    let (context, _) = foreign(&server).await;
    let chunk = format!("$O.{BUCKET}.C.somebodyelses0rphan");
    context.publish(chunk, "chunk".into()).await.unwrap().await.unwrap();
    assert_eq!(store.settle("planner/cut", &id).await, Ok(None));
    assert_eq!(chunks(&server).await, 2);
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
    let (dropped, id, bytes) = (label("planner/dropped"), store.next_id(), noise(64 * MIB, 3));
    let (content, digest) = (Content::Bytes(bytes.clone()), Digest::of(&bytes));
    tokio::select! {
        biased;
        _ = has_begun.wait_for(|done| *done >= 1024 * 1024) => {}
        _ = store.put_hashed(&dropped, &id, content, digest, &tells) => {
            panic!("faster than its beginning")
        }
    }
    assert_eq!(store.info("planner/dropped").await, Ok(None));
    // What was still on its way counts.
    assert_eq!(store.settle("planner/dropped", &id).await, Ok(None));
    assert_eq!(chunks(&server).await, 0);
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
async fn p4_a_store_that_has_left_has_no_subscription_while_its_connection_stands() {
    let server = NatsServer::start();
    for round in 0..10 {
        let store = open(&server).await;
        let name = format!("planner/{round}");
        store.put(&label(&name), noise(MIB, 9), &quiet).await.unwrap();
        // A reader that is given up on half way leaves its subscription to be removed.
        assert!(store.get(&name, NO_LIMIT, &quiet).now_or_never().is_none());
        store.quiesce(PATIENCE).await.unwrap();
        store.leave(PATIENCE).await.unwrap();
        assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()));
        store.sever().await;
        eventually("the connection to be gone", || server.subscriptions_of("planner").is_none());
        assert!(matches!(store.leave(PATIENCE).await, Err(StoreFault::Lost(_))));
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
    assert!(matches!(running.await.unwrap(), Err(StoreFault::Lost(_))));
    assert_eq!(store.quiesce(PATIENCE).await, Err(StoreFault::Lost("severed".to_owned())));
    assert_eq!(store.sever().now_or_never(), Some(()));
    eventually("the connection to be gone", || server.subscriptions_of("planner").is_none());
    // Dropping severs as well.
    let store = open(&server).await;
    assert!(server.subscriptions_of("planner").is_some());
    drop(store);
    eventually("the connection to be gone", || server.subscriptions_of("planner").is_none());
}
