//! Why the gate stands where it stands, and what a report is remarked upon for.

use strum::EnumMessage as _;

/// Why the gate stands where it stands. Each word is a metric label and never carries data of the
/// runtime.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::EnumMessage,
    strum::IntoStaticStr,
    strum::VariantArray,
    schemars::JsonSchema,
    serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The sidecar has started and has seen no report yet.
    Starting,
    /// The index is in the caution band.
    DiCaution,
    /// The index is at or above `block`.
    DiBlock,
    /// The index is at or above `isolate`.
    DiIsolate,
    /// The index is at or above 0.7.
    DiCritical,
    /// The formula over native parts and the reported index differ by more than 0.005.
    DiMismatch,
    /// The index rose by more than 0.4 since the cycle before.
    DiJump,
    /// The index was at or above `containment.lock`; an operator has to release the gate.
    Locked,
    /// The gate is closed and this report does not yet reopen it.
    Latched,
    /// The runtime says it is reflecting (Reflective posture or phase lock).
    PostureReflective,
    /// The runtime says it is recovering (Recenter posture, recenter active).
    PostureRecenter,
    /// The phase is a word that no table knows.
    PostureUnknown,
    /// `aegida_status` is not `nominal`.
    SafetyStatus,
    /// The sample carries no evidence: first of a derived feed, after an empty reply, a runtime
    /// that is initializing, or an index of exactly 0.
    NoEvidence,
    /// The newest cycle number again, with other content.
    DuplicateCycle,
    /// The cycle number has left some out.
    CycleGap,
    /// A part that the index needs is missing.
    Incomplete,
    /// The report could not be read, or a number is not finite or out of range.
    Invalid,
    /// The drift metrics are weaker evidence than the policy accepts.
    ProvenanceRefused,
    /// No valid report for `stale_after`.
    Stale,
    /// No valid report for `silence_isolates_after`.
    Silent,
    /// Semantic drift has reached the mark of reflection.
    SdiReflective,
    /// Semantic drift has reached the mark of recovery.
    SdiRecovery,
    /// Symbolic variance has reached the mark of reflection.
    SvReflective,
    /// Symbolic variance has reached the mark of recovery.
    SvRecovery,
    /// Phase drift has reached the mark of reflection.
    PdReflective,
    /// Phase drift has reached the mark of recovery.
    PdRecovery,
    /// Coherence has sunk to the mark of reflection.
    ScrReflective,
    /// Coherence has sunk to the mark of recovery.
    ScrRecovery,
    /// Semantic drift is critical.
    SdiCritical,
    /// Symbolic variance is critical.
    SvCritical,
    /// Phase drift is critical.
    PdCritical,
    /// Coherence is critical.
    ScrCritical,
    /// The phase stability index is below 0.6.
    PsiLow,
    /// The phase stability delta is 0.15 or more.
    PsdHigh,
    /// Memory erodes faster than 0.3.
    ErHigh,
    /// Memory is less continuous than 0.8; snapshots are withheld.
    CiLow,
    /// Memory is less coherent than 0.75; snapshots are withheld.
    CcLow,
    /// Stability under 0.5 for more than 3 cycles with weak coherence or strong phase drift.
    Collapse,
    /// Blocked for longer than `isolate_after`.
    BlockedTooLong,
    /// An operator isolated this runtime.
    Operator,
    /// The cycle number fell back: the runtime restarted. The first report after that never opens.
    NewEpoch,
    /// Good reports so far are fewer than `dwell` asks for.
    Dwell,
    /// The gate closed too often in too few cycles.
    Flapping,
    /// A derived feed replaced its attractor; closed until three further cycles have passed.
    GenerationChange,
    /// Caution, and this report is not the one in `caution_every`.
    Throttled,
    /// A packet that was built failed its own inspection.
    InspectionFailed,
    /// The evidence is accepted but cannot fill the twenty leaves of a packet.
    Unfillable,
    /// The broker did not confirm the cut in time; the connection was dropped with its buffer.
    Unconfirmed,
    /// Another live instance of this runtime holds its name; this one waits.
    Twin,
    /// Another instance of this runtime has taken its name over.
    Replaced,
    /// The sidecar stops; the last word of its presence.
    Stopped,
}

impl Reason {
    /// The word used in replies, notices, the audit log and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// What it means, in one sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// Whether it only remarks on something: no band follows from it.
    #[must_use]
    pub fn is_remark(self) -> bool {
        matches!(
            self,
            Self::SdiReflective
                | Self::SdiRecovery
                | Self::SvReflective
                | Self::SvRecovery
                | Self::PdReflective
                | Self::PdRecovery
                | Self::ScrReflective
                | Self::ScrRecovery
                | Self::CiLow
                | Self::CcLow
                | Self::CycleGap
        )
    }
}
