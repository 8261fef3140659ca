//! What an isolated sidecar leaves on the broker while it looks at its streams: nothing (P4). And
//! what a server that retires costs: nothing that was under way.

use std::sync::Arc;

use async_nats::Message;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::proxy::Proxy;
use crate::support::sidecar::{Plan, Sidecar, status};

/// An account without JetStream, so that whoever listens to its API decides what is answered.
const NO_JETSTREAM: &str =
    "accounts { A { users: [ { user: a, password: a } ] } }\nno_auth_user: a";

/// Subscriptions of the planner on any of its connections, as the server itself shows them.
fn shown(server: &NatsServer) -> Vec<Value> {
    let connections = server.connz();
    let is_ours = |connection: &&Value| connection["name"] == "driftgate-planner";
    let of = |connection: &Value| connection["subscriptions_list_detail"].as_array().cloned();
    connections.iter().filter(is_ours).filter_map(of).flatten().collect()
}

fn asks(message: &Message) -> bool {
    message.subject.starts_with("$JS.API.STREAM.INFO.")
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_isolation_cuts_a_look_at_the_streams_that_nobody_answers() {
    let server = NatsServer::start_with(NO_JETSTREAM);
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::start(plan).await;
    observer.find(0, "a look at a stream", asks).await;
    assert!(!shown(&server).is_empty(), "it waits for the answer");
    let closing = sidecar.bounded(0.65).await;
    let left = shown(&server);
    assert_eq!(closing["band"], "isolated", "{closing}");
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
    assert!(left.is_empty(), "{left:?} after {closing}");
    let place = observer.mark().await;
    assert_eq!(sidecar.bounded(0.66).await["band"], "isolated");
    observer.mark().await;
    let later = observer.heard(place);
    assert!(!later.iter().any(asks), "an isolated sidecar asks for nothing: {later:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_isolation_is_not_confirmed_while_a_stalled_look_holds_a_subscription() {
    let server = NatsServer::start_with(NO_JETSTREAM);
    let proxy = Proxy::start(&server.url()).await;
    let observer = Observer::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &proxy.url()).short();
    let sidecar = Sidecar::start(plan).await;
    observer.find(0, "a look at a stream", asks).await;
    proxy.stall(true);
    let closing = sidecar.bounded(0.65).await;
    let left = shown(&server);
    assert_eq!(closing["band"], "isolated", "{closing}");
    assert!(!left.is_empty(), "the way to the server is stalled, so it shows what it knows");
    assert_eq!(closing["barrier"], "unconfirmed", "{closing} while the server shows {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_retires_is_left_when_what_is_under_way_is_answered() {
    let server = NatsServer::start();
    let is_told = Arc::new(Notify::new());
    let tells = Arc::clone(&is_told);
    let client = async_nats::ConnectOptions::new().event_callback(move |event| {
        if event == async_nats::Event::LameDuckMode {
            tells.notify_one();
        }
        std::future::ready(())
    });
    let observer = Observer::of(client.connect(server.url()).await.unwrap()).await;
    let plan = Plan::new("planner", &["critic"], &server.url())
        .with("[nats]\nack_timeout = \"5s\"\n[listen]\nreply_timeout = \"5s\"");
    let sidecar = Sidecar::connected(plan).await;
    // The stream takes the planner's packets no longer; the observer answers in its place.
    let mut config =
        observer.api("STREAM.INFO.DRIFTGATE_STATE", &Value::Null).await["config"].take();
    config["subjects"] = json!(["driftgate.v1.state.*.planner"]);
    let answer = observer.api("STREAM.UPDATE.DRIFTGATE_STATE", &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    let place = observer.mark().await;
    let is_packet =
        |message: &Message| message.subject.as_str() == "driftgate.v1.state.planner.critic";
    let answers = async {
        let (_, packet) = observer.find(place, "the packet", is_packet).await;
        server.retire();
        // Everybody is told at once; a round trip later the sidecar has read it.
        is_told.notified().await;
        observer.mark().await;
        let stored = json!({ "stream": "DRIFTGATE_STATE", "seq": 7 }).to_string();
        let reply = packet.reply.expect("a packet asks for an answer");
        observer.client.publish(reply, stored.into()).await.unwrap();
    };
    let (reply, ()) = tokio::join!(sidecar.report(0.30), answers);
    assert_eq!(status(&reply), "stored", "{reply}");
    let closing = sidecar.report(0.51).await;
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
}
