//! The exchange envelope: what it says, what becomes of an artifact that comes in one, and every
//! way of getting one wrong (SRIP-17).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use driftgate::protocol::bridge::{Effect, Live, Memory};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::envelope::{
    self, About, Admission, Draft, ENVELOPE_BYTES_MAX, EXCHANGE_MAX, Ruling, TERM_BYTES_MAX, Terms,
    USES_MAX,
};
use driftgate::protocol::exchange::Artifact;
use driftgate::protocol::inbox::{Arrival, Inbound};
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::packet::RUNTIME_ID_BYTES_MAX;
use driftgate::protocol::seal::{Fault, Sealed};
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::trace::TraceParent;
use driftgate::protocol::view::Ticket;
use serde_json::{Value, json};

use crate::support::forge::canonical;
use crate::support::rig::{EPOCH_MS, Rig, id, report, settings};

const SUBJECT: (&str, &str) = ("critic", "planner");
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The keys of the fleet, signing with one of them.
fn ring(sign_with: &str) -> Keyring {
    let key = |byte: u8| KeyMaterial::hmac_secret(&[byte; 32]).expect("32 bytes");
    let keys = [("k1".to_owned(), key(7)), ("k2".to_owned(), key(9))];
    Keyring::new(keys, Some(sign_with)).expect("a ring")
}

/// What a critic sends that has changed its settings so: its packets and their envelopes.
fn sent(change: impl FnOnce(&mut Live)) -> Vec<(Sealed, String)> {
    let mut settings = settings("critic", &["planner", "monitor"]);
    settings.live.keyring = ring("k1");
    change(&mut settings.live);
    let mut critic = Rig::new(settings);
    critic.connect();
    let mut effects = critic.bridge.report(critic.now, Ticket(1), &report(1, 0.3), trace());
    effects.extend(critic.effects);
    let packets = effects.into_iter().filter_map(|effect| {
        if let Effect::Publish { packet, origin, .. } = effect {
            Some((packet, origin.envelope.to_string()))
        } else {
            None
        }
    });
    packets.collect()
}

fn trace() -> Option<TraceParent> {
    TraceParent::parse(TRACE)
}

/// The packet for the planner, and its envelope.
fn sent_to_planner(change: impl FnOnce(&mut Live)) -> (Sealed, String) {
    let to_planner = |(packet, _): &(Sealed, String)| packet.target() == &id("planner");
    sent(change).into_iter().find(to_planner).expect("a packet for the planner")
}

/// A planner that has changed its settings so.
fn planner(change: impl FnOnce(&mut Live)) -> Rig {
    let mut settings = settings("planner", &["critic", "monitor"]);
    settings.live.keyring = ring("k1");
    change(&mut settings.live);
    let mut rig = Rig::with(settings, Memory::default());
    rig.connect();
    rig
}

fn terms(peer: &str, change: impl FnOnce(&mut Terms)) -> impl FnOnce(&mut Live) {
    move |live| change(&mut live.peers.get_mut(&id(peer)).expect("a peer").terms)
}

fn uses(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn taken(inbound: Option<Inbound>) -> Result<Admission, (Fault, String)> {
    match inbound {
        Some(Inbound::Accepted { admission, .. }) => Ok(admission),
        Some(Inbound::Refused(refusal)) => Err((refusal.fault, refusal.detail)),
        other => panic!("{other:?}"),
    }
}

fn document(envelope: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(envelope).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A document as a header, signed by whoever has the ring.
fn enclose(ring: &Keyring, domain: Domain, seq: u64, mut document: Value) -> String {
    document.as_object_mut().expect("an object").remove("signature");
    let checksum = Digest::of(&canonical(&document));
    let token = ring.sign_checksum(domain, seq, checksum).expect("a signing key");
    document["signature"] = json!({"checksum": checksum, "integrity_token": token});
    URL_SAFE_NO_PAD.encode(canonical(&document))
}

#[test]
fn r68_each_packet_says_under_what_it_travels_and_where_it_comes_from() {
    let expires = Timestamp::from_unix_ms(EPOCH_MS + 60_000);
    let (packet, envelope) = sent_to_planner(|live| {
        let planner = live.peers.get_mut(&id("planner")).expect("a peer");
        planner.expires = Some(expires);
        planner.terms.scope = Some("planning".to_owned());
        planner.terms.allowed_use = uses(&["evidence", "evaluation"]);
    });
    let mut said = document(&envelope);
    let signature = said.as_object_mut().expect("an object").remove("signature");
    let wire: Value = serde_json::from_slice(packet.bytes()).expect("a packet");
    let seq = packet.seq();
    assert_eq!(
        said,
        json!({
            "artifact": {"checksum": wire["signature"]["checksum"], "type": "state"},
            "constraints": {
                "allowed_use": ["evidence", "evaluation"],
                "expires_at": expires.to_string(),
                "reintegration_required": true,
                "scope": "planning",
                "user_visible": false,
            },
            "exchange_id": format!("critic.planner.{seq}"),
            "protocol": "driftgate-exchange",
            "provenance": {
                "drift_source": "native",
                "timestamp": wire["header"]["timestamp"],
                "traceparent": TRACE,
            },
            "source": "critic",
            "target": "planner",
            "version": "1.0",
        })
    );
    let token = signature.expect("a signature")["integrity_token"].clone();
    let token = token.as_str().expect("a token");
    let proved = ring("k1").verify_token(Domain::Exchange, token, Digest::of(&canonical(&said)));
    assert_eq!(proved, Ok(("k1".to_owned(), seq)));
    // An authorisation without an end is for a day at a time.
    let (_, envelope) = sent_to_planner(|_| {});
    let day = Timestamp::from_unix_ms(EPOCH_MS).plus(EXCHANGE_MAX).to_string();
    assert_eq!(document(&envelope)["constraints"]["expires_at"], day);
}

#[test]
fn the_longest_envelope_is_read() {
    let longest = "x".repeat(RUNTIME_ID_BYTES_MAX);
    let term = |number: usize| format!("{number:0TERM_BYTES_MAX$}");
    let terms = Terms {
        scope: Some(term(0)),
        allowed_use: (0..USES_MAX).map(term).collect(),
        accepts_derived: false,
    };
    let (source, target, trace) = (id(&longest), id(&longest), trace());
    let draft = Draft {
        artifact: Artifact::Snapshot,
        checksum: Digest::of(b""),
        seq: u64::MAX,
        source: &source,
        target: Some(&target),
        at: Timestamp::from_unix_ms(EPOCH_MS),
        expires: Some(Timestamp::from_unix_ms(EPOCH_MS)),
        drift_source: Provenance::Reported,
        trace: trace.as_ref(),
    };
    let seed = nkeys::KeyPair::new_user().seed().expect("a seed");
    let key = KeyMaterial::nkey_seed(&seed).expect("a user seed");
    let ring = Keyring::new([(longest.clone(), key)], Some(&longest)).expect("a ring");
    let header = envelope::write(&ring, &terms, &draft).expect("it signs");
    assert!(header.len() < ENVELOPE_BYTES_MAX * 3 / 4, "{}", header.len());
    let about = About {
        artifact: Artifact::Snapshot,
        checksum: draft.checksum,
        seq: draft.seq,
        key_id: &longest,
        source: &source,
        target: Some(&target),
    };
    let read = envelope::read(&ring, &header, &about).expect("what we write");
    assert_eq!((read.scope, read.allowed_use), (terms.scope, terms.allowed_use));
    assert_eq!((read.trace.as_ref(), read.expires), (draft.trace, draft.expires));
}

#[test]
fn r69_each_of_the_four_verdicts_is_reached() {
    let (packet, envelope) = sent_to_planner(terms("planner", |terms| {
        terms.scope = Some("planning".to_owned());
        terms.allowed_use = uses(&["evidence", "evaluation"]);
    }));
    let verdict = |change: fn(&mut Terms), envelope: &str| {
        let mut rig = planner(terms("critic", change));
        taken(rig.receive_in(SUBJECT, envelope, packet.bytes()))
    };
    let whole = verdict(|terms| terms.allowed_use = uses(&["evaluation", "evidence"]), &envelope);
    let whole = whole.expect("all of it");
    assert_eq!((whole.verdict, whole.drift_source), (Ruling::Accept, Some(Provenance::Native)));
    assert_eq!(whole.scope.as_deref(), Some("planning"));
    let part = verdict(|_| {}, &envelope).expect("a part of it");
    assert_eq!((part.verdict, part.allowed_use), (Ruling::Narrow, uses(&["evidence"])));
    let ruling = |verdict: Result<Admission, (Fault, String)>| match verdict {
        Ok(admission) => admission.verdict,
        Err((fault, _)) => Ruling::of(fault),
    };
    let none = verdict(|terms| terms.allowed_use = uses(&["training"]), &envelope);
    assert_eq!(ruling(none), Ruling::Quarantine);
    let foreign = verdict(|terms| terms.scope = Some("auditing".to_owned()), &envelope);
    assert_eq!(ruling(foreign), Ruling::Quarantine);
    assert_eq!(ruling(verdict(|_| {}, "e30")), Ruling::Reject);
}

#[test]
fn r67_without_an_envelope_a_packet_is_evidence_and_under_no_scope() {
    let (packet, _) = sent_to_planner(|_| {});
    let verdict = |change: fn(&mut Terms)| {
        let mut rig = planner(terms("critic", change));
        taken(rig.receive_of(SUBJECT, None, packet.bytes()))
    };
    let admission = verdict(|_| {}).expect("no rule asks for one");
    assert_eq!((admission.verdict, admission.drift_source), (Ruling::Accept, None));
    assert_eq!(admission.allowed_use, uses(&["evidence"]));
    let refused = |verdict: Result<Admission, (Fault, String)>| verdict.map_err(|(fault, _)| fault);
    let scoped = verdict(|terms| terms.scope = Some("planning".to_owned()));
    assert_eq!(refused(scoped), Err(Fault::Unauthorised));
    let other = verdict(|terms| terms.allowed_use = uses(&["evaluation"]));
    assert_eq!(refused(other), Err(Fault::Unauthorised));
}

#[test]
fn p7_the_drift_source_is_believed_from_the_envelope_and_not_from_the_header() {
    let (packet, genuine) = sent_to_planner(|_| {});
    let mut derived = document(&genuine);
    derived["provenance"]["drift_source"] = json!("derived");
    let derived = enclose(&ring("k1"), Domain::Exchange, packet.seq(), derived);
    for (accepts_derived, expected) in [(false, Some(Fault::Unauthorised)), (true, None)] {
        let mut rig = planner(terms("critic", |terms| terms.accepts_derived = accepts_derived));
        let arrival = Arrival {
            subject: SUBJECT,
            envelope: Some(&derived),
            drift_source: Some("native"),
            bytes: packet.bytes(),
        };
        let verdict = taken(rig.bridge.receive(rig.now, &arrival));
        assert_eq!(verdict.err().map(|(fault, _)| fault), expected);
    }
}

/// A change to what a genuine envelope says, and what it is refused for when it is signed anew.
type Lie = (fn(&mut Value), Fault, &'static str);

const LIES: [Lie; 14] = [
    (|it| it["target"] = json!("monitor"), Fault::Misaddressed, "another artifact"),
    (|it| it["target"] = json!(null), Fault::Misaddressed, "another artifact"),
    (|it| it["source"] = json!("monitor"), Fault::Misaddressed, "another artifact"),
    (|it| it["artifact"]["type"] = json!("snapshot"), Fault::Misaddressed, "another artifact"),
    (
        |it| it["artifact"]["checksum"] = json!(Digest::of(b"another")),
        Fault::Misaddressed,
        "another artifact",
    ),
    (
        |it| it["constraints"]["expires_at"] = json!("2026-01-01T00:00:00.000Z"),
        Fault::Expired,
        "its use has ended",
    ),
    (|it| it["constraints"]["expires_at"] = json!(7), Fault::Malformed, "expires_at"),
    (|it| it["constraints"]["allowed_use"] = json!("evidence"), Fault::Malformed, "allowed_use"),
    (|it| it["constraints"]["allowed_use"] = json!([]), Fault::Unauthorised, "allows no use"),
    (|it| it["constraints"]["scope"] = json!("a b"), Fault::Malformed, "scope"),
    (|it| it["provenance"] = json!({}), Fault::Malformed, "drift_source"),
    (|it| it["exchange_id"] = json!("\n"), Fault::Malformed, "exchange_id"),
    (|it| it["version"] = json!("2.0"), Fault::Incompatible, "major"),
    (|it| it["protocol"] = json!("other"), Fault::Incompatible, "protocol"),
];

#[test]
fn p7_no_envelope_but_the_packets_own_is_believed() {
    let packets = sent(|_| {});
    let own = |target: &str| {
        packets.iter().find(|(packet, _)| packet.target() == &id(target)).expect("one for each")
    };
    let (packet, genuine) = own("planner");
    let (seq, k1) = (packet.seq(), ring("k1"));
    let said = document(genuine);
    let mut attacks: Vec<(String, Fault, &str)> = Vec::new();
    for (lie, fault, detail) in LIES {
        let mut document = said.clone();
        lie(&mut document);
        attacks.push((enclose(&k1, Domain::Exchange, seq, document), fault, detail));
    }
    let mut unsigned = said.clone();
    unsigned.as_object_mut().expect("an object").remove("signature");
    let mut altered = said.clone();
    altered["constraints"]["allowed_use"] = json!(["evidence", "training"]);
    let stranger = KeyMaterial::hmac_secret(&[8; 32]).expect("32 bytes");
    let stranger = Keyring::new([("k1".to_owned(), stranger)], Some("k1")).expect("a ring");
    let encode = |document: &Value| URL_SAFE_NO_PAD.encode(canonical(document));
    let spaced = URL_SAFE_NO_PAD.encode(serde_json::to_vec_pretty(&said).expect("JSON"));
    attacks.extend([
        (own("monitor").1.clone(), Fault::Misaddressed, "another artifact"),
        (encode(&unsigned), Fault::Malformed, "/signature"),
        (encode(&altered), Fault::Forged, "/signature/checksum"),
        (enclose(&stranger, Domain::Exchange, seq, said.clone()), Fault::Forged, "wrong tag"),
        // Another peer's own key, around a packet that it has seen.
        (enclose(&ring("k2"), Domain::Exchange, seq, said.clone()), Fault::Forged, "another key"),
        (enclose(&k1, Domain::Token, seq, said.clone()), Fault::Forged, "wrong tag"),
        (enclose(&k1, Domain::Exchange, seq + 1, said), Fault::Misaddressed, "another artifact"),
        (format!("{genuine},{genuine}"), Fault::Malformed, "not there just once"),
        ("A".repeat(ENVELOPE_BYTES_MAX + 1), Fault::Malformed, "longer than 4096 bytes"),
        (format!("{genuine}="), Fault::Malformed, "base64url"),
        ("%%%".to_owned(), Fault::Malformed, "base64url"),
        (String::new(), Fault::Malformed, "exchange envelope"),
        (spaced, Fault::Malformed, "RFC 8785"),
    ]);
    let mut rig = planner(|_| {});
    for (attack, fault, detail) in attacks {
        let refused = taken(rig.receive_in(SUBJECT, &attack, packet.bytes()));
        let (found, said) = refused.expect_err(detail);
        assert_eq!(found, fault, "{detail}: {said}");
        assert!(said.contains(detail), "{detail}: {said}");
        assert!(rig.bridge.peer_state(rig.now, &id("critic")).is_none(), "{detail}: it is shown");
    }
    // None of them has locked the packet out.
    assert!(taken(rig.receive_in(SUBJECT, genuine, packet.bytes())).is_ok());
}

#[test]
fn r71_what_came_in_an_envelope_vanishes_when_its_use_or_the_entry_ends() {
    let (packet, genuine) = sent_to_planner(|_| {});
    let mut short = document(&genuine);
    short["constraints"]["expires_at"] = json!("2026-01-01T00:00:01.000Z");
    let short = enclose(&ring("k1"), Domain::Exchange, packet.seq(), short);
    let mut rig = planner(|_| {});
    taken(rig.receive_in(SUBJECT, &short, packet.bytes())).expect("in time");
    let critic = id("critic");
    rig.wait(Duration::from_millis(999));
    assert!(rig.bridge.deliverable(rig.now, &critic, packet.seq()).is_ok());
    rig.wait(Duration::from_millis(1));
    assert!(rig.bridge.peer_state(rig.now, &critic).is_none(), "it is shown");
    let deliverable = rig.bridge.deliverable(rig.now, &critic, packet.seq());
    assert_eq!(deliverable.map(drop), Err(Fault::Expired));
    // A changed entry judges what stands.
    let mut rig = planner(|_| {});
    taken(rig.receive_in(SUBJECT, &genuine, packet.bytes())).expect("no rule against it");
    let mut strict = settings("planner", &["critic"]).live;
    strict.keyring = ring("k1");
    terms("critic", |terms| terms.scope = Some("auditing".to_owned()))(&mut strict);
    rig.reload(strict);
    assert!(rig.bridge.peer_state(rig.now, &critic).is_none(), "it is shown");
}

#[test]
fn what_a_packet_is_taken_under_is_news_when_it_changes() {
    let mut settings = settings("critic", &["planner"]);
    settings.live.keyring = ring("k1");
    let mut critic = Rig::new(settings);
    critic.connect();
    let mut rig = planner(|_| {});
    let mut news = |rig: &mut Rig, is_enclosed: bool| {
        critic.report(0.3);
        let mut sent = critic.effects.drain(..).filter_map(|effect| {
            if let Effect::Publish { token, packet, origin } = effect {
                Some((token, packet, origin))
            } else {
                None
            }
        });
        let (token, packet, origin) = sent.next().expect("a packet");
        drop(sent);
        critic.answered(token, Outcome::Stored { stream_seq: token, duplicate: false });
        let inbound = if is_enclosed {
            rig.receive_in(SUBJECT, &origin.envelope, packet.bytes())
        } else {
            rig.receive_of(SUBJECT, None, packet.bytes())
        };
        match inbound {
            Some(Inbound::Accepted { is_news, .. }) => is_news,
            other => panic!("{other:?}"),
        }
    };
    assert!(news(&mut rig, true), "the first one");
    assert!(!news(&mut rig, true), "another one under the same terms");
    assert!(news(&mut rig, false), "without an envelope");
    assert!(!news(&mut rig, false));
    rig.receive_in(SUBJECT, "e30", b"{");
    assert!(news(&mut rig, false), "after a refusal in its name");
}
