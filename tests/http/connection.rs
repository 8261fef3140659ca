//! Connections: heads, caps, silence, haste, and the way out.

use core::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;

use super::rig::{Mood, REPORT, Served, settings, soon};

#[tokio::test]
async fn a_slow_head_is_cut_off_however_it_trickles() {
    let mut settings = settings();
    settings.limits.head_timeout = Duration::from_millis(200);
    let served = Served::start(Mood::Calm, settings).await;
    for start in ["", "G", "GET /field/state HTTP/1.1\r\nHost: x\r\n"] {
        let mut client = served.connect().await;
        client.send(start).await;
        assert!(client.rest().await.is_empty(), "{start}");
    }
    let mut client = served.connect().await;
    client.send("GET /field/state HTTP/1.1\r\n").await;
    let (mut reader, mut writer) = client.stream.split();
    let mut ticks = interval(Duration::from_millis(20));
    let trickle = async {
        let mut byte = [0];
        loop {
            tokio::select! {
                read = reader.read(&mut byte) => break read.unwrap_or(0),
                _ = ticks.tick() => drop(writer.write_all(b"x: y\r\n").await),
            }
        }
    };
    assert_eq!(soon(trickle).await, 0);
    served.assert_works().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let mut settings = settings();
    settings.limits.head_timeout = Duration::from_millis(200);
    let served = Served::start(Mood::Calm, settings).await;
    let mut client = served.connect().await;
    for _ in 0..2 {
        client.send(served.post(REPORT)).await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert!(client.rest().await.is_empty());
    served.assert_works().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_fields_is_refused() {
    let served = Served::start(Mood::Calm, settings()).await;
    let large = format!("X-Large: {}\r\n", "x".repeat(17 * 1024));
    let many = "X-Many: x\r\n".repeat(70);
    for more in [large, many] {
        let mut client = served.connect().await;
        client.send(served.head("GET /aegida/safety", &more)).await;
        assert_eq!(client.answer().await.status, 431);
        assert!(client.rest().await.is_empty());
    }
    let mut client = served.connect().await;
    let target = format!("GET /aegida/safety?{}", "x".repeat(15 * 1024));
    client.send(served.head(&target, "")).await;
    assert_eq!(client.answer().await.status, 400);
    let mut client = served.connect().await;
    client.send(served.head("GET /aegida/safety", &"X-Some: x\r\n".repeat(60))).await;
    assert_eq!(client.answer().await.status, 200);
    served.assert_works().await;
}

#[tokio::test]
async fn what_is_not_http_1_is_refused() {
    let served = Served::start(Mood::Calm, settings()).await;
    for bytes in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /aegida/safety\r\n\r\n",
        b"GET /aegida/safety HTTP/9.9\r\n\r\n",
        b"GET  /aegida/safety HTTP/1.1\r\n\r\n",
        b"GET /aegida/safety HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /aegida/safety HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /aegida/safety HTTP/1.1\r\nHost: \x00\r\n\r\n",
        b"\x00\x00\x00\x00\r\n\r\n",
    ] {
        let mut client = served.connect().await;
        client.send(bytes).await;
        let reply = client.try_answer(false).await;
        assert!(reply.is_none_or(|reply| reply.status == 400), "{bytes:?}");
        assert!(client.rest().await.is_empty());
    }
    served.assert_works().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let served = Served::start(Mood::Calm, settings()).await;
    let mut client = served.connect().await;
    let requests = [
        served.post(REPORT),
        served.head("GET /nowhere", ""),
        served.post("{"),
        served.head("HEAD /field/state", ""),
        served.head("GET /aegida/safety", ""),
    ];
    client.send(requests.concat()).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 404);
    assert_eq!(client.answer().await.status, 400);
    let head = client.answer_to_head().await;
    assert_eq!(head.status, 200);
    assert_ne!(head.header("content-length"), Some("0"));
    assert_eq!(client.answer().await.json()["runtime_id"], "planner");
    served.assert_works().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_at_once() {
    let mut settings = settings();
    settings.limits.connections_max = 2;
    let served = Served::start(Mood::Stuck, settings).await;
    let mut busy = Vec::new();
    for count in 1..=2 {
        let mut client = served.connect().await;
        client.send(served.post(REPORT)).await;
        busy.push(client);
        let asked = async {
            while served.actor.reports() < count {
                tokio::task::yield_now().await;
            }
        };
        soon(asked).await;
    }
    for _ in 0..3 {
        let mut third = served.connect().await;
        third.send(served.post(REPORT)).await;
        let reply = third.answer().await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(reply.json()["type"], "urn:driftgate:problem:too-many-connections");
        assert!(third.rest().await.is_empty());
    }
    assert_eq!(served.actor.reports(), 2);
    assert_eq!(served.log.lines().iter().filter(|(route, _)| route == "connection").count(), 3);
    // A place that becomes free is given out again.
    served.actor.with(|script| script.mood = Mood::Calm);
    drop(busy.pop());
    let place = async {
        loop {
            let mut client = served.connect().await;
            client.send(served.head("GET /aegida/safety", "")).await;
            if client.answer().await.status == 200 {
                break;
            }
        }
    };
    soon(place).await;
}

#[tokio::test]
async fn who_never_asked_makes_way_first_and_then_who_has_been_idle_for_longest() {
    let mut settings = settings();
    settings.limits.connections_max = 3;
    let served = Served::start(Mood::Calm, settings).await;
    let get = served.head("GET /aegida/safety", "");
    let (mut first, mut second) = (served.connect().await, served.connect().await);
    for client in [&mut first, &mut second] {
        client.send(&get).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let mut silent = served.connect().await;
    let mut third = served.connect().await;
    third.send(&get).await;
    assert_eq!(third.answer().await.status, 200);
    assert!(silent.rest().await.is_empty(), "it was closed");
    first.send(&get).await;
    assert_eq!(first.answer().await.status, 200, "it was not");
    let mut fourth = served.connect().await;
    fourth.send(&get).await;
    assert_eq!(fourth.answer().await.status, 200);
    assert!(second.rest().await.is_empty(), "the first has asked since");
    first.send(&get).await;
    assert_eq!(first.answer().await.status, 200);
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_nobody_out() {
    let mut settings = settings();
    settings.limits.connections_max = 20;
    let served = Served::start(Mood::Calm, settings).await;
    let json = "Content-Type: application/json\r\nContent-Length: 50\r\n";
    let mut slow = Vec::new();
    for line in ["POST /field/state", "POST /operator/isolate"] {
        for _ in 0..20 {
            let mut client = served.connect().await;
            // The first answer shows that the head of the second request is being read.
            let get = served.head("GET /aegida/safety", "");
            client.send(get + &served.head(line, json) + "{").await;
            assert_eq!(client.answer().await.status, 200);
            slow.push(client);
        }
        let mut client = served.connect().await;
        client.send(served.head("POST /operator/isolate", "Content-Length: 0\r\n")).await;
        assert_eq!(client.answer().await.status, 200, "after {line}");
        served.assert_works().await;
    }
    assert!(slow[0].rest().await.is_empty(), "the first of them made way");
}

#[tokio::test]
async fn a_flood_of_connections_leaves_those_inside_alone() {
    let mut settings = settings();
    settings.limits.connections_max = 2;
    let served = Served::start(Mood::Calm, settings).await;
    let mut inside = served.connect().await;
    inside.send(served.post(REPORT)).await;
    assert_eq!(inside.answer().await.status, 200);
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(served.connect().await);
        inside.send(served.post(REPORT)).await;
        assert_eq!(inside.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_vanishes_takes_nothing_with_it() {
    let mut settings = settings();
    settings.limits.connections_max = 4;
    let served = Served::start(Mood::Calm, settings).await;
    let post = served.post(REPORT);
    for cut in [0, 1, 20, post.len() - 3, post.len()] {
        for resets in [false, true] {
            let mut client = served.connect().await;
            if resets {
                client.stream.set_zero_linger().unwrap();
            }
            client.send(&post[..cut]).await;
            drop(client);
        }
    }
    // With four places, ten leaked connections would show.
    let place = async {
        loop {
            let mut client = served.connect().await;
            client.send(served.head("GET /aegida/safety", "")).await;
            if client.try_answer(false).await.is_some_and(|reply| reply.status == 200) {
                break;
            }
        }
    };
    soon(place).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_driver_thinks_frees_its_place() {
    let mut settings = settings();
    settings.limits.connections_max = 1;
    let served = Served::start(Mood::Stuck, settings).await;
    let mut client = served.connect().await;
    client.send(served.post(REPORT)).await;
    let asked = async {
        while served.actor.reports() == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(asked).await;
    drop(client);
    served.actor.with(|script| script.mood = Mood::Calm);
    let place = async {
        loop {
            let mut client = served.connect().await;
            client.send(served.head("GET /aegida/safety", "")).await;
            if client.answer().await.status == 200 {
                break;
            }
        }
    };
    soon(place).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let mut settings = settings();
    settings.limits.write_timeout = Duration::from_millis(200);
    let served = Served::start(Mood::Calm, settings).await;
    served.actor.with(|script| script.packet_bytes = 4 << 20);
    let mut client = served.connect().await;
    let get = served.head("GET /field/state", "");
    let cut_off = async { while client.stream.write_all(get.as_bytes()).await.is_ok() {} };
    soon(cut_off).await;
    served.actor.with(|script| script.packet_bytes = 1);
    served.assert_works().await;
}

#[tokio::test]
async fn stopping_lets_requests_in_flight_finish_and_takes_no_new_ones() {
    let served = Served::start(Mood::Calm, settings()).await;
    let address = served.address();
    let post = served.post(REPORT);
    let (start, end) = post.split_at(post.len() - 5);
    let mut idle = served.connect().await;
    idle.send(served.head("GET /aegida/safety", "")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut busy = served.connect().await;
    // The first answer shows that the head of the second request is being read.
    busy.send(served.head("GET /aegida/safety", "") + start).await;
    assert_eq!(busy.answer().await.status, 200);
    served.stop.send(()).unwrap();
    assert!(idle.rest().await.is_empty());
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    soon(refused).await;
    busy.send(end).await;
    let reply = busy.answer().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(soon(served.server).await.unwrap().cut, 0);
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let mut settings = settings();
    settings.limits.drain_timeout = Duration::from_millis(100);
    let served = Served::start(Mood::Stuck, settings).await;
    let mut client = served.connect().await;
    client.send(served.post(REPORT)).await;
    let asked = async {
        while served.actor.reports() == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(asked).await;
    served.stop.send(()).unwrap();
    assert_eq!(soon(served.server).await.unwrap().cut, 1);
    assert!(client.rest().await.is_empty());
}
