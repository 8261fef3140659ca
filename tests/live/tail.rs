//! Reports that come from a followed file, through rotation and truncation.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::report::report;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

fn append(path: &Path, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// One line: the file holds a report per line.
fn line(di: f64) -> String {
    report(di).replace('\n', " ")
}

async fn band(sidecar: &Sidecar, band: &str) {
    until(band, async || {
        (sidecar.get("/aegida/safety").await.json()["band"] == band).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_file_reports_like_the_runtime_itself() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cycles.jsonl");
    let tail =
        format!("[log]\nlevel = \"trace\"\n[ingest.tail]\npath = {path:?}\ninterval = \"20ms\"");
    let plan = Plan::new("planner", &["critic"], &server.url()).with(&tail);
    let sidecar = Sidecar::connected(plan).await;
    let is_packet = |di: f64| {
        move |message: &async_nats::Message| {
            crate::support::observer::Packet::of(message)
                .is_some_and(|packet| (packet.di() - di).abs() < 1e-6)
        }
    };
    append(&path, &line(0.30));
    observer.find(0, "the first packet", is_packet(0.30)).await;
    // A line that nobody can read is no evidence of stability (P6), and says nothing outside (P9).
    append(&path, "{\"kanarienvogel\": 1, \"kanarienvogel\": 2}");
    band(&sidecar, "blocked").await;
    append(&path, &line(0.31));
    observer.find(0, "the packet after the broken line", is_packet(0.31)).await;
    append(&path, &line(0.31).replacen("\"id\"", "\"kanarienvogel\": 1, \"id\"", 1));
    band(&sidecar, "blocked").await;
    std::fs::rename(&path, folder.path().join("cycles.jsonl.1")).unwrap();
    append(&path, &line(0.32));
    observer.find(0, "the packet after the rotation", is_packet(0.32)).await;
    std::fs::write(&path, format!("{}\n", line(0.33))).unwrap();
    observer.find(0, "the packet after the truncation", is_packet(0.33)).await;
    append(&path, &line(0.65));
    band(&sidecar, "isolated").await;
    observer.mark().await;
    let sent: Vec<f64> =
        observer.packets(0).iter().map(|packet| (packet.di() * 100.0).round() / 100.0).collect();
    assert_eq!(sent, [0.30, 0.31, 0.32, 0.33]);
    assert!(!sidecar.log().contains("kanarienvogel"), "{}", sidecar.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_followed_file_that_becomes_a_folder_closes_the_gate() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cycles.jsonl");
    let tail = format!("[ingest.tail]\npath = {path:?}\ninterval = \"20ms\"");
    let plan = Plan::new("planner", &["critic"], &server.url()).with(&tail);
    let sidecar = Sidecar::connected(plan).await;
    append(&path, &line(0.30));
    band(&sidecar, "open").await;
    std::fs::rename(&path, folder.path().join("cycles.jsonl.1")).unwrap();
    std::fs::create_dir(&path).unwrap();
    band(&sidecar, "blocked").await;
    let degraded = sidecar.readiness().await["degraded"].to_string();
    assert!(degraded.contains("feed_broken: "), "{degraded}");
    std::fs::remove_dir(&path).unwrap();
    append(&path, &line(0.31));
    band(&sidecar, "open").await;
    let degraded = sidecar.readiness().await["degraded"].to_string();
    assert!(!degraded.contains("feed_broken"), "{degraded}");
}
