//! The wire, against vectors made by an independent program (`tests/vectors/make.py`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot read its vectors should panic"
)]

use driftgate::protocol::canonical::{Json, write_number};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use serde_json::Value;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn numbers_are_printed_as_rfc_8785_appendix_b_prints_them() {
    let vectors = vectors(include_str!("../vectors/canonical.json"));
    for vector in vectors["numbers"].as_array().unwrap() {
        let bits = u64::from_str_radix(vector["bits"].as_str().unwrap(), 16).unwrap();
        let mut bytes = Vec::new();
        write_number(&mut bytes, f64::from_bits(bits));
        assert_eq!(core::str::from_utf8(&bytes).unwrap(), vector["canonical"], "{bits:016x}");
    }
}

#[test]
fn documents_are_spelt_as_the_published_samples_are() {
    let vectors = vectors(include_str!("../vectors/canonical.json"));
    for vector in vectors["structures"].as_array().unwrap() {
        let json = Json::parse(vector["input"].as_str().unwrap().as_bytes()).unwrap();
        let expected = unhex(vector["canonical_hex"].as_str().unwrap());
        assert_eq!(json.to_canonical(), expected, "{}", vector["name"]);
        assert_eq!(Json::parse(&expected).unwrap(), json, "{}", vector["name"]);
    }
}

fn keyring(keys: &Value, ed25519_member: &str) -> Keyring {
    let keys = keys.as_object().unwrap().iter().map(|(id, key)| {
        let material = match key["secret_hex"].as_str() {
            Some(secret) => KeyMaterial::hmac_secret(&unhex(secret)),
            None if ed25519_member == "nkey_seed" => {
                KeyMaterial::nkey_seed(key["nkey_seed"].as_str().unwrap())
            }
            None => KeyMaterial::nkey_public(key["nkey_public"].as_str().unwrap()),
        };
        (id.clone(), material.unwrap())
    });
    Keyring::new(keys, None).unwrap()
}

#[test]
fn foreign_packets_are_accepted_or_refused_by_name() {
    let vectors = vectors(include_str!("../vectors/packets.json"));
    for member in ["nkey_seed", "nkey_public"] {
        let keyring = keyring(&vectors["keys"], member);
        for case in vectors["cases"].as_array().unwrap() {
            let (name, expect) = (&case["name"], case["expect"].as_str().unwrap());
            match keyring.open(case["wire"].as_str().unwrap().as_bytes()) {
                Ok(verified) => {
                    assert_eq!(expect, "ok", "{name}");
                    assert_eq!(verified.bytes(), case["wire"].as_str().unwrap(), "{name}");
                }
                Err(refusal) => {
                    assert_eq!(refusal.fault.word(), expect, "{name}: {refusal}");
                    let field = case["field"].as_str().unwrap();
                    let named = refusal.detail.split(':').next();
                    assert_eq!(named, Some(field), "{name}: {refusal}");
                }
            }
        }
    }
}

#[test]
fn tokens_of_both_algorithms_are_those_of_the_foreign_program() {
    let vectors = vectors(include_str!("../vectors/packets.json"));
    let seq: u64 = vectors["seq"].as_str().unwrap().parse().unwrap();
    for (name, key_id) in [("golden hmac", "k1"), ("golden ed25519", "planner")] {
        let case =
            vectors["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
        let packet: Value = vectors_of_wire(case);
        let key = &vectors["keys"][key_id];
        let material = match key["secret_hex"].as_str() {
            Some(secret) => KeyMaterial::hmac_secret(&unhex(secret)),
            None => KeyMaterial::nkey_seed(key["nkey_seed"].as_str().unwrap()),
        };
        let keyring = Keyring::new([(key_id.to_owned(), material.unwrap())], Some(key_id)).unwrap();
        let checksum = Digest::parse(packet["signature"]["checksum"].as_str().unwrap()).unwrap();
        let token = keyring.sign_checksum(Domain::Token, seq, checksum).unwrap();
        assert_eq!(token, packet["signature"]["integrity_token"], "{name}");
        assert_eq!(
            keyring.verify_token(Domain::Token, &token, checksum),
            Ok((key_id.to_owned(), seq))
        );
    }
}

fn vectors_of_wire(case: &Value) -> Value {
    vectors(case["wire"].as_str().unwrap())
}
