//! Plain snapshots in memory: bases of the next delta, and what readers ask for again.
//!
//! Bounded in bytes by `snapshot.cache_bytes_max`; what was not asked for longest makes way. One
//! that is larger than the bound is not kept. Of those that we store ourselves only what the next
//! delta may build on is kept, however much room there is.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::digest::Digest;
use crate::protocol::snapshot::Plain;

/// See the module's documentation. Lookups walk the list, which is as short as snapshots are large.
#[derive(Debug)]
pub(super) struct Cache {
    bytes_max: u64,
    /// Asked for last comes last.
    plains: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    plain: Plain,
    /// Kept for the next delta.
    is_base: bool,
}

/// Snapshots kept at most, however small: what bounds a lookup.
const PLAINS_MAX: usize = 64;

impl Cache {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, plains: Mutex::new(VecDeque::new()) }
    }

    pub(super) fn get(&self, digest: Digest) -> Option<Plain> {
        let mut plains = self.plains();
        let place = plains.iter().position(|kept| kept.plain.digest() == digest)?;
        let kept = plains.remove(place)?;
        let plain = kept.plain.clone();
        plains.push_back(kept);
        Some(plain)
    }

    /// Keeps one that somebody has read.
    pub(super) fn put(&self, plain: &Plain) {
        self.add(plain, false);
    }

    /// Keeps one that we have stored; `bases` are all that a later delta may build on, and others
    /// that were kept for that are let go.
    pub(super) fn put_base(&self, plain: Option<&Plain>, bases: &[Digest]) {
        self.plains().retain(|kept| !kept.is_base || bases.contains(&kept.plain.digest()));
        if let Some(plain) = plain.filter(|plain| bases.contains(&plain.digest())) {
            self.add(plain, true);
        }
    }

    fn add(&self, plain: &Plain, is_base: bool) {
        if plain.size() > self.bytes_max || self.get(plain.digest()).is_some() {
            return;
        }
        let mut plains = self.plains();
        plains.push_back(Kept { plain: plain.clone(), is_base });
        while plains.len() > PLAINS_MAX
            || plains.iter().map(|kept| kept.plain.size()).sum::<u64>() > self.bytes_max
        {
            plains.pop_front();
        }
    }

    /// The list. A thread that panicked while it held it left a list behind.
    fn plains(&self) -> MutexGuard<'_, VecDeque<Kept>> {
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

    #[test]
    fn of_our_own_only_what_a_later_delta_may_build_on_is_kept() {
        let cache = Cache::new(1 << 20);
        let [old, base, new, read] =
            [b"1111", b"2222", b"3333", b"4444"].map(|bytes| Plain::new(&bytes[..]));
        cache.put_base(Some(&old), &[old.digest()]);
        cache.put_base(Some(&base), &[old.digest(), base.digest()]);
        cache.put(&read);
        assert!(cache.get(old.digest()).is_some());
        cache.put_base(Some(&new), &[base.digest(), new.digest()]);
        let kept = [&old, &base, &new, &read].map(|plain| cache.get(plain.digest()).is_some());
        assert_eq!(kept, [false, true, true, true]);
    }
}
