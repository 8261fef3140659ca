//! Clients that hang up: what has arrived is judged all the same.
//!
//! The runtime that reports its own collapse may be gone before anybody has read the report.

use core::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::interval;

use super::rig::{Mood, REPORT, Served, settings, soon};

/// Calls of each kind.
const CALLS: usize = 200;
/// Between head and body, so that the body, the end of the stream and the handler meet.
const PAUSE: Duration = Duration::from_millis(5);

/// How a client ends its connection.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Sends no more, still reads, and then goes.
    HalfClose,
    /// Closes both directions.
    Close,
    /// Closes with a reset.
    Reset,
    /// Closes while an earlier answer lies unread, which resets too.
    Unread,
}

async fn call(served: &Served, request: &str, pause: Option<Duration>, end: End) {
    let mut stream = soon(TcpStream::connect(served.address())).await.unwrap();
    stream.set_nodelay(true).unwrap();
    if matches!(end, End::Unread) {
        let earlier = served.head("GET /aegida/safety", "");
        soon(stream.write_all(earlier.as_bytes())).await.unwrap();
        soon(stream.readable()).await.unwrap();
    }
    let start = request.find("\r\n\r\n").unwrap() + 4;
    let (head, body) = request.split_at(start);
    match pause {
        Some(pause) => {
            soon(stream.write_all(head.as_bytes())).await.unwrap();
            let mut ticks = interval(pause);
            ticks.tick().await;
            ticks.tick().await;
            soon(stream.write_all(body.as_bytes())).await.unwrap();
        }
        None => soon(stream.write_all(request.as_bytes())).await.unwrap(),
    }
    match end {
        End::HalfClose => {
            soon(stream.shutdown()).await.unwrap();
            let mut rest = Vec::new();
            let _ = soon(stream.read_to_end(&mut rest)).await;
        }
        End::Reset => stream.set_zero_linger().unwrap(),
        End::Close | End::Unread => {}
    }
}

async fn until(event: impl Fn() -> bool) {
    let wait = async {
        let mut ticks = interval(Duration::from_millis(1));
        while !event() {
            ticks.tick().await;
        }
    };
    soon(wait).await;
}

async fn check(body: &str, pause: Option<Duration>, end: End) {
    let served = Served::start(Mood::Calm, settings()).await;
    let request = served.post(body);
    for _ in 0..CALLS {
        call(&served, &request, pause, end).await;
    }
    // A report that is complete reaches the driver; the last one a moment after its client left.
    let judged = async { until(|| served.actor.reports() == CALLS).await };
    let outcome = tokio::time::timeout(Duration::from_secs(5), judged).await;
    let dropped = CALLS - served.actor.reports();
    assert!(outcome.is_ok(), "{dropped} of {CALLS} reports were dropped: {end:?}");
    assert_eq!(served.actor.unreadable_count(), 0);
    served.assert_works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_judged_though_its_client_has_hung_up() {
    for end in [End::HalfClose, End::Close, End::Reset, End::Unread] {
        check(REPORT, None, end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_whose_body_comes_last_is_judged_though_its_client_has_hung_up() {
    for end in [End::HalfClose, End::Close, End::Reset, End::Unread] {
        check(REPORT, Some(PAUSE), end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_report_is_judged_though_its_client_has_hung_up() {
    let padding = "x".repeat(200 * 1024);
    let report = REPORT.replacen('{', &format!("{{\"note\":\"{padding}\","), 1);
    for pause in [None, Some(PAUSE)] {
        for end in [End::HalfClose, End::Close] {
            check(&report, pause, end).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_obeyed_though_its_operator_has_hung_up() {
    const ORDERS: usize = 100;
    for pause in [None, Some(PAUSE)] {
        for end in [End::HalfClose, End::Close, End::Reset, End::Unread] {
            let served = Served::start(Mood::Calm, settings()).await;
            let more = "Content-Type: application/json\r\nContent-Length: 2\r\n";
            let request = served.head("POST /operator/isolate", more) + "{}";
            for _ in 0..ORDERS {
                call(&served, &request, pause, end).await;
            }
            let obeyed = || served.actor.with(|script| script.orders.len());
            let all = async { until(|| obeyed() == ORDERS).await };
            let outcome = tokio::time::timeout(Duration::from_secs(5), all).await;
            let dropped = ORDERS - obeyed();
            assert!(outcome.is_ok(), "{dropped} of {ORDERS} orders were dropped: {end:?}");
        }
    }
}

#[tokio::test]
async fn work_without_clients_is_bounded_and_takes_no_place_of_an_order() {
    let mut settings = settings();
    settings.limits.connections_max = 4;
    let served = Served::start(Mood::Stuck, settings).await;
    let request = served.post(REPORT);
    for count in 1..=8 {
        call(&served, &request, None, End::Close).await;
        until(|| served.actor.reports() == count).await;
    }
    let mut client = served.connect().await;
    client.send(&request).await;
    let reply = client.answer().await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(reply.json()["type"], "urn:driftgate:problem:overloaded");
    served.actor.with(|script| script.mood = Mood::Calm);
    let more = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    client.send(served.head("POST /operator/isolate", more) + "{}").await;
    assert_eq!(client.answer().await.status, 200);
}
