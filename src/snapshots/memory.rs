//! What snapshots may take of the memory that the container gives this process (P10).
//!
//! A delta needs its base, the new snapshot and zstd's tables at once; a full frame can be encoded
//! from disk to disk. So where a limit is set, a snapshot that is too large for it is stored as a
//! full frame, and one that cannot be held is not handed out; without a limit nothing changes.
//! What deliberately is not here: the cache's own bound, which is the configuration's.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::protocol::snapshot::Level;

/// What the sidecar takes beside snapshots: some 15 MiB idle, queues of two connections, and what
/// the allocator keeps of what it was given back.
const OTHERS_BYTES: u64 = 48 << 20;
/// Memory is counted in such units, so that a count fits a semaphore.
const UNIT_BYTES: u64 = 64 << 10;
/// How long a reader waits for memory that another one holds.
const WAIT: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Memory(Option<Limited>);

#[derive(Clone, Debug)]
struct Limited {
    bytes: u64,
    free: Arc<Semaphore>,
}

/// Memory that is in use; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Taken(#[expect(dead_code, reason = "dropping it is its use")] Permit);

type Permit = Option<OwnedSemaphorePermit>;

/// More than the limit leaves, or than is free just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it takes {bytes} bytes of memory, and the container's limit leaves {bytes_max}")]
pub struct TooLittleMemory {
    /// What it takes.
    pub bytes: u64,
    /// What there is for snapshots.
    pub bytes_max: u64,
}

impl Memory {
    /// What the limits of this process leave.
    pub(super) fn of_this_process() -> Self {
        Self::of(container_limit(Path::new("/")))
    }

    fn of(limit: Option<u64>) -> Self {
        Self(limit.map(|limit| {
            let units = (limit.saturating_sub(OTHERS_BYTES) / UNIT_BYTES).min(1 << 28);
            let count = usize::try_from(units).unwrap_or(usize::MAX);
            Limited { bytes: units * UNIT_BYTES, free: Arc::new(Semaphore::new(count)) }
        }))
    }

    /// The cache's bound: what is configured, and at most a quarter of a limit.
    pub(super) fn cache_bytes_max(&self, configured: u64) -> u64 {
        self.0.as_ref().map_or(configured, |limited| configured.min(limited.bytes / 4))
    }

    /// Takes so many bytes, waiting a little for those who have them.
    ///
    /// # Errors
    /// [`TooLittleMemory`].
    pub(super) async fn take(&self, bytes: u64) -> Result<Taken, TooLittleMemory> {
        let Some(limited) = &self.0 else { return Ok(Taken(None)) };
        // The cache has its quarter.
        let bytes_max = limited.bytes - limited.bytes / 4;
        let fault = TooLittleMemory { bytes, bytes_max };
        if bytes > bytes_max {
            return Err(fault);
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| fault)?;
        let taking = Arc::clone(&limited.free).acquire_many_owned(units);
        match tokio::time::timeout(WAIT, taking).await {
            Ok(Ok(permit)) => Ok(Taken(Some(permit))),
            Ok(Err(_)) | Err(_) => Err(fault),
        }
    }
}

/// What encoding takes in memory: base and source, a frame of either kind, and zstd's tables. The
/// last are measured with 1 to 64 MiB and glibc: up to 20 MiB at level 3, 105 at level 9.
pub(super) fn encoding_bytes(level: Level, base: u64, source: u64) -> u64 {
    let both = base.saturating_add(source);
    let tables = match level.number() {
        ..=3 => (4 << 20) + both / 8,
        4..=9 => (16 << 20) + both / 4 * 3,
        _ => 256 << 20,
    };
    both.saturating_add(source.saturating_mul(2)).saturating_add(tables)
}

/// The largest snapshot that a limit lets be restored as well as stored: a fetch takes three times
/// its bytes at once, of what the cache and everything else leave. In bytes.
#[must_use]
pub fn restorable_bytes_max(limit: u64) -> u64 {
    limit.saturating_sub(OTHERS_BYTES) / 4
}

/// The least limit of the control groups that this process is in, in bytes, both versions; `None`
/// where there is none. `root` is `/` outside tests.
#[must_use]
pub fn container_limit(root: &Path) -> Option<u64> {
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
    limits.min().filter(|bytes| *bytes < 1 << 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_either_version_is_read_and_the_least_binds() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(container_limit(root.path()), None);
        write("proc/self/cgroup", "0::/pod/box\n");
        write("sys/fs/cgroup/pod/box/memory.max", "max\n");
        assert_eq!(container_limit(root.path()), None);
        write("sys/fs/cgroup/pod/memory.max", "100663296\n");
        assert_eq!(container_limit(root.path()), Some(96 << 20));
        write("proc/self/cgroup", "5:cpu:/x\n4:memory:/kube\n");
        write("sys/fs/cgroup/memory/kube/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(container_limit(root.path()), None);
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n");
        assert_eq!(container_limit(root.path()), Some(64 << 20));
        assert_eq!(restorable_bytes_max(96 << 20), 12 << 20);
        assert_eq!(restorable_bytes_max(1), 0);
    }

    #[tokio::test]
    async fn a_limit_is_shared_and_no_limit_asks_nobody() {
        let memory = Memory::of(Some(OTHERS_BYTES + (64 << 20)));
        assert_eq!(memory.cache_bytes_max(64 << 20), 16 << 20);
        assert!(memory.take(49 << 20).await.is_err(), "more than there is");
        let taken = memory.take(40 << 20).await.unwrap();
        assert!(memory.take(40 << 20).await.is_err(), "more than is left");
        drop(taken);
        memory.take(40 << 20).await.unwrap();
        Memory::of(None).take(u64::MAX).await.unwrap();
        assert!(Memory::of(Some(1)).take(1).await.is_err());
    }
}
