//! The gate as a reader of DESIGN section 2 would keep it on paper: the checkers' own opinion of
//! the band (P3, P6). Shares no code with `gate.rs` and `judge.rs`.

use driftgate::protocol::bridge::Live;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::gate::Band;

use crate::report::{RawReport, Stance};

/// What the oracle says about one input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opinion {
    pub(crate) band: Band,
    /// Whether this input closed the gate or cut what was only closed.
    pub(crate) closes: bool,
    /// Whether a packet may be made from this report.
    pub(crate) exportable: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct GateOracle {
    pub(crate) band: Band,
    pub(crate) held: bool,
    good_in_a_row: u32,
    last_cycle: Option<u32>,
    weak_in_a_row: u32,
    last_valid_us: u64,
    since_us: u64,
}

impl GateOracle {
    pub(crate) fn new(held: bool, now_us: u64) -> Self {
        Self {
            band: if held { Band::Isolated } else { Band::Blocked },
            held,
            good_in_a_row: 0,
            last_cycle: None,
            weak_in_a_row: 0,
            last_valid_us: now_us,
            since_us: now_us,
        }
    }

    /// `None` for a report that cannot be read.
    pub(crate) fn report(
        &mut self,
        now_us: u64,
        raw: Option<&RawReport>,
        settings: &Live,
    ) -> Opinion {
        let Some(raw) = raw.filter(|raw| raw.flaw.is_none()) else {
            return self.judge(now_us, self.band, Band::Blocked, false, settings);
        };
        let before = self.band;
        let is_repeated = raw.cycle.is_some() && raw.cycle == self.last_cycle;
        if !is_repeated {
            self.last_valid_us = now_us;
        }
        let accepts_bare = settings.policy.accept <= Provenance::Reported;
        let mut is_evidence = raw.parts.is_some() || accepts_bare;
        match (self.last_cycle, raw.cycle) {
            (Some(_), Some(_)) if is_repeated => is_evidence = false,
            (Some(last), Some(cycle)) if cycle < last => {
                self.weak_in_a_row = 0;
                self.good_in_a_row = 0;
                self.band = self.band.max(Band::Blocked);
            }
            _ => {}
        }
        self.last_cycle = raw.cycle.or(self.last_cycle);
        if !is_repeated {
            self.weak_in_a_row = if raw.stability < 0.5 { self.weak_in_a_row + 1 } else { 0 };
        }
        let collapses = self.weak_in_a_row > 3 && raw.is_weak();
        let called = called(raw, is_evidence, collapses, settings);
        self.judge(now_us, before, called, is_evidence, settings)
    }

    fn judge(
        &mut self,
        now_us: u64,
        before: Band,
        called: Band,
        is_evidence: bool,
        settings: &Live,
    ) -> Opinion {
        self.good_in_a_row = if called == Band::Open { self.good_in_a_row + 1 } else { 0 };
        let is_closed = matches!(self.band, Band::Blocked | Band::Isolated);
        let band = if self.held {
            Band::Isolated
        } else if is_closed && called == Band::Open {
            if self.good_in_a_row >= settings.policy.dwell { Band::Open } else { self.band }
        } else if is_closed {
            called.max(self.band)
        } else {
            called
        };
        self.enter(now_us, before, band, is_evidence)
    }

    /// The operator isolates or releases.
    pub(crate) fn hold(&mut self, now_us: u64, held: bool) -> Opinion {
        self.held = held;
        self.good_in_a_row = 0;
        let band = if held { Band::Isolated } else { self.band };
        self.enter(now_us, self.band, band, false)
    }

    /// Something failed inspection: the gate closes, as after any other bad sign.
    pub(crate) fn distrust(&mut self, now_us: u64) -> Opinion {
        self.good_in_a_row = 0;
        self.enter(now_us, self.band, self.band.max(Band::Blocked), false)
    }

    /// Silence, or a band held for too long.
    pub(crate) fn tick(&mut self, now_us: u64, settings: &Live) -> Option<Opinion> {
        let micros = |span: std::time::Duration| u64::try_from(span.as_micros()).expect("short");
        let silent_us = now_us - self.last_valid_us;
        let held_us = now_us - self.since_us;
        let is_over = |limit: Option<std::time::Duration>, time: u64| {
            limit.is_some_and(|limit| time >= micros(limit))
        };
        let is_closed = matches!(self.band, Band::Blocked | Band::Isolated);
        let isolates = is_over(settings.silence_isolates_after, silent_us)
            || (self.band == Band::Blocked && is_over(settings.isolate_after, held_us));
        let band = if isolates && self.band != Band::Isolated {
            Band::Isolated
        } else if !is_closed && silent_us >= micros(settings.stale_after) {
            Band::Blocked
        } else {
            return None;
        };
        self.good_in_a_row = 0;
        Some(self.enter(now_us, self.band, band, false))
    }

    fn enter(&mut self, now_us: u64, before: Band, band: Band, is_evidence: bool) -> Opinion {
        if band != before {
            self.since_us = now_us;
        }
        self.band = band;
        let is_closed = matches!(band, Band::Blocked | Band::Isolated);
        Opinion { band, closes: is_closed && band > before, exportable: is_evidence && !is_closed }
    }
}

/// The row of the table that this report alone calls for.
fn called(raw: &RawReport, is_evidence: bool, collapses: bool, settings: &Live) -> Band {
    let marks = settings.policy.thresholds;
    let index = raw.index();
    let stance = raw.stance();
    if collapses || stance == Stance::Recenter || index.is_some_and(|di| di >= marks.isolate) {
        return Band::Isolated;
    }
    let is_nominal = matches!(raw.status, None | Some("nominal"));
    match index {
        Some(di)
            if di < marks.block
                && stance == Stance::Stable
                && is_evidence
                && is_nominal
                && !raw.is_critical() =>
        {
            if di < marks.reopen {
                Band::Open
            } else {
                Band::Caution
            }
        }
        _ => Band::Blocked,
    }
}
