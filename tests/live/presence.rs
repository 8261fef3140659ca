//! Presence on a real broker: what everybody can see of a sidecar, and two of one name.

use std::process::Command;

use async_nats::Message;
use serde_json::Value;

use crate::support::forge::fleet_keyring as keyring;
use crate::support::nats_command::NatsCli;
use crate::support::nats_server::{NatsServer, shipped_grants};
use crate::support::observer::Observer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::presence::Presence;

const KEY: &str = "$KV.driftgate-presence.planner";

fn is_presence(message: &Message) -> bool {
    message.subject.as_str() == KEY
}

fn read(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).expect("an entry is JSON")
}

/// The newest entry of the planner, and its place on the bucket's stream; `None` where none is.
async fn stored(observer: &Observer) -> Option<(u64, Value)> {
    let call = format!("$JS.API.DIRECT.GET.KV_driftgate-presence.{KEY}");
    let answer = observer.client.request(call, "".into()).await.ok()?;
    let headers = answer.headers.as_ref().expect("headers");
    let place = headers.get("Nats-Sequence")?.as_str().parse().expect("a number");
    (!answer.payload.is_empty()).then(|| (place, read(&answer)))
}

/// Waits until the newest entry of the planner is as `is_it` says.
async fn entry(observer: &Observer, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    until(what, async || stored(observer).await.map(|(_, entry)| entry).filter(&is_it)).await
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
}

/// Waits until `/readyz` says so.
async fn degraded(sidecar: &Sidecar, code: &str) {
    until(code, async || {
        let readiness = sidecar.readiness().await;
        let lines = readiness["degraded"].as_array().expect("a list").clone();
        lines
            .iter()
            .any(|line| line.as_str().is_some_and(|line| line.starts_with(code)))
            .then_some(())
    })
    .await;
}

fn plan(server: &NatsServer) -> Plan {
    Plan::new("planner", &["critic"], &server.url()).short()
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_follows_the_gate_at_once_and_is_signed_as_the_contract_says() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let sidecar = Sidecar::connected(plan(&server)).await;
    let first = entry(&observer, "the first entry", |_| true).await;
    assert_eq!((&first["band"], &first["reasons"][0]), (&"blocked".into(), &"starting".into()));
    assert_eq!(sidecar.report(0.3).await["band"], "open");
    let open = entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    assert_eq!(open["claim"], first["claim"], "one claim for one life");
    assert_eq!(open["instance"], first["instance"]);
    let names: Vec<&str> =
        open.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "at",
            "band",
            "claim",
            "epoch",
            "hold",
            "instance",
            "mode",
            "reasons",
            "runtime_id",
            "signature",
            "since",
            "started",
            "version",
        ]
    );
    let (_, message) = observer.find(0, "an entry on its way", is_presence).await;
    assert_eq!(header(&message, "Nats-TTL"), Some("35s"));
    assert_eq!(header(&message, "Nats-Expected-Last-Subject-Sequence"), Some("0"));
    let planner = RuntimeId::new("planner").expect("an id");
    Presence::open(&keyring(), Some("k1"), &planner, &message.payload).expect("it verifies");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_when_a_closing_is_confirmed_the_broker_has_the_blocked_entry_and_none_follows() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let sidecar = Sidecar::connected(plan(&server)).await;
    sidecar.report(0.3).await;
    entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    let place = observer.mark().await;
    let closing = sidecar.report(0.52).await;
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
    let confirmed = observer.mark().await;
    let told = observer.heard(place);
    let bands: Vec<Value> = told
        .iter()
        .filter(|message| is_presence(message))
        .map(|one| read(one)["band"].clone())
        .collect();
    assert_eq!(bands, ["blocked"]);
    // Ten reports that change nothing write nothing: the next write is the refresh.
    for _ in 0..10 {
        sidecar.report(0.52).await;
    }
    observer.mark().await;
    assert!(!observer.heard(confirmed).iter().any(is_presence));
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_the_last_entry_before_a_cut_stays_and_nothing_is_written_after_it() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let sidecar = Sidecar::connected(plan(&server)).await;
    sidecar.report(0.3).await;
    entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    let place = observer.mark().await;
    let closing = sidecar.report(0.65).await;
    assert_eq!(closing["barrier"], "confirmed", "{closing}");
    let confirmed = observer.mark().await;
    let told = observer.heard(place);
    let last: Vec<&Message> = told.iter().filter(|message| is_presence(message)).collect();
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!(read(last[0])["band"], "isolated");
    assert_eq!(header(last[0], "Nats-TTL"), None, "it stays");
    assert_eq!(sidecar.report(0.66).await["band"], "isolated");
    observer.mark().await;
    let later = observer.heard(confirmed);
    let is_ours = |message: &&Message| !message.subject.starts_with("driftgate.v1.state.observer");
    assert!(!later.iter().any(|one| is_ours(&one)), "{later:?}");
    // It reads before it writes again: nobody knows what has happened meanwhile.
    assert_eq!(sidecar.report(0.3).await["band"], "open");
    entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_is_said_and_fences_nobody() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let mut sidecar = Sidecar::connected(plan(&server)).await;
    sidecar.report(0.3).await;
    entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    sidecar.stop().await;
    let (_, last) = stored(&observer).await.expect("the last entry");
    assert_eq!(
        (&last["band"], &last["reasons"]),
        (&"blocked".into(), &serde_json::json!(["stopped"]))
    );
    let next = Sidecar::connected(plan(&server)).await;
    entry(&observer, "another life", |entry| entry["instance"] != last["instance"]).await;
    assert_eq!(next.report(0.3).await["band"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_waits_claims_when_it_is_fit_and_replaces_the_older_one() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let older = Sidecar::connected(plan(&server)).await;
    assert_eq!(older.report(0.3).await["band"], "open");
    let held = entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    let newer = Sidecar::connected(plan(&server)).await;
    degraded(&newer, "twin").await;
    let (_, now) = stored(&observer).await.expect("an entry");
    assert_eq!(now["instance"], held["instance"], "it writes nothing");
    let waiting = newer.report(0.3).await;
    assert_eq!((&waiting["band"], &waiting["reasons"][0]), (&"blocked".into(), &"twin".into()));
    let taken = entry(&observer, "the claim", |entry| entry["instance"] != held["instance"]).await;
    assert!(taken["claim"].as_u64() > held["claim"].as_u64(), "{taken} over {held}");
    until("the newer one to open", async || {
        (newer.report(0.3).await["band"] == "open").then_some(())
    })
    .await;
    // A change of band writes at once, and so finds out at once.
    older.report(0.52).await;
    degraded(&older, "twin").await;
    let replaced = older.report(0.3).await;
    assert_eq!(
        (&replaced["band"], &replaced["reasons"][0]),
        (&"blocked".into(), &"replaced".into())
    );
    let (_, now) = stored(&observer).await.expect("an entry");
    assert_eq!(now["instance"], taken["instance"], "the older one writes nothing any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_presence_moves_nothing_is_said_and_is_written_anew() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let sidecar = Sidecar::connected(plan(&server)).await;
    sidecar.report(0.3).await;
    let ours = entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    let (_, genuine) = observer.find(0, "an entry on its way", is_presence).await;
    let planner = RuntimeId::new("planner").expect("an id");
    let genuine = Presence::open(&keyring(), None, &planner, &genuine.payload).expect("ours");
    let higher = Presence { claim: genuine.claim + 1_000_000, hold: true, ..genuine };
    let other = KeyMaterial::hmac_secret(&[9; 32]).expect("32 bytes");
    let other = Keyring::new([("k2".to_owned(), other)], Some("k2")).expect("a ring");
    let critic = RuntimeId::new("critic").expect("an id");
    let forgeries = [
        serde_json::to_vec(&higher).expect("unsigned"),
        higher.sign(&other).expect("of another key"),
        Presence { runtime_id: critic, ..higher.clone() }.sign(&keyring()).expect("of another"),
    ];
    for forgery in forgeries {
        observer.client.publish(KEY, forgery.into()).await.expect("a connection");
        observer.mark().await;
        // The next change of band finds it.
        assert_eq!(sidecar.report(0.52).await["band"], "blocked");
        let back = entry(&observer, "our entry", |entry| {
            entry["instance"] == ours["instance"] && entry["band"] == "blocked"
        });
        back.await;
        assert_eq!(sidecar.report(0.3).await["band"], "open", "nobody is fenced");
        entry(&observer, "our entry", |entry| entry["band"] == "open").await;
    }
    assert!(sidecar.log().contains("presence_foreign"), "it is said: {}", sidecar.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_another_life_has_shown_is_a_hold_at_the_start() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let mut first = Sidecar::connected(plan(&server)).await;
    first.report(0.3).await;
    entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    first.signal("USR1");
    entry(&observer, "the hold", |entry| entry["hold"] == true).await;
    first.kill();
    // Another disk, that knows of no hold.
    let second = Sidecar::start(plan(&server)).await;
    until("the hold to be taken over", async || {
        (second.report(0.3).await["reasons"][0] == "operator").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_presence_says_so_and_a_bucket_of_others_loosens_nothing() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let shadow =
        Plan::new("planner", &["critic"], &server.url()).with("[containment]\nmode = \"shadow\"");
    let sidecar = Sidecar::connected(shadow).await;
    let entry = entry(&observer, "an entry", |_| true).await;
    assert_eq!(entry["mode"], "shadow");
    drop(sidecar);
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let config = r#"{"name":"KV_driftgate-presence","subjects":["other.>"],"storage":"memory"}"#;
    let call = "$JS.API.STREAM.CREATE.KV_driftgate-presence";
    observer.client.request(call, config.into()).await.expect("an answer");
    let sidecar = Sidecar::connected(plan(&server)).await;
    degraded(&sidecar, "broker_assets").await;
    sidecar.stores().await;
}

/// What the plain command line shows of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_nats_command_line_shows_who_is_there() {
    let server = NatsServer::start();
    let Some(nats) = NatsCli::on(&server) else { return };
    let observer = Observer::start(&server.url()).await;
    let sidecar = Sidecar::connected(plan(&server)).await;
    sidecar.report(0.3).await;
    entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    assert_eq!(nats.run(&["kv", "ls", "driftgate-presence"]).1.trim(), "planner");
    let (_, raw) = nats.run(&["kv", "get", "--raw", "driftgate-presence", "planner"]);
    let shown: Value = serde_json::from_str(&raw).expect("the entry");
    assert_eq!((&shown["runtime_id"], &shown["band"]), (&"planner".into(), &"open".into()));
}

/// Exit code and output of `driftgate status` with a sidecar's own configuration.
fn status(sidecar: &Sidecar, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["status", "--config"])
        .arg(sidecar.folder().join("base.toml"))
        .args(more)
        .output()
        .expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_fleet_by_who_needs_attention() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let url = server.url();
    let of = |runtime: &str| Plan::new(runtime, &["peer"], &url).short();
    let open = Sidecar::connected(of("planner")).await;
    let blocked = Sidecar::connected(of("critic")).await;
    let isolated = Sidecar::connected(of("scribe")).await;
    let mut killed = Sidecar::connected(of("monitor")).await;
    for sidecar in [&open, &blocked, &isolated, &killed] {
        assert_eq!(sidecar.report(0.3).await["band"], "open");
    }
    blocked.report(0.52).await;
    isolated.report(0.65).await;
    observer
        .client
        .publish("$KV.driftgate-presence.forged", r#"{"band":"open"}"#.into())
        .await
        .expect("a connection");
    let rows = |json: &str| -> Vec<(String, String, String)> {
        let shown: Value = serde_json::from_str(json).expect("JSON");
        assert!(shown["at"].is_string(), "{shown}");
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let row = |row: &Value| (text(row, "runtime_id"), text(row, "state"), text(row, "band"));
        shown["runtimes"].as_array().expect("a list").iter().map(row).collect()
    };
    let expected = |rows: &[(&str, &str, &str)]| -> Vec<(String, String, String)> {
        rows.iter()
            .map(|(id, state, band)| ((*id).into(), (*state).into(), (*band).into()))
            .collect()
    };
    let all = expected(&[
        ("forged", "foreign", "-"),
        ("scribe", "cut", "isolated"),
        ("critic", "live", "blocked"),
        ("monitor", "live", "open"),
        ("planner", "live", "open"),
    ]);
    until("all five", async || (rows(&status(&open, &["--json"]).1) == all).then_some(())).await;
    let (code, table) = status(&open, &[]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("RUNTIME  STATE    BAND      FOR"), "{table}");
    assert!(lines[3].starts_with("critic   live     blocked") && lines[3].contains("di_block"));
    // Nobody refreshes the entry of one that was killed, and the broker lets it expire.
    killed.kill();
    let left: Vec<_> = all.into_iter().filter(|(id, ..)| id != "monitor").collect();
    until("its end", async || (rows(&status(&open, &["--json"]).1) == left).then_some(())).await;
    drop(server);
    assert_eq!(status(&open, &[]).0, Some(69), "without a broker");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_the_nats_command_tell_five_fates_of_a_sidecar_alike() {
    let server = NatsServer::start();
    let Some(nats) = NatsCli::on(&server) else { return };
    let url = server.url();
    let of = |runtime: &str| Plan::new(runtime, &["peer"], &url).short();
    let open = Sidecar::connected(of("planner")).await;
    let blocked = Sidecar::connected(of("critic")).await;
    let isolated = Sidecar::connected(of("scribe")).await;
    let mut killed = Sidecar::connected(of("monitor")).await;
    for sidecar in [&open, &blocked, &isolated, &killed] {
        assert_eq!(sidecar.report(0.3).await["band"], "open");
    }
    assert_eq!(blocked.report(0.52).await["band"], "blocked");
    assert_eq!(isolated.report(0.65).await["band"], "isolated");
    let twin = Sidecar::connected(of("planner")).await;
    degraded(&twin, "twin").await;
    killed.kill();
    let rows = || -> Value { serde_json::from_str(&status(&open, &["--json"]).1).expect("JSON") };
    let told = |shown: &Value| -> Vec<[String; 3]> {
        let row = |row: &Value| {
            ["runtime_id", "state", "band"].map(|key| row[key].as_str().unwrap_or("-").to_owned())
        };
        shown["runtimes"].as_array().expect("a list").iter().map(row).collect()
    };
    let expected =
        [["scribe", "cut", "isolated"], ["critic", "live", "blocked"], ["planner", "live", "open"]];
    // Nobody refreshes what the killed one has said.
    let shown = until("the fleet in the bucket", async || {
        Some(rows()).filter(|shown| told(shown) == expected)
    })
    .await;
    println!("{}", status(&open, &[]).1);
    let keys = nats.run(&["kv", "ls", "driftgate-presence"]).1;
    println!("$ nats kv ls driftgate-presence\n{keys}");
    let mut keys: Vec<&str> = keys.split_whitespace().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["critic", "planner", "scribe"]);
    println!("{}", nats.run(&["micro", "ls"]).1);
    let services = nats.run(&["micro", "ls", "--json"]).1;
    let services: Value = serde_json::from_str(&services).expect("JSON");
    let services = services.as_array().expect("a list");
    // An isolated one has no subscription; a twin waits, and can be asked.
    let mut names: Vec<&str> =
        services.iter().map(|one| one["metadata"]["runtime_id"].as_str().expect("an id")).collect();
    names.sort_unstable();
    assert_eq!(names, ["critic", "planner", "planner"]);
    for row in shown["runtimes"].as_array().expect("a list") {
        let holders = services.iter().filter(|one| one["id"] == row["instance"]).count();
        let expected = usize::from(row["state"] == "live");
        assert_eq!(holders, expected, "each holder by one id, the twin by none: {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_needs_no_more_than_the_shipped_grants_and_they_keep_others_out() {
    let server = NatsServer::start_with(&shipped_grants());
    let op = async_nats::ConnectOptions::with_user_and_password("op".into(), "op".into());
    let observer = Observer::of(op.connect(server.url()).await.expect("a connection")).await;
    let bucket = serde_json::json!({
        "name": "KV_driftgate-presence", "subjects": ["$KV.driftgate-presence.>"],
        "max_msgs_per_subject": 1, "discard": "new", "allow_direct": true,
        "allow_rollup_hdrs": true, "allow_msg_ttl": true, "deny_delete": true,
    });
    observer.api("STREAM.CREATE.KV_driftgate-presence", &bucket).await;
    let plan = Plan::new("planner", &["critic"], &server.url()).with("[nats]\nprovision = false");
    let sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.3).await;
    entry(&observer, "an open entry", |entry| entry["band"] == "open").await;
    let (code, table) = status(&sidecar, &[]);
    assert!(code == Some(0) && table.contains("planner  live"), "{table}");
    // The planner may not write the critic's entry.
    let planner = async_nats::connect(server.url()).await.expect("a connection");
    planner.publish("$KV.driftgate-presence.critic", "forged".into()).await.expect("queued");
    planner.flush().await.expect("a connection");
    let call = "$JS.API.DIRECT.GET.KV_driftgate-presence.$KV.driftgate-presence.critic";
    let answer = observer.client.request(call, "".into()).await.expect("an answer");
    assert_eq!(answer.status.map(|status| status.as_u16()), Some(404), "nothing was stored");
    // An isolated sidecar writes nothing here either.
    let closing = sidecar.report(0.65).await;
    assert_eq!(closing["band"], "isolated");
    entry(&observer, "the last entry", |entry| entry["band"] == "isolated").await;
}
