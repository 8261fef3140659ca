//! Reports in the native shape.

/// A report without a cycle number, in a stable phase, whose formula index is `di`.
pub(crate) fn report(di: f64) -> String {
    report_in(di, "stable")
}

/// The same in another phase. The parts stay under their own critical marks for any `di` up to
/// 0.55: SDI 0.55, SV 0.65, PD 0.45 at most, and coherence shrinks only when that is not enough.
pub(crate) fn report_in(di: f64, phase: &str) -> String {
    let sum = 3.0 * di;
    let sdi = sum.min(0.55);
    let sv = (sum - sdi).min(0.65);
    let pd = (sum - sdi - sv).clamp(0.0, 0.45);
    let scr = if di > 0.0 { ((sdi + sv + pd) / (3.0 * di)).min(1.0) } else { 1.0 };
    format!(
        r#"{{"attractor_state": {{"id": "a-1", "type": "symbolic", "stability": 0.91, "phase": "{phase}",
            "scr": {scr}}}, "drift_metrics": {{"sdi": {sdi}, "sv": {sv}, "pd": {pd}, "di": {di}}}}}"#
    )
}

/// Numbers from a seed (xorshift64*): enough to choose by, and the same in every run.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Evenly below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}
