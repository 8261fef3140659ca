//! The JSON Schema of a packet.

use serde_json::{Map, Value, json};
use strum::VariantArray as _;

use super::super::exchange::SUPPORTED;
use super::super::packet::{AttractorType, StatePacket, TEXT_BYTES_MAX, WORD_BYTES_MAX};
use super::super::schema::{
    coherence, date_time, digest, flag, fraction, index, open_object, runtime_id, text, version,
    words, written,
};
use super::TOKEN_BYTES_MAX;

written! {
    StatePacket => packet();
}

/// A packet (SRIP-05 section 3). Closed in version 1.0; a later minor may have more members.
#[must_use]
pub fn packet() -> Value {
    let word = || text(WORD_BYTES_MAX);
    let header = open_object([
        ("protocol_version", version(&SUPPORTED.major.to_string())),
        ("source_runtime_id", runtime_id()),
        ("target_runtime_id", runtime_id()),
        ("timestamp", date_time()),
    ]);
    let attractor = open_object([
        ("id", text(TEXT_BYTES_MAX)),
        ("phase", word()),
        ("scr", coherence()),
        ("stability", fraction()),
        ("type", words(AttractorType::VARIANTS)),
    ]);
    let metrics =
        open_object([("di", index()), ("pd", fraction()), ("sdi", fraction()), ("sv", fraction())]);
    let memory = open_object([("retention_index", fraction()), ("summary_hash", digest())]);
    let flags = open_object([
        ("aegida_status", word()),
        ("phase_lock", flag()),
        ("recenter_active", flag()),
    ]);
    let payload = open_object([
        ("attractor_state", attractor),
        ("drift_metrics", metrics),
        ("memory_snapshot?", memory),
        ("safety_flags", flags),
    ]);
    let signature =
        open_object([("checksum", digest()), ("integrity_token", text(TOKEN_BYTES_MAX))]);
    let mut packet =
        open_object([("header", header), ("payload", payload), ("signature", signature)]);
    let closed = closed(&packet);
    let is_first = json!({"properties": {"header": {
        "properties": {"protocol_version": {"const": SUPPORTED.to_string()}}}}});
    if let Some(packet) = packet.as_object_mut() {
        packet.extend([("if".to_owned(), is_first), ("then".to_owned(), closed)]);
    }
    packet
}

/// That an object has no member beside those that `schema` names, nor has any object in it.
fn closed(schema: &Value) -> Value {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Value::Bool(true);
    };
    let below: Map<_, _> =
        properties.iter().map(|(name, below)| (name.clone(), closed(below))).collect();
    json!({"properties": below, "additionalProperties": false})
}
