//! The exchange envelope beside a manifest: what it says to all readers at once, and that none but
//! its own is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::envelope::{self, Draft, Ruling, Terms};
use driftgate::protocol::exchange::Artifact;
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::seal::{Fault, KeyMaterial, Keyring};
use driftgate::protocol::snapshot::{Evidence, Manifest, Reader, VerifiedManifest};
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::trace::TraceParent;
use serde_json::{Value, json};

use super::manifest::full;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The keys of the fleet, signing with one of them.
fn ring(sign_with: &str) -> Keyring {
    let key = |byte: u8| KeyMaterial::hmac_secret(&[byte; 32]).expect("32 bytes");
    let keys = [("k1".to_owned(), key(7)), ("k2".to_owned(), key(9))];
    Keyring::new(keys, Some(sign_with)).expect("a ring")
}

fn reader(scope: &str, uses: &[&str], expires: Option<Timestamp>) -> Reader {
    let allowed_use = uses.iter().map(|word| (*word).to_owned()).collect();
    let terms = Terms { scope: Some(scope.to_owned()), allowed_use, accepts_derived: false };
    Reader { terms, expires }
}

fn evidence() -> Evidence {
    Evidence { drift_source: Provenance::Native, trace: TraceParent::parse(TRACE) }
}

fn enclose(manifest: &Manifest, readers: &[Reader]) -> String {
    manifest.enclose(&ring("k1"), readers.iter(), &evidence()).expect("a signing key")
}

fn said(envelope: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(envelope).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn verified(manifest: &Manifest) -> VerifiedManifest {
    let bytes = manifest.sign(&ring("k1")).expect("a signing key");
    VerifiedManifest::open(&ring("k1"), &bytes).expect("what we sign")
}

#[test]
fn r68_a_manifest_travels_in_an_envelope_that_holds_for_all_who_may_have_it() {
    let manifest = full();
    let at = |after_ms: i64| Timestamp::from_unix_ms(1_800_000_000_000 + after_ms);
    let readers = [
        reader("planning", &["evidence", "training", "evaluation"], Some(at(7_000))),
        reader("planning", &["evaluation", "evidence"], None),
        reader("planning", &["evidence", "evaluation"], Some(at(5_000))),
    ];
    let mut said = said(&enclose(&manifest, &readers));
    said.as_object_mut().expect("an object").remove("signature").expect("a signature");
    let signed: Value =
        serde_json::from_slice(&manifest.sign(&ring("k1")).expect("signed")).expect("JSON");
    assert_eq!(
        said,
        json!({
            "artifact": {"checksum": signed["checksum"], "type": "snapshot"},
            "constraints": {
                "allowed_use": ["evidence", "evaluation"],
                "expires_at": at(5_000).to_string(),
                "reintegration_required": true,
                "scope": "planning",
                "user_visible": false,
            },
            "exchange_id": format!("planner..{}", manifest.seq),
            "protocol": "driftgate-exchange",
            "provenance": {
                "drift_source": "native",
                "timestamp": signed["time"],
                "traceparent": TRACE,
            },
            "source": "planner",
            "version": "1.0",
        })
    );
    // What two of them do not share holds for neither; memory has no end of its own.
    let apart = [reader("planning", &["evidence"], None), reader("auditing", &["training"], None)];
    let said = self::said(&enclose(&manifest, &apart));
    assert_eq!(said["constraints"].get("scope"), None);
    assert_eq!(said["constraints"]["allowed_use"], json!([]));
    assert_eq!(said["constraints"].get("expires_at"), None);
}

#[test]
fn p7_no_envelope_but_the_manifests_own_is_believed() {
    let (manifest, now) = (full(), Timestamp::from_unix_ms(1_800_000_000_000));
    let readers = [Reader::default()];
    let genuine = enclose(&manifest, &readers);
    let (verified, terms) = (verified(&manifest), Terms::default());
    let judge = |header: &str| {
        let judged = terms.judge(&ring("k1"), Some(header), None, &verified.about(), now);
        judged.map(|(_, admission)| admission.verdict).map_err(|refusal| refusal.fault)
    };
    assert_eq!(judge(&genuine), Ok(Ruling::Accept));
    let other = Manifest { media_type: "text/plain".into(), ..manifest.clone() };
    assert_eq!(judge(&enclose(&other, &readers)), Err(Fault::Misaddressed), "another manifest's");
    let by_k2 = manifest.enclose(&ring("k2"), readers.iter(), &evidence()).expect("signed");
    assert_eq!(judge(&by_k2), Err(Fault::Forged), "another key's");
    let critic = RuntimeId::new("critic").expect("an id");
    let draft = Draft {
        artifact: Artifact::Snapshot,
        checksum: manifest.checksum(),
        seq: manifest.seq,
        source: &manifest.runtime,
        target: None,
        at: manifest.time,
        expires: None,
        drift_source: Provenance::Native,
        trace: None,
    };
    let lies = [
        Draft { artifact: Artifact::State, ..draft },
        Draft { checksum: manifest.digest, ..draft },
        Draft { checksum: Digest::of(b""), ..draft },
        Draft { seq: manifest.seq + 1, ..draft },
        Draft { source: &critic, ..draft },
        Draft { target: Some(&critic), ..draft },
    ];
    for lie in lies {
        let envelope = envelope::write(&ring("k1"), &terms, &lie).expect("signed");
        assert_eq!(judge(&envelope), Err(Fault::Misaddressed), "{lie:?}");
    }
    let ended = Draft { expires: Some(now), ..draft };
    let ended = envelope::write(&ring("k1"), &terms, &ended).expect("signed");
    assert_eq!(judge(&ended), Err(Fault::Expired));
    let derived = Draft { drift_source: Provenance::Derived, ..draft };
    let derived = envelope::write(&ring("k1"), &terms, &derived).expect("signed");
    assert_eq!(judge(&derived), Err(Fault::Unauthorised));
    assert_eq!(judge("e30"), Err(Fault::Malformed));
}
