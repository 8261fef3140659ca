//! Sign and verify; only here can a sealed or verified packet be made.

use bytes::Bytes;

use super::gate::{Clearance, Reason};
use super::packet::{Header, Payload, RuntimeId, StatePacket};

/// Why an inbound packet was refused, sorted by whose fault it is (DESIGN section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Cannot be parsed, or breaks the shape of SRIP-05 section 3.
    Malformed,
    /// Another major version.
    Incompatible,
    /// Checksum or tag is wrong, or the key is unknown.
    Forged,
    /// Subject and header disagree, or it is for somebody else.
    Misaddressed,
    /// Too old, or too far in the future.
    Expired,
    /// A sequence number below one already seen.
    Replayed,
    /// The source is not listed, not for import, or its authorisation has expired.
    Unauthorised,
    /// The packet itself says that its source should not have sent it.
    Unstable,
}

/// A refusal with its detail, for the quarantine header and the log. Never carries packet text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .fault.word())]
pub struct Refusal {
    /// Whose fault.
    pub fault: Fault,
    /// What exactly, naming the field.
    pub detail: String,
}

impl Fault {
    /// The metric label and the first word of `Driftgate-Reason`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Incompatible => "incompatible",
            Self::Forged => "forged",
            Self::Misaddressed => "misaddressed",
            Self::Expired => "expired",
            Self::Replayed => "replayed",
            Self::Unauthorised => "unauthorised",
            Self::Unstable => "unstable",
        }
    }
}

/// The keys: one to sign with, all to verify with. Its `Debug` shows key ids only.
#[derive(Clone, Debug)]
pub struct Keyring {}

/// A payload in canonical bytes, encoded once per report. `memory_snapshot` is present or not.
#[derive(Clone, Debug)]
pub struct EncodedPayload {}

impl EncodedPayload {
    /// Encodes the payload; `full` keeps `memory_snapshot`, minimal exchange drops it.
    #[must_use]
    pub fn new(_payload: &Payload, _full: bool) -> Self {
        Self {}
    }
}

/// A packet that passed inspection and is signed. There is no other way to make one.
#[derive(Clone, Debug)]
pub struct Sealed {
    target: RuntimeId,
    seq: u64,
    checksum: String,
    bytes: Bytes,
}

impl Sealed {
    /// Who it is for.
    #[must_use]
    pub fn target(&self) -> &RuntimeId {
        &self.target
    }
    /// Sequence number in its integrity token.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
    /// `sha256:` and 64 hex digits.
    #[must_use]
    pub fn checksum(&self) -> &str {
        &self.checksum
    }
    /// The RFC 8785 bytes that go on the wire.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// A packet whose shape, checksum and tag are right. Freshness, address and authority are
/// `bridge.rs`'s to judge.
#[derive(Clone, Debug)]
pub struct Verified {
    packet: StatePacket,
    key_id: String,
    seq: u64,
}

impl Verified {
    /// The packet.
    #[must_use]
    pub fn packet(&self) -> &StatePacket {
        &self.packet
    }
    /// The key that signed it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
    /// Its sequence number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

impl Keyring {
    /// Inspects and signs one packet (SRIP-06 section 2.1, SPEC R26, R58).
    ///
    /// # Errors
    /// [`Reason::InspectionFailed`] or [`Reason::Unfillable`]: nothing was made.
    pub fn seal(
        &self,
        _clearance: &Clearance,
        header: &Header,
        _payload: &EncodedPayload,
        seq: u64,
    ) -> Result<Sealed, Reason> {
        let _ = (header, seq);
        Err(Reason::InspectionFailed)
    }

    /// Parses and verifies wire bytes.
    ///
    /// # Errors
    /// [`Refusal`] with `Malformed`, `Incompatible` or `Forged`.
    pub fn open(&self, _bytes: &[u8]) -> Result<Verified, Refusal> {
        Err(Refusal { fault: Fault::Malformed, detail: String::new() })
    }
}

/// Why a packet's own content says that its source should not have sent it; `None` when it may
/// have.
#[must_use]
pub fn unstable(packet: &StatePacket, block: f64) -> Option<String> {
    let _ = (packet, block);
    None
}
