//! Snapshots that are at the broker: listed, verified, fetched side by side, restored.
//!
//! Nothing in a bucket is believed. A manifest counts only when its signature is right, when it was
//! made by the source whose name it stands under, in band `open`, with a key that may speak for
//! that source, and under a number that its clock can have reached; objects count only when they
//! decode, within limits and into a bounded buffer, to the digest that was signed. A newest
//! manifest that is older than one seen before is `replayed`: somebody has taken the newer one
//! away. What deliberately is not here: who asks, and the cache.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::bucket::{self, Bucket, BucketFault};
use super::progress::Sum;
use super::spool::Entry;
use super::{Which, blocking};
use crate::protocol::digest::Digest;
use crate::protocol::keyring::Keyring;
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::{
    FrameKind, Limits, Manifest, Plain, VerifiedManifest, WINDOW_LOG_MAX, restore,
};
use crate::protocol::time::Timestamp;

/// Objects of one source that are listed: sixteen trees of the chain, as a chain knows at most.
pub const OBJECTS_MAX: usize = 65_536;

/// Why there is no snapshot to hand over. Sorted as the routes answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFault {
    /// Nothing may be fetched from this source.
    #[error("not authorised to import snapshots from {0}")]
    Unauthorised(RuntimeId),
    /// The gate is isolated.
    #[error("isolated: nothing is fetched until the gate reopens")]
    Isolated,
    /// There is none, or none with this digest.
    #[error("{0} has no such snapshot at the broker")]
    Unknown(RuntimeId),
    /// What is there is not what was signed.
    #[error("the snapshot of {source_id} was refused: {detail}")]
    Refused {
        /// Whose.
        source_id: RuntimeId,
        /// What is wrong.
        detail: String,
    },
    /// The broker is away or refuses.
    #[error("the broker does not give it: {0}")]
    Broker(String),
    /// It takes longer than the route waits.
    #[error("not fetched in time; ask again")]
    TimedOut,
}

impl FetchFault {
    /// The word in metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unauthorised(_) => "unauthorised",
            Self::Isolated => "isolated",
            Self::Unknown(_) => "unknown",
            Self::Refused { .. } => "refused",
            Self::Broker(_) => "broker",
            Self::TimedOut => "timed_out",
        }
    }
}

impl From<BucketFault> for FetchFault {
    fn from(fault: BucketFault) -> Self {
        Self::Broker(fault.to_string())
    }
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, schemars::JsonSchema, serde::Serialize)]
#[schemars(rename = "SnapshotItem")]
pub struct Item {
    /// Whose.
    pub runtime: String,
    /// Its number.
    pub seq: u64,
    /// Digest of the plain bytes.
    pub digest: Digest,
    /// Plain bytes.
    pub size: u64,
    /// `full` or `delta`; `None` while it is not stored.
    pub kind: Option<&'static str>,
    /// Stored bytes; `None` while it is not stored.
    pub stored_bytes: Option<u64>,
    /// Digest of the base of a delta.
    pub base: Option<Digest>,
    /// Media type of the plain bytes.
    pub media_type: String,
    /// When it was accepted or stored, RFC 3339.
    pub time: String,
    /// `stored`, `unsent` or `revoked`.
    pub state: &'static str,
    /// Objects that restore it.
    pub objects: usize,
}

impl Item {
    /// What a manifest says.
    #[must_use]
    pub fn of_manifest(manifest: &Manifest) -> Self {
        Self {
            runtime: manifest.runtime.to_string(),
            seq: manifest.seq,
            digest: manifest.digest,
            size: manifest.size,
            kind: Some(manifest.kind().word()),
            stored_bytes: Some(manifest.stored_bytes),
            base: manifest.base_digest,
            media_type: manifest.media_type.clone(),
            time: manifest.time.to_string(),
            state: "stored",
            objects: manifest.objects.len(),
        }
    }

    /// What the spool says.
    #[must_use]
    pub fn of_entry(runtime: &RuntimeId, entry: &Entry) -> Self {
        let stored = entry.state.stored();
        Self {
            runtime: runtime.to_string(),
            seq: entry.seq,
            digest: entry.digest,
            size: entry.size,
            kind: stored.map(|stored| stored.kind.word()),
            stored_bytes: stored.map(|stored| stored.stored_bytes),
            base: stored.and_then(|stored| stored.base),
            media_type: entry.media_type.clone(),
            time: entry.accepted.to_string(),
            state: entry.state.word(),
            objects: 0,
        }
    }
}

/// Which keys may speak for a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Any key of the ring: a peer without a pinned one.
    Any,
    /// This one alone.
    Key(String),
    /// None: our own name, while we have no key to sign with.
    Nobody,
}

impl Signer {
    /// For our own name: the key that we sign with, for a peer must not be able to write our
    /// memory.
    #[must_use]
    pub fn own(keyring: &Keyring) -> Self {
        keyring.sign_with().map_or(Self::Nobody, |id| Self::Key(id.to_owned()))
    }

    /// For a peer.
    #[must_use]
    pub fn peer(key_id: Option<&String>) -> Self {
        key_id.map_or(Self::Any, |id| Self::Key(id.clone()))
    }

    fn includes(&self, key_id: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Key(id) => id == key_id,
            Self::Nobody => false,
        }
    }
}

/// One source as it may be read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Who.
    pub id: RuntimeId,
    /// Whose signatures count.
    pub signer: Signer,
    /// Highest number seen from it before.
    pub floor: u64,
    /// Highest number that its clock can have reached; whatever is above it does not count yet.
    pub seq_max: u64,
}

impl Source {
    /// A source of which every manifest counts that any key of the ring has signed.
    #[must_use]
    pub fn any(id: RuntimeId) -> Self {
        Self { id, signer: Signer::Any, floor: 0, seq_max: u64::MAX }
    }
}

/// A manifest that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its key in the index.
    pub key: String,
    /// Why.
    pub detail: String,
}

/// What the index says of one source.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Verified, oldest first.
    pub manifests: Vec<Manifest>,
    /// Left out: one forged entry must not hide the others.
    pub ignored: Vec<Ignored>,
}

/// Reads the manifests of one source.
///
/// # Errors
/// [`FetchFault::Broker`].
pub async fn list(
    bucket: &Bucket,
    source: &Source,
    keyring: &Keyring,
) -> Result<Listing, FetchFault> {
    let mut listing = Listing::default();
    let mut verified: BTreeMap<u64, Manifest> = BTreeMap::new();
    for (key, bytes) in bucket.manifests(&source.id, OBJECTS_MAX).await? {
        match verify(&key, &bytes, source, keyring) {
            Ok(manifest) => drop(verified.insert(manifest.seq, manifest)),
            Err(detail) => {
                tracing::warn!(key, detail, "a snapshot's manifest is ignored");
                listing.ignored.push(Ignored { key, detail });
            }
        }
    }
    listing.manifests = verified.into_values().collect();
    Ok(listing)
}

/// Verifies a manifest that stands under `key`.
///
/// # Errors
/// Why it does not count.
pub(super) fn verify(
    key: &str,
    bytes: &[u8],
    source: &Source,
    keyring: &Keyring,
) -> Result<Manifest, String> {
    let verified = VerifiedManifest::open(keyring, bytes).map_err(|refusal| refusal.detail)?;
    if !source.signer.includes(verified.key_id()) {
        return Err(format!("signed with {}, which may not speak for it", verified.key_id()));
    }
    let manifest = verified.manifest();
    if manifest.runtime != source.id {
        return Err("it names another runtime".to_owned());
    }
    if key != bucket::key(&source.id, manifest.seq) {
        return Err("it stands under another key".to_owned());
    }
    if manifest.seq > source.seq_max {
        return Err(AHEAD.to_owned());
    }
    Ok(manifest.clone())
}

/// Why a manifest does not count whose number no clock has reached.
pub(super) const AHEAD: &str = "its number is ahead of the clock";

/// Chooses one.
///
/// # Errors
/// [`FetchFault::Unknown`], or [`FetchFault::Refused`] for a list that was set back.
pub fn choose<'a>(
    manifests: &'a [Manifest],
    source: &Source,
    which: Which,
) -> Result<&'a Manifest, FetchFault> {
    let found = match which {
        Which::Newest => manifests.last(),
        Which::Digest(digest) => manifests.iter().rev().find(|known| known.digest == digest),
    };
    let found = found.ok_or_else(|| FetchFault::Unknown(source.id.clone()))?;
    if which == Which::Newest && found.seq < source.floor {
        return Err(FetchFault::Refused {
            source_id: source.id.clone(),
            detail: format!("replayed: snapshot {} was seen before", source.floor),
        });
    }
    Ok(found)
}

/// Fetches the objects of one manifest side by side and restores it. `progress` is called with the
/// stored bytes of all of them that have arrived.
///
/// # Errors
/// [`FetchFault::Broker`] or [`FetchFault::Refused`].
pub async fn fetch(
    bucket: &Bucket,
    manifest: &Manifest,
    bytes_max: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Plain, FetchFault> {
    let refused =
        |detail: String| FetchFault::Refused { source_id: manifest.runtime.clone(), detail };
    if manifest.size > bytes_max {
        return Err(refused(format!("{} bytes, more than {bytes_max}", manifest.size)));
    }
    // A frame is at most a little larger than what it holds, and no base may be larger than
    // allowed.
    let stored_max = bytes_max.saturating_add(bytes_max / 64).saturating_add(1024);
    let sum = Sum::new(progress);
    let fetched = manifest.objects.iter().map(|name| {
        let part = sum.part();
        async move { bucket.get(name, stored_max, &part).await }
    });
    let objects = try_join_all(fetched).await.map_err(|fault| {
        if fault.is_of_object() { refused(fault.to_string()) } else { fault.into() }
    })?;
    let expected = manifest.expected();
    let limits = Limits { plain_bytes_max: bytes_max, window_log_max: WINDOW_LOG_MAX };
    let restored = blocking(move || {
        let objects: Vec<&[u8]> = objects.iter().map(|object| &object[..]).collect();
        restore(&objects, &expected, &limits)
    })
    .await;
    match restored {
        Ok(Ok(plain)) => Ok(plain),
        Ok(Err(fault)) => Err(refused(fault.to_string())),
        Err(fault) => Err(FetchFault::Broker(fault.to_string())),
    }
}

/// Whether an authorisation still holds.
pub(super) fn is_current(expires: Option<Timestamp>, now: Timestamp) -> bool {
    expires.is_none_or(|expires| now < expires)
}

/// The chain's entry of a manifest; `None` when its base is not among `known`.
pub(super) fn entry_of(
    manifest: &Manifest,
    known: &BTreeMap<Digest, u64>,
) -> Option<crate::protocol::snapshot::Entry> {
    let base = match manifest.base_digest {
        None => None,
        Some(digest) => Some(*known.get(&digest)?),
    };
    debug_assert!(base.is_some() == (manifest.kind() == FrameKind::Delta));
    Some(crate::protocol::snapshot::Entry {
        seq: manifest.seq,
        digest: manifest.digest,
        base,
        size: manifest.size,
        stored: manifest.stored_bytes,
    })
}
