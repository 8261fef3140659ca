//! The words of which JSON Schemas (2020-12) are made, for what this folder reads and writes by
//! hand: packet, manifest, audit line and report have theirs beside the reader, in `schema.rs`.
//!
//! `tests/protocol/schemas.rs` holds each against its reader and writer. A schema counts characters
//! where the reader counts bytes, and cannot say that a signature, an order or a sum is right: what
//! it refuses the reader refuses, and not always the other way round.

use schemars::Schema;
use serde_json::{Map, Value, json};

use super::canonical::INTEGER_MAX;
use super::digest::Digest;
use super::packet::{RUNTIME_ID_BYTES_MAX, RuntimeId};
use super::time::Timestamp;

/// The schemas of what writes itself, for the types that hold it.
macro_rules! written {
    ($($type:ident => $schema:expr;)*) => {$(
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::protocol::schema::of($schema)
            }
        }
    )*};
}
pub(super) use written;

written! {
    Digest => digest();
    RuntimeId => runtime_id();
    Timestamp => written_time();
}

/// A schema made here, for documents that are put together of derived ones.
#[must_use]
pub fn of(schema: Value) -> Schema {
    schema.try_into().unwrap_or_default()
}

/// What the hex of a SHA-256 looks like.
#[must_use]
pub fn hex() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
}

/// What a digest looks like.
#[must_use]
pub fn digest() -> Value {
    json!({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"})
}

/// What a runtime id looks like.
#[must_use]
pub fn runtime_id() -> Value {
    json!({"type": "string", "pattern": format!("^[A-Za-z0-9_-]{{1,{RUNTIME_ID_BYTES_MAX}}}$")})
}

/// RFC 3339 as it is read: in any offset, from 1970 on.
#[must_use]
pub fn date_time() -> Value {
    let pattern = "^(19[67]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}.[0-9]{2}:[0-9]{2}:[0-9]{2}\
                   ([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";
    json!({"type": "string", "format": "date-time", "pattern": pattern})
}

/// A time as it is written.
#[must_use]
pub fn written_time() -> Value {
    let pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$";
    json!({"type": "string", "format": "date-time", "pattern": pattern})
}

/// A free text: without control characters.
#[must_use]
pub fn text(bytes_max: usize) -> Value {
    let pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
    json!({"type": "string", "minLength": 1, "maxLength": bytes_max, "pattern": pattern})
}

/// A version, `MAJOR.MINOR`.
#[must_use]
pub fn version(major: &str) -> Value {
    json!({"type": "string", "pattern": format!("^{major}[.](0|[1-9][0-9]{{0,9}})$")})
}

/// A number from 0 to 1.
#[must_use]
pub fn fraction() -> Value {
    json!({"type": "number", "minimum": 0, "maximum": 1})
}

/// A coherence.
#[must_use]
pub fn coherence() -> Value {
    json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
}

/// A drift index.
#[must_use]
pub fn index() -> Value {
    json!({"type": "number", "minimum": 0})
}

/// A whole number that a double holds.
#[must_use]
pub fn whole() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": INTEGER_MAX})
}

/// A truth value.
#[must_use]
pub fn flag() -> Value {
    json!({"type": "boolean"})
}

/// The same, or null.
#[must_use]
pub fn or_null(schema: Value) -> Value {
    let either = vec![schema, json!({"type": "null"})];
    json!({"anyOf": either})
}

/// One of the words of a closed list.
#[must_use]
pub fn words<T: Copy + Into<&'static str>>(all: &[T]) -> Value {
    json!({"enum": all.iter().map(|word| (*word).into()).collect::<Vec<&str>>()})
}

/// An object of these members and no others; the name of one that may be absent ends in `?`.
#[must_use]
pub fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let mut object = open_object(members);
    if let Some(object) = object.as_object_mut() {
        object.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    object
}

/// The same with any others beside them.
#[must_use]
pub fn open_object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let required: Vec<_> =
        members.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let named = |(name, schema): (&str, Value)| (name.trim_end_matches('?').to_owned(), schema);
    let properties: Map<String, Value> = members.into_iter().map(named).collect();
    json!({"type": "object", "properties": properties, "required": required})
}
