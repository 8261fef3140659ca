//! The gate: the whole table of DESIGN section 2 on one screen.
//!
//! A pure state machine. One [`Sample`] per report goes in, one [`Verdict`] comes out, and the old
//! state is consumed. It knows no packets, peers or clocks: staleness, dwell and `isolate_after`
//! arrive as samples and acts, made from time by `bridge.rs`.
//!
//! Latched: `blocked` and `isolated` leave only to `open`, on trusted evidence with the index under
//! `reopen`, posture Stable and no operator hold.

use core::fmt;

use super::drift::{Criticals, DriftIndex};
use super::packet::Posture;

/// SRIP-05 section 7: synchronisation at reduced frequency from here. Also the reopening mark of
/// section 9: a closed gate opens only strictly below it.
pub const REOPEN_MAX: f64 = 0.45;
/// SRIP-05 section 7: external state export is suspended from here.
pub const BLOCK_MAX: f64 = 0.5;
/// SRIP-05 section 7: all external links are isolated from here.
pub const ISOLATE_MAX: f64 = 0.6;

/// The thresholds in force. They can be tightened below the constants of this module, never
/// loosened (SPEC R61).
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

/// How far the gate is open, mildest first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
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
    /// The word used on the wire, in replies and in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Caution => "caution",
            Self::Blocked => "blocked",
            Self::Isolated => "isolated",
        }
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

/// Why the gate stands where it stands. Each word is a metric label and never carries data of the
/// runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The sidecar has started and has seen no report yet.
    Starting,
    /// The index is in the caution band.
    DiCaution,
    /// The index is at or above `block`.
    DiBlock,
    /// The index is at or above `isolate`.
    DiIsolate,
    /// Formula and reported index differ by more than 0.005; the larger one decided.
    DiMismatch,
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
    /// The sample carries no evidence: first of a derived feed, or after an empty reply.
    NoEvidence,
    /// The cycle number was seen before in this epoch.
    DuplicateCycle,
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
    /// Semantic drift is critical.
    SdiCritical,
    /// Symbolic variance is critical.
    SvCritical,
    /// Phase drift is critical.
    PdCritical,
    /// Coherence is critical.
    ScrCritical,
    /// Stability under 0.5 for more than 3 cycles with weak coherence or strong phase drift.
    Collapse,
    /// Blocked for longer than `isolate_after`.
    BlockedTooLong,
    /// An operator isolated this runtime.
    Operator,
    /// Another sidecar with this runtime's id was there first.
    Twin,
    /// Another sidecar with this runtime's id has taken over.
    Replaced,
    /// The cycle number fell back: the runtime restarted.
    NewEpoch,
    /// Good reports so far are fewer than `dwell` asks for.
    Dwell,
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
}

impl Reason {
    /// The word used in replies, notices, the audit log and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::DiCaution => "di_caution",
            Self::DiBlock => "di_block",
            Self::DiIsolate => "di_isolate",
            Self::DiMismatch => "di_mismatch",
            Self::Latched => "latched",
            Self::PostureReflective => "posture_reflective",
            Self::PostureRecenter => "posture_recenter",
            Self::PostureUnknown => "posture_unknown",
            Self::SafetyStatus => "safety_status",
            Self::NoEvidence => "no_evidence",
            Self::DuplicateCycle => "duplicate_cycle",
            Self::Incomplete => "incomplete",
            Self::Invalid => "invalid",
            Self::ProvenanceRefused => "provenance_refused",
            Self::Stale => "stale",
            Self::Silent => "silent",
            Self::SdiCritical => "sdi_critical",
            Self::SvCritical => "sv_critical",
            Self::PdCritical => "pd_critical",
            Self::ScrCritical => "scr_critical",
            Self::Collapse => "collapse",
            Self::BlockedTooLong => "blocked_too_long",
            Self::Operator => "operator",
            Self::Twin => "twin",
            Self::Replaced => "replaced",
            Self::NewEpoch => "new_epoch",
            Self::Dwell => "dwell",
            Self::GenerationChange => "generation_change",
            Self::Throttled => "throttled",
            Self::InspectionFailed => "inspection_failed",
            Self::Unfillable => "unfillable",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// What one moment tells the gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Gate value; `None` when the report carries no usable index.
    pub di: Option<DriftIndex>,
    /// The worst posture that label and flags name.
    pub posture: Posture,
    /// Critical marks, set for native metrics only.
    pub criticals: Criticals,
    /// SRIP-06 section 5, counted by the bridge over cycles.
    pub collapse: bool,
    /// Why this sample is no evidence. Such a sample may close the gate and never opens it.
    pub untrusted: Option<Reason>,
    /// `false` for a safety status other than nominal.
    pub nominal: bool,
}

/// What the table says about one sample before the latch is looked at.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    band: Band,
    reasons: Vec<Reason>,
}

impl Sample {
    /// Nothing was reported, or nothing that could be read.
    #[must_use]
    pub fn absent(reason: Reason) -> Self {
        Self {
            di: None,
            posture: Posture::Unknown,
            criticals: Criticals::default(),
            collapse: false,
            untrusted: Some(reason),
            nominal: true,
        }
    }

    /// Every row of the table that applies; the strictest wins.
    fn read(&self, thresholds: &Thresholds) -> Reading {
        let index = self.di.map(DriftIndex::value);
        let at_least = |mark: f64| index.is_some_and(|di| di >= mark);
        let reported = self.di.is_some() || self.untrusted.is_none();
        let rows = [
            (at_least(thresholds.isolate), Band::Isolated, Reason::DiIsolate),
            (self.posture == Posture::Recenter, Band::Isolated, Reason::PostureRecenter),
            (self.collapse, Band::Isolated, Reason::Collapse),
            (
                at_least(thresholds.block) && !at_least(thresholds.isolate),
                Band::Blocked,
                Reason::DiBlock,
            ),
            (self.posture == Posture::Reflective, Band::Blocked, Reason::PostureReflective),
            (reported && self.posture == Posture::Unknown, Band::Blocked, Reason::PostureUnknown),
            (!self.nominal, Band::Blocked, Reason::SafetyStatus),
            (self.di.is_none() && self.untrusted.is_none(), Band::Blocked, Reason::Incomplete),
            (self.criticals.sdi, Band::Blocked, Reason::SdiCritical),
            (self.criticals.sv, Band::Blocked, Reason::SvCritical),
            (self.criticals.pd, Band::Blocked, Reason::PdCritical),
            (self.criticals.scr, Band::Blocked, Reason::ScrCritical),
            (
                at_least(thresholds.reopen) && !at_least(thresholds.block),
                Band::Caution,
                Reason::DiCaution,
            ),
        ];
        let applies = rows.iter().filter(|(applies, _, _)| *applies);
        let mut band = applies.clone().map(|(_, band, _)| *band).max().unwrap_or(Band::Open);
        let mut reasons: Vec<Reason> = applies.map(|(_, _, reason)| *reason).collect();
        if let Some(reason) = self.untrusted {
            band = band.max(Band::Blocked);
            reasons.push(reason);
        }
        Reading { band, reasons }
    }
}

/// The state of the gate. It starts closed (P6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    band: Band,
    operator_hold: bool,
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
        Self { band, operator_hold, good: 0 }
    }

    /// The present band.
    #[must_use]
    pub fn band(self) -> Band {
        self.band
    }

    /// Whether an operator holds the gate isolated.
    #[must_use]
    pub fn operator_hold(self) -> bool {
        self.operator_hold
    }

    /// One sample: the only way to a milder band.
    ///
    /// `dwell` is how many good samples in a row a closed gate asks for, at least 1.
    #[must_use]
    pub fn step(self, sample: &Sample, thresholds: &Thresholds, dwell: u32) -> (Self, Verdict) {
        let Reading { band: read, mut reasons } = sample.read(thresholds);
        let good = if read == Band::Open { self.good.saturating_add(1) } else { 0 };
        let band = if self.operator_hold {
            reasons.insert(0, Reason::Operator);
            Band::Isolated
        } else if !self.band.is_closed() {
            read
        } else if read != Band::Open {
            // Closed stays closed, and only ever gets tighter.
            if read < self.band {
                reasons.push(Reason::Latched);
            }
            self.band.max(read)
        } else if good < dwell.max(1) {
            reasons.push(Reason::Dwell);
            self.band
        } else {
            Band::Open
        };
        let next = Self { band, operator_hold: self.operator_hold, good };
        (next, Verdict { band, from: self.band, reasons })
    }

    /// Tightens to at least `band` for a reason that time gave: silence, a new epoch, blocked too
    /// long.
    #[must_use]
    pub fn tighten(self, band: Band, reason: Reason) -> (Self, Verdict) {
        let next = Self { band: self.band.max(band), operator_hold: self.operator_hold, good: 0 };
        (next, Verdict { band: next.band, from: self.band, reasons: vec![reason] })
    }

    /// An operator isolates, or takes the hold back. Release never opens: the gate stays isolated
    /// until a report reopens it by the normal rule.
    #[must_use]
    pub fn hold(self, hold: bool) -> (Self, Verdict) {
        let band = if hold { Band::Isolated } else { self.band };
        let next = Self { band, operator_hold: hold, good: 0 };
        (next, Verdict { band, from: self.band, reasons: vec![Reason::Operator] })
    }
}

/// Proof that the gate let one report through. Only [`Verdict::clear`] makes one, and only
/// `seal.rs` takes one, so no code path can sign what the gate refused.
#[derive(Debug)]
pub struct Clearance {
    block: f64,
}

impl Clearance {
    /// Any index at or above this fails inspection, whatever the verdict said.
    #[must_use]
    pub fn block(&self) -> f64 {
        self.block
    }
}

impl Verdict {
    /// A clearance, when the band is open or caution.
    #[must_use]
    pub fn clear(&self, thresholds: &Thresholds) -> Option<Clearance> {
        (!self.band.is_closed()).then_some(Clearance { block: thresholds.block })
    }
}
