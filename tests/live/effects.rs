//! What a key of the configuration changes in a sidecar that runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use driftgate::config::{Effect, reference};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::nats_server::NatsServer;
use crate::support::report::report;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

mod restart;

/// What `/readyz` says under this code, once it says something with `part` in it.
async fn said(sidecar: &Sidecar, code: &str, part: &str) -> String {
    until(part, async || {
        let readiness = sidecar.readiness().await;
        let lines = readiness["degraded"].as_array().cloned().unwrap_or_default();
        let mut lines = lines.iter().filter_map(Value::as_str);
        lines.find(|line| line.starts_with(code) && line.contains(part)).map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_durability_that_the_broker_cannot_give_is_said() {
    let alone = NatsServer::start();
    let replicated = "nats = { replicas = 3, durability = \"replicated\" }\n";
    let plan = Plan::new("planner", &["critic"], &alone.url());
    let sidecar = Sidecar::connected(plan.clone().with(replicated)).await;
    said(&sidecar, "broker_assets", "the broker refused STREAM.CREATE.DRIFTGATE_STATE").await;
    drop(sidecar);
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    assert!(sidecar.readiness().await["degraded"].as_array().unwrap().is_empty());
    sidecar.kill();
    for (durability, part) in [
        ("replicated", "stream DRIFTGATE_STATE: num_replicas is 1, fewer than 3"),
        ("synced", "stream DRIFTGATE_STATE: placement has no tag sync:always"),
    ] {
        sidecar.reconfigure(&format!("nats = {{ replicas = 3, durability = {durability:?} }}\n"));
        sidecar.start_again().await;
        said(&sidecar, "broker_assets", part).await;
        sidecar.kill();
    }
}

/// Live keys whose effect the picture shows, each with a configuration in which it differs.
const PICTURED: &[(&str, &str)] = &[
    ("peers[].id", "peers = [{ id = \"scribe\", export = [\"state\"] }]"),
    ("peers[].export", "peers = [{ id = \"critic\" }]"),
    (
        "peers[].expires",
        "peers = [{ id = \"critic\", export = [\"state\"], expires = \"2020-01-01T00:00:00Z\" }]",
    ),
    ("containment.reopen", "containment.reopen = 0.4"),
    ("containment.block", "containment.block = 0.48"),
    ("containment.isolate", "containment.isolate = 0.55"),
    ("containment.lock", "containment.lock = 0.65"),
    ("containment.dwell", "containment.dwell = 2"),
    ("containment.accept", "containment.accept = \"reported\""),
    ("containment.assumed_scr", "containment.assumed_scr = 0.8"),
    ("containment.caution", "containment.caution = \"block\""),
    ("containment.caution_every", "containment.caution_every = 2"),
    ("containment.stale_after", "containment.stale_after = \"1m\""),
    ("containment.silence_isolates_after", "containment.silence_isolates_after = \"15m\""),
    ("containment.isolate_after", "containment.isolate_after = \"30m\""),
    ("containment.flapping.closings", "containment.flapping = { closings = 2, cycles = 20 }"),
    ("containment.flapping.cycles", "containment.flapping = { closings = 2, cycles = 20 }"),
    ("integrity.sign_with", "integrity = { sign_with = \"k2\", KEYS }"),
    ("integrity.keys[].id", "integrity = { sign_with = \"k2\", KEYS }"),
];

/// The other live keys, each with the test that shows its effect.
const SHOWN_BY: &[(&str, &str)] = &[
    (
        "runtime.capabilities",
        "what_an_operator_declares_is_published_and_a_change_without_a_restart",
    ),
    ("peers[].import", "p7_what_is_not_a_good_packet_is_quarantined_and_reaches_no_runtime"),
    (
        "peers[].key_id",
        "p7_inbound_is_judged_by_seal_address_authority_freshness_stability_and_replay",
    ),
    ("peers[].accept", "p7_derived_metrics_are_accepted_where_the_entry_says_so"),
    ("peers[].scope", "r69_each_of_the_four_verdicts_is_reached"),
    ("peers[].allowed_use", "r69_each_of_the_four_verdicts_is_reached"),
    ("containment.blocked_inbound", "a_pull_that_a_block_has_stopped_goes_on_when_the_gate_opens"),
    ("containment.barrier_timeout", "the_bound_of_a_closing_is_kept_while_the_wall_clock_steps"),
    (
        "containment.packet_max_age",
        "p7_inbound_is_judged_by_seal_address_authority_freshness_stability_and_replay",
    ),
    (
        "containment.clock_skew_max",
        "p7_inbound_is_judged_by_seal_address_authority_freshness_stability_and_replay",
    ),
    ("integrity.alg", "tokens_of_both_algorithms_are_those_of_the_foreign_program"),
    (
        "integrity.keys[].file",
        "p7_inbound_is_judged_by_seal_address_authority_freshness_stability_and_replay",
    ),
    ("log.level", "the_log_level_changes_while_it_runs"),
];

/// What a sidecar answers to a fixed script, what `/readyz` says and who signs what it sends.
async fn picture(server: &NatsServer, sidecar: &Sidecar) -> Value {
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut packets = client.subscribe("driftgate.v1.state.>").await.unwrap();
    client.flush().await.unwrap();
    let mut replies = Vec::new();
    let mut was_sent = false;
    for body in script() {
        let reply = sidecar.post(&body).await;
        let seen = reply.json();
        let each = |packet: &Value| {
            let status = packet["status"].as_str().unwrap().replace("pending", "stored");
            json!([packet["target"], status])
        };
        let sent: Vec<Value> = seen["packets"].as_array().into_iter().flatten().map(each).collect();
        was_sent |= sent.iter().any(|packet| packet[1] == "stored");
        replies.push(json!([reply.status, seen["verdict"], seen["band"], seen["reasons"], sent]));
    }
    let signer = match was_sent.then(|| packets.next()) {
        Some(packet) => signer(&packet.await.unwrap().payload),
        None => None,
    };
    let safety = sidecar.get("/aegida/safety").await.json();
    let readiness = sidecar.readiness().await;
    json!([replies, signer, safety["thresholds"], safety["envelope"], readiness["degraded"]])
}

fn signer(packet: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(packet);
    let (_, token) = text.split_once("\"integrity_token\":\"")?;
    token.split(':').nth(1).map(str::to_owned)
}

/// Reports in every band, each numbered; then one with a bare index.
fn script() -> Vec<String> {
    let indices = [
        0.30, 0.42, 0.30, 0.46, 0.46, 0.46, 0.46, 0.30, 0.49, 0.30, 0.30, 0.57, 0.30, 0.30, 0.66,
        0.30, 0.30, 0.52, 0.30, 0.30,
    ];
    let numbered = |(cycle, di): (usize, &f64)| {
        report(*di).replacen('{', &format!("{{\"cycle\": {cycle}, "), 1)
    };
    let mut script: Vec<String> = indices.iter().enumerate().map(numbered).collect();
    let bare = r#"{"cycle": 50, "attractor_state": {"id": "a-1", "type": "symbolic",
        "stability": 0.91, "phase": "stable"}, "drift_metrics": {"di": 0.2}}"#;
    script.push(bare.to_owned());
    script
}

/// The keys of a table.
fn named(table: &[(&str, &str)]) -> BTreeSet<String> {
    table.iter().map(|(key, _)| (*key).to_owned()).collect()
}

/// The rows of the configuration that take effect like this.
fn rows(effect: Effect) -> BTreeSet<String> {
    let rows = reference().into_iter().flat_map(|section| section.rows);
    rows.filter(|row| row.effect == effect).map(|row| row.path).collect()
}

/// Whether every test of a table is one.
fn tests_exist(table: &[(&str, &str)]) {
    let mut sources = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("tests"), root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|ending| ending == "rs") {
                sources.push_str(&fs::read_to_string(entry).unwrap());
            }
        }
    }
    for (key, test) in table {
        assert!(sources.contains(&format!("fn {test}()")), "{key}: there is no test {test}");
    }
}

#[test]
fn every_live_row_names_what_shows_its_effect() {
    let live: BTreeSet<String> = named(PICTURED).union(&named(SHOWN_BY)).cloned().collect();
    assert_eq!(live, rows(Effect::Live));
    tests_exist(SHOWN_BY);
}

/// Empties the bucket of presence: what an earlier life said there would make the next one wait.
async fn forget(server: &NatsServer) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let presence = async_nats::jetstream::new(client).get_stream("KV_driftgate-presence").await;
    presence.unwrap().purge().await.unwrap();
}

#[tokio::test]
async fn every_pictured_key_has_its_effect_live_and_after_a_restart_alike() {
    let server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url());
    let mut first = Sidecar::connected(plan.clone()).await;
    let plain = picture(&server, &first).await;
    first.stop().await;
    for (key, more) in PICTURED {
        let mut sidecar = Sidecar::connected(plan.clone()).await;
        let file = sidecar.folder().join("k1");
        let keys = format!("keys = [{{ id = \"k2\", file = {file:?} }}]");
        sidecar.reconfigure(&more.replace("KEYS", &keys));
        sidecar.signal("HUP");
        until(key, async || sidecar.log().contains("configuration reloaded").then_some(())).await;
        let reloaded = picture(&server, &sidecar).await;
        sidecar.stop().await;
        // A life that remembers nothing, and of which nobody else does.
        fs::remove_dir_all(sidecar.folder().join("spool")).unwrap();
        forget(&server).await;
        sidecar.start_again().await;
        sidecar.is_connected().await;
        let restarted = picture(&server, &sidecar).await;
        sidecar.stop().await;
        forget(&server).await;
        assert_eq!(reloaded, restarted, "{key}: live and after a restart");
        assert_ne!(reloaded, plain, "{key} has no effect");
    }
}
