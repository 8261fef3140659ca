//! The frame of one snapshot: against the base that the chain plans, or from disk to disk.
//!
//! What deliberately is not here: putting it at the broker (`upload.rs`).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::bucket::{Bucket, BucketFault};
use super::fetch::{self, FetchFault};
use super::memory::encoding_bytes;
use super::progress::{Direction, Tracker};
use super::spool::{Spool, SpoolEntry, SpoolFault};
use super::{Shared, blocking};
use crate::nats::object::Content;
use crate::protocol::digest::Digest;
use crate::protocol::gate::Band;
use crate::protocol::snapshot::{
    self, DCZ_HEADER_BYTES, DeltaChain, EncodeFault, Encoded, FrameHeader, FrameKind, Manifest,
    ObjectName, Plain, Plan, encode_next,
};
use crate::protocol::time::Timestamp;

/// Why an upload did not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadFault {
    #[error("the gate is not open")]
    NotOpen,
    #[error("no current peer may have snapshots")]
    NoReader,
    #[error("it would be more than the {0} bytes of snapshot.stored_bytes_max at the broker")]
    StoredFull(u64),
    #[error(
        "object of snapshot {0} was taken away or altered, and is needed; nothing builds on it"
    )]
    BaseGone(u64),
    #[error(transparent)]
    Bucket(#[from] BucketFault),
    #[error(transparent)]
    Fetch(#[from] FetchFault),
    #[error(transparent)]
    Spool(#[from] SpoolFault),
    #[error("cannot be encoded: {0}")]
    Encode(#[from] EncodeFault),
    #[error("no key to sign manifests with")]
    Unsigned,
}

/// What is to be put, and what it becomes in the chain.
pub(super) struct Frame {
    pub(super) content: Content,
    pub(super) digest: Digest,
    pub(super) link: snapshot::ChainEntry,
    pub(super) window_log: u32,
    /// The plain bytes, where they were held in memory.
    pub(super) plain: Option<Plain>,
}

/// The frame of one snapshot: as the chain plans it where there is memory for that, else a full one
/// from disk to disk.
pub(super) async fn frame(
    shared: &Shared,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    chain: &DeltaChain,
    entry: &SpoolEntry,
    seq: u64,
) -> Result<Frame, UploadFault> {
    let base = match chain.plan(entry.size) {
        Plan::Delta { base, .. } => Some(base),
        Plan::Full => None,
    };
    let base_bytes = base.and_then(|seq| chain.entry(seq)).map_or(0, |base| base.size);
    let bytes = encoding_bytes(shared.settings.level, base_bytes, entry.size);
    let Ok(_taken) = shared.memory.take(bytes).await else {
        return frame_on_disk(shared, spool, entry, seq).await;
    };
    let (shelf, wanted) = (Arc::clone(spool), entry.seq);
    let plain = blocking(move || shelf.read(wanted)).await??;
    let base = match base {
        Some(base) => {
            check_base(shared, bucket, chain, base).await?;
            base_of(shared, spool, bucket, chain, base).await
        }
        None => None,
    };
    let (encoded, digest) = encode(shared, spool, chain, &plain, base).await?;
    Ok(Frame {
        digest,
        link: encoded.entry(seq, &plain),
        window_log: window_log_of(&encoded),
        content: Content::Bytes(Bytes::from(encoded.stored)),
        plain: Some(plain),
    })
}

async fn frame_on_disk(
    shared: &Shared,
    spool: &Arc<Spool>,
    entry: &SpoolEntry,
    seq: u64,
) -> Result<Frame, UploadFault> {
    let (shelf, level, wanted) = (Arc::clone(spool), shared.settings.level, entry.clone());
    let frame = blocking(move || shelf.encode(&wanted, level)).await??;
    let (digest, size, base) = (entry.digest, entry.size, None);
    Ok(Frame {
        content: Content::File(frame.file),
        digest: frame.digest,
        link: snapshot::ChainEntry { seq, digest, base, size, stored: frame.size },
        window_log: frame.window_log,
        plain: None,
    })
}

/// Makes sure that what restores `seq` is still in the bucket.
async fn check_base(
    shared: &Shared,
    bucket: &Bucket,
    chain: &DeltaChain,
    seq: u64,
) -> Result<(), UploadFault> {
    let path = chain.restore_path(seq).unwrap_or_default();
    let looks = path.iter().filter_map(|seq| chain.entry(*seq)).map(|entry| {
        let name = object_name(shared, entry.seq, entry.digest, entry.kind()).to_string();
        let (seq, stored) = (entry.seq, entry.stored);
        async move {
            let size = bucket.size(&name).await?;
            if size == Some(stored) { Ok(()) } else { Err(UploadFault::BaseGone(seq)) }
        }
    });
    try_join_all(looks).await.map(drop)
}

/// The plain bytes of the base that the plan names: from memory, disk or the bucket. One that
/// cannot be had is not an error; the snapshot becomes a full frame.
async fn base_of(
    shared: &Shared,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    chain: &DeltaChain,
    seq: u64,
) -> Option<Plain> {
    let digest = chain.entry(seq)?.digest;
    if let Some(plain) = shared.cache.get(digest) {
        return Some(plain);
    }
    if let Some(entry) = spool.find(digest) {
        let shelf = Arc::clone(spool);
        if let Ok(Ok(plain)) = blocking(move || shelf.read(entry.seq)).await {
            return Some(plain);
        }
    }
    let entry = chain.entry(seq)?;
    let manifest = restore_manifest(shared, chain, entry);
    let path = chain.restore_path(seq).unwrap_or_default();
    let total = path.iter().filter_map(|seq| chain.entry(*seq)).map(|entry| entry.stored).sum();
    let tracker = Tracker::new(Direction::Fetch, &manifest, Some(total), &shared.settings.feed);
    let step = |done| tracker.step(done);
    match fetch::fetch(bucket, &manifest, shared.settings.bytes_max, &step).await {
        Ok(plain) => {
            tracker.done();
            Some(plain)
        }
        Err(fault) => {
            tracing::warn!(%fault, seq, "a base cannot be restored; encoding a full frame");
            None
        }
    }
}

/// The frame and the digest of its stored bytes, both made on a thread for what computes.
async fn encode(
    shared: &Shared,
    spool: &Arc<Spool>,
    chain: &DeltaChain,
    plain: &Plain,
    base: Option<Plain>,
) -> Result<(Encoded, Digest), UploadFault> {
    let (planner, plain, level) = (chain.clone(), plain.clone(), shared.settings.level);
    let shelf = Arc::clone(spool);
    let encoded = blocking(move || {
        let at_hand = |entry: &snapshot::ChainEntry| {
            if let Some(base) = base.as_ref().filter(|base| base.digest() == entry.digest) {
                return Some(base.clone());
            }
            shelf.find(entry.digest).and_then(|found| shelf.read(found.seq).ok())
        };
        let encoded = encode_next(&planner, &plain, level, at_hand)?;
        let digest = Digest::of(&encoded.stored);
        Ok((encoded, digest))
    })
    .await?;
    encoded.map_err(UploadFault::Encode)
}

fn window_log_of(encoded: &Encoded) -> u32 {
    let frame = match encoded.base {
        Some(_) => encoded.stored.get(DCZ_HEADER_BYTES..).unwrap_or_default(),
        None => &encoded.stored,
    };
    FrameHeader::parse(FrameKind::Full, frame)
        .map_or(snapshot::WINDOW_LOG_MAX, |header| header.window_log())
}

/// What is needed to restore an entry of our own chain, from the chain alone.
pub(super) fn restore_manifest(
    shared: &Shared,
    chain: &DeltaChain,
    link: &snapshot::ChainEntry,
) -> Manifest {
    let path = link.base.and_then(|base| chain.restore_path(base)).unwrap_or_default();
    let before = path.iter().filter_map(|seq| chain.entry(*seq));
    let name = |entry: &snapshot::ChainEntry| {
        object_name(shared, entry.seq, entry.digest, entry.kind()).to_string()
    };
    let objects = before.chain([link]).map(name);
    Manifest {
        runtime: shared.settings.runtime_id.clone(),
        seq: link.seq,
        digest: link.digest,
        size: link.size,
        stored_digest: None,
        stored_bytes: link.stored,
        base_digest: link.base.and_then(|base| chain.entry(base)).map(|base| base.digest),
        window_log: snapshot::WINDOW_LOG_MAX,
        media_type: String::new(),
        time: Timestamp::from_unix_ms(0),
        di_band: Band::Open,
        objects: objects.collect(),
    }
}

pub(super) fn object_name(
    shared: &Shared,
    seq: u64,
    digest: Digest,
    kind: FrameKind,
) -> ObjectName {
    let runtime = shared.settings.runtime_id.clone();
    ObjectName { runtime, seq, digest_start: digest.start(), kind }
}
