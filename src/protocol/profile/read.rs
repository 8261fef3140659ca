//! One field at a time: from JSON to a type that cannot be wrong, or a [`Malformed`] that names the
//! field.

use super::super::canonical::{Json, push_pointer, whole};
use super::super::drift::{Coherence, DriftIndex, Fraction};
use super::super::packet::TEXT_BYTES_MAX;
use super::pointer::{Pointer, Pointers};
use super::spec::Words;

/// What an attractor id must be, for error messages.
pub(super) const ID_RULE: &str = "must be 1 to 256 bytes of text without control characters";

/// Longest key name that is repeated to its sender, in characters: a key may hold anything.
const KEY_CHARS_MAX: usize = 64;

/// A report that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// JSON Pointer of the field at fault, `/` for the whole document.
    pub field: String,
    /// What is wrong, and what would be right.
    pub problem: String,
    /// Bytes at the end of `field` that are a key which the profile does not know: the runtime's
    /// own words.
    pub key_bytes: usize,
}

impl Malformed {
    /// `field` as far as the profile knows it.
    #[must_use]
    pub fn known_field(&self) -> &str {
        let known = self.field.len().saturating_sub(self.key_bytes);
        self.field.get(..known).unwrap_or_default()
    }
}

/// What every malformed report is made with.
pub(super) fn malformed(field: impl Into<String>, problem: impl Into<String>) -> Malformed {
    Malformed { field: field.into(), problem: problem.into(), key_bytes: 0 }
}

/// The same for a key of `object` that the profile does not know.
pub(super) fn unknown_key(object: &str, key: &str, problem: String) -> Malformed {
    let mut field = object.to_owned();
    push_pointer(&mut field, key);
    let key_bytes = field.len() - object.len();
    Malformed { field, problem, key_bytes }
}

/// Whether `text` may be an attractor id ([`ID_RULE`]).
pub(super) fn is_id(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A key name that can be shown: bounded, without control characters.
pub(super) fn printable(key: &str) -> String {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    key.chars().take(KEY_CHARS_MAX).map(shown).collect()
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

fn wrong(pointer: &Pointer, expected: &str, json: &Json) -> Malformed {
    malformed(pointer.as_str(), format!("must be {expected}, is {}", kind(json)))
}

/// Finds a number and gives it to `accept`.
fn number<T>(
    document: &Json,
    from: Option<&Pointers>,
    rule: &str,
    accept: impl Fn(f64) -> Option<T>,
) -> Result<Option<T>, Malformed> {
    match from.and_then(|from| from.find(document)) {
        None => Ok(None),
        Some((pointer, Json::Number(number))) => accept(*number)
            .map(Some)
            .ok_or_else(|| malformed(pointer.as_str(), format!("must be {rule}, is {number:?}"))),
        Some((pointer, other)) => Err(wrong(pointer, "a number", other)),
    }
}

pub(super) fn fraction(
    document: &Json,
    from: Option<&Pointers>,
) -> Result<Option<Fraction>, Malformed> {
    number(document, from, "between 0 and 1", Fraction::new)
}

pub(super) fn coherence(
    document: &Json,
    from: Option<&Pointers>,
) -> Result<Option<Coherence>, Malformed> {
    number(document, from, "above 0 and at most 1", Coherence::new)
}

pub(super) fn index(
    document: &Json,
    from: Option<&Pointers>,
) -> Result<Option<DriftIndex>, Malformed> {
    number(document, from, "0 or more", DriftIndex::new)
}

pub(super) fn cycle(document: &Json, from: Option<&Pointers>) -> Result<Option<u64>, Malformed> {
    number(document, from, "a whole number from 0 to 2^53", whole)
}

pub(super) fn flag(document: &Json, from: Option<&Pointers>) -> Result<bool, Malformed> {
    match from.and_then(|from| from.find(document)) {
        None => Ok(false),
        Some((_, Json::Bool(flag))) => Ok(*flag),
        Some((pointer, other)) => Err(wrong(pointer, "true or false", other)),
    }
}

pub(super) fn text<'a>(document: &'a Json, from: &Pointers) -> Result<Option<&'a str>, Malformed> {
    match from.find(document) {
        None => Ok(None),
        Some((_, Json::String(text))) => Ok(Some(text)),
        Some((pointer, other)) => Err(wrong(pointer, "a string", other)),
    }
}

/// An attractor id or label.
pub(super) fn id<'a>(document: &'a Json, from: &Pointers) -> Result<Option<&'a str>, Malformed> {
    match from.find(document) {
        Some((pointer, Json::String(id))) if !is_id(id) => {
            Err(malformed(pointer.as_str(), ID_RULE))
        }
        Some(_) | None => text(document, from),
    }
}

/// A word of a vocabulary as it was found.
pub(super) enum Word<'a, T> {
    /// There is none.
    Absent,
    /// Its meaning.
    Known(T),
    /// Nobody knows the word that stands here.
    Unknown(&'a Pointer),
}

impl<T> Word<'_, T> {
    /// The meaning, where a word outside the vocabulary is an error.
    pub(super) fn closed(self, vocabulary: &str) -> Result<Option<T>, Malformed> {
        match self {
            Self::Absent => Ok(None),
            Self::Known(meaning) => Ok(Some(meaning)),
            Self::Unknown(pointer) => {
                Err(malformed(pointer.as_str(), format!("must be one of {vocabulary}")))
            }
        }
    }
}

/// Reads a word: the profile's table first, then the specification's own words.
pub(super) fn word<'a, T: Clone>(
    document: &Json,
    words: Option<&'a Words<T>>,
    known: impl Fn(&str) -> Option<T>,
) -> Result<Word<'a, T>, Malformed> {
    let Some(words) = words else { return Ok(Word::Absent) };
    let (pointer, word) = match words.from.find(document) {
        None => return Ok(Word::Absent),
        Some((pointer, Json::String(word))) => (pointer, word.to_ascii_lowercase()),
        Some((pointer, other)) => return Err(wrong(pointer, "a string", other)),
    };
    let meaning = words.map.get(&word).cloned().or_else(|| known(&word));
    Ok(meaning.or_else(|| words.otherwise.clone()).map_or(Word::Unknown(pointer), Word::Known))
}

/// Words of a list, of which the first `limit` are looked at.
pub(super) fn list<'a>(
    document: &'a Json,
    from: &Pointers,
    limit: usize,
) -> Result<Option<Vec<&'a str>>, Malformed> {
    let (pointer, items) = match from.find(document) {
        None => return Ok(None),
        Some((pointer, Json::Array(items))) => (pointer, items),
        Some((pointer, other)) => return Err(wrong(pointer, "an array of strings", other)),
    };
    let words = items.iter().take(limit).map(|item| {
        let Json::String(word) = item else {
            return Err(malformed(pointer.as_str(), "must be an array of strings"));
        };
        Ok(word.as_str())
    });
    words.collect::<Result<_, _>>().map(Some)
}
