//! One upload: read, encode against what is there, sign, put, tell, let go of garbage.
//!
//! Every step may be dropped at any await: what is unsent stays unsent, and what was under way at
//! the broker stands in the spool as unfinished and is settled before the next step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bucket::{self, Bucket, BucketFault, Enclosed, Put};
use super::fetch::{self, Ignored, Signer, Source};
use super::frame::{UploadFault, frame, object_name, restore_manifest};
use super::gate::{Announced, Grant, Question};
use super::progress::{Direction, Tracker};
use super::spool::{Spool, SpoolEntry, SpoolFault, Started, State, Stored, Unfinished};
use super::{Shared, blocking};
use crate::nats::object::KvEntry;
use crate::protocol::digest::Digest;
use crate::protocol::snapshot::{self, ChainFault, DeltaChain, Evidence, FrameKind, Manifest};
use crate::protocol::time::Timestamp;

/// Objects let go after one upload: retention catches up over the next ones, so that no upload
/// waits long for it.
const COLLECTED_MAX: usize = 64;

/// What the bucket holds of ours.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// What can be restored, and built on.
    pub(super) chain: DeltaChain,
    /// When each of it was stored.
    times: BTreeMap<u64, Timestamp>,
    /// Number and name of what cannot, because somebody took its base away or changed it. It goes
    /// when retention has passed it, not before: whoever harmed the bucket may mend it.
    strays: BTreeMap<u64, String>,
}

impl Holdings {
    /// Stored bytes of all of it.
    pub(super) fn bytes(&self) -> u64 {
        self.chain.entries().map(|entry| entry.stored).sum()
    }

    /// The number from which on everything is younger than retention may take.
    fn young_from(&self, shared: &Shared, now: Timestamp) -> u64 {
        let is_young = |time: Timestamp| now.since(time) < shared.settings.keep_for;
        let young = self.times.iter().find(|(_, time)| is_young(**time));
        young.map_or(u64::MAX, |(seq, _)| *seq)
    }
}

/// Us, as we may be read at that time.
pub(super) fn ourselves(shared: &Shared, now: Timestamp) -> Source {
    Source {
        id: shared.settings.runtime_id.clone(),
        signer: Signer::own(&shared.trust.borrow().keyring),
        floor: 0,
        seq_max: shared.seq_max(now),
        terms: None,
    }
}

/// Finishes or undoes what an earlier attempt, or an earlier life, has left at the broker.
pub(super) async fn settle(
    shared: &Shared,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    now: Timestamp,
) -> Result<(), UploadFault> {
    for unfinished in spool.unfinished() {
        let Unfinished { seq, object, upload } = unfinished;
        let key = bucket::key(&shared.settings.runtime_id, seq);
        match upload {
            None => bucket.delete(&key, &object).await?,
            Some(upload) => match bucket.settle(&object, &upload.id).await? {
                // What was revoked meanwhile, or is not known any more, does not stay.
                Some(_) if !is_wanted(spool, upload.snapshot) => {
                    bucket.delete(&key, &object).await?;
                }
                Some(described) => drop(mend(shared, bucket, &key, described, now).await?),
                None => {}
            },
        }
        let shelf = Arc::clone(spool);
        blocking(move || shelf.end_at_broker(seq)).await?;
    }
    Ok(())
}

/// Whether a spooled snapshot may be at the broker.
fn is_wanted(spool: &Spool, seq: u64) -> bool {
    spool.entry(seq).is_some_and(|entry| entry.state != State::Revoked)
}

/// Writes an entry of the index from the description of its object, if that is ours.
async fn mend(
    shared: &Shared,
    bucket: &Bucket,
    key: &str,
    described: Enclosed,
    now: Timestamp,
) -> Result<Option<Manifest>, BucketFault> {
    let keyring = shared.trust.borrow().keyring.clone();
    let entry = KvEntry {
        key: key.to_owned(),
        value: described.manifest.clone(),
        envelope: described.envelope.clone(),
    };
    match fetch::verify(&entry, &ourselves(shared, now), &keyring) {
        Ok((manifest, Ok(_))) => {
            bucket.publish(key, described).await?;
            Ok(Some(manifest))
        }
        Ok((_, Err(_))) | Err(_) => Ok(None),
    }
}

/// Reads from the index what is there of our own snapshots. Of those in `gone` the object is not
/// what it was.
pub(super) async fn read_holdings(
    shared: &Shared,
    spool: &Spool,
    bucket: &Bucket,
    gone: &BTreeSet<u64>,
    now: Timestamp,
) -> Result<Holdings, UploadFault> {
    let keyring = shared.trust.borrow().keyring.clone();
    let mut listing = fetch::list(bucket, &ourselves(shared, now), &keyring).await?;
    let mut ignored = Vec::new();
    for entry in std::mem::take(&mut listing.ignored) {
        match rewritten(shared, spool, bucket, &entry, now).await? {
            Some(manifest) => listing.manifests.push(manifest),
            None => ignored.push(entry),
        }
    }
    // What stands beside one of ours is not ours: peers would refuse it. It restores all the same.
    for entry in listing.disenclosed(&shared.settings.runtime_id) {
        if rewritten(shared, spool, bucket, &entry, now).await?.is_none() {
            ignored.push(entry);
        }
    }
    shared.show_ignored(&ignored);
    listing.manifests.sort_by_key(|manifest| manifest.seq);
    let mut holdings = Holdings::default();
    let mut known = BTreeMap::new();
    for manifest in listing.manifests {
        let seq = manifest.seq;
        let entry = fetch::entry_of(&manifest, &known).filter(|_| !gone.contains(&seq));
        let entry = entry.ok_or(ChainFault::Unknown(seq));
        match entry.and_then(|entry| holdings.chain.accept(entry)) {
            Ok(()) => {
                known.insert(manifest.digest, seq);
                holdings.times.insert(seq, manifest.time);
            }
            Err(_) => {
                tracing::warn!(seq, "a stored snapshot has lost its object or its base");
                holdings.strays.insert(seq, manifest.object_name().to_string());
            }
        }
    }
    shared.counts.stored(&holdings.chain);
    Ok(holdings)
}

/// An entry under our name that does not count, written again where the spool knows its object and
/// that still says what it was.
async fn rewritten(
    shared: &Shared,
    spool: &Spool,
    bucket: &Bucket,
    ignored: &Ignored,
    now: Timestamp,
) -> Result<Option<Manifest>, BucketFault> {
    let seq = ignored.key.rsplit('.').next().and_then(|seq| seq.parse().ok());
    let entry = seq.filter(|seq| is_wanted(spool, *seq)).and_then(|seq| spool.entry(seq));
    let Some(entry) = entry else { return Ok(None) };
    for kind in [FrameKind::Full, FrameKind::Delta] {
        let name = object_name(shared, entry.seq, entry.digest, kind).to_string();
        if let Some(described) = bucket.described(&name).await? {
            return mend(shared, bucket, &ignored.key, described, now).await;
        }
    }
    Ok(None)
}

/// Uploads one spooled snapshot. Returns what it became.
pub(super) async fn upload(
    shared: &Shared,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    holdings: &mut Holdings,
    entry: &SpoolEntry,
    (grant, evidence): (Grant, Evidence),
) -> Result<Stored, UploadFault> {
    let chain = &mut holdings.chain;
    let is_same =
        |known: &&snapshot::ChainEntry| known.digest == entry.digest && known.seq >= entry.seq;
    if let Some(known) = chain.entries().find(is_same) {
        // An earlier life had put it and could not note that any more.
        let stored = stored_of(chain, known);
        let digest = known.digest;
        shared.gate.tell(Question::Stored { digest, announced: None }).await;
        return Ok(stored);
    }
    // A bucket that is ahead of the spool, or a number that no clock has reached: the next free one
    // by our own clock, which readers believe.
    let newest = chain.newest().map_or(0, |newest| newest.seq);
    let is_next = entry.seq > newest && entry.seq <= shared.seq_max(grant.now);
    let next = grant.now.unix_us().max(newest.saturating_add(1));
    let seq = if is_next { entry.seq } else { next };
    let frame = frame(shared, spool, bucket, chain, entry, seq).await?;
    let stored_max = shared.settings.stored_bytes_max;
    let link = frame.link;
    let stored_bytes: u64 = chain.entries().map(|entry| entry.stored).sum();
    if stored_bytes.saturating_add(link.stored) > stored_max {
        return Err(UploadFault::StoredFull(stored_max));
    }
    let manifest = Manifest {
        stored_digest: Some(frame.digest),
        window_log: frame.window_log,
        media_type: entry.media_type.clone(),
        time: grant.now,
        ..restore_manifest(shared, chain, &link)
    };
    let (signed, envelope) = shared.trust.borrow().sign(&manifest, &evidence)?;
    let (name, id) = (manifest.object_name().to_string(), bucket.next_id());
    let started = Started { id: id.clone(), snapshot: entry.seq };
    let unfinished = Unfinished { seq, object: name.clone(), upload: Some(started) };
    begin_at_broker(spool, unfinished).await?;
    let tracker = Tracker::new(
        Direction::Upload,
        &manifest,
        Some(manifest.stored_bytes),
        &shared.settings.feed,
    );
    let upload = Put {
        name: &name,
        id: &id,
        key: &bucket::key(&manifest.runtime, seq),
        media_type: &manifest.media_type,
        manifest: Enclosed { manifest: signed.clone(), envelope: Some(envelope.clone()) },
        content: frame.content,
        digest: frame.digest,
    };
    bucket.put(upload, &|done| tracker.step(done)).await?;
    // No await between the broker's word and this: an order to stop finds it stored.
    let stored = stored_of(chain, &link);
    spool.note_stored(entry.seq, &stored);
    shared.counts.uploaded(&stored, tracker.done());
    if let Err(fault) = chain.accept(link) {
        tracing::error!(%fault, "a stored snapshot does not fit its chain");
    }
    holdings.times.insert(seq, grant.now);
    shared.counts.stored(chain);
    if let Some(plain) = frame.plain {
        shared.cache.put(&plain);
    }
    let announced = Announced { manifest: signed, envelope: envelope.into(), seq, evidence };
    let (digest, announced) = (manifest.digest, Some(announced));
    shared.gate.tell(Question::Stored { digest, announced }).await;
    let shelf = Arc::clone(spool);
    blocking(move || shelf.end_at_broker(seq)).await?;
    Ok(stored)
}

async fn begin_at_broker(spool: &Arc<Spool>, unfinished: Unfinished) -> Result<(), SpoolFault> {
    let shelf = Arc::clone(spool);
    blocking(move || shelf.begin_at_broker(unfinished)).await?
}

/// Lets go of what retention does not keep, and of plain files that no plan will ask for.
pub(super) async fn collect(
    shared: &Shared,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    holdings: &mut Holdings,
    now: Timestamp,
) -> Result<(), UploadFault> {
    let young_from = holdings.young_from(shared, now);
    let over = holdings.chain.garbage(shared.settings.keep_full, young_from);
    for seq in over.into_iter().take(COLLECTED_MAX) {
        let Some(entry) = holdings.chain.entry(seq) else { continue };
        let name = object_name(shared, seq, entry.digest, entry.kind()).to_string();
        let_go(shared, spool, bucket, seq, name).await?;
        if let Err(fault) = holdings.chain.forget(seq) {
            tracing::error!(%fault, "retention let go of what others need");
        }
        holdings.times.remove(&seq);
        shared.counts.collected();
    }
    shared.counts.stored(&holdings.chain);
    // What is left of the chain is what retention keeps; strays older than all of it go.
    let oldest = holdings.chain.entries().next().map_or(0, |entry| entry.seq);
    for _ in 0..COLLECTED_MAX {
        let stray = holdings.strays.first_key_value().filter(|(seq, _)| **seq < oldest);
        let Some((seq, name)) = stray.map(|(seq, name)| (*seq, name.clone())) else { break };
        let_go(shared, spool, bucket, seq, name).await?;
        holdings.strays.remove(&seq);
    }
    let chain = &holdings.chain;
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

async fn let_go(
    shared: &Shared,
    spool: &Arc<Spool>,
    bucket: &Bucket,
    seq: u64,
    name: String,
) -> Result<(), UploadFault> {
    begin_at_broker(spool, Unfinished { seq, object: name.clone(), upload: None }).await?;
    bucket.delete(&bucket::key(&shared.settings.runtime_id, seq), &name).await?;
    let shelf = Arc::clone(spool);
    blocking(move || shelf.end_at_broker(seq)).await?;
    Ok(())
}

fn stored_of(chain: &DeltaChain, link: &snapshot::ChainEntry) -> Stored {
    let base = link.base.and_then(|base| chain.entry(base));
    Stored { kind: link.kind(), stored_bytes: link.stored, base: base.map(|base| base.digest) }
}
