//! Long runs as growing snapshots: a recorded one where there is one, else one made up here.

use super::report::Dice;

/// Names a file of lines; snapshot n is the first n of them.
pub(crate) const VARIABLE: &str = "DRIFTGATE_HORIZON";

/// A run as one text, and where each of its snapshots ends.
pub(crate) struct Horizon {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) ends: Vec<usize>,
}

impl Horizon {
    /// The run that [`VARIABLE`] names, or one of `count` cycles made up here.
    pub(crate) fn recorded_or_made(count: usize) -> Self {
        let Some(path) = std::env::var_os(VARIABLE) else { return Self::made(count) };
        let data = std::fs::read(&path).expect("DRIFTGATE_HORIZON names a file");
        Self::of("recorded run".to_owned(), data)
    }

    /// Cycles as a runtime logs them, some 2 KB each, of which most is said in every cycle.
    pub(crate) fn made(count: usize) -> Self {
        let mut dice = Dice::new(7);
        let words: Vec<String> = (0..4096).map(|_| format!("w{:x}", dice.below(1 << 24))).collect();
        let mut data = String::new();
        for cycle in 1..=count {
            let said: Vec<&str> = (0..200)
                .map(|_| {
                    // Few words are said often, as people do.
                    let rank = dice.below(64) * dice.below(64);
                    words[usize::try_from(rank).expect("below 4096")].as_str()
                })
                .collect();
            data.push_str(&format!(
                "{{\"cycle\": {cycle}, \"user_input\": \"{}\", \"response\": \"{}\", \
                 \"attractor_state\": {{\"phase\": \"stable\", \"stability\": 0.{}}}, \
                 \"drift_metrics\": {{\"semantic\": 0.{}, \"total\": 0.{}}}}}\n",
                said[..40].join(" "),
                said[40..].join(" "),
                dice.below(1000),
                dice.below(10_000),
                dice.below(10_000),
            ));
        }
        Self::of("made-up run".to_owned(), data.into_bytes())
    }

    fn of(name: String, data: Vec<u8>) -> Self {
        let is_end = |(place, byte): (usize, &u8)| (*byte == b'\n').then_some(place + 1);
        let ends = data.iter().enumerate().filter_map(is_end).collect();
        Self { name, data, ends }
    }

    /// Its snapshots, oldest first.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.ends.iter().map(|end| &self.data[..*end])
    }
}

/// Snapshots of one size, each the one before with an edit per 64 KiB and 4 KiB inserted.
#[derive(Clone)]
pub(crate) struct Edits {
    dice: Dice,
    bytes: Vec<u8>,
}

impl Edits {
    pub(crate) fn new(size: usize) -> Self {
        let mut dice = Dice::new(11);
        Self { bytes: text(&mut dice, size), dice }
    }
}

impl Iterator for Edits {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let snapshot = self.bytes.clone();
        for _ in 0..self.bytes.len() >> 16 {
            let edit = text(&mut self.dice, 24);
            let at = place(&mut self.dice, self.bytes.len() - edit.len());
            self.bytes[at..at + edit.len()].copy_from_slice(&edit);
        }
        let insertion = text(&mut self.dice, 4096);
        let at = place(&mut self.dice, self.bytes.len());
        self.bytes.splice(at..at, insertion);
        Some(snapshot)
    }
}

fn place(dice: &mut Dice, limit: usize) -> usize {
    let limit = u64::try_from(limit).expect("a length");
    usize::try_from(dice.below(limit)).expect("below a length")
}

/// Memory of an agent as JSON lines would be: words from a small set, and numbers.
fn text(dice: &mut Dice, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 64);
    while bytes.len() < size {
        let record = match dice.below(4) {
            0 => format!("\"motif-{}\": {}, ", dice.below(0x1000), dice.below(1 << 24)),
            _ => format!("w{:x} ", dice.below(0x1000)),
        };
        bytes.extend_from_slice(record.as_bytes());
    }
    bytes.truncate(size);
    bytes
}
