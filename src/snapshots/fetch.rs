//! Snapshots that are at the broker: listed, verified, fetched side by side, restored.
//!
//! Nothing in a bucket is believed. A manifest counts only when its signature is right, when it was
//! made by the source whose name it stands under, in band `open`, with a key that may speak for
//! that source, and under a number that its clock can have reached; objects count only when they
//! decode, within limits and into a bounded buffer, to the digest that was signed. A newest
//! manifest that is older than one seen before is `replayed`: somebody has taken the newer one
//! away.
//!
//! Whether a peer's snapshot may be taken, and for what, is judged as its packets are, by the
//! envelope that stands beside its manifest. One that may not is listed with the reason and is not
//! passed over for an older one. What deliberately is not here: who asks, and the cache.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::bucket::{self, Bucket, BucketFault};
use super::progress::Sum;
use super::spool::SpoolEntry;
use super::{Which, blocking};
use crate::nats::object::KvEntry;
use crate::protocol::digest::Digest;
use crate::protocol::envelope::{self, Admission, Terms};
use crate::protocol::keyring::Keyring;
use crate::protocol::packet::RuntimeId;
use crate::protocol::refusal::Refusal;
use crate::protocol::snapshot::{
    FrameKind, Limits, Manifest, Plain, VerifiedManifest, WINDOW_LOG_MAX, restore,
};
use crate::protocol::time::Timestamp;
use crate::protocol::trace::TraceParent;

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
    /// Whether it is a peer's. It stays so, whatever becomes of it here.
    pub external: bool,
    /// Under what a peer's may be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Admission>,
    /// Why a peer's may not be taken, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<&'static str>,
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
            external: false,
            exchange: None,
            refused: None,
        }
    }

    /// All of a listing, oldest first.
    #[must_use]
    pub fn of_listing(listing: &Listing, source: &Source) -> Vec<Self> {
        let item = |manifest| {
            let mut item = Self::of_manifest(manifest);
            if source.terms.is_some() {
                item.external = true;
                match listing.exchange(manifest.seq) {
                    Ok(taken) => item.exchange = taken.map(|taken| taken.admission),
                    Err(refusal) => item.refused = Some(refusal.fault.word()),
                }
            }
            item
        };
        listing.manifests.iter().map(item).collect()
    }

    /// What the spool says.
    #[must_use]
    pub fn of_entry(runtime: &RuntimeId, entry: &SpoolEntry) -> Self {
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
            external: false,
            exchange: None,
            refused: None,
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
    /// Under what its snapshots are taken, at what time; our own need nobody's leave.
    pub terms: Option<(Terms, Timestamp)>,
}

impl Source {
    /// A source of which every manifest counts that any key of the ring has signed.
    #[must_use]
    pub fn any(id: RuntimeId) -> Self {
        Self { id, signer: Signer::Any, floor: 0, seq_max: u64::MAX, terms: None }
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

/// What a peer's snapshot may be taken under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Accepted or narrowed, and for what.
    pub admission: Admission,
    /// The trace that it belongs to, where that is signed.
    pub trace: Option<TraceParent>,
}

/// `None` of our own, which need nobody's leave.
type Verdict = Result<Option<Taken>, Refusal>;

/// What the index says of one source.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Verified, oldest first.
    pub manifests: Vec<Manifest>,
    /// What each of them came in, by its number, or why it may not be taken.
    exchanges: BTreeMap<u64, Verdict>,
    /// Left out: one forged entry must not hide the others.
    pub ignored: Vec<Ignored>,
}

impl Listing {
    /// What the manifest of that number came in.
    ///
    /// # Errors
    /// [`Refusal`]: why it may not be taken, or, of our own, what is wrong with its envelope.
    pub fn exchange(&self, seq: u64) -> Result<Option<Taken>, Refusal> {
        self.exchanges.get(&seq).cloned().unwrap_or(Ok(None))
    }

    /// The manifests of a source with something wrong beside them.
    pub(super) fn disenclosed(&self, source: &RuntimeId) -> Vec<Ignored> {
        let wrong = self.exchanges.iter().filter_map(|(seq, taken)| {
            let detail = taken.as_ref().err()?.detail.clone();
            Some(Ignored { key: bucket::key(source, *seq), detail })
        });
        wrong.collect()
    }
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
    for entry in bucket.manifests(&source.id, OBJECTS_MAX).await? {
        match verify(&entry, source, keyring) {
            Ok((manifest, taken)) => {
                listing.exchanges.insert(manifest.seq, taken);
                verified.insert(manifest.seq, manifest);
            }
            Err(detail) => {
                let key = entry.key;
                tracing::warn!(key, detail, "a snapshot's manifest is ignored");
                listing.ignored.push(Ignored { key, detail });
            }
        }
    }
    listing.manifests = verified.into_values().collect();
    Ok(listing)
}

/// Verifies a manifest as it stands under its key, and judges what it came in.
///
/// # Errors
/// Why it does not count.
pub(super) fn verify(
    entry: &KvEntry,
    source: &Source,
    keyring: &Keyring,
) -> Result<(Manifest, Verdict), String> {
    let verified =
        VerifiedManifest::open(keyring, &entry.value).map_err(|refusal| refusal.detail)?;
    if !source.signer.includes(verified.key_id()) {
        return Err(format!("signed with {}, which may not speak for it", verified.key_id()));
    }
    let manifest = verified.manifest();
    if manifest.runtime != source.id {
        return Err("it names another runtime".to_owned());
    }
    if entry.key != bucket::key(&source.id, manifest.seq) {
        return Err("it stands under another key".to_owned());
    }
    if manifest.seq > source.seq_max {
        return Err(AHEAD.to_owned());
    }
    let (about, header) = (verified.about(), entry.envelope.as_deref());
    let verdict = match &source.terms {
        Some((terms, now)) => {
            terms.judge(keyring, header, None, &about, *now).map(|(envelope, admission)| {
                Some(Taken { admission, trace: envelope.and_then(|envelope| envelope.trace) })
            })
        }
        None => match header {
            Some(header) => envelope::read(keyring, header, &about).map(|_| None),
            None => Ok(None),
        },
    };
    Ok((manifest.clone(), verdict))
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

/// The chain's entry of a manifest; `None` when its base is not among `known`.
pub(super) fn entry_of(
    manifest: &Manifest,
    known: &BTreeMap<Digest, u64>,
) -> Option<crate::protocol::snapshot::ChainEntry> {
    let base = match manifest.base_digest {
        None => None,
        Some(digest) => Some(*known.get(&digest)?),
    };
    debug_assert!(base.is_some() == (manifest.kind() == FrameKind::Delta));
    Some(crate::protocol::snapshot::ChainEntry {
        seq: manifest.seq,
        digest: manifest.digest,
        base,
        size: manifest.size,
        stored: manifest.stored_bytes,
    })
}
