//! Plain snapshot bytes and the digest that is their identity.
//!
//! What deliberately is not here: their stored form (`frame.rs`).

use core::fmt;

use bytes::Bytes;

use crate::protocol::digest::Digest;

/// Plain snapshot bytes together with their digest. Clones share the bytes.
///
/// What [`decode`](super::decode()) returns was checked against the digest that was expected; what
/// comes from [`Plain::new`] was hashed here.
#[derive(Clone, PartialEq, Eq)]
pub struct Plain {
    bytes: Bytes,
    digest: Digest,
}

impl Plain {
    /// Hashes `bytes`.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(&bytes), bytes }
    }

    /// Bytes that the caller hashed while they arrived. A digest that is not theirs makes deltas
    /// that nobody can decode.
    #[must_use]
    pub fn hashed(bytes: impl Into<Bytes>, digest: Digest) -> Self {
        Self { bytes: bytes.into(), digest }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their SHA-256.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Their number.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Plain({} bytes, {})", self.bytes.len(), self.digest)
    }
}
