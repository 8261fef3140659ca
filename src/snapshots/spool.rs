//! The spool: accepted snapshots on disk, before anybody is told that they are accepted (P8).
//!
//! One snapshot is two files, `{seq}.plain` and `{seq}.json`; the record is written last, so a
//! snapshot is accepted when its record is there and not before. Everything is written beside its
//! place, synced, renamed, and the folder synced. A failed sync counts as lost: the file is given
//! up, never synced again, for the second sync of a lost page succeeds.
//!
//! **Revoked.** When the gate closes, what is unsent is revoked and the highest revoked number goes
//! to the file `revoked` before the closing reply leaves. So what a crash, an outage or a stop of
//! the sidecar interrupted may still go when the gate is open again (P8: answered 201 or 202
//! survives), and what a closing verdict interrupted never goes, in this life or the next (P5). A
//! revoked snapshot stays readable for its own runtime until a newer one is accepted.
//!
//! **Space.** The folder holds at most `bytes_max`. Stored snapshots stay as bases for the next
//! deltas while there is room; they make way before a new one is refused. Nothing unsent ever does.
//!
//! Everything here blocks; callers use `spawn_blocking`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::snapshot::{Digest, Plain};
use crate::protocol::time::Timestamp;

mod disk;
mod part;
mod record;
mod recovery;

pub use part::{Part, Sealed};
pub use record::{Entry, State, Stored};
pub use recovery::Recovery;

/// Stored snapshots that stay on disk as bases, besides the newest: as many as a plan may name.
const BASES_MAX: usize = crate::protocol::snapshot::BASES_MAX;

/// Why the spool cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum SpoolFault {
    /// A file is not what was accepted; it was moved to `damaged/`.
    #[error("snapshot {0} is damaged on disk and was moved aside")]
    Damaged(u64),
    /// What is unsent fills it.
    #[error("the spool is full: {used} of {bytes_max} bytes hold what is not stored yet")]
    Full {
        /// Bytes in use.
        used: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// Another process holds the folder.
    #[error("another sidecar uses the folder {0}")]
    Held(PathBuf),
    /// The disk.
    #[error("the spool's disk fails: {0}")]
    Io(#[from] io::Error),
    /// The gate closed before it was accepted.
    #[error("the gate closed while the snapshot was being accepted")]
    Revoked,
    /// More bytes than one snapshot may have.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// There is no such snapshot here.
    #[error("no such snapshot")]
    Unknown,
}

/// One locked folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    books: Mutex<Books>,
    /// Held as long as the spool lives.
    _lock: File,
}

#[derive(Debug, Default)]
struct Books {
    entries: BTreeMap<u64, Entry>,
    /// Bytes of accepted snapshots and of those being written.
    used: u64,
    revoked_to: u64,
    parts: u64,
    /// Snapshots that a closing revoked in this life.
    revoked: u64,
    damaged: Vec<String>,
}

impl Spool {
    /// Takes the folder; [`Spool::recover`] reads it.
    ///
    /// # Errors
    /// [`SpoolFault::Held`] or [`SpoolFault::Io`].
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, SpoolFault> {
        disk::create_folder(folder)?;
        let lock = disk::create_file(&folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(SpoolFault::Held(folder.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        let books = Mutex::new(Books::default());
        Ok(Self { folder: folder.to_owned(), bytes_max, books, _lock: lock })
    }

    /// Reads what an earlier life left. Never fails on what it finds: what is not whole is moved
    /// aside and named.
    ///
    /// # Errors
    /// [`SpoolFault::Io`] when the folder itself cannot be read.
    pub fn recover(&self) -> Result<Recovery, SpoolFault> {
        let recovery = recovery::recover(&self.folder)?;
        let mut books = self.books();
        books.used =
            recovery.entries.iter().map(|entry| entry.size).sum::<u64>() + recovery.damaged_bytes;
        books.revoked_to = recovery.revoked_to;
        books.damaged.clone_from(&recovery.damaged);
        books.entries = recovery.entries.iter().map(|entry| (entry.seq, entry.clone())).collect();
        Ok(recovery)
    }

    /// Begins to write one snapshot of at most `size_max` bytes.
    ///
    /// # Errors
    /// [`SpoolFault::Io`].
    pub fn begin(self: &std::sync::Arc<Self>, size_max: u64) -> Result<Part, SpoolFault> {
        let number = {
            let mut books = self.books();
            books.parts += 1;
            books.parts
        };
        Part::create(std::sync::Arc::clone(self), number, size_max)
    }

    /// Accepts a snapshot under its number: when this returns, it is safe.
    ///
    /// # Errors
    /// [`SpoolFault::Revoked`] or [`SpoolFault::Io`]; then it is gone.
    pub fn accept(
        &self,
        sealed: Sealed,
        seq: u64,
        media_type: &str,
        time: Timestamp,
    ) -> Result<Entry, SpoolFault> {
        let entry = Entry {
            seq,
            digest: sealed.digest(),
            size: sealed.size(),
            media_type: media_type.to_owned(),
            accepted: time,
            state: State::Unsent,
        };
        if self.is_revoked(seq) {
            return Err(SpoolFault::Revoked);
        }
        if self.newest().is_some_and(|newest| newest.seq >= seq) {
            // Whoever gives the numbers has forgotten some; nothing that is promised is
            // overwritten.
            return Err(SpoolFault::Io(io::Error::other(format!("{seq} is used already"))));
        }
        let (plain, record) = (self.plain_path(seq), self.record_path(seq));
        sealed.rename(&plain)?;
        let written = disk::replace(&record, &entry.to_bytes());
        let mut books = self.books();
        let is_late = seq <= books.revoked_to;
        if written.is_err() || is_late {
            // Nobody was told that it is accepted.
            books.used = books.used.saturating_sub(entry.size);
            drop(books);
            disk::remove(&record);
            disk::remove(&plain);
            disk::sync_folder(&self.folder)?;
            written?;
            return Err(SpoolFault::Revoked);
        }
        books.entries.insert(seq, entry.clone());
        Ok(entry)
    }

    /// Revokes whatever is unsent up to `seq`, on disk as well. Returns how many there were.
    ///
    /// # Errors
    /// [`SpoolFault::Io`]; in memory it is revoked all the same.
    pub fn revoke(&self, seq: u64) -> Result<u64, SpoolFault> {
        let mut count = 0;
        {
            let mut books = self.books();
            books.revoked_to = books.revoked_to.max(seq);
            for entry in books.entries.range_mut(..=seq).map(|(_, entry)| entry) {
                if entry.state == State::Unsent {
                    entry.state = State::Revoked;
                    count += 1;
                }
            }
            books.revoked += count;
        }
        if count > 0 {
            disk::replace(&self.folder.join("revoked"), seq.to_string().as_bytes())?;
        }
        Ok(count)
    }

    /// The plain bytes of one snapshot, checked.
    ///
    /// # Errors
    /// [`SpoolFault::Damaged`], [`SpoolFault::Unknown`] or [`SpoolFault::Io`].
    pub fn read(&self, seq: u64) -> Result<Plain, SpoolFault> {
        let entry = self.entry(seq).ok_or(SpoolFault::Unknown)?;
        let plain = match fs::read(self.plain_path(seq)) {
            Ok(bytes) => Plain::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It made way meanwhile, or somebody has deleted it.
                let is_gone = self.entry(seq).is_none();
                return Err(if is_gone { SpoolFault::Unknown } else { self.lose(&entry) });
            }
            Err(error) => return Err(error.into()),
        };
        if plain.digest() == entry.digest { Ok(plain) } else { Err(self.lose(&entry)) }
    }

    /// Notes in memory that a snapshot is stored at the broker. Does not block.
    pub fn note_stored(&self, seq: u64, stored: &Stored) {
        if let Some(entry) = self.books().entries.get_mut(&seq) {
            entry.state = State::Stored(stored.clone());
        }
    }

    /// Writes down what is known of a snapshot.
    ///
    /// # Errors
    /// [`SpoolFault::Io`]: after a restart the bucket tells the same.
    pub fn write_down(&self, seq: u64) -> Result<(), SpoolFault> {
        let Some(entry) = self.entry(seq) else { return Ok(()) };
        Ok(disk::replace_unsynced(&self.record_path(seq), &entry.to_bytes())?)
    }

    /// Lets go of stored and revoked snapshots but the newest and those in `bases`.
    pub fn tidy(&self, bases: &BTreeSet<u64>) {
        let newest = self.newest().map(|entry| entry.seq);
        let kept: BTreeSet<u64> = bases.iter().copied().take(BASES_MAX).chain(newest).collect();
        self.forget_where(|entry| !kept.contains(&entry.seq));
    }

    /// The newest accepted snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<Entry> {
        self.books().entries.last_key_value().map(|(_, entry)| entry.clone())
    }

    /// The oldest snapshot that is neither stored nor revoked.
    #[must_use]
    pub fn next_unsent(&self) -> Option<Entry> {
        let books = self.books();
        books.entries.values().find(|entry| entry.state == State::Unsent).cloned()
    }

    /// One snapshot.
    #[must_use]
    pub fn entry(&self, seq: u64) -> Option<Entry> {
        self.books().entries.get(&seq).cloned()
    }

    /// The newest snapshot with these plain bytes.
    #[must_use]
    pub fn find(&self, digest: Digest) -> Option<Entry> {
        let books = self.books();
        books.entries.values().rev().find(|entry| entry.digest == digest).cloned()
    }

    /// All snapshots, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.books().entries.values().cloned().collect()
    }

    /// Bytes of accepted snapshots, of those being written, and of what is in `damaged/`.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.books().used
    }

    /// Snapshots revoked by closings of this life.
    #[must_use]
    pub fn revoked(&self) -> u64 {
        self.books().revoked
    }

    /// What was found damaged, in words.
    #[must_use]
    pub fn damaged(&self) -> Vec<String> {
        self.books().damaged.clone()
    }

    /// Takes `bytes` of room, from stored bases if need be.
    fn reserve(&self, bytes: u64) -> Result<(), SpoolFault> {
        let bytes_max = self.bytes_max;
        let fits = |books: &Books| books.used.saturating_add(bytes) <= bytes_max;
        if !fits(&self.books()) {
            let newest = self.newest().map(|entry| entry.seq);
            self.forget_where(|entry| Some(entry.seq) != newest);
        }
        if !fits(&self.books()) {
            // The newest stored one is worth less than the one that will follow it.
            self.forget_where(|_| true);
        }
        let mut books = self.books();
        if !fits(&books) {
            return Err(SpoolFault::Full { used: books.used, bytes_max });
        }
        books.used = books.used.saturating_add(bytes);
        Ok(())
    }

    fn release(&self, bytes: u64) {
        let mut books = self.books();
        books.used = books.used.saturating_sub(bytes);
    }

    /// Removes those settled snapshots that `is_over` names.
    fn forget_where(&self, is_over: impl Fn(&Entry) -> bool) {
        let mut books = self.books();
        let over: Vec<u64> = books
            .entries
            .values()
            .filter(|entry| entry.state != State::Unsent && is_over(entry))
            .map(|entry| entry.seq)
            .collect();
        for seq in over {
            // The record first: without it the rest is nothing.
            disk::remove(&self.record_path(seq));
            disk::remove(&self.plain_path(seq));
            if let Some(entry) = books.entries.remove(&seq) {
                books.used = books.used.saturating_sub(entry.size);
            }
        }
    }

    fn lose(&self, entry: &Entry) -> SpoolFault {
        let mut books = self.books();
        if books.entries.remove(&entry.seq).is_some() {
            recovery::set_aside(&self.folder, entry.seq);
            books.damaged.push(format!("snapshot {} is damaged on disk", entry.seq));
            tracing::error!(seq = entry.seq, "a spooled snapshot is damaged; moved to damaged/");
        }
        SpoolFault::Damaged(entry.seq)
    }

    fn is_revoked(&self, seq: u64) -> bool {
        seq <= self.books().revoked_to
    }

    fn plain_path(&self, seq: u64) -> PathBuf {
        self.folder.join(format!("{seq}.plain"))
    }

    fn record_path(&self, seq: u64) -> PathBuf {
        self.folder.join(format!("{seq}.json"))
    }

    /// The books. A thread that panicked while it held them left plain values behind.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A plain snapshot written on its own, for tests and tools.
///
/// # Errors
/// As the steps it takes.
pub fn put(
    spool: &std::sync::Arc<Spool>,
    bytes: &[u8],
    seq: u64,
    time: Timestamp,
) -> Result<Entry, SpoolFault> {
    let mut part = spool.begin(u64::MAX)?;
    part.write_all(bytes)?;
    spool.accept(part.seal()?, seq, "application/octet-stream", time)
}
