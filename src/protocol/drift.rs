//! Drift metrics and the drift index, finite by construction.
//!
//! SRIP-03 section 4: `DI = (SDI + SV + PD) / (3 SCR)`. Higher is worse for all three parts; SCR
//! (semantic coherence) divides, so a part that is missing or out of range makes the index
//! unavailable rather than small.

use core::fmt;

/// A number this little below a mark counts as at the mark, so that rounding never opens: in
/// floating point (0.34 + 0.42 + 0.44) / 2.4 is less than 0.5.
pub const ROUNDING: f64 = 1e-12;

/// Whether `number` lies at `mark` or above it, give or take [`ROUNDING`].
#[must_use]
pub fn reaches(number: f64, mark: f64) -> bool {
    number >= mark - ROUNDING
}

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

    /// Whether the index lies at `mark` or above it, as [`reaches`] says.
    #[must_use]
    pub fn reaches(self, mark: f64) -> bool {
        reaches(self.0, mark)
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

    /// Whether nothing at all has drifted, to the last digit: what a runtime writes that has not
    /// measured.
    #[must_use]
    pub fn are_zero(&self) -> bool {
        self.sdi.value() + self.sv.value() + self.pd.value() <= 0.0
    }
}

/// From where on a part asks for reflection and for recovery, and past which it is critical
/// (SRIP-03 section 5). A part at its critical mark is not past it; at the two others, it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartMarks {
    /// Asks for reflection.
    pub reflective: f64,
    /// Asks for recovery.
    pub recovery: f64,
    /// Critical.
    pub critical: f64,
}

/// Marks of semantic drift, which rises.
pub const SDI: PartMarks = PartMarks { reflective: 0.35, recovery: 0.45, critical: 0.55 };
/// Marks of symbolic variance, which rises.
pub const SV: PartMarks = PartMarks { reflective: 0.40, recovery: 0.55, critical: 0.65 };
/// Marks of phase drift, which rises.
pub const PD: PartMarks = PartMarks { reflective: 0.25, recovery: 0.35, critical: 0.45 };
/// Marks of coherence, which falls.
pub const SCR: PartMarks = PartMarks { reflective: 0.65, recovery: 0.55, critical: 0.45 };

/// What some runtimes measure beside the index; each is read where it is there and never derived.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Phase stability index, 0 to 1; below 0.6 is recovery (SRIP-02 section 5).
    pub psi: Option<Fraction>,
    /// Phase stability delta, 0 to 1; from 0.15 up is reflection (SRIP-02 section 5).
    pub psd: Option<Fraction>,
    /// Continuity index of memory, 0 to 1; wanted at 0.8 or more (SRIP-04 section 7).
    pub ci: Option<Fraction>,
    /// Erosion rate of memory, 0 to 1; above 0.3 is restored first (SRIP-04 section 9).
    pub er: Option<Fraction>,
    /// Causal coherence of memory, 0 to 1; wanted at 0.75 or more (SRIP-04 section 7).
    pub cc: Option<Fraction>,
}

/// Where the drift metrics came from, weakest first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::EnumString,
    strum::IntoStaticStr,
    schemars::JsonSchema,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
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
    /// All words, for the metrics.
    pub const WORDS: [&str; 4] = ["none", "derived", "reported", "native"];
    /// The same, for error messages.
    pub const LIST: &str = "none, derived, reported, native";

    /// The word used in replies, headers and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// A reported index that differs from the formula by more than this contradicts it.
pub const INDEX_TOLERANCE: f64 = 0.005;

/// Parts that a profile estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// As in [`DriftParts::sdi`].
    pub sdi: Fraction,
    /// As in [`DriftParts::sv`].
    pub sv: Fraction,
    /// As in [`DriftParts::pd`].
    pub pd: Fraction,
    /// Coherence where the runtime reports it; else somebody has to assume one.
    pub scr: Option<Coherence>,
}

impl Estimate {
    /// All four parts, with `assumed` where no coherence is reported.
    #[must_use]
    pub fn with(self, assumed: Option<Coherence>) -> Option<DriftParts> {
        let scr = self.scr.or(assumed)?;
        Some(DriftParts { sdi: self.sdi, sv: self.sv, pd: self.pd, scr })
    }
}

/// All that one report says about drift, and all that its profile could estimate from it. Which of
/// it counts is the judge's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drift {
    /// The four parts as the runtime reported them.
    pub native: Option<DriftParts>,
    /// Parts of which at least one is an estimate.
    pub derived: Option<Estimate>,
    /// The index that the runtime itself reported.
    pub reported: Option<DriftIndex>,
}

/// What a policy made of a [`Drift`]: parts, a bare index, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurement {
    /// The four parts, native or derived according to `provenance`.
    pub parts: Option<DriftParts>,
    /// The index that the runtime itself reported.
    pub reported: Option<DriftIndex>,
    /// Where `parts` (or, without them, `reported`) came from.
    pub provenance: Provenance,
}

impl Measurement {
    /// Gate value: the larger of formula and report. `None` when there is neither.
    #[must_use]
    pub fn gate_value(&self) -> Option<DriftIndex> {
        match (self.parts, self.reported) {
            (Some(parts), Some(reported)) => Some(parts.index().max(reported)),
            (Some(parts), None) => Some(parts.index()),
            (None, reported) => reported,
        }
    }

    /// How far formula and report lie apart. Only native parts are held against the report: a
    /// derived index is an estimate and differs on most cycles.
    #[must_use]
    pub fn apart(&self) -> Option<f64> {
        let native = self.parts.filter(|_| self.provenance == Provenance::Native);
        Some((native?.index().value() - self.reported?.value()).abs())
    }
}
