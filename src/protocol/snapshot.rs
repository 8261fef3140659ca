//! Snapshots at the cost of what changed: full and delta frames, bounded decoding, chain policy and
//! manifests.
//!
//! The walk of one snapshot: [`encode_next`] asks the [`DeltaChain`] which earlier snapshot to
//! build on, makes the frame and settles in doubt whether a full one is better; the store puts the
//! object under [`Manifest::object_name`], then publishes the signed [`Manifest`];
//! [`DeltaChain::accept`] takes it up. The way back: the manifest lists the objects, [`restore`]
//! applies them and checks the digest that was signed.
//!
//! What deliberately is not here: the spool, the bucket and the subjects (`nats/`), and whether the
//! gate lets a snapshot go (`gate.rs`).

mod chain;
mod decode;
mod enclosure;
mod frame;
mod manifest;
mod plain;

pub use chain::{
    BASES_MAX, CHAIN_ENTRIES_MAX, ChainEntry, ChainFault, DeltaChain, OBJECTS_MAX, Plan, Review,
    TREE_ENTRIES_MAX, is_worth,
};
pub use decode::{DecodeFault, Expected, FrameHeader, Limits, decode, delta_base};
pub use enclosure::{Evidence, Reader};
pub use frame::{
    CODING_WINDOW_BYTES, DCZ_HEADER_BYTES, DCZ_MAGIC, EncodeFault, FrameKind, Level,
    WINDOW_LOG_MAX, WINDOW_LOG_MIN, dcz_coding_source_max, encode_delta, encode_full, window_log,
};
pub use manifest::{
    MANIFEST_BYTES_MAX, MEDIA_TYPE_BYTES_MAX, Manifest, ObjectName, SCHEMA, VerifiedManifest,
    manifest_schema,
};
pub use plain::Plain;

/// A frame that is ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The snapshot that it is a delta of; `None` for a full frame.
    pub base: Option<u64>,
    /// The stored bytes.
    pub stored: Vec<u8>,
}

impl Encoded {
    /// Its entry in the chain, once it is stored.
    #[must_use]
    pub fn entry(&self, seq: u64, source: &Plain) -> ChainEntry {
        ChainEntry {
            seq,
            digest: source.digest(),
            base: self.base,
            size: source.size(),
            stored: bytes_u64(self.stored.len()),
        }
    }
}

/// Encodes the next snapshot of a chain as the chain plans it.
///
/// `base` fetches the plain bytes of an earlier snapshot, from a cache or from the store, and is
/// asked once, hardly ever twice. A base that it cannot give is no error: a full frame needs none.
/// A second frame is encoded only where the first leaves a doubt: a delta near half of a full
/// frame, or a change greater than the growth of the snapshot showed.
///
/// # Errors
/// [`EncodeFault`], never [`EncodeFault::Oversize`].
pub fn encode_next(
    chain: &DeltaChain,
    source: &Plain,
    level: Level,
    mut base: impl FnMut(&ChainEntry) -> Option<Plain>,
) -> Result<Encoded, EncodeFault> {
    let mut delta_from = |seq: u64, stored_max: u64| {
        let Some(plain) = chain.entry(seq).and_then(&mut base) else { return Ok(None) };
        let stored_max = usize::try_from(stored_max).unwrap_or(usize::MAX);
        match encode_delta(&plain, source, level, stored_max) {
            Ok(stored) => Ok(Some(Encoded { base: Some(seq), stored })),
            Err(EncodeFault::Oversize { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    };
    let full = || Ok(Encoded { base: None, stored: encode_full(source, level)? });
    let Plan::Delta { base: first, stored_max } = chain.plan(source.size()) else { return full() };
    let Some(delta) = delta_from(first, stored_max)? else { return full() };
    let delta_bytes = bytes_u64(delta.stored.len());
    match chain.review(source.size(), first, delta_bytes) {
        Review::Keep => Ok(delta),
        Review::Compare => {
            let full = full()?;
            Ok(if is_worth(delta_bytes, bytes_u64(full.stored.len())) { delta } else { full })
        }
        Review::Climb(shallower) => {
            // What it repeats was estimated; when it is more than that, the first delta stands.
            let stored_max = delta_bytes.saturating_add(delta_bytes / 4).min(stored_max);
            Ok(delta_from(shallower, stored_max)?.unwrap_or(delta))
        }
    }
}

/// Why a snapshot could not be restored: which object, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("object {} of {objects}: {fault}", .index.saturating_add(1))]
pub struct RestoreFault {
    /// The object's place in the list, from 0; the full frame is the first.
    pub index: usize,
    /// How many objects there were.
    pub objects: usize,
    /// What is wrong.
    pub fault: DecodeFault,
}

/// Restores a snapshot from its objects: the full frame first, its own last, at most
/// [`OBJECTS_MAX`].
///
/// `expected` is of the last; each one before is held against the digest that the next delta's
/// header names. Memory: the stored bytes, and the plain bytes of two snapshots at a time.
///
/// # Errors
/// [`RestoreFault`], naming the object.
pub fn restore(
    objects: &[&[u8]],
    expected: &Expected,
    limits: &Limits,
) -> Result<Plain, RestoreFault> {
    let fault_of = |index: usize| {
        move |fault: DecodeFault| RestoreFault { index, objects: objects.len(), fault }
    };
    let wrong_number = DecodeFault::NotFrame {
        kind: FrameKind::Full,
        problem: "a snapshot is restored from 1 to 16 objects",
    };
    if !(1..=OBJECTS_MAX).contains(&objects.len()) {
        return Err(fault_of(0)(wrong_number));
    }
    let mut restored: Option<Plain> = None;
    for (index, stored) in objects.iter().enumerate() {
        let kind = if index == 0 { FrameKind::Full } else { FrameKind::Delta };
        let expected = match objects.get(index.saturating_add(1)) {
            Some(next) => {
                Expected::digest(delta_base(next).map_err(fault_of(index.saturating_add(1)))?)
            }
            None => *expected,
        };
        let plain = decode(kind, stored, restored.as_ref(), &expected, limits);
        restored = Some(plain.map_err(fault_of(index))?);
    }
    restored.ok_or_else(|| fault_of(0)(wrong_number))
}

fn bytes_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
