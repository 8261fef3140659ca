//! Handshakes: what is said, who is believed, and how often anybody is asked or answered.

use std::time::Duration;

use driftgate::protocol::audit::{Chain, Entry, Event};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::document;
use driftgate::protocol::exchange::{ExchangeMode, ModeReason, SUPPORTED, Version};
use driftgate::protocol::handshake::{
    ANSWER_INTERVAL, ANSWER_TIMEOUT, ASK_INTERVAL, ASKING_MAX, HANDSHAKE_BYTES_MAX, Handshakes,
    Heard, RETRY_INTERVAL,
};
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use driftgate::protocol::refusal::Fault;
use driftgate::protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::support::rig::{EPOCH_MS, Rig, id, keyring, live, offer, peer, settings};

const NONCE: &str = "00112233445566778899aabbccddeeff";
const ANOTHER_MAJOR: Version = Version { major: 2, minor: 0 };

fn question() -> Value {
    json!({"runtime_id": "critic", "target": "planner", "protocol_version": "1.0", "nonce": NONCE,
        "at": Timestamp::from_unix_ms(EPOCH_MS), "capabilities_digest": null})
}

fn sealed(document: &Value, keyring: &Keyring, domain: Domain) -> Vec<u8> {
    document::sign(keyring, domain, 7, document).expect("a signing key")
}

/// A question names the manifest of who asks, so that a changed one is looked up at once.
#[test]
fn a_question_names_the_manifest_that_is_published() {
    let mut setup = settings("critic", &["planner"]);
    setup.live.manifest = "runtime_id: critic".into();
    let mut critic = Rig::new(setup);
    let asked = critic.bridge.handshake(critic.now, &id("planner"), NONCE, None).unwrap();
    let heard = hear(&Rig::connected(), &asked).unwrap();
    assert_eq!(heard.capabilities_digest, Some(Digest::of(b"runtime_id: critic")));
    let mut bad = question();
    bad["capabilities_digest"] = json!("sha256:0");
    let bad = sealed(&bad, &keyring(), Domain::Handshake);
    assert_eq!(hear(&Rig::connected(), &bad), Err(Fault::Malformed));
}

fn hear(rig: &Rig, bytes: &[u8]) -> Result<Heard, Fault> {
    rig.bridge.hear_handshake(rig.now, bytes).map_err(|refusal| refusal.fault)
}

#[test]
fn a_question_and_its_answer_are_signed_and_say_the_seven_things() {
    let mut rig = Rig::connected();
    let asked = rig.bridge.handshake(rig.now, &id("critic"), NONCE, None).unwrap();
    let opened = document::open(&keyring(), Domain::Handshake, &asked, HANDSHAKE_BYTES_MAX);
    let members: Vec<String> = opened.unwrap().members.into_keys().collect();
    let expected =
        ["at", "capabilities_digest", "nonce", "protocol_version", "runtime_id", "target"];
    assert_eq!(members, expected);
    let answer = rig.bridge.handshake(rig.now, &id("critic"), NONCE, Some(SUPPORTED)).unwrap();
    assert!(answer.len() < HANDSHAKE_BYTES_MAX);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    // Identity, version, scope, trust, authorisation, artifact types, posture (SRIP-17 VII.1).
    assert_eq!((&answer["runtime_id"], &answer["target"]), (&json!("planner"), &json!("critic")));
    assert_eq!((&answer["protocol_version"], &answer["nonce"]), (&json!("1.0"), &json!(NONCE)));
    assert_eq!(answer["supported"], json!(["1.0"]));
    assert_eq!(answer["scope"], json!({"export": ["state", "snapshot"], "import": ["state"]}));
    assert_eq!(answer["trust"], "shared");
    assert_eq!(answer["authorization"], json!({"by": "operator", "expires": null}));
    assert_eq!(answer["artifact_types"], json!(["state", "snapshot"]));
    assert_eq!(answer["posture"], json!({"band": "blocked"}));
    assert!(rig.bridge.handshake(rig.now, &id("stranger"), NONCE, None).is_none());
}

#[test]
fn only_a_fresh_signed_question_of_a_peer_to_us_is_believed() {
    let mut setup = settings("planner", &["critic", "monitor"]);
    setup.live.peers.get_mut(&id("monitor")).unwrap().key_id = Some("other".to_owned());
    let rig = Rig::new(setup);
    let ring = keyring();
    let heard = hear(&rig, &sealed(&question(), &ring, Domain::Handshake)).unwrap();
    assert_eq!((heard.runtime_id, heard.version, heard.seq), (id("critic"), SUPPORTED, 7));
    let with = |field: &str, value: Value| {
        let mut question = question();
        question[field] = value;
        sealed(&question, &ring, Domain::Handshake)
    };
    let at = |ms: i64| json!(Timestamp::from_unix_ms(EPOCH_MS + ms));
    for (bytes, fault) in [
        (with("runtime_id", json!("stranger")), Fault::Unauthorised),
        (with("runtime_id", json!("monitor")), Fault::Forged),
        (with("target", json!("critic")), Fault::Misaddressed),
        (with("at", at(-30_001)), Fault::Expired),
        (with("at", at(30_001)), Fault::Expired),
        (with("nonce", json!("1")), Fault::Malformed),
        (with("nonce", json!(7)), Fault::Malformed),
        (with("protocol_version", json!("one")), Fault::Malformed),
        (with("protocol_version", json!(null)), Fault::Malformed),
        (with("target", json!("a.b")), Fault::Malformed),
        (with("filler", json!("x".repeat(HANDSHAKE_BYTES_MAX))), Fault::Malformed),
        (sealed(&question(), &ring, Domain::Presence), Fault::Forged),
        (sealed(&question(), &foreign(), Domain::Handshake), Fault::Forged),
        (b"{}".to_vec(), Fault::Malformed),
        (b"".to_vec(), Fault::Malformed),
    ] {
        assert_eq!(hear(&rig, &bytes), Err(fault), "{}", String::from_utf8_lossy(&bytes));
    }
    for (bytes, version) in [
        (with("protocol_version", json!("1.7")), Version { major: 1, minor: 7 }),
        (with("protocol_version", json!("2.0")), ANOTHER_MAJOR),
        (with("of_a_later_minor", json!({"a": [1]})), SUPPORTED),
        (with("at", at(-30_000)), SUPPORTED),
    ] {
        assert_eq!(hear(&rig, &bytes).map(|heard| heard.version), Ok(version));
    }
}

/// A key that nobody knows, under a known id.
fn foreign() -> Keyring {
    let key = KeyMaterial::hmac_secret(&[8; 32]).unwrap();
    Keyring::new([("k1".to_owned(), key)], Some("k1")).unwrap()
}

#[test]
fn a_peer_whose_time_is_over_is_not_believed() {
    let mut setup = settings("planner", &["critic"]);
    setup.live.peers.get_mut(&id("critic")).unwrap().expires =
        Some(Timestamp::from_unix_ms(EPOCH_MS));
    let bytes = sealed(&question(), &keyring(), Domain::Handshake);
    assert_eq!(hear(&Rig::new(setup), &bytes), Err(Fault::Unauthorised));
}

#[test]
fn a_handshake_only_narrows_and_silence_keeps_what_was() {
    let critic = id("critic");
    let mut rig = Rig::new(settings("planner", &["critic"]));
    let mode = |rig: &Rig| rig.bridge.exchange_mode(rig.now, &critic);
    let shown = |rig: &Rig| rig.bridge.exchange_shown(rig.now, &critic);
    drop(rig.bridge.peer_capabilities(rig.now, &critic, Err(ModeReason::NoManifest)));
    assert_eq!(mode(&rig), ExchangeMode::Minimal, "at first");
    drop(rig.bridge.peer_heard(rig.now, &critic, Some(SUPPORTED)));
    assert_eq!(mode(&rig), ExchangeMode::Minimal, "a handshake widens nothing");
    drop(rig.bridge.peer_capabilities(rig.now, &critic, Ok(offer(1))));
    assert_eq!(mode(&rig), ExchangeMode::Full);
    drop(rig.bridge.peer_heard(rig.now, &critic, None));
    assert_eq!(shown(&rig), (ExchangeMode::Unreachable, ModeReason::NoAnswer));
    assert_eq!(mode(&rig), ExchangeMode::Full, "what was before");
    drop(rig.bridge.peer_heard(rig.now, &critic, Some(ANOTHER_MAJOR)));
    assert_eq!(shown(&rig), (ExchangeMode::Rejected, ModeReason::UnsupportedMajor));
    drop(rig.bridge.peer_heard(rig.now, &critic, None));
    assert_eq!(mode(&rig), ExchangeMode::Rejected, "silence lifts nothing");
    drop(rig.bridge.peer_heard(rig.now, &critic, Some(Version { major: 1, minor: 7 })));
    assert_eq!(shown(&rig), (ExchangeMode::Full, ModeReason::Matching));
}

#[test]
fn an_answer_to_another_major_rejects_and_names_what_is_supported() {
    let mut rig = Rig::connected();
    let critic = id("critic");
    let answer = rig.bridge.handshake(rig.now, &critic, NONCE, Some(ANOTHER_MAJOR)).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let found = (&answer["mode"], &answer["reason"], &answer["supported"]);
    assert_eq!(found, (&json!("rejected"), &json!("unsupported_major"), &json!(["1.0"])));
}

#[test]
fn an_isolated_bridge_has_nothing_to_say() {
    let mut rig = Rig::connected();
    assert!(rig.bridge.may_answer() && rig.bridge.handshake_view(rig.now).is_some());
    rig.report(0.65);
    assert!(!rig.bridge.may_answer() && rig.bridge.handshake_view(rig.now).is_none());
}

#[test]
fn a_peer_is_answered_once_in_10_s_and_no_question_twice() {
    let mut handshakes = Handshakes::default();
    let heard = |seq| Heard {
        runtime_id: id("critic"),
        target: id("planner"),
        version: SUPPORTED,
        nonce: NONCE.to_owned(),
        at: Timestamp::default(),
        capabilities_digest: None,
        seq,
    };
    assert!(handshakes.admit(Duration::ZERO, &heard(5)).is_ok());
    assert!(
        handshakes.admit(ANSWER_INTERVAL - Duration::from_millis(1), &heard(6)).is_err(),
        "too soon"
    );
    for seq in [4, 5] {
        assert!(handshakes.admit(ANSWER_INTERVAL * 9, &heard(seq)).is_err(), "{seq} again");
    }
    assert!(handshakes.admit(ANSWER_INTERVAL, &heard(6)).is_ok());
}

#[test]
fn every_peer_is_asked_at_once_and_again_and_few_at_a_time() {
    let mut handshakes = Handshakes::default();
    let names: Vec<String> = (0..40).map(|number| format!("peer-{number}")).collect();
    let at = Duration::from_secs(100);
    handshakes.open(at, names.iter().map(|name| id(name)));
    let mut ids = Vec::new();
    while let Some(peer) = handshakes.next(at) {
        ids.push(handshakes.ask(at, peer, NONCE.to_owned()));
    }
    assert_eq!(ids.len(), ASKING_MAX);
    assert_eq!(handshakes.deadline(), at + ANSWER_TIMEOUT);
    let later = at + ANSWER_TIMEOUT;
    // One answers, the others do not.
    let (answering, _) = handshakes.take(ids[0]).unwrap();
    handshakes.plan(at, answering.clone(), true);
    let mut overdue = 0;
    while let Some(id) = handshakes.overdue(later) {
        let (peer, _) = handshakes.take(id).unwrap();
        handshakes.plan(later, peer, false);
        overdue += 1;
    }
    assert_eq!(overdue, ASKING_MAX - 1);
    assert!(handshakes.next(later).is_some(), "the next ones have their turn");
    handshakes.close();
    assert_eq!((handshakes.next(later), handshakes.deadline()), (None, Duration::MAX), "cut");
    // Alone, to see the pauses.
    let mut handshakes = Handshakes::default();
    handshakes.open(at, [answering.clone()].into_iter());
    assert_eq!(handshakes.next(at), Some(answering.clone()));
    handshakes.plan(at, answering.clone(), true);
    assert_eq!(handshakes.deadline(), at + ASK_INTERVAL);
    handshakes.ask_again(later, [answering.clone()].into_iter());
    assert_eq!(handshakes.next(later), Some(answering.clone()), "capabilities changed");
    handshakes.plan(later, answering, false);
    assert_eq!(handshakes.deadline(), later + RETRY_INTERVAL);
}

#[test]
fn an_outcome_is_audited_once_and_again_when_it_changes() {
    let mut handshakes = Handshakes::default();
    let full = (Some(SUPPORTED), ExchangeMode::Full, ModeReason::Matching);
    assert!(
        handshakes.is_news(&id("critic"), true, full)
            && !handshakes.is_news(&id("critic"), true, full)
    );
    assert!(handshakes.is_news(&id("critic"), false, full), "the other direction");
    let silent = (None, ExchangeMode::Unreachable, ModeReason::NoAnswer);
    assert!(handshakes.is_news(&id("critic"), false, silent));
    assert!(handshakes.is_news(&id("critic"), false, full));
    let (time, runtime_id) = (Timestamp::default(), id("planner"));
    let event = Event::Handshake {
        peer: id("critic"),
        inbound: true,
        theirs: Some(ANOTHER_MAJOR),
        mode: ExchangeMode::Rejected,
        reason: ModeReason::UnsupportedMajor,
    };
    let line = Chain::new(&runtime_id, time).append(&Entry { time, runtime_id, event });
    let line = Json::parse(&line).unwrap().to_canonical();
    let line: Value = serde_json::from_slice(&line).unwrap();
    let text = line.to_string();
    for (name, value) in [
        ("peer", "critic"),
        ("theirs", "2.0"),
        ("ours", "1.0"),
        ("verdict", "rejected"),
        ("mode", "rejected"),
    ] {
        assert!(text.contains(&format!("\"{name}\":\"{value}\"")), "{name} in {text}");
    }
}

#[test]
fn a_peer_that_was_removed_is_not_asked() {
    let mut handshakes = Handshakes::default();
    handshakes.open(Duration::ZERO, ["critic", "monitor"].map(id).into_iter());
    let left = live(&["monitor"]);
    handshakes.forget(|one| left.peers.contains_key(one));
    assert_eq!(handshakes.next(Duration::ZERO), Some(peer("monitor").id));
    assert_eq!(handshakes.next(Duration::ZERO), None);
}
