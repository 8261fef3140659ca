//! What survives a restart, in one small JSON file beside the spool.
//!
//! Sequence numbers are reserved ahead, so the file need not be written per packet: a restart
//! starts above the reservation. It is written by rename, off the driver's thread, and at most once
//! a second; a disk that fails degrades `/readyz` and hurts nobody (P10).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::protocol::bridge::Memory;
use crate::protocol::packet::RuntimeId;

/// How far ahead sequence numbers are reserved, in the microseconds that they count.
pub(super) const RESERVE_US: u64 = 60_000_000;
/// Shortest time between two writes.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_secs(1);
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
pub(super) fn used(reserved: u64) -> u64 {
    reserved.saturating_sub(RESERVE_US)
}

/// A write that is under way.
pub(super) type Write = JoinHandle<io::Result<()>>;

/// Waits for the end of a write; for ever when there is none.
///
/// # Cancel safety
/// Safe: the write goes on.
pub(super) async fn end_of_write(write: &mut Option<Write>) {
    let Some(task) = write else { return std::future::pending().await };
    if let Ok(Err(error)) = task.await {
        tracing::warn!(%error, "the memory file cannot be written");
    }
    *write = None;
}

/// Writes the memory beside its place and renames it there.
pub(super) fn store(path: &Path, memory: &Memory) -> io::Result<()> {
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
        assert!(begins_at >= used(first.seq) + RESERVE_US / 2, "reserves at once");
    }
}
