//! Report bodies over a raw socket.

use core::time::Duration;

use super::rig::{Mood, REPORT, Served, settings, soon};

const CHUNKED: &str = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_and_the_client_reads_why() {
    let mut settings = settings();
    settings.body.bytes_max = 1024;
    let served = Served::start(Mood::Calm, settings).await;
    let mut client = served.connect().await;
    client.send(served.head("POST /field/state", CHUNKED)).await;
    let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400));
    for _ in 0..900 {
        client.send(&chunk).await;
    }
    client.send("0\r\n\r\n").await;
    let reply = client.answer().await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.json()["field"], "/");
    assert!(client.rest().await.is_empty());
    assert_eq!((served.actor.reports(), served.actor.unreadable_count()), (0, 1));
    served.assert_works().await;
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_it_is_sent() {
    let served = Served::start(Mood::Calm, settings()).await;
    let length = "Content-Type: application/json\r\nContent-Length: 99999999999\r\n";
    let mut client = served.connect().await;
    let head = served.head("POST /field/state", &format!("{length}Expect: 100-continue\r\n"));
    client.send(head).await;
    assert_eq!(client.answer().await.status, 413);
    assert!(client.rest().await.is_empty());
    // Without Expect the client may be writing already; a second of grace, then the same answer.
    let mut client = served.connect().await;
    client.send(served.head("POST /field/state", length)).await;
    assert_eq!(client.answer().await.status, 413);
    served.assert_works().await;
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_is_asked() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut client = served.connect().await;
    let length = REPORT.len();
    let more = format!(
        "Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n"
    );
    client.send(served.head("POST /field/state", &more)).await;
    assert_eq!(client.answer().await.status, 100);
    client.send(REPORT).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let mut settings = settings();
    settings.body.timeout = Duration::from_millis(100);
    let served = Served::start(Mood::Calm, settings).await;
    for more in ["Content-Type: application/json\r\nContent-Length: 50\r\n", CHUNKED] {
        let before = served.actor.unreadable_count();
        let mut client = served.connect().await;
        client.send(served.head("POST /field/state", more)).await;
        let reply = client.answer().await;
        assert_eq!(reply.status, 408);
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(client.rest().await.is_empty());
        assert_eq!(served.actor.unreadable_count(), before + 1);
    }
    served.assert_works().await;
}

#[tokio::test]
async fn bytes_that_are_no_document_are_refused_on_a_connection_that_lives_on() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut client = served.connect().await;
    let deep = "{\"a\":".repeat(40_000);
    let bodies: [&[u8]; 4] =
        [b"{\"id\":\"\xc3\x28\"}", b"\xff\xfe{\x00}\x00", deep.as_bytes(), b"]"];
    for (count, body) in bodies.into_iter().enumerate() {
        let length = body.len();
        let more = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        client.send(served.head("POST /field/state", &more)).await;
        client.send(body).await;
        assert_eq!(client.answer().await.status, 400);
        assert_eq!(served.actor.unreadable_count(), count + 1);
    }
    client.send(served.post(REPORT)).await;
    assert_eq!(client.answer().await.status, 200);
    served.assert_works().await;
}

#[tokio::test]
async fn bodies_framed_in_two_ways_are_refused() {
    let served = Served::start(Mood::Calm, settings()).await;
    let json = "Content-Type: application/json\r\n";
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 0x2\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        let mut client = served.connect().await;
        let head = served.head("POST /field/state", &format!("{json}{framing}"));
        client.send(head + "{}GET /field/state HTTP/1.1\r\n\r\n").await;
        let reply = client.try_answer(false).await;
        assert!(reply.is_none_or(|reply| reply.status == 400), "{framing}");
        assert!(client.rest().await.is_empty(), "{framing}");
    }
    for chunks in ["zz\r\n{}\r\n0\r\n\r\n", "2\n{}\n0\n\n", "ffffffffffffffffff\r\n{}"] {
        let before = served.actor.unreadable_count();
        let mut client = served.connect().await;
        client.send(served.head("POST /field/state", CHUNKED) + chunks).await;
        let reply = client.try_answer(false).await;
        assert!(reply.is_none_or(|reply| reply.status == 400), "{chunks}");
        assert!(client.rest().await.is_empty(), "{chunks}");
        assert_eq!(served.actor.unreadable_count(), before + 1, "{chunks}");
    }
    assert_eq!(served.actor.reports(), 0);
    served.assert_works().await;
}

#[tokio::test]
async fn chunked_wins_over_a_length_and_nothing_is_smuggled() {
    let served = Served::start(Mood::Calm, settings()).await;
    let more = format!("{CHUNKED}Content-Length: 4\r\n");
    let size = REPORT.len();
    let mut client = served.connect().await;
    client
        .send(
            served.head("POST /field/state", &more) + &format!("{size:x}\r\n{REPORT}\r\n0\r\n\r\n"),
        )
        .await;
    let reply = client.try_answer(false).await;
    assert!(reply.is_none_or(|reply| [200, 400].contains(&reply.status)));
    served.assert_works().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_closes_the_gate() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut client = served.connect().await;
    let more = "Content-Type: application/json\r\nContent-Length: 500\r\n";
    client.send(served.head("POST /field/state", more) + "{\"cycle\":").await;
    drop(client);
    let noticed = async {
        while served.actor.unreadable_count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(noticed).await;
    assert_eq!(served.actor.reports(), 0);
    served.assert_works().await;
}
