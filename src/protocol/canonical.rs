//! Values and their RFC 8785 bytes.

use std::collections::BTreeMap;

/// A JSON value without duplicates, without non-finite numbers, at most 32 levels deep.
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
    Array(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}
