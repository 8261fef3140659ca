//! P9: raw text stays home. A word is put wherever a runtime or a peer can put one, and must not be
//! found in anything that leaves: no message on any subject, no log line, no metric.

use driftgate::protocol::document::sign_body;
use driftgate::protocol::keyring::Domain;
use driftgate::protocol::time::Timestamp;
use serde_json::{Value, json};

use super::telemetry::{events, listen, open_to};
use crate::support::forge::{draft, fleet_keyring, sign, unix_ms};
use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::report::report;
use crate::support::runtime::{Mood, Runtime};
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

const CANARY: &str = "kanarienvogel";

/// A good report with the word in everything that is not on the list of what may leave.
fn spoken(di: f64) -> String {
    let mut spoken: Value = serde_json::from_str(&report(di)).unwrap();
    for key in ["prompt", "reply", "motifs", "memory", "history", CANARY] {
        spoken[key] = json!({"text": CANARY, "words": [CANARY, {CANARY: CANARY}]});
    }
    spoken.to_string()
}

/// Reports that must be refused, with the word in a value or a key of each section.
fn unspeakable() -> Vec<String> {
    let mut reports = vec![
        CANARY.to_owned(),
        format!("{{\"{CANARY}\": "),
        format!("{{\"{CANARY}\": 1, \"{CANARY}\": 2}}"),
        format!("[\"{CANARY}\"]"),
    ];
    for section in ["attractor_state", "drift_metrics", "safety_flags", "memory_snapshot"] {
        let mut whole: Value = serde_json::from_str(&report(0.3)).unwrap();
        whole[section] = json!(CANARY);
        reports.push(whole.to_string());
        let mut with_key: Value = serde_json::from_str(&report(0.3)).unwrap();
        with_key[section][CANARY] = json!(CANARY);
        reports.push(with_key.to_string());
    }
    for pointer in [
        "/attractor_state/type",
        "/attractor_state/stability",
        "/attractor_state/scr",
        "/attractor_state/phase",
        "/drift_metrics/sdi",
        "/drift_metrics/di",
    ] {
        let mut bad: Value = serde_json::from_str(&report(0.3)).unwrap();
        *bad.pointer_mut(pointer).unwrap() = json!(CANARY);
        reports.push(bad.to_string());
    }
    for (section, key) in [
        ("safety_flags", "aegida_status"),
        ("memory_snapshot", "summary_hash"),
        ("memory_snapshot", "retention_index"),
        ("cycle", ""),
    ] {
        let mut bad: Value = serde_json::from_str(&report(0.3)).unwrap();
        if key.is_empty() {
            bad[section] = json!(CANARY);
        } else {
            bad[section] = json!({key: CANARY});
        }
        reports.push(bad.to_string());
    }
    reports
}

/// The word in the request around the body.
async fn whisper(sidecar: &Sidecar) {
    let mut caller = Caller::new(sidecar.api);
    let headers = format!(
        "Content-Type: application/json\r\nUser-Agent: {CANARY}\r\ntraceparent: {CANARY}\r\n\
         X-Prompt: {CANARY}\r\nCookie: {CANARY}\r\nAuthorization: Bearer {CANARY}\r\n"
    );
    let report = report(0.3);
    for (method, path) in [
        ("POST", "/field/state"),
        ("POST", "/kanarienvogel"),
        ("GET", "/field/state?source=kanarienvogel"),
        ("GET", "/field/state?kanarienvogel=1"),
        ("KANARIENVOGEL", "/field/state"),
        ("PUT", "/memory/snapshot?kanarienvogel"),
    ] {
        // Whatever the answer is, it goes back to the runtime.
        drop(caller.call(method, path, &headers, &report).await);
    }
    for headers in
        [format!("Content-Type: text/{CANARY}\r\n"), format!("Origin: http://{CANARY}\r\n")]
    {
        drop(caller.call("POST", "/field/state", &headers, &report).await);
    }
}

/// The word in what a peer sends.
async fn sing(observer: &Observer, seq: u64) {
    let ring = fleet_keyring();
    let subject = "driftgate.v1.state.planner.critic";
    let mut extra = draft("planner", "critic");
    extra["header"]["protocol_version"] = json!("1.1");
    extra["payload"][CANARY] = json!(CANARY);
    extra["payload"]["attractor_state"]["id"] = json!(CANARY);
    let mut bad = draft("planner", "critic");
    bad["payload"]["attractor_state"]["phase"] = json!(CANARY);
    let mut status = draft("planner", "critic");
    status["payload"]["safety_flags"]["aegida_status"] = json!(CANARY);
    let mut kind = draft("planner", "critic");
    kind["payload"]["attractor_state"]["type"] = json!(CANARY);
    let mut source = draft("planner", "critic");
    source["header"]["source_runtime_id"] = json!(CANARY);
    let mut stamp = draft("planner", "critic");
    stamp["header"]["timestamp"] = json!(CANARY);
    for (offset, packet) in (0..).zip([extra, bad, status, kind, source, stamp]) {
        observer.store(subject, &sign(&packet, &ring, seq + offset)).await;
    }
    let texts = [
        CANARY.to_owned(),
        format!("{{\"{CANARY}\":1,\"{CANARY}\":2}}"),
        format!("{{\"header\":{{\"{CANARY}\":\"{CANARY}\"}}}}"),
        String::from_utf8(sign(&draft("planner", "critic"), &ring, seq))
            .unwrap()
            .replace(":k1:", ":kanarienvogel:"),
    ];
    for text in texts {
        observer.store(subject, text.as_bytes()).await;
    }
}

/// The word in phase frames of a peer.
async fn hum(observer: &Observer, seq: u64) {
    let ring = fleet_keyring();
    let at = Timestamp::from_unix_ms(unix_ms());
    let frame = json!({
        "runtime_id": "planner", "timestamp": at, "phase_state": "stable", "drift_index": 0.2,
        CANARY: {"text": CANARY},
    });
    let mut frames = vec![frame.clone()];
    for member in ["runtime_id", "timestamp", "phase_state", "safety_status", "drift_source", "psi"]
    {
        let mut bad = frame.clone();
        bad[member] = json!(CANARY);
        frames.push(bad);
    }
    for (offset, frame) in (0..).zip(frames) {
        let body = frame.to_string();
        let token = sign_body(&ring, Domain::Telemetry, seq + offset, body.as_bytes()).unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Driftgate-Token", token.as_str());
        let subject = "driftgate.v1.telemetry.planner";
        observer.client.publish_with_headers(subject, headers, body.into()).await.unwrap();
    }
    observer.client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_word_of_the_runtime_is_found_in_nothing_that_leaves() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let more = format!("[log]\nlevel = \"trace\"\n{}", open_to("critic"));
    let planner = Sidecar::connected(Plan::new("planner", &[], &server.url()).with(&more)).await;
    let mut listener = listen(&planner).await;
    for di in [0.30, 0.46, 0.51, 0.65, 0.30] {
        let answer = planner.post(&spoken(di)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let reports = unspeakable();
    for report in &reports {
        let answer = planner.post(report).await;
        assert!([200, 400, 422].contains(&answer.status), "{report}: {}", answer.text());
        assert_eq!(planner.post(&spoken(0.30)).await.json()["band"], "open");
    }
    whisper(&planner).await;
    planner.post(&spoken(0.31)).await;
    let is_last = |name: &str, data: &Value| {
        let index = data["drift_index"].as_f64().unwrap_or_default();
        name == "phase" && (index - 0.31).abs() < 1e-6
    };
    let events = events(&mut listener, is_last).await;
    assert!(events.len() > 20 && events.iter().all(|(name, _)| name != "lagged"), "{events:?}");
    assert!(!format!("{events:?}").contains(CANARY), "{events:?}");
    for path in ["/field/state", "/field/attractors/a-1", "/aegida/safety"] {
        let view = planner.get(path).await;
        assert_eq!(view.status, 200, "{path}");
        assert!(!view.text().contains(CANARY), "{path}: {}", view.text());
    }
    let metrics = Caller::new(planner.admin).get("/metrics").await.unwrap().text();
    planner.signal("TERM");
    let mut planner = planner;
    planner.ended().await;
    observer.mark().await;
    let messages = observer.heard(0);
    assert!(messages.len() > 20);
    let leaks = messages.iter().filter(|message| format!("{message:?}").contains(CANARY)).count();
    // Payloads are shown escaped, and the word has nothing to escape.
    assert_eq!(leaks, 0, "in {} messages", messages.len());
    assert!(!metrics.contains(CANARY), "{metrics}");
    assert!(!planner.log().to_lowercase().contains(CANARY), "{}", planner.log());
    println!(
        "CANARY | {} refused reports, {} messages, {} log bytes, 0 leaks",
        reports.len(),
        messages.len(),
        planner.log().len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_word_of_a_peer_is_found_in_no_log_line_and_no_metric() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let runtime = Runtime::start(Mood::Answers(500)).await;
    let deliver = format!("[deliver]\nurl = {:?}\n", runtime.url());
    let more = format!("[log]\nlevel = \"trace\"\n{deliver}{}", open_to("planner"));
    let critic = Sidecar::connected(Plan::new("critic", &[], &server.url()).with(&more)).await;
    let mut listener = listen(&critic).await;
    critic.report(0.30).await;
    hum(&observer, u64::try_from(unix_ms()).unwrap() * 1000).await;
    sing(&observer, u64::try_from(unix_ms()).unwrap() * 1000).await;
    let books = until("every packet to be judged", async || {
        let books = critic.books().await;
        let judged = books.sum("inbound_refused", &[]) + books.sum("inbound_accepted", &[]);
        (judged == 10).then_some(books)
    })
    .await;
    assert_eq!(books.sum("inbound_accepted", &[]), 1, "a 1.x packet may hold unknown fields");
    let metrics = Caller::new(critic.admin).get("/metrics").await.unwrap().text();
    assert!(!metrics.contains(CANARY), "{metrics}");
    critic.report(0.31).await;
    let is_last = |name: &str, data: &Value| {
        let index = data["drift_index"].as_f64().unwrap_or_default();
        name == "phase" && (index - 0.31).abs() < 1e-6
    };
    let events = events(&mut listener, is_last).await;
    let frames = events.iter().filter(|(name, data)| name == "phase" && data["external"] == true);
    assert_eq!(frames.count(), 1, "the frame that holds more than a frame: {events:?}");
    assert!(!format!("{events:?}").contains(CANARY), "{events:?}");
    // The quarantine keeps the bytes and names the field beside them; the log must not.
    assert!(!critic.log().to_lowercase().contains(CANARY), "{}", critic.log());
}
