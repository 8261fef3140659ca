//! Stored bytes that an enemy wrote, or a broken disk.

use std::fs;

use driftgate::protocol::digest::Digest;
use driftgate::protocol::snapshot::{
    DCZ_MAGIC, DecodeFault, Expected, FrameHeader, FrameKind, Limits, Plain, decode,
};
use proptest::prelude::*;

use super::{LIMITS, delta, full, notes, undo};

/// A zstd frame of our form whose blocks are zeros, run-length encoded: 4 bytes for 128 KiB.
fn bomb(declared: u64, blocks: usize) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1100_0100, (27 - 10) << 3];
    frame.extend(declared.to_le_bytes());
    for block in 1..=blocks {
        let header = BLOCK << 3 | 1 << 1 | u32::from(block == blocks);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame.extend([0; 4]);
    frame
}

/// Largest resident memory so far, in KiB.
fn peak_kibibytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_bomb_is_refused_in_the_memory_that_is_allowed() {
    let digest = Digest::of(b"");
    let before = peak_kibibytes();
    let gibibyte = bomb(1 << 30, 8192);
    assert!(gibibyte.len() < 33_000);
    let cases = [
        (gibibyte.clone(), None, "more than the limit"),
        (gibibyte.clone(), Some(1 << 30), "more than the limit"),
        (gibibyte, Some(1000), "more than the limit"),
        // It says 1000 bytes and holds a gibibyte.
        (bomb(1000, 8192), None, "corrupt"),
        (bomb(1000, 8192), Some(1000), "corrupt"),
        // It says one byte more than was signed, or than the limit allows.
        (bomb((1 << 17) + 1, 1), Some(1 << 17), "not the 131072 that were signed"),
        (bomb((1 << 26) + 1, 512), None, "more than the limit"),
        // It says much and holds little.
        (bomb(1 << 26, 1), None, "corrupt"),
        (bomb(u64::MAX, 1), None, "more than the limit"),
    ];
    for (stored, size, reason) in cases {
        let expected = Expected { size, ..Expected::digest(digest) };
        let fault = decode(FrameKind::Full, &stored, None, &expected, &LIMITS).unwrap_err();
        assert!(fault.to_string().contains(reason), "{fault}");
    }
    let grown = peak_kibibytes() - before;
    // The other tests of this process are in it too; a gibibyte is not.
    assert!(grown < 512 << 10, "{grown} KiB");
}

#[test]
fn a_window_above_the_limit_is_refused() {
    let source = Plain::new(vec![7; 3 << 20]);
    let stored = full(&source);
    let header = FrameHeader::parse(FrameKind::Full, &stored).unwrap();
    assert_eq!((header.content_bytes, header.window_log()), (3 << 20, 21.max(header.window_log())));
    let expected = Expected::digest(source.digest());
    let narrow = Limits { window_log_max: 20, ..LIMITS };
    let fault = decode(FrameKind::Full, &stored, None, &expected, &narrow).unwrap_err();
    assert!(matches!(fault, DecodeFault::Window { log_max: 20, .. }), "{fault}");
    // A reader cannot raise the limit above what zstd decoders accept unasked.
    let mut wide = bomb(1 << 17, 1);
    wide[5] = (28 - 10) << 3;
    let wishful = Limits { window_log_max: 31, ..LIMITS };
    let fault = decode(FrameKind::Full, &wide, None, &expected, &wishful).unwrap_err();
    assert!(matches!(fault, DecodeFault::Window { log_max: 27, .. }), "{fault}");
}

#[test]
fn a_wrong_base_is_refused_before_decoding() {
    let [base, other, source] = [1, 2, 3].map(|seed| Plain::new(notes(seed, 5000)));
    let stored = delta(&base, &source);
    assert_eq!(
        undo(FrameKind::Delta, &stored, Some(&other), source.digest()),
        Err(DecodeFault::WrongBase { named: base.digest(), given: other.digest() })
    );
    assert_eq!(
        undo(FrameKind::Delta, &stored, None, source.digest()),
        Err(DecodeFault::BaseMissing(base.digest()))
    );
    // The header lies: zstd's checksum and the digest still stand.
    let mut forged = stored;
    forged[8..40].copy_from_slice(other.digest().as_bytes());
    let fault = undo(FrameKind::Delta, &forged, Some(&other), source.digest()).unwrap_err();
    assert!(matches!(fault, DecodeFault::Corrupt(_) | DecodeFault::Digest { .. }), "{fault}");
}

#[test]
fn what_follows_or_precedes_the_frame_is_refused() {
    let source = Plain::new(notes(8, 5000));
    let stored = full(&source);
    let skippable = [&DCZ_MAGIC[..], &[0; 32]].concat();
    for tail in [&[0][..], &stored, &skippable] {
        let fault = undo(FrameKind::Full, &[&stored[..], tail].concat(), None, source.digest());
        assert_eq!(fault, Err(DecodeFault::Trailing(tail.len())));
        let fault = undo(FrameKind::Full, &[tail, &stored].concat(), None, source.digest());
        assert!(fault.is_err(), "{fault:?}");
    }
}

#[test]
fn frames_of_another_form_are_refused() {
    let source = Plain::new(notes(9, 5000));
    let (whole, patch) = (full(&source), delta(&source, &source));
    let plain = [
        zstd::bulk::compress(source.bytes(), 3).unwrap(),
        zstd::stream::encode_all(&source.bytes()[..], 3).unwrap(),
        [&[0x25, 0xb5, 0x2f, 0xfd], &whole[4..]].concat(),
        patch,
        b"{\"not\": \"zstd\"}".to_vec(),
    ];
    for stored in plain {
        let fault = undo(FrameKind::Full, &stored, None, source.digest()).unwrap_err();
        assert!(matches!(fault, DecodeFault::NotFrame { .. }), "{fault}");
    }
    let fault = undo(FrameKind::Delta, &whole, Some(&source), source.digest()).unwrap_err();
    assert!(matches!(fault, DecodeFault::NotFrame { .. }), "{fault}");
}

#[test]
fn every_truncation_is_refused() {
    let (base, source) = (Plain::new(notes(1, 3000)), Plain::new(notes(2, 3000)));
    let (whole, patch) = (full(&source), delta(&base, &source));
    for cut in 0..whole.len() {
        assert!(undo(FrameKind::Full, &whole[..cut], None, source.digest()).is_err(), "{cut}");
    }
    for cut in 0..patch.len() {
        let plain = undo(FrameKind::Delta, &patch[..cut], Some(&base), source.digest());
        assert!(plain.is_err(), "{cut}");
    }
}

#[test]
fn no_flipped_bit_changes_a_plain_byte_and_a_signed_object_suffers_none() {
    let base = Plain::new(notes(1, 2000));
    let source = Plain::new([base.bytes(), &notes(2, 700)[..]].concat());
    let stored = [(FrameKind::Full, full(&source)), (FrameKind::Delta, delta(&base, &source))];
    for (kind, stored) in stored {
        let signed = Expected {
            digest: source.digest(),
            size: Some(source.size()),
            stored_digest: Some(Digest::of(&stored)),
        };
        assert!(decode(kind, &stored, Some(&base), &signed, &LIMITS).is_ok());
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(plain) = undo(kind, &flipped, Some(&base), source.digest()) {
                assert_eq!(plain, source, "bit {bit}");
            }
            let fault = decode(kind, &flipped, Some(&base), &signed, &LIMITS).unwrap_err();
            assert!(matches!(fault, DecodeFault::Stored { .. }), "bit {bit}: {fault}");
        }
    }
}

proptest! {
    #[test]
    fn rubbish_never_panics(
        stored in prop::collection::vec(any::<u8>(), 0..200),
        framed in any::<bool>(),
    ) {
        let head: &[u8] = if framed { &[0x28, 0xb5, 0x2f, 0xfd, 0x24] } else { &DCZ_MAGIC };
        let stored = [head, &stored].concat();
        let base = Plain::new(notes(1, 100));
        for kind in [FrameKind::Full, FrameKind::Delta] {
            prop_assert!(undo(kind, &stored, Some(&base), base.digest()).is_err());
        }
    }
}
