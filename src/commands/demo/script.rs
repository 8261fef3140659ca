//! What the runtimes of the demonstration report: a drift curve over the run, and how often.
//!
//! Deterministic, and a function of the fraction of the run that has passed, so that a short run
//! tells the same story as a long one.

use std::time::Duration;

/// Corners of the planner's drift over the run. In between it is a straight line. Up through
/// caution into a block, back through the marks that do not reopen, then up again into isolation.
const PLANNER: [(f64, f64); 21] = [
    (0.00, 0.18),
    (0.12, 0.27),
    (0.20, 0.43),
    (0.22, 0.46),
    (0.30, 0.48),
    (0.32, 0.53),
    (0.37, 0.56),
    (0.40, 0.47),
    (0.44, 0.46),
    (0.46, 0.38),
    (0.53, 0.30),
    (0.58, 0.44),
    (0.60, 0.53),
    (0.62, 0.55),
    (0.64, 0.63),
    (0.70, 0.68),
    (0.73, 0.63),
    (0.75, 0.56),
    (0.78, 0.47),
    (0.80, 0.40),
    (1.00, 0.18),
];
/// Reports of a calm runtime in one run. The stream keeps the newest 8 packets of one source for
/// one target. A packet that is on its way when the planner is cut off stays there unread for the
/// consumer's 30 s, so fewer than 8 may follow it if the books of the end want every one of them.
const CALM_REPORTS: u32 = 18;
/// Between two reports of the planner, in a run that is long enough for it.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Fewest reports of the planner: each part of the story gets one or more.
const REPORTS_MIN: u32 = 45;

/// Who reports, and so what the curve is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temper {
    /// A calm runtime; the number tells one from another.
    Calm(u8),
    /// The one whose drift rises and falls.
    Drifting,
}

impl Temper {
    /// Drift index after `fraction` of the run, 0 to 1, with four decimals.
    pub(super) fn drift(self, fraction: f64) -> f64 {
        let drift = match self {
            Self::Calm(number) => 0.16 + 0.03 * wave(fraction * 4.0 + 0.4 * f64::from(number)),
            Self::Drifting => between(fraction) + 0.003 * wave(fraction * 16.0),
        };
        rounded(drift)
    }

    /// Between two reports, in a run of `length`.
    pub(super) fn interval(self, length: Duration) -> Duration {
        match self {
            Self::Calm(_) => length / CALM_REPORTS,
            Self::Drifting => REPORT_INTERVAL.min(length / REPORTS_MIN),
        }
    }
}

/// A smooth wave between -1 and 1, one turn per unit.
fn wave(turns: f64) -> f64 {
    (turns * core::f64::consts::TAU).sin()
}

fn between(fraction: f64) -> f64 {
    let pairs = PLANNER.iter().zip(PLANNER.iter().skip(1));
    for ((from, low), (to, high)) in pairs {
        if fraction <= *to {
            let part = ((fraction - from) / (to - from)).clamp(0.0, 1.0);
            return low + (high - low) * part;
        }
    }
    PLANNER.last().map_or(0.0, |(_, drift)| *drift)
}

/// One report.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// In the native shape.
    pub(super) text: String,
    /// Its gate value: the larger of what it says and what the formula gives.
    pub(super) drift: f64,
}

impl Report {
    /// A report whose formula gives `drift`, but for the rounding of its parts. No part is at a
    /// critical mark of its own up to 0.7.
    pub(super) fn new(runtime: &str, cycle: u64, drift: f64) -> Self {
        let scr = rounded(0.95 - 0.5 * drift);
        let sum = 3.0 * scr * drift;
        let (sdi, sv, pd) = (rounded(0.35 * sum), rounded(0.38 * sum), rounded(0.27 * sum));
        let stability = rounded(1.0 - 0.5 * drift);
        let text = format!(
            r#"{{"cycle": {cycle},
                "attractor_state": {{"id": "{runtime}-1", "type": "symbolic", "phase": "stable",
                                     "stability": {stability}, "scr": {scr}}},
                "drift_metrics": {{"sdi": {sdi}, "sv": {sv}, "pd": {pd}, "di": {drift}}}}}"#
        );
        Self { text, drift: drift.max((sdi + sv + pd) / (3.0 * scr)) }
    }
}

fn rounded(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::gate::{BLOCK_MAX, Band, ISOLATE_MAX, REOPEN_MAX};

    /// The band of each report, by the rule of the specification written once more.
    fn bands(seconds: u64) -> Vec<(Band, f64)> {
        let length = Duration::from_secs(seconds);
        let interval = Temper::Drifting.interval(length);
        let mut band = Band::Blocked;
        let count = u32::try_from(length.as_millis() / interval.as_millis()).unwrap();
        let step = |cycle: u32| {
            let drift = Temper::Drifting.drift(f64::from(cycle) / f64::from(count));
            let read = match drift {
                low if low < REOPEN_MAX => Band::Open,
                low if low < BLOCK_MAX => Band::Caution,
                low if low < ISOLATE_MAX => Band::Blocked,
                _ => Band::Isolated,
            };
            band = if read == Band::Open || band < Band::Blocked { read } else { band.max(read) };
            (band, drift)
        };
        (0..=count).map(step).collect()
    }

    #[test]
    fn a_run_of_any_length_tells_the_whole_story() {
        for seconds in [3, 4, 17, 40, 600] {
            let bands = bands(seconds);
            let mut story: Vec<Band> = bands.iter().map(|(band, _)| *band).collect();
            story.dedup();
            // Caution on the way into the second block may fall between two reports.
            let caution = story.iter().filter(|band| **band == Band::Caution).count();
            assert!((1..=2).contains(&caution), "{seconds}: {story:?}");
            story.retain(|band| *band != Band::Caution);
            story.dedup();
            use Band::{Blocked, Isolated, Open};
            assert_eq!(story, [Open, Blocked, Open, Blocked, Isolated, Open], "{seconds}");
            let latched = |(band, drift): &&(Band, f64)| {
                *band == Blocked && (REOPEN_MAX..BLOCK_MAX).contains(drift)
            };
            assert!(bands.iter().filter(latched).count() >= 2, "{seconds}");
            let isolated = bands.iter().filter(|(band, _)| *band == Isolated).count();
            assert!(isolated >= 4, "{seconds}: {isolated}");
        }
    }

    #[test]
    fn after_the_planner_is_isolated_no_peer_overtakes_what_is_unread_on_the_stream() {
        let cut = (0..1000).find(|step| {
            let drift = Temper::Drifting.drift(f64::from(*step) / 1000.0);
            drift >= ISOLATE_MAX
        });
        let left = Duration::from_secs(1000 - u64::try_from(cut.unwrap()).unwrap());
        let interval = Temper::Calm(0).interval(Duration::from_secs(1000));
        assert!(left.div_duration_f64(interval).ceil() < 8.0);
    }

    #[test]
    fn a_report_says_the_drift_that_the_formula_gives() {
        for step in 0..=70_u32 {
            let drift = f64::from(step) / 100.0;
            let report = Report::new("planner", 1, drift);
            let document: serde_json::Value = serde_json::from_str(&report.text).unwrap();
            let part = |pointer: &str| document.pointer(pointer).unwrap().as_f64().unwrap();
            let sdi = part("/drift_metrics/sdi");
            let (sv, pd) = (part("/drift_metrics/sv"), part("/drift_metrics/pd"));
            let scr = part("/attractor_state/scr");
            assert!((report.drift - drift).abs() < 0.001);
            assert!(report.drift >= (sdi + sv + pd) / (3.0 * scr));
            assert!(sdi < 0.5 && sv < 0.6 && pd < 0.4 && scr > 0.5);
        }
    }
}
