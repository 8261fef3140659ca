//! Snapshots in the simulation: a spool that outlives its process, an uploader with a connection of
//! its own, and what has to hold of both (P1, P2, P4, P5, P8).
//!
//! The spool is the sidecar's own, on a disk of its own; the uploader does what the worker of
//! `src/snapshots` does: what the bridge grants is put at the broker, what it revokes is marked on
//! the disk before it is told that the uploader is quiet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use driftgate::protocol::bridge::{Announcement, Effect};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;
use driftgate::protocol::snapshot::FrameKind;
use driftgate::snapshots::spool::{Spool as Disk, State, Stored, put};
use tempfile::TempDir;

use crate::broker::{Command, Event};
use crate::node::Node;
use crate::oracle::Opinion;
use crate::world::World;

/// Snapshots that a spool holds; the oldest that is not waiting makes way.
const HELD_MAX: usize = 32;

/// What has become of an accepted snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Revoked,
    Stored,
    Unsent,
}

/// What is on the disk, and what has to be there.
pub(crate) struct Spool {
    folder: TempDir,
    disk: Option<Arc<Disk>>,
    /// Orders to revoke in this life.
    revocations: u64,
    /// Whose files were damaged: they may be lost, and nothing else.
    damaged: BTreeSet<u64>,
    held: BTreeMap<u64, Fate>,
    /// Those that a confirmed closing has held back: none may reach the broker any more.
    never: Vec<u64>,
}

impl Spool {
    pub(crate) fn new() -> Self {
        // What is synced a thousand times a second is better kept in memory.
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder");
        let disk = Some(Arc::new(Disk::open(folder.path(), 1 << 30).expect("nobody else's")));
        Self {
            folder,
            disk,
            revocations: 0,
            damaged: BTreeSet::new(),
            held: BTreeMap::new(),
            never: Vec::new(),
        }
    }

    fn disk(&self) -> &Arc<Disk> {
        self.disk.as_ref().expect("a process that lives")
    }

    /// Files of snapshots, in order.
    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path()).expect("a folder");
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.retain(|path| seq_of(path).is_some() && path.is_file());
        paths.sort();
        paths
    }

    /// Whether a restart would send it.
    fn would_send(&self, seq: u64) -> bool {
        let state = self.disk().entry(seq).map(|entry| entry.state);
        state == Some(State::Unsent) || self.folder.path().join(format!("{seq}.unsent")).exists()
    }
}

fn seq_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// The part of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uploader {
    /// Whether the spool of the earlier life has been read.
    is_recovered: bool,
    pub(crate) link: Option<u64>,
    sending: Option<u64>,
    stop: Option<Stop>,
    /// Accepted in time for the closing under way, which has to hold them back.
    pub(crate) doomed: Vec<u64>,
    /// The same of closings that have ended and whose answers are about to go.
    pub(crate) ended: VecDeque<Vec<u64>>,
    /// Whether something has happened that revokes what is unsent.
    pub(crate) may_revoke: bool,
    /// The newest index, which a reload may judge again.
    pub(crate) newest: Option<f64>,
    /// Whether the gate stood open or in caution after the last verdict.
    is_open: bool,
    /// A connection has ended with something on it that the broker may still read.
    is_lost: bool,
}

/// An order to stop that is being carried out.
#[derive(Clone, Copy, Debug)]
struct Stop {
    revoke: bool,
    is_asked: bool,
}

impl World<'_> {
    /// One step of one node's runtime or uploader; `false` when there is nothing to do.
    pub(crate) fn upload(&mut self, is_calm: bool) -> bool {
        let stopping = |node: &Node| node.life.uploader.stop.is_some();
        let stopping = self.nodes.iter().position(stopping);
        let urgent = stopping.filter(|_| self.random.in_thousand(800));
        let place = urgent.unwrap_or_else(|| self.random.index(self.nodes.len()));
        let uploader = &self.nodes[place].life.uploader;
        if uploader.stop.is_some() {
            return self.go_on_stopping(place);
        }
        if !uploader.is_recovered {
            self.recover(place);
            return true;
        }
        if self.upload_arrival(place) {
            return true;
        }
        if is_calm || self.random.in_thousand(500) {
            return self.send_next(place);
        }
        if self.random.in_thousand(150) { self.fetch(place) } else { self.push(place) }
    }

    fn recover(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        node.life.uploader.is_recovered = true;
        let found = node.spool.disk().recover().expect("a folder that can be read");
        let fate = |state: &State| match state {
            State::Revoked => Fate::Revoked,
            State::Stored(_) => Fate::Stored,
            State::Unsent => Fate::Unsent,
        };
        let found: BTreeMap<u64, Fate> =
            found.entries.iter().map(|entry| (entry.seq, fate(&entry.state))).collect();
        let spool = &mut node.spool;
        let damaged = std::mem::take(&mut spool.damaged);
        spool.held.retain(|seq, _| !damaged.contains(seq) || found.contains_key(seq));
        let is_same = spool.held == found;
        let newest = found.last_key_value().map_or(0, |(seq, _)| *seq);
        let is_waiting = found.values().any(|fate| *fate == Fate::Unsent);
        self.trace.event(self.now_us, place, "spool", newest);
        let held = self.nodes[place].spool.held.clone();
        self.demand(is_same, || {
            format!("P5, P8: the spool holds {found:?} where {held:?} was left")
        });
        let effects = self.nodes[place].life.bridge.recovered(now, 0, is_waiting);
        self.collect(place, effects);
        self.turn(place, Vec::new());
    }

    /// The spool of a process that has died: something in it may be damaged, or half done.
    pub(crate) fn reopen(&mut self, place: usize) {
        let spool = &mut self.nodes[place].spool;
        spool.disk = None;
        spool.revocations = 0;
        let files = spool.files();
        if !files.is_empty() && self.random.in_thousand(400) {
            let path = &files[self.random.index(files.len())];
            let mut bytes = fs::read(path).expect("a file");
            let at = self.random.index(bytes.len());
            let seq = seq_of(path).expect("a snapshot's");
            self.tally.damaged += 1;
            self.trace.event(self.now_us, place, "damage", seq);
            match self.random.below(4) {
                // Stored, and its earlier name is still there.
                0 if path.extension().is_some_and(|extension| extension == "stored") => {
                    fs::copy(path, path.with_extension("unsent")).expect("a disk");
                }
                0 => {
                    let beside = path.with_file_name("1.plain");
                    fs::write(beside, b"never accepted").expect("a disk");
                }
                1 => bytes.truncate(at),
                2 => bytes[at..].fill(0),
                _ => bytes[at] ^= 1 << self.random.below(8),
            }
            if fs::read(path).expect("a file") != bytes {
                spool.damaged.insert(seq);
                fs::write(path, bytes).expect("a disk");
            }
        }
        spool.disk = Some(Arc::new(Disk::open(spool.folder.path(), 1 << 30).expect("a disk")));
    }

    /// What a grant has to mean (P1, P2).
    fn check_grant(&mut self, place: usize, grant: Option<u64>) -> bool {
        let life = &self.nodes[place].life;
        let may = life.oracle.band == Band::Open && !life.is_closing;
        self.demand(grant.is_none() || may, || "P1: a snapshot while the gate is shut".to_owned());
        grant.is_some()
    }

    fn push(&mut self, place: usize) -> bool {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        node.disk.reserve(node.life.bridge.seq_next(now));
        let grant = node.life.bridge.grant_push(now);
        if !self.check_grant(place, grant) {
            return false;
        }
        let node = &mut self.nodes[place];
        let spool = &mut node.spool;
        let bytes = format!("memory {}", self.tally.snapshots);
        let entry = put(spool.disk(), bytes.as_bytes(), now.wall).expect("a disk with room");
        let seq = entry.seq;
        let is_news = spool.held.last_key_value().is_none_or(|(newest, _)| *newest < seq);
        spool.held.insert(seq, Fate::Unsent);
        if spool.held.len() > HELD_MAX {
            spool.disk().tidy(&BTreeSet::new());
            spool.held.retain(|held, fate| *fate == Fate::Unsent || *held == seq);
        }
        self.trace.event(self.now_us, place, "snapshot", seq);
        self.tally.snapshots += 1;
        self.demand(is_news, || format!("P7: snapshot {seq} has a number that was used"));
        self.turn(place, Vec::new());
        true
    }

    fn fetch(&mut self, place: usize) -> bool {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now_us);
        let is_isolated = node.life.oracle.band == Band::Isolated;
        node.disk.reserve(node.life.bridge.seq_next(now));
        let grant = node.life.bridge.grant_fetch(now);
        self.demand(grant.is_none() || !is_isolated, || "P4: fetches while isolated".to_owned());
        if grant.is_some() {
            self.open(place);
        }
        grant.is_some()
    }

    /// The uploader's connection.
    fn open(&mut self, place: usize) -> Option<u64> {
        if self.nodes[place].life.uploader.link.is_none() && !self.broker.is_stalled(self.now_us) {
            let link = self.broker.connect(place);
            if let Some(connection) = self.broker.connections.get_mut(&link) {
                connection.is_upload = true;
            }
            self.nodes[place].life.uploader.link = Some(link);
        }
        self.nodes[place].life.uploader.link
    }

    fn send_next(&mut self, place: usize) -> bool {
        let node = &mut self.nodes[place];
        if node.life.uploader.sending.is_some() {
            return false;
        }
        let Some(seq) = node.spool.disk().next_unsent().map(|entry| entry.seq) else {
            return false;
        };
        let now = node.clock(self.now_us);
        node.disk.reserve(node.life.bridge.seq_next(now));
        let grant = node.life.bridge.grant_upload(now);
        if !self.check_grant(place, grant) {
            return false;
        }
        self.nodes[place].disk.doubt(true);
        let Some(link) = self.open(place) else { return true };
        let is_whole = self.nodes[place].spool.disk().read(seq).is_ok();
        let is_promised = self.nodes[place].spool.held.get(&seq) == Some(&Fate::Unsent);
        self.demand(is_whole && is_promised, || format!("P5: snapshot {seq} would be sent"));
        if self.broker.order(link, Command::Put(seq)) {
            self.nodes[place].life.uploader.sending = Some(seq);
            self.trace.event(self.now_us, place, "put", seq);
        }
        true
    }

    /// The broker says that a snapshot is stored, or that its connection has ended.
    fn upload_arrival(&mut self, place: usize) -> bool {
        let node = &mut self.nodes[place];
        let Some(link) = node.life.uploader.link else { return false };
        let Some(connection) = self.broker.connections.get_mut(&link) else { return false };
        let Some(Event::Put(seq)) = connection.back.pop_front() else { return false };
        let now = node.clock(self.now_us);
        node.life.uploader.sending = None;
        let fate = node.spool.held.entry(seq).or_insert(Fate::Stored);
        if *fate == Fate::Unsent {
            *fate = Fate::Stored;
            let stored = Stored { kind: FrameKind::Full, stored_bytes: 9, base: None };
            node.spool.disk().note_stored(seq, &stored);
            node.spool.disk().write_stored(seq).expect("a disk");
        }
        let manifest = bytes::Bytes::from_static(b"{}");
        let announced = Some(Announcement { manifest, envelope: "".into() });
        let digest = Digest::of(&seq.to_be_bytes());
        let effects = node.life.bridge.stored(now, digest, announced);
        let may = node.life.oracle.band == Band::Open && !node.life.is_closing;
        let announces = effects.iter().any(|effect| matches!(effect, Effect::Announce(_)));
        self.demand(may || !announces, || format!("P1: announces {seq} while the gate is shut"));
        self.trace.event(self.now_us, place, "put is stored", seq);
        self.collect(place, effects);
        self.turn(place, Vec::new());
        true
    }

    /// The bridge orders the uploader to stop.
    pub(crate) fn stop_uploads(&mut self, place: usize, revoke: bool) {
        self.trace.event(self.now_us, place, "stop uploads", u64::from(revoke));
        let uploader = &mut self.nodes[place].life.uploader;
        let revoke = revoke || uploader.stop.is_some_and(|stop| stop.revoke);
        let is_asked = uploader.stop.is_some_and(|stop| stop.is_asked);
        uploader.stop = Some(Stop { revoke, is_asked });
        let may = uploader.may_revoke;
        let (now, bridge) = (self.nodes[place].clock(self.now_us), &self.nodes[place].life.bridge);
        let reasons = bridge.safety(now).reasons;
        self.demand(!revoke || may, || {
            format!("P8: snapshots are revoked though nothing says unstable: {reasons:?}")
        });
    }

    /// What a kept order asks of the disk.
    fn revoke(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let spool = &mut node.spool;
        let has_unsent = spool.held.values().any(|fate| *fate == Fate::Unsent);
        if has_unsent && node.life.uploader.stop.is_some_and(|stop| stop.revoke) {
            spool.revocations += 1;
            spool.disk().revoke(spool.revocations).expect("a disk");
            let unsent = spool.held.values_mut().filter(|fate| **fate == Fate::Unsent);
            unsent.for_each(|fate| *fate = Fate::Revoked);
        }
    }

    fn go_on_stopping(&mut self, place: usize) -> bool {
        self.revoke(place);
        let uploader = &mut self.nodes[place].life.uploader;
        let (Some(link), Some(stop)) = (uploader.link, uploader.stop.as_mut()) else {
            self.quiet(place, true);
            return true;
        };
        let Some(connection) = self.broker.connections.get_mut(&link) else { return false };
        if !stop.is_asked {
            stop.is_asked = true;
            self.broker.order(link, Command::Confirm(0));
            return true;
        }
        match connection.back.pop_front() {
            Some(Event::Echo(_)) => self.quiet(place, true),
            Some(_) => {}
            None if self.random.in_thousand(10) => self.quiet(place, false),
            None => return false,
        }
        true
    }

    fn quiet(&mut self, place: usize, confirmed: bool) {
        let node = &mut self.nodes[place];
        // An echo proves what went before it on its own connection, and nothing of an earlier one.
        let confirmed = confirmed && !std::mem::take(&mut node.life.uploader.is_lost);
        node.life.uploader.sending = None;
        self.drop_upload_link(place);
        let node = &mut self.nodes[place];
        node.life.uploader.stop = None;
        let now = node.clock(self.now_us);
        let effects = node.life.bridge.uploads_quiet(now, confirmed);
        self.trace.event(self.now_us, place, "uploads quiet", u64::from(confirmed));
        self.collect(place, effects);
        self.turn(place, Vec::new());
    }

    /// The bridge does not wait for the uploader any longer.
    pub(crate) fn sever_uploads(&mut self, place: usize) {
        self.trace.event(self.now_us, place, "sever uploads", 0);
        self.revoke(place);
        self.drop_upload_link(place);
        let uploader = &mut self.nodes[place].life.uploader;
        // The bridge takes a severed connection for one that may still be read.
        (uploader.stop, uploader.is_lost) = (None, false);
    }

    pub(crate) fn drop_upload_link(&mut self, place: usize) {
        let uploader = &mut self.nodes[place].life.uploader;
        uploader.is_lost |= uploader.sending.take().is_some();
        if let Some(link) = uploader.link.take() {
            self.broker.drop_connection(&mut self.random, self.now_us, link);
        }
    }

    /// Books a verdict: what is unsent when the gate closes has to be held back.
    pub(crate) fn doom(&mut self, place: usize, opinion: Opinion) {
        let node = &mut self.nodes[place];
        let uploader = &mut node.life.uploader;
        let was_open = std::mem::replace(&mut uploader.is_open, opinion.band < Band::Blocked);
        if opinion.closes && was_open {
            uploader.may_revoke = true;
            // Before its spool is read the bridge knows of nothing that it could hold back.
            if uploader.is_recovered {
                let unsent = node.spool.held.iter().filter(|(_, fate)| **fate == Fate::Unsent);
                uploader.doomed.extend(unsent.map(|(seq, _)| *seq));
            }
        }
    }

    /// A closing has ended (P5): what it had to hold back is marked on the disk.
    pub(crate) fn check_doomed(&mut self, place: usize, is_confirmed: bool) {
        let node = &mut self.nodes[place];
        let doomed = node.life.uploader.ended.pop_front().unwrap_or_default();
        let held = &node.spool.held;
        let escapes = doomed.iter().find(|seq| node.spool.would_send(**seq)).copied();
        if is_confirmed {
            let never = doomed.iter().filter(|seq| held.get(seq) == Some(&Fate::Revoked));
            node.spool.never.extend(never);
        }
        self.demand(escapes.is_none(), || {
            format!("P5: snapshot {escapes:?} may still be sent after its closing has ended")
        });
    }

    /// The broker has a snapshot.
    pub(crate) fn check_put(&mut self, place: usize, seq: u64) {
        self.tally.puts += 1;
        let is_allowed = !self.nodes[place].spool.never.contains(&seq);
        self.trace.event(self.now_us, place, "snapshot processed", seq);
        self.demand(is_allowed, || {
            format!("P2: the broker gets snapshot {seq}, which was revoked")
        });
    }

    /// Whether all that was promised has gone, and nothing hangs (P8).
    pub(crate) fn is_uploaded(&self, place: usize) -> bool {
        let node = &self.nodes[place];
        let bridge = &node.life.bridge;
        // Where nobody may have it, it waits.
        let waits = bridge.may_upload() && !bridge.may_share(node.clock(self.now_us));
        let unsent = !waits && node.spool.held.values().any(|fate| *fate == Fate::Unsent);
        node.life.uploader.is_recovered && node.life.uploader.stop.is_none() && !unsent
    }
}
