//! Stored bytes back into plain bytes, in bounded memory, or not at all.
//!
//! Everything that is read here may have been written by an enemy: nothing is allocated before its
//! size was held against the signed size and the limit, zstd sees a frame only when its header is
//! of the form that `frame.rs` writes, and no byte is handed over before the digest was checked.
//!
//! What deliberately is not here: fetching the objects, and whether a manifest may be believed.

use bytes::Bytes;
use zstd::zstd_safe::{DCtx, ErrorCode, find_frame_compressed_size, get_error_name};

use super::frame::{DCZ_MAGIC, FrameKind, WINDOW_LOG_MAX, WINDOW_LOG_MIN, window_log};
use super::plain::Plain;
use crate::protocol::digest::Digest;

/// First bytes of a zstd frame (RFC 8878 section 3.1.1), little-endian `0xFD2FB528`.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a reader accepts, whatever a manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most plain bytes of one snapshot. Nothing larger is ever allocated.
    pub plain_bytes_max: u64,
    /// Largest window, as a power of two; [`WINDOW_LOG_MAX`] or less.
    pub window_log_max: u32,
}

impl Default for Limits {
    /// 1 GiB plain, [`WINDOW_LOG_MAX`].
    fn default() -> Self {
        Self { plain_bytes_max: 1 << 30, window_log_max: WINDOW_LOG_MAX }
    }
}

/// What is known about a snapshot before it is decoded, from a signed manifest or from the header
/// of the delta that stands on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Digest of the plain bytes.
    pub digest: Digest,
    /// Number of plain bytes, where it was signed.
    pub size: Option<u64>,
    /// Digest of the stored bytes, where it was signed. Without it a stored byte that decoding does
    /// not depend on may differ; the plain bytes never may.
    pub stored_digest: Option<Digest>,
}

impl Expected {
    /// Nothing but the digest of the plain bytes is known.
    #[must_use]
    pub fn digest(digest: Digest) -> Self {
        Self { digest, size: None, stored_digest: None }
    }
}

/// Why stored bytes were not accepted. Nothing of them was handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeFault {
    /// A delta without the snapshot that it was made from.
    #[error("a delta cannot be decoded without its base {0}")]
    BaseMissing(Digest),
    /// zstd could not decode the frame, or its content checksum is wrong; zstd's own word for it.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// The plain bytes are not those that were expected.
    #[error("decoded to {found}, not to {expected}")]
    Digest {
        /// What was expected.
        expected: Digest,
        /// What was decoded.
        found: Digest,
    },
    /// There is not enough memory, although the size is within the limit.
    #[error("no memory for {0} bytes")]
    Memory(u64),
    /// Not a frame of the expected kind.
    #[error("not a {} frame: {problem}", .kind.word())]
    NotFrame {
        /// What was expected.
        kind: FrameKind,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The frame says another size than the signed one.
    #[error("declares {declared} bytes, not the {signed} that were signed")]
    Size {
        /// What the frame says, in bytes.
        declared: u64,
        /// What was signed, in bytes.
        signed: u64,
    },
    /// The stored bytes are not those that were signed.
    #[error("stored bytes are {found}, not {expected}")]
    Stored {
        /// What was signed.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// More plain bytes than the reader accepts.
    #[error("{bytes} bytes are more than the limit of {bytes_max}")]
    TooLarge {
        /// What the frame or the manifest says, in bytes.
        bytes: u64,
        /// [`Limits::plain_bytes_max`].
        bytes_max: u64,
    },
    /// Something follows the frame: a second frame, a skippable frame or rubbish.
    #[error("{0} bytes after the frame")]
    Trailing(usize),
    /// The stored bytes end before the frame does.
    #[error("truncated")]
    Truncated,
    /// A window that the reader does not accept.
    #[error("window of {bytes} bytes, limit 2^{log_max}")]
    Window {
        /// What the frame says, in bytes.
        bytes: u64,
        /// [`Limits::window_log_max`].
        log_max: u32,
    },
    /// Made from another base than the one at hand.
    #[error("made from {named}, not from {given}")]
    WrongBase {
        /// What the header names.
        named: Digest,
        /// What was given.
        given: Digest,
    },
}

/// The base that a delta names in its header, to know what to fetch before decoding.
///
/// # Errors
/// [`DecodeFault::NotFrame`] or [`DecodeFault::Truncated`].
pub fn delta_base(stored: &[u8]) -> Result<Digest, DecodeFault> {
    split_delta(stored).map(|(base, _)| base)
}

/// Decodes one stored object of the given kind and checks all of it before returning any of it.
///
/// In order: stored digest, base, frame header, sizes against the signed size and the limits,
/// exactly one frame, then decoding into a buffer of exactly the declared size, the content
/// checksum, and the digest.
///
/// # Errors
/// [`DecodeFault`]: whose fault it is depends on who stored it, never on the caller, save for a
/// missing base.
pub fn decode(
    kind: FrameKind,
    stored: &[u8],
    base: Option<&Plain>,
    expected: &Expected,
    limits: &Limits,
) -> Result<Plain, DecodeFault> {
    if let Some(signed) = expected.stored_digest {
        let found = Digest::of(stored);
        if found != signed {
            return Err(DecodeFault::Stored { expected: signed, found });
        }
    }
    let (prefix, frame) = match kind {
        FrameKind::Full => (None, stored),
        FrameKind::Delta => {
            let (named, frame) = split_delta(stored)?;
            let base = base.ok_or(DecodeFault::BaseMissing(named))?;
            if base.digest() != named {
                return Err(DecodeFault::WrongBase { named, given: base.digest() });
            }
            (Some(base.bytes()), frame)
        }
    };
    let header = FrameHeader::parse(kind, frame)?;
    header.check(expected, limits)?;
    let frame_bytes = find_frame_compressed_size(frame).map_err(|_| DecodeFault::Truncated)?;
    if frame_bytes != frame.len() {
        return Err(DecodeFault::Trailing(frame.len().saturating_sub(frame_bytes)));
    }
    let plain = Plain::new(decompress(prefix.map(Bytes::as_ref), frame, header.content_bytes)?);
    if plain.digest() != expected.digest {
        return Err(DecodeFault::Digest { expected: expected.digest, found: plain.digest() });
    }
    Ok(plain)
}

/// Decodes a frame that was found whole, of a content size that was found acceptable.
fn decompress(
    prefix: Option<&[u8]>,
    frame: &[u8],
    content_bytes: u64,
) -> Result<Vec<u8>, DecodeFault> {
    let memory = DecodeFault::Memory(content_bytes);
    let capacity = usize::try_from(content_bytes).map_err(|_| memory.clone())?;
    let mut plain = Vec::new();
    plain.try_reserve_exact(capacity).map_err(|_| memory.clone())?;
    let mut context = DCtx::try_create().ok_or(memory)?;
    let corrupt = |code: ErrorCode| DecodeFault::Corrupt(get_error_name(code));
    if let Some(prefix) = prefix {
        context.ref_prefix(prefix).map_err(corrupt)?;
    }
    let decoded = context.decompress(&mut plain, frame).map_err(corrupt)?;
    if decoded != capacity {
        return Err(DecodeFault::Corrupt("content size"));
    }
    Ok(plain)
}

/// A delta's base and the zstd frame behind its header.
fn split_delta(stored: &[u8]) -> Result<(Digest, &[u8]), DecodeFault> {
    let kind = FrameKind::Delta;
    let Some((magic, rest)) = stored.split_first_chunk::<8>() else {
        return Err(DecodeFault::Truncated);
    };
    if *magic != DCZ_MAGIC {
        return Err(DecodeFault::NotFrame { kind, problem: "no dcz header" });
    }
    let (base, frame) = rest.split_first_chunk::<32>().ok_or(DecodeFault::Truncated)?;
    Ok((Digest::from_bytes(*base), frame))
}

/// What a zstd frame says of itself (RFC 8878 section 3.1.1.1), read without zstd so that nothing
/// is allocated, and no legacy format entered, for a frame that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number of plain bytes.
    pub content_bytes: u64,
    /// Window, in bytes; the content size where the frame is a single segment.
    pub window_bytes: u64,
}

impl FrameHeader {
    /// Reads the header of a frame as [`encode_full`](super::encode_full) writes it: with content
    /// size and content checksum, without dictionary id, reserved bits zero.
    ///
    /// # Errors
    /// [`DecodeFault::NotFrame`] or [`DecodeFault::Truncated`].
    pub fn parse(kind: FrameKind, frame: &[u8]) -> Result<Self, DecodeFault> {
        let fault = |problem| Err(DecodeFault::NotFrame { kind, problem });
        let Some((magic, rest)) = frame.split_first_chunk::<4>() else {
            return Err(DecodeFault::Truncated);
        };
        if *magic != ZSTD_MAGIC {
            return fault("no zstd magic number");
        }
        let (descriptor, rest) = rest.split_first().ok_or(DecodeFault::Truncated)?;
        let is_single_segment = descriptor & 0x20 != 0;
        if descriptor & 0x18 != 0 {
            return fault("reserved bits are set");
        }
        if descriptor & 0x04 == 0 {
            return fault("no content checksum");
        }
        if descriptor & 0x03 != 0 {
            return fault("it wants a dictionary");
        }
        let (window_bytes, rest) = if is_single_segment {
            (None, rest)
        } else {
            let (window, rest) = rest.split_first().ok_or(DecodeFault::Truncated)?;
            let base = 1u64 << (u32::from(window >> 3) + WINDOW_LOG_MIN);
            (Some(base + base / 8 * u64::from(window & 7)), rest)
        };
        let content_bytes = match (descriptor >> 6, is_single_segment) {
            (0, false) => return fault("no content size"),
            (0, true) => little_endian(rest, 1)?,
            (1, _) => little_endian(rest, 2)? + 256,
            (2, _) => little_endian(rest, 4)?,
            _ => little_endian(rest, 8)?,
        };
        Ok(Self { content_bytes, window_bytes: window_bytes.unwrap_or(content_bytes) })
    }

    /// Holds the header against what was signed and what is accepted.
    fn check(&self, expected: &Expected, limits: &Limits) -> Result<(), DecodeFault> {
        let bytes_max = limits.plain_bytes_max;
        let bytes = expected.size.unwrap_or(0).max(self.content_bytes);
        if bytes > bytes_max {
            return Err(DecodeFault::TooLarge { bytes, bytes_max });
        }
        if let Some(signed) = expected.size.filter(|signed| *signed != self.content_bytes) {
            return Err(DecodeFault::Size { declared: self.content_bytes, signed });
        }
        let log_max = limits.window_log_max.min(WINDOW_LOG_MAX);
        if self.window_bytes > 1 << log_max {
            return Err(DecodeFault::Window { bytes: self.window_bytes, log_max });
        }
        Ok(())
    }

    /// The smallest power of two that holds the window, for the manifest.
    #[must_use]
    pub fn window_log(&self) -> u32 {
        window_log(self.window_bytes)
    }
}

/// The first `length` bytes, at most eight, as a number.
fn little_endian(bytes: &[u8], length: usize) -> Result<u64, DecodeFault> {
    let bytes = bytes.get(..length).ok_or(DecodeFault::Truncated)?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
