//! The mode of exchange with one peer, decided from what it says it can do (SRIP-05 section 5).
//!
//! Whatever is wrong with a peer's capabilities narrows and nothing widens: a peer that nothing
//! proved is known of is in minimal mode, and one that was rejected stays so until a verified
//! manifest says otherwise. What deliberately is not here: reading the manifest, and what an
//! operator has authorised, which bounds the mode from above.

use core::fmt;

use super::digest::Digest;
use super::refusal::{Fault, Refusal};
use super::time::Timestamp;

/// A protocol version: majors exclude each other, minors interoperate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Only equal ones may exchange anything.
    pub major: u32,
    /// A later one may hold fields that an earlier one does not know.
    pub minor: u32,
}

/// The version that is written, [`PROTOCOL_VERSION`](super::packet::PROTOCOL_VERSION); every minor
/// of its major is read.
pub const SUPPORTED: Version = Version { major: 1, minor: 0 };

impl Version {
    /// What a version must be, for error messages.
    pub const RULE: &str = "must be MAJOR.MINOR";

    /// Reads `MAJOR.MINOR`, decimal numbers without leading zeros.
    ///
    /// ```
    /// use driftgate::protocol::exchange::Version;
    /// assert_eq!(Version::parse("1.7"), Some(Version { major: 1, minor: 7 }));
    /// assert_eq!(Version::parse("1.07"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'));
            plain.then(|| text.parse().ok()).flatten()
        };
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// What may be exchanged.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::VariantArray,
    schemars::JsonSchema,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Artifact {
    /// Packets.
    State,
    /// Memory snapshots.
    Snapshot,
    /// Phase telemetry.
    Telemetry,
}

impl Artifact {
    /// The word in manifests and envelopes.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// How much is exchanged with a peer, least first.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::IntoStaticStr,
    strum::VariantArray,
    schemars::JsonSchema,
    serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ExchangeMode {
    /// Nothing: it speaks no version that we do.
    Rejected,
    /// It does not answer. Shown only: what is exchanged is what was before.
    Unreachable,
    /// Packets without `memory_snapshot`, and no snapshots.
    Minimal,
    /// All that is authorised.
    Full,
}

impl ExchangeMode {
    /// The word in views, answers and the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Why a mode is what it is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::IntoStaticStr,
    strum::VariantArray,
    schemars::JsonSchema,
    serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ModeReason {
    /// Its manifest matches ours.
    Matching,
    /// There is no manifest of it, or none was read yet.
    NoManifest,
    /// Its manifest cannot be read.
    ManifestInvalid,
    /// What stands under its name is another runtime's manifest.
    ManifestForeign,
    /// Its manifest is not signed.
    ManifestUnsigned,
    /// Its manifest is not signed by its key.
    ManifestForged,
    /// Its manifest was for a time that is over.
    ManifestExpired,
    /// Its manifest is older than one that was read before.
    ManifestReplayed,
    /// It speaks other major versions only.
    UnsupportedMajor,
    /// It does not exchange packets and snapshots both.
    LacksArtifact,
    /// It answers no handshake.
    NoAnswer,
}

impl ModeReason {
    /// The word in views, answers and the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// What a verified manifest says, as far as the mode depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Sequence number of its token.
    pub seq: u64,
    /// Of its bytes.
    pub digest: Digest,
    /// Every version that it speaks.
    pub versions: Vec<Version>,
    /// Whether it exchanges packets.
    pub state: bool,
    /// Whether it exchanges memory snapshots.
    pub snapshot: bool,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
}

/// The mode with one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exchange {
    mode: ExchangeMode,
    reason: ModeReason,
    /// Number of the newest manifest that was believed, also before a restart; 0 for none.
    floor: u64,
    /// Digest of the newest manifest that was believed in this life.
    digest: Option<Digest>,
    expires: Option<Timestamp>,
    /// Whether the newest handshake went unanswered.
    silent: bool,
    /// The version of the newest that did not.
    spoken: Option<Version>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            mode: ExchangeMode::Minimal,
            reason: ModeReason::NoManifest,
            floor: 0,
            digest: None,
            expires: None,
            silent: false,
            spoken: None,
        }
    }
}

impl Exchange {
    /// With a peer of which nothing is known but the number of its newest manifest.
    #[must_use]
    pub fn after(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    /// Number of the newest manifest that was believed, to be kept across restarts; 0 for none.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Takes over what was found of the peer's manifest: what it offers, or what is wrong with it.
    pub fn learn(&mut self, found: Result<Offer, ModeReason>) {
        let replayed = |offer: &Offer| {
            // Of the one from before a restart only the number is known.
            let is_other = self.digest.is_some_and(|digest| digest != offer.digest);
            offer.seq < self.floor || (offer.seq == self.floor && is_other)
        };
        match found {
            Ok(offer) if replayed(&offer) => self.narrow(ModeReason::ManifestReplayed),
            Ok(offer) => {
                (self.mode, self.reason) = judge(&offer);
                self.expires = offer.expires;
                (self.floor, self.digest) = (offer.seq, Some(offer.digest));
            }
            Err(reason) => self.narrow(reason),
        }
    }

    /// The peer spoke this version in a handshake, or did not answer one.
    pub fn heard(&mut self, version: Option<Version>) {
        self.silent = version.is_none();
        self.spoken = version.or(self.spoken);
    }

    fn narrow(&mut self, reason: ModeReason) {
        if self.mode > ExchangeMode::Rejected {
            (self.mode, self.reason) = (ExchangeMode::Minimal, reason);
        }
    }

    /// What is exchanged: rejected, minimal or full.
    #[must_use]
    pub fn mode(&self, now: Timestamp) -> ExchangeMode {
        self.standing(now).0
    }

    /// What is shown, with its reason: the mode, or that the peer does not answer.
    #[must_use]
    pub fn shown(&self, now: Timestamp) -> (ExchangeMode, ModeReason) {
        if self.silent {
            return (ExchangeMode::Unreachable, ModeReason::NoAnswer);
        }
        self.standing(now)
    }

    /// Digest of the newest manifest that was believed.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What is exchanged, with its reason.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> (ExchangeMode, ModeReason) {
        if self.spoken.is_some_and(|spoken| spoken.major != SUPPORTED.major) {
            return (ExchangeMode::Rejected, ModeReason::UnsupportedMajor);
        }
        let is_over = self.expires.is_some_and(|expires| now >= expires);
        if is_over && self.mode == ExchangeMode::Full {
            return (ExchangeMode::Minimal, ModeReason::ManifestExpired);
        }
        (self.mode, self.reason)
    }
}

fn judge(offer: &Offer) -> (ExchangeMode, ModeReason) {
    if offer.versions.iter().all(|version| version.major != SUPPORTED.major) {
        (ExchangeMode::Rejected, ModeReason::UnsupportedMajor)
    } else if offer.state && offer.snapshot {
        (ExchangeMode::Full, ModeReason::Matching)
    } else {
        (ExchangeMode::Minimal, ModeReason::LacksArtifact)
    }
}

/// Why a packet of a peer is refused with which nothing is exchanged.
pub(super) fn incompatible() -> Refusal {
    let detail = format!("its manifest names no version {}.x", SUPPORTED.major);
    Refusal { fault: Fault::Incompatible, detail }
}
