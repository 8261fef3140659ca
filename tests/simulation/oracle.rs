//! The gate as a reader of its table would keep it on paper: the checkers' own opinion of the band
//! (P3, P6). It keeps what was reported and says of each report which sentences of the table apply;
//! the band is what has been asked for since the gate last opened. Shares no code with `gate.rs`
//! and `judge.rs`, and has no order of checks.

use driftgate::protocol::bridge::Live;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::gate::Band;

use crate::report::{RawReport, Stance};

/// A number this little below a mark is at the mark.
const HAIR: f64 = 1e-12;

/// What the oracle says about one input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opinion {
    pub(crate) band: Band,
    /// Whether this input closed the gate or cut what was only closed.
    pub(crate) closes: bool,
    /// Whether a packet may be made from this report.
    pub(crate) exportable: bool,
}

/// One report, with what the reports before it say about it.
#[derive(Clone, Debug)]
struct Entry {
    raw: RawReport,
    repeats: bool,
    falls_back: bool,
    /// The index of the report before, where that is one to compare with.
    index_before: Option<f64>,
    /// Reports in a row, this one included, whose stability was under 0.5.
    unstable: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct GateOracle {
    pub(crate) band: Band,
    pub(crate) held: bool,
    /// A twin is there: nothing opens.
    pub(crate) is_fenced: bool,
    /// The worst that has been asked for since the gate last opened, or since the start.
    worst: Band,
    /// Reports in a row that asked for nothing.
    calm: u32,
    newest_number: Option<u32>,
    /// Reports in a row whose stability was under 0.5, repetitions left out.
    unstable: usize,
    newest: Option<Entry>,
    /// Reports so far, and at which of them the gate closed.
    reports: u64,
    closed_at: Vec<u64>,
    last_valid_us: u64,
    since_us: u64,
}

impl GateOracle {
    pub(crate) fn new(held: bool, now_us: u64) -> Self {
        let band = if held { Band::Isolated } else { Band::Blocked };
        Self {
            band,
            held,
            is_fenced: false,
            worst: band,
            calm: 0,
            newest_number: None,
            unstable: 0,
            newest: None,
            reports: 0,
            closed_at: Vec::new(),
            last_valid_us: now_us,
            since_us: now_us,
        }
    }

    /// Whether this report is the newest one once more, which says nothing.
    pub(crate) fn is_retry(&self, raw: &RawReport) -> bool {
        let is_newest = |newest: &Entry| newest.raw.says_the_same_as(raw);
        raw.flaw.is_none() && raw.cycle.is_some() && self.newest.as_ref().is_some_and(is_newest)
    }

    /// `None` for a report that cannot be read.
    pub(crate) fn report(&mut self, now_us: u64, raw: Option<&RawReport>, live: &Live) -> Opinion {
        let before = self.band;
        let Some(raw) = raw.filter(|raw| raw.flaw.is_none()) else {
            return self.judged(now_us, before, Band::Blocked, false, live);
        };
        let entry = self.file(raw);
        if entry.falls_back {
            self.calm = 0;
            self.worst = self.worst.max(Band::Blocked);
        }
        if !entry.repeats && !entry.says_nothing() {
            self.last_valid_us = now_us;
        }
        let is_evidence = entry.is_evidence(live);
        let asks = entry.asks(live);
        self.held |= entry.locks(live);
        self.newest = Some(entry);
        self.judged(now_us, before, asks, is_evidence, live)
    }

    /// Puts a report to the others, with what they say about it.
    fn file(&mut self, raw: &RawReport) -> Entry {
        let numbers = raw.cycle.zip(self.newest_number);
        let repeats = numbers.is_some_and(|(cycle, newest)| cycle == newest);
        let falls_back = numbers.is_some_and(|(cycle, newest)| cycle < newest);
        let last = self.newest.as_ref().filter(|_| !falls_back);
        let index_before = if repeats {
            last.and_then(|last| last.index_before)
        } else {
            last.and_then(|last| last.raw.index())
        };
        if !repeats {
            let so_far = if falls_back { 0 } else { self.unstable };
            self.unstable = if raw.stability < 0.5 { so_far + 1 } else { 0 };
        }
        self.newest_number = raw.cycle.or(self.newest_number);
        Entry { raw: raw.clone(), repeats, falls_back, index_before, unstable: self.unstable }
    }

    fn judged(
        &mut self,
        now_us: u64,
        before: Band,
        asks: Band,
        is_evidence: bool,
        live: &Live,
    ) -> Opinion {
        self.reports += 1;
        let flapping = |oracle: &Self, times: usize| {
            live.policy.flapping.is_some_and(|flapping| {
                let recent = |at: &&u64| oracle.reports - **at < u64::from(flapping.cycles);
                let count = oracle.closed_at.iter().filter(recent).count();
                count >= times * usize::try_from(flapping.closings).expect("small")
            })
        };
        let dwell = live.policy.dwell.max(if flapping(self, 1) { 3 } else { 1 });
        self.calm = if asks == Band::Open { self.calm + 1 } else { 0 };
        if !self.held && self.calm >= dwell {
            self.worst = Band::Open;
        }
        self.worst = self.worst.max(asks);
        let is_open = |band: Band| matches!(band, Band::Open | Band::Caution);
        if self.is_fenced && is_open(self.stands(asks)) {
            self.worst = before.max(Band::Blocked);
            self.calm = 0;
        }
        if is_open(before) && !is_open(self.stands(asks)) {
            self.closed_at.push(self.reports);
            if flapping(self, 2) {
                self.worst = Band::Isolated;
                self.calm = 0;
            }
        }
        self.enter(now_us, before, self.stands(asks), is_evidence)
    }

    /// What is in force: the worst since the gate last opened, if that closed it; else the newest.
    fn stands(&self, newest: Band) -> Band {
        match self.worst {
            _ if self.held => Band::Isolated,
            Band::Blocked | Band::Isolated => self.worst,
            Band::Open | Band::Caution => newest,
        }
    }

    /// The operator's choices have changed: the newest report is judged again and opens nothing.
    pub(crate) fn reload(&mut self, now_us: u64, live: &Live) -> Opinion {
        let before = self.band;
        let Some(entry) = self.newest.clone() else {
            return self.enter(now_us, before, before, false);
        };
        self.held |= entry.locks(live);
        let asks = entry.asks(live);
        if asks != Band::Open {
            self.calm = 0;
        }
        self.worst = self.worst.max(asks);
        self.enter(now_us, before, self.stands(asks.max(before)).max(before), false)
    }

    /// The operator isolates or releases.
    pub(crate) fn hold(&mut self, now_us: u64, held: bool) -> Opinion {
        if !held && !self.held {
            return Opinion { band: self.band, closes: false, exportable: false };
        }
        self.held = held;
        let band = if held { Band::Isolated } else { self.band };
        self.ask(now_us, band)
    }

    /// A twin comes or goes; going opens nothing.
    pub(crate) fn fence(&mut self, now_us: u64, is_fenced: bool) -> Opinion {
        self.is_fenced = is_fenced;
        if is_fenced && self.band < Band::Blocked {
            return self.ask(now_us, Band::Blocked);
        }
        Opinion { band: self.band, closes: false, exportable: false }
    }

    /// Something failed inspection: the gate closes, as after any other bad sign.
    pub(crate) fn distrust(&mut self, now_us: u64) -> Opinion {
        self.ask(now_us, self.band.max(Band::Blocked))
    }

    /// Silence, or a band held for too long.
    pub(crate) fn tick(&mut self, now_us: u64, live: &Live) -> Option<Opinion> {
        let micros = |span: std::time::Duration| u64::try_from(span.as_micros()).expect("short");
        let silent_us = now_us - self.last_valid_us;
        let is_over = |limit: Option<std::time::Duration>, time: u64| {
            limit.is_some_and(|limit| time >= micros(limit))
        };
        let is_stuck =
            self.band == Band::Blocked && is_over(live.isolate_after, now_us - self.since_us);
        let asks = [
            (is_over(live.silence_isolates_after, silent_us), Band::Isolated),
            (is_stuck, Band::Isolated),
            (is_over(Some(live.stale_after), silent_us), Band::Blocked),
        ];
        let band = asks.into_iter().filter(|(applies, _)| *applies).map(|(_, band)| band).max()?;
        (band > self.band).then(|| self.ask(now_us, band))
    }

    /// Something other than a report asks for at least `band`.
    fn ask(&mut self, now_us: u64, band: Band) -> Opinion {
        self.calm = 0;
        self.worst = self.worst.max(band);
        self.enter(now_us, self.band, band, false)
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

impl Entry {
    /// No evidence in itself, whatever the policy.
    fn says_nothing(&self) -> bool {
        let raw = &self.raw;
        let is_zero = match (raw.parts, raw.di) {
            (Some(parts), _) => [parts.sdi, parts.sv, parts.pd].iter().all(|part| *part <= 0.0),
            (None, di) => di.is_some_and(|di| di <= 0.0),
        };
        is_zero || raw.phase == Some("initializing")
    }

    fn is_evidence(&self, live: &Live) -> bool {
        let is_accepted = self.raw.parts.is_some() || live.policy.accept <= Provenance::Reported;
        is_accepted && !self.repeats && !self.falls_back && !self.says_nothing()
    }

    fn reaches(&self, mark: f64) -> bool {
        self.raw.index().is_some_and(|index| index + HAIR >= mark)
    }

    fn locks(&self, live: &Live) -> bool {
        live.policy.lock.is_some_and(|lock| self.reaches(lock))
    }

    /// The strictest band that a sentence of the table asks for.
    fn asks(&self, live: &Live) -> Band {
        let marks = live.policy.thresholds;
        let raw = &self.raw;
        let stance = raw.stance();
        let rose = raw.index().zip(self.index_before).is_some_and(|(now, then)| now - then > 0.4);
        let contradicts =
            raw.formula().zip(raw.di).is_some_and(|(formula, di)| (formula - di).abs() > 0.005);
        let asks = [
            (Band::Caution, self.reaches(marks.reopen)),
            (Band::Blocked, self.reaches(marks.block)),
            (Band::Blocked, !self.is_evidence(live)),
            (Band::Blocked, matches!(stance, Stance::Reflective | Stance::Unknown)),
            (Band::Blocked, !matches!(raw.status, None | Some("nominal"))),
            (Band::Blocked, raw.is_critical()),
            (Band::Blocked, rose),
            (Band::Blocked, contradicts),
            (Band::Blocked, raw.psd.is_some_and(|psd| psd >= 0.15)),
            (Band::Isolated, self.reaches(marks.isolate)),
            (Band::Isolated, stance == Stance::Recenter),
            (Band::Isolated, self.unstable > 3 && raw.is_weak()),
            (Band::Isolated, raw.psi.is_some_and(|psi| psi < 0.6)),
            (Band::Isolated, raw.er.is_some_and(|er| er > 0.3)),
        ];
        asks.into_iter()
            .filter(|(_, applies)| *applies)
            .map(|(band, _)| band)
            .max()
            .unwrap_or(Band::Open)
    }
}
