//! Bytes that must not be shown.
//!
//! Deliberately not here: the forms of a key file, which are `keys.rs`'s.

use core::fmt;
use std::path::PathBuf;

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

/// A key and the file that it was read from.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The file and what it holds.
    pub file: SecretFile,
    /// The same, ready for a ring.
    pub material: KeyMaterial,
}

impl PartialEq for KeyFile {
    /// The file decides: the material is nothing but its content.
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file
    }
}
