//! What an earlier life left in the folder: whole snapshots are kept, the rest is moved aside.
//!
//! A file without a record was never accepted and is removed. A record without whole bytes was, and
//! is lost: it goes to `damaged/` with what there is of it, and its name to `/readyz` and the log.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::disk;
use super::record::{Entry, RECORD_BYTES_MAX, State};
use crate::protocol::snapshot::Digest;

/// Damaged snapshots that are kept for whoever looks into them; the oldest make way.
const DAMAGED_MAX: usize = 8;
/// Bytes that are hashed at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whole snapshots, oldest first.
    pub entries: Vec<Entry>,
    /// What was moved aside, in words.
    pub damaged: Vec<String>,
    /// Bytes of what is in `damaged/`.
    pub damaged_bytes: u64,
    /// Nothing up to this number may be sent.
    pub revoked_to: u64,
}

pub(super) fn recover(folder: &Path) -> io::Result<Recovery> {
    let mut recovery = Recovery::default();
    let (mut records, mut plains) = (Vec::new(), Vec::new());
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let seq = stem.and_then(|stem| stem.parse::<u64>().ok());
        match (seq, path.extension().and_then(|extension| extension.to_str())) {
            (_, Some("part" | "incoming")) => disk::remove(&path),
            (Some(seq), Some("json")) => records.push(seq),
            (Some(seq), Some("plain")) => plains.push(seq),
            (_, _) => {}
        }
    }
    for seq in plains.iter().filter(|seq| !records.contains(seq)) {
        disk::remove(&folder.join(format!("{seq}.plain")));
    }
    records.sort_unstable();
    // Whoever cannot tell what was revoked sends nothing of it (P6).
    let newest = records.last().copied().unwrap_or(0);
    recovery.revoked_to = revoked_to(folder).unwrap_or(newest);
    for seq in records {
        match check(folder, seq) {
            Ok(mut entry) => {
                if entry.state == State::Unsent && seq <= recovery.revoked_to {
                    entry.state = State::Revoked;
                }
                recovery.entries.push(entry);
            }
            Err(problem) => {
                set_aside(folder, seq);
                recovery.damaged.push(format!("snapshot {seq} was lost from the spool: {problem}"));
            }
        }
    }
    recovery.damaged_bytes = tidy_damaged(folder);
    Ok(recovery)
}

/// Moves both files of a snapshot to `damaged/`.
pub(super) fn set_aside(folder: &Path, seq: u64) {
    let damaged = folder.join("damaged");
    if let Err(error) = disk::create_folder(&damaged) {
        tracing::warn!(%error, "damaged files cannot be set aside");
    }
    for name in [format!("{seq}.json"), format!("{seq}.plain")] {
        if fs::rename(folder.join(&name), damaged.join(&name)).is_err() {
            disk::remove(&folder.join(&name));
        }
    }
}

fn check(folder: &Path, seq: u64) -> Result<Entry, &'static str> {
    let record = folder.join(format!("{seq}.json"));
    let mut bytes = Vec::new();
    File::open(record)
        .and_then(|file| file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|_| "its record cannot be read")?;
    let entry = Entry::from_bytes(&bytes)
        .filter(|entry| entry.seq == seq)
        .ok_or("its record is not whole")?;
    let mut file =
        File::open(folder.join(format!("{seq}.plain"))).map_err(|_| "its bytes are gone")?;
    let length = file.metadata().map_err(|_| "its bytes cannot be read")?.len();
    if length != entry.size {
        return Err("its bytes are not whole");
    }
    match digest(&mut file) {
        Ok(found) if found == entry.digest => Ok(entry),
        Ok(_) => Err("its bytes are not those that were accepted"),
        Err(_) => Err("its bytes cannot be read"),
    }
}

fn digest(file: &mut File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(Digest::from_bytes(hash.finalize().into()));
        }
        hash.update(piece.get(..length).unwrap_or_default());
    }
}

/// The marker; `None` for one that cannot be read.
fn revoked_to(folder: &Path) -> Option<u64> {
    match fs::read_to_string(folder.join("revoked")) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
    }
}

/// Keeps the newest [`DAMAGED_MAX`] snapshots; returns the bytes that they take.
fn tidy_damaged(folder: &Path) -> u64 {
    let Ok(files) = fs::read_dir(folder.join("damaged")) else { return 0 };
    let mut files: Vec<_> = files
        .flatten()
        .filter_map(|file| Some((file.file_name(), file.path(), file.metadata().ok()?.len())))
        .collect();
    files.sort();
    let over = files.len().saturating_sub(DAMAGED_MAX * 2);
    for (_, path, _) in files.drain(..over) {
        disk::remove(&path);
    }
    files.iter().map(|(_, _, length)| length).sum()
}
