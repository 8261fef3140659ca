//! Keys, checksums and integrity tokens.
//!
//! A token is `<alg>:<key-id>:<seq>:<tag>`, its tag over `driftgate-<domain>-v1` LF key-id LF seq
//! LF checksum, so that a signature over one kind of document is worth nothing on another. What
//! deliberately is not here: files
//! (`keys.rs`), randomness (`keygen`), and which key may speak for which source (`bridge.rs`).

use core::fmt;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::digest::{Digest, hex};
use super::refusal::Refusal;

/// Longest key id, in bytes: as long as a runtime id, which it often is.
pub const KEY_ID_BYTES_MAX: usize = 64;
/// Most keys in one ring: one for each of the 10,000 targets that the fan-out is measured with,
/// twice over so that all of them can be rotated.
pub const KEYS_MAX: usize = 20_000;
/// Shortest HMAC secret, in bytes: the length of the tag (RFC 2104 section 3).
pub const SECRET_BYTES_MIN: usize = 32;
/// Longest HMAC secret, in bytes: the block of SHA-256; a longer one is hashed down, which helps
/// nobody.
pub const SECRET_BYTES_MAX: usize = 64;
/// First byte of a decoded user nkey (ADR-14 of the NATS architecture).
const USER_PREFIX: u8 = 20 << 3;

/// How a tag is made.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, strum::IntoStaticStr,
)]
pub enum Alg {
    /// HMAC-SHA-256 with a shared secret; the tag is lower-case hex.
    #[serde(rename = "hmac-sha256")]
    #[strum(serialize = "hmac-sha256")]
    HmacSha256,
    /// Ed25519 with a NATS user nkey; the tag is base64url without padding.
    #[serde(rename = "ed25519")]
    #[strum(serialize = "ed25519")]
    Ed25519,
}

impl Alg {
    /// The word in tokens and in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// What kind of document a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A packet or a snapshot manifest.
    Token,
    /// An entry in the presence bucket.
    Presence,
    /// A `runtime_capabilities.yml` in the capabilities bucket.
    Capabilities,
    /// A handshake request or its answer.
    Handshake,
    /// The exchange envelope of a packet or of a snapshot manifest.
    Exchange,
    /// A phase telemetry frame.
    Telemetry,
    /// A notice of containment.
    Notice,
}

impl Domain {
    /// First line of what a tag covers.
    fn context(self) -> &'static [u8] {
        match self {
            Self::Token => b"driftgate-token-v1\n",
            Self::Presence => b"driftgate-presence-v1\n",
            Self::Capabilities => b"driftgate-capabilities-v1\n",
            Self::Handshake => b"driftgate-handshake-v1\n",
            Self::Exchange => b"driftgate-exchange-v1\n",
            Self::Telemetry => b"driftgate-telemetry-v1\n",
            Self::Notice => b"driftgate-notice-v1\n",
        }
    }
}

/// One key, ready for use. Its `Debug` shows the algorithm only.
#[derive(Clone)]
pub struct KeyMaterial(Material);

#[derive(Clone)]
enum Material {
    /// The state after the key block, so that a tag costs no key schedule.
    Secret(Box<Hmac<Sha256>>),
    Seed(Box<SigningKey>),
    Public(Box<VerifyingKey>),
}

/// Why something is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialFault {
    /// An HMAC secret of the wrong length.
    #[error("a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, not {0}")]
    SecretLength(usize),
    /// Not an nkey, or mistyped: its check digits do not fit.
    #[error("not a NATS nkey: its prefix, length or check digits are wrong")]
    NotNkey,
    /// An nkey of an account, operator, server or curve.
    #[error("an nkey of another kind: a runtime has a user nkey (seed SU..., public key U...)")]
    NotUser,
}

impl KeyMaterial {
    /// A shared secret of [`SECRET_BYTES_MIN`] to [`SECRET_BYTES_MAX`] bytes; signs and verifies.
    ///
    /// # Errors
    /// [`MaterialFault::SecretLength`].
    pub fn hmac_secret(secret: &[u8]) -> Result<Self, MaterialFault> {
        let fault = MaterialFault::SecretLength(secret.len());
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(fault);
        }
        let state = Hmac::new_from_slice(secret).map_err(|_| fault)?;
        Ok(Self(Material::Secret(Box::new(state))))
    }

    /// A NATS user seed, `SU...`; signs and verifies.
    ///
    /// # Errors
    /// [`MaterialFault::NotNkey`] or [`MaterialFault::NotUser`].
    pub fn nkey_seed(seed: &str) -> Result<Self, MaterialFault> {
        let (prefix, seed) = nkeys::decode_seed(seed).map_err(|_| MaterialFault::NotNkey)?;
        if prefix != USER_PREFIX {
            return Err(MaterialFault::NotUser);
        }
        Ok(Self(Material::Seed(Box::new(SigningKey::from_bytes(&seed)))))
    }

    /// A NATS user public key, `U...`; verifies only.
    ///
    /// # Errors
    /// [`MaterialFault::NotNkey`] or [`MaterialFault::NotUser`].
    pub fn nkey_public(public: &str) -> Result<Self, MaterialFault> {
        let (prefix, point) = nkeys::from_public_key(public).map_err(|_| MaterialFault::NotNkey)?;
        if prefix != USER_PREFIX {
            return Err(MaterialFault::NotUser);
        }
        let point = VerifyingKey::from_bytes(&point).map_err(|_| MaterialFault::NotNkey)?;
        Ok(Self(Material::Public(Box::new(point))))
    }

    /// The algorithm that this key is for.
    #[must_use]
    pub fn alg(&self) -> Alg {
        match self.0 {
            Material::Secret(_) => Alg::HmacSha256,
            Material::Seed(_) | Material::Public(_) => Alg::Ed25519,
        }
    }

    /// Whether it can sign; a public key cannot.
    #[must_use]
    pub fn can_sign(&self) -> bool {
        match self.0 {
            Material::Secret(_) | Material::Seed(_) => true,
            Material::Public(_) => false,
        }
    }

    /// The tag over one checksum, as text; `None` for a key that cannot sign.
    fn tag(&self, message: &[&[u8]]) -> Option<String> {
        match &self.0 {
            Material::Secret(state) => Some(hex(&feed(state, message).finalize().into_bytes())),
            Material::Seed(seed) => {
                Some(URL_SAFE_NO_PAD.encode(seed.sign(&message.concat()).to_bytes()))
            }
            Material::Public(_) => None,
        }
    }

    /// Whether `tag` is right, in constant time where a secret is involved.
    fn accepts(&self, message: &[&[u8]], tag: &str) -> bool {
        let point = match &self.0 {
            Material::Secret(state) => {
                let expected = hex(&feed(state, message).finalize().into_bytes());
                return expected.as_bytes().ct_eq(tag.as_bytes()).into();
            }
            Material::Seed(seed) => seed.verifying_key(),
            Material::Public(point) => **point,
        };
        let mut bytes = [0; 64];
        let is_whole = matches!(URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes), Ok(64));
        // Strict: no second spelling of a signature, no key of small order.
        is_whole && point.verify_strict(&message.concat(), &Signature::from_bytes(&bytes)).is_ok()
    }
}

fn feed(state: &Hmac<Sha256>, message: &[&[u8]]) -> Hmac<Sha256> {
    let mut state = state.clone();
    for part in message {
        state.update(part);
    }
    state
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.alg().word())
    }
}

/// The keys: at most one to sign with, all to verify with. Its `Debug` shows key ids and
/// algorithms only.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: BTreeMap<String, KeyMaterial>,
    sign_with: Option<String>,
}

/// Why a set of keys makes no ring. Always the configuration's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringFault {
    /// A key id that cannot stand in a token.
    #[error("key id {0:?}: must be 1 to {KEY_ID_BYTES_MAX} of A-Z a-z 0-9 _ -")]
    BadId(String),
    /// Two keys with one id.
    #[error("key id {0:?}: given twice")]
    Duplicate(String),
    /// More than [`KEYS_MAX`] keys.
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
    /// `sign_with` names no key of the ring.
    #[error("sign_with {0:?}: no such key")]
    UnknownSigner(String),
    /// `sign_with` names a public key.
    #[error("sign_with {0:?}: a public key cannot sign")]
    CannotSign(String),
}

impl Keyring {
    /// A ring of keys by id. Without `sign_with` it verifies only.
    ///
    /// # Errors
    /// [`KeyringFault`].
    pub fn new(
        keys: impl IntoIterator<Item = (String, KeyMaterial)>,
        sign_with: Option<&str>,
    ) -> Result<Self, KeyringFault> {
        let mut ring = Self { keys: BTreeMap::new(), sign_with: sign_with.map(str::to_owned) };
        for (id, key) in keys {
            if !is_key_id(&id) {
                return Err(KeyringFault::BadId(id));
            }
            if ring.keys.contains_key(&id) {
                return Err(KeyringFault::Duplicate(id));
            }
            if ring.keys.len() >= KEYS_MAX {
                return Err(KeyringFault::TooMany);
            }
            ring.keys.insert(id, key);
        }
        match sign_with.map(|id| (id, ring.keys.get(id))) {
            Some((id, None)) => Err(KeyringFault::UnknownSigner(id.into())),
            Some((id, Some(key))) if !key.can_sign() => Err(KeyringFault::CannotSign(id.into())),
            Some((_, Some(_))) | None => Ok(ring),
        }
    }

    /// The id of the key to sign with, if there is one.
    #[must_use]
    pub fn sign_with(&self) -> Option<&str> {
        self.sign_with.as_deref()
    }

    /// The algorithm of the key to sign with, if there is one.
    #[must_use]
    pub fn alg(&self) -> Option<Alg> {
        Some(self.keys.get(self.sign_with()?)?.alg())
    }

    /// Key ids in order.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Whether a key of this id can verify.
    #[must_use]
    pub fn has(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    /// The integrity token over a checksum, made with the signing key; `None` when there is none.
    #[must_use]
    pub fn sign_checksum(&self, domain: Domain, seq: u64, checksum: Digest) -> Option<String> {
        let key_id = self.sign_with()?;
        let key = self.keys.get(key_id)?;
        let seq = seq.to_string();
        let tag = key.tag(&covered(domain, key_id, &seq, &checksum.to_string()))?;
        let mut token = String::with_capacity(32 + key_id.len() + seq.len() + tag.len());
        for part in [key.alg().word(), ":", key_id, ":", &seq, ":", &tag] {
            token.push_str(part);
        }
        Some(token)
    }

    /// Checks a token against the checksum that the caller has computed itself.
    ///
    /// # Errors
    /// [`Fault::Malformed`](super::refusal::Fault::Malformed) when it is no token,
    /// [`Fault::Forged`](super::refusal::Fault::Forged) when key, algorithm or tag are wrong.
    pub fn verify_token(
        &self,
        domain: Domain,
        token: &str,
        checksum: Digest,
    ) -> Result<(String, u64), Refusal> {
        let parts = TokenParts::parse(token)?;
        let key = self
            .keys
            .get(parts.key_id)
            .ok_or_else(|| Refusal::forged("/signature/integrity_token: unknown key id"))?;
        if key.alg().word() != parts.alg {
            return Err(Refusal::forged("/signature/integrity_token: not this key's algorithm"));
        }
        let checksum = checksum.to_string();
        let message = covered(domain, parts.key_id, parts.seq_text, &checksum);
        if !key.accepts(&message, parts.tag) {
            return Err(Refusal::forged("/signature/integrity_token: wrong tag"));
        }
        Ok((parts.key_id.to_owned(), parts.seq))
    }
}

/// Whether `id` can stand in a token: 1 to [`KEY_ID_BYTES_MAX`] of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_key_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=KEY_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed)
}

/// What a tag covers.
fn covered<'a>(domain: Domain, key_id: &'a str, seq: &'a str, checksum: &'a str) -> [&'a [u8]; 6] {
    [domain.context(), key_id.as_bytes(), b"\n", seq.as_bytes(), b"\n", checksum.as_bytes()]
}

/// A token taken apart; nothing in it is proved.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenParts<'a> {
    alg: &'a str,
    pub(super) key_id: &'a str,
    seq_text: &'a str,
    pub(super) seq: u64,
    tag: &'a str,
}

impl<'a> TokenParts<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("/signature/integrity_token", "must be <alg>:<key-id>:<seq>:<tag>")
        };
        let mut parts = token.split(':');
        let (Some(alg), Some(key_id), Some(seq_text), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let seq = seq_text.parse::<u64>().map_err(|_| malformed())?;
        // One spelling only: no sign, no leading zero.
        if seq.to_string() != seq_text || !is_key_id(key_id) {
            return Err(malformed());
        }
        Ok(Self { alg, key_id, seq_text, seq, tag })
    }
}
