//! What happened: a hash over everything, the last events in words, and the first broken promise.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// Events that a failing seed prints.
const TRAIL_LEN_MAX: usize = 50;

#[derive(Clone, Copy, Debug)]
struct Happening {
    at_us: u64,
    place: usize,
    what: &'static str,
    number: u64,
}

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    trail: VecDeque<Happening>,
    pub(crate) violation: Option<String>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, trail: VecDeque::new(), violation: None }
    }

    pub(crate) fn event(&mut self, at_us: u64, place: usize, what: &'static str, number: u64) {
        self.mix(&at_us.to_le_bytes());
        self.mix(&place.to_le_bytes());
        self.mix(what.as_bytes());
        self.mix(&number.to_le_bytes());
        self.trail.push_back(Happening { at_us, place, what, number });
        if self.trail.len() > TRAIL_LEN_MAX {
            self.trail.pop_front();
        }
    }

    /// FNV-1a.
    pub(crate) fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn violate(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// The last events, one line each.
    pub(crate) fn trail(&self) -> String {
        let mut text = String::new();
        for Happening { at_us, place, what, number } in &self.trail {
            let (s, us) = (at_us / 1_000_000, at_us % 1_000_000);
            writeln!(text, "  {s:>6}.{us:06} n{place} {what} {number}").expect("a string");
        }
        text
    }
}
