//! The mode of exchange with each peer: what decides it, and what follows from it.

use driftgate::protocol::bridge::Effect;
use driftgate::protocol::canonical::Json;
use driftgate::protocol::capabilities::{Declared, Found, MANIFEST_BYTES_MAX, declared};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::document::sign_body;
use driftgate::protocol::exchange::{
    Exchange, ExchangeMode, ModeReason, Offer, SUPPORTED, Version,
};
use driftgate::protocol::gate::Mode;
use driftgate::protocol::inbox::Inbound;
use driftgate::protocol::keyring::Domain;
use driftgate::protocol::refusal::Fault;
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::view::PacketStatus;

use crate::support::rig::{EPOCH_MS, Rig, id, keyring, live, offer, settings};
use driftgate::protocol::outbox::Outcome;

const STORED: Outcome = Outcome::Stored { stream_seq: 1, duplicate: false };
const NOW: fn() -> Timestamp = || Timestamp::from_unix_ms(EPOCH_MS);

fn speaks(versions: &[(u32, u32)]) -> Offer {
    let versions = versions.iter().map(|&(major, minor)| Version { major, minor });
    Offer { versions: versions.collect(), ..offer(1) }
}

/// Mode and reason after these findings, in their order.
fn after(findings: &[Result<Offer, ModeReason>]) -> (ExchangeMode, ModeReason) {
    let mut exchange = Exchange::default();
    for found in findings {
        exchange.learn(found.clone());
    }
    exchange.shown(NOW())
}

#[test]
fn r16_r17_r18_the_mode_follows_the_manifest() {
    use ExchangeMode::{Full, Minimal, Rejected};
    use ModeReason::*;
    assert_eq!(after(&[]), (Minimal, NoManifest));
    for (offer, expected) in [
        (speaks(&[(1, 0)]), (Full, Matching)),
        (speaks(&[(1, 9)]), (Full, Matching)),
        (speaks(&[(2, 0), (1, 3)]), (Full, Matching)),
        (speaks(&[(2, 0)]), (Rejected, UnsupportedMajor)),
        (speaks(&[(0, 9), (2, 1)]), (Rejected, UnsupportedMajor)),
        (Offer { snapshot: false, ..offer(1) }, (Minimal, LacksArtifact)),
        (Offer { state: false, ..offer(1) }, (Minimal, LacksArtifact)),
        (Offer { expires: Some(NOW()), ..offer(1) }, (Minimal, ManifestExpired)),
    ] {
        assert_eq!(after(&[Ok(offer.clone())]), expected, "{offer:?}");
    }
}

#[test]
fn what_is_wrong_with_a_manifest_narrows_and_never_widens() {
    use ExchangeMode::{Full, Minimal, Rejected};
    use ModeReason::*;
    let lacks = [
        NoManifest,
        ManifestInvalid,
        ManifestForeign,
        ManifestUnsigned,
        ManifestForged,
        ManifestExpired,
        ManifestReplayed,
    ];
    for lack in lacks {
        assert_eq!(after(&[Ok(offer(1)), Err(lack)]), (Minimal, lack));
        let rejected = Ok(speaks(&[(2, 0)]));
        assert_eq!(after(&[rejected, Err(lack)]), (Rejected, UnsupportedMajor), "{lack:?}");
    }
    let mut other = offer(5);
    other.digest = offer(4).digest;
    for older in [offer(4), other] {
        assert_eq!(after(&[Ok(offer(5)), Ok(older)]), (Minimal, ManifestReplayed));
    }
    let again = [Ok(offer(5)), Err(ManifestForged), Ok(offer(5))];
    assert_eq!(after(&again), (Full, Matching), "its owner has written it again");
}

#[test]
fn a_peer_that_does_not_answer_is_shown_as_that_and_keeps_its_mode() {
    let mut exchange = Exchange::default();
    exchange.heard(None);
    assert_eq!(exchange.shown(NOW()), (ExchangeMode::Unreachable, ModeReason::NoAnswer));
    assert_eq!(exchange.mode(NOW()), ExchangeMode::Minimal, "at first");
    exchange.learn(Ok(offer(1)));
    assert_eq!(exchange.shown(NOW()).0, ExchangeMode::Unreachable);
    assert_eq!(exchange.mode(NOW()), ExchangeMode::Full);
    exchange.heard(Some(SUPPORTED));
    assert_eq!(exchange.shown(NOW()), (ExchangeMode::Full, ModeReason::Matching));
}

/// Reports a cycle with memory; whether the packet for the critic links a snapshot, if there is
/// one.
fn links(rig: &mut Rig) -> Option<bool> {
    rig.cycle += 1;
    let text = format!(
        r#"{{"cycle": {}, "attractor_state": {{"id": "a-1", "type": "symbolic",
            "stability": 0.9, "phase": "stable", "scr": 0.9}},
            "drift_metrics": {{"sdi": 0.1, "sv": 0.1, "pd": 0.1}},
            "memory_snapshot": {{"retention_index": 0.9}}}}"#,
        rig.cycle,
    );
    rig.report_document(&Json::parse(text.as_bytes()).expect("JSON"));
    let mut found = None;
    for (token, packet) in rig.published() {
        let packet = Json::parse(packet.bytes()).expect("a packet");
        found = Some(packet.pointer("/payload/memory_snapshot").is_some());
        rig.answered(token, STORED);
    }
    found
}

fn rig() -> Rig {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    rig.connect();
    rig.stored(Digest::from_bytes([10; 32]), None);
    rig
}

#[test]
fn r18_minimal_omits_the_snapshot_and_a_change_takes_effect_with_the_next_report() {
    let mut rig = rig();
    assert_eq!(links(&mut rig), Some(true));
    rig.learn("critic", Err(ModeReason::NoManifest));
    assert_eq!(links(&mut rig), Some(false));
    assert!(rig.bridge.may_upload() && !rig.bridge.may_share(rig.now));
    assert!(rig.bridge.grant_push(rig.now).is_some(), "what is accepted waits");
    assert!(rig.bridge.grant_upload(rig.now).is_none(), "ruling 13");
    rig.learn("critic", Ok(offer(2)));
    assert!(rig.bridge.grant_upload(rig.now).is_some());
    assert_eq!(links(&mut rig), Some(true));
}

#[test]
fn r16_a_rejected_peer_is_neither_reached_nor_heard() {
    let mut rig = rig();
    let mut peer = Rig::new(settings("critic", &["planner"]));
    peer.connect();
    let packet = |peer: &mut Rig| {
        peer.wait(core::time::Duration::from_secs(1));
        peer.report(0.2);
        let published = peer.published();
        for (token, _) in &published {
            peer.answered(*token, STORED);
        }
        published.last().expect("a packet").1.bytes().clone()
    };
    let (first, second) = (packet(&mut peer), packet(&mut peer));
    rig.wait(core::time::Duration::from_secs(3));
    let subject = ("critic", "planner");
    assert!(matches!(rig.receive(subject, &first), Some(Inbound::Accepted { .. })));
    rig.learn("critic", Ok(Offer { seq: 2, ..speaks(&[(2, 0)]) }));
    assert!(rig.bridge.peer_state(rig.now, &id("critic")).is_none(), "it is no longer shown");
    let Some(Inbound::Refused(refusal)) = rig.receive(subject, &second) else {
        panic!("it is heard");
    };
    assert_eq!(refusal.fault, Fault::Incompatible);
    let ticket = rig.report(0.2);
    let reply = rig.answers().remove(&ticket).expect("an answer at once");
    assert_eq!(reply.packets[0].status, PacketStatus::Held);
    assert!(rig.published().is_empty());
    // Its owner comes back with a version that we speak: nothing was lost for good.
    rig.learn("critic", Ok(offer(3)));
    assert!(matches!(rig.receive(subject, &second), Some(Inbound::Accepted { .. })));
    assert_eq!(links(&mut rig), Some(true));
}

#[test]
fn what_waits_for_a_peer_that_may_have_less_now_is_revoked() {
    for found in [Err(ModeReason::ManifestForged), Ok(Offer { seq: 2, ..speaks(&[(2, 0)]) })] {
        let mut rig = rig();
        rig.disconnect();
        assert_eq!(links(&mut rig), None, "it waits");
        rig.learn("critic", found);
        rig.connect();
        assert!(rig.published().is_empty());
        assert_eq!(rig.bridge.ledgers().map(|(_, books)| books.revoked).sum::<u64>(), 1);
    }
}

#[test]
fn a_peer_that_was_removed_is_forgotten_and_a_stranger_is_not_remembered() {
    let mut rig = rig();
    rig.learn("stranger", Ok(offer(1)));
    assert_eq!(rig.bridge.exchanges(rig.now).count(), 1);
    rig.reload(live(&[]));
    rig.reload(live(&["critic"]));
    let shown: Vec<_> = rig.bridge.exchanges(rig.now).map(|(_, shown)| shown).collect();
    assert_eq!(shown, [(ExchangeMode::Minimal, ModeReason::NoManifest)]);
}

#[test]
fn our_manifest_is_published_when_another_stands_there_and_never_while_nothing_may_leave() {
    let mut setup = settings("planner", &["critic"]);
    setup.live.manifest = bytes::Bytes::from_static(b"{\"runtime_id\": \"planner\"}");
    let body = setup.live.manifest.clone();
    let declared = |rig: &mut Rig, found: Option<Found<'_>>| {
        let effects = rig.bridge.declare(rig.now, found);
        effects.into_iter().find_map(|effect| {
            let Effect::Declare { body, token, .. } = effect else { return None };
            Some((body, token))
        })
    };
    let mut rig = Rig::new(setup.clone());
    assert_eq!(declared(&mut rig, None), None, "not connected");
    rig.connect();
    let (sent, token) = declared(&mut rig, None).expect("nothing stands there");
    assert_eq!(sent, body);
    let ours = Found { body: &body, token: Some(&token) };
    assert!(rig.bridge.is_own_manifest(ours) && declared(&mut rig, Some(ours)).is_none());
    for foreign in [
        Found { body: &body, token: None },
        Found { body: &body, token: Some("hmac-sha256:k1:1:00") },
        Found { body: b"{}", token: Some(&token) },
    ] {
        assert!(!rig.bridge.is_own_manifest(foreign));
        assert!(declared(&mut rig, Some(foreign)).is_some(), "its owner writes it again");
    }
    rig.report(0.7);
    assert!(!rig.bridge.may_declare() && declared(&mut rig, None).is_none(), "isolated");
    setup.identity.mode = Mode::Shadow;
    let mut rig = Rig::new(setup);
    rig.connect();
    assert!(!rig.bridge.may_declare() && declared(&mut rig, None).is_none(), "shadow");
}

/// Mode and reason after this stands under the critic's name.
fn read(body: &str, token: impl Fn(&[u8]) -> Option<String>) -> (ExchangeMode, ModeReason) {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    let token = token(body.as_bytes());
    let found = Found { body: body.as_bytes(), token: token.as_deref() };
    drop(rig.bridge.peer_manifest(rig.now, &id("critic"), Some(found)));
    rig.bridge.exchanges(rig.now).next().expect("one peer").1
}

#[test]
fn what_stands_under_a_peers_name_counts_only_if_the_peer_made_it() {
    use ExchangeMode::{Full, Minimal, Rejected};
    use ModeReason::*;
    let good = r#"{"runtime_id": "critic", "protocol_versions": ["1.0"],
                   "artifact_types": ["state", "snapshot"]}"#;
    let signed =
        |seq: u64| move |body: &[u8]| sign_body(&keyring(), Domain::Capabilities, seq, body);
    let now = u64::try_from(EPOCH_MS).expect("after 1970") * 1000;
    let with = |from: &str, to: &str| good.replace(from, to);
    let later = "runtime_id: critic\nprotocol_versions: [\"1.7\"]\nnews: {a: 1}\n\
                 artifact_types: [state, snapshot, dreams]\n";
    for (body, expected) in [
        (good.to_owned(), (Full, Matching)),
        (later.to_owned(), (Full, Matching)),
        (with("1.0", "2.0"), (Rejected, UnsupportedMajor)),
        (with(", \"snapshot\"", ""), (Minimal, LacksArtifact)),
        (with("critic", "monitor"), (Minimal, ManifestForeign)),
        (with("\"1.0\"", "\"one\""), (Minimal, ManifestInvalid)),
        (with("\"1.0\"", "1.0"), (Minimal, ManifestInvalid)),
        (with("\"protocol_versions\"", "\"versions\""), (Minimal, ManifestInvalid)),
        (with("}", ", \"expires\": \"2020-01-01T00:00:00Z\"}"), (Minimal, ManifestExpired)),
        ("a: &a [1]\nb: *a\n".to_owned(), (Minimal, ManifestInvalid)),
        (String::new(), (Minimal, ManifestInvalid)),
        ("x".repeat(40_000), (Minimal, ManifestInvalid)),
    ] {
        assert_eq!(read(&body, signed(now)), expected, "{body:.80}");
    }
    assert_eq!(read(good, |_| None), (Minimal, ManifestUnsigned));
    assert_eq!(read(good, |_| Some("x".to_owned())), (Minimal, ManifestForged));
    let of_a_packet = |body: &[u8]| sign_body(&keyring(), Domain::Token, now, body);
    assert_eq!(read(good, of_a_packet), (Minimal, ManifestForged), "another domain");
    assert_eq!(read(good, signed(u64::MAX)), (Minimal, ManifestExpired), "no clock has that");
    let mut rig = Rig::new(settings("planner", &["critic"]));
    drop(rig.bridge.peer_manifest(rig.now, &id("critic"), None));
    let shown: Vec<_> = rig.bridge.exchanges(rig.now).map(|(_, shown)| shown).collect();
    assert_eq!(shown, [(Minimal, NoManifest)]);
}

#[test]
fn a_pinned_peer_is_believed_under_its_own_key_alone() {
    let mut setup = settings("planner", &["critic"]);
    setup.live.peers.get_mut(&id("critic")).expect("a peer").key_id = Some("k2".to_owned());
    let mut rig = Rig::new(setup);
    let body = br#"{"runtime_id": "critic", "protocol_versions": ["1.0"]}"#;
    let token = sign_body(&keyring(), Domain::Capabilities, 1, body);
    let found = Found { body, token: token.as_deref() };
    drop(rig.bridge.peer_manifest(rig.now, &id("critic"), Some(found)));
    let shown: Vec<_> = rig.bridge.exchanges(rig.now).map(|(_, shown)| shown).collect();
    assert_eq!(shown, [(ExchangeMode::Minimal, ModeReason::ManifestForged)]);
}

#[test]
fn an_operators_file_is_read_with_all_its_mistakes_at_once() {
    let example = include_bytes!("../../config/runtime_capabilities.yml");
    let read = declared(example).expect("the example");
    assert_eq!(read.runtime_id, Some(id("planner")));
    assert_eq!(declared(b"{}"), Ok(Declared::default()));
    let wrong = "runtime_id: a.b\nprotocol_versions: [\"1.1\"]\nartifact_types: [state, dreams]\n\
                 scopes: evidence\ncolour: red\nexpires: soon\n";
    let mistakes = declared(wrong.as_bytes()).expect_err("wrong all over");
    let fields: Vec<&str> = mistakes.iter().map(|mistake| mistake.field.as_str()).collect();
    let expected = [
        "/runtime_id",
        "/artifact_types/1",
        "/scopes",
        "/expires",
        "/protocol_versions",
        "/colour",
    ];
    assert_eq!(fields, expected);
    for (text, field) in [("- a\n", "/"), ("a: *b\n", "/a"), ("\u{feff}: [", "/")] {
        let mistakes = declared(text.as_bytes()).expect_err(text);
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].field.starts_with('/') && field.starts_with('/'), "{mistakes:?}");
    }
    assert!(declared(&vec![b'#'; MANIFEST_BYTES_MAX + 1]).is_err());
}
