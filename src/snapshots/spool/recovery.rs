//! What an earlier life left in the folder: whole snapshots are kept, the rest is moved aside.
//!
//! A file without a record was never accepted and is removed. A record without whole bytes was, and
//! is lost: it goes to `damaged/` with what there is of it, and its name to `/readyz` and the log,
//! at this start and at every later one until somebody clears `damaged/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::disk;
use super::record::{self, RECORD_BYTES_MAX, SpoolEntry, State, Unfinished};
use crate::protocol::digest::{Digest, Hasher};

/// Damaged snapshots that are kept for whoever looks into them; the oldest make way.
const DAMAGED_MAX: usize = 8;
/// Bytes that are hashed at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Extensions of records. What stands under a later one has gone through the earlier ones.
const RECORDS: [State; 3] = [State::Unsent, State::Revoked, State::Stored(None)];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whole snapshots, oldest first.
    pub entries: Vec<SpoolEntry>,
    /// What was moved aside, in words.
    pub damaged: Vec<String>,
    /// Bytes of what is in `damaged/`.
    pub damaged_bytes: u64,
    /// What was under way at the broker.
    pub unfinished: Vec<Unfinished>,
}

pub(super) fn recover(folder: &Path) -> io::Result<Recovery> {
    let mut recovery = Recovery::default();
    let mut lying = BTreeSet::new();
    recovery.damaged_bytes = tidy_damaged(folder, &mut lying);
    for seq in lying {
        recovery.damaged.push(format!("snapshot {seq} lies in damaged/ since an earlier start"));
    }
    let mut records: BTreeMap<u64, Vec<State>> = BTreeMap::new();
    let mut plains = BTreeSet::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let seq = stem.and_then(|stem| stem.parse::<u64>().ok());
        let extension = path.extension().and_then(|extension| extension.to_str());
        let state = RECORDS.into_iter().find(|state| Some(state.word()) == extension);
        match (seq, extension, state) {
            (_, Some("part" | "incoming" | "frame"), _) => disk::remove(&path),
            (Some(seq), Some("plain"), _) => drop(plains.insert(seq)),
            (Some(seq), Some("unfinished"), _) => match unfinished(&path, seq) {
                Some(unfinished) => recovery.unfinished.push(unfinished),
                None => {
                    disk::remove(&path);
                    let damage = "what was under way at the broker cannot be read";
                    recovery.damaged.push(format!("snapshot {seq}: {damage}"));
                }
            },
            (Some(seq), _, Some(state)) => records.entry(seq).or_default().push(state),
            (_, _, _) => {}
        }
    }
    for seq in plains.iter().filter(|seq| !records.contains_key(seq)) {
        disk::remove(&folder.join(format!("{seq}.plain")));
    }
    for (seq, states) in records {
        // Whoever has written the later name has meant to remove the earlier one.
        let mut found = RECORDS.into_iter().filter(|state| states.contains(state)).rev();
        let Some(state) = found.next() else { continue };
        for earlier in found {
            disk::remove(&folder.join(format!("{seq}.{}", earlier.word())));
        }
        match check(folder, seq, state) {
            Ok(entry) => recovery.entries.push(entry),
            Err(problem) => {
                set_aside(folder, seq);
                recovery.damaged.push(format!("snapshot {seq} was lost from the spool: {problem}"));
            }
        }
    }
    recovery.damaged_bytes = tidy_damaged(folder, &mut BTreeSet::new());
    Ok(recovery)
}

/// Moves the files of a snapshot to `damaged/`.
pub(super) fn set_aside(folder: &Path, seq: u64) {
    let damaged = folder.join("damaged");
    if let Err(error) = disk::create_folder(&damaged) {
        tracing::warn!(%error, "damaged files cannot be set aside");
    }
    for extension in RECORDS.iter().map(State::word).chain(["plain"]) {
        let name = format!("{seq}.{extension}");
        if fs::rename(folder.join(&name), damaged.join(&name)).is_err() {
            disk::remove(&folder.join(&name));
        }
    }
}

fn read_record(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RECORD_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unfinished(path: &Path, seq: u64) -> Option<Unfinished> {
    let found: Unfinished = record::opened(&read_record(path).ok()?)?;
    (found.seq == seq).then_some(found)
}

fn check(folder: &Path, seq: u64, state: State) -> Result<SpoolEntry, &'static str> {
    let path = folder.join(format!("{seq}.{}", state.word()));
    let bytes = read_record(&path).map_err(|_| "its record cannot be read")?;
    let entry = SpoolEntry::from_bytes(&bytes, state)
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

/// The digest of a file from where it stands, a piece at a time.
pub(super) fn digest(file: &mut File) -> io::Result<Digest> {
    let mut hash = Hasher::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(hash.finish());
        }
        hash.update(piece.get(..length).unwrap_or_default());
    }
}

/// Keeps the newest [`DAMAGED_MAX`] snapshots, collects their numbers and returns the bytes that
/// they take.
fn tidy_damaged(folder: &Path, seqs: &mut BTreeSet<u64>) -> u64 {
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
    let stem = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
    seqs.extend(files.iter().filter_map(|(_, path, _)| stem(path)));
    files.iter().map(|(_, _, length)| length).sum()
}
