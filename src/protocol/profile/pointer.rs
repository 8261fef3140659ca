//! JSON Pointers (RFC 6901) of a profile.

use core::fmt;

use super::super::canonical::Json;

/// Deepest pointer: no runtime that was seen nests its metrics deeper than three.
const POINTER_DEPTH_MAX: usize = 8;
/// Most alternatives of one field.
const ALTERNATIVES_MAX: usize = 8;

/// A JSON Pointer to something inside a document; never the whole document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(String);

impl Pointer {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the member that it points at, as written.
    pub(super) fn last(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, last)| last)
    }

    /// The pointer to the object that holds the member, or the member's own at the top level.
    pub(super) fn parent(&self) -> &str {
        match self.0.rsplit_once('/') {
            Some((parent, _)) if !parent.is_empty() => parent,
            Some(_) | None => &self.0,
        }
    }

    /// What it points at. Null counts as absent: a missing metric is missing however it is written.
    #[must_use]
    pub fn find<'a>(&self, document: &'a Json) -> Option<&'a Json> {
        document.pointer(&self.0).filter(|json| **json != Json::Null)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("`{text}` is no JSON Pointer: it must start with `/`"));
        }
        if text.matches('/').count() > POINTER_DEPTH_MAX {
            return Err(format!("`{text}` is deeper than {POINTER_DEPTH_MAX}"));
        }
        Ok(Self(text))
    }
}

/// Pointers tried in order; the first that is present counts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "OneOrMany")]
pub(super) struct Pointers {
    first: Pointer,
    others: Vec<Pointer>,
}

impl Pointers {
    /// The first: it names the field in errors when none is present.
    pub(super) fn first(&self) -> &Pointer {
        &self.first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pointer> {
        core::iter::once(&self.first).chain(&self.others)
    }

    /// The first that is present, and what stands there.
    pub(super) fn find<'a>(&self, document: &'a Json) -> Option<(&Pointer, &'a Json)> {
        self.iter().find_map(|pointer| Some((pointer, pointer.find(document)?)))
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<OneOrMany> for Pointers {
    type Error = String;

    fn try_from(text: OneOrMany) -> Result<Self, String> {
        let texts = match text {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        if texts.len() > ALTERNATIVES_MAX {
            return Err(format!("at most {ALTERNATIVES_MAX} alternatives"));
        }
        let mut pointers = texts.into_iter().map(Pointer::try_from);
        let first = pointers.next().ok_or("at least one JSON Pointer is needed")??;
        Ok(Self { first, others: pointers.collect::<Result<_, _>>()? })
    }
}
