//! Two sidecars that may do what `driftgate permissions` writes, and nothing else.

use std::path::Path;
use std::process::Command;

use async_nats::{Client, ConnectOptions};
use driftgate::nats::assets;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar, private};
use crate::support::wait::until;

/// Runs the binary over the configuration of a plan.
fn permissions(plan: &Plan, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .arg("permissions")
        .args(plan.files_in(folder.path()).iter().flat_map(|path| [Path::new("--config"), path]))
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn plan(runtime: &str, peer: &str, url: &str, folder: &Path) -> Plan {
    plan_with(runtime, peer, url, folder, "")
}

/// The same with more keys of `nats`.
fn plan_with(runtime: &str, peer: &str, url: &str, folder: &Path, more: &str) -> Plan {
    let seed = folder.join(format!("{runtime}.nk"));
    let scopes = r#"["state", "snapshot", "telemetry"]"#;
    Plan::new(runtime, &[peer], url).with(&format!(
        "[nats]\nnkey_file = {:?}\n{more}\n[[peers]]\nid = {peer:?}\nexport = {scopes}\nimport = {scopes}",
        seed.display().to_string()
    ))
}

/// A server on which each runtime has what is written for it, and an operator everything.
fn granted(runtimes: &[(&str, &str)], folder: &Path) -> NatsServer {
    let users: String = runtimes
        .iter()
        .map(|(runtime, peer)| {
            let pair = KeyPair::new_user();
            let seed = folder.join(format!("{runtime}.nk"));
            std::fs::write(&seed, pair.seed().unwrap()).unwrap();
            private(&seed);
            let grants =
                permissions(&plan(runtime, peer, "nats://a:1", folder), &["--for", "nats"]);
            format!("{{ nkey: {}\n{grants} }}\n", pair.public_key())
        })
        .collect();
    let operator = "{ user: op, password: op }";
    NatsServer::start_with(&format!("authorization {{ users: [\n{users}{operator}\n] }}"))
}

async fn client(server: &NatsServer, folder: &Path, runtime: &str) -> Client {
    let secret = std::fs::read_to_string(folder.join(format!("{runtime}.nk"))).unwrap();
    let options =
        ConnectOptions::with_nkey(secret).custom_inbox_prefix(format!("_INBOX.{runtime}"));
    options.connect(server.url()).await.unwrap()
}

/// A planner and a critic on a server that lets each do what is written for it.
async fn exchanging(folder: &Path) -> (NatsServer, Sidecar, Sidecar) {
    let runtimes = [("planner", "critic"), ("critic", "planner")];
    let server = granted(&runtimes, folder);
    let [planner, critic] = runtimes
        .map(|(runtime, peer)| Sidecar::connected(plan(runtime, peer, &server.url(), folder)));
    let (planner, critic) = (planner.await, critic.await);
    (server, planner, critic)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_enough_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (server, planner, critic) = exchanging(folder).await;
    planner.stores().await;
    critic.stores().await;
    until("the planner's state at the critic", async || {
        (critic.get("/field/state?source=planner").await.json()["packet"].is_object()).then_some(())
    })
    .await;
    until("full mode", async || {
        let peers = planner.get("/field/state").await.json();
        (peers["peers"][0]["mode"] == "full").then_some(())
    })
    .await;
    let body = r#"{"runtime_id": "planner", "protocol_version": "1.0"}"#;
    let answer = Caller::new(planner.api).post("/runtime/handshake", body).await.unwrap();
    assert_eq!(answer.json()["peers"][0]["mode"], "full", "{}", answer.text());
    snapshots_pass(&planner, &critic).await;
    let ready: Value = Caller::new(planner.admin).get("/readyz").await.unwrap().json();
    assert_eq!(ready["degraded"], json!([]));
    let closing = planner.bounded(0.65).await;
    assert_eq!((&closing["band"], &closing["barrier"]), (&json!("isolated"), &json!("confirmed")));
    assert_eq!(planner.stores().await["band"], "open");
    let said: Vec<String> =
        server.log().lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect();
    assert_eq!(said, Vec::<String>::new(), "enough");
    strangers_subjects_are_refused(&server, folder).await;
}

/// Pushed by one, listed and read by the other, and a second push removes what is too old.
async fn snapshots_pass(planner: &Sidecar, critic: &Sidecar) {
    let headers = "Content-Type: application/json\r\n";
    for memory in [r#"{"memory": "a"}"#, r#"{"memory": "b"}"#] {
        let mut caller = Caller::new(planner.api);
        let pushed = caller.call("PUT", "/memory/snapshot", headers, memory).await.unwrap();
        assert!(matches!(pushed.status, 201 | 202), "{}", pushed.text());
        until("the snapshot at the critic", async || {
            let read = critic.get("/memory/snapshot?source=planner").await;
            (read.status == 200 && read.text() == memory).then_some(())
        })
        .await;
    }
}

/// What a taken-over runtime could try with its own credentials.
async fn strangers_subjects_are_refused(server: &NatsServer, folder: &Path) {
    let thief = client(server, folder, "planner").await;
    let publishes = [
        "driftgate.v1.state.critic.planner",
        "driftgate.v1.telemetry.critic",
        "driftgate.v1.containment.critic",
        "driftgate.v1.snapshot.critic",
        "driftgate.v1.quarantine.critic",
        "$KV.driftgate-presence.critic",
        "$KV.driftgate-capabilities.critic",
        "$KV.driftgate-manifests.critic.1",
        "$JS.API.STREAM.DELETE.DRIFTGATE_STATE",
        "$JS.API.STREAM.PURGE.DRIFTGATE_STATE",
        "$JS.API.STREAM.MSG.GET.DRIFTGATE_STATE",
        "$JS.API.CONSUMER.DELETE.DRIFTGATE_STATE.driftgate-critic",
        "$JS.API.CONSUMER.MSG.NEXT.DRIFTGATE_STATE.driftgate-critic",
        "$JS.ACK.DRIFTGATE_STATE.driftgate-critic.1.1.1.1.0",
        "$JS.API.STREAM.PURGE.KV_driftgate-presence",
        "$SYS.REQ.SERVER.PING",
        "anything",
    ];
    for subject in publishes {
        thief.publish(subject, "".into()).await.unwrap();
    }
    let listens = [
        ">",
        "driftgate.v1.state.>",
        "driftgate.v1.handshake.critic",
        "_INBOX.critic.>",
        "$JS.ACK.>",
    ];
    for subject in listens {
        drop(thief.subscribe(subject).await.unwrap());
    }
    thief.flush().await.unwrap();
    let refused = |log: &str, subject: &str| {
        let named = format!("Subject \"{subject}\"");
        log.lines().any(|line| line.contains("Violation") && line.contains(&named))
    };
    until("every refusal in the server's log", async || {
        let log = server.log();
        let all = publishes.iter().chain(&listens).all(|subject| refused(&log, subject));
        all.then_some(())
    })
    .await;
}

#[test]
fn each_form_says_the_same() {
    let plan = Plan::new("planner", &["critic"], "nats://a:1");
    let [server, nsc, jwt] =
        ["nats", "nsc", "callout"].map(|form| permissions(&plan, &["--for", form]));
    let jwt: Value = serde_json::from_str(&jwt).unwrap();
    for (key, flag) in [("pub", "--allow-pub"), ("sub", "--allow-sub")] {
        let subjects = jwt[key]["allow"].as_array().unwrap();
        assert_eq!(nsc.matches(flag).count(), subjects.len());
        for subject in subjects.iter().map(|subject| subject.as_str().unwrap()) {
            assert!(nsc.contains(&format!("{flag} '{subject}'")), "{subject}");
            assert!(server.contains(&format!("    {subject:?}\n")), "{subject}");
        }
    }
    let domain = plan.clone().with("[nats]\ndomain = \"hub\"");
    let domain = permissions(&domain, &["--for", "nats"]);
    let calls = |of: &str| domain.matches(of).count();
    assert!(calls("$JS.API.") > 0 && calls("$JS.API.") == calls("$JS.hub.API."), "{domain}");
    let sourced = permissions(
        &plan.clone().with("[nats]\nstream_in = \"DRIFTGATE_IN\""),
        &["--for", "nats", "--role", "provisioner"],
    );
    assert!(sourced.contains("STREAM.CREATE.DRIFTGATE_STATE") && sourced.contains("DRIFTGATE_IN"));
    assert!(
        !sourced.contains("STREAM.CREATE.DRIFTGATE_IN"),
        "it comes with the clusters: {sourced}"
    );
    let bare = permissions(&plan.with("[nats]\nprovision = false"), &["--for", "nats"]);
    assert!(server.contains("STREAM.CREATE") && !bare.contains("STREAM.CREATE"), "{bare}");
    let block = bare.split_once("permissions {").expect("a block").1;
    let shipped = include_str!("../../deploy/nats.conf");
    assert!(shipped.contains(&format!("PLANNER_MAY {{{block}")), "deploy/nats.conf is another");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_enough_in_a_domain() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let seed = folder.join("planner.nk");
    let pair = KeyPair::new_user();
    std::fs::write(&seed, pair.seed().unwrap()).unwrap();
    private(&seed);
    let in_domain = |url: &str| plan_with("planner", "critic", url, folder, "domain = \"hub\"");
    let grants = permissions(&in_domain("nats://a:1"), &["--for", "nats"]);
    let server = NatsServer::start_with(&format!(
        "jetstream {{ domain: hub, store_dir: {:?} }}\nauthorization {{ users: [ {{ nkey: {}\n{grants} }} ] }}",
        folder.join("store").display().to_string(),
        pair.public_key()
    ));
    let planner = Sidecar::connected(in_domain(&server.url())).await;
    planner.stores().await;
    let ready: Value = Caller::new(planner.admin).get("/readyz").await.unwrap().json();
    assert_eq!(ready["degraded"], json!([]));
    assert!(!server.log().contains("Violation"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provisioners_grants_are_enough_to_provision() {
    let plan = Plan::new("planner", &["critic"], "nats://a:1");
    let grants = permissions(&plan, &["--for", "nats", "--role", "provisioner"]);
    let users =
        format!("{{ user: provisioner, password: p\n{grants} }}\n{{ user: op, password: op }}");
    let lines = format!("authorization {{ users: [\n{users}\n] }}\nno_auth_user: provisioner");
    let server = NatsServer::start_with(&lines);
    let found = assets::ensure(&server.settings("planner")).await.unwrap();
    assert_eq!(found.differences, Vec::<String>::new());
    assert!(found.has_consumer && !server.log().contains("Violation"), "{}", server.log());
}

/// Who may read a bucket makes a consumer of it, and a consumer that pushes has the server itself
/// publish what stands there, wherever it is told to. It arrives under the subject that it stands
/// under and without a signature, so nobody takes it for what he waits for.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_thiefs_consumer_pushes_at_others_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (server, planner, critic) = exchanging(folder).await;
    critic.stores().await;
    until("the critic's packet", async || planner.shown("critic").await).await;
    planner.stores().await;
    snapshots_pass(&planner, &critic).await;
    let thief = client(&server, folder, "planner").await;
    let notice = r#"{"runtime_id":"critic","mode":"enforce","band":"isolated","reasons":[],
        "since":"2100-01-01T00:00:00.000Z","epoch":1}"#;
    let stored = thief.request("$O.driftgate-snapshots.C.evil", notice.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&stored.payload).contains("seq"), "it may write there");
    let targets = [
        "driftgate.v1.containment.critic",
        "driftgate.v1.handshake.critic",
        "driftgate.v1.state.critic.planner",
        "driftgate.v1.telemetry.critic",
        "$KV.driftgate-presence.critic",
        "_INBOX.critic.any",
        "$JS.API.STREAM.DELETE.DRIFTGATE_STATE",
    ];
    for (number, target) in (0..).zip(targets) {
        let (stream, name) = ("OBJ_driftgate-snapshots", format!("evil{number}"));
        let body = json!({"stream_name": stream, "action": "create", "config": {
            "name": name, "deliver_policy": "all", "ack_policy": "none", "durable_name": name,
            "deliver_subject": target}});
        let call = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}");
        let answer = thief.request(call, body.to_string().into()).await.unwrap();
        println!("{target}: {}", String::from_utf8_lossy(&answer.payload));
    }
    let options = ConnectOptions::with_user_and_password("op".to_owned(), "op".to_owned());
    let operator = options.connect(server.url()).await.unwrap();
    until("the server to have pushed at those who listen", async || {
        // Of the handshake's subject and the telemetry's, to which somebody has subscribed.
        for name in ["evil1", "evil3"] {
            let call = format!("$JS.API.CONSUMER.INFO.OBJ_driftgate-snapshots.{name}");
            let info = operator.request(call, "".into()).await.unwrap();
            let info: Value = serde_json::from_slice(&info.payload).unwrap();
            if info["num_pending"] != 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
    let seq = critic.stores().await["seq"].as_u64().unwrap();
    super::exchange::shows(&planner, "critic", seq).await;
    let peers = planner.get("/field/state").await.json();
    assert_eq!(peers["peers"][0]["mode"], "full", "{peers}");
    assert_eq!(planner.stores().await["band"], "open");
}
