//! Two sidecars exchange packets, and hand them to a runtime that may be slow or refuse.

use serde_json::{Value, json};

use crate::support::forge::{draft, fleet_keyring, foreign_keyring, sign, unix_ms};
use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::report::report;
use crate::support::runtime::{Mood, Runtime};
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

/// Sequence number of a packet as `/field/state` shows it.
fn seq_of(peer: &Value) -> u64 {
    let token = peer["packet"]["signature"]["integrity_token"].as_str().unwrap();
    token.split(':').nth(2).unwrap().parse().unwrap()
}

/// Waits until `sidecar` shows the packet of that number.
pub(crate) async fn shows(sidecar: &Sidecar, source: &str, seq: u64) -> Value {
    until("the packet to be shown", async || {
        sidecar.shown(source).await.filter(|peer| seq_of(peer) == seq)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sidecars_show_each_other_what_they_sent() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    for (sender, receiver, source) in
        [(&planner, &critic, "planner"), (&critic, &planner, "critic")]
    {
        let seq = sender.report(0.30).await["seq"].as_u64().unwrap();
        let shown = shows(receiver, source, seq).await;
        assert_eq!(shown["external"], true);
        assert_eq!(shown["packet"]["header"]["source_runtime_id"], source);
        let one = receiver.get(&format!("/field/state?source={source}")).await;
        assert_eq!(one.json()["packet"], shown["packet"]);
    }
    assert_eq!(planner.get("/field/state?source=monitor").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_belongs_to_a_trace_puts_its_packets_into_the_trace() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let body = report(0.30);
    let mut caller = Caller::new(planner.api);
    for trace in [Some(TRACE), Some("00-not-a-trace"), None] {
        let trace_line = trace.map(|trace| format!("traceparent: {trace}\r\n"));
        let headers = format!(
            "Content-Type: application/json\r\n{}",
            trace_line.as_deref().unwrap_or_default()
        );
        let answer = caller.call("POST", "/field/state", &headers, &body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seq = answer.json()["seq"].as_u64().unwrap();
        let found = until("the packet to be seen", async || {
            observer.packets(0).into_iter().find(|packet| packet.seq == seq)
        })
        .await;
        let header = found.headers.get("traceparent").map(|value| value.as_str().to_owned());
        assert_eq!(header.as_deref(), trace.filter(|trace| *trace == TRACE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_an_isolated_sidecar_receives_nothing_and_then_the_newest() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    assert_eq!(critic.report(0.65).await["barrier"], "confirmed");
    let mut newest = 0;
    for _ in 0..3 {
        let reply = planner.report(0.30).await;
        assert_eq!(reply["packets"][0]["status"], "stored");
        newest = reply["seq"].as_u64().unwrap();
    }
    assert_eq!(critic.get("/field/state").await.status, 423);
    assert_eq!(critic.get("/aegida/safety").await.json()["band"], "isolated");
    assert_eq!(critic.books().await.sum("inbound_accepted", &[]), 0);
    assert_eq!(server.subscriptions_of("critic"), Some(Vec::new()));
    assert_eq!(critic.report(0.30).await["band"], "open");
    shows(&critic, "planner", newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_delivery_is_acknowledged_after_the_runtime_took_it() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Silent).await;
    let deliver = format!("[deliver]\nurl = {:?}\ntimeout = \"200ms\"", runtime.url());
    let critic =
        Sidecar::connected(Plan::new("critic", &["planner"], &server.url()).with(&deliver)).await;
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let unacknowledged = async || {
        let call = "CONSUMER.INFO.DRIFTGATE_STATE.driftgate-critic";
        let info = observer.api(call, &Value::Null).await;
        info["num_ack_pending"].as_u64().unwrap() + info["num_pending"].as_u64().unwrap()
    };
    let older = planner.report(0.30).await["seq"].as_u64().unwrap();
    runtime.takes(Mood::Silent, older).await;
    assert_eq!(unacknowledged().await, 1);
    runtime.turn(Mood::Answers(500));
    runtime.takes(Mood::Answers(500), older).await;
    assert_eq!(unacknowledged().await, 1, "a refusal is no acknowledgement");
    let newer = planner.report(0.31).await["seq"].as_u64().unwrap();
    runtime.takes(Mood::Answers(500), newer).await;
    runtime.turn(Mood::Answers(204));
    runtime.takes(Mood::Answers(204), newer).await;
    until("the acknowledgements", async || (unacknowledged().await == 0).then_some(())).await;
    let done = [("outcome", "done")];
    let superseded = [("outcome", "superseded")];
    let books = critic.books().await;
    let counts = (books.sum("deliveries", &done), books.sum("deliveries", &superseded));
    assert_eq!(counts, (1, 1), "the newer one superseded the older one");
    let took =
        |mood, seq| runtime.taken().iter().any(|taken| (taken.mood, taken.seq) == (mood, seq));
    assert!(!took(Mood::Answers(204), older), "superseded means never delivered after it");
    let bytes = runtime.taken().last().unwrap().body.clone();
    let observed = observer.packets(0);
    let sent = observed.iter().find(|packet| packet.seq == newer).unwrap();
    assert_eq!(bytes.as_bytes(), &sent.bytes[..], "byte for byte");
}

/// A notice says it at once; nothing else would before the packet is 5 min old.
#[tokio::test(flavor = "multi_thread")]
async fn p7_what_a_closed_peer_sent_is_shown_no_longer() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    critic.report(0.30).await;
    planner.report(0.30).await;
    until("the packet to be shown", async || planner.shown("critic").await).await;
    critic.report(0.55).await;
    until("the packet to be withheld", async || {
        planner.shown("critic").await.is_none().then_some(())
    })
    .await;
    // An unsigned notice in its name, were it believed, would withhold for decades.
    let client = async_nats::connect(server.url()).await.unwrap();
    let forged = r#"{"runtime_id":"critic","mode":"enforce","band":"isolated","reasons":[],
        "since":"2100-01-01T00:00:00.000Z","epoch":1}"#;
    client.publish("driftgate.v1.containment.critic", forged.into()).await.unwrap();
    client.flush().await.unwrap();
    let seq = critic.report(0.30).await["seq"].as_u64().unwrap();
    shows(&planner, "critic", seq).await;
}

/// Whom a critic hears, and under what.
const HEARD: &str = "[[peers]]\nid = \"planner\"\nimport = [\"state\"]\n\n[[peers]]\nid = \"monitor\"\n\
                     import = [\"state\"]\n\n[[peers]]\nid = \"scribe\"\nimport = [\"state\"]\n\
                     scope = \"auditing\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn r72_the_rates_of_an_exchange_follow_from_the_metrics() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.jsonl");
    let heard = format!("{HEARD}[audit]\nfile = {:?}", log.display().to_string());
    let critic = Sidecar::connected(Plan::new("critic", &[], &server.url()).with(&heard)).await;
    let offered = "[[peers]]\nid = \"critic\"\nexport = [\"state\"]\n\
                   allowed_use = [\"evidence\", \"evaluation\"]";
    let planner = Sidecar::connected(Plan::new("planner", &[], &server.url()).with(offered)).await;
    for di in [0.30, 0.31] {
        let seq = planner.report(di).await["seq"].as_u64().unwrap();
        let shown = shows(&critic, "planner", seq).await;
        let under = json!({
            "verdict": "narrow", "allowed_use": ["evidence"], "drift_source": "native"});
        assert_eq!(shown["exchange"], under);
    }
    let seq = u64::try_from(unix_ms()).unwrap() * 1000;
    let ring = [fleet_keyring(), fleet_keyring(), foreign_keyring()];
    // One without an envelope, one that the entry asks an envelope of, one that is forged.
    for (source, ring) in ["monitor", "scribe", "monitor"].into_iter().zip(&ring) {
        let subject = format!("driftgate.v1.state.{source}.critic");
        observer.store(&subject, &sign(&draft(source, "critic"), ring, seq)).await;
    }
    let books = until("all of them to be judged", async || {
        let books = critic.books().await;
        (books.sum("exchanges", &[]) == 5).then_some(books)
    })
    .await;
    for (verdict, count) in [("accept", 1), ("narrow", 2), ("quarantine", 1), ("reject", 1)] {
        assert_eq!(books.sum("exchanges", &[("verdict", verdict)]), count, "{verdict}");
    }
    for (provenance, count) in [("signed", 2), ("unsigned", 1)] {
        assert_eq!(books.sum("exchange_provenance", &[("provenance", provenance)]), count);
    }
    assert_eq!(books.sum("exchange_seconds_count", &[]), 3);
    let mut verdicts = until("the audit lines", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let judged = lines.filter(|line| {
            ["inbound_accepted", "inbound_refused"].contains(&line["event"].as_str().unwrap())
        });
        let words = judged.map(|line| {
            let word = |json: &Value| json.as_str().unwrap_or("-").to_owned();
            [word(&line["source"]), word(&line["detail"]["verdict"]), word(&line["provenance"])]
        });
        Some(words.collect::<Vec<_>>()).filter(|words| words.len() == 4)
    })
    .await;
    verdicts.sort();
    let expected = [
        ["monitor", "accept", "-"],
        ["monitor", "reject", "-"],
        ["planner", "narrow", "native"],
        ["scribe", "quarantine", "-"],
    ];
    assert_eq!(verdicts, expected);
}
