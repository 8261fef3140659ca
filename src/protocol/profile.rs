//! What a runtime emits, translated into a [`StateReport`].

use super::canonical::Json;
use super::drift::{Drift, Fraction};
use super::gate::Reason;
use super::packet::{AttractorType, Posture};

/// One cycle as the core sees it: typed, ranges checked, free of text other than the attractor's
/// id and phase word.
#[derive(Clone, Debug, PartialEq)]
pub struct StateReport {
    /// Cycle number, if the runtime gives one.
    pub cycle: Option<u64>,
    /// Attractor, as far as reported.
    pub attractor: ReportedAttractor,
    /// The worst posture that the phase word and the safety flags name (SPEC A37).
    pub posture: Posture,
    /// Drift metrics and where they came from.
    pub drift: Drift,
    /// Retention index of SRIP-04, reported or derived as SPEC section 4b says.
    pub retention_index: Option<Fraction>,
    /// Whether `aegida_status` is `nominal` (absent counts as nominal; an unknown word does not).
    pub nominal: bool,
    /// Why this report is no evidence, when it is none.
    pub untrusted: Option<Reason>,
}

/// The attractor of a report; every part may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportedAttractor {
    /// Attractor id, at most `packet::TEXT_BYTES_MAX` bytes.
    pub id: Option<String>,
    /// Attractor type; the configured type is used where it is absent.
    pub kind: Option<AttractorType>,
    /// Stability, 0 to 1.
    pub stability: Option<Fraction>,
    /// Phase word as reported, lower-cased, at most 32 bytes.
    pub phase: Option<String>,
}

/// A report that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// JSON Pointer of the field at fault, `/` for the whole document.
    pub field: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Placeholder until the profile engine lands.
#[derive(Clone, Debug)]
pub struct Translator;

impl Translator {
    /// Translates one cycle.
    ///
    /// # Errors
    /// [`Malformed`]: the runtime's fault; it names the field.
    pub fn translate(&mut self, document: &Json) -> Result<StateReport, Malformed> {
        let _ = document;
        Err(Malformed { field: "/".into(), problem: "no profile".into() })
    }
}
