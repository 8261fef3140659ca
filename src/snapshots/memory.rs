//! What snapshots may take of the memory that the container gives this process (P10).
//!
//! A delta needs its base, the new snapshot and zstd's tables at once; a full frame can be encoded
//! from disk to disk. So where a limit is set, a snapshot that is too large for it is stored as a
//! full frame, and one that cannot be held is not handed out; without a limit nothing changes.
//! What deliberately is not here: the limit and the cache's bound, which are the configuration's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::protocol::snapshot::Level;

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
    /// Of so many bytes, of which the cache has its quarter.
    pub(super) fn of(bytes: Option<u64>) -> Self {
        Self(bytes.map(|bytes| {
            let units = (bytes / UNIT_BYTES).min(1 << 28);
            let count = usize::try_from(units).unwrap_or(usize::MAX);
            Limited { bytes: units * UNIT_BYTES, free: Arc::new(Semaphore::new(count)) }
        }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_is_shared_and_no_limit_asks_nobody() {
        let memory = Memory::of(Some(64 << 20));
        assert!(memory.take(49 << 20).await.is_err(), "more than there is");
        let taken = memory.take(40 << 20).await.unwrap();
        assert!(memory.take(40 << 20).await.is_err(), "more than is left");
        drop(taken);
        memory.take(40 << 20).await.unwrap();
        Memory::of(None).take(u64::MAX).await.unwrap();
        assert!(Memory::of(Some(1)).take(1).await.is_err());
    }
}
