//! Bytes that must not be shown, and the keys made of them.
//!
//! Deliberately not here: signing and verifying, which are `protocol/seal.rs`'s.

use core::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

/// Bytes whose `Debug` shows nothing and whose comparison takes the same time wherever they differ.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes. Every caller of this is a place to look at.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

/// A secret and the file that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// The file, named in the configuration.
    pub file: PathBuf,
    /// Its content, without surrounding white space.
    pub secret: Secret,
}

/// Algorithm of the integrity token (DESIGN section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// A key that both sides hold. The default.
    #[default]
    HmacSha256,
    /// A seed that one side holds; the others hold its public key.
    Ed25519,
}

/// What a key file holds. The three forms differ in length, so none can be taken for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMaterial {
    /// 32 random bytes, in the file as base64: signs and verifies `hmac-sha256`.
    Hmac(Secret),
    /// A user nkey seed (`SU...`): signs and verifies `ed25519`.
    Ed25519Seed(Secret),
    /// A user nkey (`U...`): verifies `ed25519`.
    Ed25519Public(String),
}

/// Bytes of an HMAC key.
pub const HMAC_KEY_BYTES: usize = 32;

impl KeyMaterial {
    /// Reads what a key file holds; `None` when it is none of the three forms.
    #[must_use]
    pub fn parse(content: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(content).ok()?.trim();
        if let Ok(bytes) = STANDARD.decode(text) {
            if bytes.len() == HMAC_KEY_BYTES {
                return Some(Self::Hmac(Secret::new(bytes)));
            }
        }
        if text.starts_with("SU") && nkeys::KeyPair::from_seed(text).is_ok() {
            return Some(Self::Ed25519Seed(Secret::new(text.as_bytes().to_vec())));
        }
        (text.starts_with('U') && nkeys::KeyPair::from_public_key(text).is_ok())
            .then(|| Self::Ed25519Public(text.to_owned()))
    }

    /// The algorithm that it signs with; `None` for a public key.
    #[must_use]
    pub fn signs(&self) -> Option<Algorithm> {
        match self {
            Self::Hmac(_) => Some(Algorithm::HmacSha256),
            Self::Ed25519Seed(_) => Some(Algorithm::Ed25519),
            Self::Ed25519Public(_) => None,
        }
    }
}

/// One key of `integrity.keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The file, named in the configuration.
    pub file: PathBuf,
    /// What it holds.
    pub material: KeyMaterial,
}
