//! Which reports reach the broker, and what the server itself shows meanwhile.

use crate::support::nats_server::{NatsServer, eventually};
use crate::support::observer::{Observer, Packet, stored};
use crate::support::sidecar::{Plan, Sidecar};

/// Index reported, band after it, what becomes of the one packet.
const WALK: [(f64, &str, &str); 9] = [
    (0.30, "open", "stored"),
    (0.46, "caution", "throttled"),
    (0.49, "caution", "throttled"),
    (0.51, "blocked", "held"),
    (0.47, "blocked", "held"),
    (0.44, "open", "stored"),
    (0.65, "isolated", "held"),
    (0.55, "isolated", "held"),
    (0.44, "open", "stored"),
];

#[tokio::test(flavor = "multi_thread")]
async fn p1_p4_the_walk_reaches_the_broker_only_while_it_is_stable() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let mut sent = Vec::new();
    for (di, band, status) in WALK {
        let reply = sidecar.report(di).await;
        let line = &reply["packets"][0];
        assert_eq!((reply["band"].as_str(), line["status"].as_str()), (Some(band), Some(status)));
        if status == "stored" {
            sent.push((reply["seq"].as_u64().unwrap(), line["stream_seq"].as_u64().unwrap()));
        }
        let closes = matches!(reply["barrier"].as_str(), Some("confirmed"));
        assert_eq!(closes, di == 0.51 || di == 0.65, "{reply}");
        if band == "isolated" {
            // P4: by the time of the reply, at the server itself.
            assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()));
        } else {
            eventually("both subscriptions of the exchange to stand", || {
                let shown = server.subscriptions_of("planner").unwrap_or_default();
                shown.iter().filter(|subject| subject.starts_with("_INBOX.")).count() == 2
            });
        }
        let subjects = server.subscriptions_of("planner").unwrap();
        println!("WALK | {di:.2} | {band} | {status} | subscriptions {subjects:?}");
    }
    let kept = stored(&observer.client, "DRIFTGATE_STATE").await;
    let kept: Vec<Packet> = kept.iter().filter_map(Packet::of).collect();
    let indices: Vec<f64> =
        kept.iter().map(|packet| (packet.di() * 100.0).round() / 100.0).collect();
    assert_eq!(indices, [0.30, 0.44, 0.44]);
    let numbers: Vec<u64> = kept.iter().map(|packet| packet.seq).collect();
    assert_eq!(sent, numbers.into_iter().zip(1..).collect::<Vec<(u64, u64)>>());
    observer.mark().await;
    assert_eq!(observer.packets(0).len(), 3, "nor did anything else leave");
    let books = sidecar.settled().await;
    assert_eq!(
        ["stored", "throttled", "held", "revoked", "failed"].map(|status| books.packets(status)),
        [3, 2, 4, 0, 0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transition_is_announced_without_state() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    for (di, ..) in WALK {
        sidecar.report(di).await;
    }
    observer.mark().await;
    let notices: Vec<serde_json::Value> = observer
        .heard(0)
        .iter()
        .filter(|message| message.subject.as_str() == "driftgate.v1.containment.planner")
        .map(|message| serde_json::from_slice(&message.payload).unwrap())
        .collect();
    let bands: Vec<&str> = notices.iter().filter_map(|notice| notice["band"].as_str()).collect();
    assert_eq!(bands, ["open", "caution", "blocked", "open", "isolated", "open"]);
    for notice in notices {
        let keys: Vec<&String> = notice.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["band", "epoch", "mode", "reasons", "runtime_id", "since"]);
    }
}
