//! What has to survive a crash, as the bytes of a file: slots of one size, each with a checksum.
//!
//! A change is a [`Patch`] of one slot, so that it is there whole or is seen to be damaged. Each
//! slot is one line of JSON, padded, so that an operator can read the file. The room for it is
//! taken ahead, so that a disk that fills up later stops nothing.
//!
//! **Damage never loosens** (P6). What cannot be read counts as standing: a hold holds until an
//! operator releases it, doubt is doubt, and where floors are lost, packets and capability
//! manifests made before the start count as seen.
//!
//! What deliberately is not here: the file, and when it is synced.

use std::collections::{BTreeMap, BTreeSet};

use super::bridge::Memory;
use super::digest::Digest;
use super::packet::RuntimeId;
use super::presence::Instance;

/// Bytes of one slot: the longest id and the longest number fit twice, and 512-byte sectors hold
/// whole slots.
pub const SLOT_BYTES: usize = 256;
/// Slots by which the file grows.
const GROWTH: usize = 64;
/// Most slots: 2 MiB. A source more has no floor on the disk, which is said.
const SLOTS_MAX: usize = 8192;
/// How far ahead sequence numbers are reserved, in the microseconds that they count.
pub const RESERVE_US: u64 = 5_000_000;
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What stands in the first slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Slots of the file, so that a shorter one is known to be damaged.
    pub slots: usize,
    /// No sequence number above this has been used.
    pub seq: u64,
    /// Who holds the gate isolated.
    pub held_by: Holds,
    /// Whether the broker may still have to read what was sent.
    pub in_doubt: bool,
    /// Which life of the sidecar wrote it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Slot {
    Head(Head),
    Floor {
        source: String,
        seq: u64,
        /// Number of the newest capability manifest; 0 for none.
        #[serde(default, skip_serializing_if = "is_zero")]
        manifest: u64,
    },
    Free,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What was seen of one source, and in which slot that stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Floor {
    slot: usize,
    seq: u64,
    manifest: u64,
}

impl Floor {
    fn patch(self, source: &RuntimeId) -> Patch {
        patch(self.slot, &self.written(source))
    }

    fn written(self, source: &RuntimeId) -> Slot {
        Slot::Floor { source: source.to_string(), seq: self.seq, manifest: self.manifest }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    sum: String,
    slot: Slot,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The first slot.
    pub head: Head,
    floors: BTreeMap<RuntimeId, Floor>,
}

/// What was read of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `None`: it cannot be read.
    pub head: Option<Head>,
    /// Highest accepted sequence number of each source.
    pub floors: BTreeMap<RuntimeId, u64>,
    /// Number of the newest capability manifest of each source; 0 for none.
    pub manifests: BTreeMap<RuntimeId, u64>,
    /// Slots beside the head that cannot be read; each may have been any source's floor.
    pub lost: usize,
}

/// Reads a file's bytes. Whatever is there, it is read as far as it is whole.
#[must_use]
pub fn read(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    let mut seen = 0;
    for (index, bytes) in bytes.chunks(SLOT_BYTES).take(SLOTS_MAX).enumerate() {
        seen += 1;
        match decode(index, bytes) {
            Some(Slot::Head(head)) if index == 0 => found.head = Some(head),
            Some(Slot::Floor { source, seq, manifest }) if index > 0 => {
                match RuntimeId::new(&source) {
                    Some(source) => {
                        found.floors.insert(source.clone(), seq);
                        found.manifests.insert(source, manifest);
                    }
                    None => found.lost += 1,
                }
            }
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

fn encode(index: usize, slot: &Slot) -> Vec<u8> {
    // Strings and numbers only: that is always written.
    let text = serde_json::to_string(slot).unwrap_or_default();
    let record = Record { sum: sum(index, &text), slot: slot.clone() };
    let mut bytes = serde_json::to_vec(&record).unwrap_or_default();
    bytes.resize(SLOT_BYTES - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// A slot is whole when it is to the byte what would be written for what it says.
fn decode(index: usize, bytes: &[u8]) -> Option<Slot> {
    let record: Record = serde_json::from_slice(bytes).ok()?;
    (encode(index, &record.slot) == bytes).then_some(record.slot)
}

/// A floor's slot, or why it has none.
enum Allotment {
    Slot(usize),
    /// The file has to grow first.
    Grow(usize),
    Full,
}

impl Content {
    /// What a new file begins with.
    #[must_use]
    pub fn new(
        head: Head,
        floors: &BTreeMap<RuntimeId, u64>,
        manifests: &BTreeMap<RuntimeId, u64>,
    ) -> Self {
        let sources: BTreeSet<&RuntimeId> = floors.keys().chain(manifests.keys()).collect();
        let number = |of: &BTreeMap<RuntimeId, u64>, source: &RuntimeId| {
            of.get(source).copied().unwrap_or(0)
        };
        let floor = |(source, slot): (&RuntimeId, usize)| {
            let (seq, manifest) = (number(floors, source), number(manifests, source));
            (source.clone(), Floor { slot, seq, manifest })
        };
        let floors: BTreeMap<_, _> =
            sources.into_iter().take(SLOTS_MAX - 1).zip(1..).map(floor).collect();
        let slots = (floors.len() + 1).div_ceil(GROWTH).max(1) * GROWTH;
        Self { head: Head { slots, ..head }, floors }
    }

    /// The slots that differ from those of `older`, which has as many.
    #[must_use]
    pub fn since(&self, older: &Self) -> Vec<Patch> {
        let differs = |(source, floor): &(&_, &_)| older.floors.get(*source) != Some(*floor);
        let changed = self.floors.iter().filter(differs);
        let floors = changed.map(|(source, floor)| floor.patch(source));
        core::iter::once(self.head_patch()).chain(floors).collect()
    }

    fn allot(&self, source: &RuntimeId) -> Allotment {
        // No slot is ever given up, so the next one is free.
        let next = self.floors.len() + 1;
        match self.floors.get(source) {
            Some(floor) => Allotment::Slot(floor.slot),
            None if next >= SLOTS_MAX => Allotment::Full,
            None if next >= self.head.slots => Allotment::Grow(next),
            None => Allotment::Slot(next),
        }
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut by_slot: BTreeMap<usize, Slot> =
            self.floors.iter().map(|(source, floor)| (floor.slot, floor.written(source))).collect();
        by_slot.insert(0, Slot::Head(self.head));
        let slot = |index| encode(index, by_slot.get(&index).unwrap_or(&Slot::Free));
        (0..self.head.slots).flat_map(slot).collect()
    }

    /// Sequence numbers from `next` on are about to be used: reserves them and some more, half a
    /// reservation ahead of need.
    #[must_use]
    pub fn reserve(&mut self, next: u64) -> Option<Patch> {
        let is_due = next.saturating_add(RESERVE_US / 2) > self.head.seq;
        is_due.then(|| self.set(|head| head.seq = next.saturating_add(RESERVE_US)))
    }

    /// Something is about to be sent that the broker may come to read late, or all is read.
    #[must_use]
    pub fn doubt(&mut self, in_doubt: bool) -> Option<Patch> {
        let changes = self.head.in_doubt != in_doubt;
        changes.then(|| self.set(|head| head.in_doubt = in_doubt))
    }

    /// Who holds from now on.
    #[must_use]
    pub fn hold(&mut self, holds: Holds) -> Patch {
        self.set(|head| head.held_by = holds)
    }

    /// A packet of `source` with this number is about to be shown.
    ///
    /// # Errors
    /// [`Full`].
    pub fn floor(&mut self, source: &RuntimeId, seq: u64) -> Result<Vec<Patch>, Full> {
        self.raise(source, |floor| floor.seq = seq)
    }

    /// A capability manifest of `source` with this number is about to count.
    ///
    /// # Errors
    /// [`Full`].
    pub fn manifest(&mut self, source: &RuntimeId, number: u64) -> Result<Vec<Patch>, Full> {
        let is_kept = self.floors.get(source).is_some_and(|floor| floor.manifest == number);
        if is_kept {
            return Ok(Vec::new());
        }
        self.raise(source, |floor| floor.manifest = number)
    }

    fn raise(
        &mut self,
        source: &RuntimeId,
        change: impl FnOnce(&mut Floor),
    ) -> Result<Vec<Patch>, Full> {
        let (slot, grows) = match self.allot(source) {
            Allotment::Slot(slot) => (slot, false),
            Allotment::Grow(slot) => (slot, true),
            Allotment::Full => return Err(Full),
        };
        let floor = self.floors.entry(source.clone()).or_default();
        floor.slot = slot;
        change(floor);
        let floor = *floor;
        let mut patches = Vec::new();
        if grows {
            let first = self.head.slots;
            self.head.slots += GROWTH;
            patches = (first..self.head.slots).map(|index| patch(index, &Slot::Free)).collect();
            patches.push(self.head_patch());
        }
        patches.push(floor.patch(source));
        Ok(patches)
    }

    fn set(&mut self, change: impl FnOnce(&mut Head)) -> Patch {
        change(&mut self.head);
        self.head_patch()
    }

    /// The head in its slot.
    #[must_use]
    pub fn head_patch(&self) -> Patch {
        patch(0, &Slot::Head(self.head))
    }
}

/// One slot's bytes and their place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Offset, in bytes.
    pub at: usize,
    /// [`SLOT_BYTES`] of them.
    pub bytes: Vec<u8>,
}

fn patch(index: usize, slot: &Slot) -> Patch {
    Patch { at: index * SLOT_BYTES, bytes: encode(index, slot) }
}

/// More sources than the file has slots: the floor of this one would not survive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {SLOTS_MAX} sources")]
pub struct Full;

impl Found {
    /// What a life that begins at `now_us`, with these peers, has to go by: what is damaged is read
    /// as strictly as it can have been.
    #[must_use]
    pub fn believe<'a>(
        self,
        now_us: u64,
        peers: impl Iterator<Item = &'a RuntimeId>,
    ) -> (Memory, Holds) {
        let is_damaged = self.is_damaged();
        let head = self.head.unwrap_or_else(|| Head {
            seq: u64::MAX,
            held_by: Holds { command: true, ..Holds::default() },
            in_doubt: true,
            ..Head::default()
        });
        let mut memory = Memory {
            // A reservation is not used further than it can have been meant.
            seq: head.seq.min(now_us.saturating_add(RESERVE_US)),
            floors: self.floors,
            manifests: self.manifests,
            operator_hold: head.held_by.any(),
            in_doubt: head.in_doubt,
            instance: head.instance,
        };
        if is_damaged {
            for peer in peers {
                memory.floors.entry(peer.clone()).or_insert(now_us);
                memory.manifests.entry(peer.clone()).or_insert(now_us);
            }
        }
        (memory, head.held_by)
    }

    /// Whether anything in it could not be read.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.head.is_none() || self.lost > 0
    }
}

/// Who holds the gate isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holds {
    /// A command of a route or a signal; a release takes it back.
    pub command: bool,
    /// The hold file; its removal takes it back.
    pub file: bool,
    /// An index at `containment.lock`; a release takes it back.
    pub lock: bool,
}

impl Holds {
    /// Whether anybody holds.
    #[must_use]
    pub fn any(self) -> bool {
        self.command || self.file || self.lock
    }

    /// The holders' words in answers.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let holders = [(self.command, "command"), (self.file, "file"), (self.lock, "lock")];
        holders.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect()
    }

    /// At a start, with what survived and whether the file is there now. A file that vanished
    /// meanwhile may have gone with the container and not by an operator's hand, so its hold stays
    /// until a release.
    #[must_use]
    pub fn at_start(self, file_exists: bool) -> Self {
        Self { command: self.command || (self.file && !file_exists), file: file_exists, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> RuntimeId {
        RuntimeId::new(&format!("peer-{number}")).unwrap()
    }

    fn put(bytes: &mut Vec<u8>, patches: Vec<Patch>) {
        for Patch { at, bytes: new } in patches {
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
    }

    #[test]
    fn the_longest_floor_fits_a_slot() {
        let source = "x".repeat(crate::protocol::packet::RUNTIME_ID_BYTES_MAX);
        let slot = Slot::Floor { source, seq: u64::MAX, manifest: u64::MAX };
        let bytes = encode(SLOTS_MAX, &slot);
        assert_eq!((bytes.len(), bytes.last()), (SLOT_BYTES, Some(&b'\n')));
        assert_eq!(decode(SLOTS_MAX, &bytes), Some(slot));
        assert_eq!(decode(1, &bytes), None, "a slot in another's place");
    }

    #[test]
    fn the_floors_of_a_thousand_sources_come_back_and_the_file_grows_by_steps() {
        let mut content = Content::new(Head::default(), &BTreeMap::new(), &BTreeMap::new());
        let mut bytes = content.bytes();
        for number in 0..1000 {
            put(&mut bytes, content.floor(&id(number), 5).unwrap());
            put(&mut bytes, content.floor(&id(number), 6).unwrap());
            put(&mut bytes, content.manifest(&id(number), 7).unwrap());
            assert!(content.manifest(&id(number), 7).unwrap().is_empty(), "it stands there");
        }
        let found = read(&bytes);
        assert!(!found.is_damaged());
        assert_eq!(found.floors.len(), 1000);
        assert!(found.floors.values().all(|seq| *seq == 6));
        assert!(found.manifests.values().all(|number| *number == 7));
        assert_eq!(found.head.unwrap().slots, 1024);
        let again = Content::new(found.head.unwrap(), &found.floors, &found.manifests);
        assert_eq!(read(&again.bytes()), found);
    }

    #[test]
    fn there_is_a_last_slot_and_what_has_none_is_an_error() {
        let mut content = Content::new(Head::default(), &BTreeMap::new(), &BTreeMap::new());
        for number in 1..SLOTS_MAX {
            content.floor(&id(number), 1).unwrap();
        }
        assert_eq!(content.floor(&id(SLOTS_MAX), 1), Err(Full));
        content.floor(&id(1), 2).unwrap();
    }
}
