//! What an older version left behind, read by this one: its spool, memory, packets and manifests,
//! kept in `tests/fixtures/golden`, one folder a version. They are made by the binary itself:
//! `DRIFTGATE_WRITE_GOLDEN=1 cargo test --locked --test live golden`, once before a release.

use std::fs;
use std::path::{Path, PathBuf};

use driftgate::commands::verify::{Check, Proof, Totals, verify};
use driftgate::protocol::snapshot::VerifiedManifest;
use driftgate::protocol::time::Timestamp;
use futures_util::TryStreamExt as _;

use super::support::forge::{draft, fleet_keyring, sign, unix_ms};
use super::support::nats_server::NatsServer;
use super::support::observer::{Observer, stored};
use super::support::sidecar::Sidecar;
use super::support::snapshots::{index, plan, pull, push};
use super::support::wait::until;

const FROM_CRITIC: &str = "driftgate.v1.state.critic.planner";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden")
}

/// The `number`th snapshot; the newest was never sent.
fn snapshot(number: u8) -> Vec<u8> {
    (0..200)
        .map(|line| format!("line {line} of golden snapshot {number}\n"))
        .collect::<String>()
        .into()
}

/// Copies files and folders, but for the lock and sockets of a life.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let place = to.join(entry.file_name().unwrap());
        if kind.is_dir() {
            copy(&entry, &place);
        } else if kind.is_file() {
            fs::copy(&entry, &place).unwrap();
        }
    }
}

/// A life of this version: two snapshots at the broker, a third that is unsent, a peer's packet.
async fn write(folder: &Path) {
    let mut server = NatsServer::start();
    let mut planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    planner.stores().await;
    let observer = Observer::start(&server.url()).await;
    let from_critic = sign(
        &draft("critic", "planner"),
        &fleet_keyring(),
        u64::try_from(unix_ms()).unwrap() * 1000,
    );
    observer.store(FROM_CRITIC, &from_critic).await;
    until("the critic's packet", async || planner.shown("critic").await).await;
    for number in [1, 2] {
        assert_eq!(push(&planner, &snapshot(number)).await.status, 201);
    }
    fs::create_dir_all(folder.join("manifests")).unwrap();
    let packets = stored(&observer.client, "DRIFTGATE_STATE").await;
    let ours =
        packets.iter().rfind(|message| message.subject.as_str().ends_with(".planner.critic"));
    fs::write(folder.join("packet.json"), &ours.unwrap().payload).unwrap();
    fs::write(folder.join("from-critic.json"), &from_critic).unwrap();
    let manifests = index(&server).await;
    let keys: Vec<String> = manifests.keys().await.unwrap().try_collect().await.unwrap();
    for (number, key) in (1..).zip(keys) {
        let manifest = manifests.get(key).await.unwrap().unwrap();
        fs::write(folder.join(format!("manifests/{number}.json")), manifest).unwrap();
    }
    server.kill();
    until("the broker to be gone", async || {
        (planner.readiness().await["broker"] != "connected").then_some(())
    })
    .await;
    assert_eq!(push(&planner, &snapshot(3)).await.status, 202);
    planner.stop().await;
    copy(&planner.folder().join("spool"), &folder.join("spool"));
}

fn assert_verifies(folder: &Path) {
    let check = Check {
        proof: Proof::Keyed(fleet_keyring()),
        block: 0.5,
        max_age: None,
        clock: &Timestamp::default,
        json: false,
    };
    for name in ["packet.json", "from-critic.json"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        let mut said = Vec::new();
        let totals = verify(&mut bytes.as_slice(), &mut said, &check).unwrap();
        assert_eq!(totals, Totals { good: 1, bad: 0 }, "{}", String::from_utf8_lossy(&said));
    }
    let mut manifests = 0;
    for entry in fs::read_dir(folder.join("manifests")).unwrap() {
        let manifest = fs::read(entry.unwrap().path()).unwrap();
        let manifest = VerifiedManifest::open(&fleet_keyring(), &manifest).unwrap();
        assert_eq!(
            manifest.manifest().object_name().to_string().split('/').next(),
            Some("planner")
        );
        manifests += 1;
    }
    assert!(manifests >= 2, "{manifests}");
}

async fn assert_takes_over(folder: &Path) {
    let server = NatsServer::start();
    let mut planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    planner.stop().await;
    let spool = planner.folder().join("spool");
    fs::remove_dir_all(&spool).unwrap();
    copy(&folder.join("spool"), &spool);
    planner.start_again().await;
    planner.is_connected().await;
    planner.stores().await;
    let degraded = planner.readiness().await["degraded"].to_string();
    assert!(!degraded.contains("damaged"), "{degraded}");
    let newest = pull(&planner, "", "").await;
    assert_eq!((newest.status, newest.body), (200, snapshot(3)));
    until("the unsent snapshot to be sent", async || {
        let sent = planner.books().await.sum("snapshot_uploaded_objects", &[]);
        (sent > 0).then_some(())
    })
    .await;

    // The floor of the peer stands: what it said then is no news, however old it is.
    let observer = Observer::start(&server.url()).await;
    observer.store(FROM_CRITIC, &fs::read(folder.join("from-critic.json")).unwrap()).await;
    until("the critic's packet, again", async || {
        let books = planner.books().await;
        let replayed = books.sum("inbound_refused", &[("fault", "replayed")]);
        assert_eq!(books.sum("inbound_refused", &[]), replayed, "{books:?}");
        assert_eq!(books.sum("inbound_accepted", &[]), 0);
        (replayed + books.sum("inbound_redelivered", &[]) == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_version_left_behind_is_read() {
    if std::env::var_os("DRIFTGATE_WRITE_GOLDEN").is_some() {
        let folder = golden().join(env!("CARGO_PKG_VERSION"));
        drop(fs::remove_dir_all(&folder));
        write(&folder).await;
    }
    let mut versions = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let folder = entry.unwrap().path();
        println!("{}", folder.display());
        assert_verifies(&folder);
        assert_takes_over(&folder).await;
        versions += 1;
    }
    assert!(versions > 0, "nothing is kept");
}
