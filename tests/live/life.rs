//! The process: restarts, signals, reloads.

use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::report::report;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_restarted_sidecar_is_blocked_and_counts_on() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let mut sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let mut newest = 0;
    // Later lives are shorter than the time between two writes of what has to survive them.
    for round in 0..5 {
        let safety = sidecar.get("/aegida/safety").await.json();
        assert_eq!(
            (safety["band"].as_str(), &safety["reasons"][0]),
            (Some("blocked"), &"starting".into())
        );
        sidecar.is_connected().await;
        let caution = sidecar.report(0.46).await;
        assert_eq!(caution["packets"][0]["status"], "held", "0.46 does not reopen: {caution}");
        let reply = sidecar.report(0.30).await;
        assert_eq!(reply["packets"][0]["status"], "stored", "{reply}");
        let seq = reply["seq"].as_u64().unwrap();
        assert!(seq > newest, "{seq} after {newest}");
        newest = seq;
        if round == 0 {
            let memory = sidecar.folder().join("spool/memory.json");
            until("the memory to be kept", async || memory.exists().then_some(())).await;
        }
        if round == 1 {
            sidecar.signal("TERM");
            assert!(sidecar.ended().await.success());
        } else {
            sidecar.kill();
        }
        sidecar.start_again().await;
    }
    observer.mark().await;
    let numbers: Vec<u64> = observer.packets(0).iter().map(|packet| packet.seq).collect();
    assert!(numbers.is_sorted_by(|older, newer| older < newer), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_sidecar_answers_drains_and_exits_0() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let mut sidecar =
        Sidecar::connected(Plan::new("planner", &["critic", "monitor"], &server.url())).await;
    let api = sidecar.api;
    let reporters: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut caller = Caller::new(api);
                let mut stored = Vec::new();
                // Until the listener is gone.
                while let Ok(answer) = caller.post("/field/state", &report(0.30)).await {
                    if answer.status != 200 {
                        assert_eq!(answer.status, 503, "{}", answer.text());
                        break;
                    }
                    let reply = answer.json();
                    for line in reply["packets"].as_array().unwrap() {
                        if line["status"] == "stored" {
                            stored
                                .push((reply["seq"].as_u64().unwrap(), line["target"].to_string()));
                        }
                    }
                }
                stored
            })
        })
        .collect();
    observer
        .find(0, "twenty packets", {
            let seen = std::cell::Cell::new(0);
            move |message| {
                seen.set(
                    seen.get()
                        + usize::from(message.subject.starts_with("driftgate.v1.state.planner")),
                );
                seen.get() >= 20
            }
        })
        .await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    assert!(sidecar.log().contains("\"stopped\""));
    let end = observer.mark().await;
    let heard: Vec<(u64, String)> = observer
        .packets(0)
        .into_iter()
        .map(|packet| (packet.seq, format!("{:?}", packet.target)))
        .collect();
    for reporter in reporters {
        for stored in reporter.await.unwrap() {
            assert!(heard.contains(&stored), "said to be stored and never seen: {stored:?}");
        }
    }
    observer.mark().await;
    assert!(observer.packets(end).is_empty(), "nothing follows the end");
    assert_eq!(server.subscriptions_of("planner"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_over_what_is_good_and_only_that() {
    let server = NatsServer::start();
    let mut sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let targets = async |sidecar: &Sidecar| {
        let reply = sidecar.report(0.30).await;
        reply["packets"].as_array().unwrap().len()
    };
    assert_eq!(targets(&sidecar).await, 1);
    sidecar.reconfigure(
        "[[peers]]\nid = \"critic\"\nexport = [\"state\"]\n\n[[peers]]\nid = \"monitor\"\n\
         export = [\"state\"]\n",
    );
    sidecar.signal("HUP");
    until("the new peer", async || (targets(&sidecar).await == 2).then_some(())).await;
    sidecar.reconfigure("[containment]\nblock = 0.9\n");
    sidecar.signal("HUP");
    until("the refusal", async || sidecar.log().contains("reload_failed").then_some(())).await;
    assert_eq!(targets(&sidecar).await, 2, "a bad file changes nothing");
    sidecar.reconfigure("[containment]\nblock = 0.46\n");
    sidecar.signal("HUP");
    until("the tighter mark", async || {
        let safety = sidecar.get("/aegida/safety").await.json();
        (safety["thresholds"]["block"] == 0.46).then_some(())
    })
    .await;
    assert_eq!(sidecar.report(0.47).await["band"], "blocked");
}
