//! The rooms where profiles lie: three built in, the rest in files of the operator's.
//!
//! This module finds and parses them. What a profile may say is decided in
//! `protocol/profile/text.rs`, what it means in `protocol/profile.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::LazyLock;

use crate::protocol::canonical::Json;
use crate::protocol::profile::{Profile, ProfileFault, ProfileText};

/// Largest profile file, in bytes: a profile is a page, so anything larger is not one.
pub const PROFILE_BYTES_MAX: u64 = 64 * 1024;

/// Name and text of the built-in profiles, in the order in which [`recognise`] tries them.
const BUILT_IN: [(&str, &str); 3] = [
    ("srip-05", include_str!("../config/profiles/srip-05.toml")),
    ("reference-0.3", include_str!("../config/profiles/reference-0.3.toml")),
    ("reference-0.1", include_str!("../config/profiles/reference-0.1.toml")),
];

static PARSED: LazyLock<Vec<Profile>> =
    LazyLock::new(|| BUILT_IN.iter().filter_map(|(_, text)| parse(text).ok()).collect());

/// Why a profile could not be had; always the configuration's fault.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// Neither a built-in name nor a file.
    #[error("`{0}` is neither a built-in profile ({names}) nor a file", names = names().join(", "))]
    Unknown(String),
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// As given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than [`PROFILE_BYTES_MAX`].
    #[error("{0}: larger than {PROFILE_BYTES_MAX} bytes, so it is no profile")]
    TooLarge(String),
    /// The file is no profile.
    #[error("{path}: {fault}")]
    Invalid {
        /// As given.
        path: String,
        /// What is wrong, naming line or key.
        fault: ParseFault,
    },
}

/// Why a text is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ParseFault {
    /// Not TOML, an unknown key, or a value of a wrong type.
    #[error("line {line}: {problem}")]
    Text {
        /// Line, counted from 1.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// The keys are there, and what they say cannot be used.
    #[error(transparent)]
    Meaning(#[from] ProfileFault),
}

/// Names of the built-in profiles.
#[must_use]
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

/// Parses a profile from TOML.
///
/// # Errors
/// [`ParseFault`]: the author's fault; it names the line or the key.
pub fn parse(text: &str) -> Result<Profile, ParseFault> {
    let read: ProfileText = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ParseFault::Text { line, problem: error.message().to_owned() }
    })?;
    Ok(Profile::try_from(read)?)
}

/// The profile that `runtime.profile` names: a built-in one, else a file.
///
/// # Errors
/// [`LoadFault`]: the configuration's fault; it names the file.
pub fn load(name: &str) -> Result<Profile, LoadFault> {
    if let Some(profile) = PARSED.iter().find(|profile| profile.name() == name) {
        return Ok(profile.clone());
    }
    let unreadable = |source| LoadFault::Unreadable { path: name.to_owned(), source };
    if !Path::new(name).is_file() {
        return Err(LoadFault::Unknown(name.to_owned()));
    }
    let mut text = String::new();
    let file = File::open(name).map_err(unreadable)?;
    let read = file.take(PROFILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(read).is_ok_and(|read| read > PROFILE_BYTES_MAX) {
        return Err(LoadFault::TooLarge(name.to_owned()));
    }
    parse(&text).map_err(|fault| LoadFault::Invalid { path: name.to_owned(), fault })
}

/// The built-in profile whose shape a document has, judged by content alone.
#[must_use]
pub fn recognise(document: &Json) -> Option<Profile> {
    PARSED.iter().find(|profile| profile.recognises(document)).cloned()
}
