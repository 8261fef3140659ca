//! What snapshots cost: stored bytes, CPU, memory and objects per restore, against zstd for each.
//!
//! `cargo bench --bench snapshot -- RUN.jsonl` takes snapshot n to be the first n lines of a file;
//! without an argument it makes up a run. Then snapshots of 4, 16 and 64 MiB with scattered edits
//! and insertions. Every snapshot is restored from its objects and compared byte for byte. CPU is
//! this process's own, so that neighbours on the machine do not count.

#![expect(clippy::print_stdout, reason = "a bench reports to the terminal")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench stops where it fails")]
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "figures for people, over data made here"
)]

use std::collections::BTreeMap;
use std::env::args;
use std::fs;
use std::time::Duration;

use driftgate::protocol::snapshot::{
    Chain, Digest, Encoded, Expected, Level, Limits, OBJECTS_MAX, Plain, encode_delta, encode_full,
    encode_next, restore,
};

/// Plain snapshots kept at hand as bases, as a sidecar with little memory would.
const CACHED_PLAINS: usize = 2;
/// Below this what the process holds anyway hides what encoding takes.
const MEASURED_BYTES_MIN: u64 = 1 << 20;

fn main() {
    // `cargo test` runs benches too, to see that they start; what they measure is not for then.
    if !args().any(|argument| argument == "--bench") {
        return;
    }
    let path = args().skip(1).find(|argument| !argument.starts_with("--"));
    let data = path.as_ref().map_or_else(
        || text(&mut Dice(7), 976_000),
        |path| fs::read(path).expect("the run is readable"),
    );
    let ends: Vec<usize> = match path {
        Some(_) => (0..data.len()).filter(|at| data[*at] == b'\n').map(|at| at + 1).collect(),
        None => (1..=500).map(|n| data.len() * n / 500).collect(),
    };
    println!("run of {} cumulative snapshots, {} bytes at last", ends.len(), data.len());
    for level in [3, 9] {
        let snapshots = ends.iter().map(|end| Plain::new(data[..*end].to_vec()));
        Run::of(Level::new(level).unwrap(), snapshots).print();
    }
    for (mebibytes, count) in [(4, 40), (16, 24), (64, 12)] {
        println!("{count} snapshots of {mebibytes} MiB, an edit per 64 KiB and an insertion each");
        for level in [3, 9] {
            let snapshots = Edits::new(mebibytes << 20).take(count);
            Run::of(Level::new(level).unwrap(), snapshots).print();
        }
    }
}

#[derive(Default)]
struct Run {
    level: i32,
    raw: u64,
    each: u64,
    each_cpu: Duration,
    previous: u64,
    stored: u64,
    stored_cpu: Duration,
    base_cpu: Duration,
    bases_restored: usize,
    full_frames: Vec<u64>,
    objects_max: usize,
    restored: usize,
    restore_cpu: Duration,
    grown: f64,
}

impl Run {
    fn of(level: Level, snapshots: impl Iterator<Item = Plain> + Clone) -> Self {
        let mut run = Self { level: level.number(), ..Self::default() };
        let mut chain = Chain::default();
        let mut store: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut cache: BTreeMap<u64, Plain> = BTreeMap::new();
        let mut before: Option<Plain> = None;
        for (seq, source) in (1..).zip(snapshots.clone()) {
            run.raw += source.size();
            let at = cpu();
            run.each += encode_full(&source, level).unwrap().len() as u64;
            run.each_cpu += cpu().saturating_sub(at);
            run.previous += before.take().map_or(0, |before| {
                encode_delta(&before, &source, level, usize::MAX).unwrap().len() as u64
            });
            let resident_bytes = memory("VmRSS:");
            forget_peak();
            let at = cpu();
            let mut base_cpu = Duration::ZERO;
            let encoded = encode_next(&chain, &source, level, |entry| {
                cache.get(&entry.seq).cloned().or_else(|| {
                    let at = cpu();
                    run.bases_restored += 1;
                    let plain = fetch(&chain, &store, entry.seq, entry.digest);
                    base_cpu += cpu().saturating_sub(at);
                    Some(plain)
                })
            });
            run.stored_cpu += cpu().saturating_sub(at).saturating_sub(base_cpu);
            run.base_cpu += base_cpu;
            if source.size() >= MEASURED_BYTES_MIN {
                // Base and source are resident already.
                let grown = memory("VmHWM:").saturating_sub(resident_bytes);
                run.grown = run.grown.max(grown as f64 / (2 * source.size()) as f64);
            }
            run.take_up(seq, &source, encoded.unwrap(), &mut chain, &mut store);
            cache.insert(seq, source.clone());
            let wanted: Vec<u64> = chain.bases().into_iter().take(CACHED_PLAINS).collect();
            cache.retain(|seq, _| wanted.contains(seq));
            before = Some(source);
        }
        for (seq, source) in (1..).zip(snapshots) {
            let at = cpu();
            let plain = fetch(&chain, &store, seq, source.digest());
            run.restore_cpu += cpu().saturating_sub(at);
            assert_eq!(plain.bytes(), source.bytes(), "snapshot {seq}");
            run.restored += 1;
        }
        run
    }

    fn take_up(
        &mut self,
        seq: u64,
        source: &Plain,
        encoded: Encoded,
        chain: &mut Chain,
        store: &mut BTreeMap<u64, Vec<u8>>,
    ) {
        self.stored += encoded.stored.len() as u64;
        chain.accept(encoded.entry(seq, source)).unwrap();
        if encoded.base.is_none() {
            self.full_frames.push(seq);
            self.previous += if seq == 1 { encoded.stored.len() as u64 } else { 0 };
        }
        let objects = chain.restore_path(seq).unwrap().len();
        assert!(objects <= OBJECTS_MAX, "snapshot {seq} needs {objects} objects");
        self.objects_max = self.objects_max.max(objects);
        store.insert(seq, encoded.stored);
    }

    fn print(&self) {
        let Self { level, raw, each, previous, stored, .. } = self;
        let times = |bytes: &u64| *each as f64 / *bytes as f64;
        println!("  level {level}: {raw} raw, {each} zstd each");
        println!(
            "    stored {stored}: {:.1} times less (delta of the previous always: {previous}, {:.1})",
            times(stored),
            times(previous)
        );
        println!(
            "    cpu: zstd each {:.2} s, ours {:.2} s and {:.2} s to restore {} bases",
            self.each_cpu.as_secs_f64(),
            self.stored_cpu.as_secs_f64(),
            self.base_cpu.as_secs_f64(),
            self.bases_restored
        );
        println!("    full frames at {:?}", self.full_frames);
        println!(
            "    all {} restored and equal, at most {} objects, {:.2} s cpu; encoding took \
             {:.2} x (base + source) beside them",
            self.restored,
            self.objects_max,
            self.restore_cpu.as_secs_f64(),
            self.grown
        );
    }
}

fn fetch(chain: &Chain, store: &BTreeMap<u64, Vec<u8>>, seq: u64, digest: Digest) -> Plain {
    let path = chain.restore_path(seq).unwrap();
    let objects: Vec<&[u8]> = path.iter().map(|seq| store[seq].as_slice()).collect();
    restore(&objects, &Expected::digest(digest), &Limits::default()).unwrap()
}

/// Snapshots of one size, each the one before with an edit per 64 KiB and 4 KiB inserted.
#[derive(Clone)]
struct Edits {
    dice: Dice,
    bytes: Vec<u8>,
}

impl Edits {
    fn new(size: usize) -> Self {
        let mut dice = Dice(11);
        Self { bytes: text(&mut dice, size), dice }
    }
}

impl Iterator for Edits {
    type Item = Plain;

    fn next(&mut self) -> Option<Plain> {
        let plain = Plain::new(self.bytes.clone());
        for _ in 0..self.bytes.len() >> 16 {
            let edit = text(&mut self.dice, 24);
            let at = self.dice.below(self.bytes.len() - edit.len());
            self.bytes[at..at + edit.len()].copy_from_slice(&edit);
        }
        let insertion = text(&mut self.dice, 4096);
        let at = self.dice.below(self.bytes.len());
        self.bytes.splice(at..at, insertion);
        Some(plain)
    }
}

/// The same numbers in every run (xorshift64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }
}

/// Memory of an agent as JSON lines would be: words from a small set, and numbers.
fn text(dice: &mut Dice, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 64);
    while bytes.len() < size {
        let word = dice.roll();
        let record = match word % 4 {
            0 => format!("\"motif-{}\": {}, ", word >> 8 & 0xfff, word >> 40),
            _ => format!("w{:x} ", word >> 8 & 0xfff),
        };
        bytes.extend_from_slice(record.as_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Starts a new peak of resident memory.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Resident memory by this name in `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let kibibytes = line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}
