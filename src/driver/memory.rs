//! What survives a restart, in one small JSON file beside the spool.
//!
//! Sequence numbers are reserved ahead, so the file need not be written per packet: a restart
//! starts above the reservation. It is written by rename, off the driver's thread, and at most once
//! a second; a disk that fails degrades `/readyz`, is tried again, and hurts nobody (P10). What an
//! operator's answer waits for is written at once, and synced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::operator::Holds;
use crate::protocol::bridge::Memory;
use crate::protocol::packet::RuntimeId;
use crate::telemetry::{Condition, Conditions};

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
    /// Absent in files of before it was known.
    #[serde(default)]
    in_doubt: bool,
    /// Who holds. Absent in files of before there were several.
    #[serde(default)]
    held_by: Holds,
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
pub fn load(path: &Path) -> Result<(Memory, Holds), MemoryFault> {
    let name = || path.display().to_string();
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
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
    let memory = Memory {
        seq: stored.seq,
        floors: floors.filter_map(|(id, floor)| Some((RuntimeId::new(id)?, *floor))).collect(),
        operator_hold: stored.operator_hold,
        in_doubt: stored.in_doubt,
    };
    let mut holds = stored.held_by;
    holds.command |= stored.operator_hold && !holds.any();
    Ok((memory, holds))
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) memory: Memory,
    pub(super) holds: Holds,
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
    on_disk: Kept,
    writing: Option<(Kept, JoinHandle<io::Result<()>>)>,
    /// Who waits for the write under way, and who for the one after it.
    waiting: Vec<oneshot::Sender<bool>>,
    waiting_next: Vec<oneshot::Sender<bool>>,
    conditions: Conditions,
    /// Something happened since the last look.
    is_stirred: bool,
    look_after: Duration,
}

impl Keeper {
    /// Keeps the memory in `path`, which held `loaded`; without a path it keeps nothing.
    pub(super) fn new(path: Option<PathBuf>, loaded: Kept, conditions: Conditions) -> Self {
        Self {
            path,
            on_disk: Kept { memory: used(loaded.memory), holds: loaded.holds },
            writing: None,
            waiting: Vec::new(),
            waiting_next: Vec::new(),
            conditions,
            is_stirred: false,
            look_after: Duration::ZERO,
        }
    }

    /// Reserves sequence numbers before the first is used: of what the last life had reserved,
    /// every number may be in use.
    pub(super) async fn reserve(&mut self, now: Duration, kept: Kept) {
        if self.on_disk.memory.seq > 0 {
            self.write(now, kept);
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

    /// Promises to tell whether the next write succeeds. It is synced, so that what it holds
    /// survives a crash of the machine.
    pub(super) fn promise(&mut self) -> oneshot::Receiver<bool> {
        let (done, answer) = oneshot::channel();
        // Without a file nobody is told yes: a dropped sender is a no.
        if self.path.is_some() {
            self.waiting_next.push(done);
        }
        answer
    }

    /// Writes the memory when no write is under way and either somebody waits for it, or something
    /// in it matters and a second has passed since the last look.
    pub(super) fn look(&mut self, now: Duration, kept: impl FnOnce() -> Kept) {
        if self.writing.is_some() {
            return;
        }
        if !self.waiting_next.is_empty() {
            self.start_write(kept());
        } else if self.is_stirred && now >= self.look_after {
            self.write(now, kept());
        }
    }

    /// When [`Self::look`] wants to be called, if nothing else happens.
    pub(super) fn next_look(&self) -> Duration {
        if self.is_stirred && self.writing.is_none() { self.look_after } else { Duration::MAX }
    }

    /// Waits for the end of a write; for ever when there is none. Only what is on the disk counts
    /// as kept; a write that failed is tried again.
    ///
    /// # Cancel safety
    /// Safe: the write goes on.
    pub(super) async fn written(&mut self) {
        let Some((_, task)) = &mut self.writing else { return std::future::pending().await };
        let outcome = task.await;
        let Some((kept, _)) = self.writing.take() else { return };
        // The process is ending.
        let Ok(outcome) = outcome else { return };
        for done in self.waiting.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = done.send(outcome.is_ok());
        }
        match outcome {
            Ok(()) => {
                self.on_disk = kept;
                self.conditions.end(Condition::MemoryUnwritable);
            }
            Err(error) => {
                self.is_stirred = true;
                let text = format!("{error}: an operator's hold would not survive a restart");
                self.conditions.begin(Condition::MemoryUnwritable, text);
            }
        }
    }

    /// The last write of this life; an older one must not end up in its place.
    pub(super) async fn keep(mut self, kept: Kept) {
        if self.writing.is_some() {
            self.written().await;
        }
        self.start_write(kept);
        if self.writing.is_some() {
            self.written().await;
        }
    }

    fn write(&mut self, now: Duration, kept: Kept) {
        self.is_stirred = false;
        self.look_after = now + LOOK_INTERVAL;
        // Half of the reservation is left: time to reserve again.
        let (next, last) = (&kept.memory, &self.on_disk.memory);
        let reserved = next.seq < last.seq.saturating_add(RESERVE_US / 2);
        let differs = next.floors != last.floors
            || next.operator_hold != last.operator_hold
            || next.in_doubt != last.in_doubt
            || kept.holds != self.on_disk.holds;
        if differs || !reserved || self.conditions.holds(Condition::MemoryUnwritable) {
            self.start_write(kept);
        }
    }

    fn start_write(&mut self, kept: Kept) {
        if let Some(path) = self.path.clone() {
            self.waiting = core::mem::take(&mut self.waiting_next);
            let (copy, durably) = (kept.clone(), !self.waiting.is_empty());
            let task = tokio::task::spawn_blocking(move || store(&path, &copy, durably));
            self.writing = Some((kept, task));
        }
    }
}

/// Writes the memory beside its place and renames it there.
fn store(path: &Path, kept: &Kept, durably: bool) -> io::Result<()> {
    let Kept { memory, holds } = kept;
    let stored = Stored {
        seq: memory.seq.saturating_add(RESERVE_US),
        floors: memory.floors.iter().map(|(id, floor)| (id.to_string(), *floor)).collect(),
        operator_hold: memory.operator_hold,
        in_doubt: memory.in_doubt,
        held_by: *holds,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(&stored)?)?;
    if durably {
        file.sync_all()?;
    }
    std::fs::rename(&beside, path)?;
    match path.parent().filter(|folder| durably && !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_restart_begins_above_what_the_first_one_may_have_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let memory = Memory { seq: 5, ..Memory::default() };
        store(&path, &Kept { memory, holds: Holds::default() }, false).unwrap();
        let (first, _) = load(&path).unwrap();
        let begins_at = first.seq;
        assert_eq!(begins_at, 5 + RESERVE_US);
        // The driver writes when less than half of the reservation is left.
        assert!(begins_at >= used(first).seq + RESERVE_US / 2, "reserves at once");
    }

    #[test]
    fn a_file_of_before_there_were_several_holders_still_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        std::fs::write(&path, r#"{"seq":5,"floors":{},"operator_hold":true}"#).unwrap();
        let (memory, holds) = load(&path).unwrap();
        assert!(memory.operator_hold);
        assert_eq!(holds, Holds { command: true, file: false });
        std::fs::write(&path, r#"{"seq":5,"floors":{},"operator_hold":false}"#).unwrap();
        assert!(!load(&path).unwrap().1.any());
    }
}
