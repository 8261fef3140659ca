//! What the broker holds of snapshots: the bytes in the object bucket `driftgate-snapshots`, their
//! signed manifests in the KV bucket `driftgate-manifests` under `{runtime}.{seq}`, and beside each
//! manifest the exchange envelope that it travels in, as the header `Driftgate-Exchange`.
//!
//! So a server can pin who writes under a name, and listing, fetching and collecting cost what one
//! runtime has. Both stand in the object's own description too, as the metadata entries
//! `driftgate-manifest` and `driftgate-exchange`: `nats object info` shows them, and an entry of
//! the index that was lost can be written again. What deliberately is not here: verifying
//! (`fetch.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::nats::object::{Content, Entries, Kv, Label, ObjectInfo, Store, StoreFault};
use crate::nats::settings::Settings;
pub use crate::nats::subject::{MANIFESTS as INDEX, SNAPSHOTS as BUCKET};
use crate::protocol::digest::Digest;
use crate::protocol::packet::RuntimeId;

/// Name of the metadata entry that holds the signed manifest.
pub const MANIFEST_ENTRY: &str = "driftgate-manifest";
/// Name of the metadata entry that holds its exchange envelope.
pub const EXCHANGE_ENTRY: &str = "driftgate-exchange";
/// How long the broker may take to confirm that it has everything. The driver's own bound is
/// shorter and severs the connection.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the bucket does not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct BucketFault(#[from] StoreFault);

impl BucketFault {
    /// Whether it is the object that is wrong, and not the broker or the way there: trying again
    /// helps nobody.
    #[must_use]
    pub fn is_of_object(&self) -> bool {
        matches!(
            self.0,
            StoreFault::Corrupt { .. }
                | StoreFault::Malformed(_)
                | StoreFault::NotFound(_)
                | StoreFault::TooLarge { .. }
        )
    }
}

/// What to put.
#[derive(Debug)]
pub struct Put<'a> {
    /// Object name.
    pub name: &'a str,
    /// The id of its chunks, from [`Bucket::next_id`].
    pub id: &'a str,
    /// Key of the manifest.
    pub key: &'a str,
    /// Media type of the plain bytes.
    pub media_type: &'a str,
    /// Signed manifest.
    pub manifest: Enclosed,
    /// Stored bytes.
    pub content: Content,
    /// Their digest. It was made off the event loop, and the store does not make it again.
    pub digest: Digest,
}

/// A signed manifest, and the exchange envelope that it travels in. Unverified where it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enclosed {
    /// The manifest.
    pub manifest: Bytes,
    /// The envelope; a manifest of an older version has none.
    pub envelope: Option<String>,
}

impl Enclosed {
    fn metadata(&self) -> BTreeMap<String, String> {
        let manifest = String::from_utf8_lossy(&self.manifest).into_owned();
        let envelope = self.envelope.clone().map(|text| (EXCHANGE_ENTRY.to_owned(), text));
        [(MANIFEST_ENTRY.to_owned(), manifest)].into_iter().chain(envelope).collect()
    }

    fn of(mut info: ObjectInfo) -> Option<Self> {
        let manifest = info.metadata.remove(MANIFEST_ENTRY)?.into();
        Some(Self { manifest, envelope: info.metadata.remove(EXCHANGE_ENTRY) })
    }
}

/// The key of a manifest.
#[must_use]
pub fn key(runtime: &RuntimeId, seq: u64) -> String {
    format!("{runtime}.{seq}")
}

/// One connection to both buckets.
#[derive(Debug)]
pub struct Bucket {
    store: Store,
    index: Kv,
}

impl Bucket {
    /// Connects, and creates the buckets where that is allowed.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn open(settings: &Settings) -> Result<Self, BucketFault> {
        let store = Store::open(settings, BUCKET).await?;
        let (index, differences) = store.kv(INDEX).await?;
        for difference in store.differences().iter().chain(&differences) {
            tracing::warn!(difference, "the broker weakens a promise");
        }
        Ok(Self { store, index })
    }

    /// An id for the chunks of one upload.
    #[must_use]
    pub fn next_id(&self) -> String {
        self.store.next_id()
    }

    /// Stores one object and then its manifest; when this returns the broker has acknowledged all
    /// of it.
    ///
    /// # Cancel safety
    /// Dropped, it leaves what [`Bucket::settle`] settles.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn put(
        &self,
        upload: Put<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), BucketFault> {
        let label = Label {
            name: upload.name.to_owned(),
            media_type: Some(upload.media_type.to_owned()),
            metadata: upload.manifest.metadata(),
        };
        self.store.put_hashed(&label, upload.id, upload.content, upload.digest, progress).await?;
        self.publish(upload.key, upload.manifest).await
    }

    /// Writes one entry of the index.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn publish(&self, key: &str, entry: Enclosed) -> Result<(), BucketFault> {
        Ok(self.index.put(key, entry.manifest, entry.envelope.as_deref()).await?)
    }

    /// Settles an upload that was interrupted: the unverified manifest of the object if it is
    /// there, else nothing of it is left.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn settle(&self, name: &str, id: &str) -> Result<Option<Enclosed>, BucketFault> {
        Ok(self.store.settle(name, id).await?.and_then(Enclosed::of))
    }

    /// The unverified manifest in an object's description.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn described(&self, name: &str) -> Result<Option<Enclosed>, BucketFault> {
        match self.store.info(name).await {
            Ok(info) => Ok(info.and_then(Enclosed::of)),
            Err(StoreFault::Malformed(_)) => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The bytes of one object, at most `bytes_max`.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn get(
        &self,
        name: &str,
        bytes_max: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Bytes, BucketFault> {
        Ok(self.store.get(name, bytes_max, progress).await?)
    }

    /// How many bytes an object has; `None` when there is none, or none that can be read.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn size(&self, name: &str) -> Result<Option<u64>, BucketFault> {
        match self.store.info(name).await {
            Ok(info) => Ok(info.map(|info| info.size)),
            Err(StoreFault::Malformed(_)) => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The unverified manifests of one runtime by their keys, the newest `max`.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn manifests(&self, runtime: &RuntimeId, max: usize) -> Result<Entries, BucketFault> {
        Ok(self.index.entries(runtime.as_str(), max).await?)
    }

    /// Deletes a manifest and then its object; what is not there is deleted.
    ///
    /// # Cancel safety
    /// Dropped in between, it has to be called again.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn delete(&self, key: &str, name: &str) -> Result<(), BucketFault> {
        self.index.delete(key).await?;
        self.store.delete(name).await?;
        Ok(())
    }

    /// Sends nothing more and waits until the broker has confirmed what was sent and shows no
    /// subscription of this connection; whether it has.
    pub async fn quiesce(&self) -> bool {
        self.store.quiesce(QUIESCE_TIMEOUT).await.is_ok()
            && self.store.leave(QUIESCE_TIMEOUT).await.is_ok()
    }

    /// Ends the connection with its buffers.
    pub async fn sever(&self) {
        self.store.sever().await;
    }
}
