//! Keys that a profile does not know: a slip of the pen must not go unnoticed where it would take a
//! warning away.

use std::collections::BTreeMap;

use super::super::canonical::Json;
use super::read::{Malformed, malformed, printable, unknown_key};
use super::spec::Profile;

/// Most ignored keys that are named to the runtime.
pub(super) const IGNORED_MAX: usize = 16;
/// Keys shorter than this are too easily near each other.
const NEAR_CHARS_MIN: usize = 6;
/// Letters put in, left out, changed or swapped that still make a near miss.
const NEAR_DISTANCE_MAX: usize = 2;

/// The known key that `key` was perhaps meant to be.
fn meant<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |known: &&str| {
        known.len().min(key.len()) >= NEAR_CHARS_MIN
            && known.len().abs_diff(key.len()) <= NEAR_DISTANCE_MAX
            && strsim::osa_distance(&key.to_ascii_lowercase(), known) <= NEAR_DISTANCE_MAX
    };
    known.filter(near).min_by_key(|known| strsim::osa_distance(key, known))
}

/// Objects whose keys are all known: any other key is an error.
pub(super) fn refuse_unknown(profile: &Profile, document: &Json) -> Result<(), Malformed> {
    for (pointer, known) in &profile.closed_objects {
        let members = match pointer.find(document) {
            None => continue,
            Some(Json::Object(members)) => members,
            Some(_) => return Err(malformed(pointer.as_str(), "must be an object")),
        };
        if let Some(key) = members.keys().find(|key| !known.contains(key)) {
            let problem = match meant(key, known.iter().map(String::as_str)) {
                Some(meant) => format!("unknown key; did you mean `{meant}`?"),
                None => format!("unknown key; known are {}", known.join(", ")),
            };
            return Err(unknown_key(pointer.as_str(), key, problem));
        }
    }
    Ok(())
}

/// Top-level keys that are the runtime's own affair. One that is nearly a known one, or that
/// belongs among the safety flags, is an error.
pub(super) fn ignored(
    profile: &Profile,
    members: &BTreeMap<String, Json>,
) -> Result<Vec<String>, Malformed> {
    let mut ignored = Vec::new();
    if profile.top_level.is_empty() {
        return Ok(ignored);
    }
    for key in members.keys().filter(|key| !profile.top_level.contains(key)) {
        let near = meant(key, profile.top_level.iter().map(String::as_str));
        let flags = profile.safety_pointers();
        let flag = flags.iter().find(|flag| meant(key, core::iter::once(flag.last())).is_some());
        if let Some(meant) = near.or_else(|| flag.map(|flag| flag.as_str())) {
            let problem = format!("unknown key; did you mean `{meant}`?");
            return Err(unknown_key("", key, problem));
        }
        if ignored.len() < IGNORED_MAX {
            ignored.push(printable(key));
        }
    }
    Ok(ignored)
}
