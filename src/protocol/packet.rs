//! Wire types of SRIP-05 section 3, one field per field of the specification, and their words.
//!
//! Names and order follow the specification so that the difference can be read by eye. Parsing
//! into these types checks every range; a value that exists is a value that may be reasoned about.
//! What deliberately is not here: signatures are checked in `seal.rs`, authority in `bridge.rs`.

use core::fmt;
use std::borrow::Cow;
use std::sync::Arc;

use super::digest::Digest;
use super::drift::{DriftIndex, DriftParts, Fraction};
use super::time::Timestamp;

/// The one protocol version that is written. Any `1.x` is read (SRIP-05 section 5).
pub const PROTOCOL_VERSION: &str = "1.0";
/// IRI of the packet's JSON-LD context. A name, not an address that anybody has to fetch: the
/// document is `deploy/context.jsonld`, and every sidecar serves it at `/context.jsonld`.
pub const CONTEXT: &str = "urn:driftgate:context:v1";
/// Longest runtime id, in bytes: one NATS token.
pub const RUNTIME_ID_BYTES_MAX: usize = 64;
/// Longest free string leaf that is read or written (attractor id, summary hash), in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Longest word leaf that is read (phase, `aegida_status`, version), in bytes.
pub const WORD_BYTES_MAX: usize = 32;
/// Largest packet that is written or read, in bytes: a packet has 20 short leaves, so anything
/// larger is not one.
pub const PACKET_BYTES_MAX: usize = 16 * 1024;

/// The identity of a runtime: one NATS subject token, `[A-Za-z0-9_-]`, 1 to 64 bytes. A copy costs
/// nothing: every packet line holds one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuntimeId(Arc<str>);

impl RuntimeId {
    /// What a runtime id must be, for error messages.
    pub const RULE: &str = "must be 1 to 64 of A-Z a-z 0-9 _ -";

    /// `None` when `text` is not one NATS token of the allowed characters and length.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        ((1..=RUNTIME_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed))
            .then(|| Self(text.into()))
    }

    /// The token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuntimeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl serde::Serialize for RuntimeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Whether a free string leaf may stand in a packet: 1 to `bytes_max` bytes, no control characters
/// (it is shown in terminals).
#[must_use]
pub fn is_text(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Macro posture of SRIP-05 section 9, mildest first. [`Posture::Unknown`] refuses.
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
    schemars::JsonSchema,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Posture {
    /// May transmit, by its drift index.
    Stable,
    /// A phase word that no table knows, or none.
    Unknown,
    /// May not transmit.
    Reflective,
    /// May not transmit and is isolated.
    Recenter,
}

impl Posture {
    /// The word used in replies and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// The macro posture of a phase word, upper or lower case.
    #[must_use]
    pub fn of_phase(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "forming" | "initializing" | "stable" => Self::Stable,
            "crystallization" | "reflection" | "reflective" | "transitional" => Self::Reflective,
            "critical" | "dissolved" | "dissolving" | "fragmenting" | "recenter" | "recovery" => {
                Self::Recenter
            }
            _ => Self::Unknown,
        }
    }
}

/// The two phase words that a packet can carry: any other posture may not transmit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Phase {
    /// An attractor that is still forming.
    Forming,
    /// A settled attractor.
    Stable,
}

impl Phase {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// The wire word for a phase that a stable runtime reported; `None` for every other posture.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "forming" | "initializing" => Some(Self::Forming),
            "stable" => Some(Self::Stable),
            _ => None,
        }
    }
}

/// Attractor type (SRIP-02 section 4).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    schemars::JsonSchema,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum AttractorType {
    /// Adversarial.
    Adversarial,
    /// Generative.
    Generative,
    /// Reflective: a type, not the phase of the same name.
    Reflective,
    /// Symbolic.
    Symbolic,
    /// Synthetic.
    Synthetic,
}

impl AttractorType {
    /// The five words, for error messages.
    pub const WORDS: &str = "adversarial, generative, reflective, symbolic, synthetic";

    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// Reads one of [`Self::WORDS`]; `None` for anything else.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

/// `header` of SRIP-05 section 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `1.x`; always [`PROTOCOL_VERSION`] on packets that we write.
    pub protocol_version: Cow<'static, str>,
    /// Who publishes. Equal to the source token of the subject.
    pub source_runtime_id: RuntimeId,
    /// Who it is for. Equal to the target token of the subject.
    pub target_runtime_id: RuntimeId,
    /// When the sidecar judged its report.
    pub timestamp: Timestamp,
}

/// `payload.attractor_state` of SRIP-05 section 3.
#[derive(Clone, Debug, PartialEq)]
pub struct AttractorState {
    /// Attractor id, at most [`TEXT_BYTES_MAX`] bytes.
    pub id: String,
    /// Attractor type.
    pub kind: AttractorType,
    /// Stability, 0 to 1.
    pub stability: Fraction,
    /// Phase word; on packets that we write `forming` or `stable`.
    pub phase: String,
}

/// `payload.memory_snapshot` of SRIP-05 section 3. Absent in minimal exchange mode.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySnapshot {
    /// Digest of the newest stored snapshot's plain bytes.
    pub summary_hash: Digest,
    /// Retention index of SRIP-04, 0 to 1.
    pub retention_index: Fraction,
}

/// `payload.safety_flags` of SRIP-05 section 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetyFlags {
    /// `nominal` on every packet that may travel.
    pub aegida_status: String,
    /// Always false on packets that may travel.
    pub phase_lock: bool,
    /// Always false on packets that may travel.
    pub recenter_active: bool,
}

/// `payload` of SRIP-05 section 3: what is the same for every target, encoded once per report.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    /// Attractor state, without `scr`, which stands in `drift`.
    pub attractor_state: AttractorState,
    /// `sdi`, `sv`, `pd` of `drift_metrics` and `scr` of `attractor_state`.
    pub drift: DriftParts,
    /// `drift_metrics.di`. On packets that we write: the formula over `drift`.
    pub di: DriftIndex,
    /// Link to the newest snapshot, if there is one.
    pub memory_snapshot: Option<MemorySnapshot>,
    /// Safety flags.
    pub safety_flags: SafetyFlags,
}

/// A SigmaPacket of SRIP-05 section 3 without its signature.
#[derive(Clone, Debug, PartialEq)]
pub struct StatePacket {
    /// Version, addresses and time.
    pub header: Header,
    /// The state.
    pub payload: Payload,
}

/// `signature` of SRIP-05 section 3, as it stands on the wire. `keyring.rs` says what it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Over the canonical bytes of `{header, payload}`.
    pub checksum: Digest,
    /// `<alg>:<key-id>:<seq>:<tag>`.
    pub integrity_token: String,
}
