//! A snapshot's manifest travels in an exchange envelope: what stands at the broker, the four
//! verdicts of whoever asks for it, and what is said of each.

use std::path::Path;

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use driftgate::snapshots::bucket::{EXCHANGE_ENTRY, INDEX, MANIFEST_ENTRY};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::snapshots::{index, key, objects, pull, push};
use crate::support::wait::until;

const EXCHANGE: &str = "Driftgate-Exchange";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Exchanges snapshots with one peer under these terms, and writes down what it does.
fn plan(runtime: &str, peer: &str, terms: &str, (server, log): (&NatsServer, &Path)) -> Plan {
    let all = r#"["state", "snapshot"]"#;
    Plan::new(runtime, &[], &server.url()).with(&format!(
        "[[peers]]\nid = {peer:?}\nexport = {all}\nimport = {all}\n{terms}\n\
         [audit]\nfile = {:?}\n",
        log.join(format!("{runtime}.jsonl")).display().to_string()
    ))
}

/// The lines of one sidecar's log about snapshots, once there are so many.
async fn lines(log: &Path, runtime: &str, count: usize) -> Vec<Value> {
    let file = log.join(format!("{runtime}.jsonl"));
    until("the audit lines", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> = lines.filter(|line| line["scope"] == "snapshot").collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

/// Puts a manifest back under its key in these envelopes.
async fn enclose(client: &async_nats::Client, key: &str, manifest: &str, envelopes: &[&str]) {
    let mut headers = HeaderMap::new();
    for envelope in envelopes {
        headers.append(EXCHANGE, *envelope);
    }
    let context = async_nats::jetstream::new(client.clone());
    let subject = format!("$KV.{INDEX}.{key}");
    let stored = context.publish_with_headers(subject, headers, manifest.to_owned().into()).await;
    stored.unwrap().await.unwrap();
}

/// The envelope under a key of the index.
async fn enclosed(server: &NatsServer, key: &str) -> Option<String> {
    let stream = index(server).await.stream;
    let message =
        stream.get_last_raw_message_by_subject(&format!("$KV.{INDEX}.{key}")).await.ok()?;
    message.headers.get(EXCHANGE).map(|value| value.as_str().to_owned())
}

/// A planner with one stored snapshot, offered under a scope for two uses and within a trace.
async fn planner(server: &NatsServer, log: &Path) -> Sidecar {
    let terms = "scope = \"planning\"\nallowed_use = [\"evidence\", \"evaluation\"]\n\
                 expires = \"2090-01-01T00:00:00Z\"";
    let planner = Sidecar::connected(plan("planner", "critic", terms, (server, log))).await;
    let mut caller = crate::support::http::Caller::new(planner.api);
    let headers = format!("Content-Type: application/json\r\ntraceparent: {TRACE}\r\n");
    let report = crate::support::report::report(0.2);
    assert_eq!(caller.call("POST", "/field/state", &headers, &report).await.unwrap().status, 200);
    planner
}

#[tokio::test(flavor = "multi_thread")]
async fn r68_a_stored_snapshot_says_under_what_it_travels() {
    let (server, log) = (NatsServer::start(), tempfile::tempdir().unwrap());
    let critic = Sidecar::connected(plan(
        "critic",
        "planner",
        "scope = \"planning\"",
        (&server, log.path()),
    ))
    .await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut announced = client.subscribe("driftgate.v1.snapshot.planner").await.unwrap();
    client.flush().await.unwrap();
    let planner = planner(&server, log.path()).await;
    planner.has_peers("full", 1).await;
    assert_eq!(push(&planner, b"memory").await.status, 201);
    let object = objects(&server).await.remove(0);
    let envelope = enclosed(&server, &key(&object.name)).await.expect("an envelope");
    assert_eq!(object.metadata[EXCHANGE_ENTRY], envelope, "beside the object as well");
    let manifest: Value = serde_json::from_str(&object.metadata[MANIFEST_ENTRY]).unwrap();
    let said: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&envelope).unwrap()).unwrap();
    assert_eq!(said["artifact"], json!({"checksum": manifest["checksum"], "type": "snapshot"}));
    assert_eq!(said["constraints"]["scope"], "planning");
    assert_eq!(said["constraints"]["allowed_use"], json!(["evidence", "evaluation"]));
    assert_eq!(said["constraints"]["expires_at"], "2090-01-01T00:00:00.000Z");
    assert_eq!(said["provenance"]["drift_source"], "native");
    assert_eq!(said["provenance"]["traceparent"], TRACE);
    let message = announced.next().await.unwrap();
    let with = message.headers.as_ref().and_then(|headers| headers.get(EXCHANGE)).unwrap();
    assert_eq!(
        (with.as_str(), &message.payload[..]),
        (envelope.as_str(), object.metadata[MANIFEST_ENTRY].as_bytes())
    );
    let left = lines(log.path(), "planner", 1).await.remove(0);
    let words = ["event", "direction", "source", "authority", "effect", "provenance", "trace_id"]
        .map(|name| left[name].as_str().unwrap_or("-"));
    let trace = &TRACE[3..35];
    assert_eq!(
        words,
        ["snapshot_stored", "outbound", "planner", "gate", "effect", "native", trace]
    );
    assert_eq!(left["cause"]["seq"], manifest["seq"]);
    drop(critic);
}

#[tokio::test(flavor = "multi_thread")]
async fn r69_r72_a_peers_snapshot_meets_each_of_the_four_verdicts() {
    let (server, log) = (NatsServer::start(), tempfile::tempdir().unwrap());
    let of = |runtime, terms| plan(runtime, "planner", terms, (&server, log.path()));
    let wide = "allowed_use = [\"evidence\", \"evaluation\", \"training\"]";
    let critic = Sidecar::connected(of("critic", wide)).await;
    let monitor = Sidecar::connected(of("monitor", "")).await;
    let auditor = Sidecar::connected(of("auditor", "scope = \"auditing\"")).await;
    let planner = planner(&server, log.path()).await;
    planner.has_peers("full", 1).await;
    assert_eq!(push(&planner, b"memory").await.status, 201);
    // All of what is offered, and a part of it: labelled as external, for these uses.
    let uses = [(&critic, "evidence, evaluation", "accept"), (&monitor, "evidence", "narrow")];
    for (reader, allowed, verdict) in uses {
        let found = pull(reader, "?source=planner", "").await;
        assert_eq!((found.status, &found.body[..]), (200, &b"memory"[..]));
        assert_eq!(found.header("driftgate-external"), Some("true"));
        assert_eq!(found.header("driftgate-source"), Some("planner"));
        assert_eq!(found.header("driftgate-allowed-use"), Some(allowed));
        let listed = pull(reader, "?source=planner&list", "").await.json()["snapshots"][0].clone();
        assert_eq!(
            (&listed["external"], &listed["exchange"]["verdict"]),
            (&json!(true), &json!(verdict))
        );
        assert_eq!(listed["exchange"]["drift_source"], "native");
        assert_eq!(found.header("driftgate-seq"), Some(listed["seq"].to_string().as_str()));
    }
    // Not under that scope: refused by name, and nothing of it is handed over.
    let refused = pull(&auditor, "?source=planner", "").await;
    assert_eq!(refused.status, 502);
    assert!(refused.json()["detail"].as_str().unwrap().contains("scope"), "{}", refused.json());
    let listed = pull(&auditor, "?source=planner&list", "").await.json()["snapshots"][0].clone();
    assert_eq!(listed["refused"], "unauthorised");
    // Not the manifest's own envelope, cut, twice, or none at all.
    let client = async_nats::connect(server.url()).await.unwrap();
    let object = objects(&server).await.remove(0);
    let (key, manifest) = (key(&object.name), &object.metadata[MANIFEST_ENTRY]);
    let genuine = &object.metadata[EXCHANGE_ENTRY];
    for envelopes in [&["e30"][..], &[&genuine[1..]], &[genuine, genuine]] {
        enclose(&client, &key, manifest, envelopes).await;
        let refused = pull(&monitor, "?source=planner", "").await;
        assert_eq!(refused.status, 502, "{envelopes:?}");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("exchange envelope"), "{detail}");
    }
    enclose(&client, &key, manifest, &[]).await;
    let found = pull(&monitor, "?source=planner", "").await;
    assert_eq!(found.status, 200, "no rule of the monitor's asks for one");
    assert_eq!(pull(&auditor, "?source=planner", "").await.status, 502, "the auditor's does");
    let books = monitor.books().await;
    for (verdict, count) in [("accept", 1), ("narrow", 1), ("quarantine", 0), ("reject", 3)] {
        assert_eq!(books.sum("snapshot_exchanges", &[("verdict", verdict)]), count, "{verdict}");
    }
    for (provenance, count) in [("signed", 1), ("unsigned", 1)] {
        let family = "snapshot_exchange_provenance";
        assert_eq!(books.sum(family, &[("provenance", provenance)]), count, "{provenance}");
    }
    let said = |line: &Value| {
        ["event", "direction", "source", "target", "effect", "evidence", "provenance"]
            .map(|name| line[name].as_str().unwrap_or("-").to_owned())
    };
    let lines = lines(log.path(), "monitor", 3).await;
    let taken = ["inbound_accepted", "inbound", "planner", "monitor", "observation", "accepted"];
    assert_eq!(
        (&said(&lines[0])[..6], &said(&lines[0])[6][..]),
        (&taken.map(str::to_owned)[..], "native")
    );
    assert_eq!(lines[0]["trace_id"], TRACE[3..35]);
    assert_eq!(lines[0]["detail"]["verdict"], "narrow");
    assert_eq!(lines[1]["event"], "inbound_refused");
    assert_eq!(lines[1]["detail"]["verdict"], "reject");
    assert_eq!(lines.len(), 3, "the same verdict twice is no news");
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_what_was_put_beside_a_manifest_of_ours_is_written_again_and_harms_no_memory_of_ours() {
    let (server, log) = (NatsServer::start(), tempfile::tempdir().unwrap());
    let mut planner = planner(&server, log.path()).await;
    assert_eq!(push(&planner, b"memory").await.status, 202, "the critic is not known yet");
    let critic = Sidecar::connected(plan("critic", "planner", "", (&server, log.path()))).await;
    planner.has_peers("full", 1).await;
    let object = until("the object", async || objects(&server).await.pop()).await;
    let (key, manifest) = (key(&object.name), &object.metadata[MANIFEST_ENTRY]);
    let client = async_nats::connect(server.url()).await.unwrap();
    enclose(&client, &key, manifest, &["e30"]).await;
    assert_eq!(pull(&critic, "?source=planner", "").await.status, 502);
    let digest = object.metadata[MANIFEST_ENTRY].clone();
    let digest: Value = serde_json::from_str(&digest).unwrap();
    let query = format!("?digest={}", digest["digest"].as_str().unwrap());
    assert_eq!(pull(&planner, &query, "").await.body, b"memory");
    planner.kill();
    planner.start_again().await;
    planner.is_connected().await;
    planner.report(0.2).await;
    planner.has_peers("full", 1).await;
    assert_eq!(push(&planner, b"memory, and more").await.status, 201);
    assert_eq!(enclosed(&server, &key).await.as_ref(), Some(&object.metadata[EXCHANGE_ENTRY]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_restores_nothing_that_an_entry_forbids() {
    let (server, log) = (NatsServer::start(), tempfile::tempdir().unwrap());
    let planner = planner(&server, log.path()).await;
    let terms = "scope = \"auditing\"";
    let critic = Sidecar::connected(plan("critic", "planner", terms, (&server, log.path()))).await;
    planner.has_peers("full", 1).await;
    assert_eq!(push(&planner, b"memory").await.status, 201);
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_driftgate"));
        command.arg("snapshot").arg(words[0]).arg("--config");
        command.arg(critic.folder().join("base.toml")).arg("--config");
        command.arg(critic.folder().join("more.toml")).args(&words[1..]);
        let output = command.output().expect("the binary under test");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let out = critic.folder().join("out");
    let (code, said) = run(&["restore", "planner", out.to_str().unwrap()]);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("not under the scope") && !out.exists(), "{said}");
    let (code, said) = run(&["ls", "planner"]);
    assert!(code == Some(0) && said.contains("refused: unauthorised"), "{said}");
}
