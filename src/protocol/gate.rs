//! The gate. Its table is `gate/table.rs`, whole on one screen.
//!
//! A pure state machine. One [`Sample`] per report goes in, one [`Verdict`] comes out, and the old
//! state is consumed. It knows no packets, peers or clocks: staleness, dwell and `isolate_after`
//! arrive as samples and acts, made from time by `bridge.rs`; what has to be remembered between two
//! reports is in `judge.rs`.
//!
//! Latched: `blocked` and `isolated` leave only to `open`, on trusted evidence with the index under
//! `reopen`, posture Stable and no operator hold.

use core::fmt;

mod table;

pub use super::reason::Reason;
pub use table::{Bound, Compared, ROWS, Row, Sample};

/// SRIP-05 section 7: synchronisation at reduced frequency from here. Also the reopening mark of
/// section 9: a closed gate opens only strictly below it.
pub const REOPEN_MAX: f64 = 0.45;
/// SRIP-05 section 7: external state export is suspended from here.
pub const BLOCK_MAX: f64 = 0.5;
/// SRIP-05 section 7: all external links are isolated from here.
pub const ISOLATE_MAX: f64 = 0.6;

/// SRIP-03 section 5: the index is critical from here up; `containment.lock` may be at most this.
pub const DI_CRITICAL: f64 = 0.7;
/// SRIP-02 section 5: a phase stability index below this is recovery.
pub const PSI_MIN: f64 = 0.6;
/// SRIP-02 section 5: a phase stability delta from here up is reflection.
pub const PSD_MAX: f64 = 0.15;
/// SRIP-04 section 9: memory that erodes faster than this is restored before anything else.
pub const ER_MAX: f64 = 0.3;
/// SRIP-04 section 7: memory less continuous than this is not shared.
pub const CI_MIN: f64 = 0.8;
/// SRIP-04 section 7: memory less coherent than this is not shared.
pub const CC_MIN: f64 = 0.75;

/// SRIP-06 section 5: collapse takes more than this many unstable cycles in a row.
pub const COLLAPSE_CYCLES: u32 = 3;
/// SRIP-06 section 6: an index that rises by more than this from one cycle to the next blocks.
pub const JUMP_MAX: f64 = 0.4;

/// The thresholds in force. They can be tightened below the constants of this module, never
/// loosened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// `caution` from here up; a closed gate opens only strictly below.
    pub reopen: f64,
    /// `blocked` from here up.
    pub block: f64,
    /// `isolated` from here up.
    pub isolate: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { reopen: REOPEN_MAX, block: BLOCK_MAX, isolate: ISOLATE_MAX }
    }
}

/// Why a set of thresholds was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdFault {
    /// A mark lies above what the specification allows, or is not a positive number.
    #[error("must be above 0 and at most {limit}: thresholds can be tightened, never loosened", limit = .0.limit())]
    Loosened(Mark),
    /// The marks are not in the order reopen <= block <= isolate.
    #[error("must be in the order reopen <= block <= isolate")]
    Unordered,
}

/// One of the three marks, for error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// [`Thresholds::reopen`].
    Reopen,
    /// [`Thresholds::block`].
    Block,
    /// [`Thresholds::isolate`].
    Isolate,
}

impl Mark {
    /// The highest value that the mark may take.
    #[must_use]
    pub fn limit(self) -> f64 {
        match self {
            Self::Reopen => REOPEN_MAX,
            Self::Block => BLOCK_MAX,
            Self::Isolate => ISOLATE_MAX,
        }
    }
}

impl Thresholds {
    /// Accepts marks that are as strict as the specification or stricter.
    ///
    /// # Errors
    /// [`ThresholdFault`], always the configuration's fault.
    pub fn new(reopen: f64, block: f64, isolate: f64) -> Result<Self, ThresholdFault> {
        for (mark, number) in
            [(Mark::Reopen, reopen), (Mark::Block, block), (Mark::Isolate, isolate)]
        {
            if !(number > 0.0 && number <= mark.limit()) {
                return Err(ThresholdFault::Loosened(mark));
            }
        }
        if reopen > block || block > isolate {
            return Err(ThresholdFault::Unordered);
        }
        Ok(Self { reopen, block, isolate })
    }
}

/// Whether anything is exported.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    strum::IntoStaticStr,
    schemars::JsonSchema,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Mode {
    /// What the gate lets through. The default.
    #[default]
    Enforce,
    /// Nothing: all is judged, counted, audited and shown only.
    Shadow,
}

/// How far the gate is open, mildest first.
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
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Band {
    /// Everything flows.
    Open,
    /// One report in `caution_every` per target, no snapshots.
    Caution,
    /// Nothing is published.
    Blocked,
    /// Nothing is published and nothing is subscribed.
    Isolated,
}

impl Band {
    /// The four words, for error messages.
    pub const WORDS: &str = "open, caution, blocked, isolated";

    /// The word used on the wire, in replies and in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// The band of a word; `None` for anything else.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        <Self as strum::VariantArray>::VARIANTS.iter().copied().find(|band| band.word() == word)
    }

    /// Whether publication is cut.
    #[must_use]
    pub fn is_closed(self) -> bool {
        self >= Self::Blocked
    }
}

impl fmt::Display for Band {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// The state of the gate. It starts closed (P6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    band: Band,
    /// What holds it isolated until an operator lets go.
    hold: Option<Reason>,
    /// Consecutive samples that would reopen, for `dwell`.
    good: u32,
}

/// What the gate decided about one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The band from here on.
    pub band: Band,
    /// The band before.
    pub from: Band,
    /// Why, strictest first; empty when open without remark.
    pub reasons: Vec<Reason>,
}

impl Gate {
    /// The gate at start: blocked, with or without an operator's hold from before the restart.
    #[must_use]
    pub fn new(operator_hold: bool) -> Self {
        let band = if operator_hold { Band::Isolated } else { Band::Blocked };
        Self { band, hold: operator_hold.then_some(Reason::Operator), good: 0 }
    }

    /// The present band.
    #[must_use]
    pub fn band(self) -> Band {
        self.band
    }

    /// Whether the gate stays isolated until an operator lets go: by an order, or by a lock.
    #[must_use]
    pub fn operator_hold(self) -> bool {
        self.hold.is_some()
    }

    /// One sample: the only way to a milder band.
    ///
    /// `dwell` is how many good samples in a row a closed gate asks for, at least 1.
    #[must_use]
    pub fn step(self, sample: &Sample, thresholds: &Thresholds, dwell: u32) -> (Self, Verdict) {
        let (mut next, mut verdict) = self.stricter(sample, thresholds);
        if self.band.is_closed() && verdict.band < self.band {
            // Closed stays closed, and only ever gets tighter, but for the one way out.
            if verdict.band != Band::Open {
                verdict.reasons.push(Reason::Latched);
                verdict.band = self.band;
            } else if next.good < dwell.max(1) {
                verdict.reasons.push(Reason::Dwell);
                verdict.band = self.band;
            }
        }
        next.band = verdict.band;
        (next, verdict)
    }

    /// The same sample once more, under other marks: it may tighten and never opens.
    #[must_use]
    pub fn judge_again(self, sample: &Sample, thresholds: &Thresholds) -> (Self, Verdict) {
        let (mut next, mut verdict) = self.stricter(sample, thresholds);
        next.good = self.good.min(next.good);
        verdict.band = verdict.band.max(self.band);
        next.band = verdict.band;
        (next, verdict)
    }

    /// What sample and hold ask for, before the latch.
    fn stricter(self, sample: &Sample, thresholds: &Thresholds) -> (Self, Verdict) {
        let mut read = Band::Open;
        let mut reasons = Vec::new();
        for row in sample.rows(thresholds).into_iter().filter(|row| row.applies) {
            read = read.max(row.band);
            reasons.push(row.reason);
        }
        let locks = reasons.contains(&Reason::Locked);
        let hold = self.hold.or_else(|| locks.then_some(Reason::Locked));
        let band = match hold {
            Some(reason) if !reasons.contains(&reason) => {
                reasons.insert(0, reason);
                Band::Isolated
            }
            Some(_) => Band::Isolated,
            None => read,
        };
        let good = if read == Band::Open { self.good.saturating_add(1) } else { 0 };
        (Self { band, hold, good }, Verdict { band, from: self.band, reasons })
    }

    /// Tightens to at least `band` for a reason that no sample gave: silence, blocked too long.
    #[must_use]
    pub fn tighten(self, band: Band, reason: Reason) -> (Self, Verdict) {
        let next = Self { band: self.band.max(band), good: 0, ..self };
        (next, Verdict { band: next.band, from: self.band, reasons: vec![reason] })
    }

    /// An operator isolates, or takes the hold back, also one that a lock began. Release never
    /// opens: the gate stays isolated until a report reopens it by the normal rule.
    #[must_use]
    pub fn hold(self, hold: bool) -> (Self, Verdict) {
        let band = if hold { Band::Isolated } else { self.band };
        let next = Self { band, hold: hold.then_some(Reason::Operator), good: 0 };
        (next, Verdict { band, from: self.band, reasons: vec![Reason::Operator] })
    }
}
