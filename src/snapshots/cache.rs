//! Plain snapshots in memory: bases of the next delta, and what readers ask for again.
//!
//! Bounded in bytes by `snapshot.cache_bytes_max`; what was not asked for longest makes way. One
//! that is larger than the bound is not kept.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::digest::Digest;
use crate::protocol::snapshot::Plain;

/// See the module's documentation. Lookups walk the list, which is as short as snapshots are large.
#[derive(Debug)]
pub(super) struct Cache {
    bytes_max: u64,
    /// Asked for last comes last.
    plains: Mutex<VecDeque<Plain>>,
}

/// Snapshots kept at most, however small: what bounds a lookup.
const PLAINS_MAX: usize = 64;

impl Cache {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, plains: Mutex::new(VecDeque::new()) }
    }

    pub(super) fn get(&self, digest: Digest) -> Option<Plain> {
        let mut plains = self.plains();
        let place = plains.iter().position(|plain| plain.digest() == digest)?;
        let plain = plains.remove(place)?;
        plains.push_back(plain.clone());
        Some(plain)
    }

    pub(super) fn put(&self, plain: &Plain) {
        if plain.size() > self.bytes_max || self.get(plain.digest()).is_some() {
            return;
        }
        let mut plains = self.plains();
        plains.push_back(plain.clone());
        while plains.len() > PLAINS_MAX
            || plains.iter().map(Plain::size).sum::<u64>() > self.bytes_max
        {
            plains.pop_front();
        }
    }

    /// The list. A thread that panicked while it held it left a list behind.
    fn plains(&self) -> MutexGuard<'_, VecDeque<Plain>> {
        self.plains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_makes_way() {
        let cache = Cache::new(10);
        let [one, two, three] = [b"1111", b"2222", b"3333"].map(|bytes| Plain::new(&bytes[..]));
        cache.put(&one);
        cache.put(&two);
        assert!(cache.get(one.digest()).is_some());
        cache.put(&three);
        assert!(cache.get(two.digest()).is_none());
        assert!(cache.get(one.digest()).is_some());
        cache.put(&Plain::new(&b"larger than all"[..]));
        assert!(cache.get(three.digest()).is_some());
    }
}
