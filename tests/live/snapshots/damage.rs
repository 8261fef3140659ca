//! What others, or a disk, have broken: the spool on its way through the real binary, and the
//! bucket under the hands of somebody who may write to it.

use driftgate::nats::object::{Label, Store};
use driftgate::protocol::digest::Digest;
use driftgate::snapshots::bucket::BUCKET;

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{index, key, noise, objects, plan, pull, push};
use crate::support::wait::until;

const QUICK: &str = "[listen]\nreply_timeout = \"300ms\"\n\
                     [containment]\nbarrier_timeout = \"300ms\"\n";

/// The states of all snapshots, once none is unsent.
async fn settled(sidecar: &Sidecar) -> Vec<String> {
    until("every snapshot to be sent", async || {
        let list = pull(sidecar, "?list", "").await.json();
        let list = list["snapshots"].as_array()?.clone();
        let states = list.iter().map(|item| item["state"].as_str().unwrap_or("").to_owned());
        let states: Vec<String> = states.collect();
        (!states.is_empty() && states.iter().all(|state| state != "unsent")).then_some(states)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_the_next_and_sends_what_waits() {
    let mut server = NatsServer::start();
    let small = "[snapshot]\nbytes_max = \"1MiB\"\nspool_bytes_max = \"1MiB\"\n";
    let plan = plan("planner", "critic", &server.url()).with(QUICK).with(small);
    let sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    server.kill();
    let (first, second) = (noise(70, 600_000), noise(71, 600_000));
    assert_eq!(push(&sidecar, &first).await.status, 202);
    let refused = push(&sidecar, &second).await;
    assert_eq!(refused.status, 507, "{}", refused.head);
    assert!(refused.json()["detail"].as_str().unwrap().contains("spool is full"));
    server.restart();
    sidecar.is_connected().await;
    assert_eq!(settled(&sidecar).await, ["stored"]);
    assert_eq!(pull(&sidecar, "", "").await.body, first);
    let accepted = push(&sidecar, &second).await;
    assert!([201, 202].contains(&accepted.status), "there is room again: {}", accepted.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_starts_and_says_so_and_sends_what_is_whole() {
    let mut server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url()).with(QUICK);
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    server.kill();
    let bodies: Vec<Vec<u8>> = (80..84).map(|seed| noise(seed, 50_000)).collect();
    for body in &bodies {
        assert_eq!(push(&sidecar, body).await.status, 202);
    }
    sidecar.kill();
    let spool = sidecar.folder().join("spool/snapshots");
    let files = std::fs::read_dir(&spool).unwrap().flatten().map(|file| file.path());
    let mut plains: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "plain")).collect();
    plains.sort();
    let [cut, flipped, gone, _] = plains.as_slice() else { panic!("{plains:?}") };
    std::fs::write(cut, &bodies[0][..25_000]).unwrap();
    let mut bytes = bodies[1].clone();
    bytes[25_000] ^= 1;
    std::fs::write(flipped, bytes).unwrap();
    std::fs::remove_file(gone).unwrap();
    for half in ["9999999999999999.incoming", "9999999999999999.plain", "9999999999999999.part"] {
        std::fs::write(spool.join(half), b"half").unwrap();
    }
    sidecar.start_again().await;
    let degraded = until("the spool to be read", async || {
        let degraded = sidecar.readiness().await["degraded"].to_string();
        degraded.contains("lost from the spool").then_some(degraded)
    })
    .await;
    assert_eq!(degraded.matches("lost from the spool").count(), 3, "{degraded}");
    server.restart();
    sidecar.is_connected().await;
    sidecar.report(0.2).await;
    assert_eq!(settled(&sidecar).await, ["stored"]);
    assert_eq!(pull(&sidecar, "", "").await.body, bodies[3]);
    assert_eq!(push(&sidecar, b"the next").await.status, 201);
    assert_eq!(objects(&server).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_built_on_a_base_that_was_taken_away_or_altered() {
    let server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url())
        .with("[snapshot]\nkeep_full = 1\nkeep_for = \"0s\"\n");
    let planner = Sidecar::connected(plan).await;
    planner.report(0.2).await;
    let store = Store::open(&server.settings("mallory"), BUCKET).await.unwrap();
    let mut body = noise(90, 60_000);
    for (is_altered, pushes) in [(false, 2), (true, 1)] {
        for _ in 0..pushes {
            body.extend_from_slice(b"one line more");
            assert_eq!(push(&planner, &body).await.status, 201);
        }
        let [base, delta] = <[_; 2]>::try_from(objects(&server).await).expect("two objects");
        assert!(base.name.ends_with(".zst") && delta.name.ends_with(".dcz"));
        store.delete(&base.name).await.unwrap();
        if is_altered {
            let label = Label {
                name: base.name.clone(),
                media_type: None,
                metadata: base.metadata.clone(),
            };
            store.put(&label, b"other bytes"[..].into(), &|_| {}).await.unwrap();
        }
        body.extend_from_slice(b"one line more");
        push(&planner, &body).await;
        // A full frame, and what hung on the lost base goes with retention.
        let kept = until("a full frame and nothing else", async || {
            let kept = objects(&server).await;
            (kept.len() == 1 && kept[0].name.ends_with(".zst")).then_some(kept)
        })
        .await;
        assert!(kept[0].name.contains(&Digest::of(&body).hex()[..16]), "{kept:?}");
    }
    store.sever().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_set_back_is_refused_as_replayed() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let critic = Sidecar::connected(plan("critic", "planner", &server.url())).await;
    planner.report(0.2).await;
    let (first, second) = (noise(91, 10_000), noise(92, 10_000));
    push(&planner, &first).await;
    push(&planner, &second).await;
    assert_eq!(pull(&critic, "?source=planner", "").await.body, second);
    let newest = objects(&server).await.pop().expect("two objects");
    index(&server).await.delete(key(&newest.name)).await.unwrap();
    let reply = pull(&critic, "?source=planner", "").await;
    assert_eq!(reply.status, 502, "{}", reply.head);
    assert!(reply.json()["detail"].as_str().unwrap().contains("replayed"), "{}", reply.json());
    // Asked for by its name, the older one is no lie.
    let older = pull(&critic, &format!("?source=planner&digest={}", Digest::of(&first)), "").await;
    assert_eq!((older.status, older.body), (200, first));
}
