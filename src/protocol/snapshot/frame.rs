//! The two forms of a stored object, and how they are made.
//!
//! A full frame is a plain zstd frame with content size and content checksum. A delta is the `dcz`
//! form of RFC 9842: a 40-byte header that names the base by its SHA-256, then a zstd frame made
//! with the base as prefix. The header is a skippable frame to zstd, so the `zstd` command restores
//! either form: `zstd -d`, or `zstd -d --patch-from=BASE`.
//!
//! Memory: encoding holds base, source and the stored object, and zstd's own tables, together at
//! most
//! 1.5 times base and source where they compress (measured from 4 to 64 MiB, levels 3 and 9);
//! decoding holds base, stored bytes and plain bytes, and no window, for the plain bytes are the
//! window.
//!
//! What deliberately is not here: decoding (`decode.rs`), which base to take (`chain.rs`), names
//! and signatures (`manifest.rs`), and everything about files and the broker.

use std::collections::TryReserveError;

use bytes::Bytes;
use zstd::zstd_safe::{
    CCtx, CParameter, ErrorCode, compress_bound, get_error_name, is_error_kind,
    zstd_sys::ZSTD_ErrorCode,
};

use super::plain::Plain;

/// First bytes of a `dcz` stream: a skippable frame of 32 bytes (RFC 9842 section 5).
pub const DCZ_MAGIC: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0];
/// Length of a `dcz` header, in bytes: [`DCZ_MAGIC`] and the SHA-256 of the base.
pub const DCZ_HEADER_BYTES: usize = 40;
/// Largest window that is written or, by default, read, as a power of two: 128 MiB is what every
/// zstd decoder accepts unasked, the `zstd` command included. A base and a source that are larger
/// together still make a correct delta; matches farther back than the window are not found.
pub const WINDOW_LOG_MAX: u32 = 27;
/// The window that every client of a zstd content coding has to take, in bytes.
pub const CODING_WINDOW_BYTES: u64 = 8 << 20;
/// Smallest window that zstd knows, as a power of two.
pub const WINDOW_LOG_MIN: u32 = 10;

/// The form of a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum FrameKind {
    /// A zstd frame with the base as prefix behind a `dcz` header.
    Delta,
    /// A plain zstd frame.
    Full,
}

impl FrameKind {
    /// The word in manifests and replies.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// The ending of the object's name, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Delta => "dcz",
            Self::Full => "zst",
        }
    }
}

/// A zstd compression level, 1 to 19. Above 19 lies `--ultra`, whose tables need hundreds of MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(i32);

impl Level {
    /// Level 3, zstd's own default.
    pub const DEFAULT: Self = Self(3);

    /// `None` outside 1 to 19.
    #[must_use]
    pub fn new(level: i32) -> Option<Self> {
        (1..=19).contains(&level).then_some(Self(level))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

/// Why nothing was encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeFault {
    /// The delta would be larger than it may be; a full frame is the better choice. Not an error
    /// of anybody's.
    #[error("the delta is larger than {bytes_max} bytes")]
    Oversize {
        /// What it may weigh, in bytes.
        bytes_max: usize,
    },
    /// There is not enough memory.
    #[error("no memory for {bytes} bytes")]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
    /// zstd refused; its own word for it.
    #[error("zstd: {0}")]
    Zstd(&'static str),
}

/// The window that covers `bytes` bytes, as a power of two within [`WINDOW_LOG_MIN`] and
/// [`WINDOW_LOG_MAX`].
#[must_use]
pub fn window_log(bytes: u64) -> u32 {
    let bits = u64::BITS - bytes.saturating_sub(1).leading_zeros();
    bits.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX)
}

/// Largest source, in bytes, whose delta every client of the content coding `dcz` can decode.
///
/// RFC 9842 lets a client stop at a window of 8 MiB, or 1.25 times its dictionary where that is
/// more, up to 128 MiB. The window of a frame made here is never larger than its source.
#[must_use]
pub fn dcz_coding_source_max(base_bytes: u64) -> u64 {
    let window_max = (base_bytes / 4).saturating_mul(5).max(CODING_WINDOW_BYTES);
    window_max.min(1 << WINDOW_LOG_MAX)
}

/// Encodes a full frame: `zstd -d` restores it. At [`Level::DEFAULT`] its window is at most 2 MiB,
/// within the 8 MiB that a client of the content coding `zstd` has to take (RFC 9659).
///
/// # Errors
/// [`EncodeFault`], never because of what the bytes are.
pub fn encode_full(source: &Plain, level: Level) -> Result<Vec<u8>, EncodeFault> {
    let mut context = encoder(level)?;
    let mut stored = Vec::new();
    let bytes_max = compress_bound(source.bytes().len());
    compress(&mut context, source.bytes(), &mut stored, bytes_max)?;
    Ok(stored)
}

/// Encodes a delta frame of at most `stored_max` bytes, header included. It can be decoded by
/// whoever has the very bytes of `base`; cutting the header leaves what `zstd --patch-from` writes.
///
/// ```
/// use driftgate::protocol::snapshot::{FrameKind, Level, Plain, decode, Expected, Limits};
/// use driftgate::protocol::snapshot::encode_delta;
/// let base = Plain::new("what the agent knew");
/// let next = Plain::new("what the agent knew, and one thing more");
/// let stored = encode_delta(&base, &next, Level::DEFAULT, 1024).unwrap();
/// let expected = Expected::digest(next.digest());
/// let limits = Limits { plain_bytes_max: 1 << 20, ..Limits::default() };
/// assert_eq!(decode(FrameKind::Delta, &stored, Some(&base), &expected, &limits), Ok(next));
/// ```
///
/// # Errors
/// [`EncodeFault::Oversize`] when `stored_max` is too small, found out without finishing; else as
/// [`encode_full`].
pub fn encode_delta(
    base: &Plain,
    source: &Plain,
    level: Level,
    stored_max: usize,
) -> Result<Vec<u8>, EncodeFault> {
    // zstd drops a prefix that overlaps the source in memory, as two slices of one buffer do, and
    // would then write a full frame without a word. Such a base is copied.
    let overlaps = overlap(base.bytes(), source.bytes());
    let prefix = if overlaps { Bytes::copy_from_slice(base.bytes()) } else { base.bytes().clone() };
    let mut context = encoder(level)?;
    let window = window_log(base.size().saturating_add(source.size()));
    for parameter in [CParameter::WindowLog(window), CParameter::EnableLongDistanceMatching(true)] {
        context.set_parameter(parameter).map_err(zstd_fault)?;
    }
    context.ref_prefix(&prefix).map_err(zstd_fault)?;
    let mut stored = Vec::with_capacity(DCZ_HEADER_BYTES);
    stored.extend_from_slice(&DCZ_MAGIC);
    stored.extend_from_slice(base.digest().as_bytes());
    let frame_max = stored_max.saturating_sub(DCZ_HEADER_BYTES);
    let bytes_max = compress_bound(source.bytes().len()).min(frame_max);
    compress(&mut context, source.bytes(), &mut stored, bytes_max)?;
    Ok(stored)
}

/// Whether two slices share a byte of memory.
fn overlap(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (one.as_ptr_range(), other.as_ptr_range());
    one.start < other.end && other.start < one.end
}

/// A context that writes content size and checksum.
fn encoder<'a>(level: Level) -> Result<CCtx<'a>, EncodeFault> {
    let mut context = CCtx::try_create().ok_or(EncodeFault::Memory { bytes: 0 })?;
    for parameter in [
        CParameter::CompressionLevel(level.0),
        CParameter::ChecksumFlag(true),
        CParameter::ContentSizeFlag(true),
    ] {
        context.set_parameter(parameter).map_err(zstd_fault)?;
    }
    Ok(context)
}

/// Appends one frame of at most `bytes_max` bytes to `stored`.
fn compress(
    context: &mut CCtx<'_>,
    source: &[u8],
    stored: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), EncodeFault> {
    let memory = |_: TryReserveError| EncodeFault::Memory { bytes: bytes_max };
    // Reserved, not touched: pages that are never written cost address space and no memory.
    let mut frame = Vec::new();
    frame.try_reserve_exact(bytes_max).map_err(memory)?;
    context.compress2(&mut frame, source).map_err(|code| {
        if is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) {
            EncodeFault::Oversize { bytes_max }
        } else {
            zstd_fault(code)
        }
    })?;
    if stored.is_empty() {
        frame.shrink_to_fit();
        *stored = frame;
    } else {
        stored.try_reserve_exact(frame.len()).map_err(memory)?;
        stored.extend_from_slice(&frame);
    }
    Ok(())
}

fn zstd_fault(code: ErrorCode) -> EncodeFault {
    EncodeFault::Zstd(get_error_name(code))
}
