//! One member of a document at a time: into a type that cannot be wrong, or a [`Refusal`] that
//! names it.
//!
//! Whatever another sidecar wrote is read with this: packets, manifests, envelopes, handshakes,
//! notices, phase frames. What deliberately is not here: reports, whose shape their profile says.

use std::collections::BTreeMap;

use super::canonical::{Json, push_pointer, whole};
use super::digest::Digest;
use super::drift::Fraction;
use super::packet::{RuntimeId, WORD_BYTES_MAX, is_text};
use super::refusal::Refusal;
use super::time::Timestamp;

/// The members of one object and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    members: &'a BTreeMap<String, Json>,
    pointer: &'static str,
    /// Whether unknown members are refused.
    is_closed: bool,
}

impl<'a> Fields<'a> {
    /// `members` of the object at `pointer`, closed.
    pub(super) fn new(members: &'a BTreeMap<String, Json>, pointer: &'static str) -> Self {
        Self { members, pointer, is_closed: true }
    }

    /// The members of a whole document, closed.
    pub(super) fn of(document: &'a Json) -> Result<Self, Refusal> {
        let members = document.as_object();
        let members = members.ok_or_else(|| Refusal::malformed("/", "must be a JSON object"))?;
        Ok(Self::new(members, ""))
    }

    /// The same, where unknown members are refused or not; it holds for objects within, too.
    pub(super) fn closed(self, is_closed: bool) -> Self {
        Self { is_closed, ..self }
    }

    /// What is said of a member that is wrong.
    pub(super) fn refuse(&self, name: &str, problem: &str) -> Refusal {
        let mut field = self.pointer.to_owned();
        push_pointer(&mut field, name);
        Refusal::malformed(&field, problem)
    }

    /// Refuses every member that is not `known`, where the object is closed.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        let unknown = self.members.keys().find(|name| !known.contains(&name.as_str()));
        match unknown {
            Some(name) if self.is_closed => Err(self.refuse(name, "unknown field")),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads a member that may be absent; null counts as absent.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self, &str) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        match self.members.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(_) => read(self, name).map(Some),
        }
    }

    /// Whether the member is there, null included.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    fn member(&self, name: &str) -> Result<&'a Json, Refusal> {
        self.members.get(name).ok_or_else(|| self.refuse(name, "missing"))
    }

    /// The object of a member, which stands at `pointer`.
    pub(super) fn object(&self, name: &str, pointer: &'static str) -> Result<Self, Refusal> {
        let members =
            self.member(name)?.as_object().ok_or_else(|| self.refuse(name, "must be an object"))?;
        Ok(Self { members, pointer, is_closed: self.is_closed })
    }

    /// The elements of an array.
    pub(super) fn array(&self, name: &str) -> Result<&'a [Json], Refusal> {
        self.member(name)?.as_array().ok_or_else(|| self.refuse(name, "must be an array"))
    }

    /// Text of 1 to `bytes_max` bytes without control characters.
    pub(super) fn text(&self, name: &str, bytes_max: usize) -> Result<&'a str, Refusal> {
        let text =
            self.member(name)?.as_str().ok_or_else(|| self.refuse(name, "must be a string"))?;
        if !is_text(text, bytes_max) {
            let problem =
                format!("must be 1 to {bytes_max} bytes of text without control characters");
            return Err(self.refuse(name, &problem));
        }
        Ok(text)
    }

    /// Text that means something; `must` says what it has to be.
    pub(super) fn made<T>(
        &self,
        name: &str,
        must: &str,
        make: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Refusal> {
        self.member(name)?.as_str().and_then(make).ok_or_else(|| self.refuse(name, must))
    }

    /// One of `words`.
    pub(super) fn word<T>(
        &self,
        name: &str,
        words: &str,
        known: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Refusal> {
        let unknown = || self.refuse(name, &format!("must be one of {words}"));
        known(self.text(name, WORD_BYTES_MAX)?).ok_or_else(unknown)
    }

    /// A SHA-256.
    pub(super) fn digest(&self, name: &str) -> Result<Digest, Refusal> {
        self.made(name, Digest::RULE, Digest::parse)
    }

    /// A runtime id.
    pub(super) fn runtime_id(&self, name: &str) -> Result<RuntimeId, Refusal> {
        self.made(name, RuntimeId::RULE, RuntimeId::new)
    }

    /// An instant.
    pub(super) fn time(&self, name: &str) -> Result<Timestamp, Refusal> {
        self.made(name, Timestamp::RULE, Timestamp::parse)
    }

    /// A finite number.
    pub(super) fn number(&self, name: &str) -> Result<f64, Refusal> {
        self.member(name)?.as_f64().ok_or_else(|| self.refuse(name, "must be a number"))
    }

    /// A whole number from 0 to 2^53.
    pub(super) fn whole(&self, name: &str) -> Result<u64, Refusal> {
        let number = self.number(name)?;
        whole(number).ok_or_else(|| self.refuse(name, "must be a whole number from 0 to 2^53"))
    }

    /// A number from 0 to 1.
    pub(super) fn fraction(&self, name: &str) -> Result<Fraction, Refusal> {
        Fraction::new(self.number(name)?).ok_or_else(|| self.refuse(name, "must be from 0 to 1"))
    }

    /// A boolean.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        self.member(name)?.as_bool().ok_or_else(|| self.refuse(name, "must be true or false"))
    }
}
