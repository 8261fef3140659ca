//! Presence: what each sidecar says of itself in the KV bucket `driftgate-presence`.
//!
//! An entry is state-free: it says who is there, in which band and why, and nothing of the runtime.
//! It is signed in a domain of its own, and one that does not verify under its owner's key counts
//! as absent. Who of several instances holds a name is decided in
//! `lease.rs`, when an entry is written in `bridge/presence.rs`. What deliberately is not here: the
//! bucket.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::document;
use super::gate::{Band, Mode};
use super::keyring::{Domain, Keyring};
use super::packet::{RuntimeId, WORD_BYTES_MAX, is_text};
use super::reason::Reason;
use super::refusal::{Fault, Refusal};
use super::time::Timestamp;

mod lease;

pub use lease::{Fence, Lease, LeaseStep, Reading};

/// How long an entry counts after it was written. A broker that can expires it by itself.
pub const TTL: Duration = Duration::from_secs(35);
/// How often it is written anew, give or take a tenth.
pub const REFRESH: Duration = Duration::from_secs(10);
/// How often the entries of peers are read.
pub const PEERS_INTERVAL: Duration = Duration::from_secs(60);
/// Longest entry that is read, in bytes: every reason there is takes a quarter of it.
pub const ENTRY_BYTES_MAX: usize = 8 * 1024;
/// Reasons that are read from one entry.
const REASONS_MAX: usize = 128;

/// One life of one sidecar: 128 random bits, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(u128);

impl Instance {
    /// From random bits, which the caller has to have.
    #[must_use]
    pub const fn new(random: u128) -> Self {
        Self(random)
    }

    /// Reads 32 lower-case hex digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let instance = Self(u128::from_str_radix(text, 16).ok()?);
        (instance.to_string() == text).then_some(instance)
    }
}

/// Who it is that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// This life of the sidecar.
    pub instance: Instance,
    /// Version of the sidecar.
    pub version: String,
}

/// What the broker has under a key, before anyone believes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its sequence number on the bucket's stream; 0 when nothing stands there.
    pub revision: u64,
    /// The bytes; `None` where nothing stands, or the marker of what was removed.
    pub bytes: Option<Bytes>,
}

impl fmt::Display for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl Serialize for Instance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("must be 32 hex digits"))
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// Whose.
    pub runtime_id: RuntimeId,
    /// Whether what the gate lets through is exported at all.
    pub mode: Mode,
    /// Where the gate stands.
    pub band: Band,
    /// Why, in words of [`Reason`]; a later minor may have more of them.
    pub reasons: Vec<String>,
    /// Since when the gate stands there.
    pub since: Timestamp,
    /// Restarts of the runtime that this instance has seen.
    pub epoch: u64,
    /// Whether an operator holds it.
    pub hold: bool,
    /// Which life of which sidecar wrote it.
    pub instance: Instance,
    /// What this instance holds the name by: the higher claim wins. Microseconds, at most 2^53.
    pub claim: u64,
    /// Version of the sidecar.
    pub version: String,
    /// When this instance started.
    pub started: Timestamp,
    /// When it was written.
    pub at: Timestamp,
}

/// The same as it is read.
#[derive(Deserialize)]
struct Raw {
    runtime_id: String,
    mode: Mode,
    band: Band,
    reasons: Vec<String>,
    since: String,
    epoch: u64,
    hold: bool,
    instance: Instance,
    claim: u64,
    version: String,
    started: String,
    at: String,
}

/// What a reader makes of an entry, by its age and by what it says.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    schemars::JsonSchema,
    Serialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Condition {
    /// Somebody is there.
    Live,
    /// It is older than an entry lasts: its writer is gone or cut off.
    Stale,
    /// The last one before a cut: the sidecar is isolated, or has stopped.
    Cut,
}

impl Presence {
    /// The signed bytes to store; `None` when the ring cannot sign.
    #[must_use]
    pub fn sign(&self, keyring: &Keyring) -> Option<Vec<u8>> {
        document::sign(keyring, Domain::Presence, self.at.unix_us(), self)
    }

    /// Reads what stands under the key of `owner`. `signer` is the one key that may speak for it;
    /// without one, every key of the ring may. Members that are not known are ignored.
    ///
    /// # Errors
    /// [`Refusal`] with `Malformed`, `Forged` or `Misaddressed`: the entry counts as absent.
    pub fn open(
        keyring: &Keyring,
        signer: Option<&str>,
        owner: &RuntimeId,
        bytes: &[u8],
    ) -> Result<Self, Refusal> {
        let proved = document::open(keyring, Domain::Presence, bytes, ENTRY_BYTES_MAX)?;
        if signer.is_some_and(|signer| signer != proved.key_id) {
            return Err(Refusal::forged("/signature/integrity_token: not a key of the owner"));
        }
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| Refusal::malformed("/", &format!("no presence entry: {error}")))?;
        let presence = raw.parse()?;
        if presence.runtime_id != *owner {
            let detail = "/runtime_id: not the key that it stands under".to_owned();
            return Err(Refusal { fault: Fault::Misaddressed, detail });
        }
        Ok(presence)
    }

    /// Whether its writer has said that it stops.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.reasons.iter().any(|reason| reason == Reason::Stopped.word())
    }

    /// What a reader makes of it.
    #[must_use]
    pub fn condition(&self, now: Timestamp) -> Condition {
        if self.band == Band::Isolated || self.has_stopped() {
            Condition::Cut
        } else if now.since(self.at) < TTL {
            Condition::Live
        } else {
            Condition::Stale
        }
    }
}

/// One runtime of a fleet, as `driftgate status --json` and the console show it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// What its sidecar says.
    #[serde(flatten)]
    pub presence: Presence,
    /// Seconds since it said so.
    pub age_s: u64,
    /// What a reader makes of it.
    pub state: Condition,
}

impl Shown {
    /// As it is at `now`.
    #[must_use]
    pub fn at(presence: Presence, now: Timestamp) -> Self {
        let (age_s, state) = (now.since(presence.at).as_secs(), presence.condition(now));
        Self { presence, age_s, state }
    }
}

impl Raw {
    fn parse(self) -> Result<Presence, Refusal> {
        let time = |field: &str, text: &str| {
            Timestamp::parse(text).ok_or_else(|| Refusal::malformed(field, Timestamp::RULE))
        };
        let is_word = |text: &String| is_text(text, WORD_BYTES_MAX);
        if self.reasons.len() > REASONS_MAX || !self.reasons.iter().all(is_word) {
            return Err(Refusal::malformed("/reasons", "must be at most 128 words"));
        }
        if !is_word(&self.version) {
            return Err(Refusal::malformed("/version", "must be a word"));
        }
        Ok(Presence {
            runtime_id: RuntimeId::new(&self.runtime_id)
                .ok_or_else(|| Refusal::malformed("/runtime_id", RuntimeId::RULE))?,
            mode: self.mode,
            band: self.band,
            reasons: self.reasons,
            since: time("/since", &self.since)?,
            epoch: self.epoch,
            hold: self.hold,
            instance: self.instance,
            claim: self.claim,
            version: self.version,
            started: time("/started", &self.started)?,
            at: time("/at", &self.at)?,
        })
    }
}
