//! The JSON Schema of a manifest.

use serde_json::{Value, json};
use strum::VariantArray as _;

use super::{MEDIA_TYPE_BYTES_MAX, OBJECTS_MAX, SCHEMA, WINDOW_LOG_MAX, WINDOW_LOG_MIN};
use crate::protocol::gate::Band;
use crate::protocol::packet::RUNTIME_ID_BYTES_MAX;
use crate::protocol::schema::{
    digest, object, or_null, runtime_id, text, whole, words, written_time,
};
use crate::protocol::wire::TOKEN_BYTES_MAX;

/// A snapshot's manifest. A reader takes it only where `di_band` is `open`.
#[must_use]
pub fn manifest() -> Value {
    let name = |ending: &str| {
        let pattern = format!(
            "^[A-Za-z0-9_-]{{1,{RUNTIME_ID_BYTES_MAX}}}/(0|[1-9][0-9]{{0,19}})-[0-9a-f]{{16}}[.]\
             {ending}$"
        );
        json!({"type": "string", "pattern": pattern})
    };
    let objects = json!({
        "type": "array", "minItems": 1, "maxItems": OBJECTS_MAX,
        "prefixItems": [name("zst")], "items": name("dcz")});
    let media_type =
        json!({"type": "string", "pattern": format!("^[ -~]{{1,{MEDIA_TYPE_BYTES_MAX}}}$")});
    let window = json!({
        "type": "integer", "minimum": WINDOW_LOG_MIN, "maximum": WINDOW_LOG_MAX});
    let mut manifest = object([
        ("base_digest", or_null(digest())),
        ("checksum", digest()),
        ("di_band", words(Band::VARIANTS)),
        ("digest", digest()),
        ("integrity_token", text(TOKEN_BYTES_MAX)),
        ("kind", json!({"enum": ["delta", "full"]})),
        ("media_type", media_type),
        ("objects", objects),
        ("runtime", runtime_id()),
        ("schema", json!({"const": SCHEMA})),
        ("seq", whole()),
        ("size", whole()),
        ("stored_bytes", whole()),
        ("stored_digest?", digest()),
        ("time", written_time()),
        ("window_log", window),
    ]);
    let kind = json!({
        "if": {"properties": {"kind": {"const": "full"}}},
        "then": {"properties": {
            "base_digest": {"type": "null"}, "objects": {"maxItems": 1}}},
        "else": {"properties": {
            "base_digest": {"type": "string"}, "objects": {"minItems": 2}}}});
    if let (Some(manifest), Value::Object(kind)) = (manifest.as_object_mut(), kind) {
        manifest.extend(kind);
    }
    manifest
}
