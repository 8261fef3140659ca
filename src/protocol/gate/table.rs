//! The table, row by row: what the verdict is made of, and what is shown of it.
//!
//! A row says what it compares; whether it applies follows from that and from nothing else. So an
//! explanation cannot say other than what was judged.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Band, CC_MIN, CI_MIN, COLLAPSE_CYCLES, DI_CRITICAL, ER_MAX, JUMP_MAX, PSD_MAX, PSI_MIN, Reason,
    Thresholds,
};
use crate::protocol::drift::{
    DriftIndex, DriftParts, Fraction, INDEX_TOLERANCE, PD, ROUNDING, SCR, SDI, SV, Vitals, reaches,
};
use crate::protocol::packet::Posture;

/// What one moment tells the gate. The default is a moment that tells nothing bad, and no index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Gate value; `None` when the report carries no usable index.
    pub di: Option<DriftIndex>,
    /// The worst posture that label and flags name.
    pub posture: Posture,
    /// The parts of the index, set for native metrics only: a derived part is a guess and never
    /// trips a mark of its own.
    pub parts: Option<DriftParts>,
    /// What else the runtime measures.
    pub vitals: Vitals,
    /// Cycles in a row without stability, where coherence is weak or phase drift strong (SRIP-06
    /// section 5).
    pub collapse: Option<u32>,
    /// How far formula and reported index lie apart.
    pub apart: Option<f64>,
    /// By how much the index rose since the cycle before; below zero where it fell.
    pub rise: Option<f64>,
    /// The index that asks for an operator, if there is such a mark.
    pub lock: Option<f64>,
    /// Why this sample is no evidence. Such a sample may close the gate and never opens it.
    pub untrusted: Option<Reason>,
    /// `false` for a safety status other than nominal.
    pub nominal: bool,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            di: None,
            posture: Posture::Stable,
            parts: None,
            vitals: Vitals::default(),
            collapse: None,
            apart: None,
            rise: None,
            lock: None,
            untrusted: None,
            nominal: true,
        }
    }
}

/// A bound of a number. A number that lies [`ROUNDING`] off an inclusive one is at it.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At this mark or above.
    AtLeast(f64),
    /// Above this mark.
    Above(f64),
    /// At this mark or below.
    AtMost(f64),
    /// Below this mark.
    Below(f64),
}

impl Bound {
    fn holds(self, number: f64) -> bool {
        match self {
            Self::AtLeast(mark) => reaches(number, mark),
            Self::Above(mark) => number > mark,
            Self::AtMost(mark) => number <= mark + ROUNDING,
            Self::Below(mark) => number < mark,
        }
    }
}

/// What a row compares.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
#[serde(untagged)]
pub enum Compared {
    /// A number with a bound. Where either is missing the row does not apply.
    Number {
        /// The number.
        value: Option<f64>,
        /// The bound.
        limit: Option<Bound>,
        /// From here on another row applies instead.
        unless: Option<Bound>,
    },
    /// A word with another.
    Word {
        /// The word.
        value: &'static str,
        /// The word for which the row applies.
        limit: &'static str,
    },
}

impl Compared {
    fn holds(self) -> bool {
        match self {
            Self::Number { value: Some(number), limit: Some(limit), unless } => {
                limit.holds(number) && !unless.is_some_and(|bound| bound.holds(number))
            }
            Self::Number { .. } => false,
            Self::Word { value, limit } => value == limit,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Row {
    /// Its name, and the reason that it gives.
    pub reason: Reason,
    /// The band that it asks for; `open` only remarks.
    pub band: Band,
    /// What it looks at.
    pub of: &'static str,
    /// With what that is compared.
    #[serde(flatten)]
    pub compared: Compared,
    /// Whether it applies.
    pub applies: bool,
}

/// A number that rows look at, under its name.
#[derive(Clone, Copy)]
struct Subject(&'static str, Option<f64>);

impl Subject {
    fn row(self, reason: Reason, band: Band, limit: Option<Bound>, unless: Option<Bound>) -> Row {
        let Self(of, value) = self;
        Row::new(reason, band, of, Compared::Number { value, limit, unless })
    }
}

impl Row {
    fn new(reason: Reason, band: Band, of: &'static str, compared: Compared) -> Self {
        Self { reason, band, of, compared, applies: compared.holds() }
    }

    fn word(reason: Reason, band: Band, (of, value): Word, limit: &'static str) -> Self {
        Self::new(reason, band, of, Compared::Word { value, limit })
    }
}

/// A word that rows look at, under its name.
type Word = (&'static str, &'static str);

/// Rows of the table.
pub const ROWS: usize = 31;

impl Sample {
    /// Nothing was reported, or nothing that could be read.
    #[must_use]
    pub fn absent(reason: Reason) -> Self {
        Self { posture: Posture::Unknown, untrusted: Some(reason), ..Self::default() }
    }

    /// The table, strictest rows first. A row of band `open` is a remark.
    #[must_use]
    pub fn rows(&self, marks: &Thresholds) -> [Row; ROWS] {
        use Band::{Blocked, Caution, Isolated, Open};
        let [at_least, above, at_most, below] =
            [Bound::AtLeast, Bound::Above, Bound::AtMost, Bound::Below]
                .map(|bound| move |mark: f64| Some(bound(mark)));
        let di = Subject("di", self.di.map(DriftIndex::value));
        let [sdi, sv, pd, scr] = self.subjects();
        let vital = |of, vital: Option<Fraction>| Subject(of, vital.map(Fraction::value));
        let Vitals { psi, psd, ci, er, cc } = self.vitals;
        let (psi, psd) = (vital("psi", psi), vital("psd", psd));
        let (ci, er, cc) = (vital("ci", ci), vital("er", er), vital("cc", cc));
        let unstable = Subject("unstable_cycles", self.collapse.map(f64::from));
        let (apart, rise) = (Subject("di_apart", self.apart), Subject("di_rise", self.rise));
        let posture = ("posture", self.posture_word());
        let status = ("aegida_status", if self.nominal { "nominal" } else { "other" });
        let index = match (self.di, self.untrusted) {
            (Some(_), _) => ("index", "there"),
            (None, None) => ("index", "missing"),
            (None, Some(_)) => ("index", "not asked for"),
        };
        let evidence = ("evidence", self.untrusted.map_or("trusted", Reason::word));
        let doubt = self.untrusted.unwrap_or(Reason::NoEvidence);
        let (block, isolate) = (at_least(marks.block), at_least(marks.isolate));
        [
            di.row(Reason::Locked, Isolated, self.lock.and_then(at_least), None),
            di.row(Reason::DiCritical, Isolated, at_least(DI_CRITICAL), None),
            di.row(Reason::DiIsolate, Isolated, isolate, None),
            Row::word(Reason::PostureRecenter, Isolated, posture, "recenter"),
            unstable.row(Reason::Collapse, Isolated, above(COLLAPSE_CYCLES.into()), None),
            psi.row(Reason::PsiLow, Isolated, below(PSI_MIN), None),
            er.row(Reason::ErHigh, Isolated, above(ER_MAX), None),
            di.row(Reason::DiBlock, Blocked, block, isolate),
            Row::word(Reason::PostureReflective, Blocked, posture, "reflective"),
            Row::word(Reason::PostureUnknown, Blocked, posture, "unknown"),
            Row::word(Reason::SafetyStatus, Blocked, status, "other"),
            Row::word(Reason::Incomplete, Blocked, index, "missing"),
            sdi.row(Reason::SdiCritical, Blocked, above(SDI.critical), None),
            sv.row(Reason::SvCritical, Blocked, above(SV.critical), None),
            pd.row(Reason::PdCritical, Blocked, above(PD.critical), None),
            scr.row(Reason::ScrCritical, Blocked, below(SCR.critical), None),
            psd.row(Reason::PsdHigh, Blocked, at_least(PSD_MAX), None),
            apart.row(Reason::DiMismatch, Blocked, above(INDEX_TOLERANCE), None),
            rise.row(Reason::DiJump, Blocked, above(JUMP_MAX), None),
            di.row(Reason::DiCaution, Caution, at_least(marks.reopen), block),
            sdi.row(Reason::SdiRecovery, Open, at_least(SDI.recovery), above(SDI.critical)),
            sv.row(Reason::SvRecovery, Open, at_least(SV.recovery), above(SV.critical)),
            pd.row(Reason::PdRecovery, Open, at_least(PD.recovery), above(PD.critical)),
            scr.row(Reason::ScrRecovery, Open, at_most(SCR.recovery), below(SCR.critical)),
            sdi.row(Reason::SdiReflective, Open, at_least(SDI.reflective), at_least(SDI.recovery)),
            sv.row(Reason::SvReflective, Open, at_least(SV.reflective), at_least(SV.recovery)),
            pd.row(Reason::PdReflective, Open, at_least(PD.reflective), at_least(PD.recovery)),
            scr.row(Reason::ScrReflective, Open, at_most(SCR.reflective), at_most(SCR.recovery)),
            ci.row(Reason::CiLow, Open, below(CI_MIN), None),
            cc.row(Reason::CcLow, Open, below(CC_MIN), None),
            Row::word(doubt, Blocked, evidence, doubt.word()),
        ]
    }

    fn subjects(&self) -> [Subject; 4] {
        let part = |of, value: fn(DriftParts) -> f64| Subject(of, self.parts.map(value));
        [
            part("sdi", |parts| parts.sdi.value()),
            part("sv", |parts| parts.sv.value()),
            part("pd", |parts| parts.pd.value()),
            part("scr", |parts| parts.scr.value()),
        ]
    }

    /// What was reported is named also where it is no evidence; silence names no posture.
    fn posture_word(&self) -> &'static str {
        let is_reported = self.di.is_some() || self.untrusted.is_none();
        if is_reported || self.posture != Posture::Unknown {
            self.posture.word()
        } else {
            "unreported"
        }
    }
}
