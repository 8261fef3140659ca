//! The spool: accepted snapshots on disk, before anybody is told that they are accepted (P8).
//!
//! One snapshot is two files: `{seq}.plain`, its bytes, and a record `{seq}.unsent`,
//! `{seq}.revoked` or `{seq}.stored`, whose name says what has become of it. Everything is written
//! beside its place, synced, renamed, and the folder synced; a snapshot is accepted when its record
//! has its name and not before. A failed sync counts as lost: the file is given up, never synced
//! again, for the second sync of a lost page succeeds.
//!
//! **Revoked.** When the gate closes, the record of whatever is unsent is renamed before the
//! closing reply leaves. A rename needs no room, is there whole or not at all, survives `kill -9`,
//! and no damage inside a file undoes it. Where even that fails the record is emptied or removed;
//! either way nothing sends it. So what a crash, an outage or a stop of the sidecar interrupted may
//! still go when the gate is open again (P8: answered 201 or 202 survives), and what a closing
//! verdict interrupted never goes, in this life or the next (P5). A revoked snapshot stays readable
//! for its own runtime until a newer one is accepted.
//!
//! **Damage.** Record and bytes carry a SHA-256. What does not match withholds itself alone, and
//! loudly: see `recovery`.
//!
//! **Unfinished.** What is being put or let go at the broker stands in `{seq}.unfinished` from
//! before it begins until it is done, so that what a death leaves there is found from here.
//!
//! **Space.** Snapshots take at most `bytes_max`, and beside them one frame on its way to the
//! broker may stand here. Stored snapshots stay as bases for the next deltas while there is room;
//! they make way before a new one is refused. Nothing unsent ever does.
//!
//! Everything here blocks; callers use `spawn_blocking`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gate::Grant;
use crate::protocol::digest::Digest;
use crate::protocol::snapshot::{BASES_MAX, Plain};
use crate::protocol::time::Timestamp;

mod disk;
mod frame;
mod part;
mod record;
mod recovery;

pub use frame::Frame;
pub use part::{Part, Sealed};
pub use record::{SpoolEntry, Started, State, Stored, Unfinished};
pub use recovery::Recovery;

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
    #[error("larger than snapshot.bytes_max, {0} bytes")]
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
    /// Revocations so far. Held while a snapshot is accepted and while a revocation is written, so
    /// that no snapshot is accepted behind a revocation's back.
    revocations: Mutex<u64>,
    contents: Mutex<Contents>,
    /// Held as long as the spool lives.
    _lock: File,
}

#[derive(Debug, Default)]
struct Contents {
    held: BTreeMap<u64, Held>,
    /// Bytes of accepted snapshots and of those being written.
    used: u64,
    parts: u64,
    /// Snapshots that a closing revoked in this life.
    revoked: u64,
    damaged: Vec<String>,
    unfinished: BTreeMap<u64, Unfinished>,
}

/// One snapshot and what this life knows of it.
#[derive(Debug)]
struct Held {
    entry: SpoolEntry,
    /// Revocations before it was granted; 0 for one of an earlier life.
    revocations: u64,
    /// Whether its record still says `unsent` although it is revoked: the disk fails.
    is_revocation_due: bool,
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
        let (revocations, contents) = (Mutex::default(), Mutex::default());
        Ok(Self { folder: folder.to_owned(), bytes_max, revocations, contents, _lock: lock })
    }

    /// Reads what an earlier life left. Never fails on what it finds: what is not whole is moved
    /// aside and named.
    ///
    /// # Errors
    /// [`SpoolFault::Io`] when the folder itself cannot be read.
    pub fn recover(&self) -> Result<Recovery, SpoolFault> {
        let recovery = recovery::recover(&self.folder)?;
        let mut contents = self.contents();
        contents.used =
            recovery.entries.iter().map(|entry| entry.size).sum::<u64>() + recovery.damaged_bytes;
        contents.damaged.clone_from(&recovery.damaged);
        let held = |one: &SpoolEntry| Held {
            entry: one.clone(),
            revocations: 0,
            is_revocation_due: false,
        };
        contents.held = recovery.entries.iter().map(|entry| (entry.seq, held(entry))).collect();
        let unfinished = recovery.unfinished.iter();
        contents.unfinished = unfinished.map(|found| (found.seq, found.clone())).collect();
        Ok(recovery)
    }

    /// Begins to write one snapshot of at most `size_max` bytes.
    ///
    /// # Errors
    /// [`SpoolFault::Io`].
    pub fn begin(self: &Arc<Self>, size_max: u64) -> Result<Part, SpoolFault> {
        let number = {
            let mut contents = self.contents();
            contents.parts += 1;
            contents.parts
        };
        Part::create(Arc::clone(self), number, size_max)
    }

    /// Accepts a snapshot: when this returns, it is safe. Its number is the time of the grant in
    /// microseconds, or the next above the newest, so nothing that is promised is overwritten.
    ///
    /// # Errors
    /// [`SpoolFault::Revoked`] when the gate has closed since it was granted, or
    /// [`SpoolFault::Io`]; then it is gone.
    pub fn accept(
        &self,
        sealed: Sealed,
        grant: Grant,
        media_type: &str,
    ) -> Result<SpoolEntry, SpoolFault> {
        let newest = self.newest().map_or(0, |newest| newest.seq);
        let seq = grant.now.unix_us().max(newest.saturating_add(1));
        let entry = SpoolEntry {
            seq,
            digest: sealed.digest(),
            size: sealed.size(),
            media_type: media_type.to_owned(),
            accepted: grant.now,
            state: State::Unsent,
        };
        let (plain, record) = (self.plain_path(seq), self.record_path(&entry));
        let prepared = disk::prepare(&record, &entry.to_bytes())?;
        let revocations = self.revocations();
        if grant.revocations < *revocations {
            disk::remove(&prepared);
            return Err(SpoolFault::Revoked);
        }
        let placed = sealed
            .rename(&plain)
            .and_then(|()| fs::rename(&prepared, &record))
            .and_then(|()| disk::sync_folder(&self.folder));
        if let Err(error) = placed {
            // Nobody was told that it is accepted.
            self.release(entry.size);
            for path in [prepared, record, plain] {
                disk::remove(&path);
            }
            return Err(error.into());
        }
        let held =
            Held { entry: entry.clone(), revocations: grant.revocations, is_revocation_due: false };
        self.contents().held.insert(seq, held);
        Ok(entry)
    }

    /// Revokes whatever is unsent and was granted before the revocation with this number, on disk
    /// as well. Returns how many there were.
    ///
    /// # Errors
    /// [`SpoolFault::Io`]: in memory it is revoked all the same, and the disk is tried again by
    /// [`Self::write_revocations`].
    pub fn revoke(&self, number: u64) -> Result<u64, SpoolFault> {
        let mut revocations = self.revocations();
        *revocations = number.max(*revocations);
        let mut count = 0;
        {
            let mut contents = self.contents();
            for held in contents.held.values_mut() {
                if held.entry.state == State::Unsent && held.revocations < number {
                    held.entry.state = State::Revoked;
                    held.is_revocation_due = true;
                    count += 1;
                }
            }
            contents.revoked += count;
        }
        self.write_due()?;
        Ok(count)
    }

    /// Tries again what [`Self::revoke`] could not write.
    ///
    /// # Errors
    /// [`SpoolFault::Io`].
    pub fn write_revocations(&self) -> Result<(), SpoolFault> {
        let _revocations = self.revocations();
        self.write_due()
    }

    /// Whether a revocation is not on disk.
    #[must_use]
    pub fn is_revocation_due(&self) -> bool {
        self.contents().held.values().any(|held| held.is_revocation_due)
    }

    fn write_due(&self) -> Result<(), SpoolFault> {
        let due: Vec<SpoolEntry> = {
            let contents = self.contents();
            let due = contents.held.values().filter(|held| held.is_revocation_due);
            due.map(|held| held.entry.clone()).collect()
        };
        if due.is_empty() {
            return Ok(());
        }
        for entry in &due {
            let unsent = self.named(entry.seq, &State::Unsent);
            // None of the three needs room.
            fs::rename(&unsent, self.record_path(entry))
                .or_else(|_| disk::empty(&unsent))
                .or_else(|_| fs::remove_file(&unsent))?;
        }
        disk::sync_folder(&self.folder)?;
        let mut contents = self.contents();
        for entry in &due {
            if let Some(held) = contents.held.get_mut(&entry.seq) {
                held.is_revocation_due = false;
            }
        }
        Ok(())
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
                return Err(self.missing(&entry));
            }
            Err(error) => return Err(error.into()),
        };
        if plain.digest() == entry.digest { Ok(plain) } else { Err(self.lose(&entry)) }
    }

    /// Notes in memory that a snapshot is stored at the broker. Does not block.
    pub fn note_stored(&self, seq: u64, stored: &Stored) {
        if let Some(held) = self.contents().held.get_mut(&seq) {
            held.entry.state = State::Stored(Some(stored.clone()));
        }
    }

    /// Writes down that a snapshot is stored, and how if there is room for that.
    ///
    /// # Errors
    /// [`SpoolFault::Io`]: after a restart the bucket tells the same.
    pub fn write_stored(&self, seq: u64) -> Result<(), SpoolFault> {
        let Some(entry) = self.entry(seq).filter(|entry| entry.state.is_stored()) else {
            return Ok(());
        };
        let (unsent, record) = (self.named(seq, &State::Unsent), self.record_path(&entry));
        match disk::replace_unsynced(&record, &entry.to_bytes()) {
            Ok(()) => disk::remove(&unsent),
            Err(_) => fs::rename(&unsent, &record)?,
        }
        Ok(())
    }

    /// Writes down what is about to be put or let go at the broker. It survives the death of this
    /// process; not the machine's, which then leaves one object that nobody knows.
    ///
    /// # Errors
    /// [`SpoolFault::Io`]: then it must not begin.
    pub fn begin_at_broker(&self, unfinished: Unfinished) -> Result<(), SpoolFault> {
        let path = self.unfinished_path(unfinished.seq);
        disk::replace_unsynced(&path, &record::sealed(&unfinished))?;
        self.contents().unfinished.insert(unfinished.seq, unfinished);
        Ok(())
    }

    /// It is done, or nothing of it is left.
    pub fn end_at_broker(&self, seq: u64) {
        disk::remove(&self.unfinished_path(seq));
        self.contents().unfinished.remove(&seq);
    }

    /// What is under way at the broker, or was when an earlier life ended.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.contents().unfinished.values().cloned().collect()
    }

    /// Lets go of stored and revoked snapshots but the newest and those in `bases`.
    pub fn tidy(&self, bases: &BTreeSet<u64>) {
        let newest = self.newest().map(|entry| entry.seq);
        let kept: BTreeSet<u64> = bases.iter().copied().take(BASES_MAX).chain(newest).collect();
        self.forget_where(|entry| !kept.contains(&entry.seq));
    }

    /// The newest accepted snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<SpoolEntry> {
        self.contents().held.last_key_value().map(|(_, held)| held.entry.clone())
    }

    /// The oldest snapshot that is neither stored nor revoked.
    #[must_use]
    pub fn next_unsent(&self) -> Option<SpoolEntry> {
        let is_unsent = |entry: &SpoolEntry| entry.state == State::Unsent;
        self.entries().into_iter().find(is_unsent)
    }

    /// One snapshot.
    #[must_use]
    pub fn entry(&self, seq: u64) -> Option<SpoolEntry> {
        self.contents().held.get(&seq).map(|held| held.entry.clone())
    }

    /// The newest snapshot with these plain bytes.
    #[must_use]
    pub fn find(&self, digest: Digest) -> Option<SpoolEntry> {
        self.entries().into_iter().rev().find(|entry| entry.digest == digest)
    }

    /// All snapshots, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<SpoolEntry> {
        self.contents().held.values().map(|held| held.entry.clone()).collect()
    }

    /// Bytes of accepted snapshots, of those being written, and of what is in `damaged/`.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.contents().used
    }

    /// Snapshots revoked by closings of this life.
    #[must_use]
    pub fn revoked(&self) -> u64 {
        self.contents().revoked
    }

    /// What was found damaged, in words.
    #[must_use]
    pub fn damaged(&self) -> Vec<String> {
        self.contents().damaged.clone()
    }

    /// Takes `bytes` of room, from stored bases if need be.
    fn reserve(&self, bytes: u64) -> Result<(), SpoolFault> {
        let bytes_max = self.bytes_max;
        let fits = |contents: &Contents| contents.used.saturating_add(bytes) <= bytes_max;
        if !fits(&self.contents()) {
            let newest = self.newest().map(|entry| entry.seq);
            self.forget_where(|entry| Some(entry.seq) != newest);
        }
        if !fits(&self.contents()) {
            // The newest stored one is worth less than the one that will follow it.
            self.forget_where(|_| true);
        }
        let mut contents = self.contents();
        if !fits(&contents) {
            return Err(SpoolFault::Full { used: contents.used, bytes_max });
        }
        contents.used = contents.used.saturating_add(bytes);
        Ok(())
    }

    fn release(&self, bytes: u64) {
        let mut contents = self.contents();
        contents.used = contents.used.saturating_sub(bytes);
    }

    /// Removes those settled snapshots that `is_over` names.
    fn forget_where(&self, is_over: impl Fn(&SpoolEntry) -> bool) {
        let mut contents = self.contents();
        let is_settled = |held: &Held| held.entry.state != State::Unsent && !held.is_revocation_due;
        let over: Vec<SpoolEntry> = contents
            .held
            .values()
            .filter(|held| is_settled(held) && is_over(&held.entry))
            .map(|held| held.entry.clone())
            .collect();
        for entry in over {
            // The record first: without it the rest is nothing.
            disk::remove(&self.named(entry.seq, &State::Unsent));
            disk::remove(&self.record_path(&entry));
            disk::remove(&self.plain_path(entry.seq));
            contents.held.remove(&entry.seq);
            contents.used = contents.used.saturating_sub(entry.size);
        }
    }

    /// Its bytes are not there: it made way meanwhile, or somebody has deleted them.
    fn missing(&self, entry: &SpoolEntry) -> SpoolFault {
        let is_gone = self.entry(entry.seq).is_none();
        if is_gone { SpoolFault::Unknown } else { self.lose(entry) }
    }

    fn lose(&self, entry: &SpoolEntry) -> SpoolFault {
        let mut contents = self.contents();
        if contents.held.remove(&entry.seq).is_some() {
            recovery::set_aside(&self.folder, entry.seq);
            contents.damaged.push(format!("snapshot {} is damaged on disk", entry.seq));
            tracing::error!(seq = entry.seq, "a spooled snapshot is damaged; moved to damaged/");
        }
        SpoolFault::Damaged(entry.seq)
    }

    fn plain_path(&self, seq: u64) -> PathBuf {
        self.folder.join(format!("{seq}.plain"))
    }

    fn record_path(&self, entry: &SpoolEntry) -> PathBuf {
        self.named(entry.seq, &entry.state)
    }

    fn named(&self, seq: u64, state: &State) -> PathBuf {
        self.folder.join(format!("{seq}.{}", state.word()))
    }

    fn unfinished_path(&self, seq: u64) -> PathBuf {
        self.folder.join(format!("{seq}.unfinished"))
    }

    /// The contents. A thread that panicked while it held them left plain values behind.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revocations(&self) -> MutexGuard<'_, u64> {
        self.revocations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A plain snapshot written on its own, for tests and tools.
///
/// # Errors
/// As the steps it takes.
pub fn put(spool: &Arc<Spool>, bytes: &[u8], now: Timestamp) -> Result<SpoolEntry, SpoolFault> {
    let mut part = spool.begin(u64::MAX)?;
    part.write_all(bytes)?;
    let revocations = *spool.revocations();
    spool.accept(part.seal()?, Grant { now, revocations }, "application/octet-stream")
}
