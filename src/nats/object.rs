//! NATS Object Store (ADR-20) over one connection of its own, readable by `nats object
//! ls|get|info`.
//!
//! async-nats has an object store too. This one differs where that one costs or loses: chunks are
//! of one size and [`WINDOW`] of them are under way (it waits for each), what an upload leaves
//! behind on failure is removed, names are immutable, bytes are handed out only when all of them
//! are there and match the digest, every wait ends, and [`Store::quiesce`] and [`Store::sever`]
//! give the gate its two promises (P1, P2) here as well.
//!
//! - **Order.** The description is published after every chunk is acknowledged, and only if the
//!   name is as it was when we looked, so no reader sees half an object and no object is replaced.
//! - **One connection, a batch of work.** A store is opened for some work and dropped after it. It
//!   does not connect again; when [`StoreFault::Lost`] says that the connection is gone, open
//!   another.
//! - **Bounds.** A `put` holds its bytes once and [`WINDOW`] chunks in queues; a `get` holds the
//!   bytes it returns and some 4 MiB under way, [`READERS_MAX`] of them at a time.
//!
//! What deliberately is not here: what the objects are, signatures, compression, links between
//! objects, changing the bucket's configuration, and trying again.

pub(super) mod bucket;
mod fault;
mod kv;
mod meta;
mod read;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::meta::{Ids, Meta, check_name, encode_name};
use self::read::{Reader, stamp};
use self::write::Upload;
use super::connection::{Connection, serve};
use super::requests::{RequestFault, Requests};
use super::session::ConnectFault;
use super::settings::Settings;
use super::subject::AssetName;
use crate::protocol::digest::{Digest, Hasher};
use crate::protocol::time::Timestamp;

pub use self::fault::StoreFault;
pub use self::kv::{Entries, Kv, KvEntry};
pub use self::meta::{Label, META_BYTES_MAX, NAME_BYTES_MAX, ObjectInfo};
pub use self::write::Content;

/// Stored messages under way on one connection: enough to fill a fast link at 128 KiB each, 8 MiB
/// in all, far below the 128 MiB that a server takes in for one stream.
pub const WINDOW: usize = 64;
/// Size of every chunk but the last, in bytes: ADR-20's default, below every server's default
/// `max_payload` of 1 MiB. Smaller only on a server whose `max_payload` is.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// Objects read at the same time: what one restore fetches side by side.
pub const READERS_MAX: usize = 16;
/// Descriptions that one [`Store::list`] reads.
pub const SCAN_MAX: u64 = 100_000;
/// How long a tombstone stays for whoever watches the bucket, where the broker lets it expire;
/// elsewhere it is removed at once.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(3_600);

/// JetStream error "no message found".
const ERR_NO_MESSAGE: u32 = 10_037;
/// What [`Store::list`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects that are there, in the order in which they were stored.
    pub objects: Vec<ObjectInfo>,
    /// Whether there may be more than were asked for, or than [`SCAN_MAX`].
    pub is_cut: bool,
    /// Descriptions that cannot be read, or are links: somebody else's.
    pub unreadable: u64,
}

/// One bucket on one connection. A clone is the same store; dropping the last severs it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    requests: Requests,
    window: Arc<Semaphore>,
    server: String,
    bucket: String,
    stream: String,
    chunk_bytes: usize,
    differences: Vec<String>,
    /// Whether single messages can expire.
    expires: bool,
    ids: Ids,
    ids_made: AtomicU64,
    readers: Semaphore,
}

impl Shared {
    fn next_id(&self) -> String {
        self.ids.id(self.ids_made.fetch_add(1, Ordering::Relaxed))
    }

    fn meta_subject(&self, name: &str) -> String {
        format!("$O.{}.M.{}", self.bucket, encode_name(name))
    }

    fn chunk_subject(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }

    async fn purge(&self, filter: &str) -> Result<(), StoreFault> {
        self.purge_of(&self.stream, filter).await
    }

    async fn purge_of(&self, stream: &str, filter: &str) -> Result<(), StoreFault> {
        let call = format!("STREAM.PURGE.{stream}");
        self.requests.demand(&call, &json!({ "filter": filter })).await?;
        Ok(())
    }

    /// Waits for a place in the window.
    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreFault> {
        let place = Arc::clone(&self.window).acquire_owned();
        let place = self.requests.while_acknowledged(place).await?;
        place.map_err(|_| self.requests.lost().into())
    }

    /// Waits until everything that was stored is answered.
    async fn settle(&self) -> Result<(), RequestFault> {
        let all = u32::try_from(WINDOW).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let places = self.requests.while_acknowledged(self.window.acquire_many(all)).await;
        places.map(drop)
    }

    /// The description under a name, a tombstone as well; from the stream's leader, since a
    /// replica may be behind.
    async fn look(&self, name: &str) -> Result<Option<Found>, StoreFault> {
        check_name(name)?;
        let Some(raw) = self.last_of(&self.meta_subject(name)).await? else { return Ok(None) };
        let data = raw.get("data").and_then(Value::as_str).unwrap_or_default();
        let malformed = || StoreFault::Malformed(format!("the description of {name:?}"));
        let bytes = STANDARD.decode(data).map_err(|_| malformed())?;
        Ok(Some(Found {
            meta: Meta::read(&bytes, Some(name))?,
            seq: raw.get("seq").and_then(Value::as_u64).ok_or_else(malformed)?,
            modified: time_of(&raw, "time"),
        }))
    }

    /// The newest message of a subject.
    async fn last_of(&self, subject: &str) -> Result<Option<Value>, StoreFault> {
        let call = format!("STREAM.MSG.GET.{}", self.stream);
        match self.requests.call(&call, &json!({ "last_by_subj": subject })).await? {
            Ok(mut answer) => match answer.get_mut("message").map(Value::take) {
                Some(message) => Ok(Some(message)),
                None => Err(StoreFault::Malformed(format!("the answer to {call}"))),
            },
            Err(error) if error.err_code == ERR_NO_MESSAGE => Ok(None),
            Err(error) => Err(RequestFault::refused(&call, &error).into()),
        }
    }

    /// Reads every newest description.
    async fn scan(&self) -> Result<Reader, StoreFault> {
        let filter = format!("$O.{}.M.>", self.bucket);
        Reader::start(&self.requests, &self.stream, &filter, true, self.next_id()).await
    }
}

/// A description as it stands in the bucket.
struct Found {
    meta: Meta,
    seq: u64,
    modified: Option<Timestamp>,
}

fn time_of(value: &Value, field: &str) -> Option<Timestamp> {
    value.get(field).and_then(Value::as_str).and_then(Timestamp::parse)
}

impl Store {
    /// Connects within `nats.connect_timeout` and makes sure of the bucket: created when it is
    /// absent and `nats.provision` is set, else bound and compared ([`Self::differences`]).
    ///
    /// # Cancel safety
    /// Dropping the future ends the connection; a bucket that was created stays.
    ///
    /// # Errors
    /// [`StoreFault::Connect`]; [`StoreFault::Absent`]; [`StoreFault::BadLabel`] when `bucket` is
    /// no bucket name; what the broker answers.
    pub async fn open(settings: &Settings, bucket: &str) -> Result<Self, StoreFault> {
        AssetName::new(bucket).ok_or(StoreFault::BadLabel("not the name of a bucket"))?;
        let ids = Ids::new(&settings.runtime_id)
            .ok_or_else(|| ConnectFault::Starved("no randomness".to_owned()))?;
        let (mut connection, requests) = Connection::connect(settings).await?;
        let opened = connection.subscribe_answers();
        opened.map_err(|fault| ConnectFault::Unreachable(fault.to_string()))?;
        let (server, max_payload) = (connection.server(), connection.max_payload());
        // Ends with the last handle on the connection, if it is not severed before.
        tokio::spawn(serve(connection));
        let wanted = bucket::BucketSpec::objects(bucket, settings.broker.replicas);
        let found = bucket::ensure(&requests, &wanted).await?;
        Ok(Self(Arc::new(Shared {
            chunk_bytes: CHUNK_BYTES.min(max_payload).max(1),
            requests,
            window: Arc::new(Semaphore::new(WINDOW)),
            server,
            bucket: bucket.to_owned(),
            stream: wanted.stream,
            differences: found.differences,
            expires: found.expires,
            ids,
            ids_made: AtomicU64::new(0),
            readers: Semaphore::new(READERS_MAX),
        })))
    }

    /// What of the bucket's configuration weakens a promise, one sentence each.
    #[must_use]
    pub fn differences(&self) -> &[String] {
        &self.0.differences
    }

    /// Name and version of the server, for logs.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.0.server
    }

    /// Stores `bytes` under `label.name`. `progress` is called with the bytes that are acknowledged
    /// so far. A name that already holds the same bytes is a success and stores nothing; a name
    /// that was deleted may be used again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no object, perhaps chunks, which
    /// [`Self::settle`] removes; dropped after its last chunk, the object may be there.
    ///
    /// # Errors
    /// [`StoreFault::NameTaken`]; [`StoreFault::Full`]; [`StoreFault::Revoked`] after
    /// [`Self::quiesce`]; [`StoreFault::Stalled`] and [`StoreFault::Lost`], whose outcome is
    /// unknown: putting again settles it. On every fault that leaves the connection standing, the
    /// chunks are removed before this returns.
    pub async fn put(
        &self,
        label: &Label,
        bytes: Bytes,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<ObjectInfo, StoreFault> {
        let id = self.0.next_id();
        self.put_content(label, &id, Content::Bytes(bytes), None, progress).await
    }

    /// The same for content whose SHA-256 is known, which spares computing it: a quarter of the
    /// upload's time where no core is idle; under an id from [`Self::next_id`], by which
    /// [`Self::settle`] finds what an interruption leaves. An object with a wrong digest is one
    /// that nobody can read.
    ///
    /// # Cancel safety
    /// As [`Self::put`].
    ///
    /// # Errors
    /// As [`Self::put`]; [`StoreFault::Unreadable`] when the content cannot be read.
    pub async fn put_hashed(
        &self,
        label: &Label,
        id: &str,
        content: Content,
        digest: Digest,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<ObjectInfo, StoreFault> {
        self.put_content(label, id, content, Some(digest), progress).await
    }

    async fn put_content(
        &self,
        label: &Label,
        id: &str,
        content: Content,
        digest: Option<Digest>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<ObjectInfo, StoreFault> {
        let mut content = write::Outgoing::new(content, digest).await?;
        let mut expected_seq = 0;
        if let Some(found) = self.0.look(&label.name).await? {
            match found.meta.info(found.modified)? {
                Some(info) => return write::same(info, &content, progress),
                None => expected_seq = found.seq,
            }
        }
        let upload = Upload::start(&self.0, id.to_owned());
        upload.run(label, &mut content, expected_seq, progress).await
    }

    /// The bytes of an object, complete and checked against its digest. `progress` is called with
    /// the bytes that have arrived.
    ///
    /// # Cancel safety
    /// Dropping the future ends the reading.
    ///
    /// # Errors
    /// [`StoreFault::NotFound`]; [`StoreFault::TooLarge`] above `bytes_max`, before anything is
    /// read; [`StoreFault::Corrupt`]; [`StoreFault::Stalled`] when nothing arrives for three
    /// `call_timeout`s; [`StoreFault::Lost`].
    pub async fn get(
        &self,
        name: &str,
        bytes_max: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Bytes, StoreFault> {
        let shared = &self.0;
        let not_found = || StoreFault::NotFound(name.to_owned());
        let info = self.info(name).await?.ok_or_else(not_found)?;
        let corrupt =
            |reason: &str| StoreFault::Corrupt { name: name.to_owned(), reason: reason.to_owned() };
        let too_large =
            || StoreFault::TooLarge { name: name.to_owned(), size: info.size, bytes_max };
        let size = usize::try_from(info.size).map_err(|_| too_large())?;
        if info.size > bytes_max {
            return Err(too_large());
        }
        // The semaphore is never closed. Whoever holds a place is under a deadline of its own.
        let _place = shared.readers.acquire().await;
        let mut bytes = BytesMut::new();
        let mut hasher = Hasher::default();
        if info.chunks > 0 {
            let filter = shared.chunk_subject(&info.nuid);
            let id = shared.next_id();
            let mut reader =
                Reader::start(&shared.requests, &shared.stream, &filter, false, id).await?;
            if reader.total != info.chunks {
                return Err(corrupt(&format!("{} chunks of {}", reader.total, info.chunks)));
            }
            bytes.reserve(size);
            while let Some(chunk) = reader.next().await? {
                if chunk.payload.len() > size - bytes.len() {
                    return Err(corrupt("it has more bytes than described"));
                }
                hasher.update(&chunk.payload);
                bytes.extend_from_slice(&chunk.payload);
                progress(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            }
        }
        if bytes.len() != size {
            return Err(corrupt(&format!("{} bytes of {size}", bytes.len())));
        }
        if hasher.finish() != info.digest {
            return Err(corrupt("its digest does not match"));
        }
        Ok(bytes.freeze())
    }

    /// What the bucket says about an object; `None` when there is none, or it was deleted.
    ///
    /// # Errors
    /// [`StoreFault::Malformed`] when its description cannot be read, or is a link.
    pub async fn info(&self, name: &str) -> Result<Option<ObjectInfo>, StoreFault> {
        match self.0.look(name).await? {
            Some(found) => found.meta.info(found.modified),
            None => Ok(None),
        }
    }

    /// At most `max` objects whose names begin with `prefix`, oldest first. Reads the description
    /// of every object of the bucket, up to [`SCAN_MAX`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn list(&self, prefix: &str, max: usize) -> Result<Listing, StoreFault> {
        let mut listing = Listing::default();
        let mut reader = self.0.scan().await?;
        let mut read = 0;
        while let Some(message) = reader.next().await? {
            read += 1;
            let modified = stamp(&message).map(|(_, time)| time);
            match Meta::read(&message.payload, None).and_then(|meta| meta.info(modified)) {
                Ok(Some(info)) if info.name.starts_with(prefix) => {
                    if listing.objects.len() >= max {
                        listing.is_cut = true;
                        break;
                    }
                    listing.objects.push(info);
                }
                Ok(_) => {}
                Err(_) => listing.unreadable += 1,
            }
            if read >= SCAN_MAX {
                listing.is_cut = read < reader.total;
                break;
            }
        }
        Ok(listing)
    }

    /// Deletes an object: a tombstone first, as ADR-20 wants it, then the chunks. In a full bucket,
    /// which takes no tombstone, the chunks go first. Returns whether there was one.
    ///
    /// # Cancel safety
    /// Dropped in between, the object is gone or damaged; deleting again finishes the work.
    ///
    /// # Errors
    /// [`StoreFault::Interrupted`] when somebody changed it meanwhile; [`StoreFault::Revoked`].
    pub async fn delete(&self, name: &str) -> Result<bool, StoreFault> {
        write::delete(&self.0, name).await
    }

    /// Stops sending for good, waits until everything sent is acknowledged, and for a round trip
    /// that proves that the broker has handled everything before it: nothing of ours follows. Puts
    /// and deletes that run, and later ones, end with [`StoreFault::Revoked`]; reading and removing
    /// orphans go on working. Stopping is done when this has been polled once, whatever the broker
    /// says.
    ///
    /// # Errors
    /// [`StoreFault::Stalled`] when the broker has not confirmed within `timeout`: then
    /// [`Self::sever`]. [`StoreFault::Lost`] when the connection is gone already.
    pub async fn quiesce(&self, timeout: Duration) -> Result<(), StoreFault> {
        let quiescing = async {
            self.0.requests.revoke().await?;
            self.0.settle().await
        };
        self.confirmed(timeout, quiescing, "the broker does not confirm").await
    }

    /// Removes every subscription of this connection and waits until the broker has done so: it
    /// then shows none of ours (P4). To be called when nothing runs any more; nothing is answered
    /// after it.
    ///
    /// # Errors
    /// As [`Self::quiesce`].
    pub async fn leave(&self, timeout: Duration) -> Result<(), StoreFault> {
        let words = "the broker does not confirm that we have left";
        self.confirmed(timeout, self.0.requests.leave(), words).await
    }

    async fn confirmed(
        &self,
        timeout: Duration,
        confirming: impl Future<Output = Result<(), RequestFault>>,
        words: &str,
    ) -> Result<(), StoreFault> {
        match tokio::time::timeout(timeout, confirming).await {
            Ok(confirmed) => Ok(confirmed?),
            Err(_) => Err(StoreFault::Stalled(words.to_owned())),
        }
    }

    /// Ends the connection at once; what waits in queues is never sent. Await the result to know
    /// that the socket is closed. Everything that runs ends with [`StoreFault::Lost`].
    pub fn sever(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.requests.end.sever()
    }
}
