//! Handshakes between running sidecars, with doubles that speak other versions, and with attackers
//! who have no more than the shipped grants.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Message, Subscriber};
use driftgate::nats::assets;
use driftgate::protocol::document;
use driftgate::protocol::keyring::{Domain, Keyring};
use futures_util::StreamExt as _;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::support::forge::{fleet_keyring, foreign_keyring, stamp, unix_ms};
use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::{LONG, until};

const NONCE: &str = "00112233445566778899aabbccddeeff";

/// A handshake of `source` to `target` in any version.
fn words(source: &str, target: &str, version: &str, nonce: &str) -> Value {
    json!({"runtime_id": source, "target": target, "protocol_version": version, "nonce": nonce,
        "at": stamp(0), "capabilities_digest": null})
}

fn sealed(document: &Value, keyring: &Keyring) -> Vec<u8> {
    let seq = u64::try_from(unix_ms()).unwrap() * 1000;
    document::sign(keyring, Domain::Handshake, seq, document).expect("a signing key")
}

/// A peer that is no sidecar: it speaks any version.
struct Double {
    client: Client,
    name: &'static str,
    version: &'static str,
    asked: Subscriber,
}

impl Double {
    async fn start(server: &NatsServer, name: &'static str, version: &'static str) -> Self {
        let client = async_nats::connect(server.url()).await.unwrap();
        let asked = client.subscribe(format!("driftgate.v1.handshake.{name}")).await.unwrap();
        client.request("$JS.API.INFO", "".into()).await.unwrap();
        Self { client, name, version, asked }
    }

    /// Waits for the planner's question and answers it.
    async fn answer(&mut self, keyring: &Keyring) -> Value {
        let message = tokio::time::timeout(LONG, self.asked.next()).await.unwrap().unwrap();
        let question: Value = serde_json::from_slice(&message.payload).unwrap();
        let nonce = question["nonce"].as_str().unwrap();
        let mut answer = words(self.name, "planner", self.version, nonce);
        answer["supported"] = json!([self.version]);
        answer["mode"] = json!("full");
        answer["reason"] = json!("matching");
        let bytes = sealed(&answer, keyring);
        self.client.publish(message.reply.unwrap(), bytes.into()).await.unwrap();
        question
    }

    /// Asks the planner.
    async fn ask(&self) -> Value {
        let bytes = sealed(&words(self.name, "planner", self.version, NONCE), &fleet_keyring());
        let answer = self.client.request("driftgate.v1.handshake.planner", bytes.into()).await;
        serde_json::from_slice(&answer.unwrap().payload).unwrap()
    }
}

/// What `POST /runtime/handshake` says of a peer.
async fn mode_of(sidecar: &Sidecar, peer: &str) -> (String, String) {
    let body = r#"{"runtime_id": "planner", "protocol_version": "1.0"}"#;
    let answer = Caller::new(sidecar.api).post("/runtime/handshake", body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let peers = answer["peers"].as_array().unwrap().iter();
    let found = peers.clone().find(|one| one["id"] == peer).expect("a configured peer");
    let word = |name: &str| found[name].as_str().unwrap().to_owned();
    (word("mode"), word("reason"))
}

async fn comes_to(sidecar: &Sidecar, peer: &str, mode: &str) {
    until(&format!("{peer} to be {mode}"), async || {
        (mode_of(sidecar, peer).await.0 == mode).then_some(())
    })
    .await;
}

/// The handshakes of an audit log, when there are so many.
async fn audited(log: &std::path::Path, count: usize) -> Vec<Value> {
    until("the audit log", async || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.filter(|line| line["event"] == "handshake").collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_other_minors_and_majors_are_met_on_both_transports() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.jsonl");
    let mut minor = Double::start(&server, "minor", "1.7").await;
    let mut major = Double::start(&server, "major", "2.0").await;
    let mut liar = Double::start(&server, "liar", "1.0").await;
    let peers = ["minor", "major", "liar", "absent"];
    let audit = format!("[audit]\nfile = {:?}", log.display().to_string());
    let planner =
        Sidecar::start(Plan::new("planner", &peers, &server.url()).short().with(&audit)).await;
    let question = minor.answer(&fleet_keyring()).await;
    assert_eq!(
        (&question["target"], &question["protocol_version"]),
        (&json!("minor"), &json!("1.0"))
    );
    major.answer(&fleet_keyring()).await;
    liar.answer(&foreign_keyring()).await;
    comes_to(&planner, "major", "rejected").await;
    comes_to(&planner, "liar", "unreachable").await;
    comes_to(&planner, "absent", "unreachable").await;
    let minors = mode_of(&planner, "minor").await.0;
    assert!(["full", "minimal"].contains(&minors.as_str()), "{minors}");
    // They ask us.
    let answer = major.ask().await;
    let found = (&answer["mode"], &answer["reason"], &answer["supported"], &answer["nonce"]);
    let rejected =
        (&json!("rejected"), &json!("unsupported_major"), &json!(["1.0"]), &json!(NONCE));
    assert_eq!(found, rejected);
    let answer = minor.ask().await;
    assert_eq!(answer["mode"], json!(minors));
    let bytes = serde_json::to_vec(&answer).unwrap();
    let proved = document::open(&fleet_keyring(), Domain::Handshake, &bytes, 4096).unwrap();
    assert_eq!(proved.members["target"].as_str(), Some("minor"));
    // The one that speaks another major gets nothing.
    planner.report(0.2).await;
    let reply = planner.report(0.2).await;
    let status = |peer: &str| {
        let lines = reply["packets"].as_array().unwrap().iter();
        lines.clone().find(|line| line["target"] == peer).map(|line| line["status"].clone())
    };
    assert_ne!(status("major"), Some(json!("stored")), "{reply}");
    // On the other transport: another major is refused, and both are in the audit log, once each.
    let mut caller = Caller::new(planner.api);
    for (version, status) in [("1.7", 200), ("2.0", 409), ("2.0", 409), ("1.7", 200)] {
        let body = json!({"runtime_id": "planner", "protocol_version": version}).to_string();
        assert_eq!(caller.post("/runtime/handshake", &body).await.unwrap().status, status);
    }
    let lines = audited(&log, 10).await;
    let of = |peer: &str, inbound: bool| -> Vec<String> {
        let direction = if inbound { "inbound" } else { "outbound" };
        let is_it = |line: &&Value| {
            line["direction"] == direction
                && line.to_string().contains(&format!("\"peer\":\"{peer}\""))
        };
        lines.iter().filter(is_it).map(Value::to_string).collect()
    };
    for (peer, inbound, verdict) in [
        ("major", false, "rejected"),
        ("major", true, "rejected"),
        ("minor", true, "accepted"),
        ("liar", false, "unanswered"),
        ("absent", false, "unanswered"),
    ] {
        let found = of(peer, inbound);
        assert_eq!(found.len(), 1, "{peer}: {found:?}");
        assert!(found[0].contains(&format!("\"verdict\":\"{verdict}\"")), "{found:?}");
        assert!(found[0].contains("\"ours\":\"1.0\""), "{found:?}");
    }
    assert_eq!(of("planner", true).len(), 4, "1.0, 1.7, 2.0 and back: each change is a line");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sidecars_meet_and_an_isolated_one_answers_nobody() {
    let server = NatsServer::start();
    let planner = Sidecar::start(Plan::new("planner", &["critic"], &server.url()).short()).await;
    comes_to(&planner, "critic", "unreachable").await;
    let critic = Sidecar::start(Plan::new("critic", &["planner"], &server.url()).short()).await;
    // It asks at once, and the planner has heard of it then.
    until("the critic to be heard", async || {
        (mode_of(&planner, "critic").await.0 != "unreachable").then_some(())
    })
    .await;
    assert_eq!(critic.bounded(0.65).await["band"], "isolated");
    let client = async_nats::connect(server.url()).await.unwrap();
    let bytes = sealed(&words("planner", "critic", "1.0", NONCE), &fleet_keyring());
    let silence = client.request("driftgate.v1.handshake.critic", bytes.into()).await;
    assert!(silence.is_err(), "{silence:?}");
    let body = r#"{"runtime_id": "critic", "protocol_version": "1.0"}"#;
    let answer = Caller::new(critic.api).post("/runtime/handshake", body).await.unwrap();
    assert_eq!(answer.status, 423, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_nobody_is_asked_or_answered() {
    let server = NatsServer::start();
    let mut critic = Double::start(&server, "critic", "1.0").await;
    let plan = Plan::new("planner", &["critic"], &server.url());
    let planner = Sidecar::start(plan.with("[containment]\nmode = \"shadow\"")).await;
    planner.is_connected().await;
    let pinged = until("the service", async || {
        critic.client.request("$SRV.PING.driftgate", "".into()).await.ok()
    })
    .await;
    assert!(!pinged.payload.is_empty());
    let bytes = sealed(&words("critic", "planner", "1.0", NONCE), &fleet_keyring());
    let silence = critic.client.request("driftgate.v1.handshake.planner", bytes.into()).await;
    assert!(silence.is_err(), "{silence:?}");
    let asked = tokio::time::timeout(Duration::from_millis(300), critic.asked.next()).await;
    assert!(asked.is_err(), "{asked:?}");
}

/// A server with the grants of `deploy/nats.conf` for planner and critic, and their seeds.
fn granted_server(folder: &tempfile::TempDir) -> NatsServer {
    let conf = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nats.conf"));
    let conf = conf.unwrap();
    let grants = conf.find("PLANNER_MAY {").expect("the grants");
    let users = conf.find("authorization {").expect("the users");
    let planner = &conf[grants..users];
    let critic = planner.replace("planner", "critic").replace("PLANNER", "CRITIC");
    let keys: String = ["provisioner", "planner", "critic"]
        .map(|name| {
            let pair = KeyPair::new_user();
            std::fs::write(seed(folder, name), pair.seed().unwrap()).unwrap();
            format!("{}: {}\n", name.to_uppercase(), pair.public_key())
        })
        .concat();
    let user = "{ nkey: $PLANNER, permissions: $PLANNER_MAY }";
    let more = format!("{user}\n    {}", user.replace("PLANNER", "CRITIC"));
    let users = conf[users..].replace(user, &more);
    NatsServer::start_with(&format!("{keys}{planner}{critic}{users}"))
}

fn seed(folder: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
    folder.path().join(format!("{name}.nk"))
}

async fn client(server: &NatsServer, folder: &tempfile::TempDir, name: &str) -> Client {
    let secret = std::fs::read_to_string(seed(folder, name)).unwrap();
    let options = ConnectOptions::with_nkey(secret).custom_inbox_prefix(format!("_INBOX.{name}"));
    options.connect(server.url()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_subject_that_is_no_inbox_moves_nothing_at_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let server = granted_server(&folder);
    for name in ["planner", "critic"] {
        let mut settings = server.settings(name);
        settings.broker.nkey_file = Some(seed(&folder, "provisioner"));
        assets::ensure(&settings).await.unwrap();
    }
    let operator = client(&server, &folder, "provisioner").await;
    let context = async_nats::jetstream::new(operator.clone());
    put_presence(&context).await;
    let plan = Plan::new("planner", &["critic"], &server.url());
    let grants = format!(
        "[nats]\nprovision = false\nnkey_file = {:?}",
        seed(&folder, "planner").display().to_string()
    );
    let planner = Sidecar::connected(plan.with(&grants)).await;
    planner.stores().await;
    let attacker = client(&server, &folder, "critic").await;
    let before = state(&context).await;
    let question = || sealed(&words("critic", "planner", "1.0", NONCE), &fleet_keyring());
    let aims = [
        "$JS.API.STREAM.DELETE.KV_driftgate-presence",
        "$JS.API.STREAM.PURGE.DRIFTGATE_STATE",
        "$KV.driftgate-presence.planner",
        "$KV.driftgate-presence.critic",
        "driftgate.v1.state.planner.critic",
        "driftgate.v1.containment.planner",
    ];
    for aim in aims {
        for subject in ["driftgate.v1.handshake.planner", "$SRV.PING.driftgate"] {
            let sender = if subject.starts_with("$SRV") { &operator } else { &attacker };
            sender.publish_with_reply(subject, aim, question().into()).await.unwrap();
        }
    }
    // From 2.15.3 on the server itself refuses a question that asks for its answer at its API.
    let version = attacker.server_info().version;
    let numbers: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    let refuses = numbers >= vec![2, 15, 3];
    let arrive = aims.iter().filter(|aim| !(refuses && aim.starts_with("$JS.API."))).count();
    dropped(&planner, "reply", 2 * arrive).await;
    assert_eq!(state(&context).await, before);
    // What is aimed well and is not to be believed.
    let foreign = sealed(&words("critic", "planner", "1.0", NONCE), &foreign_keyring());
    let stranger = sealed(&words("stranger", "planner", "1.0", NONCE), &fleet_keyring());
    let misaddressed = sealed(&words("critic", "monitor", "1.0", NONCE), &fleet_keyring());
    let mut old = words("critic", "planner", "1.0", NONCE);
    old["at"] = json!(stamp(-60));
    let old = sealed(&old, &fleet_keyring());
    let lies = [foreign, stranger, misaddressed, old, b"{}".to_vec()];
    let inbox = attacker.new_inbox();
    let mut answers = attacker.subscribe(inbox.clone()).await.unwrap();
    for lie in &lies {
        let (subject, lie) = ("driftgate.v1.handshake.planner", lie.clone());
        attacker.publish_with_reply(subject, inbox.clone(), lie.into()).await.unwrap();
    }
    dropped(&planner, "refused", lies.len()).await;
    // The honest one is answered, once; its replay is not.
    let honest = question();
    for _ in 0..2 {
        let (subject, honest) = ("driftgate.v1.handshake.planner", honest.clone());
        attacker.publish_with_reply(subject, inbox.clone(), honest.into()).await.unwrap();
    }
    dropped(&planner, "refused", lies.len() + 1).await;
    let answer: Message = tokio::time::timeout(LONG, answers.next()).await.unwrap().unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!((&answer["target"], &answer["nonce"]), (&json!("critic"), &json!(NONCE)));
    // Forged echoes and acknowledgements: whoever may publish to inboxes knows no nonce of ours.
    for forged in ["e.00112233445566778899aabbccddeeff", "a.1-0011223344556677", NONCE] {
        attacker.publish(format!("_INBOX.planner.{forged}"), "".into()).await.unwrap();
    }
    attacker.flush().await.unwrap();
    let closing = planner.bounded(0.65).await;
    assert_eq!((&closing["band"], &closing["barrier"]), (&json!("isolated"), &json!("confirmed")));
    assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()));
}

/// An entry that an attack would overwrite, in the bucket that one would delete.
async fn put_presence(context: &async_nats::jetstream::Context) {
    let bucket = "driftgate-presence";
    let presence = match context.get_key_value(bucket).await {
        Ok(presence) => presence,
        Err(_) => {
            let bucket = bucket.to_owned();
            let config = async_nats::jetstream::kv::Config { bucket, ..Default::default() };
            context.create_key_value(config).await.unwrap()
        }
    };
    presence.put("critic", "as it was".into()).await.unwrap();
}

/// Waits until so many questions were dropped for that reason.
async fn dropped(sidecar: &Sidecar, reason: &str, count: usize) {
    let count = i64::try_from(count).unwrap();
    let labels = [("reason", reason)];
    until(&format!("{count} dropped: {reason}"), async || {
        let found = sidecar.books().await.sum("questions_dropped", &labels);
        assert!(found <= count, "{found} of {count} {reason}");
        (found == count).then_some(())
    })
    .await;
}

/// Names of the streams, with their first and last sequence numbers.
async fn state(context: &async_nats::jetstream::Context) -> Vec<(String, u64, u64)> {
    let mut names = context.stream_names();
    let mut found = Vec::new();
    while let Some(name) = names.next().await {
        let name = name.unwrap();
        let mut stream = context.get_stream(&name).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        found.push((name, state.first_sequence, state.last_sequence));
    }
    found.sort();
    found
}
