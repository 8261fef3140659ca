//! The file that keeps what has to survive a crash: slots of one size, each with a checksum.
//!
//! A slot is written in place, without a sync: what a process has written survives its `kill -9`,
//! for the system's page cache does. The driver syncs once a second against a crash of the machine.
//! Each slot is one line of JSON, padded, so that an operator can read the file. The room for it is
//! taken ahead, so that a disk that fills up later stops nothing.
//!
//! What deliberately is not here: what a slot that cannot be read means (`memory.rs`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::operator::Holds;
use crate::protocol::digest::Digest;
use crate::protocol::packet::RuntimeId;

/// Bytes of one slot: the longest id and the longest number fit twice, and 512-byte sectors hold
/// whole slots.
const SLOT_BYTES: usize = 256;
/// Slots by which the file grows.
const GROWTH: usize = 64;
/// Most slots: 2 MiB. A source more has no floor on the disk, which is said.
const SLOTS_MAX: usize = 8192;
/// Largest file.
pub(super) const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What stands in the first slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// Slots of the file, so that a shorter one is known to be damaged.
    pub(super) slots: usize,
    /// No sequence number above this has been used.
    pub(super) seq: u64,
    /// Who holds the gate isolated.
    pub(super) held_by: Holds,
    /// Whether the broker may still have to read what was sent.
    pub(super) in_doubt: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Slot {
    Head(Head),
    Floor { source: String, seq: u64 },
    Free,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sum: String,
    slot: Slot,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) head: Head,
    /// Highest accepted sequence number of each source, with its slot.
    floors: BTreeMap<RuntimeId, (usize, u64)>,
}

/// What was read of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// `None`: it cannot be read.
    pub(super) head: Option<Head>,
    pub(super) floors: BTreeMap<RuntimeId, u64>,
    /// Slots beside the head that cannot be read; each may have been any source's floor.
    pub(super) lost: usize,
}

/// Reads a file's bytes. Whatever is there, it is read as far as it is whole.
pub(super) fn read(bytes: &[u8]) -> Found {
    let mut found = Found { head: None, floors: BTreeMap::new(), lost: 0 };
    let mut seen = 0;
    for (index, bytes) in bytes.chunks(SLOT_BYTES).take(SLOTS_MAX).enumerate() {
        seen += 1;
        match decode(index, bytes) {
            Some(Slot::Head(head)) if index == 0 => found.head = Some(head),
            Some(Slot::Floor { source, seq }) if index > 0 => match RuntimeId::new(&source) {
                Some(source) => drop(found.floors.insert(source, seq)),
                None => found.lost += 1,
            },
            Some(Slot::Free) if index > 0 => {}
            Some(_) | None if index > 0 => found.lost += 1,
            Some(_) | None => {}
        }
    }
    let slots = found.head.map_or(seen, |head| head.slots);
    found.lost += slots.saturating_sub(seen);
    found
}

/// Against damage, not against an enemy.
fn sum(index: usize, slot: &str) -> String {
    // With the slot's place, so that one that ended up elsewhere is damage.
    Digest::of(format!("{index} {slot}").as_bytes()).start()
}

fn encode(index: usize, slot: &Slot) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(slot)?;
    let line = Line { sum: sum(index, &text), slot: slot.clone() };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.resize(SLOT_BYTES - 1, b' ');
    bytes.push(b'\n');
    Ok(bytes)
}

/// A slot is whole when it is to the byte what would be written for what it says.
fn decode(index: usize, bytes: &[u8]) -> Option<Slot> {
    let line: Line = serde_json::from_slice(bytes).ok()?;
    (encode(index, &line.slot).ok()? == bytes).then_some(line.slot)
}

/// A floor's slot, or why it has none.
pub(super) enum Place {
    Slot(usize),
    /// The file has to grow first.
    Grow(usize),
    Full,
}

impl Content {
    /// What a new file begins with.
    pub(super) fn new(head: Head, floors: &BTreeMap<RuntimeId, u64>) -> Self {
        let floors: BTreeMap<_, _> = floors
            .iter()
            .take(SLOTS_MAX - 1)
            .zip(1..)
            .map(|((source, seq), slot)| (source.clone(), (slot, *seq)))
            .collect();
        let slots = (floors.len() + 1).div_ceil(GROWTH).max(1) * GROWTH;
        Self { head: Head { slots, ..head }, floors }
    }

    /// Floors that differ from those of `older`.
    pub(super) fn since(&self, older: &Self) -> Vec<(RuntimeId, u64)> {
        let differs =
            |source: &RuntimeId, place: &(usize, u64)| older.floors.get(source) != Some(place);
        let changed = self.floors.iter().filter(|(source, place)| differs(source, place));
        changed.map(|(source, (_, seq))| (source.clone(), *seq)).collect()
    }

    fn place(&self, source: &RuntimeId) -> Place {
        // No slot is ever given up, so the next one is free.
        let next = self.floors.len() + 1;
        match self.floors.get(source) {
            Some((slot, _)) => Place::Slot(*slot),
            None if next >= SLOTS_MAX => Place::Full,
            None if next >= self.head.slots => Place::Grow(next),
            None => Place::Slot(next),
        }
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut by_slot: BTreeMap<usize, Slot> = self
            .floors
            .iter()
            .map(|(source, (slot, seq))| {
                (*slot, Slot::Floor { source: source.to_string(), seq: *seq })
            })
            .collect();
        by_slot.insert(0, Slot::Head(self.head));
        let mut bytes = Vec::with_capacity(self.head.slots * SLOT_BYTES);
        for index in 0..self.head.slots {
            bytes.extend(encode(index, by_slot.get(&index).unwrap_or(&Slot::Free))?);
        }
        Ok(bytes)
    }
}

/// Writes a whole file beside its place, synced, and renames it there.
pub(super) fn create(path: &Path, content: &Content) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    file.write_all(&content.bytes()?)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(folder) = folder {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

/// Syncs the file, and makes sure that it is still the one that a restart would find.
pub(super) fn sync(path: &Path, file: &File) -> io::Result<()> {
    file.sync_data()?;
    let (ours, found) = (file.metadata()?, std::fs::symlink_metadata(path)?);
    if (ours.dev(), ours.ino()) == (found.dev(), found.ino()) {
        Ok(())
    } else {
        Err(io::Error::other("something else stands in its place"))
    }
}

/// Puts the head in its slot.
pub(super) fn put_head(file: &File, content: &Content) -> io::Result<()> {
    put(file, 0, &Slot::Head(content.head))
}

/// Puts a floor in its slot, and books it whether or not that succeeds.
pub(super) fn put_floor(
    file: Option<&File>,
    content: &mut Content,
    source: &RuntimeId,
    seq: u64,
) -> io::Result<()> {
    let (slot, grows) = match content.place(source) {
        Place::Slot(slot) => (slot, false),
        Place::Grow(slot) => (slot, true),
        Place::Full => return Err(io::Error::other(format!("more than {SLOTS_MAX} sources"))),
    };
    content.floors.insert(source.clone(), (slot, seq));
    let first = content.head.slots;
    if grows {
        content.head.slots += GROWTH;
    }
    let Some(file) = file else { return Ok(()) };
    if grows {
        for index in first..content.head.slots {
            put(file, index, &Slot::Free)?;
        }
        put_head(file, content)?;
    }
    put(file, slot, &Slot::Floor { source: source.to_string(), seq })
}

fn put(file: &File, index: usize, slot: &Slot) -> io::Result<()> {
    let place = u64::try_from(index * SLOT_BYTES).map_err(io::Error::other)?;
    file.write_all_at(&encode(index, slot)?, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> RuntimeId {
        RuntimeId::new(&format!("peer-{number}")).unwrap()
    }

    #[test]
    fn the_longest_floor_fits_a_slot() {
        let source = "x".repeat(crate::protocol::packet::RUNTIME_ID_BYTES_MAX);
        let slot = Slot::Floor { source, seq: u64::MAX };
        let bytes = encode(SLOTS_MAX, &slot).unwrap();
        assert_eq!((bytes.len(), bytes.last()), (SLOT_BYTES, Some(&b'\n')));
        assert_eq!(decode(SLOTS_MAX, &bytes), Some(slot));
        assert_eq!(decode(1, &bytes), None, "a slot in another's place");
    }

    #[test]
    fn the_floors_of_a_thousand_sources_come_back_and_the_file_grows_by_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let mut content = Content::new(Head::default(), &BTreeMap::new());
        let file = create(&path, &content).unwrap();
        for number in 0..1000 {
            put_floor(Some(&file), &mut content, &id(number), 5).unwrap();
            put_floor(Some(&file), &mut content, &id(number), 6).unwrap();
        }
        sync(&path, &file).unwrap();
        let found = read(&std::fs::read(&path).unwrap());
        assert!(found.head.is_some() && found.lost == 0);
        assert_eq!(found.floors.len(), 1000);
        assert!(found.floors.values().all(|seq| *seq == 6));
        assert_eq!(found.head.unwrap().slots, 1024);
        let again = Content::new(found.head.unwrap(), &found.floors);
        assert_eq!(read(&again.bytes().unwrap()).floors, found.floors);
    }

    #[test]
    fn there_is_a_last_slot_and_what_has_none_is_an_error() {
        let mut content = Content::new(Head::default(), &BTreeMap::new());
        for number in 1..SLOTS_MAX {
            put_floor(None, &mut content, &id(number), 1).unwrap();
        }
        assert!(put_floor(None, &mut content, &id(SLOTS_MAX), 1).is_err());
        put_floor(None, &mut content, &id(1), 2).unwrap();
    }

    #[test]
    fn a_file_that_was_replaced_is_no_longer_what_a_restart_would_find() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let content = Content::new(Head::default(), &BTreeMap::new());
        let file = create(&path, &content).unwrap();
        let _other = create(&path, &content).unwrap();
        assert!(sync(&path, &file).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(sync(&path, &file).is_err());
    }
}
