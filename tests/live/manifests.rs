//! Capability manifests at a real broker: what a sidecar publishes of itself, and the mode of
//! exchange that follows from what it finds under the names of its peers.

use async_nats::jetstream;
use bytes::Bytes;
use driftgate::protocol::capabilities::capabilities_schema;
use driftgate::protocol::document::verify_body;
use driftgate::protocol::keyring::Domain;
use serde_json::Value;

use crate::support::forge::{fleet_keyring, foreign_keyring};
use crate::support::manifest::{self, BUCKET, manifest, put, seq_now};
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::sidecar::{Plan, Sidecar, status};
use crate::support::wait::until;

/// What stands under a name: the manifest and its token.
async fn entry(server: &NatsServer, key: &str) -> Option<(Bytes, Option<String>)> {
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = jetstream::new(client).get_stream(format!("KV_{BUCKET}")).await.ok()?;
    let subject = format!("$KV.{BUCKET}.{key}");
    let message = stream.get_last_raw_message_by_subject(&subject).await.ok()?;
    let token = message.headers.get("Driftgate-Token").map(ToString::to_string);
    Some((message.payload, token))
}

fn is_signed((body, token): &(Bytes, Option<String>)) -> bool {
    let token = token.as_deref().unwrap_or_default();
    verify_body(&fleet_keyring(), Domain::Capabilities, token, body).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn r2_two_sidecars_find_each_others_signed_manifests_and_exchange_in_full() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    planner.has_peers("full", 1).await;
    critic.has_peers("full", 1).await;
    let found = entry(&server, "planner").await.expect("its manifest");
    assert!(is_signed(&found));
    let body: Value = serde_json::from_slice(&found.0).unwrap();
    let schema = &capabilities_schema()["$defs"]["published"];
    let validator = jsonschema::validator_for(schema).expect("a schema");
    assert!(validator.validate(&body).is_ok(), "not as its schema says: {body}");
    let mut spoilt = body.clone();
    spoilt["thresholds"]["block"] = "half".into();
    assert!(!validator.is_valid(&spoilt), "the schema says nothing");
    for key in [
        "surfaces",
        "authorisation",
        "artifact_types",
        "gate",
        "thresholds",
        "retention",
        "audit",
        "serializations",
        "compressions",
        "integrity_algs",
        "drift_source",
        "profile",
        "scopes",
        "deviations",
    ] {
        assert!(!body[key].is_null(), "{key} is missing: {body}");
    }
    assert_eq!(body["protocol_versions"], serde_json::json!(["1.0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_r17_r18_a_foreign_peer_is_met_as_its_manifest_deserves() {
    let server = NatsServer::start();
    let (url, keyring) = (server.url(), fleet_keyring());
    let mut later = manifest("later");
    later["protocol_versions"] = serde_json::json!(["1.9"]);
    later["news"] = serde_json::json!({"of": "a minor that we do not know"});
    let mut major = manifest("major");
    major["protocol_versions"] = serde_json::json!(["2.0", "3.1"]);
    let mut ended = manifest("ended");
    ended["expires"] = "2020-01-01T00:00:00Z".into();
    let cases = [
        ("later", later, Some(&keyring)),
        ("major", major, Some(&keyring)),
        ("ended", ended, Some(&keyring)),
        ("unsigned", manifest("unsigned"), None),
        ("forged", manifest("forged"), Some(&foreign_keyring())),
        ("foreign", manifest("later"), Some(&keyring)),
    ];
    for (name, body, signer) in &cases {
        let body = body.to_string();
        let sign = |keyring: &_| manifest::token(keyring, seq_now(), body.as_bytes());
        let token = signer.map(sign);
        put(&url, name, body.as_bytes(), token.as_deref()).await.expect("stored");
    }
    let bomb = b"a: &a [x]\nb: [*a, *a]\n";
    let token = manifest::token(&keyring, seq_now(), bomb);
    put(&url, "bomb", bomb, Some(&token)).await.expect("stored");
    let names = ["later", "major", "ended", "unsigned", "forged", "foreign", "bomb", "missing"];
    let planner = Sidecar::connected(Plan::new("planner", &names, &url)).await;
    planner.has_peers("full", 1).await;
    planner.has_peers("rejected", 1).await;
    planner.has_peers("minimal", 6).await;
    for (peer, reason) in [
        ("later", "matching"),
        ("major", "unsupported_major"),
        ("ended", "manifest_expired"),
        ("unsigned", "manifest_unsigned"),
        ("forged", "manifest_forged"),
        ("foreign", "manifest_foreign"),
        ("bomb", "manifest_invalid"),
    ] {
        let said = planner.log().lines().any(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            line["message"] == "exchange mode" && line["peer"] == peer && line["reason"] == reason
        });
        assert!(said, "{peer} {reason} is not said: {}", planner.log());
    }
    let observer = Observer::start(&url).await;
    let from = observer.mark().await;
    let reply = planner.report(0.2).await;
    let packets = reply["packets"].as_array().unwrap();
    let of = |name| packets.iter().find(|line| line["target"] == name).unwrap()["status"].clone();
    assert_eq!((of("major"), of("bomb")), ("held".into(), "stored".into()), "{reply}");
    observer.mark().await;
    assert_eq!(observer.packets(from).len(), names.len() - 1, "none for the rejected one");
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_no_snapshot_is_fetched_from_a_peer_of_another_major() {
    let server = NatsServer::start();
    let (url, keyring) = (server.url(), fleet_keyring());
    let peer = "[[peers]]\nid = \"critic\"\nexport = [\"state\"]\nimport = [\"snapshot\"]";
    let mut other = manifest("critic");
    other["protocol_versions"] = serde_json::json!(["2.0"]);
    let body = other.to_string();
    let token = manifest::token(&keyring, seq_now(), body.as_bytes());
    put(&url, "critic", body.as_bytes(), Some(&token)).await.expect("stored");
    let planner = Sidecar::connected(Plan::new("planner", &[], &url).with(peer)).await;
    planner.has_peers("rejected", 1).await;
    planner.report(0.2).await;
    let refused = planner.get("/memory/snapshot?source=critic").await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(refused.text().contains("it speaks another major version"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_manifest_older_than_the_newest_believed_stays_refused_after_kill_9() {
    let server = NatsServer::start();
    let (url, keyring, newest) = (server.url(), fleet_keyring(), seq_now());
    let mut narrow = manifest("critic");
    narrow["artifact_types"] = serde_json::json!(["state"]);
    let stands = async |body: &Value, seq: u64| {
        let body = body.to_string();
        let token = manifest::token(&keyring, seq, body.as_bytes());
        put(&url, "critic", body.as_bytes(), Some(&token)).await.expect("stored");
    };
    stands(&narrow, newest).await;
    let mut planner = Sidecar::connected(Plan::new("planner", &["critic"], &url)).await;
    // The log tells what a manifest decides, whether or not its owner answers, over all lives.
    let says = async |planner: &Sidecar, reason: &str, times: usize| {
        until(reason, async || {
            let log = planner.log();
            assert!(!log.contains("\"mode\":\"full\""), "{log}");
            let reason = format!("\"reason\":\"{reason}\"");
            (log.matches(&reason).count() == times).then_some(())
        })
        .await;
    };
    says(&planner, "lacks_artifact", 1).await;
    // Its own, validly signed, and made before: it offers more than the peer does now.
    stands(&manifest("critic"), newest - 1).await;
    for life in 1..=2 {
        planner.kill();
        planner.start_again().await;
        says(&planner, "manifest_replayed", life).await;
    }
    stands(&manifest("critic"), newest + 1).await;
    planner.kill();
    planner.start_again().await;
    planner.has_peers("full", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_entry_under_our_name_is_said_and_written_again() {
    let server = NatsServer::start();
    let body = manifest("planner").to_string();
    let token = manifest::token(&foreign_keyring(), seq_now(), body.as_bytes());
    put(&server.url(), "planner", body.as_bytes(), Some(&token)).await.expect("stored");
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    until("our manifest to stand there", async || {
        entry(&server, "planner").await.filter(is_signed)
    })
    .await;
    assert!(planner.log().contains("capabilities_foreign"), "{}", planner.log());
    // The next look, sooner because a peer has none, finds that all is well.
    until("the condition to end", async || {
        let ready = planner.readiness().await.to_string();
        (!ready.contains("capabilities_foreign")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_declares_is_published_and_a_change_without_a_restart() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime_capabilities.yml");
    let declare = |text: &str| std::fs::write(&file, text).unwrap();
    declare("runtime_id: planner\nscopes: [display]\nartifact_types: [state]\n");
    let more = format!("[runtime]\ncapabilities = {file:?}");
    let plan = Plan::new("planner", &["critic"], &server.url()).with(&more);
    let mut planner = Sidecar::connected(plan).await;
    let declares = async |scope: &str| {
        until("the manifest to be published", async || {
            let (body, _) = entry(&server, "planner").await.filter(is_signed)?;
            let body: Value = serde_json::from_slice(&body).ok()?;
            (body["scopes"][0] == scope).then_some(body)
        })
        .await
    };
    assert_eq!(declares("display").await["artifact_types"], serde_json::json!(["state"]));
    declare("runtime_id: planner\nscopes: [evidence]\n");
    planner.signal("HUP");
    declares("evidence").await;
    // Another runtime's file is refused, and nothing changes.
    declare("runtime_id: critic\ncolour: red\n");
    planner.signal("HUP");
    until("the mistake to be said", async || {
        let ready = planner.readiness().await.to_string();
        ready.contains("runtime.capabilities").then_some(())
    })
    .await;
    declares("evidence").await;
    planner.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_no_manifest_leaves_and_a_bucket_that_cannot_be_had_is_said() {
    let server = NatsServer::start();
    let shadow = "[containment]\nmode = \"shadow\"";
    let plan = Plan::new("planner", &["critic"], &server.url()).with(shadow);
    let planner = Sidecar::connected(plan).await;
    planner.report(0.2).await;
    let bare = "[nats]\nprovision = false";
    let plan = Plan::new("critic", &["planner"], &server.url()).with(bare);
    let critic = Sidecar::connected(plan).await;
    until("the absent bucket to be said", async || {
        let ready = critic.readiness().await.to_string();
        ready.contains("capabilities_unread").then_some(())
    })
    .await;
    assert_eq!(entry(&server, "planner").await, None);
    critic.has_peers("minimal", 1).await;
    let reply = critic.report(0.2).await;
    assert_eq!(status(&reply), "stored", "{reply}");
}
