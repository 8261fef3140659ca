//! Messages that no client can read. A server passes on whatever header block a peer publishes;
//! async-nats ends its connection over one that it cannot read, and the broker would bring the
//! message again, and again.

use std::time::{Duration, Instant};

use async_nats::Event;
use driftgate::nats::reclaim::is_legible;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use super::row;
use crate::support::forge::{draft, fleet_keyring, sign, unix_ms};
use crate::support::nats_server::NatsServer;
use crate::support::observer::kept;
use crate::support::raw::{self, Writer};
use crate::support::report::report;
use crate::support::sidecar::{BOUND, Plan, Sidecar};
use crate::support::wait::{LONG, until};

const SUBJECT: &str = "driftgate.v1.state.critic.planner";
/// Header blocks of the poisonous kind: by a panic of async-nats the first, by an error the others.
const POISONS: [&[u8]; 5] = [
    b"NATS/1.0\r\nReason: a lone\rCR\r\n\r\n",
    b"NATS/1.0\r\nReason: a lone\nLF\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\nReason: \xff\r\n\r\n",
    b"nonsense",
];
/// What a receiver may take from the poison to the good packet behind it. Without protection it is
/// `ack_wait`, 30 s, for each time that the poison comes.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// How long messages of that kind come.
const FLOOD: Duration = Duration::from_secs(4);

/// A signed packet from critic for planner.
fn good(seq: u64) -> Vec<u8> {
    sign(&draft("critic", "planner"), &fleet_keyring(), seq)
}

/// A number that rises with time, as a sidecar's do.
fn seq() -> u64 {
    u64::try_from(unix_ms()).expect("after 1970") * 1000
}

async fn shows(sidecar: &Sidecar, seq: u64) {
    until("the good packet to be shown", async || {
        let peer = sidecar.shown("critic").await?;
        (peer["packet"]["signature"]["integrity_token"].as_str()?.split(':').nth(2)?
            == seq.to_string())
        .then_some(())
    })
    .await;
}

/// Nothing waits for an acknowledgement: nothing will come again.
async fn is_done_with(client: &async_nats::Client) -> Value {
    until("every message to be done with", async || {
        let call = "$JS.API.CONSUMER.INFO.DRIFTGATE_STATE.driftgate-planner";
        let answer = client.request(call, "".into()).await.ok()?;
        let info: Value = serde_json::from_slice(&answer.payload).ok()?;
        let is_done = info["num_ack_pending"] == 0 && info["num_pending"] == 0;
        is_done.then_some(info)
    })
    .await
}

async fn poison(writer: &Writer) {
    for block in POISONS {
        writer.publish_with(SUBJECT.as_bytes(), block, &good(seq())).await.expect("a connection");
    }
    // The subject is read before the headers, and can be as bad.
    let subject = b"driftgate.v1.state.cri\xfftic.planner";
    writer.publish_with(subject, b"NATS/1.0\r\n\r\n", b"{}").await.expect("a connection");
}

/// Books, evidence and consumer after so many poisons; returns how many connections there were.
async fn is_over(sidecar: &Sidecar, server: &NatsServer, poisons: i64) -> i64 {
    let client = async_nats::connect(server.url()).await.expect("a connection");
    is_done_with(&client).await;
    let books = sidecar.books().await;
    assert_eq!(books.sum("inbound_refused", &[("fault", "malformed")]), poisons);
    assert_eq!(books.sum("inbound_quarantined", &[]), poisons);
    let evidence = kept(&client, "DRIFTGATE_QUARANTINE").await;
    assert_eq!(i64::try_from(evidence.len()).unwrap(), poisons);
    for (_, block) in evidence {
        let reason = String::from_utf8(block).expect("ours is text");
        assert!(reason.contains("Driftgate-Reason: malformed: headers"), "{reason}");
    }
    books.sum("broker_connections", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_p10_a_message_that_no_client_can_read_disturbs_once_and_is_kept_as_evidence() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let (writer, _reader) = raw::connect(&server.url()).await.expect("a connection");
    let begin = Instant::now();
    poison(&writer).await;
    let last = seq() + 1_000_000;
    writer.publish(SUBJECT, &good(last)).await.expect("a connection");
    shows(&sidecar, last).await;
    let took = begin.elapsed();
    assert!(took < RECOVERY_MAX, "{took:?}");
    let poisons = i64::try_from(POISONS.len() + 1).unwrap();
    let connections = is_over(&sidecar, &server, poisons).await;
    // The runtime's side has noticed nothing.
    let reply = sidecar.stores().await;
    assert_eq!(reply["verdict"], "export");
    let observed = format!(
        "{poisons} counted and quarantined, none comes again, {connections} connections, the good \
         packet behind them shown after {took:.0?}"
    );
    row("messages with unreadable headers", "P7 P10: disturb once", observed, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_unreadable_messages_that_wait_for_a_restart_are_taken_out_too() {
    let server = NatsServer::start();
    let mut sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    sidecar.kill();
    let (writer, _reader) = raw::connect(&server.url()).await.expect("a connection");
    poison(&writer).await;
    let last = seq() + 1_000_000;
    writer.publish(SUBJECT, &good(last)).await.expect("a connection");
    let begin = Instant::now();
    sidecar.start_again().await;
    shows(&sidecar, last).await;
    let took = begin.elapsed();
    assert!(took < RECOVERY_MAX, "{took:?}");
    let poisons = i64::try_from(POISONS.len() + 1).unwrap();
    let connections = is_over(&sidecar, &server, poisons).await;
    let observed =
        format!("{poisons} quarantined, {connections} connections, shown after {took:.0?}");
    row("unreadable messages wait at a restart", "P7 P10", observed, Some(begin));
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_flood_of_unreadable_messages_costs_a_bounded_number_of_connections() {
    let server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).short();
    let sidecar = Sidecar::connected(plan).await;
    let (writer, _reader) = raw::connect(&server.url()).await.expect("a connection");
    let begin = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut floods = 0_u32;
    let mut slowest = Duration::ZERO;
    while begin.elapsed() < FLOOD {
        ticks.tick().await;
        writer.publish_with(SUBJECT.as_bytes(), POISONS[0], b"{}").await.expect("a connection");
        floods += 1;
        let answer = sidecar.post(&report(0.30)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        slowest = slowest.max(answer.took);
    }
    assert!(slowest < BOUND, "{slowest:?}");
    let recovery = Instant::now();
    let last = seq() + 1_000_000;
    writer.publish(SUBJECT, &good(last)).await.expect("a connection");
    shows(&sidecar, last).await;
    sidecar.stores().await;
    let took = recovery.elapsed();
    assert!(took < RECOVERY_MAX, "{took:?}");
    let books = sidecar.settled().await;
    let connections = books.sum("broker_connections", &[]);
    // A link that dies young is followed by a pause of 0.4 s on average, after the first few.
    assert!(connections > 2 && connections < 40, "{connections} connections");
    let observed = format!(
        "{floods} messages, {} taken out, {connections} connections, slowest answer {slowest:.0?}",
        books.sum("inbound_refused", &[("fault", "malformed")])
    );
    row("a flood of unreadable messages, 4 s", "P10: bounded", observed, Some(recovery));
}

/// Whether a client of async-nats gets a message with that block. Each has a connection of its own.
async fn is_read(server: &NatsServer, writer: &Writer, block: &[u8]) -> bool {
    let (told, mut events) = mpsc::unbounded_channel();
    let options = async_nats::ConnectOptions::new().event_callback(move |event| {
        drop(told.send(event));
        std::future::ready(())
    });
    let client = options.connect(server.url()).await.expect("a connection");
    let mut messages = client.subscribe("test.block").await.expect("a connection");
    // The answer, whatever it is, comes after the subscription has been handled.
    drop(client.request("$JS.API.INFO", "".into()).await.expect("an answer"));
    writer.publish_with(b"test.block", block, b"body").await.expect("a connection");
    let read = async {
        loop {
            tokio::select! {
                message = messages.next() => return message.is_some(),
                // Gone with the client's task when that has panicked.
                event = events.recv() => match event {
                    Some(Event::Disconnected) | None => return false,
                    Some(_) => {}
                },
            }
        }
    };
    tokio::time::timeout(LONG, read).await.expect("one or the other")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_as_unreadable_is_what_the_client_cannot_read() {
    let server = NatsServer::start();
    let (writer, _reader) = raw::connect(&server.url()).await.expect("a connection");
    let blocks: [&[u8]; 18] = [
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nA: b\r\n\r\n",
        b"NATS/1.0\r\nA:b\r\nA: c\r\n\r\n",
        b"NATS/1.0\r\nA: b\r\n  continued\r\n\r\n",
        b"NATS/1.0\r\nA: b\n\tcontinued\r\n\r\n",
        b"NATS/1.0\r\nA:\r\n\r\n",
        b"NATS/1.0\r\n: b\r\n\r\n",
        b"NATS/1.0\r\nA b: c\r\n\r\n",
        b"NATS/1.0\r\nA\x01: c\r\n\r\n",
        b"NATS/1.0\r\nA: \x01\r\n\r\n",
        "NATS/1.0\r\nA: \u{e4}\r\n\r\n".as_bytes(),
        "NATS/1.0\r\n\u{e4}: b\r\n\r\n".as_bytes(),
        b"NATS/1.0\r\nA: b\r\r\n\r\n",
        b"NATS/1.0\r\nA: \rb\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 409 words and words\r\nA: b\r\n\r\n",
        b"NATS/1.0 abc\r\n\r\n",
        b"NATS/1.0\r\nA: b",
    ];
    let mut unread = 0;
    for block in blocks.into_iter().chain(POISONS) {
        let is_read = is_read(&server, &writer, block).await;
        let text = String::from_utf8_lossy(block);
        assert_eq!(is_legible("test.block", block), is_read, "{text:?}");
        unread += usize::from(!is_read);
    }
    assert!(unread >= POISONS.len() && unread < blocks.len(), "{unread}");
    assert!(!is_legible("test.bl\u{fffd}ck", b"") && !is_legible("test.bl\u{a0}ck", b""));
}
