//! What the clients of one listener can take: memory within a pod's, and never the place of a
//! probe.

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::support::http::Caller;
use super::support::report::report;
use super::support::sidecar::{Plan, Sidecar};

/// Nobody listens there.
const NOWHERE: &str = "nats://127.0.0.1:1";

/// The most memory that the process ever had resident, in bytes.
fn peak_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A good report of some 256 KiB, filled up with `filling`.
fn large(filling: &str) -> String {
    let count = (255 * 1024) / filling.len();
    let padding = filling.repeat(count);
    report(0.3).replacen('{', &format!("{{\"note\":[{padding}0],"), 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_large_reports_at_once_stay_within_the_memory_of_a_pod() {
    let text = format!("\"{}\",", "x".repeat(1020));
    // Each value of the last takes many times its bytes when it is parsed.
    for filling in [text.as_str(), "0,"] {
        let sidecar = Sidecar::start(Plan::new("planner", &["critic"], NOWHERE).short()).await;
        let before = peak_bytes(sidecar.id());
        let mut calls = JoinSet::new();
        for _ in 0..200 {
            let (body, address) = (large(filling), sidecar.api);
            calls.spawn(async move {
                Caller::new(address).post("/field/state", &body).await.map(|answer| answer.status)
            });
        }
        let statuses = calls.join_all().await;
        let count = |wanted: u16| {
            statuses.iter().filter(|status| status.as_ref().is_ok_and(|s| *s == wanted)).count()
        };
        let took = peak_bytes(sidecar.id()).saturating_sub(before) >> 20;
        println!("{took} MiB; {} judged, {} told to come again", count(200), count(503));
        assert!(took < 56, "200 reports took {took} MiB");
        assert_eq!(count(200) + count(503), 200, "{statuses:?}");
        assert!(count(200) > 0);
        assert_eq!(sidecar.post(&large(filling)).await.status, 200, "and then it goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sockets_keep_no_probe_and_no_report_out() {
    let sidecar = Sidecar::start(Plan::new("planner", &["critic"], NOWHERE).short()).await;
    let mut kept = Caller::new(sidecar.api);
    assert_eq!(kept.get("/aegida/safety").await.unwrap().status, 200);
    let mut idle = Vec::new();
    for address in [sidecar.admin, sidecar.api] {
        for _ in 0..300 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
    }
    let mut failed = 0;
    for _ in 0..80 {
        for path in ["/livez", "/readyz"] {
            let answer = Caller::new(sidecar.admin).get(path).await;
            failed += usize::from(answer.is_ok_and(|answer| answer.status == 200)).abs_diff(1);
        }
        assert_eq!(sidecar.post(&report(0.3)).await.status, 200);
        // Whoever is cut off comes again.
        idle.push(TcpStream::connect(sidecar.admin).await.unwrap());
    }
    assert_eq!(failed, 0, "of 160 probes");
    // Sockets that never asked anything make way before a connection that did.
    assert_eq!(kept.get("/aegida/safety").await.unwrap().status, 200);
}
