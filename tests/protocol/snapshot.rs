//! Snapshots: both frame forms against the `zstd` command, hostile bytes, the chain's bound on
//! objects, and signed manifests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

mod chain;
mod enclosure;
mod frames;
mod hostile;
mod manifest;

pub(super) use manifest::signed_manifests;

use driftgate::protocol::digest::Digest;
use driftgate::protocol::snapshot::{
    DecodeFault, Expected, FrameKind, Level, Limits, Plain, decode, encode_delta, encode_full,
};

const LIMITS: Limits = Limits { plain_bytes_max: 1 << 26, window_log_max: 27 };

/// The same bytes for the same seed, compressible about as well as notes are.
fn notes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(format!("w{:x} ", state & 0xfff).as_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn full(source: &Plain) -> Vec<u8> {
    encode_full(source, Level::DEFAULT).unwrap()
}

fn delta(base: &Plain, source: &Plain) -> Vec<u8> {
    encode_delta(base, source, Level::DEFAULT, usize::MAX).unwrap()
}

fn undo(
    kind: FrameKind,
    stored: &[u8],
    base: Option<&Plain>,
    digest: Digest,
) -> Result<Plain, DecodeFault> {
    decode(kind, stored, base, &Expected::digest(digest), &LIMITS)
}
