//! What the container's memory limit lets a configuration ask for.
//!
//! A sidecar that is killed for memory leaves the runtime beside it ungated, again at each restart.
//! So what nobody set shrinks to what the limit can hold, what somebody set and cannot be held is a
//! mistake like any other, and below a floor nothing starts. Without a limit nothing changes.

use core::fmt;
use std::fs;
use std::path::Path;

use super::Config;
use super::mistake::Mistake;
use super::table::Reader;

/// What the sidecar takes beside snapshots: some 15 MiB idle with its usual connections, 24 MiB
/// that bodies under way may take together, 8 MiB that streams may.
const OTHERS_BYTES: u64 = 48 << 20;
/// Connections and peers that are in `OTHERS_BYTES`.
const CONNECTIONS_USUAL: usize = 256;
const PEERS_USUAL: usize = 100;
/// What a further one takes at most, on either listener.
const CONNECTION_BYTES: u64 = 32 << 10;
const PEER_BYTES: u64 = 8 << 10;
/// Below this a snapshot would be none, in bytes.
const SNAPSHOT_LEAST_BYTES: u64 = 1 << 20;
/// A fetch takes three times a snapshot's bytes at once, and the cache holds one.
const SNAPSHOT_COPIES: u64 = 4;

/// The memory limit of this container, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryLimit(pub u64);

/// What became of a configuration under a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The limit.
    pub limit: MemoryLimit,
    /// What it leaves for snapshots, the cache among them, in bytes.
    pub snapshots_bytes: u64,
    /// The keys that nobody set and that are smaller for it.
    pub shrunk: Vec<&'static str>,
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} MiB", self.0 >> 20)
    }
}

impl MemoryLimit {
    /// The least limit of the control groups that this process is in, both versions; `None` where
    /// there is none. `root` is `/` outside tests.
    #[must_use]
    pub fn of_this_process(root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limits = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            let (mount, file) = match controllers {
                "" => ("sys/fs/cgroup", "memory.max"),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
                }
                _ => return None,
            };
            // A namespace shows the group as the root; a parent's limit binds as well.
            let mount = root.join(mount);
            let folders = Path::new(path).ancestors().map(|ancestor| mount.join(ancestor));
            let read = |folder: std::path::PathBuf| {
                fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok()
            };
            folders.filter_map(read).min()
        });
        // The first version says "none" with a number that no machine has.
        limits.min().filter(|bytes| *bytes < 1 << 50).map(Self)
    }
}

/// Bytes as mebibytes, rounded up: what is needed.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl Config {
    /// Makes what nobody set small enough for `limit`, and notes what cannot be held.
    pub(super) fn fit(&mut self, limit: MemoryLimit, reader: &mut Reader<'_>) {
        let others = self.others_bytes();
        let least = others.saturating_add(SNAPSHOT_LEAST_BYTES * SNAPSHOT_COPIES);
        if limit.0 < least {
            let problem = format!(
                "{limit} is too little: {} connections and {} peers take {} MiB, and snapshots {} \
                 MiB at least",
                self.listen.connections_max,
                self.peers.len(),
                mib(others),
                mib(least - others),
            );
            reader.mistakes.push(Mistake::new("the container's memory limit", problem));
            return;
        }
        let snapshots_bytes = limit.0 - others;
        let most = snapshots_bytes / SNAPSHOT_COPIES;
        let mut shrunk = Vec::new();
        let snapshot = &mut self.snapshot;
        let sizes = [
            ("snapshot.bytes_max", &mut snapshot.bytes_max),
            ("snapshot.cache_bytes_max", &mut snapshot.cache_bytes_max),
        ];
        for (key, size) in sizes.into_iter().filter(|(_, size)| **size > most) {
            if reader.given.contains(key) {
                let needed = others.saturating_add(size.saturating_mul(SNAPSHOT_COPIES));
                let problem = format!(
                    "{} MiB needs a memory limit of {} MiB, and the container's is {limit}, which \
                     lets it be {} MiB",
                    mib(*size),
                    mib(needed),
                    most >> 20,
                );
                reader.mistakes.push(Mistake::new(key, problem));
            } else {
                *size = most;
                shrunk.push(key);
            }
        }
        self.fit = Some(Fit { limit, snapshots_bytes, shrunk });
    }

    /// What everything but snapshots takes at most.
    fn others_bytes(&self) -> u64 {
        let more = |count: usize, usual: usize, each: u64| {
            u64::try_from(count.saturating_sub(usual)).unwrap_or(u64::MAX).saturating_mul(each)
        };
        OTHERS_BYTES
            .saturating_add(more(self.listen.connections_max, CONNECTIONS_USUAL, CONNECTION_BYTES))
            .saturating_add(more(self.peers.len(), PEERS_USUAL, PEER_BYTES))
    }
}
