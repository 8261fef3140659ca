//! A peer's snapshots: fetched when authorised, believed only when everything about them is right.

use driftgate::nats::object::{Label, Store};
use driftgate::snapshots::bucket::{BUCKET, MANIFEST_ENTRY};

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::snapshots::{index, key, noise, objects, plan, pull, push};

#[tokio::test(flavor = "multi_thread")]
async fn an_authorised_peer_reads_it_and_another_does_not() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let critic = Sidecar::connected(plan("critic", "planner", &server.url())).await;
    let stranger = Sidecar::connected(Plan::new("stranger", &["planner"], &server.url())).await;
    planner.report(0.2).await;
    let first = noise(7, 100_000);
    let mut second = first.clone();
    second.extend_from_slice(b"more");
    push(&planner, &first).await;
    push(&planner, &second).await;
    let found = pull(&critic, "?source=planner", "").await;
    assert_eq!((found.status, &found.body), (200, &second));
    assert_eq!(found.header("content-type"), Some("text/plain"));
    let list = pull(&critic, "?source=planner&list", "").await.json();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(pull(&stranger, "?source=planner", "").await.status, 404);
    assert_eq!(pull(&critic, "?source=nobody", "").await.status, 404);
    // An isolated gate fetches nothing.
    critic.report(0.7).await;
    assert_eq!(pull(&critic, "?source=planner", "").await.status, 423);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_deleted_or_put_in_its_place_is_refused() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let critic = Sidecar::connected(plan("critic", "planner", &server.url())).await;
    planner.report(0.2).await;
    let first = noise(8, 60_000);
    let mut second = first.clone();
    second.extend_from_slice(b"more");
    push(&planner, &first).await;
    push(&planner, &second).await;
    let store = Store::open(&server.settings("mallory"), BUCKET).await.unwrap();
    let [base, delta] = <[_; 2]>::try_from(objects(&server).await).expect("two objects");
    let bytes = store.get(&delta.name, u64::MAX, &|_| {}).await.unwrap();

    // A manifest under another key, of another runtime, and none at all.
    let index = index(&server).await;
    let manifest = delta.metadata[MANIFEST_ENTRY].clone();
    for key in ["planner.9999999999999999", "planner.x", "critic.1"] {
        index.put(key, manifest.clone().into()).await.unwrap();
    }
    index.put("planner.9999999999999998", "no manifest".into()).await.unwrap();
    let found = pull(&critic, "?source=planner", "").await;
    assert_eq!((found.status, &found.body), (200, &second), "the forged ones are left out");

    // The newest with other bytes under its name and its own manifest: a bomb.
    store.delete(&delta.name).await.unwrap();
    let bomb = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
    let label =
        Label { name: delta.name.clone(), media_type: None, metadata: delta.metadata.clone() };
    store.put(&label, bomb.into(), &|_| {}).await.unwrap();
    let fresh = Sidecar::connected(plan("critic2", "planner", &server.url())).await;
    let found = pull(&fresh, "?source=planner", "").await;
    assert_eq!(found.status, 502, "{}", found.head);

    // The base is gone: the delta cannot be restored, and asking again does not help.
    store.delete(&delta.name).await.unwrap();
    let label =
        Label { name: delta.name.clone(), media_type: None, metadata: delta.metadata.clone() };
    store.put(&label, bytes, &|_| {}).await.unwrap();
    store.delete(&base.name).await.unwrap();
    let found = pull(&fresh, "?source=planner", "").await;
    assert_eq!(found.status, 502, "{}", found.head);

    // All is gone.
    for object in [&base, &delta] {
        index.delete(key(&object.name)).await.unwrap();
    }
    assert_eq!(pull(&critic, "?source=planner", "").await.status, 404);
    store.sever().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_restores_straight_from_the_bucket() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    planner.report(0.2).await;
    let first = noise(9, 50_000);
    let mut second = first.clone();
    second.extend_from_slice(b"more");
    push(&planner, &first).await;
    push(&planner, &second).await;
    let out = planner.folder().join("out");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["snapshot", "restore", "--config"])
        .arg(planner.folder().join("base.toml"))
        .arg("planner")
        .arg(&out)
        .status()
        .expect("the binary under test");
    assert!(status.success());
    assert_eq!(std::fs::read(out).unwrap(), second);
}
