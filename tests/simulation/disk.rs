//! The memory file: what the driver writes before it matters, and what is left of it after a death
//! (P2, P6, P7). The bytes are those of the sidecar; the file is a vector.

use std::collections::BTreeMap;

use driftgate::protocol::bridge::Memory;
use driftgate::protocol::memory::{self, Content, Head, Holds, Patch, RESERVE_US, SLOT_BYTES};

use driftgate::protocol::presence::Instance;

use crate::broker::Command;
use crate::node::{id_of, place_of};
use crate::world::World;

/// What the system has of the file: `kill -9` spares it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    file: Vec<u8>,
    content: Content,
    holds: Holds,
}

impl Disk {
    pub(crate) fn new(instance: Option<Instance>) -> Self {
        Self::of(&Memory::default(), Holds::default(), instance)
    }

    fn of(memory: &Memory, holds: Holds, instance: Option<Instance>) -> Self {
        let Memory { seq, in_doubt, .. } = *memory;
        let head = Head { seq, held_by: holds, in_doubt, instance, ..Head::default() };
        let content = Content::new(head, &memory.floors, &memory.manifests);
        Self { file: content.bytes(), content, holds }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holds.any()
    }

    fn put(&mut self, patches: impl IntoIterator<Item = Patch>) {
        for Patch { at, bytes } in patches {
            let end = at + bytes.len();
            self.file.resize(self.file.len().max(end), 0);
            self.file[at..end].copy_from_slice(&bytes);
        }
    }

    pub(crate) fn reserve(&mut self, next: u64) {
        let patch = self.content.reserve(next);
        self.put(patch);
    }

    pub(crate) fn doubt(&mut self, in_doubt: bool) {
        let patch = self.content.doubt(in_doubt);
        self.put(patch);
    }

    pub(crate) fn hold(&mut self, command: bool) {
        self.holds = Holds { command, ..Holds::default() };
        let patch = self.content.hold(self.holds);
        self.put([patch]);
    }

    /// A lock begins without an order.
    pub(crate) fn lock(&mut self) {
        if !self.holds.any() {
            self.holds.lock = true;
            let patch = self.content.hold(self.holds);
            self.put([patch]);
        }
    }

    pub(crate) fn floor(&mut self, source: usize, seq: u64) {
        let patches = self.content.floor(&id_of(source), seq).expect("few sources");
        self.put(patches);
    }
}

impl World<'_> {
    /// What a new life finds: all of it, something damaged, or nothing. Checks that nothing which
    /// was promised has been loosened.
    pub(crate) fn reread(&mut self, place: usize) -> Memory {
        let is_deleted = self.random.in_thousand(100);
        let damage = (!is_deleted && self.random.in_thousand(400)).then(|| self.random.below(5));
        let disk = &mut self.nodes[place].disk;
        let len = disk.file.len();
        let at = self.random.index(len);
        match damage {
            Some(0) => disk.file[at] ^= 1 << self.random.below(8),
            Some(1) => disk.file.truncate(at),
            // Where the damage is found most often it hurts most: the head and the first floors.
            // The head: who holds, what is in doubt, and how long the file is.
            Some(3) => disk.file[at % SLOT_BYTES] ^= 1 << self.random.below(8),
            Some(2) => disk.file[at % 1024] ^= 1 << self.random.below(8),
            Some(_) => disk.file[at..].fill(0),
            None => {}
        }
        let node = &self.nodes[place];
        let wall_us = node.clock(self.now_us).wall.unix_us();
        let found = if is_deleted {
            // Whoever deletes it starts anew; only the connections know better.
            let head = Head { in_doubt: true, ..Head::default() };
            let content = Content::new(head, &BTreeMap::new(), &BTreeMap::new());
            memory::read(&content.bytes())
        } else {
            memory::read(&node.disk.file)
        };
        let (memory, holds) = found.believe(wall_us, node.live.peers.keys());
        if is_deleted || damage.is_some() {
            // Whom the clock has left behind is shown again what it had taken.
            self.nodes[place].runtime.taken.clear();
        }
        self.tally.damaged += u64::from(damage.is_some());
        if !is_deleted {
            self.check_reread(place, &memory, wall_us, damage.is_some());
        }
        let node = &mut self.nodes[place];
        node.newest_emitted = node.newest_emitted.min(memory.seq);
        node.begin_life(&mut self.random);
        node.disk = Disk::of(&memory, holds, node.instance());
        self.trace.event(self.now_us, place, "reads", u64::from(is_deleted));
        memory
    }

    fn check_reread(&mut self, place: usize, memory: &Memory, wall_us: u64, is_damaged: bool) {
        let node = &self.nodes[place];
        let life = &node.life;
        let is_kept = |source: &usize, floor: u64| {
            let id = id_of(*source);
            // A floor that is damaged is that of a packet of now.
            let least = if is_damaged { floor.min(wall_us) } else { floor };
            // Whoever is no peer is not heard.
            !node.live.peers.contains_key(&id)
                || memory.floors.get(&id).is_some_and(|kept| *kept >= least)
        };
        let floors = life.floors.iter().all(|(source, floor)| is_kept(source, *floor));
        // What is left of the connections of this life, and what they are known to have sent.
        let in_doubt = self.broker.connections.values().any(|connection| {
            let sends = |command: &Command| {
                matches!(
                    command,
                    Command::Publish { .. }
                        | Command::Notify
                        | Command::Show { .. }
                        | Command::Put(_)
                )
            };
            connection.node == place && connection.wire.iter().any(sends)
        });
        // A clock that stepped back is believed, up to what may be reserved ahead of it.
        let newest = node.newest_emitted.min(wall_us + RESERVE_US);
        let rules = [
            (floors, "P7: a floor is not on disk"),
            (memory.operator_hold || !life.oracle.held, "P6: a hold is not on disk"),
            (memory.in_doubt || !in_doubt, "P2: what is unread is not on disk"),
            (memory.seq >= newest, "P7: a number is not reserved on disk"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, promise)| *promise);
        let known = life.floors.clone();
        self.demand(broken.is_none(), || {
            let floors: BTreeMap<usize, u64> =
                memory.floors.iter().map(|(id, floor)| (place_of(id), *floor)).collect();
            format!("{}: {memory:?}, {floors:?} where {known:?}", broken.unwrap_or_default())
        });
    }
}
