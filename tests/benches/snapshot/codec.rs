//! The codec and the chain alone: what they store, and the CPU that they take.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use driftgate::protocol::digest::Digest;
use driftgate::protocol::snapshot::{
    DeltaChain, Expected, Level, Limits, OBJECTS_MAX, Plain, encode_delta, encode_full,
    encode_next, restore,
};

/// Plain snapshots kept at hand as bases, as a sidecar with little memory would.
const CACHED_PLAINS: usize = 2;

#[derive(Default)]
pub(crate) struct Codec {
    pub(crate) count: usize,
    pub(crate) raw: u64,
    pub(crate) largest: u64,
    /// zstd of each snapshot for itself.
    pub(crate) each: u64,
    pub(crate) each_cpu: Duration,
    /// A delta of the snapshot before, always.
    pub(crate) previous: u64,
    pub(crate) stored: u64,
    pub(crate) stored_cpu: Duration,
    /// Restoring bases that were not at hand.
    pub(crate) base_cpu: Duration,
    pub(crate) objects_max: usize,
}

impl Codec {
    pub(crate) fn of(level: i32, snapshots: impl Iterator<Item = Vec<u8>>) -> Self {
        let level = Level::new(level).unwrap();
        let mut codec = Self::default();
        let mut chain = DeltaChain::default();
        let mut store: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut cache: BTreeMap<u64, Plain> = BTreeMap::new();
        let mut before: Option<Plain> = None;
        for (seq, source) in (1..).zip(snapshots.map(Plain::new)) {
            codec.count += 1;
            codec.raw += source.size();
            codec.largest = codec.largest.max(source.size());
            let at = cpu();
            let full = encode_full(&source, level).unwrap().len() as u64;
            codec.each_cpu += cpu().saturating_sub(at);
            codec.each += full;
            codec.previous += before.take().map_or(full, |before| {
                encode_delta(&before, &source, level, usize::MAX).unwrap().len() as u64
            });
            let at = cpu();
            let mut base_cpu = Duration::ZERO;
            let encoded = encode_next(&chain, &source, level, |entry| {
                cache.get(&entry.seq).cloned().or_else(|| {
                    let at = cpu();
                    let plain = fetch(&chain, &store, entry.seq, entry.digest);
                    base_cpu += cpu().saturating_sub(at);
                    Some(plain)
                })
            })
            .unwrap();
            codec.stored_cpu += cpu().saturating_sub(at).saturating_sub(base_cpu);
            codec.base_cpu += base_cpu;
            codec.stored += encoded.stored.len() as u64;
            chain.accept(encoded.entry(seq, &source)).unwrap();
            let objects = chain.restore_path(seq).unwrap().len();
            assert!(objects <= OBJECTS_MAX, "snapshot {seq} needs {objects} objects");
            codec.objects_max = codec.objects_max.max(objects);
            store.insert(seq, encoded.stored);
            cache.insert(seq, source.clone());
            let wanted: Vec<u64> = chain.bases().into_iter().take(CACHED_PLAINS).collect();
            cache.retain(|seq, _| wanted.contains(seq));
            before = Some(source);
        }
        codec
    }
}

fn fetch(chain: &DeltaChain, store: &BTreeMap<u64, Vec<u8>>, seq: u64, digest: Digest) -> Plain {
    let path = chain.restore_path(seq).unwrap();
    let objects: Vec<&[u8]> = path.iter().map(|seq| store[seq].as_slice()).collect();
    restore(&objects, &Expected::digest(digest), &Limits::default()).unwrap()
}

/// CPU time of the main thread so far.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
