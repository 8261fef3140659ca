//! `driftgate send` and `driftgate trace` as a person or a script runs it.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::{LONG, until};

pub(crate) async fn driftgate(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftgate"));
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(LONG, command.output()).await.expect("its end").expect("a program")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

pub(crate) fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text} {said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_each_band_brings_the_gate_there() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let api = sidecar.api.to_string();
    for (band, verdict, ends) in [
        ("open", "export", 0),
        ("caution", "throttle", 0),
        ("blocked", "block", 75),
        ("isolated", "isolate", 75),
    ] {
        let sent = driftgate(&["send", "--api", &api, "--band", band, "--json"]).await;
        let reply = json(&sent);
        assert_eq!((&reply["band"], &reply["verdict"]), (&band.into(), &verdict.into()), "{reply}");
        assert_eq!(code(&sent), ends);
    }
    let sent = driftgate(&["send", "--api", &api, "--cycle", "7"]).await;
    let text = String::from_utf8(sent.stdout).unwrap();
    assert!(text.starts_with("verdict  export\nband     open\ndi       0.2"), "{text}");
    assert!(text.contains("packet   critic  stored  at 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_no_table_knows_blocks_and_a_sidecar_that_is_away_is_said() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &[], &server.url())).await;
    let api = sidecar.api.to_string();
    let blocked = driftgate(&["send", "--api", &api, "--phase", "drifting"]).await;
    assert_eq!(code(&blocked), 75);
    let refused = driftgate(&["send", "--api", &api, "--di", "7"]).await;
    assert_ne!(code(&refused), 0);
    drop(sidecar);
    let absent = driftgate(&["send", "--api", &api]).await;
    let said = String::from_utf8_lossy(&absent.stderr);
    assert_eq!(code(&absent), 69, "{said}");
    assert!(said.contains("no sidecar answers at"), "{said}");
}

/// `/metrics` but for what HTTP and time alone change.
async fn counted(sidecar: &Sidecar) -> String {
    let answer = Caller::new(sidecar.admin).get("/metrics").await.expect("an answer");
    let text = answer.text();
    let lines = text.lines().filter(|line| {
        !["http", "process", "since", "_age_seconds"].iter().any(|word| line.contains(word))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_would_happen_and_leaves_no_mark() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("audit.jsonl");
    let audited = format!("[audit]\nfile = {log:?}");
    let plan = Plan::new("planner", &["critic"], &server.url()).with(&audited);
    let sidecar = Sidecar::connected(plan).await;
    let api = sidecar.api.to_string();
    sidecar.stores().await;
    let audited = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the opening to be audited", async || audited().contains("\"open\"").then_some(())).await;
    sidecar.settled().await;
    let safety = async || sidecar.get("/aegida/safety").await.json();
    let (before, books, lines) = (safety().await, counted(&sidecar).await, audited());
    let trace = sidecar.get("/aegida/trace").await.json();
    for (band, verdict, ends) in
        [("open", "export", 0), ("blocked", "block", 75), ("isolated", "isolate", 75)]
    {
        let checked =
            driftgate(&["send", "--check", "--api", &api, "--band", band, "--json"]).await;
        let reply = json(&checked);
        assert_eq!((&reply["check"], &reply["band"]), (&true.into(), &band.into()), "{reply}");
        assert_eq!((&reply["verdict"], reply.get("barrier")), (&verdict.into(), None), "{reply}");
        assert_eq!(code(&checked), ends);
    }
    for body in ["{", "{\"drift_metrics\": 7}"] {
        let answer = Caller::new(sidecar.api).post("/field/state?check", body).await.unwrap();
        let problem = answer.json();
        assert_eq!((&problem["check"], &problem["band"]), (&true.into(), &"blocked".into()));
    }
    let said = driftgate(&["send", "--check", "--api", &api]).await.stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("check    nothing of this has happened\n"), "{said}");
    assert_eq!(safety().await, before);
    assert_eq!(counted(&sidecar).await, books);
    assert_eq!(audited(), lines);
    assert_eq!(sidecar.get("/aegida/trace").await.json(), trace);
    // What was checked as isolating did not: the next good report is stored.
    assert_eq!(sidecar.report(0.3).await["verdict"], "export");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_explained_by_its_number_and_the_next_one_when_it_is_answered() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let api = sidecar.api.to_string();
    let stored = sidecar.stores().await;
    let seq = stored["seq"].to_string();
    // In every band.
    assert_eq!(sidecar.report(0.65).await["band"], "isolated");
    let explained = json(&driftgate(&["trace", "--api", &api, "--seq", &seq, "--json"]).await);
    assert_eq!(explained["seq"], stored["seq"]);
    let target = &explained["targets"][0];
    assert_eq!((&target["inspection"], &target["status"]), (&"passed".into(), &"stored".into()));
    assert_eq!(target["stream_seq"], stored["packets"][0]["stream_seq"]);
    let newest = json(&driftgate(&["trace", "--api", &api, "--json"]).await);
    assert_eq!(
        (&newest["gate"]["after"], &newest["gate"]["barrier"]),
        (&"isolated".into(), &"confirmed".into())
    );
    let absent = driftgate(&["trace", "--api", &api, "--seq", "7"]).await;
    let said = String::from_utf8_lossy(&absent.stderr);
    assert_eq!(code(&absent), 66, "{said}");
    assert!(said.contains("not among the newest 32"), "{said}");
    let next = tokio::spawn(async move { driftgate(&["trace", "--api", &api, "--next"]).await });
    until("the next report to be explained", async || {
        sidecar.report(0.2).await;
        next.is_finished().then_some(())
    })
    .await;
    let said = String::from_utf8(next.await.unwrap().stdout).unwrap();
    assert!(said.contains("the table asks for open\nverdict  export\n"), "{said}");
    assert!(said.contains("evidence  stored at "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_wait_for_the_next_report_and_no_longer_than_ten_seconds() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let next = || {
        let api = sidecar.api;
        tokio::spawn(async move { Caller::new(api).get("/aegida/trace?seq=next").await.unwrap() })
    };
    let mut waiting: Vec<_> = (0..9).map(|_| next()).collect();
    // The one that finds no place is answered at once.
    let turned_away = until("one to be turned away", async || {
        let found = waiting.iter().position(tokio::task::JoinHandle::is_finished)?;
        Some(waiting.remove(found))
    })
    .await;
    let answer = turned_away.await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (503, Some("urn:driftgate:problem:overloaded"))
    );
    for asked in waiting {
        let answer = asked.await.unwrap();
        assert!((10.0..20.0).contains(&answer.took.as_secs_f64()), "{:?}", answer.took);
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["detail"], "no report came within 10s");
    }
    // Their places are free again.
    let asked = next();
    until("a report to be explained", async || {
        sidecar.report(0.2).await;
        asked.is_finished().then_some(())
    })
    .await;
    assert_eq!(asked.await.unwrap().status, 200);
}
