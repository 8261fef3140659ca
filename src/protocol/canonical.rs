//! Values and their RFC 8785 bytes.
//!
//! [`Json`] is the only form in which anything from outside enters the core, and it has one
//! spelling on the way out. What deliberately is not here: reading, which is `syntax.rs`.

use std::collections::BTreeMap;

/// Deepest nesting of arrays and objects: a packet has 3 levels and the richest report of a public
/// runtime has 6, while each level costs stack.
pub const DEPTH_MAX: usize = 32;
/// Longest key that a JSON Pointer in an error message repeats, in characters.
pub const POINTER_KEY_CHARS_MAX: usize = 64;
/// Longest JSON Pointer in an error message, in bytes: it may end up in a NATS header.
pub const POINTER_BYTES_MAX: usize = 256;
/// Beyond this an `f64` skips integers: 2^53.
pub const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// A JSON value without duplicates, without non-finite numbers, at most [`DEPTH_MAX`] levels deep.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A finite number.
    Number(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Self>),
    /// An object.
    Object(BTreeMap<String, Self>),
}

/// A document that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem} (line {line}, column {column})")]
pub struct SyntaxFault {
    /// JSON Pointer of the value at fault, `/` for the whole document. Printable ASCII only, at
    /// most [`POINTER_BYTES_MAX`] bytes.
    pub field: String,
    /// What is wrong. Never quotes a value of the document.
    pub problem: String,
    /// Line, from 1; 0 when unknown.
    pub line: usize,
    /// Column in bytes, from 1; 0 at a line's very start or when unknown.
    pub column: usize,
}

impl Json {
    /// The value at a JSON Pointer (RFC 6901): `""` is the whole document, `/a/0` the first element
    /// of member `a`.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |json, segment| match json {
            Self::Object(members) if segment.contains('~') => {
                members.get(&segment.replace("~1", "/").replace("~0", "~"))
            }
            Self::Object(members) => members.get(segment),
            Self::Array(elements) => {
                let leading_zero = segment.len() > 1 && segment.starts_with('0');
                let digits = !leading_zero && segment.bytes().all(|byte| byte.is_ascii_digit());
                digits
                    .then(|| segment.parse::<usize>().ok())
                    .flatten()
                    .and_then(|n| elements.get(n))
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => None,
        })
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number of a number.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// The truth of a boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// The members of an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&BTreeMap<String, Self>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// The elements of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(elements) = self { Some(elements) } else { None }
    }

    /// The RFC 8785 bytes of this value: equal values have equal bytes, on every machine.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_canonical(&mut bytes);
        bytes
    }

    /// Appends the RFC 8785 bytes of this value.
    pub fn write_canonical(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Null => bytes.extend_from_slice(b"null"),
            Self::Bool(truth) => write_bool(bytes, *truth),
            Self::Number(number) => write_number(bytes, *number),
            Self::String(text) => write_string(bytes, text),
            Self::Array(elements) => {
                bytes.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        bytes.push(b',');
                    }
                    element.write_canonical(bytes);
                }
                bytes.push(b']');
            }
            Self::Object(members) => {
                bytes.push(b'{');
                for (index, (key, member)) in in_utf16_order(members).into_iter().enumerate() {
                    if index > 0 {
                        bytes.push(b',');
                    }
                    write_string(bytes, key);
                    bytes.push(b':');
                    member.write_canonical(bytes);
                }
                bytes.push(b'}');
            }
        }
    }
}

/// Members in the order of their keys' UTF-16 code units (RFC 8785 section 3.2.3). The map's own
/// order is by code point, which differs only where a key holds U+E000 or above.
fn in_utf16_order(members: &BTreeMap<String, Json>) -> Vec<(&String, &Json)> {
    const LEAD_OF_U_E000: u8 = 0xee;
    let mut ordered: Vec<_> = members.iter().collect();
    if ordered.iter().any(|(key, _)| key.bytes().any(|byte| byte >= LEAD_OF_U_E000)) {
        ordered.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    }
    ordered
}

/// Appends a string as RFC 8785 section 3.2.2.2 asks: quoted, with the shortest escapes.
pub fn write_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'"');
    // Most texts need no escape at all.
    if !text.bytes().any(|byte| matches!(byte, 0x00..=0x1f | b'"' | b'\\')) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'"');
        return;
    }
    for byte in text.bytes() {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            0x00..=0x1f => {
                let low = byte & 0x0f;
                bytes.extend_from_slice(b"\\u00");
                bytes.push(if byte < 0x10 { b'0' } else { b'1' });
                bytes.push(if low < 10 { b'0' + low } else { b'a' + low - 10 });
                continue;
            }
            _ => {
                bytes.push(byte);
                continue;
            }
        };
        bytes.extend_from_slice(&[b'\\', short]);
    }
    bytes.push(b'"');
}

/// Appends a number as ECMAScript prints it (RFC 8785 section 3.2.2.3); `-0` becomes `0`. A number
/// that is not finite, which [`Json::parse`] never makes, becomes `null`, which no number field of
/// the protocol accepts.
pub fn write_number(bytes: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        bytes.extend_from_slice(ryu_js::Buffer::new().format_finite(number).as_bytes());
    } else {
        bytes.extend_from_slice(b"null");
    }
}

/// Appends `true` or `false`.
pub fn write_bool(bytes: &mut Vec<u8>, truth: bool) {
    bytes.extend_from_slice(if truth { b"true" } else { b"false" });
}

/// The whole number from 0 to [`INTEGER_MAX`] that `number` is, if it is one.
#[must_use]
pub fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=INTEGER_MAX).contains(&number);
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, not negative and at most 2^53, so the conversion is exact"
    )]
    is_whole.then_some(number as u64)
}

/// Appends `/` and one key to a JSON Pointer for an error message: escaped as RFC 6901 asks, cut to
/// the bounds of this module, and with `?` for whatever is not printable ASCII.
pub fn push_pointer(pointer: &mut String, key: &str) {
    let is_full = |pointer: &String| pointer.len() + "/~0..".len() > POINTER_BYTES_MAX;
    if is_full(pointer) {
        return;
    }
    pointer.push('/');
    for (index, character) in key.chars().enumerate() {
        if index >= POINTER_KEY_CHARS_MAX || is_full(pointer) {
            pointer.push_str("..");
            return;
        }
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            ' '..='~' => pointer.push(character),
            _ => pointer.push('?'),
        }
    }
}

impl serde::Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Number(number) => serialize_number(*number, serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(elements) => serializer.collect_seq(elements),
            Self::Object(members) => serializer.collect_map(members),
        }
    }
}

/// A whole number is written without a fraction, as it most likely came.
fn serialize_number<S: serde::Serializer>(number: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() <= INTEGER_MAX {
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            reason = "whole and within 2^53, so the conversion is exact"
        )]
        return serializer.serialize_i64(number as i64);
    }
    serializer.serialize_f64(number)
}
