//! Packets as anybody with a key, or without one, could make them: nothing here asks a gate.

use std::time::{SystemTime, UNIX_EPOCH};

use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use driftgate::protocol::time::Timestamp;
use serde_json::{Value, json};

use super::sidecar::SECRET;

/// The key of the fleet under test.
pub(crate) fn fleet_keyring() -> Keyring {
    keyring(&SECRET)
}

/// A key that nobody of the fleet knows, under the id that all of them use.
pub(crate) fn foreign_keyring() -> Keyring {
    keyring(&[8; 32])
}

fn keyring(secret: &[u8]) -> Keyring {
    let key = KeyMaterial::hmac_secret(secret).expect("32 bytes");
    Keyring::new([("k1".to_owned(), key)], Some("k1")).expect("a ring")
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}

/// A timestamp so many seconds from now.
pub(crate) fn stamp(seconds: i64) -> String {
    Timestamp::from_unix_ms(unix_ms() + seconds * 1000).to_string()
}

/// Header and payload of a good packet.
pub(crate) fn draft(source: &str, target: &str) -> Value {
    json!({
        "header": {"protocol_version": "1.0", "source_runtime_id": source,
            "target_runtime_id": target, "timestamp": stamp(0)},
        "payload": {
            "attractor_state": {"id": "a-1", "type": "symbolic", "stability": 0.91,
                "phase": "stable", "scr": 0.8},
            "drift_metrics": {"sdi": 0.2, "sv": 0.1, "pd": 0.1, "di": (0.2 + 0.1 + 0.1) / (3.0 * 0.8)},
            "safety_flags": {"aegida_status": "nominal", "phase_lock": false,
                "recenter_active": false},
        },
    })
}

/// Wire bytes of a draft, signed with `seq`: what a runtime without a gate would send.
pub(crate) fn sign(draft: &Value, keyring: &Keyring, seq: u64) -> Vec<u8> {
    let checksum = Digest::of(&canonical(draft));
    let token = keyring.sign_checksum(Domain::Token, seq, checksum).expect("a signing key");
    let mut signed = draft.clone();
    signed["signature"] = json!({"checksum": checksum, "integrity_token": token});
    canonical(&signed)
}

/// RFC 8785 bytes.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    Json::parse(value.to_string().as_bytes()).expect("JSON").to_canonical()
}
