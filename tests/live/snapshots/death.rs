//! `kill -9` while a snapshot is pushed, uploaded, and while retention lets go of older ones: what
//! was promised is there, and what is garbage does not stay (P8).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use driftgate::protocol::digest::Digest;
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::snapshot::{ChainEntry, DeltaChain, Manifest};
use driftgate::snapshots::bucket::{BUCKET, Bucket};
use driftgate::snapshots::fetch::{Source, fetch, list};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::watch;

use crate::support::nats_server::NatsServer;
use crate::support::object::subjects;
use crate::support::report::Dice;
use crate::support::sidecar::{SECRET, Sidecar};
use crate::support::snapshots::{ask, noise, objects, plan, pull};
use crate::support::wait::{LONG, until};

/// Deaths in a test run; `DRIFTGATE_KILLS=100` for the figure.
const KILLS: u64 = 15;
/// So that nearly every upload lets go of something.
const KEEP_FULL: usize = 2;

/// What the bucket has heard so far.
#[derive(Clone, Copy, Default)]
struct Heard {
    chunks: u64,
    tombstones: u64,
}

async fn listen(server: &NatsServer) -> watch::Receiver<Heard> {
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut subscriber = client.subscribe(format!("$O.{BUCKET}.>")).await.unwrap();
    client.flush().await.unwrap();
    let (sender, heard) = watch::channel(Heard::default());
    tokio::spawn(async move {
        let _client = client;
        while let Some(message) = subscriber.next().await {
            let is_chunk = message.subject.contains(".C.");
            let meta: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            sender.send_modify(|heard| {
                heard.chunks += u64::from(is_chunk);
                heard.tombstones += u64::from(!is_chunk && meta["deleted"] == true);
            });
        }
    });
    heard
}

/// Waits for the moment at which this life ends.
async fn moment(life: u64, dice: &mut Dice, mut heard: watch::Receiver<Heard>) -> &'static str {
    let somewhen = Duration::from_millis(20 + dice.below(300));
    tokio::time::sleep_until(tokio::time::Instant::now() + somewhen).await;
    let what = ["any moment", "an upload", "a collection"][usize::try_from(life % 3).unwrap()];
    if what == "any moment" {
        return what;
    }
    let before = *heard.borrow_and_update();
    let is_upload = what == "an upload";
    let has_come = heard.wait_for(|now| match is_upload {
        true => now.chunks > before.chunks,
        false => now.tombstones > before.tombstones,
    });
    drop(tokio::time::timeout(LONG, has_come).await.expect("it uploads and collects"));
    let later = Duration::from_micros(dice.below(3000));
    tokio::time::sleep_until(tokio::time::Instant::now() + later).await;
    what
}

/// Pushes one after the other until the sidecar is gone; what was accepted.
async fn pushes(api: std::net::SocketAddr, life: u64, text: &mut Vec<u8>) -> Vec<(u64, Digest)> {
    let mut accepted = Vec::new();
    for step in 0_u64.. {
        // Every third is something else, so that there are full frames, and older ones go.
        let body = if step % 3 == 2 { noise(life * 1000 + step, 40_000) } else { text.clone() };
        text.extend_from_slice(format!("line {life} {step}\n").as_bytes());
        match ask(api, "PUT /memory/snapshot", "", &body).await {
            Some(reply) if [200, 201, 202].contains(&reply.status) => {
                let seq = reply.json()["seq"].as_u64().expect("a number");
                accepted.push((seq, Digest::of(&body)));
            }
            // The spool is still being read; nothing was promised.
            Some(reply) if reply.status == 503 => {}
            Some(reply) => panic!("{} {:?}", reply.head, reply.json()),
            None => break,
        }
    }
    accepted
}

/// Waits until the bucket holds what retention keeps and nothing else, no chunk without an object,
/// no object without a manifest; and restores all of it.
async fn whole_bucket(server: &NatsServer) -> Vec<Manifest> {
    let key = KeyMaterial::hmac_secret(&SECRET).unwrap();
    let keyring = Keyring::new([("k1".to_owned(), key)], None).unwrap();
    let source = Source::any(RuntimeId::new("planner").unwrap());
    let found = until("the bucket to hold what it should and nothing else", async || {
        let chunks: BTreeSet<String> = subjects(server, "C.>")
            .await
            .into_iter()
            .filter_map(|(subject, _)| subject.rsplit('.').next().map(str::to_owned))
            .collect();
        let objects = objects(server).await;
        let described: BTreeSet<String> = objects.iter().map(|info| info.nuid.clone()).collect();
        let bucket = Bucket::open(&server.settings("observer")).await.ok()?;
        let found = list(&bucket, &source, &keyring).await.ok()?.manifests;
        bucket.sever().await;
        let is_whole =
            chunks == described && found.len() == objects.len() && garbage(&found).is_empty();
        is_whole.then_some(found)
    })
    .await;
    let bucket = Bucket::open(&server.settings("observer")).await.unwrap();
    for manifest in &found {
        // It checks the digest that was signed.
        fetch(&bucket, manifest, 1 << 30, &|_| {}).await.expect("whatever is listed is restored");
    }
    bucket.sever().await;
    found
}

fn garbage(manifests: &[Manifest]) -> Vec<u64> {
    let seq_of = |digest: Digest| {
        manifests.iter().find(|known| known.digest == digest).map(|known| known.seq)
    };
    let entry = |manifest: &Manifest| ChainEntry {
        seq: manifest.seq,
        digest: manifest.digest,
        base: manifest.base_digest.map(|digest| seq_of(digest).expect("the base is there")),
        size: manifest.size,
        stored: manifest.stored_bytes,
    };
    DeltaChain::from_entries(manifests.iter().map(entry))
        .expect("a chain")
        .garbage(KEEP_FULL, u64::MAX)
}

/// What was promised and is gone although retention keeps it: fewer than [`KEEP_FULL`] full frames
/// came after it.
fn lost(promised: &[(u64, Digest)], manifests: &[Manifest]) -> Vec<(u64, Digest)> {
    let newer = |seq: u64| {
        let is_newer = |known: &&Manifest| known.seq > seq && known.base_digest.is_none();
        manifests.iter().filter(is_newer).count()
    };
    let is_there = |digest: Digest| manifests.iter().any(|known| known.digest == digest);
    let is_lost = |&(seq, digest): &(u64, Digest)| newer(seq) < KEEP_FULL && !is_there(digest);
    promised.iter().copied().filter(is_lost).collect()
}

/// Starts it again; how long until a push is answered 201.
async fn recover(sidecar: &mut Sidecar, life: u64) -> Duration {
    let begin = Instant::now();
    sidecar.start_again().await;
    // Its first connection to the bucket is for reading, and serves the push as well.
    assert_eq!(pull(sidecar, "?list", "").await.status, 200);
    until("a push to be stored", async || {
        sidecar.report(0.2).await;
        let body = format!("after death {life}");
        let reply = ask(sidecar.api, "PUT /memory/snapshot", "", body.as_bytes()).await?;
        [200, 201].contains(&reply.status).then_some(())
    })
    .await;
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_no_death_loses_what_was_promised_or_leaves_garbage() {
    let server = NatsServer::start();
    let more = format!(
        "[snapshot]\nkeep_full = {KEEP_FULL}\nkeep_for = \"0s\"\n[listen]\nreply_timeout = \"200ms\"\n\
         [containment]\nbarrier_timeout = \"200ms\"\n"
    );
    let plan = plan("planner", "critic", &server.url()).with(&more);
    let mut sidecar = Sidecar::connected(plan).await;
    let kills = std::env::var("DRIFTGATE_KILLS").ok().and_then(|text| text.parse().ok());
    let heard = listen(&server).await;
    let mut dice = Dice::new(11);
    let mut text = noise(6, 60_000);
    let mut promised: Vec<(u64, Digest)> = Vec::new();
    let mut recoveries = Vec::new();
    let mut manifests = Vec::new();
    for life in 0..kills.unwrap_or(KILLS) {
        sidecar.report(0.2).await;
        let api = sidecar.api;
        let kill = async {
            let what = moment(life, &mut dice, heard.clone()).await;
            sidecar.kill();
            what
        };
        let (accepted, what) = tokio::join!(pushes(api, life, &mut text), kill);
        promised.extend(accepted);
        recoveries.push(recover(&mut sidecar, life).await);
        manifests = whole_bucket(&server).await;
        let lost = lost(&promised, &manifests);
        assert!(lost.is_empty(), "killed at {what}: {lost:?}\n{manifests:#?}\n{}", sidecar.log());
    }
    recoveries.sort_unstable();
    println!(
        "{} deaths; {} promised, 0 of what retention keeps lost; {} objects deleted, {} left; \
         from start to the next 201: median {:?}, longest {:?}",
        recoveries.len(),
        promised.len(),
        heard.borrow().tombstones,
        manifests.len(),
        recoveries[recoveries.len() / 2],
        recoveries[recoveries.len() - 1],
    );
    let newest = pull(&sidecar, "", "").await;
    assert_eq!(Digest::of(&newest.body), manifests.last().expect("some").digest);
    assert!(heard.borrow().tombstones > kills.unwrap_or(KILLS), "collection was under way");
}
