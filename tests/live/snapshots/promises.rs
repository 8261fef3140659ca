//! What the spool has promised, what the bucket may claim under our name, and what a pod can hold.

use driftgate::nats::object::{Label, Store};
use std::sync::Arc;

use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::snapshot::{Level, Manifest, Plain, encode_full};
use driftgate::protocol::time::Timestamp;
use driftgate::snapshots::bucket::{BUCKET, MANIFEST_ENTRY};
use driftgate::snapshots::spool::{Spool, put};

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, SECRET, Sidecar};
use crate::support::snapshots::{ask, index, noise, plan, pull, push};
use crate::support::wait::until;

const QUICK: &str = "[listen]\nreply_timeout = \"300ms\"\n\
                     [containment]\nbarrier_timeout = \"300ms\"\n";

/// The states of all snapshots.
async fn states(sidecar: &Sidecar) -> Vec<String> {
    let list = pull(sidecar, "?list", "").await.json();
    let list = list["snapshots"].as_array().cloned().unwrap_or_default();
    list.iter().map(|item| item["state"].as_str().unwrap_or("").to_owned()).collect()
}

/// A sidecar that was killed with one promised snapshot while the broker was away; both are back.
async fn promised(server: &mut NatsServer) -> Sidecar {
    let plan = plan("planner", "critic", &server.url()).with(QUICK);
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    server.kill();
    assert_eq!(push(&sidecar, b"promised").await.status, 202);
    sidecar.kill();
    server.restart();
    sidecar.start_again().await;
    sidecar.is_connected().await;
    until("the spool to be read", async || (states(&sidecar).await.len() == 1).then_some(())).await;
    sidecar
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_promise_of_an_earlier_life_waits_for_the_first_opening() {
    let mut server = NatsServer::start();
    let sidecar = promised(&mut server).await;
    assert_eq!(sidecar.post("{}").await.status, 422, "malformed");
    assert_eq!(states(&sidecar).await, ["unsent"], "after a malformed report");
    assert_eq!(sidecar.report(0.46).await["verdict"], "block", "latched");
    assert_eq!(states(&sidecar).await, ["unsent"], "after 0.46");
    sidecar.report(0.2).await;
    until("the promise to be kept", async || (states(&sidecar).await == ["stored"]).then_some(()))
        .await;
    assert_eq!(pull(&sidecar, "", "").await.body, b"promised");
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_promise_of_an_earlier_life_is_revoked_by_evidence_of_instability() {
    let mut server = NatsServer::start();
    let sidecar = promised(&mut server).await;
    assert_eq!(sidecar.report(0.52).await["verdict"], "block");
    until("it to be revoked", async || (states(&sidecar).await == ["revoked"]).then_some(())).await;
    sidecar.report(0.2).await;
    assert_eq!(push(&sidecar, b"the next").await.status, 201);
    assert_eq!(states(&sidecar).await, ["stored"], "the revoked one makes way");
}

/// A ring that signs with a key of that secret.
fn ring(id: &str, secret: [u8; 32]) -> Keyring {
    let key = KeyMaterial::hmac_secret(&secret).expect("a key");
    Keyring::new([(id.to_owned(), key)], Some(id)).expect("a ring")
}

/// Puts a full snapshot under the planner's name, signed with `keyring`.
async fn plant(server: &NatsServer, keyring: &Keyring, seq: u64, text: &[u8]) {
    let store = Store::open(&server.settings("mallory"), BUCKET).await.expect("a bucket");
    let plain = Plain::new(text.to_vec());
    let stored = encode_full(&plain, Level::DEFAULT).expect("a frame");
    let mut manifest = Manifest {
        runtime: RuntimeId::new("planner").expect("an id"),
        seq,
        digest: plain.digest(),
        size: plain.size(),
        stored_digest: Some(Digest::of(&stored)),
        stored_bytes: u64::try_from(stored.len()).expect("small"),
        base_digest: None,
        window_log: 10,
        media_type: "text/plain".to_owned(),
        time: Timestamp::from_unix_ms(1_767_225_600_000),
        di_band: Band::Open,
        objects: Vec::new(),
    };
    manifest.objects = vec![manifest.object_name().to_string()];
    let signed = manifest.sign(keyring).expect("signed");
    let label = Label {
        name: manifest.object_name().to_string(),
        media_type: None,
        metadata: [(MANIFEST_ENTRY.to_owned(), String::from_utf8(signed.clone()).unwrap())].into(),
    };
    store.put(&label, stored.into(), &|_| {}).await.expect("stored");
    store.sever().await;
    let index = index(server).await;
    index.put(format!("planner.{seq}"), signed.into()).await.expect("an entry");
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_under_our_own_name_only_the_key_that_we_sign_with_counts() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("k2");
    std::fs::write(&file, "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let seq =
        u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    plant(&server, &ring("k2", [9; 32]), seq, b"a peer's lie").await;
    let plan = plan("planner", "critic", &server.url());
    let mut sidecar = Sidecar::start(plan).await;
    let keys = format!(
        "[integrity]\nkeys = [{{ id = \"k1\", file = {:?} }}, {{ id = \"k2\", file = {file:?} }}]\n",
        sidecar.folder().join("k1"),
    );
    let more = sidecar.plan.clone().with(&keys);
    sidecar.kill();
    sidecar.plan = more;
    sidecar.start_again().await;
    sidecar.is_connected().await;
    sidecar.report(0.2).await;
    let own = pull(&sidecar, "", "").await;
    assert_eq!(own.status, 404, "{}", String::from_utf8_lossy(&own.body));
    assert_eq!(states(&sidecar).await, [""; 0]);
    // Nothing is built on it either.
    let reply = push(&sidecar, b"a peer's lie, and one line more").await;
    assert_eq!((reply.status, &reply.json()["kind"]), (201, &"full".into()), "{}", reply.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_no_number_of_ours_stops_uploads_for_good() {
    let server = NatsServer::start();
    // Signed with our own key, while the clock was wrong.
    plant(&server, &ring("k1", SECRET), (1 << 53) - 1, b"from the far future").await;
    let mut sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    sidecar.report(0.2).await;
    assert_eq!(push(&sidecar, b"first").await.status, 201);
    assert_eq!(pull(&sidecar, "", "").await.body, b"first");
    let said = sidecar.readiness().await["degraded"].to_string();
    assert!(said.contains("manifest_ahead"), "{said}");
    // Nor does a number of our own spool, which no clock has reached either.
    sidecar.kill();
    let folder = sidecar.folder().join("spool/snapshots");
    let spool = Arc::new(Spool::open(&folder, 1 << 20).unwrap());
    spool.recover().unwrap();
    put(&spool, b"second", Timestamp::from_unix_ms(9_007_199_254_740)).unwrap();
    drop(spool);
    sidecar.start_again().await;
    sidecar.is_connected().await;
    sidecar.report(0.2).await;
    until("it to be stored", async || (states(&sidecar).await.last()? == "stored").then_some(()))
        .await;
    assert_eq!(push(&sidecar, b"third").await.status, 201);
    let critic = Sidecar::connected(plan("critic", "planner", &server.url())).await;
    assert_eq!(pull(&critic, "?source=planner", "").await.body, b"third");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_odd_pushes_erase_no_memory_and_too_many_bytes_are_refused() {
    let server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url())
        .with("[snapshot]\nkeep_full = 1\nbytes_max = \"1MiB\"\nstored_bytes_max = \"1MiB\"\n");
    let sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    let mut text = noise(17, 60_000);
    for step in 0..5 {
        text.extend_from_slice(format!("line {step}").as_bytes());
        assert_eq!(push(&sidecar, &text).await.status, 201);
    }
    for odd in [noise(18, 300), noise(19, 300)] {
        assert_eq!(push(&sidecar, &odd).await.status, 201);
    }
    assert_eq!(states(&sidecar).await, ["stored"; 7], "an hour is not over");
    let large = push(&sidecar, &noise(20, 800_000)).await;
    assert_eq!(large.status, 201, "{}", large.json());
    let beyond = push(&sidecar, &noise(21, 800_000)).await;
    assert_eq!(beyond.status, 507, "{}", beyond.head);
    assert!(beyond.json()["detail"].as_str().unwrap().contains("snapshot.stored_bytes_max"));
    assert_eq!(states(&sidecar).await, ["stored"; 8], "and the oldest is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_push_has_to_be_meant() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    sidecar.report(0.2).await;
    let refused = push(&sidecar, b"").await;
    assert_eq!(refused.status, 422, "{}", refused.head);
    assert!(refused.json()["detail"].as_str().unwrap().contains("?empty"), "{}", refused.json());
    let meant = ask(sidecar.api, "PUT /memory/snapshot?empty", "", b"").await.unwrap();
    assert_eq!(meant.status, 201, "{}", meant.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_uploaded_that_nobody_is_authorised_for() {
    let server = NatsServer::start();
    let ended = "[[peers]]\nid = \"critic\"\nexport = [\"snapshot\"]\n\
                 expires = \"2020-01-01T00:00:00Z\"\n";
    for plan in [
        Plan::new("planner", &["critic"], &server.url()),
        Plan::new("planner", &[], &server.url()).with(ended),
    ] {
        let mut sidecar = Sidecar::connected(plan).await;
        sidecar.report(0.2).await;
        let refused = push(&sidecar, b"for nobody").await;
        assert_eq!(refused.status, 403, "{}", refused.head);
        assert_eq!(refused.json()["type"], "urn:driftgate:problem:no-reader");
        sidecar.stop().await;
    }
}

/// A memory cgroup, where one may be made.
struct Pod(std::path::PathBuf);

impl Pod {
    fn of(bytes: u64) -> Option<Self> {
        let name = format!("driftgate-test-{}", std::process::id());
        let (v1, v2) = ("/sys/fs/cgroup/memory", "/sys/fs/cgroup");
        let is_v1 = std::path::Path::new(v1).is_dir();
        let folder = std::path::Path::new(if is_v1 { v1 } else { v2 }).join(name);
        std::fs::create_dir(&folder).ok()?;
        let pod = Self(folder);
        let limit = if is_v1 { "memory.limit_in_bytes" } else { "memory.max" };
        std::fs::write(pod.0.join(limit), bytes.to_string()).ok()?;
        Some(pod)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn peak(sidecar: &Sidecar) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", sidecar.id())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_no_push_kills_a_sidecar_limited_to_96_mib() {
    const LIMIT: u64 = 96 << 20;
    let Some(pod) = Pod::of(LIMIT) else {
        println!("SKIPPED: no memory cgroup may be made here");
        return;
    };
    let server = NatsServer::start();
    let enter = format!("echo $$ > {}", pod.0.join("cgroup.procs").display());
    let plan = plan("planner", "critic", &server.url())
        .with("[listen]\nreply_timeout = \"30s\"\n")
        .after(&enter);
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    // What it could store and not hand out again it does not take.
    let refused = push(&sidecar, &noise(63, 64 << 20)).await;
    assert_eq!(refused.status, 413, "{}", refused.head);
    assert!(refused.json()["detail"].as_str().unwrap().contains("snapshot.bytes_max"));
    let mut large = noise(64, 12 << 20);
    for round in 0..3 {
        large[round] ^= 1;
        let reply = push(&sidecar, &large).await;
        assert!([201, 202].contains(&reply.status), "{}", reply.head);
        until("it to be stored", async || {
            sidecar.report(0.2).await;
            states(&sidecar).await.iter().all(|state| state == "stored").then_some(())
        })
        .await;
        println!("peak of a 12 MiB push: {} MiB", peak(&sidecar) >> 20);
        assert!(peak(&sidecar) < LIMIT, "{}", peak(&sidecar));
    }
    sidecar.kill();
    sidecar.start_again().await;
    sidecar.is_connected().await;
    sidecar.report(0.2).await;
    until("the spool to be read", async || (!states(&sidecar).await.is_empty()).then_some(()))
        .await;
    println!("peak of a restart: {} MiB", peak(&sidecar) >> 20);
    drop(sidecar);
}
