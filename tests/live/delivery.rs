//! What is handed to the runtime: one request per source at a time, in turn, and nothing that may
//! not be handed on any more (P7, P10).

use serde_json::json;

use super::exchange::shows;
use crate::support::forge::{draft, fleet_keyring, sign, stamp, unix_ms};
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::runtime::{Mood, Runtime};
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

fn seq_now() -> u64 {
    u64::try_from(unix_ms()).unwrap() * 1000
}

fn subject(source: &str) -> String {
    format!("driftgate.v1.state.{source}.critic")
}

/// A critic that hears `peers` and hands on what they send.
async fn critic(server: &NatsServer, runtime: &Runtime, peers: &[&str], more: &str) -> Sidecar {
    let deliver = format!("[deliver]\nurl = {:?}\n{more}", runtime.url());
    let plan = Plan::new("critic", peers, &server.url()).with(&deliver);
    Sidecar::connected(plan).await
}

/// What the metrics say of deliveries that failed for a reason.
async fn failed(critic: &Sidecar, reason: &str) -> i64 {
    critic.books().await.sum("delivery_failed", &[("reason", reason)])
}

async fn given_up(critic: &Sidecar, count: i64) {
    until("a delivery to be given up", async || {
        let outcome = [("outcome", "given_up")];
        (critic.books().await.sum("deliveries", &outcome) == count).then_some(())
    })
    .await;
}

/// Messages that the broker has not delivered, and those that it still expects an acknowledgement
/// for.
async fn outstanding(observer: &Observer) -> (u64, u64) {
    let call = "CONSUMER.INFO.DRIFTGATE_STATE.driftgate-critic";
    let info = observer.api(call, &serde_json::Value::Null).await;
    (info["num_pending"].as_u64().unwrap(), info["num_ack_pending"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_one_request_per_source_is_under_way_and_every_source_has_its_turn() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Slow(150)).await;
    let sources = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];
    let critic = critic(&server, &runtime, &sources, "").await;
    let ring = fleet_keyring();
    let first = seq_now();
    for round in 0..40 {
        for source in sources {
            let bytes = sign(&draft(source, "critic"), &ring, first + round);
            observer.store(&subject(source), &bytes).await;
        }
        // The stream keeps eight of each source: what lies there longer would never be offered.
        until("the round", async || (outstanding(&observer).await.0 == 0).then_some(())).await;
    }
    let newest = first + 39;
    for source in sources {
        until("the newest packet of each source", async || {
            let taken = runtime.taken();
            taken.iter().any(|taken| taken.source == source && taken.seq == newest).then_some(())
        })
        .await;
    }
    until("the acknowledgements", async || (outstanding(&observer).await == (0, 0)).then_some(()))
        .await;
    let (of_one, of_all) = runtime.most();
    assert_eq!(of_one, 1, "requests of one source under way at once");
    assert!(of_all <= 4, "{of_all} requests under way at once");
    assert!(runtime.connections() <= 4, "connections are used again: {}", runtime.connections());
    let taken = runtime.taken();
    for source in sources {
        let seqs: Vec<u64> =
            taken.iter().filter(|taken| taken.source == source).map(|taken| taken.seq).collect();
        assert!(seqs.is_sorted_by(|left, right| left < right), "{source}: {seqs:?}");
    }
    let books = critic.books().await;
    let count = |outcome| books.sum("deliveries", &[("outcome", outcome)]);
    assert_eq!(count("done") + count("superseded"), 320, "each packet ended in one way");
    println!(
        "DELIVERY | 320 packets of 8 sources, 150 ms each: {} posts, at most {of_one} per source \
         and {of_all} in all",
        taken.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_packet_of_a_peer_that_was_removed_is_not_delivered() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Silent).await;
    let timeout = "timeout = \"30s\"\n";
    let deliver = format!("[deliver]\nurl = {:?}\n{timeout}", runtime.url());
    let peers = |who: &[&str]| -> String {
        let entry = |id: &&str| format!("[[peers]]\nid = {id:?}\nimport = [\"state\"]\n");
        who.iter().map(entry).collect()
    };
    let more = format!("{deliver}{}", peers(&["planner", "scribe"]));
    let mut critic = Sidecar::connected(Plan::new("critic", &[], &server.url()).with(&more)).await;
    let seq = seq_now();
    let send = async |source: &str, seq| {
        let bytes = sign(&draft(source, "critic"), &fleet_keyring(), seq);
        observer.store(&subject(source), &bytes).await;
        shows(&critic, source, seq).await;
    };
    send("planner", seq).await;
    runtime.takes(Mood::Silent, seq).await;
    // The next one waits behind the request that runs.
    send("planner", seq + 1).await;
    critic.reconfigure(&format!("{deliver}{}", peers(&["scribe"])));
    critic.signal("HUP");
    until("the peer to be forgotten", async || {
        critic.shown("planner").await.is_none().then_some(())
    })
    .await;
    runtime.turn(Mood::Answers(204));
    runtime.hang_up();
    given_up(&critic, 1).await;
    assert_eq!(failed(&critic, "unauthorised").await, 1);
    let taken: Vec<u64> = runtime.taken().iter().map(|taken| taken.seq).collect();
    assert_eq!(taken, [seq], "what was under way, and nothing after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_an_expired_packet_is_not_delivered() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Silent).await;
    let more = "timeout = \"30s\"\n[containment]\npacket_max_age = \"3s\"\n";
    let critic = critic(&server, &runtime, &["planner"], more).await;
    let seq = seq_now();
    let send = async |seq: u64, age: i64| {
        let mut packet = draft("planner", "critic");
        packet["header"]["timestamp"] = json!(stamp(-age));
        observer.store(&subject("planner"), &sign(&packet, &fleet_keyring(), seq)).await;
        shows(&critic, "planner", seq).await;
    };
    send(seq, 0).await;
    runtime.takes(Mood::Silent, seq).await;
    send(seq + 1, 1).await;
    until("the packet to expire", async || critic.shown("planner").await.is_none().then_some(()))
        .await;
    runtime.turn(Mood::Answers(204));
    runtime.hang_up();
    given_up(&critic, 1).await;
    assert_eq!(failed(&critic, "expired").await, 1);
    let taken: Vec<u64> = runtime.taken().iter().map(|taken| taken.seq).collect();
    assert_eq!(taken, [seq], "what was under way, and nothing after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_neither_a_replay_nor_another_packet_of_its_number_is_delivered() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Answers(204)).await;
    let critic = critic(&server, &runtime, &["planner"], "").await;
    let (ring, seq) = (fleet_keyring(), seq_now());
    let good = sign(&draft("planner", "critic"), &ring, seq);
    observer.store(&subject("planner"), &good).await;
    runtime.takes(Mood::Answers(204), seq).await;
    let mut other = draft("planner", "critic");
    other["payload"]["attractor_state"]["stability"] = json!(0.5);
    for _ in 0..20 {
        observer.store(&subject("planner"), &good).await;
        observer.store(&subject("planner"), &sign(&other, &ring, seq)).await;
    }
    observer.store(&subject("planner"), &sign(&other, &ring, seq - 1)).await;
    let last = sign(&draft("planner", "critic"), &ring, seq + 1);
    observer.store(&subject("planner"), &last).await;
    runtime.takes(Mood::Answers(204), seq + 1).await;
    let taken: Vec<u64> = runtime.taken().iter().map(|taken| taken.seq).collect();
    assert_eq!(taken, [seq, seq + 1]);
    let books = critic.books().await;
    assert_eq!(books.sum("inbound_redelivered", &[]), 20);
    assert_eq!(books.sum("inbound_refused", &[("fault", "replayed")]), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_listens_on_ipv6_is_delivered_to() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start_at("[::1]:0", Mood::Answers(204)).await;
    assert!(runtime.url().starts_with("http://[::1]:"), "{}", runtime.url());
    let _critic = critic(&server, &runtime, &["planner"], "").await;
    let seq = seq_now();
    let bytes = sign(&draft("planner", "critic"), &fleet_keyring(), seq);
    observer.store(&subject("planner"), &bytes).await;
    runtime.takes(Mood::Answers(204), seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_packet_that_breaks_the_runtime_is_offered_a_bounded_number_of_times() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Hangs).await;
    let critic = critic(&server, &runtime, &["planner"], "").await;
    let seq = seq_now();
    let bytes = sign(&draft("planner", "critic"), &fleet_keyring(), seq);
    observer.store(&subject("planner"), &bytes).await;
    runtime.takes(Mood::Hangs, seq).await;
    until("the condition", async || {
        let degraded = critic.readiness().await["degraded"].to_string();
        degraded.contains("delivery_failed: ").then_some(())
    })
    .await;
    given_up(&critic, 1).await;
    until("its acknowledgement", async || (outstanding(&observer).await == (0, 0)).then_some(()))
        .await;
    let offered = runtime.taken().len();
    assert!((2..=6).contains(&offered), "offered {offered} times");
    assert_eq!(failed(&critic, "broken").await, i64::try_from(offered).unwrap());
    runtime.turn(Mood::Answers(204));
    let bytes = sign(&draft("planner", "critic"), &fleet_keyring(), seq + 1);
    observer.store(&subject("planner"), &bytes).await;
    runtime.takes(Mood::Answers(204), seq + 1).await;
    until("the condition to end", async || {
        let degraded = critic.readiness().await["degraded"].to_string();
        (!degraded.contains("delivery_failed")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_an_isolation_ends_the_request_under_way_and_what_waits_is_delivered_later() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Silent).await;
    let critic = critic(&server, &runtime, &["planner"], "timeout = \"30s\"\n").await;
    let seq = seq_now();
    let bytes = sign(&draft("planner", "critic"), &fleet_keyring(), seq);
    observer.store(&subject("planner"), &bytes).await;
    runtime.takes(Mood::Silent, seq).await;
    assert_eq!(critic.report(0.65).await["band"], "isolated");
    until("the request to end", async || (runtime.under_way() == 0).then_some(())).await;
    runtime.turn(Mood::Answers(204));
    let taken = runtime.taken().len();
    let newer = sign(&draft("planner", "critic"), &fleet_keyring(), seq + 1);
    observer.store(&subject("planner"), &newer).await;
    assert_eq!(critic.report(0.66).await["band"], "isolated");
    assert_eq!(runtime.taken().len(), taken, "nothing reaches an isolated runtime");
    assert_eq!(critic.report(0.30).await["band"], "open");
    runtime.takes(Mood::Answers(204), seq + 1).await;
}
