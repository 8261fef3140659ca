//! Key files: from a path to key material.
//!
//! A file holds one key, in the form that `driftgate keygen` writes: the base64 of 32 random bytes
//! (an HMAC secret), a NATS user seed (`SU...`), or a NATS user public key (`U...`). What
//! deliberately is not here: which key signs and which peers are held to which key (`config.rs`).

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;

use crate::protocol::keyring::{Alg, KeyMaterial, MaterialFault};

/// Largest key file, in bytes: the longest key is 88 characters, and whoever names a larger file
/// has named the wrong one.
pub const KEY_FILE_BYTES_MAX: usize = 1024;
/// Length of an nkey seed and of a public nkey, in characters.
const NKEY_SEED_CHARS: usize = 58;
const NKEY_PUBLIC_CHARS: usize = 56;

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
    /// It holds more than [`KEY_FILE_BYTES_MAX`] bytes, or nothing.
    #[error("key file {}: must hold one key of at most {KEY_FILE_BYTES_MAX} bytes", .path.display())]
    NotOneKey {
        /// The file.
        path: PathBuf,
    },
    /// It holds text that is neither base64 nor an nkey.
    #[error(
        "key file {}: neither the base64 of a secret nor a NATS nkey (driftgate keygen writes both)",
        .path.display()
    )]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It holds a key that cannot be used.
    #[error("key file {}: {fault}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: MaterialFault,
    },
}

/// Reads one key file. Space around the key is ignored.
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
    let text = core::str::from_utf8(&bytes).map(str::trim);
    if bytes.len() > KEY_FILE_BYTES_MAX || text.is_ok_and(str::is_empty) {
        return Err(KeyFault::NotOneKey { path: path.into() });
    }
    let material = text
        .ok()
        .and_then(parse)
        .ok_or_else(|| KeyFault::NotText { path: path.into() })?
        .map_err(|fault| KeyFault::Unusable { path: path.into(), fault })?;
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

/// A key from its text; `None` when it has none of the three forms.
fn parse(text: &str) -> Option<Result<KeyMaterial, MaterialFault>> {
    let base32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    let is_nkey = text.bytes().all(base32);
    if is_nkey && text.starts_with('S') && text.len() == NKEY_SEED_CHARS {
        return Some(KeyMaterial::nkey_seed(text));
    }
    if is_nkey && text.len() == NKEY_PUBLIC_CHARS {
        return Some(KeyMaterial::nkey_public(text));
    }
    let secret = STANDARD_PAD_INDIFFERENT.decode(text).ok()?;
    Some(KeyMaterial::hmac_secret(&secret))
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
            let secret_text = base64::engine::general_purpose::STANDARD.encode(bytes);
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
