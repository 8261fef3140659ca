//! Signed documents that are no packets.

use driftgate::protocol::digest::Digest;
use driftgate::protocol::document;
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use driftgate::protocol::refusal::Fault;
use serde_json::{Value, json};

const BYTES_MAX: usize = 4096;
const DOMAINS: [Domain; 7] = [
    Domain::Token,
    Domain::Presence,
    Domain::Capabilities,
    Domain::Handshake,
    Domain::Exchange,
    Domain::Telemetry,
    Domain::Notice,
];

fn keyring(secret: u8) -> Keyring {
    let key = KeyMaterial::hmac_secret(&[secret; 32]).unwrap();
    Keyring::new([("k1".to_owned(), key)], Some("k1")).unwrap()
}

fn signed() -> Vec<u8> {
    let body = json!({ "runtime_id": "planner", "band": "open", "claim": 7 });
    document::sign(&keyring(1), Domain::Presence, 7, &body).unwrap()
}

#[test]
fn a_signed_document_is_read_back_with_its_key_and_number() {
    let proved = document::open(&keyring(1), Domain::Presence, &signed(), BYTES_MAX).unwrap();
    assert_eq!((proved.key_id.as_str(), proved.seq, proved.members.len()), ("k1", 7, 3));
    let shown: Value = serde_json::from_slice(&signed()).unwrap();
    let bytes = br#"{"band":"open","claim":7,"runtime_id":"planner"}"#;
    assert_eq!(shown["signature"]["checksum"], Digest::of(bytes).to_string());
}

/// A signature over one kind of document is worth nothing on another.
#[test]
fn a_token_of_one_domain_proves_nothing_in_another() {
    let ring = keyring(1);
    for signed_as in DOMAINS {
        let token = document::sign_body(&ring, signed_as, 1, b"body").unwrap();
        let inner = document::sign(&ring, signed_as, 1, &json!({ "a": 1 })).unwrap();
        for read_as in DOMAINS {
            let body = document::verify_body(&ring, read_as, &token, b"body");
            let inner = document::open(&ring, read_as, &inner, BYTES_MAX);
            assert_eq!((body.is_ok(), inner.is_ok()), (signed_as == read_as, signed_as == read_as));
        }
    }
}

#[test]
fn no_changed_byte_of_a_document_is_accepted() {
    let bytes = signed();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << bit;
            let refusal = document::open(&keyring(1), Domain::Presence, &changed, BYTES_MAX);
            let fault = refusal.expect_err("a changed document").fault;
            assert!(matches!(fault, Fault::Malformed | Fault::Forged), "byte {place}: {fault:?}");
        }
    }
    let other = document::open(&keyring(2), Domain::Presence, &bytes, BYTES_MAX).unwrap_err();
    assert_eq!(other.fault, Fault::Forged);
}

#[test]
fn what_is_wrong_is_named() {
    let ring = keyring(1);
    let cases = [
        ("[]", "/: must be a JSON object"),
        ("{ }", "/: not in RFC 8785 form"),
        ("{}", "/signature: must be an object"),
        (r#"{"signature":{"checksum":1}}"#, "/signature/checksum: must be a string"),
        (r#"{"signature":{"checksum":"a"}}"#, "/signature/integrity_token: must be a string"),
        (
            r#"{"signature":{"checksum":"a","integrity_token":"b","x":1}}"#,
            "/signature: unknown member",
        ),
    ];
    for (bytes, detail) in cases {
        let refusal = document::open(&ring, Domain::Notice, bytes.as_bytes(), BYTES_MAX);
        assert_eq!(refusal.unwrap_err().detail, detail);
    }
    let long = document::open(&ring, Domain::Notice, &signed(), 64).unwrap_err();
    assert_eq!(long.detail, "/: longer than 64 bytes");
}
