//! Phase telemetry between two sidecars, as a listener of each and a stranger on the broker see it.

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::{LONG, until};

/// A peer that may have and send everything.
pub(crate) fn open_to(peer: &str) -> String {
    let scopes = "[\"state\", \"telemetry\"]";
    format!("[[peers]]\nid = {peer:?}\nexport = {scopes}\nimport = {scopes}\n")
}

pub(crate) async fn listen(sidecar: &Sidecar) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(sidecar.api).await.unwrap();
    let url = format!("ws://{}/phase/telemetry", sidecar.api);
    client_async(url, stream).await.unwrap().0
}

/// The next event that `is_meant`, and all before it.
pub(crate) async fn events(
    listener: &mut WebSocketStream<TcpStream>,
    is_meant: impl Fn(&str, &Value) -> bool,
) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    loop {
        let message = tokio::time::timeout(LONG, listener.next()).await;
        let message = message.unwrap_or_else(|_| panic!("only {events:?}")).unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let mut event: Value = serde_json::from_str(&text).unwrap();
        let (name, data) = (event["event"].as_str().unwrap().to_owned(), event["data"].take());
        let is_last = is_meant(&name, &data);
        events.push((name, data));
        if is_last {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p4_frames_reach_who_may_have_them_and_end_with_the_gate() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let plan = |me: &str, peer: &str| Plan::new(me, &[], &server.url()).with(&open_to(peer));
    let planner = Sidecar::connected(plan("planner", "critic")).await;
    let critic = Sidecar::connected(plan("critic", "planner")).await;
    critic.report(0.30).await;
    let mut here = listen(&planner).await;
    let mut there = listen(&critic).await;
    planner.report(0.31).await;
    let is_frame = |name: &str, _: &Value| name == "phase";
    let (_, own) = events(&mut here, is_frame).await.pop().unwrap();
    assert_eq!((&own["runtime_id"], &own["external"]), (&"planner".into(), &false.into()));
    assert!(own.get("psi").is_none() && own.get("phase_vector").is_none(), "{own}");
    let heard = events(&mut there, is_frame).await;
    let (_, frame) = heard.last().unwrap();
    assert_eq!((&frame["runtime_id"], &frame["external"]), (&"planner".into(), &true.into()));
    assert_eq!(frame["drift_index"], own["drift_index"]);
    // Refused: no frame leaves, and the transition is the last that is told here.
    planner.report(0.55).await;
    let told =
        events(&mut here, |name, data| name == "transition" && data["to"] == "blocked").await;
    assert!(!told.iter().any(|(_, data)| data["drift_index"].as_f64() >= Some(0.5)), "{told:?}");
    // What is refused from then on is told of, without anything that it says.
    planner.report(0.56).await;
    let told = events(&mut here, |name, _| name == "held").await;
    let (_, held) = told.last().unwrap();
    let members: Vec<&String> = held.as_object().unwrap().keys().collect();
    assert_eq!(members, ["band", "reasons", "seq"], "{held}");
    assert!(held["band"] == "blocked" && held["seq"].is_u64(), "{held}");
    // Isolated: nothing of the peer is told any more, and it may send what it likes.
    critic.report(0.65).await;
    planner.report(0.32).await;
    planner.report(0.33).await;
    critic.report(0.34).await;
    let told = events(&mut there, |name, data| name == "transition" && data["to"] == "open").await;
    let after = told.iter().skip_while(|(_, data)| data["to"] != "isolated");
    let external: Vec<_> = after.filter(|(_, data)| data["external"] == true).collect();
    assert!(external.is_empty(), "{external:?}");
    // All frames that were ever on the broker are of reports that were let through.
    observer.mark().await;
    let heard = observer.heard(0);
    let frames: Vec<f64> = heard
        .iter()
        .filter(|message| message.subject.as_str() == "driftgate.v1.telemetry.planner")
        .map(|message| serde_json::from_slice::<Value>(&message.payload).unwrap())
        .map(|frame| frame["drift_index"].as_f64().unwrap())
        .collect();
    assert_eq!(frames.len(), 3, "{frames:?}");
    assert!(frames.iter().all(|index| *index < 0.45), "{frames:?}");
    let books = until("the frames to be counted", async || {
        let books = critic.books().await;
        (books.sum("frames_accepted", &[]) >= 1).then_some(books)
    })
    .await;
    assert_eq!(books.sum("frames_refused", &[]), 0);
    assert_eq!(planner.books().await.sum("frames_sent", &[]), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peers_gate_is_told_of_once_and_nothing_that_is_not_proved() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let plan = |me: &str, peer: &str| Plan::new(me, &[], &server.url()).with(&open_to(peer));
    let planner = Sidecar::connected(plan("planner", "critic")).await;
    let critic = Sidecar::connected(plan("critic", "planner")).await;
    critic.report(0.30).await;
    planner.report(0.30).await;
    let mut there = listen(&critic).await;
    planner.report(0.55).await;
    let is_notice = |name: &str, data: &Value| name == "notice" && data["band"] == "blocked";
    let (_, notice) = events(&mut there, is_notice).await.pop().unwrap();
    let (source, reason) = (&notice["source"], &notice["reasons"][0]);
    assert_eq!((source, reason), (&"planner".into(), &"di_block".into()), "{notice}");
    assert_eq!(notice["external"], true);
    assert_eq!(notice["at"], planner.get("/aegida/safety").await.json()["since"]);
    // The same bytes again, and bytes that nobody has signed.
    observer.mark().await;
    let is_it = |message: &&async_nats::Message| {
        message.subject.as_str() == "driftgate.v1.containment.planner"
    };
    let newest = observer.heard(0).iter().rfind(is_it).unwrap().clone();
    let (client, headers) = (&observer.client, newest.headers.clone().unwrap());
    let subject = newest.subject.clone();
    client.publish_with_headers(subject.clone(), headers, newest.payload.clone()).await.unwrap();
    client.publish(subject, newest.payload).await.unwrap();
    client.flush().await.unwrap();
    planner.report(0.31).await;
    let is_open = |name: &str, data: &Value| name == "notice" && data["band"] == "open";
    let told = events(&mut there, is_open).await;
    let notices = told.iter().filter(|(name, _)| name == "notice").count();
    assert_eq!(notices, 1, "only the opening: {told:?}");
}

/// A peer that is not listed for telemetry is not subscribed to, and a forged frame is counted.
#[tokio::test(flavor = "multi_thread")]
async fn p7_a_forged_frame_is_shown_to_nobody() {
    let server = NatsServer::start();
    let critic =
        Sidecar::connected(Plan::new("critic", &[], &server.url()).with(&open_to("planner"))).await;
    critic.report(0.30).await;
    let mut there = listen(&critic).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let body =
        r#"{"runtime_id":"planner","timestamp":"2026-01-01T00:00:00.000Z","drift_index":0.1}"#;
    for subject in ["driftgate.v1.telemetry.planner", "driftgate.v1.telemetry.stranger"] {
        client.publish(subject, body.into()).await.unwrap();
    }
    client.flush().await.unwrap();
    until("the frame to be refused", async || {
        let books = critic.books().await;
        (books.sum("frames_refused", &[("fault", "forged")]) == 1).then_some(())
    })
    .await;
    critic.report(0.31).await;
    let told = events(&mut there, |name, _| name == "phase").await;
    assert!(told.iter().all(|(_, data)| data["external"] != true), "{told:?}");
}
