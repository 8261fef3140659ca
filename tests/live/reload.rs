//! Reloads of a sidecar that runs: what is taken, what is refused and what is said of it.

use serde_json::Value;

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

/// What `/readyz` says under this code.
async fn degraded(sidecar: &Sidecar, code: &str) -> Option<String> {
    let readiness = sidecar.readiness().await;
    let lines = readiness["degraded"].as_array().cloned().unwrap_or_default();
    let mut lines = lines.iter().filter_map(Value::as_str);
    lines.find_map(|line| Some(line.strip_prefix(code)?.strip_prefix(": ")?.to_owned()))
}

async fn block_mark(sidecar: &Sidecar) -> Value {
    sidecar.get("/aegida/safety").await.json()["thresholds"]["block"].clone()
}

#[tokio::test]
async fn a_reload_that_takes_a_restart_is_refused_by_name_and_nothing_of_it_leaks() {
    let server = NatsServer::start();
    let mut sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    sidecar.stores().await;
    sidecar.reconfigure(
        "runtime = { id = \"impostor\", attractor_type = \"generative\" }\n\
         listen.reply_timeout = \"30s\"\ncontainment.barrier_timeout = \"20s\"\n\
         containment.stale_after = \"1h\"\n",
    );
    sidecar.signal("HUP");
    let text = until("the refusal", async || degraded(&sidecar, "reload_failed").await).await;
    for key in ["runtime.id", "runtime.attractor_type", "listen.reply_timeout"] {
        assert!(text.contains(key), "{text}");
    }
    assert!(!text.contains("stale_after"), "{text}");
    sidecar.stores().await;
    assert_eq!(sidecar.get("/field/state").await.json()["runtime_id"], "planner");
    assert!(sidecar.books().await.sum("reload_failed", &[]) >= 1);
    sidecar.reconfigure("");
    sidecar.signal("HUP");
    until("the end of it", async || {
        degraded(&sidecar, "reload_failed").await.is_none().then_some(())
    })
    .await;
    let log = sidecar.log();
    for line in ["a promise is weakened", "a promise holds again"] {
        let said = log.lines().filter(|said| said.contains(line) && said.contains("reload_failed"));
        assert_eq!(said.count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_refused_reload_removes_and_tightens_what_it_can() {
    let server = NatsServer::start();
    let peers = ["critic", "scribe"];
    let mut sidecar = Sidecar::connected(Plan::new("planner", &peers, &server.url())).await;
    sidecar.stores().await;
    sidecar.reconfigure(
        "snapshot.keep_full = 9\ncontainment = { block = 0.46, stale_after = \"1h\" }\n\
         [[peers]]\nid = \"critic\"\nexport = [\"state\"]\n\
         [[peers]]\nid = \"stranger\"\nexport = [\"state\"]\n",
    );
    sidecar.signal("HUP");
    let text = until("the refusal", async || degraded(&sidecar, "reload_failed").await).await;
    assert!(text.contains("snapshot.keep_full"), "{text}");
    assert_eq!(block_mark(&sidecar).await, 0.46);
    let packets = sidecar.report(0.30).await["packets"].as_array().cloned().unwrap_or_default();
    let targets: Vec<&Value> = packets.iter().map(|packet| &packet["target"]).collect();
    assert_eq!(targets, ["critic"]);
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing_and_is_said_until_it_is_mended() {
    let server = NatsServer::start();
    let mut sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    sidecar.reconfigure("[containment]\nblock = 0.9\n");
    sidecar.signal("HUP");
    let text = until("the refusal", async || degraded(&sidecar, "reload_failed").await).await;
    assert!(text.contains("containment.block"), "{text}");
    assert_eq!(block_mark(&sidecar).await, 0.5);
    sidecar.reconfigure("[containment]\nblock = 0.48\n");
    sidecar.signal("HUP");
    until("the mended file", async || (block_mark(&sidecar).await == 0.48).then_some(())).await;
    let ended = async || degraded(&sidecar, "reload_failed").await.is_none().then_some(());
    until("the end of the failure", ended).await;
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let server = NatsServer::start();
    let mut sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    for mark in ["0.48", "0.47"] {
        sidecar.reconfigure(&format!("log.level = \"error\"\ncontainment.block = {mark}\n"));
        sidecar.signal("HUP");
        let mark: f64 = mark.parse().unwrap();
        until("the mark", async || (block_mark(&sidecar).await == mark).then_some(())).await;
    }
    // The level is set before the next reload begins, so the second one says nothing.
    assert_eq!(sidecar.log().matches("configuration reloaded").count(), 1);
}

#[tokio::test]
async fn a_warning_of_the_configuration_is_said_by_the_sidecar_too() {
    let server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url());
    let mut sidecar = Sidecar::connected(plan.with("containment.assumed_scr = 0.8")).await;
    let text = until("the warning", async || degraded(&sidecar, "configuration").await).await;
    assert!(text.contains("containment.assumed_scr"), "{text}");
    assert!(sidecar.log().contains("containment.assumed_scr"));
    sidecar.reconfigure("");
    sidecar.signal("HUP");
    until("its end", async || degraded(&sidecar, "configuration").await.is_none().then_some(()))
        .await;
}

/// Nine levels of nine aliases each: 387 million words in 431 bytes.
fn bomb() -> String {
    let mut text =
        "a: &a [\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\"]\n"
            .to_owned();
    for (level, below) in ('b'..='i').zip('a'..='h') {
        let aliases = vec![format!("*{below}"); 9].join(",");
        text.push_str(&format!("{level}: &{level} [{aliases}]\n"));
    }
    text
}

#[tokio::test]
async fn a_bomb_of_yaml_aliases_is_a_line_and_the_sidecar_goes_on() {
    assert!(bomb().len() < 440, "{}", bomb().len());
    let server = NatsServer::start();
    let plan = Plan::new("planner", &["critic"], &server.url()).in_yaml();
    let mut sidecar = Sidecar::connected(plan).await;
    sidecar.stores().await;
    sidecar.reconfigure(&bomb());
    sidecar.signal("HUP");
    let text = until("the refusal", async || degraded(&sidecar, "reload_failed").await).await;
    assert!(text.contains("more.yaml") && text.contains("alias"), "{text}");
    sidecar.stores().await;
    sidecar.reconfigure("containment: {block: 0.48}\n");
    sidecar.signal("HUP");
    until("the mended file", async || (block_mark(&sidecar).await == 0.48).then_some(())).await;
    let ended = async || degraded(&sidecar, "reload_failed").await.is_none().then_some(());
    until("the end of the failure", ended).await;
}
