//! What changes the bucket: uploads, tombstones, and the removal of what nobody refers to.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;

use super::meta::{META_BYTES_MAX, Meta};
use super::{Label, ObjectInfo, Shared, Store, StoreFault, TOMBSTONE_AGE};
use crate::nats::ack;
use crate::nats::requests::{Awaited, RequestFault};
use crate::protocol::digest::{Digest, Hasher};

/// JetStream errors "wrong last sequence": the name is not as it was when we looked.
const ERR_WRONG_SEQUENCE: [u32; 2] = [10_071, 10_164];

type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Bytes of a file that are read at a time: eight chunks.
const PIECE_BYTES: usize = 1024 * 1024;

/// What is to be stored.
#[derive(Debug)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, read from its beginning a piece at a time. Its length may not change meanwhile.
    File(std::fs::File),
}

/// Content on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    content: Content,
    digest: Option<Digest>,
    pub(super) len: u64,
    /// What was read of a file and is not sent yet.
    piece: Bytes,
}

impl Outgoing {
    pub(super) async fn new(content: Content, digest: Option<Digest>) -> Result<Self, StoreFault> {
        let (len, content) = match content {
            Content::Bytes(bytes) => {
                (u64::try_from(bytes.len()).unwrap_or(u64::MAX), Content::Bytes(bytes))
            }
            Content::File(file) => read(file, |file| Ok(file.metadata()?.len())).await?,
        };
        Ok(Self { content, digest, len, piece: Bytes::new() })
    }

    /// The digest, where it is known or all bytes are at hand.
    fn digest(&self) -> Option<Digest> {
        let of_bytes = || match &self.content {
            Content::Bytes(bytes) => Some(Digest::of(bytes)),
            Content::File(_) => None,
        };
        self.digest.or_else(of_bytes)
    }

    /// The next chunk, that begins at `begin`.
    async fn chunk(&mut self, begin: u64, chunk_bytes: usize) -> Result<Bytes, StoreFault> {
        let missing = self.len.saturating_sub(begin);
        let length = chunk_bytes.min(usize::try_from(missing).unwrap_or(usize::MAX));
        match &self.content {
            Content::Bytes(bytes) => {
                let begin = usize::try_from(begin).unwrap_or(usize::MAX);
                Ok(bytes.slice(begin..begin.saturating_add(length)))
            }
            Content::File(file) => {
                if self.piece.len() < length {
                    let file = file.try_clone().map_err(unreadable)?;
                    let wanted = PIECE_BYTES.max(chunk_bytes) / chunk_bytes * chunk_bytes;
                    let wanted = wanted.min(usize::try_from(missing).unwrap_or(usize::MAX));
                    let reading = read(file, move |file| {
                        let mut piece = vec![0; wanted];
                        file.read_exact_at(&mut piece, begin)?;
                        Ok(Bytes::from(piece))
                    });
                    (self.piece, _) = reading.await?;
                }
                Ok(self.piece.split_to(length))
            }
        }
    }
}

/// Does something with a file on a thread for what blocks, and gives the file back.
async fn read<T: Send + 'static>(
    file: std::fs::File,
    work: impl FnOnce(&std::fs::File) -> std::io::Result<T> + Send + 'static,
) -> Result<(T, Content), StoreFault> {
    let reading = tokio::task::spawn_blocking(move || work(&file).map(|found| (found, file)));
    let (found, file) = reading.await.map_err(unreadable)?.map_err(unreadable)?;
    Ok((found, Content::File(file)))
}

fn unreadable(error: impl std::fmt::Display) -> StoreFault {
    StoreFault::Unreadable(error.to_string())
}

/// The name holds an object already: a success when it is the same.
pub(super) fn same(
    info: ObjectInfo,
    content: &Outgoing,
    progress: Progress<'_>,
) -> Result<ObjectInfo, StoreFault> {
    if info.size != content.len || content.digest() != Some(info.digest) {
        return Err(StoreFault::NameTaken(info.name));
    }
    progress(content.len);
    Ok(info)
}

/// One upload.
pub(super) struct Upload<'a> {
    shared: &'a Arc<Shared>,
    nuid: String,
    /// Chunks without an answer, oldest first, with their lengths.
    pending: VecDeque<(Awaited, u64)>,
    acked_bytes: u64,
}

impl<'a> Upload<'a> {
    pub(super) fn start(shared: &'a Arc<Shared>, nuid: String) -> Self {
        Self { shared, nuid, pending: VecDeque::new(), acked_bytes: 0 }
    }

    /// Stores the chunks and then the description, or leaves nothing.
    pub(super) async fn run(
        mut self,
        label: &Label,
        content: &mut Outgoing,
        expected_seq: u64,
        progress: Progress<'_>,
    ) -> Result<ObjectInfo, StoreFault> {
        let sent = self.send_chunks(content, progress).await;
        let described = match sent {
            Ok(digest) => {
                let chunk_bytes = u64::try_from(self.shared.chunk_bytes).unwrap_or(u64::MAX);
                let info = ObjectInfo {
                    name: label.name.clone(),
                    nuid: self.nuid.clone(),
                    size: content.len,
                    chunks: content.len.div_ceil(chunk_bytes),
                    digest,
                    modified: None,
                    media_type: label.media_type.clone(),
                    metadata: label.metadata.clone(),
                };
                let meta = Meta::of(&self.shared.bucket, label, &info, self.shared.chunk_bytes);
                describe(self.shared, &meta, expected_seq).await.map(|()| info)
            }
            Err(fault) => Err(fault),
        };
        match described {
            Ok(info) => Ok(info),
            Err(fault) => {
                self.abandon(&fault).await;
                if !is_changed(&fault) {
                    return Err(fault);
                }
                // Somebody was faster. With the same bytes that is as good as our own.
                match self.shared.look(&label.name).await? {
                    Some(found) => match found.meta.info(found.modified)? {
                        Some(info) => same(info, content, progress),
                        None => Err(changed(&label.name)),
                    },
                    None => Err(changed(&label.name)),
                }
            }
        }
    }

    async fn send_chunks(
        &mut self,
        content: &mut Outgoing,
        progress: Progress<'_>,
    ) -> Result<Digest, StoreFault> {
        let subject = self.shared.chunk_subject(&self.nuid);
        let mut hasher = Hasher::default();
        let mut begin = 0;
        while begin < content.len {
            let chunk = content.chunk(begin, self.shared.chunk_bytes).await?;
            let place = self.shared.place().await?;
            while let Some((answer, len)) = self.pending.front_mut() {
                let (landed, len) = (self.shared.requests.has_landed(answer), *len);
                if matches!(landed, Ok(None)) {
                    break;
                }
                self.pending.pop_front();
                if let Some(message) = landed? {
                    self.acked(&message, len, progress)?;
                }
            }
            let storing =
                self.shared.requests.store(place, &subject, HeaderMap::new(), chunk.clone());
            let answer = storing.await?;
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.pending.push_back((answer, len));
            // After it was handed over, so that the connection's thread works meanwhile.
            if content.digest.is_none() {
                hasher.update(&chunk);
            }
            begin += len;
        }
        while let Some((mut answer, len)) = self.pending.pop_front() {
            let message = self.shared.requests.landed(&mut answer).await?;
            self.acked(&message, len, progress)?;
        }
        Ok(content.digest.unwrap_or_else(|| hasher.finish()))
    }

    fn acked(
        &mut self,
        message: &async_nats::Message,
        len: u64,
        progress: Progress<'_>,
    ) -> Result<(), StoreFault> {
        ack::outcome(message, &self.shared.stream)?;
        self.acked_bytes += len;
        progress(self.acked_bytes);
        Ok(())
    }

    /// Removes the chunks, as far as that makes sense. What it cannot remove is an orphan.
    async fn abandon(&mut self, fault: &StoreFault) {
        // Without a connection, or with a broker that does not answer, nothing can be removed. A
        // description without an answer may be stored, and then its chunks must stay.
        if matches!(fault, StoreFault::Lost(_) | StoreFault::Stalled(_)) {
            return;
        }
        while let Some((mut answer, _)) = self.pending.pop_front() {
            let landed = self.shared.requests.landed(&mut answer).await;
            if let Err(RequestFault::Lost(_) | RequestFault::Stalled(_)) = landed {
                return;
            }
        }
        let _ = self.shared.purge(&self.shared.chunk_subject(&self.nuid)).await;
    }
}

/// Publishes a description in the place of the one with `expected_seq`, 0 for none.
async fn describe(shared: &Shared, meta: &Meta, expected_seq: u64) -> Result<(), StoreFault> {
    let text = serde_json::to_vec(meta)
        .map_err(|_| StoreFault::BadLabel("its description cannot be written"))?;
    if text.len() > META_BYTES_MAX {
        return Err(StoreFault::BadLabel("its metadata have more than 64 KiB"));
    }
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    if meta.deleted && shared.expires {
        headers.insert("Nats-TTL", format!("{}s", TOMBSTONE_AGE.as_secs()).as_str());
    }
    headers.insert("Nats-Expected-Last-Subject-Sequence", expected_seq.to_string().as_str());
    let place = shared.place().await?;
    let subject = shared.meta_subject(&meta.name);
    let storing = shared.requests.store(place, &subject, headers, Bytes::from(text));
    let mut answer = storing.await?;
    let message = shared.requests.landed(&mut answer).await?;
    ack::outcome(&message, &shared.stream)?;
    Ok(())
}

fn is_changed(fault: &StoreFault) -> bool {
    matches!(fault, StoreFault::Refused { err_code, .. } if ERR_WRONG_SEQUENCE.contains(err_code))
}

fn changed(name: &str) -> StoreFault {
    StoreFault::Interrupted(format!("somebody else changed {name:?} meanwhile"))
}

/// See [`super::Store::delete`].
pub(super) async fn delete(shared: &Shared, name: &str) -> Result<bool, StoreFault> {
    let Some(found) = shared.look(name).await? else { return Ok(false) };
    if found.meta.is_link() {
        return Err(StoreFault::Malformed(format!("{name:?} is a link, which is not deleted")));
    }
    let chunks = shared.chunk_subject(&found.meta.nuid);
    if found.meta.deleted {
        // Whoever deleted it may have been interrupted after the tombstone.
        shared.purge(&chunks).await?;
        return Ok(false);
    }
    let tombstone = found.meta.tombstone();
    match describe(shared, &tombstone, found.seq).await {
        Ok(()) => shared.purge(&chunks).await?,
        Err(StoreFault::Full(_)) => {
            shared.purge(&chunks).await?;
            describe(shared, &tombstone, found.seq).await?;
        }
        Err(fault) if is_changed(&fault) => return Err(changed(name)),
        Err(fault) => return Err(fault),
    }
    if !shared.expires {
        // Nothing would ever remove the tombstone.
        shared.purge(&shared.meta_subject(name)).await?;
    }
    Ok(true)
}

impl Store {
    /// An id that no upload has used.
    #[must_use]
    pub fn next_id(&self) -> String {
        self.0.next_id()
    }

    /// Settles an upload that was interrupted: what stands under `name` if it was finished, else
    /// nothing, and its chunks are removed. To be called when it runs no more.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn settle(&self, name: &str, id: &str) -> Result<Option<ObjectInfo>, StoreFault> {
        // Chunks of a dropped upload may still be on their way.
        self.0.settle().await?;
        let found = match self.info(name).await {
            Err(StoreFault::Malformed(_)) => None,
            found => found?.filter(|info| info.nuid == id),
        };
        if found.is_none() {
            self.0.purge(&self.0.chunk_subject(id)).await?;
        }
        Ok(found)
    }
}
