//! The bucket `driftgate-snapshots` as this room uses it: objects with their manifests.
//!
//! The manifest stands in the object's own description, as the metadata entry
//! `driftgate-manifest`: `nats object info` shows it, one listing gives them all, and neither can
//! be there without the other. What deliberately is not here: verifying (`fetch.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::nats::object::{Label, ObjectInfo, Store, StoreFault};
use crate::nats::settings::Settings;
use crate::protocol::snapshot::Digest;

/// Name of the bucket (DESIGN section 3).
pub const BUCKET: &str = "driftgate-snapshots";
/// Name of the metadata entry that holds the signed manifest.
pub const MANIFEST_ENTRY: &str = "driftgate-manifest";
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

/// One object, as its description says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Stored bytes.
    pub size: u64,
    /// The manifest, unverified.
    pub manifest: Option<Vec<u8>>,
}

impl From<ObjectInfo> for Object {
    fn from(mut info: ObjectInfo) -> Self {
        let manifest = info.metadata.remove(MANIFEST_ENTRY).map(String::into_bytes);
        Self { name: info.name, size: info.size, manifest }
    }
}

/// What to put.
#[derive(Clone, Debug)]
pub struct Upload<'a> {
    /// Object name.
    pub name: &'a str,
    /// Media type of the plain bytes.
    pub media_type: &'a str,
    /// Signed manifest.
    pub manifest: &'a [u8],
    /// Stored bytes.
    pub bytes: Bytes,
    /// Their digest. It was made off the event loop, and the store does not make it again.
    pub digest: Digest,
}

/// One connection to the bucket.
#[derive(Debug)]
pub struct Bucket {
    store: Store,
}

impl Bucket {
    /// Connects, and creates the bucket where that is allowed.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn open(settings: &Settings) -> Result<Self, BucketFault> {
        let store = Store::open(settings, BUCKET).await?;
        for difference in store.differences() {
            tracing::warn!(difference, "the broker weakens a promise");
        }
        Ok(Self { store })
    }

    /// Stores one object; when this returns the broker has acknowledged all of it.
    ///
    /// # Cancel safety
    /// Dropped, it leaves at most chunks that belong to no object, or the whole object.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn put(
        &self,
        upload: Upload<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), BucketFault> {
        let manifest = String::from_utf8_lossy(upload.manifest).into_owned();
        let label = Label {
            name: upload.name.to_owned(),
            media_type: Some(upload.media_type.to_owned()),
            metadata: BTreeMap::from([(MANIFEST_ENTRY.to_owned(), manifest)]),
        };
        let digest = *upload.digest.as_bytes();
        self.store.put_hashed(&label, upload.bytes, digest, progress).await?;
        Ok(())
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

    /// Objects whose names begin with `prefix`.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn list(&self, prefix: &str, max: usize) -> Result<Vec<Object>, BucketFault> {
        let listing = self.store.list(prefix, max).await?;
        if listing.is_cut {
            tracing::warn!(prefix, max, "the bucket holds more objects than are listed");
        }
        Ok(listing.objects.into_iter().map(Object::from).collect())
    }

    /// Deletes one object; one that is not there is deleted.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn delete(&self, name: &str) -> Result<(), BucketFault> {
        self.store.delete(name).await?;
        Ok(())
    }

    /// Removes the chunks of our uploads that were never finished. The spool's lock says that no
    /// other process of this runtime uploads.
    ///
    /// # Errors
    /// [`BucketFault`].
    pub async fn purge_orphans(&self) -> Result<(), BucketFault> {
        let purged = self.store.purge_orphans(Duration::ZERO).await?;
        if purged.orphans > 0 {
            tracing::info!(count = purged.orphans, "cleared away uploads that were never finished");
        }
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
