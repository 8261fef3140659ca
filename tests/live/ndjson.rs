//! A stream of reports against a real broker: in order, and nothing after a line that closes until
//! its barrier is answered (P2).

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::proxy::Proxy;
use crate::support::report::report;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

/// Opens a stream of reports.
async fn stream(sidecar: &Sidecar) -> TcpStream {
    let mut stream = TcpStream::connect(sidecar.api).await.unwrap();
    let head = format!(
        "POST /field/state HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        sidecar.api
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// One chunk of lines.
fn chunk(lines: &[String]) -> Vec<u8> {
    let text: String = lines.iter().map(|line| line.replace('\n', " ") + "\n").collect();
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// Sends all of it, ends the body and reads every answer.
async fn exchange(sidecar: &Sidecar, lines: &[String]) -> Vec<Value> {
    let mut stream = stream(sidecar).await;
    stream.write_all(&chunk(lines)).await.unwrap();
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    answers(&mut stream).await
}

async fn answers(stream: &mut TcpStream) -> Vec<Value> {
    let mut got = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    while !got.ends_with(b"\r\n0\r\n\r\n") {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8_lossy(&got).into_owned();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(Value::is_object)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p2_a_stream_is_judged_and_answered_in_order_and_only_good_lines_leave() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let lines: Vec<String> = [0.2, 0.2, 0.55, 0.2, 0.47, 0.2].into_iter().map(report).collect();
    let answers = exchange(&planner, &lines).await;
    let verdicts: Vec<&str> =
        answers.iter().map(|answer| answer["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["export", "export", "block", "export", "throttle", "export"]);
    assert_eq!(answers[2]["barrier"], "confirmed");
    let seqs: Vec<u64> = answers.iter().map(|answer| answer["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|left, right| left < right), "{seqs:?}");
    let stored: Vec<u64> = answers
        .iter()
        .filter(|answer| answer["packets"][0]["status"] == "stored")
        .map(|answer| answer["packets"][0]["stream_seq"].as_u64().unwrap())
        .collect();
    assert!(stored.is_sorted_by(|left, right| left < right) && stored.len() >= 2, "{answers:?}");
    let info = observer.api("STREAM.INFO.DRIFTGATE_STATE", &Value::Null).await;
    assert_eq!(info["state"]["last_seq"].as_u64(), stored.last().copied());
    planner.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_the_line_after_one_that_closes_waits_for_its_barrier() {
    let server = NatsServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let plan = Plan::new("planner", &["critic"], &proxy.url())
        .with("[listen]\nreply_timeout = \"4s\"\n[containment]\nbarrier_timeout = \"3s\"\n");
    let planner = Sidecar::connected(plan).await;
    planner.stores().await;
    // From here on the broker answers nothing: the closing cannot be confirmed.
    proxy.stall(true);
    let mut stream = stream(&planner).await;
    stream.write_all(&chunk(&[report(0.55), report(0.2)])).await.unwrap();
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    until("the closing", async || {
        let safety = planner.get("/aegida/safety").await.json();
        (safety["band"] == "blocked").then_some(())
    })
    .await;
    // A report over another connection would open it. The one behind in the stream may not.
    let blocked = planner.get("/aegida/safety").await.json();
    assert_eq!(blocked["band"], "blocked");
    assert_eq!(blocked["transitions"].as_array().unwrap().len(), 2, "{blocked}");
    let answers = answers(&mut stream).await;
    assert_eq!(answers[0]["barrier"], "unconfirmed", "{answers:?}");
    assert_eq!(answers[1]["band"], "open", "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_long_stream_leaves_books_that_add_up() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let lines: Vec<String> = (0..2000).map(|_| report(0.2)).collect();
    let answers = exchange(&planner, &lines).await;
    assert_eq!(answers.len(), 2000);
    assert!(answers.iter().all(|answer| answer["verdict"] == "export"));
    planner.settled().await;
}
