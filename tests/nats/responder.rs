//! What others ask on core NATS: who is answered, where, how often, and not after a cut.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the report, what is not looked for is skipped, and time is measured"
)]

use std::time::{Duration, Instant};

use crate::support::link::Bench;
use crate::support::nats_server::{NatsServer, PATIENCE};
use crate::support::wait::until;
use async_nats::{Client, Subscriber};
use driftgate::nats::HeaderMap;
use driftgate::nats::link::LinkEvent;
use driftgate::nats::responder::{
    ANSWERS_MAX, Asked, Dropped, Endpoint, QUESTION_BYTES_MAX, QUESTIONS_MAX, Question,
    ServiceSubject, is_inbox,
};
use futures_util::StreamExt;
use strum::VariantArray as _;

const INSTANCE: &str = "00c0ffee";

async fn bench(server: &NatsServer) -> Bench {
    let mut bench = Bench::connect(&server.settings("planner")).await;
    bench.link.open_services(ServiceSubject::VARIANTS, INSTANCE).unwrap();
    bench.confirm(1).await;
    bench
}

async fn asked(bench: &mut Bench) -> Result<Question, Dropped> {
    bench
        .find(|event| match event {
            LinkEvent::Asked(question) => Some(question.clone()),
            _ => None,
        })
        .await
}

/// A foreign client with an inbox.
async fn stranger(server: &NatsServer) -> (Client, String, Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.unwrap();
    (client, inbox, answers)
}

/// How many answers come before a marker that the server handles after all of them.
async fn count_until_marker(client: &Client, inbox: &str, answers: &mut Subscriber) -> usize {
    client.publish(inbox.to_owned(), "marker".into()).await.unwrap();
    let mut count = 0;
    while let Some(message) = tokio::time::timeout(PATIENCE, answers.next()).await.unwrap() {
        if message.payload == "marker" {
            return count;
        }
        count += 1;
    }
    panic!("the connection ended")
}

#[test]
fn an_answer_goes_to_an_inbox_and_nowhere_else() {
    for inbox in ["_INBOX.a", "_INBOX.planner.Zk3.1", "_INBOX.a-b_c.D9"] {
        assert!(is_inbox(inbox), "{inbox}");
    }
    let long = format!("_INBOX.{}", "a".repeat(250));
    for other in [
        "",
        "_INBOX",
        "_INBOX.",
        "_INBOX.a.",
        "_INBOX..a",
        "_INBOX.>",
        "_INBOX.a.*",
        "_INBOX.a b",
        "_INBOX.a\r\nPUB x 0",
        "_INBOX.$JS.API.STREAM.DELETE.X",
        "_inbox.a",
        "a._INBOX.b",
        "_INBOXa.b",
        "$JS.API.STREAM.DELETE.KV_driftgate-presence",
        "$KV.driftgate-presence.critic",
        "driftgate.v1.state.critic.planner",
        "$JS.ACK.DRIFTGATE_STATE.driftgate-critic.1.1.1.1.1",
        &long,
    ] {
        assert!(!is_inbox(other), "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_ask_is_told_apart() {
    let server = NatsServer::start();
    let mut bench = bench(&server).await;
    let (client, inbox, _answers) = stranger(&server).await;
    let endpoint = |endpoint| Ok(Asked::Endpoint(endpoint));
    let questions = [
        ("$SRV.PING", Ok(Asked::Ping)),
        ("$SRV.INFO.driftgate", Ok(Asked::Info)),
        ("$SRV.STATS.driftgate.00c0ffee", Ok(Asked::Stats)),
        ("$SRV.SCHEMA", Err(Dropped::Unknown)),
        ("driftgate.v1.handshake.planner", Ok(Asked::Handshake)),
        ("driftgate.v1.service.planner.safety", endpoint(Endpoint::Safety)),
        ("driftgate.v1.service.planner.peers", endpoint(Endpoint::Peers)),
        ("driftgate.v1.service.planner.snapshots", endpoint(Endpoint::Snapshots)),
        ("driftgate.v1.service.planner.packets", Err(Dropped::Unknown)),
    ];
    for (subject, expected) in questions {
        client.publish_with_reply(subject, inbox.clone(), "".into()).await.unwrap();
        let found = asked(&mut bench).await.map(|question| question.asked);
        assert_eq!(found, expected, "{subject}");
    }
    // Not ours.
    for subject in ["$SRV.PING.other", "$SRV.PING.driftgate.1", "driftgate.v1.handshake.critic"] {
        client.publish_with_reply(subject, inbox.clone(), "".into()).await.unwrap();
    }
    let long = vec![b'x'; QUESTION_BYTES_MAX + 1];
    client.publish_with_reply("$SRV.PING", inbox.clone(), long.into()).await.unwrap();
    assert_eq!(asked(&mut bench).await, Err(Dropped::TooLong));
    client.publish("$SRV.PING", "".into()).await.unwrap();
    assert_eq!(asked(&mut bench).await, Err(Dropped::Reply));
    // A newer server refuses one in its API itself.
    client.publish_with_reply("$SRV.PING", "$KV.a.b", "".into()).await.unwrap();
    assert_eq!(asked(&mut bench).await, Err(Dropped::Reply));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_in_the_books_and_is_never_empty() {
    let server = NatsServer::start();
    let mut bench = bench(&server).await;
    let (client, inbox, mut answers) = stranger(&server).await;
    client.publish_with_reply("$SRV.PING", inbox.clone(), "".into()).await.unwrap();
    let question = asked(&mut bench).await.unwrap();
    let empty = bench.link.respond(&question.reply, HeaderMap::new(), "".into());
    assert_eq!(empty, Err(Dropped::Reply));
    assert!(bench.link.is_read());
    bench.link.respond(&question.reply, HeaderMap::new(), "pong".into()).unwrap();
    assert!(!bench.link.is_read(), "the broker has not read it yet");
    bench.confirm(2).await;
    assert!(bench.link.is_read());
    assert_eq!(answers.next().await.unwrap().payload, "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_20_answers_leave_in_a_second() {
    let server = NatsServer::start();
    let mut bench = bench(&server).await;
    let (client, inbox, mut answers) = stranger(&server).await;
    let begun = Instant::now();
    let mut sent = Vec::new();
    for _ in 0..2 * ANSWERS_MAX {
        client.publish_with_reply("$SRV.PING", inbox.clone(), "".into()).await.unwrap();
        let question = asked(&mut bench).await.unwrap();
        sent.push(bench.link.respond(&question.reply, HeaderMap::new(), "pong".into()));
    }
    let is_quick = begun.elapsed() < Duration::from_secs(1);
    bench.confirm(2).await;
    let heard = count_until_marker(&client, &inbox, &mut answers).await;
    assert_eq!(heard, sent.iter().filter(|one| one.is_ok()).count());
    assert!(heard == ANSWERS_MAX || !is_quick, "{heard} in {:?}", begun.elapsed());
    assert!(sent.contains(&Err(Dropped::Rate)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_kept_off_by_the_server_and_ends_no_connection() {
    let server = NatsServer::start();
    let mut bench = bench(&server).await;
    let (client, inbox, _answers) = stranger(&server).await;
    // More than any subscription of a connection can hold.
    for _ in 0..200_000 {
        client.publish_with_reply("$SRV.PING", inbox.clone(), "".into()).await.unwrap();
    }
    client.flush().await.unwrap();
    let begun = Instant::now();
    let mut count = 0;
    while count < QUESTIONS_MAX {
        assert!(asked(&mut bench).await.is_ok());
        count += 1;
    }
    // The next one comes when the door is open again, a second later, and the connection stands.
    until("the service to open again", async || {
        assert_eq!(bench.link.try_event(), None);
        let shown = server.subscriptions_of("planner").unwrap();
        shown.contains(&"$SRV.*".to_owned()).then_some(())
    })
    .await;
    client.publish_with_reply("$SRV.PING", inbox.clone(), "".into()).await.unwrap();
    assert!(asked(&mut bench).await.is_ok());
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_cut_shuts_every_door_and_forgets_what_had_come_in() {
    let server = NatsServer::start();
    let mut bench = bench(&server).await;
    let shown = server.subscriptions_of("planner").unwrap();
    assert_eq!(shown.len(), ServiceSubject::VARIANTS.len(), "{shown:?}");
    let (client, inbox, mut answers) = stranger(&server).await;
    let greeting = bench.link.nonce().unwrap();
    let critic = driftgate::nats::Subject::from("driftgate.v1.handshake.critic");
    let _critic = client.subscribe("driftgate.v1.handshake.critic").await.unwrap();
    count_until_marker(&client, &inbox, &mut answers).await;
    bench.link.ask(7, critic, &greeting, "hello".into()).unwrap();
    for service in ["$SRV.PING", "$SRV.PING", "driftgate.v1.handshake.planner"] {
        client.publish_with_reply(service, inbox.clone(), "".into()).await.unwrap();
    }
    // One is taken, so that the others have arrived with it or wait for us to read.
    assert!(asked(&mut bench).await.is_ok());
    bench.link.unsubscribe_all().unwrap();
    bench.link.confirm(2).unwrap();
    loop {
        match bench.next().await {
            LinkEvent::Confirmed(2) => break,
            LinkEvent::Confirmed(_) => {}
            event => panic!("{event:?} after the cut"),
        }
    }
    assert_eq!(server.subscriptions_of("planner").unwrap(), Vec::<String>::new());
    bench.link.open_services(&[ServiceSubject::Everyone], INSTANCE).unwrap();
    bench.confirm(3).await;
    assert_eq!(server.subscriptions_of("planner").unwrap(), ["$SRV.*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_ours_is_answered_on_an_inbox_of_its_own() {
    let server = NatsServer::start();
    let mut bench = bench(&server).await;
    let (client, inbox, mut answers) = stranger(&server).await;
    let mut critic = client.subscribe("driftgate.v1.handshake.critic").await.unwrap();
    count_until_marker(&client, &inbox, &mut answers).await;
    let subject = driftgate::nats::Subject::from("driftgate.v1.handshake.critic");
    let nonce = bench.link.nonce().unwrap();
    bench.link.ask(7, subject.clone(), &nonce, "hello".into()).unwrap();
    let message = critic.next().await.unwrap();
    let reply = message.reply.unwrap();
    assert_eq!(reply.as_str(), format!("_INBOX.planner.{nonce}"));
    assert_eq!((message.payload.as_ref(), nonce.len()), (b"hello".as_slice(), 32));
    client.publish(reply.clone(), "welcome".into()).await.unwrap();
    client.publish(reply, "and again".into()).await.unwrap();
    let event = bench.next().await;
    assert_eq!(event, LinkEvent::Answered { id: 7, answer: Some("welcome".into()) });
    bench.confirm(2).await;
    assert!(!server.subscriptions_of("planner").unwrap().iter().any(|one| one.contains(&nonce)));
    // Nobody is there.
    critic.unsubscribe().await.unwrap();
    count_until_marker(&client, &inbox, &mut answers).await;
    let nonce = bench.link.nonce().unwrap();
    bench.link.ask(8, subject, &nonce, "hello".into()).unwrap();
    assert_eq!(bench.next().await, LinkEvent::Answered { id: 8, answer: None });
    bench.confirm(3).await;
    assert!(!server.subscriptions_of("planner").unwrap().iter().any(|one| one.contains(&nonce)));
}
