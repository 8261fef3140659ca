//! The micro service of a running sidecar, by the real `nats` command and by raw requests.

use async_nats::{Client, Message};
use serde_json::{Value, json};

use crate::support::nats_cli::nats;
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::{LONG, until};

async fn ask(client: &Client, subject: &str) -> Message {
    let asking = client.request(subject.to_owned(), "".into());
    tokio::time::timeout(LONG, asking).await.expect("in time").expect("an answer")
}

fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).expect("JSON")
}

fn error_of(message: &Message) -> Option<&str> {
    message.headers.as_ref()?.get("Nats-Service-Error-Code").map(|code| code.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_command_sees_the_service() {
    let server = NatsServer::start();
    let planner = Sidecar::start(Plan::new("planner", &["critic"], &server.url()).short()).await;
    planner.stores().await;
    // It looks who is there when it comes, and then once a minute.
    let critic = Sidecar::start(Plan::new("critic", &["planner"], &server.url()).short()).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let ping = body(&ask(&client, "$SRV.PING.driftgate").await);
    assert_eq!(ping["type"], "io.nats.micro.v1.ping_response");
    let Some(list) = nats(&server.url(), &["micro", "ls", "--json"]) else { return };
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    let ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|x| x["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&ping["id"].as_str().unwrap()), "{ids:?}");
    let planner_info = list.as_array().unwrap().iter();
    let mut planner_info = planner_info.filter(|one| one["metadata"]["runtime_id"] == "planner");
    let info = planner_info.next().expect("the planner").clone();
    let id = info["id"].as_str().unwrap();
    let seen = until("the planner's presence", async || {
        let state = critic.get("/field/state").await.json();
        let seen = state["peers"][0]["presence"].clone();
        seen.is_object().then_some(seen)
    })
    .await;
    assert_eq!((&seen["instance"], &seen["state"]), (&info["id"], &json!("live")), "{seen}");
    let entry = nats(&server.url(), &["kv", "get", "driftgate-presence", "planner", "--raw"]);
    let entry: Value = serde_json::from_str(&entry.unwrap()).unwrap();
    assert_eq!(entry["instance"], info["id"], "one name for one life: {entry}");
    assert_eq!(info["metadata"]["protocol_version"], "1.0", "{info}");
    assert_eq!(info["metadata"]["version"], info["version"], "{info}");
    for endpoint in ["safety", "peers", "snapshots"] {
        ask(&client, &format!("driftgate.v1.service.planner.{endpoint}")).await;
    }
    let text = nats(&server.url(), &["micro", "info", "driftgate", id]).unwrap();
    for needed in ["driftgate.v1.service.planner.safety", "runtime_id: planner", "snapshots"] {
        assert!(text.contains(needed), "{needed} in {text}");
    }
    let stats = nats(&server.url(), &["micro", "stats", "driftgate", "--json"]).unwrap();
    assert!(stats.contains(id), "{stats}");
    let stats = body(&ask(&client, &format!("$SRV.STATS.driftgate.{id}")).await);
    for endpoint in stats["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["num_requests"], 1, "{stats}");
        assert!(endpoint["processing_time"].as_u64().is_some_and(|time| time > 0), "{stats}");
    }
    let pings = nats(&server.url(), &["micro", "ping", "driftgate"]).unwrap();
    assert!(pings.contains(id), "{pings}");
    println!("{text}{pings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_answer_423_unless_open_and_an_isolated_sidecar_answers_nothing() {
    let server = NatsServer::start();
    let planner = Sidecar::start(Plan::new("planner", &["critic"], &server.url()).short()).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    planner.stores().await;
    let safety = ask(&client, "driftgate.v1.service.planner.safety").await;
    assert_eq!((error_of(&safety), &body(&safety)["band"]), (None, &json!("open")));
    assert_eq!(planner.bounded(0.46).await["band"], "caution");
    assert_eq!(body(&ask(&client, "driftgate.v1.service.planner.safety").await)["band"], "caution");
    assert_eq!(planner.bounded(0.57).await["band"], "blocked");
    for endpoint in ["safety", "peers", "snapshots"] {
        let refused = ask(&client, &format!("driftgate.v1.service.planner.{endpoint}")).await;
        assert_eq!(error_of(&refused), Some("423"), "{refused:?}");
        assert!(
            !refused.payload.is_empty()
                && !String::from_utf8_lossy(&refused.payload).contains("0.57")
        );
    }
    let ping = ask(&client, "$SRV.PING.driftgate").await;
    assert_eq!(body(&ping)["name"], "driftgate", "a blocked gate is still there");
    assert_eq!(planner.bounded(0.67).await["band"], "isolated");
    assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()));
    let silence = client.request("$SRV.PING.driftgate", "".into()).await;
    assert!(silence.is_err(), "{silence:?}");
    let reopened = planner.stores().await;
    assert_eq!(reopened["band"], "open");
    let safety = body(&ask(&client, "driftgate.v1.service.planner.safety").await);
    let shown = safety.to_string();
    assert!(!shown.contains("0.57") && !shown.contains("0.67"), "a refused number leaves: {shown}");
    assert_eq!(safety["transitions"].as_array().map(Vec::len), Some(5), "{safety}");
}
