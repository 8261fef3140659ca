//! Snapshots at the cost of what changed: full and delta frames, bounded decoding, chain policy and
//! manifests (DESIGN section 3 "Snapshots").
//!
//! What deliberately is not here: the spool, the bucket and the subjects (`nats/`), and whether the
//! gate lets a snapshot go (`gate.rs`).

mod decode;
mod frame;
mod plain;

pub use decode::{DecodeFault, Expected, FrameHeader, Limits, decode, delta_base};
pub use frame::{
    DCZ_HEADER_BYTES, DCZ_MAGIC, EncodeFault, FrameKind, Level, WINDOW_LOG_MAX, WINDOW_LOG_MIN,
    encode_delta, encode_full, window_log,
};
pub use plain::{Digest, Plain};

/// Most objects that restore one snapshot.
pub const OBJECTS_MAX: usize = 16;

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
