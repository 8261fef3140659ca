//! What a key of the configuration changes in a sidecar that runs.

use serde_json::Value;

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

/// What `/readyz` says under this code, once it says something with `part` in it.
async fn said(sidecar: &Sidecar, code: &str, part: &str) -> String {
    until(part, async || {
        let readiness = sidecar.readiness().await;
        let lines = readiness["degraded"].as_array().cloned().unwrap_or_default();
        let mut lines = lines.iter().filter_map(Value::as_str);
        lines.find(|line| line.starts_with(code) && line.contains(part)).map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_durability_that_the_broker_cannot_give_is_said() {
    let alone = NatsServer::start();
    let replicated = "nats = { replicas = 3, durability = \"replicated\" }\n";
    let plan = Plan::new("planner", &["critic"], &alone.url());
    let sidecar = Sidecar::connected(plan.clone().with(replicated)).await;
    said(&sidecar, "broker_assets", "the broker refused STREAM.CREATE.DRIFTGATE_STATE").await;
    drop(sidecar);
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    assert!(sidecar.readiness().await["degraded"].as_array().unwrap().is_empty());
    sidecar.kill();
    for (durability, part) in [
        ("replicated", "stream DRIFTGATE_STATE: num_replicas is 1, fewer than 3"),
        ("synced", "stream DRIFTGATE_STATE: placement has no tag sync:always"),
    ] {
        sidecar.reconfigure(&format!("nats = {{ replicas = 3, durability = {durability:?} }}\n"));
        sidecar.start_again().await;
        said(&sidecar, "broker_assets", part).await;
        sidecar.kill();
    }
}
