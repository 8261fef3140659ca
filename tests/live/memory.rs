//! What a sidecar still knows after `kill -9` and after damage to what it had kept.

use std::collections::BTreeMap;

use driftgate::protocol::memory::{Content, Head};
use driftgate::protocol::packet::RuntimeId;
use serde_json::Value;

use super::support::forge::{draft, fleet_keyring, sign, unix_ms};
use super::support::nats_server::NatsServer;
use super::support::observer::Observer;
use super::support::proxy::{Proxy, Way};
use super::support::sidecar::{Plan, Sidecar, status};
use super::support::wait::until;

/// Nobody answers here.
const NOWHERE: &str = "nats://127.0.0.1:1";

fn memory(sidecar: &Sidecar) -> std::path::PathBuf {
    sidecar.folder().join("spool/memory.json")
}

async fn is_held(sidecar: &Sidecar) -> bool {
    sidecar.get("/aegida/safety").await.json()["operator_hold"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_damage_to_the_memory_never_forgets_an_operators_hold() {
    let mut sidecar = Sidecar::start(Plan::new("planner", &["critic"], NOWHERE)).await;
    sidecar.signal("USR1");
    until("the hold", async || is_held(&sidecar).await.then_some(())).await;
    sidecar.signal("TERM");
    assert!(sidecar.ended().await.success());
    let whole = std::fs::read(memory(&sidecar)).unwrap();
    let mut flipped = whole.clone();
    flipped[40] ^= 0x04;
    let damages = [
        ("a flipped bit", flipped),
        ("cut in the middle", whole[..whole.len() / 2].to_vec()),
        ("cut early", whole[..20].to_vec()),
        ("empty", Vec::new()),
        ("zeroes", vec![0; whole.len()]),
    ];
    for (name, bytes) in damages {
        std::fs::write(memory(&sidecar), bytes).unwrap();
        sidecar.start_again().await;
        assert!(is_held(&sidecar).await, "{name}: the hold is gone");
        let degraded = sidecar.readiness().await["degraded"].to_string();
        assert!(degraded.contains("memory_damaged: "), "{name}: {degraded}");
        assert!(sidecar.log().contains("\"code\":\"memory_damaged\""), "{name} is in the log");
        sidecar.kill();
        // The strict reading is kept, too; an operator ends it.
        sidecar.start_again().await;
        assert!(is_held(&sidecar).await, "{name}: forgotten by the next start");
        sidecar.signal("USR2");
        until("the release", async || (!is_held(&sidecar).await).then_some(())).await;
        sidecar.kill();
    }
    sidecar.start_again().await;
    assert!(!is_held(&sidecar).await, "what is released stays released");
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_packet_older_than_the_newest_shown_stays_refused_after_kill_9() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let mut sidecar = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    let subject = "driftgate.v1.state.planner.critic";
    for round in 0..2 {
        let newest = u64::try_from(unix_ms()).unwrap() * 1000;
        let packet = |seq| sign(&draft("planner", "critic"), &fleet_keyring(), seq);
        observer.store(subject, &packet(newest)).await;
        let shown = until("the packet to be shown", async || {
            sidecar.shown("planner").await.filter(|peer| {
                let token = peer["packet"]["signature"]["integrity_token"].as_str().unwrap();
                token.contains(&format!(":{newest}:"))
            })
        })
        .await;
        sidecar.kill();
        assert_eq!(shown["source"], "planner");
        // Fresh, validly signed, and older than what was shown.
        observer.store(subject, &packet(newest - 1)).await;
        sidecar.start_again().await;
        until("the older packet to be judged", async || {
            let books = sidecar.books().await;
            let accepted = books.sum("inbound_accepted", &[]);
            assert_eq!(accepted, 0, "round {round}: an older packet was accepted");
            (books.sum("inbound_refused", &[("fault", "replayed")]) == 1).then_some(())
        })
        .await;
        assert_eq!(sidecar.shown("planner").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_floor_stands_though_the_clock_was_set_back_and_that_is_said() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let mut sidecar = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    sidecar.kill();
    let now = u64::try_from(unix_ms()).unwrap() * 1000;
    let floors = BTreeMap::from([(RuntimeId::new("planner").unwrap(), now + 3_600_000_000)]);
    let kept = Content::new(Head::default(), &floors, &BTreeMap::new());
    std::fs::write(memory(&sidecar), kept.bytes()).unwrap();
    sidecar.start_again().await;
    let degraded = sidecar.readiness().await["degraded"].to_string();
    assert!(degraded.contains("floor_ahead: packets of planner"), "{degraded}");
    let packet = sign(&draft("planner", "critic"), &fleet_keyring(), now);
    observer.store("driftgate.v1.state.planner.critic", &packet).await;
    until("the packet to be refused", async || {
        let books = sidecar.books().await;
        assert_eq!(books.sum("inbound_accepted", &[]), 0, "it may have been taken before");
        (books.sum("inbound_refused", &[("fault", "replayed")]) == 1).then_some(())
    })
    .await;
}

/// Whether the memory says that the broker may still have to read something.
fn in_doubt(sidecar: &Sidecar) -> bool {
    let text = std::fs::read_to_string(memory(sidecar)).unwrap_or_default();
    let head = text.lines().next().unwrap_or_default();
    let head = serde_json::from_str::<Value>(head).unwrap_or_default();
    head["slot"]["head"]["in_doubt"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_the_doubt_of_a_connection_that_ended_survives_kill_9() {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &proxy.url()).short();
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    // What is sent now waits on the way to the broker, and does so beyond the life of its sender.
    proxy.up(Way { stalled: true, ..Way::default() });
    let pending = sidecar.bounded(0.31).await;
    assert_eq!(status(&pending), "pending");
    sidecar.kill();
    proxy.up(Way::default());
    sidecar.start_again().await;
    sidecar.is_connected().await;
    sidecar.stores().await;
    let closing = sidecar.bounded(0.55).await;
    assert_eq!(closing["barrier"], "unconfirmed", "{closing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_doubt_that_has_ended_is_forgotten() {
    let server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    until("all to be read", async || (!in_doubt(&sidecar)).then_some(())).await;
    sidecar.kill();
    sidecar.start_again().await;
    sidecar.is_connected().await;
    let closing = sidecar.bounded(0.65).await;
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_outlives_kill_9_and_ends_with_an_operators_release() {
    let plan = Plan::new("planner", &["critic"], NOWHERE).with("[containment]\nlock = 0.65\n");
    let mut sidecar = Sidecar::start(plan).await;
    sidecar.report(0.66).await;
    assert!(is_held(&sidecar).await);
    sidecar.kill();
    sidecar.start_again().await;
    assert!(is_held(&sidecar).await, "forgotten");
    let hold = sidecar.get("/aegida/safety").await.json()["hold"]["held_by"].clone();
    assert_eq!(hold, serde_json::json!(["lock"]));
    sidecar.signal("USR2");
    until("the release", async || (!is_held(&sidecar).await).then_some(())).await;
    sidecar.kill();
    sidecar.start_again().await;
    assert!(!is_held(&sidecar).await, "what is released stays released");
}
