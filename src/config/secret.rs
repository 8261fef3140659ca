//! Bytes that must not be shown, and the forms of a key file.
//!
//! Deliberately not here: signing and verifying, which are `protocol/keyring.rs`'s.

use core::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use crate::protocol::keyring::KeyMaterial;

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

/// What a key file holds, ready for use. The three forms differ in length, so none can be taken for
/// another: the base64 of 32 bytes, a user nkey seed (`SU...`), a user nkey (`U...`).
///
/// # Errors
/// What would be right; it never shows the content.
pub(super) fn key_material(content: &[u8]) -> Result<KeyMaterial, String> {
    let text = core::str::from_utf8(content).unwrap_or_default().trim();
    let material = match text.get(..2) {
        Some("SU") if text.len() == NKEY_SEED_CHARS => KeyMaterial::nkey_seed(text),
        Some(start) if start.starts_with('U') && text.len() == NKEY_PUBLIC_CHARS => {
            KeyMaterial::nkey_public(text)
        }
        Some(_) | None => match STANDARD.decode(text) {
            Ok(bytes) if bytes.len() == HMAC_KEY_BYTES => KeyMaterial::hmac_secret(&bytes),
            Ok(_) | Err(_) => {
                return Err(format!(
                    "must hold the base64 of {HMAC_KEY_BYTES} bytes, a user nkey seed (SU...) or a \
                     user nkey (U...)"
                ));
            }
        },
    };
    material.map_err(|fault| fault.to_string())
}

/// Characters of an nkey seed.
const NKEY_SEED_CHARS: usize = 58;
/// Characters of a public nkey.
const NKEY_PUBLIC_CHARS: usize = 56;
/// Bytes of an HMAC key, as `driftgate keygen` writes them (DESIGN section 6).
pub const HMAC_KEY_BYTES: usize = 32;
