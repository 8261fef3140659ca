//! A recorded run as growing snapshots, through the real binary and broker: what it costs, and that
//! every one comes back byte for byte.

use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::packet::RuntimeId;
use driftgate::snapshots::bucket::Bucket;
use driftgate::snapshots::fetch::{Source, fetch, manifests};

use super::rig::{plan, push};
use super::support::nats_server::NatsServer;
use super::support::sidecar::{SECRET, Sidecar};

/// Snapshot n is the first n lines of the file that `DRIFTGATE_HORIZON` names; without one, of a
/// short run made up here.
fn lines() -> Vec<String> {
    if let Some(path) = std::env::var_os("DRIFTGATE_HORIZON") {
        let text = std::fs::read_to_string(path).expect("DRIFTGATE_HORIZON names a file");
        return text.split_inclusive('\n').map(str::to_owned).collect();
    }
    println!("DRIFTGATE_HORIZON is not set: 40 lines made up here instead of a recorded run");
    let line = |number: u64| {
        let noise = super::rig::noise(number, 300);
        let text: String = noise.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        format!("{{\"cycle\": {number}, \"text\": \"{text}\"}}\n")
    };
    (0..40).map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_snapshot_of_a_long_run_is_stored_at_the_cost_of_its_change_and_restored() {
    let server = NatsServer::start();
    // Retention would let go of the oldest, and all are to be restored.
    let plan = plan("planner", "critic", &server.url()).with("[snapshot]\nkeep_full = 1000\n");
    let sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    let (mut text, mut plains) = (String::new(), Vec::new());
    let (mut raw, mut single) = (0_u64, 0_u64);
    let begin = std::time::Instant::now();
    for line in lines() {
        text.push_str(&line);
        let reply = push(&sidecar, text.as_bytes()).await;
        assert_eq!(reply.status, 201, "{}", reply.json());
        raw += u64::try_from(text.len()).unwrap();
        let alone = zstd::encode_all(text.as_bytes(), 3).unwrap();
        single += u64::try_from(alone.len()).unwrap();
        plains.push(text.clone());
    }
    let pushed = begin.elapsed();
    let settings = server.settings("observer");
    let bucket = Bucket::open(&settings).await.expect("the bucket");
    let key = KeyMaterial::hmac_secret(&SECRET).expect("a key");
    let keyring = Keyring::new([("k1".to_owned(), key)], None).expect("a ring");
    let source = Source { id: RuntimeId::new("planner").unwrap(), key_id: None, floor: 0 };
    let found = manifests(&bucket, &source, &keyring).await.expect("a list");
    assert_eq!(found.len(), plains.len());
    let begin = std::time::Instant::now();
    for (manifest, plain) in found.iter().zip(&plains) {
        let restored = fetch(&bucket, manifest, 1 << 30, &|_| {}).await.expect("restored");
        assert_eq!(restored.bytes().as_ref(), plain.as_bytes(), "snapshot {}", manifest.seq);
    }
    let restored = begin.elapsed();
    bucket.sever().await;
    let stored: u64 = found.iter().map(|manifest| manifest.stored_bytes).sum();
    let objects = found.iter().map(|manifest| manifest.objects.len()).max().unwrap_or(0);
    println!(
        "{} snapshots: raw {raw} B, zstd each {single} B, stored {stored} B, {} times less; \
         at most {objects} objects; pushed in {pushed:?} (with zstd of each), restored in {restored:?}",
        plains.len(),
        single / stored.max(1),
    );
    assert!(objects <= 16 && stored * 2 < single);
}
