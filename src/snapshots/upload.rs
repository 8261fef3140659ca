//! One upload: read, encode against what is there, sign, put, tell, let go of garbage.
//!
//! Every step may be dropped at any await: what is unsent stays unsent, an object without meta is
//! nobody's, and the bucket tells the next start what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::bucket::{Bucket, BucketFault, Upload};
use super::fetch::{self, FetchFault, Source};
use super::gate::{Ask, Grant};
use super::progress::{Direction, Tracker};
use super::spool::{Entry, Spool, SpoolFault, Stored};
use super::{Room, blocking};
use crate::protocol::gate::Band;
use crate::protocol::snapshot::{
    self, Chain, ChainFault, DCZ_HEADER_BYTES, Digest, EncodeFault, Encoded, FrameHeader,
    FrameKind, Manifest, ObjectName, Plain, Plan, encode_next,
};

/// Objects let go after one upload: retention catches up over the next ones, so that no upload
/// waits long for it.
const COLLECTED_MAX: usize = 64;

/// Why an upload did not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadFault {
    #[error("the gate is not open")]
    NotOpen,
    #[error("{0:?} was taken away or altered, and is needed; the bucket is read anew")]
    BaseGone(String),
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

/// What the bucket holds of ours.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// What can be restored, and built on.
    pub(super) chain: Chain,
    /// Number and name of what cannot, because somebody took its base away or changed it. It goes
    /// when retention has passed it, not before: whoever harmed the bucket may mend it.
    strays: BTreeMap<u64, String>,
}

/// Reads from the bucket what is there of our own snapshots.
pub(super) async fn read_holdings(room: &Room, bucket: &Bucket) -> Result<Holdings, UploadFault> {
    let keyring = room.trust.borrow().keyring.clone();
    let source = Source { id: room.settings.runtime_id.clone(), key_id: None, floor: 0 };
    let mut holdings = Holdings::default();
    let mut known = BTreeMap::new();
    for (manifest, size) in fetch::stored(bucket, &source, &keyring).await? {
        let seq = manifest.seq;
        let entry = fetch::entry_of(&manifest, &known).filter(|entry| entry.stored == size);
        let digest = manifest.digest;
        match entry.ok_or(ChainFault::Unknown(seq)).and_then(|entry| holdings.chain.accept(entry)) {
            Ok(()) => drop(known.insert(digest, seq)),
            Err(_) => {
                tracing::warn!(seq, "a stored snapshot was altered or has lost its base");
                holdings.strays.insert(seq, manifest.object_name().to_string());
            }
        }
    }
    room.books.stored(&holdings.chain);
    Ok(holdings)
}

/// Makes sure that what restores `seq` is still in the bucket.
async fn check_base(
    room: &Room,
    bucket: &Bucket,
    chain: &Chain,
    seq: u64,
) -> Result<(), UploadFault> {
    let path = chain.restore_path(seq).unwrap_or_default();
    let looks = path.iter().filter_map(|seq| chain.entry(*seq)).map(|entry| {
        let (name, stored) = (object_name(room, entry).to_string(), entry.stored);
        async move {
            let size = bucket.size(&name).await?;
            if size == Some(stored) { Ok(()) } else { Err(UploadFault::BaseGone(name)) }
        }
    });
    try_join_all(looks).await.map(drop)
}

/// Uploads one spooled snapshot. Returns what it became.
pub(super) async fn upload(
    room: &Room,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    chain: &mut Chain,
    entry: &Entry,
    grant: Grant,
) -> Result<Stored, UploadFault> {
    let is_same = |known: &&snapshot::Entry| known.digest == entry.digest && known.seq >= entry.seq;
    if let Some(known) = chain.entries().find(is_same) {
        // An earlier life had put it and could not note that any more.
        let stored = stored_of(chain, known);
        let (digest, manifest) = (known.digest.to_string(), Bytes::new());
        room.gate.tell(Ask::Stored { digest, manifest }).await;
        return Ok(stored);
    }
    // A bucket that is ahead of the spool (an older volume, a clock set back): the number of the
    // permission is newer than either.
    let newest = chain.newest().map_or(0, |newest| newest.seq);
    let seq = if entry.seq > newest { entry.seq } else { grant.seq.max(newest.saturating_add(1)) };
    let shelf = Arc::clone(spool);
    let wanted = entry.seq;
    let plain = blocking(move || shelf.read(wanted)).await??;
    let base = match chain.plan(plain.size()) {
        Plan::Delta { base, .. } => {
            check_base(room, bucket, chain, base).await?;
            base_of(room, spool, bucket, chain, base).await
        }
        Plan::Full => None,
    };
    let (encoded, digest) = encode(room, spool, chain, &plain, base).await?;
    let link = encoded.entry(seq, &plain);
    let manifest = Manifest {
        stored_digest: Some(digest),
        window_log: window_log_of(&encoded),
        media_type: entry.media_type.clone(),
        time: grant.now,
        ..restore_manifest(room, chain, &link)
    };
    let keyring = room.trust.borrow().keyring.clone();
    let signed = manifest.sign(&keyring).ok_or(UploadFault::Unsigned)?;
    let name = manifest.object_name().to_string();
    let total = Some(manifest.stored_bytes);
    let tracker = Tracker::new(Direction::Upload, &manifest, total, &room.settings.feed);
    bucket
        .put(
            Upload {
                name: &name,
                media_type: &manifest.media_type,
                manifest: &signed,
                bytes: Bytes::from(encoded.stored),
                digest,
            },
            &|done| tracker.step(done),
        )
        .await?;
    // No await between the broker's word and this: an order to stop finds it stored.
    let stored = stored_of(chain, &link);
    spool.note_stored(entry.seq, &stored);
    room.books.uploaded(&stored, tracker.done());
    if let Err(fault) = chain.accept(link) {
        tracing::error!(%fault, "a stored snapshot does not fit its chain");
    }
    room.books.stored(chain);
    room.cache.put(&plain);
    let text = manifest.digest.to_string();
    room.gate.tell(Ask::Stored { digest: text, manifest: signed.into() }).await;
    Ok(stored)
}

/// Lets go of what retention does not keep, and of plain files that no plan will ask for.
pub(super) async fn collect(
    room: &Room,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    holdings: &mut Holdings,
) -> Result<(), UploadFault> {
    let chain = &mut holdings.chain;
    for seq in chain.garbage(room.settings.keep_full).into_iter().take(COLLECTED_MAX) {
        let Some(entry) = chain.entry(seq) else { continue };
        bucket.delete(&object_name(room, entry).to_string()).await?;
        if let Err(fault) = chain.forget(seq) {
            tracing::error!(%fault, "retention let go of what others need");
        }
        room.books.collected();
    }
    room.books.stored(chain);
    // What is left of the chain is what retention keeps; strays older than all of it go.
    let oldest = chain.entries().next().map_or(0, |entry| entry.seq);
    for _ in 0..COLLECTED_MAX {
        let stray = holdings.strays.first_entry().filter(|stray| *stray.key() < oldest);
        let Some(stray) = stray else { break };
        bucket.delete(stray.get()).await?;
        stray.remove();
    }
    let digests: BTreeSet<Digest> =
        chain.bases().iter().filter_map(|seq| chain.entry(*seq)).map(|base| base.digest).collect();
    let spool = Arc::clone(spool);
    blocking(move || {
        let held = spool.entries();
        let bases = held.iter().filter(|entry| digests.contains(&entry.digest));
        spool.tidy(&bases.map(|entry| entry.seq).collect());
    })
    .await?;
    Ok(())
}

/// The plain bytes of the base that the plan names: from memory, disk or the bucket. One that
/// cannot be had is not an error; the snapshot becomes a full frame.
async fn base_of(
    room: &Room,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    chain: &Chain,
    seq: u64,
) -> Option<Plain> {
    let digest = chain.entry(seq)?.digest;
    if let Some(plain) = room.cache.get(digest) {
        return Some(plain);
    }
    if let Some(entry) = spool.find(digest) {
        let shelf = Arc::clone(spool);
        if let Ok(Ok(plain)) = blocking(move || shelf.read(entry.seq)).await {
            return Some(plain);
        }
    }
    let entry = chain.entry(seq)?;
    let manifest = restore_manifest(room, chain, entry);
    let path = chain.restore_path(seq).unwrap_or_default();
    let total = path.iter().filter_map(|seq| chain.entry(*seq)).map(|entry| entry.stored).sum();
    let tracker = Tracker::new(Direction::Fetch, &manifest, Some(total), &room.settings.feed);
    let step = |done| tracker.step(done);
    match fetch::fetch(bucket, &manifest, room.settings.bytes_max, &step).await {
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
    room: &Room,
    spool: &Arc<Spool>,
    chain: &Chain,
    plain: &Plain,
    base: Option<Plain>,
) -> Result<(Encoded, Digest), UploadFault> {
    let (planner, plain, level) = (chain.clone(), plain.clone(), room.settings.level);
    let shelf = Arc::clone(spool);
    let encoded = blocking(move || {
        let at_hand = |entry: &snapshot::Entry| {
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
fn restore_manifest(room: &Room, chain: &Chain, link: &snapshot::Entry) -> Manifest {
    let path = link.base.and_then(|base| chain.restore_path(base)).unwrap_or_default();
    let before = path.iter().filter_map(|seq| chain.entry(*seq));
    let objects = before.chain([link]).map(|entry| object_name(room, entry).to_string());
    Manifest {
        runtime: room.settings.runtime_id.clone(),
        seq: link.seq,
        digest: link.digest,
        size: link.size,
        stored_digest: None,
        stored_bytes: link.stored,
        base_digest: link.base.and_then(|base| chain.entry(base)).map(|base| base.digest),
        window_log: snapshot::WINDOW_LOG_MAX,
        media_type: String::new(),
        time: crate::protocol::time::Timestamp::from_unix_ms(0),
        di_band: Band::Open,
        objects: objects.collect(),
    }
}

fn object_name(room: &Room, entry: &snapshot::Entry) -> ObjectName {
    let mut digest_start = entry.digest.hex();
    digest_start.truncate(16);
    ObjectName {
        runtime: room.settings.runtime_id.clone(),
        seq: entry.seq,
        digest_start,
        kind: entry.kind(),
    }
}

fn stored_of(chain: &Chain, link: &snapshot::Entry) -> Stored {
    let base = link.base.and_then(|base| chain.entry(base));
    Stored { kind: link.kind(), stored_bytes: link.stored, base: base.map(|base| base.digest) }
}
