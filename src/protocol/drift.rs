//! Drift metrics and the drift index, finite by construction.
//!
//! SRIP-03 section 4: `DI = (SDI + SV + PD) / (3 SCR)`. Higher is worse for all three parts; SCR
//! (semantic coherence) divides, so a part that is missing or out of range makes the index
//! unavailable rather than small.

use core::fmt;

/// A finite number in `0..=1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Fraction(f64);

impl Fraction {
    /// `None` when `number` is not finite or lies outside `0..=1`. `-0.0` becomes `0.0`.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        // Adding positive zero turns -0.0 into 0.0 and leaves every other number as it is.
        (0.0..=1.0).contains(&number).then_some(Self(number + 0.0))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

/// Semantic coherence rate, `0 < scr <= 1`. Never defaulted: a coherence of one that nobody
/// measured would make the index look smaller than it is.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Coherence(f64);

impl Coherence {
    /// `None` when `number` is not finite, not above zero, or above one.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        (number > 0.0 && number <= 1.0).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

/// A drift index: finite and not negative. There is no upper bound, because coherence divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct DriftIndex(f64);

impl DriftIndex {
    /// `None` when `number` is not finite or is negative. `-0.0` becomes `0.0`.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        (number.is_finite() && number >= 0.0).then_some(Self(number + 0.0))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }

    /// The larger of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

impl fmt::Display for DriftIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The four parts of the index (SRIP-05 section 3 `drift_metrics`, with `scr` from the attractor).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DriftParts {
    /// Semantic drift index, 0 to 1, higher is worse. Not symbolic density, which shares the name.
    pub sdi: Fraction,
    /// Symbolic variance, 0 to 1, higher is worse.
    pub sv: Fraction,
    /// Phase (posture) drift, 0 to 1, higher is worse.
    pub pd: Fraction,
    /// Semantic coherence rate, above 0 up to 1, lower is worse.
    pub scr: Coherence,
}

impl DriftParts {
    /// SRIP-03 section 4, with equal weights. Where coherence is so small that the quotient is no
    /// finite number, the largest one stands for it: too much drift is never no drift.
    ///
    /// ```
    /// use driftgate::protocol::drift::{Coherence, DriftParts, Fraction};
    /// let part = |number| Fraction::new(number).unwrap();
    /// let parts = DriftParts {
    ///     sdi: part(0.2), sv: part(0.1), pd: part(0.1), scr: Coherence::new(0.8).unwrap(),
    /// };
    /// assert!((parts.index().value() - 0.166_666).abs() < 1e-5);
    /// ```
    #[must_use]
    pub fn index(&self) -> DriftIndex {
        let sum = self.sdi.value() + self.sv.value() + self.pd.value();
        // The sum is finite and coherence above zero, so this is no NaN.
        DriftIndex((sum / (3.0 * self.scr.value())).min(f64::MAX))
    }

    /// Which parts lie past their critical mark (SRIP-03 section 5, last column). Only meaningful
    /// for native parts: a derived part is a guess and never trips this.
    #[must_use]
    pub fn criticals(&self) -> Criticals {
        Criticals {
            sdi: self.sdi.value() > SDI_CRITICAL,
            sv: self.sv.value() > SV_CRITICAL,
            pd: self.pd.value() > PD_CRITICAL,
            scr: self.scr.value() < SCR_CRITICAL,
        }
    }
}

/// SRIP-03 section 5: semantic drift above this is critical.
pub const SDI_CRITICAL: f64 = 0.55;
/// SRIP-03 section 5: symbolic variance above this is critical.
pub const SV_CRITICAL: f64 = 0.65;
/// SRIP-03 section 5: phase drift above this is critical.
pub const PD_CRITICAL: f64 = 0.45;
/// SRIP-03 section 5: coherence below this is critical.
pub const SCR_CRITICAL: f64 = 0.45;

/// Which of the four parts are past their critical mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Criticals {
    /// `sdi` above [`SDI_CRITICAL`].
    pub sdi: bool,
    /// `sv` above [`SV_CRITICAL`].
    pub sv: bool,
    /// `pd` above [`PD_CRITICAL`].
    pub pd: bool,
    /// `scr` below [`SCR_CRITICAL`].
    pub scr: bool,
}

/// Where the drift metrics came from, weakest first (DESIGN section 2 "Provenance").
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// Nothing usable was reported.
    #[default]
    None,
    /// A profile computed parts that the runtime does not report, or an operator assumed SCR.
    Derived,
    /// The runtime reported a bare index.
    Reported,
    /// The runtime reported all four parts.
    Native,
}

impl Provenance {
    /// The word used in replies, headers and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Derived => "derived",
            Self::Reported => "reported",
            Self::Native => "native",
        }
    }
}

/// A reported index that differs from the formula by more than this is a reason code of its own.
pub const INDEX_TOLERANCE: f64 = 0.005;

/// What one report says about drift: parts, a bare index, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drift {
    /// The four parts, native or derived according to `provenance`.
    pub parts: Option<DriftParts>,
    /// The index that the runtime itself reported.
    pub reported: Option<DriftIndex>,
    /// Where `parts` (or, without them, `reported`) came from.
    pub provenance: Provenance,
}

impl Drift {
    /// Gate value: the larger of formula and report (DESIGN section 2). `None` when there is
    /// neither.
    #[must_use]
    pub fn gate_value(&self) -> Option<DriftIndex> {
        match (self.parts, self.reported) {
            (Some(parts), Some(reported)) => Some(parts.index().max(reported)),
            (Some(parts), None) => Some(parts.index()),
            (None, reported) => reported,
        }
    }

    /// Whether formula and report differ by more than [`INDEX_TOLERANCE`]. Only native parts are
    /// held against the report: a derived index is an estimate and differs on most cycles.
    #[must_use]
    pub fn disagrees(&self) -> bool {
        if self.provenance != Provenance::Native {
            return false;
        }
        match (self.parts.map(|parts| parts.index()), self.reported) {
            (Some(formula), Some(reported)) => {
                (formula.value() - reported.value()).abs() > INDEX_TOLERANCE
            }
            (Some(_), None) | (None, _) => false,
        }
    }
}
