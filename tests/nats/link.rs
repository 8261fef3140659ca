//! The link against a real nats-server: acknowledgements, barriers, isolation, pulling, and what
//! becomes of everything when either side ends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the report, what is not looked for is skipped, and time is measured"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::link::Bench;
use crate::support::nats_server::{NatsServer, PATIENCE, eventually};
use crate::support::proxy::{Proxy, Way};
use async_nats::{Client, Subscriber};
use driftgate::config::names::ServerUrl;
use driftgate::nats::ack::PublishFault;
use driftgate::nats::assets;
use driftgate::nats::link::{ConnectFault, Link, LinkEvent, NotTaken, PullFault};
use driftgate::nats::subject::AssetName;
use futures_util::{FutureExt, StreamExt};

/// A foreign client that hears everything.
async fn observer(server: &NatsServer, subject: &str) -> (Client, Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let subscriber = client.subscribe(subject.to_owned()).await.unwrap();
    // A round trip, for a flush does not wait for the server.
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    (client, subscriber)
}

async fn heard(subscriber: &mut Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, subscriber.next()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_packet_is_acknowledged_with_its_place() {
    let server = NatsServer::start();
    let mut bench = Bench::open(&server.settings("planner")).await;
    for token in 1..=3 {
        let message = bench.message("critic", &format!("id-{token}"), "state");
        bench.link.publish(token, message).unwrap();
    }
    for token in 1..=3 {
        let stored = bench.acked(token).await.unwrap();
        assert_eq!((stored.stream_seq, stored.duplicate), (token, false));
    }
    bench.link.publish(4, bench.message("critic", "id-2", "state")).unwrap();
    let again = bench.acked(4).await.unwrap();
    assert_eq!((again.stream_seq, again.duplicate), (2, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_is_acknowledged_in_order() {
    let server = NatsServer::start();
    let mut bench = Bench::open(&server.settings("planner")).await;
    for token in 0..256 {
        let message = bench.message("critic", &token.to_string(), vec![b'x'; 900]);
        bench.link.publish(token, message).unwrap();
    }
    for token in 0..256 {
        let LinkEvent::Ack { token: acked, outcome } = bench.next().await else { panic!() };
        assert_eq!((acked, outcome.unwrap().stream_seq), (token, token + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_will_not_store_is_said() {
    let server = NatsServer::start();
    let mut settings = server.settings("planner");
    let mut bench = Bench::connect(&settings).await;
    bench.link.publish(1, bench.message("critic", "", "state")).unwrap();
    assert_eq!(bench.acked(1).await, Err(PublishFault::Deaf));
    bench.link.subscribe_acks().unwrap();
    bench.link.publish(2, bench.message("critic", "", "state")).unwrap();
    assert_eq!(bench.acked(2).await, Err(PublishFault::NoResponders));
    assets::ensure(&settings).await.unwrap();
    let oversized = vec![0; bench.link.max_payload() + 1];
    bench.link.publish(3, bench.message("critic", "", oversized)).unwrap();
    assert_eq!(bench.acked(3).await, Err(PublishFault::TooLarge));
    let too_large_for_the_stream = vec![0; 65 * 1024];
    bench.link.publish(4, bench.message("critic", "", too_large_for_the_stream)).unwrap();
    assert_eq!(bench.acked(4).await, Err(PublishFault::TooLarge));
    settings.broker.stream_out = AssetName::new("ELSEWHERE").unwrap();
    let mut stranger = Bench::connect(&settings).await;
    stranger.link.subscribe_acks().unwrap();
    stranger.link.publish(5, stranger.message("critic", "", "state")).unwrap();
    let wrong = PublishFault::WrongStream { stream: "DRIFTGATE_STATE".to_owned(), stream_seq: 1 };
    assert_eq!(stranger.acked(5).await, Err(wrong));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_is_confirmed_after_everything_before_it() {
    let server = NatsServer::start();
    let mut bench = Bench::open(&server.settings("planner")).await;
    let (client, mut everything) = observer(&server, ">").await;
    for token in 0..200 {
        bench.link.publish(token, bench.message("critic", "", token.to_string())).unwrap();
        bench.link.notify(bench.message("monitor", "", token.to_string())).unwrap();
    }
    bench.confirm(9).await;
    client.publish("marker", "".into()).await.unwrap();
    let (mut before_marker, mut echoes) = (0, BTreeSet::new());
    loop {
        let message = heard(&mut everything).await;
        match message.subject.strip_prefix("_INBOX.planner.") {
            _ if message.subject.as_str() == "marker" => break,
            Some(inbox) if message.payload.is_empty() => {
                let (_, nonce) = inbox.split_once(".e.").unwrap();
                assert_eq!(nonce.len(), 32, "128 bits: {nonce}");
                assert!(echoes.insert(nonce.to_owned()), "no echo's name comes again: {nonce}");
            }
            _ => before_marker += u32::from(message.subject.starts_with("driftgate.v1.state.")),
        }
    }
    assert_eq!(before_marker, 400);
    assert!(!echoes.is_empty());
}

/// The grant of a sidecar that may publish nothing but what it must (no own inbox).
fn strict_server() -> (NatsServer, tempfile::TempDir, PathBuf) {
    let user = nkeys::KeyPair::new_user();
    let folder = tempfile::tempdir().unwrap();
    let seed_path = folder.path().join("planner.nk");
    std::fs::write(&seed_path, user.seed().unwrap()).unwrap();
    let server = NatsServer::start_with(&format!(
        r#"authorization {{ users: [
            {{ user: admin, password: admin }}
            {{ nkey: {}, permissions {{
                publish {{ allow: ["driftgate.v1.*.planner.>", "driftgate.v1.*.planner",
                    "$JS.API.CONSUMER.MSG.NEXT.*.driftgate-planner",
                    "$JS.API.CONSUMER.INFO.*.driftgate-planner", "$JS.ACK.>"] }}
                subscribe {{ allow: ["_INBOX.planner.>"] }} }} }} ] }}"#,
        user.public_key()
    ));
    (server, folder, seed_path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_is_confirmed_where_we_may_not_publish_to_our_inbox() {
    let (server, _folder, nkey) = strict_server();
    let mut settings = server.settings("planner");
    settings.broker.nkey_file = Some(nkey);
    let mut bench = Bench::connect(&settings).await;
    bench.link.subscribe_acks().unwrap();
    for id in 1..=3 {
        bench.link.publish(id, bench.message("critic", "", "state")).unwrap();
        bench.confirm(id).await;
    }
    for id in 1..=3 {
        assert_eq!(bench.acked(id).await, Err(PublishFault::NoResponders));
    }
    bench.link.unsubscribe_all().unwrap();
    bench.link.confirm(4).unwrap();
    assert_eq!(bench.next().await, LinkEvent::Confirmed(4), "and no complaint before it");
    assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()));
    let denied = assets::ensure(&settings).await;
    assert!(matches!(denied, Err(assets::AssetFault::Denied { .. })), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_us_is_named_as_such() {
    let (server, folder, _) = strict_server();
    let mut settings = server.settings("planner");
    let refused = |outcome: Result<_, ConnectFault>| outcome.err().unwrap();
    let anonymous = refused(Link::connect(&settings).await);
    assert!(matches!(anonymous, ConnectFault::Denied(_)), "{anonymous:?}");
    settings.broker.nkey_file = Some(folder.path().join("absent"));
    let keyless = refused(Link::connect(&settings).await);
    assert!(matches!(keyless, ConnectFault::Secret(_)), "{keyless:?}");
    settings.broker.url = vec![ServerUrl::new("nats://127.0.0.1:1").unwrap()];
    settings.broker.nkey_file = None;
    let unreachable = refused(Link::connect(&settings).await);
    assert!(matches!(unreachable, ConnectFault::Unreachable(_)), "{unreachable:?}");
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    settings.broker.url = vec![ServerUrl::new(&mute.local_addr().unwrap().to_string()).unwrap()];
    settings.broker.connect_timeout = Duration::from_millis(200);
    assert_eq!(refused(Link::connect(&settings).await), ConnectFault::TimedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_link_has_no_subscription_on_the_server() {
    let server = NatsServer::start();
    let settings = server.settings("planner");
    assets::ensure(&settings).await.unwrap();
    eventually("provisioning's connection to end", || server.subscriptions_of("planner").is_none());
    let mut bench = Bench::connect(&settings).await;
    bench.confirm(1).await;
    assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()), "a new link has none");
    bench.link.subscribe_acks().unwrap();
    bench.pull(64, Duration::from_secs(30));
    bench.link.publish(1, bench.message("critic", "", "state")).unwrap();
    bench.confirm(2).await;
    assert_eq!(server.subscriptions_of("planner").map(|subjects| subjects.len()), Some(2));
    bench.link.unsubscribe_all().unwrap();
    bench.confirm(3).await;
    assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()));
    bench.link.subscribe_acks().unwrap();
    bench.link.publish(2, bench.message("critic", "", "state")).unwrap();
    assert_eq!(bench.acked(2).await.unwrap().stream_seq, 2, "a reopened link publishes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_message_comes_again_until_it_is_acknowledged() {
    let server = NatsServer::start();
    let mut critic = Bench::open(&server.settings("critic")).await;
    let mut planner = Bench::open(&server.settings("planner")).await;
    critic.pull(16, Duration::from_secs(30));
    planner.link.publish(1, planner.message("critic", "id-1", "one")).unwrap();
    planner.acked(1).await.unwrap();
    let first = critic.inbound().await;
    assert_eq!((&first.payload[..], first.delivery.attempt), (&b"one"[..], 1));
    assert_eq!(first.subject.as_str(), "driftgate.v1.state.planner.critic");
    assert_eq!(first.headers.message_id.as_deref(), Some("id-1"));
    critic.link.in_progress(&first.reply).unwrap();
    critic.link.nak(&first.reply, Duration::ZERO).unwrap();
    let second = critic.inbound().await;
    assert_eq!((&second.payload[..], second.delivery.attempt), (&b"one"[..], 2));
    critic.link.ack(&second.reply).unwrap();
    critic.confirm(1).await;
    assert_eq!(critic.link.ack("driftgate.v1.state.a.b"), Err(NotTaken::NotAReply));
    eventually("the broker to count the acknowledgement", || {
        let answer = server.get("/jsz?accounts=true&streams=true&consumers=true");
        let streams = answer["account_details"][0]["stream_detail"].as_array().cloned().unwrap();
        streams.iter().flat_map(|stream| stream["consumer_detail"].as_array()).flatten().any(
            |consumer| {
                consumer["name"] == "driftgate-critic" && consumer["ack_floor"]["stream_seq"] == 1
            },
        )
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_does_not_read_loses_no_message() {
    const COUNT: u64 = 3_000;
    let server = NatsServer::start();
    let mut monitor = Bench::open(&server.settings("monitor")).await;
    monitor.pull(256, Duration::from_secs(1));
    // Another source each time, for the stream keeps eight of each: no sidecar may do that.
    let mut many = Bench::open(&server.settings("observer")).await;
    for token in 0..COUNT {
        let mut message = many.message("monitor", "", token.to_string());
        message.subject = format!("driftgate.v1.state.s{token}.monitor").into();
        many.link.publish(token, message).unwrap();
        many.acked(token).await.unwrap();
    }
    for expected in 0..COUNT {
        let message = monitor.inbound().await;
        assert_eq!(message.delivery.stream_seq, expected + 1);
        assert_eq!(&message.payload[..], expected.to_string().as_bytes());
        monitor.link.ack(&message.reply).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_gone_stops_the_pull() {
    let server = NatsServer::start();
    let settings = server.settings("critic");
    let mut critic = Bench::open(&settings).await;
    critic.pull(16, Duration::from_secs(30));
    critic.confirm(1).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let call = "$JS.API.CONSUMER.DELETE.DRIFTGATE_STATE.driftgate-critic";
    client.request(call, "".into()).await.unwrap();
    let fault = |event: &LinkEvent| match event {
        LinkEvent::PullFault(fault) => Some(fault.clone()),
        _ => None,
    };
    assert_eq!(critic.find(fault).await, PullFault::Deleted);
    critic.pull(16, Duration::from_secs(30));
    assert_eq!(critic.find(fault).await, PullFault::Absent);
    critic.confirm(2).await;
    let acks_only = server.subscriptions_of("critic").unwrap();
    assert_eq!(acks_only.len(), 1, "{acks_only:?}");
    assets::ensure(&settings).await.unwrap();
    critic.pull(16, Duration::from_secs(30));
    client.publish("driftgate.v1.state.planner.critic", "back".into()).await.unwrap();
    assert_eq!(&critic.inbound().await.payload[..], b"back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_falls_silent_stops_the_pull() {
    let server = NatsServer::start();
    let mut critic = Bench::connect(&server.settings("critic")).await;
    // Somebody takes the requests and gives no sign of life, which no status reports.
    let next = "$JS.API.CONSUMER.MSG.NEXT.DRIFTGATE_STATE.driftgate-critic";
    let (_client, mut requests) = observer(&server, next).await;
    critic.pull(16, Duration::from_secs(1));
    assert_eq!(critic.next().await, LinkEvent::PullFault(PullFault::Silent));
    let mut inboxes = Vec::new();
    for _ in 0..2 {
        inboxes.push(heard(&mut requests).await.reply.unwrap());
    }
    inboxes.dedup();
    assert_eq!(inboxes.len(), 2, "each on a subscription of its own: {inboxes:?}");
    critic.confirm(1).await;
    assert_eq!(server.subscriptions_of("critic"), Some(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_on_our_inbox_is_not_delivered() {
    let server = NatsServer::start();
    let mut critic = Bench::open(&server.settings("critic")).await;
    critic.pull(16, Duration::from_secs(30));
    critic.confirm(1).await;
    let subjects = server.subscriptions_of("critic").unwrap();
    let inbox = subjects.iter().find(|subject| subject.contains(".p.")).unwrap().clone();
    let client = async_nats::connect(server.url()).await.unwrap();
    client.publish_with_reply(inbox.clone(), "evil.subject", "x".into()).await.unwrap();
    client.publish(inbox, "x".into()).await.unwrap();
    for _ in 0..2 {
        let LinkEvent::ServerFault(words) = critic.next().await else { panic!() };
        assert!(words.contains("foreign"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_closes_the_link_at_once() {
    let mut server = NatsServer::start();
    let settings = server.settings("planner");
    let mut bench = Bench::open(&settings).await;
    bench.confirm(1).await;
    let begin = Instant::now();
    server.kill();
    let reason = bench.closed().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(reason.contains("lost"), "{reason}");
    assert_eq!(bench.link.confirm(2), Err(NotTaken::Closed));
    server.restart();
    let mut renewed = Bench::open(&settings).await;
    renewed.link.publish(1, renewed.message("critic", "", "state")).unwrap();
    assert_eq!(renewed.acked(1).await.unwrap().stream_seq, 1, "the old link sent nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_retires_says_so() {
    let server = NatsServer::start();
    let mut bench = Bench::open(&server.settings("planner")).await;
    bench.confirm(1).await;
    server.retire();
    bench.find(|event| (*event == LinkEvent::LameDuck).then_some(())).await;
}

/// Publishes until the link takes no more; returns how many it took.
async fn stuff(bench: &mut Bench, payload: &[u8]) -> usize {
    let mut taken = 0;
    let mut refusals = 0;
    // The link's thread needs turns to move commands on; full for long is full.
    let mut turns = tokio::time::interval(Duration::from_millis(1));
    while refusals < 200 {
        let message = bench.message("critic", "", [taken.to_string().as_bytes(), payload].concat());
        match bench.link.publish(0, message) {
            Ok(()) => {
                taken += 1;
                refusals = 0;
            }
            Err(NotTaken::Full) => {
                refusals += 1;
                turns.tick().await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_severed_link_sends_nothing_more_to_a_stalled_server() {
    const BYTES: usize = 32 * 1024;
    /// Above what the kernels on both sides hold of one connection that nobody reads.
    const KERNEL_BYTES_MAX: usize = 32 * 1024 * 1024;
    let server = NatsServer::start();
    let mut bench = Bench::open(&server.settings("planner")).await;
    bench.confirm(1).await;
    let (client, mut states) = observer(&server, "driftgate.v1.state.>").await;
    server.freeze();
    let taken = stuff(&mut bench, &[b' '; BYTES]).await;
    let begin = Instant::now();
    bench.sever().await;
    let took = begin.elapsed();
    server.thaw();
    eventually("the server to see the end", || server.subscriptions_of("planner").is_none());
    client.publish("driftgate.v1.state.marker.x", "".into()).await.unwrap();
    let mut arrived = 0;
    loop {
        let message = heard(&mut states).await;
        if message.subject.as_str() == "driftgate.v1.state.marker.x" {
            break;
        }
        let text = String::from_utf8_lossy(&message.payload).trim().to_owned();
        assert_eq!(text, arrived.to_string(), "what the kernel had, in order");
        arrived += 1;
    }
    assert!(arrived * BYTES < KERNEL_BYTES_MAX, "{arrived} of {taken}: our buffers were sent");
    assert!(taken * BYTES > 2 * KERNEL_BYTES_MAX, "{taken}: our buffers were not full");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_severed_link_sends_nothing_to_a_restarted_server() {
    let mut server = NatsServer::start();
    let settings = server.settings("planner");
    let mut bench = Bench::open(&settings).await;
    bench.confirm(1).await;
    server.freeze();
    stuff(&mut bench, &[b' '; 8192]).await;
    bench.sever().await;
    server.restart();
    let mut renewed = Bench::open(&settings).await;
    renewed.link.publish(1, renewed.message("critic", "", "state")).unwrap();
    assert_eq!(renewed.acked(1).await.unwrap().stream_seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_link_is_severed() {
    let server = NatsServer::start();
    let mut bench = Bench::open(&server.settings("planner")).await;
    bench.confirm(1).await;
    assert!(server.subscriptions_of("planner").is_some());
    drop(bench);
    eventually("the connection to end", || server.subscriptions_of("planner").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_answer_for_a_packet_whose_reply_subject_they_did_not_see() {
    let server = NatsServer::start();
    let (client, mut states) = observer(&server, "driftgate.v1.state.>").await;
    let mut bench = Bench::connect(&server.settings("planner")).await;
    bench.link.subscribe_acks().unwrap();
    for token in [1, 2] {
        bench.link.publish(token, bench.message("critic", "", "state")).unwrap();
    }
    let first = heard(&mut states).await.reply.unwrap();
    let second = heard(&mut states).await.reply.unwrap();
    // What follows from the first: the second's number, with every other part kept.
    let (head, token) = first.rsplit_once('.').unwrap();
    let forged = match token.split_once('-') {
        Some((_, nonce)) => format!("{head}.2-{nonce}"),
        None => format!("{head}.2"),
    };
    let stored = r#"{"stream":"DRIFTGATE_STATE","seq":1}"#;
    client.publish(forged, stored.into()).await.unwrap();
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    bench.link.confirm(1).unwrap();
    assert_eq!(bench.next().await, LinkEvent::Confirmed(1), "no answer was believed");
    client.publish(second, stored.into()).await.unwrap();
    assert_eq!(bench.acked(2).await.unwrap().stream_seq, 1);
    assert_eq!(bench.link.unanswered(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_unread_until_its_echo_comes() {
    let server = NatsServer::start();
    let (_client, mut everything) = observer(&server, "driftgate.v1.>").await;
    let proxy = Proxy::start(&server.url()).await;
    let mut settings = server.settings("planner");
    settings.broker.url = vec![ServerUrl::new(&proxy.url()).unwrap()];
    let mut bench = Bench::open(&settings).await;
    bench.confirm(1).await;
    assert!(bench.link.is_read());
    while everything.next().now_or_never().is_some() {}
    proxy.up(Way { stalled: true, ..Way::default() });
    bench.link.notify(bench.message("monitor", "", "notice")).unwrap();
    bench.link.confirm(2).unwrap();
    assert!(!bench.link.is_read());
    let early = tokio::time::timeout(Duration::from_millis(300), bench.link.event()).await;
    assert!(early.is_err(), "confirmed before it was read: {early:?}");
    proxy.up(Way::default());
    bench.find(|event| (*event == LinkEvent::Confirmed(2)).then_some(())).await;
    assert!(bench.link.is_read());
    assert_eq!(&heard(&mut everything).await.payload[..], b"notice", "routed by then");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_a_reason() {
    let (server, _folder, nkey) = strict_server();
    let mut settings = server.settings("planner");
    settings.broker.nkey_file = Some(nkey);
    let mut strict = Bench::connect(&settings).await;
    strict.link.subscribe_acks().unwrap();
    let mut forbidden = strict.message("critic", "", "state");
    forbidden.subject = "driftgate.v1.state.critic.planner".into();
    strict.link.publish(1, forbidden).unwrap();
    strict.link.publish(2, strict.message("critic", "", "state")).unwrap();
    assert_eq!(strict.acked(1).await.unwrap_err().reason(), "denied");
    assert_eq!(strict.acked(2).await.unwrap_err().reason(), "no_responders");
    let server = NatsServer::start();
    let client = async_nats::connect(server.url()).await.unwrap();
    let full = r#"{"name":"DRIFTGATE_STATE","subjects":["driftgate.v1.state.*.*"],"max_bytes":200,
        "discard":"new","num_replicas":1,"retention":"limits","storage":"file"}"#;
    client.request("$JS.API.STREAM.CREATE.DRIFTGATE_STATE", full.into()).await.unwrap();
    let mut bench = Bench::open(&server.settings("planner")).await;
    bench.link.publish(1, bench.message("critic", "", vec![b'x'; 500])).unwrap();
    let fault = bench.acked(1).await.unwrap_err();
    assert_eq!(fault.reason(), "full", "{fault}");
}
