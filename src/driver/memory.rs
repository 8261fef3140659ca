//! What survives a restart, in one small JSON file beside the spool.
//!
//! Sequence numbers are reserved ahead, so the file need not be written per packet: a restart
//! starts above the reservation. It is written by rename, off the driver's thread, and at most once
//! a second; a disk that fails degrades `/readyz` and hurts nobody (P10).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::protocol::bridge::Memory;
use crate::protocol::packet::RuntimeId;

/// How far ahead sequence numbers are reserved, in the microseconds that they count.
const RESERVE_US: u64 = 60_000_000;
/// Largest file that is read: 10,000 peers at under 100 bytes each.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    seq: u64,
    floors: BTreeMap<String, u64>,
    operator_hold: bool,
}

/// The memory file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFault {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, io::Error),
    /// It is not what this program wrote.
    #[error("{0}: not a memory file: {1}")]
    Parse(String, serde_json::Error),
}

/// Reads the memory file; a missing one is an empty memory.
///
/// # Errors
/// [`MemoryFault`]. The caller goes on with an empty memory and says so: sequence numbers then
/// start from the wall clock alone.
pub fn load(path: &Path) -> Result<Memory, MemoryFault> {
    let name = || path.display().to_string();
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memory::default()),
        Err(error) => return Err(MemoryFault::Read(name(), error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            let error = io::Error::new(io::ErrorKind::FileTooLarge, "larger than 2 MiB");
            return Err(MemoryFault::Read(name(), error));
        }
        Ok(_) => std::fs::read(path).map_err(|error| MemoryFault::Read(name(), error))?,
    };
    let stored: Stored =
        serde_json::from_slice(&text).map_err(|error| MemoryFault::Parse(name(), error))?;
    let floors = stored.floors.iter();
    Ok(Memory {
        seq: stored.seq,
        floors: floors.filter_map(|(id, floor)| Some((RuntimeId::new(id)?, *floor))).collect(),
        operator_hold: stored.operator_hold,
    })
}

/// What the memory of the last run says was used. Its file holds a reservation that nothing has
/// been taken from yet, so the first turn reserves anew; otherwise a second restart would begin
/// where this one does.
fn used(memory: Memory) -> Memory {
    Memory { seq: memory.seq.saturating_sub(RESERVE_US), ..memory }
}

/// Between two looks at whether something has to be written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the first report waits for the disk to reserve its numbers.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps the memory on the disk: one write at a time, one look a second.
#[derive(Debug)]
pub(super) struct Keeper {
    path: Option<PathBuf>,
    /// What is on the disk, as far as is known. Numbers are reserved up to [`RESERVE_US`] above its
    /// own.
    on_disk: Memory,
    writing: Option<(Memory, JoinHandle<io::Result<()>>)>,
    /// Something happened since the last look.
    is_stirred: bool,
    look_after: Duration,
}

impl Keeper {
    /// Keeps the memory in `path`, which held `loaded`; without a path it keeps nothing.
    pub(super) fn new(path: Option<PathBuf>, loaded: Memory) -> Self {
        let on_disk = used(loaded);
        Self { path, on_disk, writing: None, is_stirred: false, look_after: Duration::ZERO }
    }

    /// Reserves sequence numbers before the first is used: of what the last life had reserved, every
    /// number may be in use.
    pub(super) async fn reserve(&mut self, now: Duration, memory: Memory) {
        if self.on_disk.seq > 0 {
            self.write(now, memory);
        }
        if self.writing.is_some() {
            // A disk that takes longer is not waited for (P10); its write goes on.
            drop(tokio::time::timeout(RESERVE_TIMEOUT, self.written()).await);
        }
    }

    /// Something happened that the next look may find worth writing.
    pub(super) fn stir(&mut self) {
        self.is_stirred = true;
    }

    /// Writes the memory when something in it matters, no write is under way, and a second has
    /// passed since the last look.
    pub(super) fn look(&mut self, now: Duration, memory: impl FnOnce() -> Memory) {
        if self.is_stirred && self.writing.is_none() && now >= self.look_after {
            self.write(now, memory());
        }
    }

    /// When [`Self::look`] wants to be called, if nothing else happens.
    pub(super) fn next_look(&self) -> Duration {
        if self.is_stirred && self.writing.is_none() { self.look_after } else { Duration::MAX }
    }

    /// Waits for the end of a write; for ever when there is none. Only what is on the disk counts as
    /// kept; a write that failed is tried again.
    ///
    /// # Cancel safety
    /// Safe: the write goes on.
    pub(super) async fn written(&mut self) {
        let Some((_, task)) = &mut self.writing else { return std::future::pending().await };
        let outcome = task.await;
        let Some((memory, _)) = self.writing.take() else { return };
        match outcome {
            Ok(Ok(())) => self.on_disk = memory,
            Ok(Err(error)) => {
                self.is_stirred = true;
                tracing::warn!(%error, "the memory file cannot be written");
            }
            // The process is ending.
            Err(_) => {}
        }
    }

    /// The last write of this life; an older one must not end up in its place.
    pub(super) async fn keep(mut self, memory: Memory) {
        if self.writing.is_some() {
            self.written().await;
        }
        self.start_write(memory);
        if self.writing.is_some() {
            self.written().await;
        }
    }

    fn write(&mut self, now: Duration, memory: Memory) {
        self.is_stirred = false;
        self.look_after = now + LOOK_INTERVAL;
        // Half of the reservation is left: time to reserve again.
        let reserved = memory.seq < self.on_disk.seq.saturating_add(RESERVE_US / 2);
        let differs = memory.floors != self.on_disk.floors
            || memory.operator_hold != self.on_disk.operator_hold;
        if differs || !reserved {
            self.start_write(memory);
        }
    }

    fn start_write(&mut self, memory: Memory) {
        if let Some(path) = self.path.clone() {
            let copy = memory.clone();
            let task = tokio::task::spawn_blocking(move || store(&path, &copy));
            self.writing = Some((memory, task));
        }
    }
}

/// Writes the memory beside its place and renames it there.
fn store(path: &Path, memory: &Memory) -> io::Result<()> {
    let stored = Stored {
        seq: memory.seq.saturating_add(RESERVE_US),
        floors: memory.floors.iter().map(|(id, floor)| (id.to_string(), *floor)).collect(),
        operator_hold: memory.operator_hold,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, serde_json::to_vec(&stored)?)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_restart_begins_above_what_the_first_one_may_have_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        store(&path, &Memory { seq: 5, ..Memory::default() }).unwrap();
        let first = load(&path).unwrap();
        let begins_at = first.seq;
        assert_eq!(begins_at, 5 + RESERVE_US);
        // The driver writes when less than half of the reservation is left.
        assert!(begins_at >= used(first).seq + RESERVE_US / 2, "reserves at once");
    }
}
