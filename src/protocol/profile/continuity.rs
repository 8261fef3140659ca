//! How one cycle number follows another, decided here and nowhere else.

/// How the cycle number of a report follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, schemars::JsonSchema, serde::Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Continuity {
    /// The first number of this feed.
    First,
    /// A higher number.
    Next {
        /// Cycles between the two that no report came from.
        missed: u64,
    },
    /// The newest number again.
    Same,
    /// A lower number: the runtime restarted, or the report comes late.
    Restart,
    /// There is no number, and that says nothing.
    Unknown,
}

/// The newest number, and the reports without one since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cycles {
    newest: Option<u64>,
    unnumbered: u64,
}

impl Cycles {
    /// Takes one report's number in.
    pub(super) fn follow(&mut self, cycle: Option<u64>) -> Continuity {
        let Some(cycle) = cycle else {
            self.unnumbered = self.unnumbered.saturating_add(1);
            return Continuity::Unknown;
        };
        let unnumbered = core::mem::take(&mut self.unnumbered);
        let Some(last) = self.newest.replace(cycle) else { return Continuity::First };
        match cycle.checked_sub(last) {
            None => Continuity::Restart,
            Some(0) => Continuity::Same,
            // Each report without a number may have been one of those between.
            Some(rise) => Continuity::Next { missed: (rise - 1).saturating_sub(unnumbered) },
        }
    }
}
