//! Key files: what they hold, how they are read, how a fresh one is made.
//!
//! A file holds one key: the base64 of 32 random bytes (an HMAC secret), a NATS user seed
//! (`SU...`), or a NATS user public key (`U...`). What deliberately is not here: which key signs
//! and which peers are held to which key (`config.rs`).

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::keyring::{Alg, KeyMaterial, MaterialFault};

/// Largest key file, in bytes: the longest key is 88 characters, and whoever names a larger file
/// has named the wrong one.
pub const KEY_FILE_BYTES_MAX: usize = 1024;
/// Bytes of an HMAC secret in a key file, as `driftgate keygen` writes them.
pub const HMAC_KEY_BYTES: usize = 32;
/// Characters of an nkey seed.
const NKEY_SEED_CHARS: usize = 58;
/// Characters of a public nkey.
const NKEY_PUBLIC_CHARS: usize = 56;

/// Why the content of a key file is no key. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormFault {
    /// It has none of the three forms.
    #[error(
        "must hold the base64 of {HMAC_KEY_BYTES} bytes, a user nkey seed (SU...) or a user nkey \
         (U...)"
    )]
    NoKey,
    /// It has the form of an nkey and is none.
    #[error(transparent)]
    Unusable(#[from] MaterialFault),
}

/// What a key file holds, ready for use. The three forms differ in length, so none can be taken for
/// another. Space around the key is ignored.
///
/// # Errors
/// [`FormFault`], the operator's to mend.
pub fn material(content: &[u8]) -> Result<KeyMaterial, FormFault> {
    let text = core::str::from_utf8(content).map_err(|_| FormFault::NoKey)?.trim();
    if text.starts_with("SU") && text.len() == NKEY_SEED_CHARS {
        return Ok(KeyMaterial::nkey_seed(text)?);
    }
    if text.starts_with('U') && text.len() == NKEY_PUBLIC_CHARS {
        return Ok(KeyMaterial::nkey_public(text)?);
    }
    match STANDARD.decode(text) {
        Ok(secret) if secret.len() == HMAC_KEY_BYTES => Ok(KeyMaterial::hmac_secret(&secret)?),
        Ok(_) | Err(_) => Err(FormFault::NoKey),
    }
}

/// A key and what is to be said about its file.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The key.
    pub material: KeyMaterial,
    /// A warning for the log: others than the owner may read the secret.
    pub warning: Option<String>,
}

/// Why a key file gives no key. Always the operator's fault; never quotes the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// It cannot be opened or read.
    #[error("key file {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It holds more than [`KEY_FILE_BYTES_MAX`] bytes.
    #[error("key file {}: has more than {KEY_FILE_BYTES_MAX} bytes, and a key is short", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It holds no key.
    #[error("key file {}: {fault}", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What would be right.
        fault: FormFault,
    },
}

/// Reads one key file.
///
/// # Errors
/// [`KeyFault`], naming the file and what is wrong with it.
pub fn read(path: &Path) -> Result<KeyFile, KeyFault> {
    let unreadable = |error| KeyFault::Unreadable { path: path.into(), error };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let limit = u64::try_from(KEY_FILE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::with_capacity(128);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > KEY_FILE_BYTES_MAX {
        return Err(KeyFault::TooLong { path: path.into() });
    }
    let material =
        material(&bytes).map_err(|fault| KeyFault::NoKey { path: path.into(), fault })?;
    let is_exposed = material.can_sign() && mode & 0o077 != 0;
    let warning = is_exposed.then(|| {
        format!(
            "key file {}: others than its owner may use it (mode {:04o}); chmod 600 mends it",
            path.display(),
            mode & 0o7777
        )
    });
    Ok(KeyFile { material, warning })
}

/// A fresh key: the text for its file and, for [`Alg::Ed25519`], the public key.
#[derive(Clone)]
pub struct FreshKey {
    /// What the key file holds, without a line end. Secret.
    pub secret_text: String,
    /// `U...`, for those who verify.
    pub public: Option<String>,
}

impl core::fmt::Debug for FreshKey {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("FreshKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Makes a key from 32 bytes of the operating system's randomness.
///
/// # Errors
/// [`NoRandomness`]: the system gives none.
pub fn generate(alg: Alg) -> Result<FreshKey, NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    match alg {
        Alg::HmacSha256 => {
            let secret_text = STANDARD.encode(bytes);
            Ok(FreshKey { secret_text, public: None })
        }
        Alg::Ed25519 => {
            let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, bytes)
                .map_err(|_| NoRandomness)?;
            let secret_text = pair.seed().map_err(|_| NoRandomness)?;
            Ok(FreshKey { secret_text, public: Some(pair.public_key()) })
        }
    }
}

/// The operating system gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness")]
pub struct NoRandomness;
