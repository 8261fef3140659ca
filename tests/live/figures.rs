//! What `/metrics` tells of the gate, the peers and the broker.

use std::collections::BTreeMap;

use driftgate::protocol::time::Timestamp;

use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_tells_why_it_closed_and_how_old_everything_is() {
    let mut server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    critic.stores().await;
    planner.stores().await;
    until("the critic's packet", async || {
        let at =
            planner.books().await.select("peer_received_seconds", &[("peer", "critic")]).next();
        at.filter(|at| *at > 1.7e9)
    })
    .await;
    let books = planner.books().await;
    let one = |name| books.select(name, &[]).next().unwrap();
    assert!(one("report_age_seconds") < 10.0 && one("build_info") == 1.0);
    assert!(one("snapshot_spool_bytes_max") > one("snapshot_spool_bytes"));
    assert_eq!(books.sum("closing_reasons", &[]), 0);
    let before = one("broker_outage_seconds");
    planner.report(0.55).await;
    planner.report(0.65).await;
    let books = planner.books().await;
    for (reason, count) in [("di_block", 1), ("di_isolate", 1)] {
        assert_eq!(books.sum("closing_reasons", &[("reason", reason)]), count, "{books:?}");
    }
    server.kill();
    until("the outage to be counted", async || {
        let away = planner.books().await.select("broker_outage_seconds", &[]).next();
        away.filter(|away| *away > before + 0.2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrape_and_the_views_tell_the_same_facts_after_a_rise_and_a_fall() {
    let server = NatsServer::start();
    let planner = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let mut closings = 0;
    planner.stores().await;
    for (index, band) in [
        (0.46, "caution"),
        (0.52, "blocked"),
        (0.65, "isolated"),
        (0.31, "open"),
        (0.56, "blocked"),
    ] {
        let reply = planner.report(index).await;
        assert_eq!(reply["band"], band, "{reply}");
        closings += i64::from(reply["barrier"] == "confirmed");
        let books = planner.settled().await;
        let safety = planner.get("/aegida/safety").await.json();
        assert_eq!((&safety["band"], books.sum("band", &[])), (&band.into(), 1));
        assert_eq!(books.sum("band", &[("band", band)]), 1);
        let one = |name: &str, labels: &[(&str, &str)]| books.select(name, labels).next().unwrap();
        assert_eq!(safety["di"], one("drift_index", &[]));
        let is_source = [("source", safety["drift_source"].as_str().unwrap())];
        assert_eq!(books.sum("drift_source", &is_source), 1);
        let since = safety["since"].as_str().unwrap();
        let since = Timestamp::parse(since).unwrap().since(Timestamp::from_unix_ms(0));
        assert!((one("band_since_seconds", &[]) - since.as_secs_f64()).abs() < 0.0005);
        for mark in ["reopen", "block", "isolate"] {
            assert_eq!(safety["thresholds"][mark], one("threshold", &[("mark", mark)]));
        }
        let transitions = safety["transitions"].as_array().unwrap().len();
        assert_eq!(books.sum("transitions", &[]), i64::try_from(transitions).unwrap());
        assert_eq!(books.sum("closings", &[("barrier", "confirmed")]), closings);
        assert_eq!(safety["targets"][0]["pending"], books.sum("packets_pending", &[]));
        let held = i64::from(safety["operator_hold"] == true);
        assert_eq!(books.sum("operator_hold", &[]), held);
        let field = planner.get("/field/state").await;
        if band == "isolated" {
            assert_eq!(field.status, 423);
            continue;
        }
        let field = field.json();
        for name in ["band", "di", "drift_source", "reasons", "since", "posture"] {
            assert_eq!(field[name], safety[name], "{name}");
        }
        for name in ["sdi", "sv", "pd", "scr", "di"] {
            let scraped = books.select("drift_metric", &[("metric", name)]).next();
            assert_eq!(field["drift_metrics"][name].as_f64(), scraped, "{name}");
        }
        let minimal = i64::from(field["peers"][0]["mode"] != "full");
        assert_eq!(books.sum("peers", &[("mode", "minimal")]), minimal);
    }
}

/// Words of `text` that name a metric of ours.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("driftgate_"))
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_name_metrics_that_are_there_and_entries_that_stand() {
    let rules = include_str!("../../deploy/prometheus/driftgate-rules.yaml");
    let dashboard = include_str!("../../deploy/grafana/driftgate.json");
    let operations = include_str!("../../docs/operations.md");
    let planner = Sidecar::start(Plan::new("planner", &["critic"], "nats://127.0.0.1:1")).await;
    let answer = Caller::new(planner.admin).get("/metrics").await.unwrap().text();
    let types: BTreeMap<&str, &str> =
        answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let manual = include_str!("../../docs/metrics.md");
    let listed: BTreeMap<&str, &str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name.trim_end_matches("_total"), rest.split(' ').next().unwrap()))
        .collect();
    assert_eq!(types, listed, "docs/metrics.md");
    let has = |metric: &str| {
        let of = |end: &str, kind| {
            metric.strip_suffix(end).is_some_and(|name| types.get(name) == Some(&kind))
        };
        types.get(metric) == Some(&"gauge") || of("_total", "counter") || of("_bucket", "histogram")
    };
    let named: Vec<&str> = metrics_in(rules).chain(metrics_in(dashboard)).collect();
    assert!(named.len() > 25, "{named:?}");
    let absent: Vec<&str> = named.into_iter().filter(|metric| !has(metric)).collect();
    assert_eq!(absent, Vec::<&str>::new());
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 13);
    for alert in alerts {
        let anchor = format!("docs/operations.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{alert} names no entry");
        assert!(operations.contains(&format!("### `{alert}`\n")), "{alert} has no entry");
    }
}
