//! The JSON Schema of a capability manifest.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::{Capabilities, LIST_LEN_MAX};
use crate::protocol::exchange::{Artifact, SUPPORTED};
use crate::protocol::packet::TEXT_BYTES_MAX;
use crate::protocol::schema::{date_time, object, runtime_id, text, words};

/// What an operator declares; in `$defs` as `published` what the sidecar makes of it.
#[must_use]
pub fn capabilities() -> Value {
    let list = |items: Value| json!({"type": "array", "items": items, "maxItems": LIST_LEN_MAX});
    let mut schema = object([
        ("runtime_id?", runtime_id()),
        ("protocol_versions?", json!({"const": [SUPPORTED.to_string()]})),
        ("artifact_types?", list(words(Artifact::VARIANTS))),
        ("scopes?", list(text(TEXT_BYTES_MAX))),
        ("deviations?", list(text(TEXT_BYTES_MAX))),
        ("expires?", date_time()),
    ]);
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    (settings.inline_subschemas, settings.meta_schema) = (true, None);
    let published = settings.into_generator().into_root_schema_for::<Capabilities>();
    if let Some(members) = schema.as_object_mut() {
        members.insert("$defs".to_owned(), json!({"published": published}));
    }
    schema
}
