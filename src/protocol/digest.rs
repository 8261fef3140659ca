//! SHA-256: the one digest of packets, documents, snapshots and audit lines.

use core::fmt;

use sha2::{Digest as _, Sha256};

/// Digits of [`Digest::start`].
const START_DIGITS: usize = 16;
/// What the text of a digest begins with.
const NAME: &[u8] = b"sha256:";
/// Bytes of the text of a digest.
const TEXT_BYTES: usize = NAME.len() + 64;

/// A SHA-256. Written `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What a text of a digest must be, for error messages.
    pub const RULE: &str = "must be sha256: and 64 lower-case hex digits";

    /// The digest with these 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }

    /// The digest of the parts, one after the other.
    ///
    /// ```
    /// use driftgate::protocol::digest::Digest;
    /// let digest = Digest::of_parts(&[b"a", b"bc"]);
    /// assert_eq!(digest, Digest::of(b"abc"));
    /// assert!(digest.to_string().starts_with("sha256:ba7816bf"));
    /// assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
    /// ```
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = Hasher::default();
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finish()
    }

    /// Reads `sha256:` and 64 lower-case hex digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?.as_bytes();
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the name of the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The first 16 hex digits: enough to tell things apart by, not to trust them by.
    #[must_use]
    pub fn start(&self) -> String {
        let mut digits = self.hex();
        digits.truncate(START_DIGITS);
        digits
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one piece, so that a text of it is allocated once.
        let mut text = [0; TEXT_BYTES];
        let (name, digits) = text.split_at_mut(NAME.len());
        name.copy_from_slice(NAME);
        write_hex(digits, &self.0);
        formatter.write_str(core::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(Self::RULE))
    }
}

/// Takes bytes piece by piece and makes their [`Digest`].
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; 2 * bytes.len()];
    write_hex(&mut digits, bytes);
    String::from_utf8(digits).unwrap_or_default()
}

/// Two digits for each byte, without a branch: there are some three hundred in each packet.
fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
}
