//! What is being shown and why, in one line: told by where planner's gate stands.

use crate::protocol::gate::{BLOCK_MAX, Band, ISOLATE_MAX};

/// What the letters of the strip stand for.
pub(super) const LEGEND: [(Band, &str, &str); 4] = [
    (Band::Open, "o", "sends all"),
    (Band::Caution, "c", "sends 1 in 3"),
    (Band::Blocked, "B", "holds"),
    (Band::Isolated, "I", "cut off"),
];

/// One line for the phase that the run is in. `has_been_closed` says whether the gate has closed
/// since it first opened; before its first report there is no band.
pub(super) fn told(planner: Option<(Band, f64)>, has_been_closed: bool) -> &'static str {
    let Some((band, drift)) = planner else {
        return "Starting: every gate stays blocked until its first good report.";
    };
    match band {
        Band::Open if has_been_closed => {
            "Reopened: one stable report under 0.45. What was held back is not sent later."
        }
        Band::Open => "Open: planner is stable, each report is a packet for each of its peers.",
        Band::Caution => "Caution: drift is 0.45 or more. One report in three is sent.",
        Band::Blocked if drift >= BLOCK_MAX => {
            "Blocked: drift reached 0.50. Nothing leaves; what was unsent is revoked."
        }
        Band::Blocked => "Still blocked: under 0.50 again, but only under 0.45 reopens the gate.",
        Band::Isolated if drift >= ISOLATE_MAX => {
            "Isolated: drift reached 0.60. Planner sends nothing and hears nothing."
        }
        Band::Isolated => "Still isolated: drift falls, but only under 0.45 reopens the gate.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_a_line_of_its_own_that_fits_the_smallest_terminal() {
        use Band::{Blocked, Caution, Isolated, Open};
        let phases = [
            told(None, false),
            told(Some((Open, 0.2)), false),
            told(Some((Caution, 0.47)), false),
            told(Some((Blocked, 0.52)), true),
            told(Some((Blocked, 0.47)), true),
            told(Some((Open, 0.3)), true),
            told(Some((Isolated, 0.65)), true),
            told(Some((Isolated, 0.5)), true),
        ];
        for (place, line) in phases.iter().enumerate() {
            assert!(line.len() <= 80 && line.ends_with('.'), "{line}");
            assert!(!phases.iter().take(place).any(|other| other == line), "{line}");
        }
    }
}
