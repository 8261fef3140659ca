//! What a look into a bucket costs that many have filled: each listing and each fetch begins with
//! one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use driftgate::nats::object::Content;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::snapshot::{Evidence, Manifest, Reader};
use driftgate::protocol::time::Timestamp;
use driftgate::snapshots::bucket::{self, Bucket, Enclosed, Put};
use driftgate::snapshots::fetch::{Source, list};
use futures_util::StreamExt as _;

use super::support::nats_server::NatsServer;
use super::support::sidecar::{SECRET, Sidecar};
use super::support::snapshots::{plan, pull};

const OBJECTS: u64 = 2_000;
const ROUNDS: usize = 9;

/// A manifest as deep in a chain as they come.
fn manifest(runtime: &str, seq: u64) -> Manifest {
    let digest = |seq: u64| Digest::of(&seq.to_le_bytes());
    let mut manifest = Manifest {
        runtime: RuntimeId::new(runtime).unwrap(),
        seq,
        digest: digest(seq),
        size: 1 << 20,
        stored_digest: Some(digest(seq)),
        stored_bytes: 8,
        base_digest: None,
        window_log: 21,
        media_type: "application/jsonl".to_owned(),
        time: Timestamp::from_unix_ms(1_800_000_000_000),
        di_band: Band::Open,
        objects: Vec::new(),
    };
    let root = Manifest { seq: seq - 15, digest: digest(seq - 15), ..manifest.clone() };
    manifest.objects.push(root.object_name().to_string());
    manifest.base_digest = Some(digest(seq - 1));
    for before in (seq - 14)..seq {
        let delta = Manifest { seq: before, digest: digest(before), ..manifest.clone() };
        manifest.objects.push(delta.object_name().to_string());
    }
    manifest.objects.push(manifest.object_name().to_string());
    manifest
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

pub(crate) async fn print() {
    let server = NatsServer::start();
    let key = || KeyMaterial::hmac_secret(&SECRET).unwrap();
    let keyring = Keyring::new([("k1".to_owned(), key())], Some("k1")).unwrap();
    let bucket = Bucket::open(&server.settings("planner")).await.unwrap();
    println!("\nA look into a bucket of {OBJECTS} objects, medians of {ROUNDS}, in ms");
    for (runtime, count) in [("planner", 100), ("others", OBJECTS - 100)] {
        let puts = (0..count).map(|number| {
            let manifest = manifest(runtime, 1_800_000_000_000_000 + number * 1000);
            let (signed, bucket) = (manifest.sign(&keyring).unwrap(), &bucket);
            let readers = [Reader::default()];
            let envelope =
                manifest.enclose(&keyring, readers.iter(), &Evidence::default()).unwrap();
            async move {
                let upload = Put {
                    name: &manifest.object_name().to_string(),
                    id: &bucket.next_id(),
                    key: &bucket::key(&manifest.runtime, manifest.seq),
                    media_type: &manifest.media_type,
                    manifest: Enclosed { manifest: signed.into(), envelope: Some(envelope) },
                    content: Content::Bytes(Bytes::copy_from_slice(&manifest.seq.to_le_bytes())),
                    digest: manifest.digest,
                };
                bucket.put(upload, &|_| {}).await.unwrap();
            }
        });
        futures_util::stream::iter(puts).buffer_unordered(32).collect::<Vec<()>>().await;
    }
    println!("{:<34} {:>8} {:>8}", "", "first", "next");
    for (runtime, count) in [("planner", 100), ("others", OBJECTS - 100)] {
        let source = Source::any(RuntimeId::new(runtime).unwrap());
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let found = list(&bucket, &source, &keyring).await.unwrap().manifests;
            times.push(begin.elapsed());
            assert_eq!(found.len() as u64, count);
        }
        let (first, next) = (times.remove(0).as_secs_f64() * 1e3, median(times));
        println!("{:<34} {first:>8.1} {next:>8.1}", format!("read and verified, {count} of them"));
        let mut critic = plan("critic", runtime, &server.url());
        critic = critic.with("[containment]\nstale_after = \"24h\"\n");
        let critic = Sidecar::connected(critic).await;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let list = pull(&critic, &format!("?source={runtime}&list"), "").await;
            times.push(begin.elapsed());
            let found = list.json()["snapshots"].as_array().unwrap().len();
            assert_eq!(found as u64, count);
        }
        let (first, next) = (times.remove(0).as_secs_f64() * 1e3, median(times));
        println!("{:<34} {first:>8.1} {next:>8.1}", format!("GET ?source&list, {count} of them"));
    }
    bucket.sever().await;
}
