//! The chain: at most 16 objects whatever comes, near the least bytes, and retention that never
//! cuts a branch.

use std::collections::BTreeMap;

use driftgate::protocol::digest::Digest;
use driftgate::protocol::snapshot::{
    BASES_MAX, ChainEntry, ChainFault, DeltaChain, Expected, FrameKind, Level, OBJECTS_MAX, Plain,
    Plan, Review, TREE_ENTRIES_MAX, encode_next, is_worth, restore,
};
use proptest::prelude::*;

use super::{LIMITS, full, notes};

/// Snapshots that are a list of changes: what each adds to the stored delta and to the plain size.
struct Model {
    chain: DeltaChain,
    changes: Vec<u64>,
    stored: u64,
    /// Bytes of a chain in which every delta is of the snapshot before.
    least: u64,
    size: u64,
}

impl Model {
    fn new() -> Self {
        Self { chain: DeltaChain::default(), changes: vec![0], stored: 0, least: 0, size: 0 }
    }

    fn total(&self) -> u64 {
        *self.changes.last().unwrap()
    }

    /// Takes the next snapshot as the store would; a full frame weighs `full`.
    fn push(&mut self, change: u64, growth: u64, full: u64) {
        self.changes.push(self.total() + change);
        self.size += growth;
        let seq = u64::try_from(self.changes.len() - 1).unwrap();
        let weigh = |base: u64| {
            let base = self.changes[usize::try_from(base).unwrap()];
            (self.total() - base + 64).min(full + 64)
        };
        let base = match self.chain.plan(self.size) {
            Plan::Full => None,
            Plan::Delta { base, stored_max } if weigh(base) > stored_max => None,
            Plan::Delta { base, .. } => match self.chain.review(self.size, base, weigh(base)) {
                Review::Keep => Some(base),
                Review::Compare => Some(base).filter(|base| is_worth(weigh(*base), full)),
                Review::Climb(base) => Some(base),
            },
        };
        let stored = base.map_or(full, weigh);
        self.least += if seq == 1 { full } else { weigh(seq - 1).min(full) };
        self.stored += stored;
        let entry = ChainEntry { seq, digest: Digest::of(b""), base, size: self.size, stored };
        self.chain.accept(entry).unwrap();
        assert!(self.chain.bases().len() <= BASES_MAX);
        let path = self.chain.restore_path(seq).unwrap();
        assert!((1..=OBJECTS_MAX).contains(&path.len()), "snapshot {seq}: {path:?}");
    }

    fn full_frames(&self) -> usize {
        self.chain.entries().filter(|entry| entry.kind() == FrameKind::Full).count()
    }

    fn excess(&self) -> f64 {
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a figure")]
        let excess = self.stored as f64 / self.least as f64;
        excess
    }
}

#[test]
fn any_of_5000_snapshots_is_restored_from_at_most_16_objects() {
    // Cumulative: each adds 700 stored bytes to 2000 plain ones; a full frame is the sum.
    let mut cumulative = Model::new();
    // Edits in place, in a snapshot whose full frame is 600 edits.
    let mut edits = Model::new();
    edits.size = 4_000_000;
    // Wholly new each time.
    let mut new = Model::new();
    new.size = 300_000;
    for n in 1..=5000 {
        cumulative.push(700, 2000, 700 * n);
        edits.push(2000, 0, 1_200_000);
        new.push(90_000, 0, 90_000);
    }
    for (model, excess_max) in [(cumulative, 5.5), (edits, 4.5), (new, 1.0)] {
        for (first, entry) in (1..).zip(model.chain.entries()) {
            assert_eq!(entry.seq, first);
            let path = model.chain.restore_path(entry.seq).unwrap();
            assert_eq!(path.last(), Some(&entry.seq));
            assert!(path.len() <= OBJECTS_MAX);
            for (place, seq) in path.iter().enumerate() {
                let base = model.chain.entry(*seq).unwrap().base;
                assert_eq!(base, place.checked_sub(1).map(|before| path[before]));
            }
        }
        assert!(model.excess() <= excess_max, "{} times the least", model.excess());
    }
}

#[test]
fn five_hundred_cumulative_snapshots_cost_at_most_three_times_the_least() {
    let mut model = Model::new();
    for n in 1..=500 {
        model.push(700, 2000, 600 * n);
    }
    assert!(model.excess() < 3.0, "{} times the least", model.excess());
    assert!(model.full_frames() <= 6, "{} full frames", model.full_frames());
}

#[test]
fn a_great_change_is_not_stored_again_and_again() {
    for growth in [0, 200_000] {
        let mut model = Model::new();
        model.size = 40_000_000;
        for n in 1..=400 {
            let change = if n % 50 == 0 { 200_000 } else { 1000 };
            model.push(change, if n % 50 == 0 { growth } else { 0 }, 600_000 + 1000 * n);
        }
        assert!(model.excess() < 1.9, "growth {growth}: {} times the least", model.excess());
    }
}

#[test]
fn content_that_always_changes_wholly_is_seldom_tried_as_a_delta() {
    let mut model = Model::new();
    model.size = 300_000;
    let mut tried = 0;
    for _ in 0..1000 {
        tried += usize::from(matches!(model.chain.plan(model.size), Plan::Delta { .. }));
        model.push(90_000, 0, 90_000);
    }
    assert_eq!(model.full_frames(), 1000);
    assert!(tried < 1000 / 12, "{tried} vain deltas");
    // It settles, and deltas come back.
    for _ in 0..32 {
        model.push(10, 0, 90_000);
    }
    assert!(model.full_frames() < 1020, "{} full frames", model.full_frames());
}

#[test]
fn a_tree_ends_in_time_for_retention() {
    let mut model = Model::new();
    model.size = 1 << 40;
    for _ in 0..2 * TREE_ENTRIES_MAX + 1 {
        model.push(64, 0, 1 << 40);
    }
    assert_eq!(model.full_frames(), 3);
    let garbage = model.chain.garbage(2, u64::MAX);
    assert_eq!(garbage.len(), TREE_ENTRIES_MAX);
}

#[test]
fn retention_keeps_full_frames_and_all_that_depends_on_them() {
    let mut model = Model::new();
    model.size = 300_000;
    for n in 1..=300 {
        model.push(if n % 60 == 0 { 90_000 } else { 500 }, 1000, 60_000);
    }
    let chain = &mut model.chain;
    let full_frames: Vec<u64> = chain
        .entries()
        .filter(|entry| entry.kind() == FrameKind::Full)
        .map(|entry| entry.seq)
        .collect();
    assert!(full_frames.len() >= 4);
    let newest_two = full_frames[full_frames.len() - 2];
    assert_eq!(chain.reachable(0, u64::MAX), chain.reachable(1, u64::MAX));
    let kept = chain.reachable(2, u64::MAX);
    assert_eq!(kept.first(), Some(&newest_two));
    let rest: Vec<u64> =
        chain.entries().map(|entry| entry.seq).filter(|seq| *seq >= newest_two).collect();
    assert!(rest.iter().all(|seq| kept.contains(seq)));
    let garbage = chain.garbage(2, u64::MAX);
    assert_eq!(garbage.len() + kept.len(), 300);
    let in_use = chain.restore_path(299).unwrap()[0];
    assert_eq!(chain.forget(in_use), Err(ChainFault::InUse(in_use)));
    for seq in garbage {
        chain.forget(seq).unwrap();
    }
    for seq in &kept {
        let path = chain.restore_path(*seq).unwrap();
        assert!(path.iter().all(|seq| kept.contains(seq)));
    }
    assert!(chain.garbage(2, u64::MAX).is_empty());
}

#[test]
fn a_chain_rebuilt_from_its_entries_plans_as_before() {
    let mut model = Model::new();
    for n in 1..=700 {
        model.push(500 + n % 7 * 300, 1500 + n % 5 * 100, 900 * n);
        let rebuilt = DeltaChain::from_entries(model.chain.entries().rev().cloned()).unwrap();
        for size in [model.size, model.size + 2000, model.size * 2] {
            assert_eq!(rebuilt.plan(size), model.chain.plan(size));
        }
        assert_eq!(rebuilt.bases(), model.chain.bases());
    }
}

#[test]
fn a_revoked_snapshot_leaves_the_chain_as_it_was() {
    let mut model = Model::new();
    for n in 1..=40 {
        model.push(500, 1500, 900 * n);
    }
    let before = (model.chain.plan(70_000), model.chain.bases());
    model.push(500, 1500, 900 * 41);
    assert_eq!(model.chain.forget(41).map(|entry| entry.seq), Ok(41));
    assert_eq!((model.chain.plan(70_000), model.chain.bases()), before);
    assert_eq!(model.chain.forget(41), Err(ChainFault::Unknown(41)));
}

#[test]
fn a_chain_refuses_what_could_not_be_restored() {
    let entry = |seq, base| ChainEntry { seq, digest: Digest::of(b""), base, size: 10, stored: 5 };
    let mut chain = DeltaChain::default();
    assert_eq!(chain.accept(entry(1, Some(0))), Err(ChainFault::Unknown(0)));
    for seq in 1..=16 {
        chain.accept(entry(seq, seq.checked_sub(1).filter(|base| *base > 0))).unwrap();
    }
    assert_eq!(chain.accept(entry(17, Some(16))), Err(ChainFault::TooDeep(17)));
    assert_eq!(
        chain.accept(entry(16, Some(1))),
        Err(ChainFault::NotRising { seq: 16, newest: 16 })
    );
    assert_eq!(chain.restore_path(17), None);
    assert_eq!(chain.newest().map(|entry| entry.seq), Some(16));
}

#[test]
fn a_base_that_is_gone_costs_a_full_frame_and_nothing_else() {
    let mut chain = DeltaChain::default();
    let old = Plain::new(notes(1, 9000));
    let first = encode_next(&chain, &old, Level::DEFAULT, |_| None).unwrap();
    chain.accept(first.entry(1, &old)).unwrap();
    let new = Plain::new([old.bytes(), &b"more"[..]].concat());
    let with = encode_next(&chain, &new, Level::DEFAULT, |_| Some(old.clone())).unwrap();
    let without = encode_next(&chain, &new, Level::DEFAULT, |_| None).unwrap();
    assert_eq!((with.base, without.base), (Some(1), None));
}

#[test]
fn no_delta_is_over_half_of_its_full_frame_even_after_a_tiny_first_snapshot() {
    let mut chain = DeltaChain::default();
    let mut bytes = b"[]".to_vec();
    let mut plains: Vec<Plain> = vec![];
    for seq in 1..=150 {
        let source = Plain::new(bytes.clone());
        let encoded = encode_next(&chain, &source, Level::DEFAULT, |entry| {
            plains.get(usize::try_from(entry.seq).unwrap() - 1).cloned()
        });
        let encoded = encoded.unwrap();
        let entry = encoded.entry(seq, &source);
        if encoded.base.is_some() {
            let full = u64::try_from(full(&source).len()).unwrap();
            assert!(is_worth(entry.stored, full), "{seq}: {} of {full}", entry.stored);
        }
        chain.accept(entry).unwrap();
        plains.push(source);
        bytes.extend(notes(seq, 300 + usize::try_from(seq % 7).unwrap() * 400));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Edit(prop::sample::Index, usize),
    Replace(u64),
    Truncate(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..900usize).prop_map(Step::Append),
        4 => (any::<prop::sample::Index>(), 1..400usize).prop_map(|(at, size)| Step::Edit(at, size)),
        1 => any::<u64>().prop_map(Step::Replace),
        1 => any::<prop::sample::Index>().prop_map(Step::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_changes_every_snapshot_is_restored_byte_for_byte(
        steps in prop::collection::vec(step(), 1..60),
        start in 0..20_000usize,
    ) {
        let mut chain = DeltaChain::default();
        let mut objects: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut plains: BTreeMap<u64, Plain> = BTreeMap::new();
        let mut bytes = notes(99, start);
        for (seq, step) in (1..).zip(steps) {
            match step {
                Step::Append(size) => bytes.extend(notes(seq, size)),
                Step::Edit(at, size) => {
                    let at = at.index(bytes.len() + 1);
                    let end = (at + size).min(bytes.len());
                    bytes.splice(at..end, notes(seq, size));
                }
                Step::Replace(seed) => bytes = notes(seed, bytes.len() + 100),
                Step::Truncate(at) => bytes.truncate(at.index(bytes.len() + 1)),
            }
            let source = Plain::new(bytes.clone());
            let encoded = encode_next(&chain, &source, Level::DEFAULT, |entry| {
                plains.get(&entry.seq).cloned()
            });
            let encoded = encoded.unwrap();
            chain.accept(encoded.entry(seq, &source)).unwrap();
            objects.insert(seq, encoded.stored);
            plains.insert(seq, source);
        }
        for (seq, source) in &plains {
            let path = chain.restore_path(*seq).unwrap();
            prop_assert!(path.len() <= OBJECTS_MAX);
            let stored: Vec<&[u8]> = path.iter().map(|seq| objects[seq].as_slice()).collect();
            let expected = Expected {
                size: Some(source.size()),
                stored_digest: Some(Digest::of(&objects[seq])),
                digest: source.digest(),
            };
            let restored = restore(&stored, &expected, &LIMITS);
            prop_assert_eq!(restored.as_ref(), Ok(source));
        }
    }
}
