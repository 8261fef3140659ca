//! Provisioning against a real nats-server: what is created, what is compared, what is left alone.

#![allow(clippy::disallowed_methods, reason = "a test may panic, and measures with the real clock")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is the report")]

use std::time::Duration;

use crate::support::link::Bench;
use crate::support::nats_command::NatsCli;
use crate::support::nats_server::{NatsServer, eventually};
use async_nats::Client;
use driftgate::config::Durability;
use driftgate::nats::assets::{AssetFault, ensure};
use driftgate::nats::object::{Label, Store};
use driftgate::nats::subject::AssetName;
use serde_json::{Value, json};

async fn call(client: &Client, call: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = client.request(format!("$JS.API.{call}"), body.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_creates_what_is_promised_and_twice_is_once() {
    let server = NatsServer::start();
    let settings = server.settings("planner");
    let first = ensure(&settings).await.unwrap();
    assert_eq!(first.created.len(), 3, "{first:?}");
    assert!(first.has_stream_out && first.has_consumer);
    assert_eq!(first.differences, Vec::<String>::new());
    let second = ensure(&settings).await.unwrap();
    assert!(second.created.is_empty() && second.differences.is_empty(), "{second:?}");
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = call(&client, "STREAM.INFO.DRIFTGATE_STATE", Value::Null).await;
    let hour_ns = 3_600_000_000_000_u64;
    for (field, expected) in [
        ("subjects", json!(["driftgate.v1.state.*.*"])),
        ("max_msgs_per_subject", json!(8)),
        ("max_age", json!(hour_ns)),
        ("duplicate_window", json!(hour_ns / 30)),
        ("max_consumers", json!(20_000)),
        ("discard", json!("old")),
        ("storage", json!("file")),
    ] {
        assert_eq!(stream["config"][field], expected, "{field}");
    }
    let consumer =
        call(&client, "CONSUMER.INFO.DRIFTGATE_STATE.driftgate-planner", Value::Null).await;
    for (field, expected) in [
        ("filter_subject", json!("driftgate.v1.state.*.planner")),
        ("ack_policy", json!("explicit")),
        ("ack_wait", json!(30_000_000_000_u64)),
        ("max_ack_pending", json!(256)),
        ("max_deliver", json!(-1)),
        ("deliver_policy", json!("last_per_subject")),
    ] {
        assert_eq!(consumer["config"][field], expected, "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_start_together_agree() {
    let server = NatsServer::start();
    let settings: Vec<_> = (0..8).map(|n| server.settings(&format!("r{n}"))).collect();
    let reports = futures_util::future::join_all(settings.iter().map(ensure)).await;
    for report in reports {
        let report = report.unwrap();
        assert!(report.has_stream_out && report.has_consumer && report.differences.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_provisioning_what_is_absent_is_said_and_stays_absent() {
    let server = NatsServer::start();
    let mut settings = server.settings("observer");
    settings.broker.provision = false;
    for _ in 0..2 {
        let report = ensure(&settings).await.unwrap();
        let absent = [
            "stream DRIFTGATE_STATE is absent",
            "stream DRIFTGATE_QUARANTINE is absent",
            "bucket driftgate-presence is absent",
        ];
        assert_eq!(report.differences, absent);
        assert!(!report.has_stream_out && !report.has_consumer && report.created.is_empty());
    }
    settings.broker.provision = true;
    settings.broker.stream_in = AssetName::new("SOURCED").unwrap();
    let report = ensure(&settings).await.unwrap();
    assert_eq!(report.differences, ["stream SOURCED is absent"]);
    assert!(report.has_stream_out && !report.has_consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_weaker_setting_is_reported_in_words_and_left_alone() {
    let server = NatsServer::start();
    let client = async_nats::connect(server.url()).await.unwrap();
    let weak_stream = json!({
        "name": "DRIFTGATE_STATE", "subjects": ["driftgate.v1.state.planner.*"],
        "retention": "interest", "discard": "new", "storage": "memory", "num_replicas": 1,
        "max_msgs_per_subject": 1, "max_age": 60_000_000_000_u64, "max_msgs": -1, "max_bytes": -1,
        "duplicate_window": 1_000_000_000, "max_consumers": 100, "no_ack": true
    });
    call(&client, "STREAM.CREATE.DRIFTGATE_STATE", weak_stream).await;
    let weak_consumer = json!({ "stream_name": "DRIFTGATE_STATE", "config": {
        "durable_name": "driftgate-planner", "filter_subject": "driftgate.v1.state.planner.*",
        "ack_policy": "all", "ack_wait": 1_000_000_000, "max_ack_pending": 5_000,
        "max_deliver": 3, "deliver_policy": "all", "headers_only": true
    }});
    call(&client, "CONSUMER.DURABLE.CREATE.DRIFTGATE_STATE.driftgate-planner", weak_consumer).await;
    let mut settings = server.settings("planner");
    settings.broker.replicas = 3;
    settings.broker.stream_quarantine = AssetName::new("DRIFTGATE_STATE").unwrap();
    let before = call(&client, "STREAM.INFO.DRIFTGATE_STATE", Value::Null).await;
    let report = ensure(&settings).await.unwrap();
    for part in [
        "stream DRIFTGATE_STATE: subjects are",
        "retention is interest",
        "discard is new",
        "storage is memory",
        "num_replicas is 1",
        "max_msgs_per_subject is 1",
        "max_age is 60 s",
        "duplicate_window is 1 s",
        "max_consumers is 100",
        "no_ack is set",
        "consumer driftgate-planner: filter_subject is",
        "ack_policy is all",
        "ack_wait is 1 s",
        "max_ack_pending is 5000",
        "max_deliver is 3",
        "deliver_policy is all",
        "headers_only is set",
    ] {
        let count = report.differences.iter().filter(|said| said.contains(part)).count();
        assert!(count > 0, "{part} in {:#?}", report.differences);
    }
    let after = call(&client, "STREAM.INFO.DRIFTGATE_STATE", Value::Null).await;
    assert_eq!(before["config"], after["config"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_falls_short_of_the_durability_is_said_and_left_alone() {
    let server = NatsServer::start();
    let mut settings = server.settings("planner");
    ensure(&settings).await.unwrap();
    let (replicated, synced) = ("num_replicas is 1, fewer than 3", "has no tag sync:always");
    for (durability, expected) in [
        (Durability::Acked, &[][..]),
        (Durability::Replicated, &[replicated]),
        (Durability::Synced, &[replicated, synced]),
    ] {
        settings.broker.durability = durability;
        let report = ensure(&settings).await.unwrap();
        for stream in ["DRIFTGATE_STATE", "DRIFTGATE_QUARANTINE"] {
            let about = format!("stream {stream}: ");
            let said: Vec<_> =
                report.differences.iter().filter(|said| said.starts_with(&about)).collect();
            assert_eq!(said.len(), expected.len(), "{report:#?}");
            assert!(said.iter().zip(expected).all(|(said, part)| said.contains(part)), "{said:?}");
        }
        assert_eq!(report.differences.len(), 2 * expected.len(), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_asks_for_the_servers_that_the_durability_names() {
    let tagged = NatsServer::start_with("server_tags: [\"sync:always\"]");
    let mut settings = tagged.settings("planner");
    settings.broker.durability = Durability::Synced;
    let report = ensure(&settings).await.unwrap();
    let tag = |said: &&String| said.contains("sync:always");
    assert_eq!(report.differences.iter().find(tag), None, "{report:#?}");
    let client = async_nats::connect(tagged.url()).await.unwrap();
    let stream = call(&client, "STREAM.INFO.DRIFTGATE_STATE", Value::Null).await;
    assert_eq!(stream["config"]["placement"]["tags"], json!(["sync:always"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_refuses_is_a_fault_in_its_words() {
    let server = NatsServer::start();
    let mut settings = server.settings("planner");
    settings.broker.replicas = 3;
    let Err(AssetFault::Refused { call, err_code, .. }) = ensure(&settings).await else { panic!() };
    assert_eq!((call.as_str(), err_code), ("STREAM.CREATE.DRIFTGATE_STATE", 10_074));
    let without = NatsServer::start_with(
        "accounts { A { users: [ { user: a, password: a } ] } }\nno_auth_user: a",
    );
    let fault = ensure(&without.settings("planner")).await;
    assert_eq!(fault, Err(AssetFault::NoJetStream));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_consumer_are_those_of_the_domain() {
    let account = "accounts {\nA { jetstream: enabled, users: [ { user: a, password: a } ] }\n\
                   S { users: [ { user: s, password: s } ] }\n}\n\
                   system_account: S\nno_auth_user: a\n";
    let store = tempfile::tempdir().unwrap();
    let jetstream = |domain: &str| {
        let folder = store.path().join(domain);
        format!("jetstream {{ store_dir: {folder:?}, domain: {domain} }}\n")
    };
    let hub = NatsServer::start_with(&format!(
        "server_name: hub\n{account}{}leafnodes {{ listen: \"127.0.0.1:-1\" }}",
        jetstream("hub")
    ));
    let leaf_port = hub.get("/varz")["leaf"]["port"].as_u64().unwrap();
    let edge = NatsServer::start_with(&format!(
        "server_name: edge\n{account}{}leafnodes {{ remotes: [ {{\n\
         url: \"nats://a:a@127.0.0.1:{leaf_port}\"\naccount: A\n}} ] }}",
        jetstream("edge")
    ));
    eventually("the leaf to be connected", || edge.get("/leafz")["leafnodes"] != 0);
    let mut settings = edge.settings("planner");
    settings.broker.domain = AssetName::new("hub");
    let mut bench = Bench::open(&settings).await;
    bench.pull(16, Duration::from_secs(30));
    bench.link.publish(1, bench.message("planner", "", "state")).unwrap();
    assert_eq!(bench.acked(1).await.unwrap().stream_seq, 1);
    let message = bench.inbound().await;
    assert_eq!(&message.payload[..], b"state");
    bench.link.ack(&message.reply).unwrap();
    bench.confirm(1).await;
    let streams = |server: &NatsServer| server.get("/jsz")["streams"].as_u64().unwrap();
    assert_eq!((streams(&hub), streams(&edge)), (3, 0), "made at the hub, not where we connect");
    let store = Store::open(&settings, "driftgate-snapshots").await.unwrap();
    let label = Label { name: "planner/1".to_owned(), ..Label::default() };
    store.put(&label, "memory".into(), &|_| {}).await.unwrap();
    assert_eq!(&store.get("planner/1", 64, &|_| {}).await.unwrap()[..], b"memory");
    assert_eq!((streams(&hub), streams(&edge)), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_command_line_checks_our_assets_by_our_thresholds() {
    let server = NatsServer::start();
    let Some(nats) = NatsCli::on(&server) else { return };
    ensure(&server.settings("planner")).await.unwrap();
    let check = |what: &[&str]| nats.run(&[&["server", "check"], what].concat());
    let quarantine = ["stream", "--stream", "DRIFTGATE_QUARANTINE"];
    let consumer = ["consumer", "--stream", "DRIFTGATE_STATE", "--consumer", "driftgate-planner"];
    for healthy in [
        &["stream", "--stream", "DRIFTGATE_STATE"][..],
        &quarantine,
        &consumer,
        &["kv", "--bucket", "driftgate-presence"],
    ] {
        let (code, text) = check(healthy);
        assert_eq!(code, 0, "{healthy:?}: {text}");
    }
    // natscli 0.5.1 reads the marks of a stream here, and those of a consumer in its audit alone.
    let (_, text) =
        nats.run(&["consumer", "info", "--json", "DRIFTGATE_STATE", "driftgate-planner"]);
    let info: Value = serde_json::from_str(&text).unwrap();
    let mark = &info["config"]["metadata"]["io.nats.monitor.outstanding-ack-critical"];
    assert_eq!(mark, "256", "{text}");
    // One refused message is worth a look.
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let sent = context.publish("driftgate.v1.quarantine.planner", "refused".into()).await.unwrap();
    sent.await.unwrap();
    let (code, text) = check(&quarantine);
    assert_eq!(code, 1, "a warning: {text}");
    for stream in ["DRIFTGATE_STATE", "DRIFTGATE_QUARANTINE", "KV_driftgate-presence"] {
        let (_, text) = nats.run(&["stream", "info", "--json", stream]);
        let info: Value = serde_json::from_str(&text).unwrap();
        let description = info["config"]["description"].as_str().unwrap_or_default();
        assert!(description.starts_with("Driftgate: "), "{stream}: {description}");
    }
}
