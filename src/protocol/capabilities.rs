//! The capability manifest, `runtime_capabilities.yml` (SRIP-05 section 5, SRIP-17 section XI):
//! ours as it is published, the file that narrows it, and those of peers as they are read.
//!
//! SRIP-05 names the file and gives no schema, so the keys are ours. It is published as JSON, which
//! is YAML, with a detached token over its bytes. What deliberately is not here: what follows from
//! a manifest (`exchange.rs`), files, and buckets.

mod schema;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

pub use schema::capabilities as capabilities_schema;

use super::canonical::{Json, push_pointer};
use super::digest::Digest;
use super::document::verify_body;
use super::exchange::{Artifact, ModeReason, Offer, SUPPORTED, Version};
use super::inbox::Peer;
use super::keyring::{Domain, Keyring};
use super::packet::{RuntimeId, TEXT_BYTES_MAX, is_text};
use super::time::Timestamp;

/// Largest manifest that is written or read, in bytes: it is a page.
pub const MANIFEST_BYTES_MAX: usize = 32 * 1024;
/// Most entries of one of its lists.
pub const LIST_LEN_MAX: usize = 16;

const ARTIFACTS: &str = "must be one of state, snapshot, telemetry";

/// What an operator declares in `runtime_capabilities.yml`; the rest the sidecar knows. It can
/// narrow what is offered, and add what only people know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Whom it is about. Another runtime's file is refused.
    pub runtime_id: Option<RuntimeId>,
    /// What is exchanged, of what the sidecar can.
    pub artifact_types: Option<Vec<Artifact>>,
    /// What the exported state is meant to be used for.
    pub scopes: Vec<String>,
    /// Known deviations from the specification.
    pub deviations: Vec<String>,
    /// From when on nobody is to rely on it.
    pub expires: Option<Timestamp>,
}

/// The marks of the gate.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Marks {
    /// A closed gate opens only below; caution begins here.
    pub reopen: f64,
    /// Export ends here.
    pub block: f64,
    /// All exchange ends here.
    pub isolate: f64,
}

/// How long what is exported is kept.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Retention {
    /// Packets on the stream, in seconds.
    pub state_s: u64,
    /// Packets of one source for one target.
    pub state_each: u64,
    /// Snapshots younger than this are never collected, in seconds.
    pub snapshot_s: u64,
    /// Full snapshots that are kept.
    pub snapshot_full: u32,
}

/// The manifest of this runtime, in the order of its keys.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Capabilities {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Every version that is spoken.
    pub protocol_versions: Vec<String>,
    /// The sidecar that speaks for it, with its version.
    pub bridge: String,
    /// Routes of SRIP-05 section 4.
    pub surfaces: Vec<&'static str>,
    /// Media types of documents.
    pub serializations: Vec<&'static str>,
    /// Content codings.
    pub compressions: Vec<&'static str>,
    /// How its packets are signed.
    pub integrity_algs: Vec<&'static str>,
    /// What is exchanged.
    pub artifact_types: Vec<Artifact>,
    /// Who is reached and heard.
    pub authorisation: &'static str,
    /// What the gate does.
    pub gate: &'static str,
    /// Its marks.
    pub thresholds: Marks,
    /// The name of the profile that reads its reports.
    pub profile: String,
    /// The weakest evidence that is exported.
    pub drift_source: &'static str,
    /// How long what is exported is kept.
    pub retention: Retention,
    /// What is audited.
    pub audit: &'static str,
    /// What the exported state is meant to be used for.
    pub scopes: Vec<String>,
    /// Known deviations from the specification.
    pub deviations: Vec<String>,
    /// From when on nobody is to rely on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl Capabilities {
    /// The bytes that are published and signed. Whatever was declared, they fit
    /// [`MANIFEST_BYTES_MAX`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

/// One mistake of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Mistake {
    /// JSON Pointer, `/` for the whole.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

/// Reads an operator's `runtime_capabilities.yml`.
///
/// # Errors
/// Every [`Mistake`] at once; the operator's to mend.
pub fn declared(bytes: &[u8]) -> Result<Declared, Vec<Mistake>> {
    let mut reader = Reader::parse(bytes)?;
    let declared = Declared {
        runtime_id: reader.runtime_id(),
        artifact_types: reader.list("artifact_types", ARTIFACTS, |text| text.parse().ok()),
        scopes: reader.texts("scopes"),
        deviations: reader.texts("deviations"),
        expires: reader.expires(),
    };
    let versions = reader.versions();
    if versions.is_some_and(|versions| versions != [SUPPORTED]) {
        reader.refuse("protocol_versions", &format!("must be [\"{SUPPORTED}\"]"));
    }
    for name in core::mem::take(&mut reader.members).into_keys() {
        reader.refuse(&name, "unknown key");
    }
    if reader.mistakes.is_empty() { Ok(declared) } else { Err(reader.mistakes) }
}

/// What stands in the bucket under a name.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The manifest.
    pub body: &'a [u8],
    /// Its `Driftgate-Token`.
    pub token: Option<&'a str>,
}

/// Judges what stands under a peer's name; `None` is nothing. Numbers above `seq_max` are not
/// believed. Keys that we do not know are ignored: a later minor may have more.
///
/// # Errors
/// Why it counts for nothing.
pub fn offered(
    keyring: &Keyring,
    peer: &Peer,
    found: Option<Found<'_>>,
    now: Timestamp,
    seq_max: u64,
) -> Result<Offer, ModeReason> {
    let Found { body, token } = found.ok_or(ModeReason::NoManifest)?;
    let token = token.ok_or(ModeReason::ManifestUnsigned)?;
    let verified = verify_body(keyring, Domain::Capabilities, token, body);
    let (key_id, seq) = verified.map_err(|_| ModeReason::ManifestForged)?;
    if peer.key_id.as_ref().is_some_and(|pinned| *pinned != key_id) {
        return Err(ModeReason::ManifestForged);
    }
    let invalid = ModeReason::ManifestInvalid;
    let mut reader = Reader::parse(body).map_err(|_| invalid)?;
    let id = reader.runtime_id().ok_or(invalid)?;
    let versions = reader.versions().ok_or(invalid)?;
    // A later minor may exchange what we do not know.
    let artifacts = reader.list("artifact_types", ARTIFACTS, |text| Some(text.parse().ok()));
    let artifacts: Vec<Artifact> = artifacts.into_iter().flatten().flatten().collect();
    let expires = reader.expires();
    if !reader.mistakes.is_empty() {
        return Err(invalid);
    }
    if id != peer.id {
        return Err(ModeReason::ManifestForeign);
    }
    if seq > seq_max || expires.is_some_and(|expires| now >= expires) {
        return Err(ModeReason::ManifestExpired);
    }
    Ok(Offer {
        seq,
        digest: Digest::of(body),
        versions,
        state: artifacts.contains(&Artifact::State),
        snapshot: artifacts.contains(&Artifact::Snapshot),
        expires,
    })
}

/// The members of a manifest that nobody has asked for yet, and what is wrong with the others.
struct Reader {
    members: BTreeMap<String, Json>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn parse(bytes: &[u8]) -> Result<Self, Vec<Mistake>> {
        let whole =
            |field: &str, problem: String| vec![Mistake { field: field.to_owned(), problem }];
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(whole("/", format!("longer than {MANIFEST_BYTES_MAX} bytes")));
        }
        let text = core::str::from_utf8(bytes).map_err(|_| whole("/", "not UTF-8".to_owned()))?;
        match Json::from_yaml(text) {
            Ok(Json::Object(members)) => Ok(Self { members, mistakes: Vec::new() }),
            Ok(_) => Err(whole("/", "must be a table of keys".to_owned())),
            Err(fault) => Err(whole(&fault.field, fault.problem)),
        }
    }

    fn refuse(&mut self, name: &str, problem: &str) {
        let mut field = String::new();
        push_pointer(&mut field, name);
        self.mistakes.push(Mistake { field, problem: problem.to_owned() });
    }

    /// The text of a key, made into something; a mistake unless it can be.
    fn text<T>(&mut self, name: &str, must: &str, make: impl Fn(&str) -> Option<T>) -> Option<T> {
        let found = self.members.remove(name)?;
        let made = found.as_str().and_then(make);
        if made.is_none() {
            self.refuse(name, must);
        }
        made
    }

    /// The entries of a list of texts; every one that is none is a mistake.
    fn list<T>(
        &mut self,
        name: &str,
        must: &str,
        make: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Json::Array(entries) = self.members.remove(name)? else {
            self.refuse(name, "must be a list");
            return None;
        };
        if entries.len() > LIST_LEN_MAX {
            self.refuse(name, &format!("must have at most {LIST_LEN_MAX} entries"));
            return None;
        }
        let mut made = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match entry.as_str().and_then(&make) {
                Some(entry) => made.push(entry),
                None => {
                    let mut field = String::new();
                    push_pointer(&mut field, name);
                    push_pointer(&mut field, &index.to_string());
                    self.mistakes.push(Mistake { field, problem: must.to_owned() });
                }
            }
        }
        Some(made)
    }

    fn runtime_id(&mut self) -> Option<RuntimeId> {
        self.text("runtime_id", RuntimeId::RULE, RuntimeId::new)
    }

    fn expires(&mut self) -> Option<Timestamp> {
        self.text("expires", Timestamp::RULE, Timestamp::parse)
    }

    fn versions(&mut self) -> Option<Vec<Version>> {
        self.list("protocol_versions", Version::RULE, Version::parse)
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        let must = format!("must be 1 to {TEXT_BYTES_MAX} bytes without control characters");
        let text = |text: &str| is_text(text, TEXT_BYTES_MAX).then(|| text.to_owned());
        self.list(name, &must, text).unwrap_or_default()
    }
}
