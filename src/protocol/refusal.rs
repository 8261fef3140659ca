//! Why an inbound packet was refused, sorted by whose fault it is.

/// Whose fault it is. Each is one metric label.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
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

impl Fault {
    /// The metric label and the first word of `Driftgate-Reason`.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// A refusal with its detail, for the quarantine header and the log. Never carries packet text:
/// at most the name of a field, cut and in printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .fault.word())]
pub struct Refusal {
    /// Whose fault.
    pub fault: Fault,
    /// What exactly, naming the field.
    pub detail: String,
}

impl Refusal {
    /// A refusal of any fault.
    #[must_use]
    pub fn of(fault: Fault, detail: &str) -> Self {
        Self { fault, detail: detail.into() }
    }

    /// [`Fault::Malformed`] at a JSON Pointer.
    #[must_use]
    pub fn malformed(field: &str, problem: &str) -> Self {
        Self { fault: Fault::Malformed, detail: format!("{field}: {problem}") }
    }

    /// [`Fault::Forged`].
    #[must_use]
    pub fn forged(detail: &str) -> Self {
        Self::of(Fault::Forged, detail)
    }
}
