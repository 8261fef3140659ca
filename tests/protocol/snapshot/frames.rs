//! Both frame forms, against the `zstd` command and against ourselves.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use driftgate::protocol::snapshot::{
    DCZ_HEADER_BYTES, DCZ_MAGIC, EncodeFault, Expected, FrameKind, Level, Plain, encode_delta,
    encode_full, restore, window_log,
};
use proptest::prelude::*;

use super::{LIMITS, delta, full, notes, undo};

fn zstd(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("zstd")
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("these tests need the zstd command (package zstd)")
}

fn zstd_ok(folder: &Path, arguments: &[&str]) {
    let output = zstd(folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Base and source of the sizes at which the parameters change.
fn pairs() -> Vec<(Plain, Plain)> {
    [(0, 1), (1, 300), (70_000, 70_500), (3 << 20, (3 << 20) + 7000), (9 << 20, 5 << 20)]
        .map(|(base, source)| {
            let long = notes(1, base.max(source));
            let mut edited = long[..source].to_vec();
            if let Some(byte) = edited.get_mut(source / 2) {
                *byte ^= 1;
            }
            (Plain::new(long[..base].to_vec()), Plain::new(edited))
        })
        .to_vec()
}

#[test]
fn the_zstd_command_restores_what_we_store() {
    for (base, source) in pairs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("base"), base.bytes()).unwrap();
        fs::write(at("full.zst"), full(&source)).unwrap();
        zstd_ok(folder.path(), &["-q", "-d", "full.zst", "-o", "full"]);
        assert_eq!(fs::read(at("full")).unwrap(), source.bytes()[..]);
        let stored = delta(&base, &source);
        fs::write(at("cut.zst"), &stored[DCZ_HEADER_BYTES..]).unwrap();
        zstd_ok(folder.path(), &["-q", "-d", "--patch-from=base", "cut.zst", "-o", "cut"]);
        assert_eq!(fs::read(at("cut")).unwrap(), source.bytes()[..]);
    }
}

#[test]
fn the_zstd_command_skips_the_header_of_a_delta() {
    let folder = tempfile::tempdir().unwrap();
    let (base, source) = pairs().remove(2);
    fs::write(folder.path().join("base"), base.bytes()).unwrap();
    fs::write(folder.path().join("next.dcz"), delta(&base, &source)).unwrap();
    let arguments = ["-q", "-d", "--patch-from=base", "next.dcz", "-o", "next"];
    zstd_ok(folder.path(), &arguments);
    assert_eq!(fs::read(folder.path().join("next")).unwrap(), source.bytes()[..]);
}

#[test]
fn what_the_zstd_command_stores_we_restore() {
    for (base, source) in pairs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("base"), base.bytes()).unwrap();
        fs::write(at("next"), source.bytes()).unwrap();
        zstd_ok(folder.path(), &["-q", "-5", "next", "-o", "full.zst"]);
        let stored = fs::read(at("full.zst")).unwrap();
        assert_eq!(undo(FrameKind::Full, &stored, None, source.digest()), Ok(source.clone()));
        zstd_ok(folder.path(), &["-q", "--patch-from=base", "next", "-o", "patch"]);
        let mut stored = [&DCZ_MAGIC[..], base.digest().as_bytes()].concat();
        stored.extend(fs::read(at("patch")).unwrap());
        let plain = undo(FrameKind::Delta, &stored, Some(&base), source.digest());
        assert_eq!(plain, Ok(source));
    }
}

#[test]
fn a_delta_costs_what_changed_at_every_level() {
    let old = notes(2, 3 << 20);
    let mut new = old.clone();
    new.splice(1 << 20..1 << 20, notes(3, 2000));
    let (base, source) = (Plain::new(old), Plain::new(new));
    for level in [1, 3, 9, 19] {
        let level = Level::new(level).unwrap();
        let stored = encode_delta(&base, &source, level, usize::MAX).unwrap();
        assert!(stored.len() < 2000, "level {level:?}: {} bytes", stored.len());
        assert_eq!(
            undo(FrameKind::Delta, &stored, Some(&base), source.digest()).as_ref(),
            Ok(&source)
        );
    }
    assert_eq!((Level::new(0), Level::new(20)), (None, None));
}

#[test]
fn a_base_that_shares_its_memory_with_the_source_still_serves() {
    let shared = bytes::Bytes::from(notes(4, 200_000));
    let (base, source) = (Plain::new(shared.slice(..199_000)), Plain::new(shared));
    let stored = delta(&base, &source);
    assert!(stored.len() < 1000, "{} bytes: the prefix was dropped", stored.len());
    assert_eq!(undo(FrameKind::Delta, &stored, Some(&base), source.digest()), Ok(source));
}

#[test]
fn a_base_that_looks_like_a_trained_dictionary_is_only_bytes() {
    let mut base = vec![0x37, 0xa4, 0x30, 0xec];
    base.extend(notes(5, 50_000));
    let source = Plain::new([&base[..], b"and more"].concat());
    let base = Plain::new(base);
    let stored = delta(&base, &source);
    assert_eq!(undo(FrameKind::Delta, &stored, Some(&base), source.digest()), Ok(source));
}

#[test]
fn a_delta_over_its_allowance_is_given_up() {
    let (base, source) = (Plain::new(notes(6, 9000)), Plain::new(notes(7, 9000)));
    let whole = delta(&base, &source).len();
    let made = |allowance| encode_delta(&base, &source, Level::DEFAULT, allowance);
    assert_eq!(
        made(whole - 1).map_err(|fault| matches!(fault, EncodeFault::Oversize { .. })),
        Err(true)
    );
    assert!(made(10).is_err());
    assert_eq!(made(source.bytes().len() * 2).unwrap().len(), whole);
}

#[test]
fn a_window_covers_both_and_stays_within_what_decoders_accept() {
    for (bytes, log) in [(0, 10), (1 << 10, 10), (1025, 11), (1 << 27, 27), (u64::MAX, 27)] {
        assert_eq!(window_log(bytes), log, "{bytes}");
    }
}

proptest! {
    #[test]
    fn random_edits_round_trip(
        size in 0..40_000usize,
        seed in any::<u64>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..300usize, 0..300usize), 0..8),
        level in 1..=19i32,
    ) {
        let old = notes(seed, size);
        let mut new = old.clone();
        for (at, cut, insert) in edits {
            let at = at.index(new.len() + 1);
            let end = (at + cut).min(new.len());
            new.splice(at..end, notes(seed ^ 1, insert));
        }
        let (base, source) = (Plain::new(old), Plain::new(new));
        let level = Level::new(level).unwrap();
        let whole = encode_full(&source, level).unwrap();
        let plain = undo(FrameKind::Full, &whole, None, source.digest());
        prop_assert_eq!(plain.as_ref(), Ok(&source));
        let patch = encode_delta(&base, &source, level, usize::MAX).unwrap();
        let plain = undo(FrameKind::Delta, &patch, Some(&base), source.digest());
        prop_assert_eq!(plain.as_ref(), Ok(&source));
        let restored = restore(
            &[&encode_full(&base, level).unwrap(), &patch],
            &Expected::digest(source.digest()),
            &LIMITS,
        );
        prop_assert_eq!(restored, Ok(source));
    }
}
