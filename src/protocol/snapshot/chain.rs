//! Which snapshot the next one is a delta of: stored bytes near the least, restores of at most
//! [`OBJECTS_MAX`] objects.
//!
//! The cheapest base is always the snapshot before. A chain of those is as small as can be, and to
//! restore its end everything must be read. So bases form a tree no deeper than 15 deltas, and
//! every now and then a delta has to step back to a shallower base and pay again for all that came
//! since. The rule that decides where to step back to is one sentence:
//!
//! > The k-th delta made from a snapshot may itself be a base k times; a full frame always may.
//!
//! The next delta is made from the deepest snapshot of the current branch that may still be a base.
//! That grows the trees of binomial checkpointing one after the other (16, 136, 816, 3876 snapshots
//! = C(15 + r, r)), the optimum for those lengths, without knowing how many snapshots will come:
//! in a tree of C(15 + r, r) snapshots no change is stored more than r times.
//!
//! Three rules serve uneven content. *A great change is a good place to step back*, for what the
//! shallower delta repeats is small beside it. *A delta over half of a full frame becomes one*, and
//! where stepping back to the root would be that, the shallowest base within the half serves until
//! the root costs three quarters of a full frame. *Full frames in a row* mean that content changes
//! wholly; then a delta is tried less and less often.
//!
//! Costs are known from what deltas and full frames really weighed. All arithmetic is in whole
//! bytes, so a chain rebuilt from its entries plans as the first one did.
//!
//! What deliberately is not here: bytes, names, and when to collect garbage.

use std::collections::{BTreeMap, BTreeSet};

use super::frame::FrameKind;
use crate::protocol::digest::Digest;

/// Most objects that restore one snapshot: a full frame and 15 deltas (issue: "at most 16"). They
/// are fetched side by side, so the number bounds requests and work, not round trips.
pub const OBJECTS_MAX: usize = 16;
/// Most snapshots that plans may name as base, the current branch without its last level. One plan
/// needs one of them, [`DeltaChain::bases`] says in which order they are likely to be needed, and
/// any of them can be restored from the store.
pub const BASES_MAX: usize = OBJECTS_MAX - 1;
/// Most snapshots that hang on one full frame. The tree of r = 4 has 3876, and from there on each
/// change would be stored five times: time for a full frame, and for retention to let go.
pub const TREE_ENTRIES_MAX: usize = 4096;
/// Most snapshots that one chain knows, some 10 MiB: sixteen trees. Collect before there are more.
pub const CHAIN_ENTRIES_MAX: usize = 65_536;

/// What a delta weighs although nothing changed, in bytes: its header, frame header, one block and
/// checksum.
const DELTA_OVERHEAD_BYTES: u64 = 64;
/// A delta is tried at least once in so many full frames in a row: content may have settled.
const FULL_FRAMES_UNTRIED_MAX: usize = 16;

/// One stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEntry {
    /// Its number, strictly rising along the chain.
    pub seq: u64,
    /// Digest of its plain bytes.
    pub digest: Digest,
    /// The snapshot that it is a delta of; `None` for a full frame.
    pub base: Option<u64>,
    /// Plain bytes.
    pub size: u64,
    /// Stored bytes, header included.
    pub stored: u64,
}

impl ChainEntry {
    /// The form of the stored object.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        if self.base.is_some() { FrameKind::Delta } else { FrameKind::Full }
    }
}

/// What to encode next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A delta.
    Delta {
        /// The snapshot to make it from.
        base: u64,
        /// What it may weigh, in bytes; more is certainly more than half of a full frame.
        stored_max: u64,
    },
    /// A full frame.
    Full,
}

/// What to do about a delta that was encoded as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// The change was greater than its size showed: a delta from this shallower snapshot costs
    /// little more, and spares the next ones the change.
    Climb(u64),
    /// It may be over half of a full frame: encode that too and ask [`is_worth`].
    Compare,
    /// Store it.
    Keep,
}

/// Why the chain refuses. Always a mistake of the caller or a damaged list of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// Deltas of it are still there.
    #[error("snapshot {0} is the base of others")]
    InUse(u64),
    /// The number does not rise.
    #[error("snapshot {seq} does not come after {newest}")]
    NotRising {
        /// The number that was given.
        seq: u64,
        /// The newest in the chain.
        newest: u64,
    },
    /// Restoring it would take more than [`OBJECTS_MAX`] objects.
    #[error("snapshot {0} would need more than {OBJECTS_MAX} objects")]
    TooDeep(u64),
    /// [`CHAIN_ENTRIES_MAX`] is reached.
    #[error("more than {CHAIN_ENTRIES_MAX} snapshots")]
    TooMany,
    /// There is no such snapshot.
    #[error("no snapshot {0}")]
    Unknown(u64),
}

/// Whether a delta may be stored in place of a full frame: at most half of its bytes.
#[must_use]
pub fn is_worth(delta: u64, full: u64) -> bool {
    delta <= full / 2
}

/// The snapshots of one runtime, oldest first, and where the next one belongs.
#[derive(Clone, Debug, Default)]
pub struct DeltaChain {
    nodes: BTreeMap<u64, Node>,
    /// From the full frame to the newest snapshot.
    branch: Vec<u64>,
    /// Snapshots since that full frame, itself included.
    tree_entries: usize,
    /// Full frames accepted since the last delta. Retention does not shorten it; a restart may,
    /// at the price of one vain delta.
    full_row: usize,
}

#[derive(Clone, Debug)]
struct Node {
    entry: ChainEntry,
    /// Deltas to apply after the full frame.
    depth: usize,
    /// Deltas made from it so far.
    deltas: usize,
    /// Deltas that may be made from it: which delta of its base it was.
    deltas_max: usize,
    /// Bytes of change since the full frame, as far as stored deltas show it.
    position: u64,
}

impl Node {
    fn is_open(&self) -> bool {
        self.deltas < self.deltas_max
    }
}

impl DeltaChain {
    /// Rebuilds a chain from its entries, in any order.
    ///
    /// # Errors
    /// [`ChainFault`] for the first entry that cannot stand where it is.
    pub fn from_entries(entries: impl IntoIterator<Item = ChainEntry>) -> Result<Self, ChainFault> {
        let ordered: BTreeMap<u64, ChainEntry> =
            entries.into_iter().map(|entry| (entry.seq, entry)).collect();
        let mut chain = Self::default();
        ordered.into_values().try_for_each(|entry| chain.accept(entry))?;
        Ok(chain)
    }

    /// The newest snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<&ChainEntry> {
        self.nodes.last_key_value().map(|(_, node)| &node.entry)
    }

    /// All snapshots, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &ChainEntry> {
        self.nodes.values().map(|node| &node.entry)
    }

    /// One snapshot.
    #[must_use]
    pub fn entry(&self, seq: u64) -> Option<&ChainEntry> {
        self.nodes.get(&seq).map(|node| &node.entry)
    }

    /// The snapshots to fetch and apply in order to restore `seq`: a full frame first, `seq` last,
    /// at most [`OBJECTS_MAX`]. `None` when there is no such snapshot.
    #[must_use]
    pub fn restore_path(&self, seq: u64) -> Option<Vec<u64>> {
        let mut path = Vec::with_capacity(OBJECTS_MAX);
        let mut next = Some(seq);
        while let Some(seq) = next {
            path.push(seq);
            next = self.nodes.get(&seq)?.entry.base;
        }
        path.reverse();
        Some(path)
    }

    /// The snapshots that a later plan may name as base, at most [`BASES_MAX`]: the one before
    /// first, then those that the next steps back go to, in that order. Those kept as plain bytes
    /// need not be restored; with the first two at hand hardly any is.
    #[must_use]
    pub fn bases(&self) -> Vec<u64> {
        let (open, closed): (Vec<&Node>, Vec<&Node>) =
            self.candidates().rev().partition(|node| node.is_open());
        open.into_iter().chain(closed).map(|node| node.entry.seq).collect()
    }

    /// What to encode a snapshot of `size` plain bytes as.
    #[must_use]
    pub fn plan(&self, size: u64) -> Plan {
        let Some(newest) = self.newest() else { return Plan::Full };
        if self.tree_entries >= TREE_ENTRIES_MAX || self.deltas_are_vain() {
            return Plan::Full;
        }
        let full = self.full_estimate(size);
        let growth = self.compressed_estimate(size.saturating_sub(newest.size));
        match self.choose_base(full, growth) {
            Some(base) => Plan::Delta { base, stored_max: full.saturating_mul(5) / 8 },
            None => Plan::Full,
        }
    }

    /// Looks again, now that the planned delta of `size` plain bytes from `base` is known to weigh
    /// `stored` bytes. The weight of a full frame is an estimate trusted to a quarter.
    #[must_use]
    pub fn review(&self, size: u64, base: u64, stored: u64) -> Review {
        let full = self.full_estimate(size);
        if stored > full.saturating_mul(3) / 8 {
            return Review::Compare;
        }
        let Some(base) = self.nodes.get(&base) else { return Review::Keep };
        let repeated = self.distance(base);
        let change = stored.saturating_sub(repeated).saturating_sub(DELTA_OVERHEAD_BYTES);
        let climb = self.great_change_base(full, change);
        match climb.filter(|shallower| shallower.depth < base.depth) {
            Some(shallower) => Review::Climb(shallower.entry.seq),
            None => Review::Keep,
        }
    }

    /// Takes up a snapshot that is stored.
    ///
    /// # Errors
    /// [`ChainFault`]; the chain is unchanged.
    pub fn accept(&mut self, entry: ChainEntry) -> Result<(), ChainFault> {
        let seq = entry.seq;
        if let Some(newest) = self.newest().filter(|newest| newest.seq >= seq) {
            return Err(ChainFault::NotRising { seq, newest: newest.seq });
        }
        if self.nodes.len() >= CHAIN_ENTRIES_MAX {
            return Err(ChainFault::TooMany);
        }
        let mut node = Node { entry, depth: 0, deltas: 0, deltas_max: usize::MAX, position: 0 };
        if let Some(base) = node.entry.base {
            let base = self.nodes.get_mut(&base).ok_or(ChainFault::Unknown(base))?;
            if base.depth + 1 >= OBJECTS_MAX {
                return Err(ChainFault::TooDeep(seq));
            }
            base.deltas += 1;
            node.depth = base.depth + 1;
            node.deltas_max = base.deltas;
            let change = node.entry.stored.saturating_sub(DELTA_OVERHEAD_BYTES);
            node.position = base.position.saturating_add(change);
            self.full_row = 0;
        } else {
            self.full_row = self.full_row.saturating_add(1);
        }
        self.nodes.insert(seq, node);
        self.find_branch();
        Ok(())
    }

    /// Lets go of a snapshot that no other is made from: garbage, or one that was revoked.
    ///
    /// # Errors
    /// [`ChainFault::InUse`] or [`ChainFault::Unknown`]; the chain is unchanged.
    pub fn forget(&mut self, seq: u64) -> Result<ChainEntry, ChainFault> {
        let node = self.nodes.get(&seq).ok_or(ChainFault::Unknown(seq))?;
        if node.deltas > 0 {
            return Err(ChainFault::InUse(seq));
        }
        let entry = node.entry.clone();
        self.nodes.remove(&seq);
        if let Some(base) = entry.base.and_then(|base| self.nodes.get_mut(&base)) {
            base.deltas = base.deltas.saturating_sub(1);
        }
        if self.branch.last().is_none_or(|newest| *newest == seq) {
            self.find_branch();
        }
        Ok(entry)
    }

    /// What retention keeps: the newest `full_min` full frames (at least one), every snapshot that
    /// is not older than the oldest of them or than `young_from`, and whatever those are restored
    /// from.
    #[must_use]
    pub fn reachable(&self, full_min: usize, young_from: u64) -> BTreeSet<u64> {
        let is_full = |entry: &&ChainEntry| entry.kind() == FrameKind::Full;
        let oldest = self.entries().rev().filter(is_full).take(full_min.max(1)).last();
        let oldest = oldest.map_or(0, |full| full.seq).min(young_from);
        let mut kept = BTreeSet::new();
        for entry in self.nodes.range(oldest..).map(|(_, node)| node) {
            let mut next = Some(entry.entry.seq);
            while let Some(seq) = next.filter(|seq| kept.insert(*seq)) {
                next = self.entry(seq).and_then(|entry| entry.base);
            }
        }
        kept
    }

    /// What retention lets go, newest first, so that [`DeltaChain::forget`] takes them in this
    /// order.
    #[must_use]
    pub fn garbage(&self, full_min: usize, young_from: u64) -> Vec<u64> {
        let kept = self.reachable(full_min, young_from);
        self.nodes.keys().rev().filter(|seq| !kept.contains(seq)).copied().collect()
    }

    /// The current branch without its last level, full frame first.
    fn candidates(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.branch.iter().take(BASES_MAX).filter_map(|seq| self.nodes.get(seq))
    }

    /// The base of the next delta, which changes about `growth` stored bytes of a snapshot whose
    /// full frame would have `full`. `None`: better a full frame.
    fn choose_base(&self, full: u64, growth: u64) -> Option<u64> {
        let cost = |node: &Node| self.distance(node).saturating_add(growth);
        let next = self.candidates().rfind(|node| node.is_open())?;
        let next = self
            .great_change_base(full, growth)
            .filter(|shallower| shallower.depth < next.depth)
            .unwrap_or(next);
        if is_worth(cost(next), full) {
            return Some(next.entry.seq);
        }
        let root = self.candidates().next()?;
        if cost(root) >= full / 4 * 3 {
            return None;
        }
        let affordable = self.candidates().find(|node| is_worth(cost(node), full))?;
        Some(affordable.entry.seq)
    }

    /// The shallowest base from which a delta repeats at most a quarter of what it adds.
    fn great_change_base(&self, full: u64, change: u64) -> Option<&Node> {
        self.candidates().find(|node| {
            let repeated = self.distance(node);
            repeated <= change / 4 && is_worth(repeated.saturating_add(change), full)
        })
    }

    /// Bytes of change between a snapshot of the branch and the newest.
    fn distance(&self, node: &Node) -> u64 {
        self.newest_node().map_or(0, |newest| newest.position).saturating_sub(node.position)
    }

    /// What a full frame of `size` plain bytes would weigh: as much of them as the newest full
    /// frame does of its own, but not more than that frame and all change since. The second bound
    /// is what counts after a first snapshot so small that it hardly compresses.
    fn full_estimate(&self, size: u64) -> u64 {
        let (Some(root), Some(newest)) = (self.node(self.branch.first()), self.newest_node())
        else {
            return size;
        };
        let growth = self.compressed_estimate(size.saturating_sub(newest.entry.size));
        let change = newest.position.saturating_add(growth);
        self.compressed_estimate(size).min(root.entry.stored.saturating_add(change))
    }

    /// What `size` plain bytes weigh when they compress as the newest full frame does.
    fn compressed_estimate(&self, size: u64) -> u64 {
        let root = self.node(self.branch.first()).map(|root| &root.entry);
        let Some(ChainEntry { size: plain @ 1.., stored, .. }) = root else { return size };
        let estimate = u128::from(size) * u128::from(*stored) / u128::from(*plain);
        u64::try_from(estimate).unwrap_or(u64::MAX).min(size)
    }

    fn node(&self, seq: Option<&u64>) -> Option<&Node> {
        seq.and_then(|seq| self.nodes.get(seq))
    }

    fn newest_node(&self) -> Option<&Node> {
        self.node(self.branch.last())
    }

    /// Whether the last snapshots all became full frames, and it is not time to try again: after
    /// one, two, four and eight of them, then after every sixteenth.
    fn deltas_are_vain(&self) -> bool {
        let row = self.full_row;
        row > 0 && !row.is_power_of_two() && !row.is_multiple_of(FULL_FRAMES_UNTRIED_MAX)
    }

    /// Finds the branch that ends in the newest snapshot.
    fn find_branch(&mut self) {
        let newest = self.newest().map(|entry| entry.seq);
        self.branch = newest.and_then(|seq| self.restore_path(seq)).unwrap_or_default();
        let root = self.branch.first().copied().unwrap_or(0);
        self.tree_entries = self.nodes.range(root..).count();
    }
}
