//! What survives a restart: sequence numbers, the floors of peers (packets and manifests), an
//! operator's hold, and whether the broker may still have to read something of ours.
//!
//! Each of them is written before it matters: a floor before its packet can be shown, the doubt
//! before a packet leaves, a reservation before a number of it is used. That is a write into the
//! page cache and no more (`slots.rs`), which `kill -9` spares; once a second, and before an
//! operator is told that an order will survive, it is synced on another thread. A disk that fails
//! degrades `/readyz`, is tried again, and hurts nobody (P10).
//!
//! What is damaged is read as strictly as it can have been (`protocol/memory.rs`). A file that is
//! not there is a first start; one that somebody deleted cannot be told from that.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::clock::Clock;
use super::slots;
use crate::protocol::bridge::Memory;
use crate::protocol::memory::{self, Content, FILE_BYTES_MAX, Found, Full, Head, Holds, Patch};
use crate::protocol::packet::RuntimeId;
use crate::protocol::presence::Instance;
use crate::telemetry::{Condition, Conditions};

/// Between two looks at whether something has to be synced.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a start waits for the disk to take the memory.
const START_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads what the last life left, for a sidecar with these peers. What is damaged is read as
/// strictly as it can have been, and said.
#[must_use]
pub fn load<'a>(
    path: &Path,
    peers: impl Iterator<Item = &'a RuntimeId>,
    conditions: &Conditions,
) -> (Memory, Holds) {
    let found = match read(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Default::default(),
        Err(error) => {
            tracing::error!(%error, file = %path.display(), "the memory cannot be read");
            Found::default()
        }
    };
    let now = Clock::start().now().wall.unix_us();
    if found.is_damaged() {
        let hold = if found.head.is_none() { "a hold counts as standing, " } else { "" };
        let text = format!("{}: {hold}packets made before now count as shown", path.display());
        conditions.begin(Condition::MemoryDamaged, text);
    }
    found.believe(now, peers)
}

fn read(path: &Path) -> io::Result<Found> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(memory::read(&bytes))
}

/// A write that goes on in a thread for what blocks.
#[derive(Debug)]
struct Work {
    /// Gives a new file where it made one.
    task: JoinHandle<io::Result<Option<File>>>,
    /// What the new file holds.
    content: Option<Content>,
}

/// Keeps the memory on the disk.
#[derive(Debug)]
pub(super) struct Keeper {
    path: Option<PathBuf>,
    /// `None`: it has to be made (again).
    file: Option<Arc<File>>,
    content: Content,
    work: Option<Work>,
    /// Who waits for the work under way, and who for the one after it.
    waiting: Vec<oneshot::Sender<bool>>,
    waiting_next: Vec<oneshot::Sender<bool>>,
    conditions: Conditions,
    /// Something was written since the last sync.
    is_dirty: bool,
    look_after: Duration,
}

impl Keeper {
    /// Keeps the memory in `path`, which held `memory`; without a path it keeps nothing.
    pub(super) fn new(
        path: Option<PathBuf>,
        memory: &Memory,
        instance: Option<Instance>,
        holds: Holds,
        conditions: Conditions,
    ) -> Self {
        let (seq, in_doubt) = (memory.seq, memory.in_doubt);
        let head = Head { seq, held_by: holds, in_doubt, instance, ..Head::default() };
        Self {
            path,
            file: None,
            content: Content::new(head, &memory.floors, &memory.manifests),
            work: None,
            waiting: Vec::new(),
            waiting_next: Vec::new(),
            conditions,
            is_dirty: false,
            look_after: Duration::ZERO,
        }
    }

    /// Makes the file, before anything that it has to hold can happen. A disk that takes longer is
    /// not waited for (P10); its write goes on.
    pub(super) async fn start(&mut self, now: Duration) {
        self.look(now, || true);
        drop(tokio::time::timeout(START_TIMEOUT, self.written()).await);
    }

    /// Sequence numbers from `next` on are about to be used.
    pub(super) fn reserve(&mut self, next: u64) {
        let patch = self.content.reserve(next);
        self.put(patch.as_slice());
    }

    /// A packet of `source` with this number is about to be shown.
    pub(super) fn floor(&mut self, source: &RuntimeId, seq: u64) {
        if self.path.is_some() {
            let patches = self.content.floor(source, seq);
            self.put_floor(patches);
        }
    }

    /// A capability manifest of `source` with this number is about to count.
    pub(super) fn manifest(&mut self, source: &RuntimeId, number: u64) {
        if self.path.is_some() {
            let patches = self.content.manifest(source, number);
            self.put_floor(patches);
        }
    }

    fn put_floor(&mut self, patches: Result<Vec<Patch>, Full>) {
        match patches {
            Ok(patches) => self.put(&patches),
            Err(full) => self.fail(&io::Error::other(full)),
        }
    }

    /// Something is about to be sent that the broker may come to read late. Forgotten again by
    /// [`Self::look`], when all is read.
    pub(super) fn doubt(&mut self) {
        let patch = self.content.doubt(true);
        self.put(patch.as_slice());
    }

    /// Who holds from now on. The answer tells whether that is on the disk: it is synced, so that
    /// it survives a crash of the machine.
    pub(super) fn hold(&mut self, holds: Holds) -> oneshot::Receiver<bool> {
        let patch = self.content.hold(holds);
        self.put(&[patch]);
        let (done, answer) = oneshot::channel();
        // Without a file nobody is told yes: a dropped sender is a no.
        if self.path.is_some() {
            self.waiting_next.push(done);
        }
        answer
    }

    /// Syncs when somebody waits for it, or when something was written and a second has passed
    /// since the last look. Then doubt that has ended is forgotten, too.
    pub(super) fn look(&mut self, now: Duration, in_doubt: impl FnOnce() -> bool) {
        let Some(path) = self.path.clone().filter(|_| self.work.is_none()) else { return };
        let is_due = self.has_work() && now >= self.look_after;
        if self.waiting_next.is_empty() && !is_due {
            return;
        }
        self.look_after = now + LOOK_INTERVAL;
        if self.content.head.in_doubt && !in_doubt() {
            let patch = self.content.doubt(false);
            self.put(patch.as_slice());
        }
        self.start_work(path);
    }

    fn start_work(&mut self, path: PathBuf) {
        self.waiting.append(&mut self.waiting_next);
        self.is_dirty = false;
        let work = match self.file.clone() {
            Some(file) => {
                let sync = move || slots::sync(&path, &file).map(|()| None);
                Work { task: tokio::task::spawn_blocking(sync), content: None }
            }
            None => {
                let content = self.content.clone();
                let create = move || slots::create(&path, &content).map(Some);
                let task = tokio::task::spawn_blocking(create);
                Work { task, content: Some(self.content.clone()) }
            }
        };
        self.work = Some(work);
    }

    /// Whether there is something to sync, to make, or to forget.
    fn has_work(&self) -> bool {
        self.is_dirty || self.content.head.in_doubt || self.file.is_none()
    }

    /// When [`Self::look`] wants to be called, if nothing else happens.
    pub(super) fn next_look(&self) -> Duration {
        let waits = self.path.is_some() && self.work.is_none() && self.has_work();
        if waits { self.look_after } else { Duration::MAX }
    }

    /// Waits for the end of a sync; for ever when there is none. One that failed is tried again.
    ///
    /// # Cancel safety
    /// Safe: the work goes on.
    pub(super) async fn written(&mut self) {
        let Some(work) = &mut self.work else { return std::future::pending().await };
        let outcome = (&mut work.task).await;
        let Some(Work { content, .. }) = self.work.take() else { return };
        // No thread for it, or the process is ending.
        let outcome = outcome.unwrap_or_else(|error| Err(io::Error::other(error)));
        let is_kept = outcome.is_ok();
        match outcome {
            Ok(file) => {
                self.conditions.end(Condition::MemoryUnwritable);
                if let Some(file) = file {
                    self.file = Some(Arc::new(file));
                    self.catch_up(content);
                }
            }
            Err(error) => self.fail(&error),
        }
        for done in self.waiting.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = done.send(is_kept);
        }
    }

    /// Puts into a new file what has changed while it was being made.
    fn catch_up(&mut self, made: Option<Content>) {
        let Some(made) = made.filter(|made| *made != self.content) else { return };
        if made.head.slots != self.content.head.slots {
            // It has grown meanwhile, which is rare: the next look makes it anew.
            self.file = None;
            return;
        }
        self.put(&self.content.since(&made));
    }

    /// The last sync of this life.
    pub(super) async fn keep(mut self, in_doubt: bool) {
        if self.work.is_some() {
            self.written().await;
        }
        let patch = self.content.doubt(in_doubt);
        self.put(patch.as_slice());
        if let Some(path) = self.path.clone() {
            self.start_work(path);
            self.written().await;
        }
    }

    fn put(&mut self, patches: &[Patch]) {
        if patches.is_empty() {
            return;
        }
        self.is_dirty = true;
        let file = self.file.clone();
        if let Some(Err(error)) = file.map(|file| slots::put(&file, patches)) {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        let text = format!("{error}: holds and floors would not survive a restart");
        self.conditions.begin(Condition::MemoryUnwritable, text);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::memory::RESERVE_US;

    fn id(text: &str) -> RuntimeId {
        RuntimeId::new(text).unwrap()
    }

    /// Bytes of a memory that holds everything that can be lost.
    fn whole(folder: &Path) -> (PathBuf, Vec<u8>) {
        let path = folder.join("memory.json");
        let head = Head {
            seq: 7,
            held_by: Holds { command: true, ..Holds::default() },
            in_doubt: true,
            ..Head::default()
        };
        let floors = BTreeMap::from([(id("critic"), 11), (id("monitor"), 12)]);
        drop(slots::create(&path, &Content::new(head, &floors, &BTreeMap::new())).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    }

    /// Flipped bits, cut ends, zeroes, and files that were written in part.
    fn damages(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut damages = vec![
            ("empty".to_owned(), Vec::new()),
            ("all zeroes".to_owned(), vec![0; whole.len()]),
            ("another file".to_owned(), b"{\"seq\":1,\"floors\":{}}".to_vec()),
            ("twice as long".to_owned(), [whole, whole].concat()),
        ];
        for part in 0..20 {
            let at = whole.len() * part / 20 + part;
            let mut flipped = whole.to_vec();
            flipped[at] ^= 0x04;
            damages.push((format!("flipped at {at}"), flipped));
            damages.push((format!("cut at {at}"), whole[..at].to_vec()));
            let mut half = whole.to_vec();
            half[at..].fill(0);
            damages.push((format!("zeroes from {at}"), half));
        }
        for at in (0..768).step_by(13) {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 0x01;
            damages.push((format!("flipped at {at}"), flipped));
        }
        damages
    }

    #[test]
    fn damage_never_loosens_and_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (path, whole) = whole(folder.path());
        let peers = [id("critic"), id("monitor"), id("new")];
        let damages = damages(&whole);
        assert!(damages.len() > 100);
        for (name, bytes) in damages {
            std::fs::write(&path, &bytes).unwrap();
            let conditions = Conditions::new();
            let (memory, holds) = load(&path, peers.iter(), &conditions);
            assert!(holds.any() && memory.operator_hold, "{name}: the hold is gone");
            assert!(memory.in_doubt, "{name}: the doubt is gone");
            assert!(memory.floors[&id("critic")] >= 11, "{name}: {memory:?}");
            assert!(memory.floors[&id("monitor")] >= 12, "{name}: {memory:?}");
            assert!(conditions.holds(Condition::MemoryDamaged), "{name} is not said");
        }
    }

    #[test]
    fn what_is_whole_is_read_as_it_is_and_a_first_start_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = whole(folder.path());
        let conditions = Conditions::new();
        let peers = [id("new")];
        let (memory, _) = load(&path, peers.iter(), &conditions);
        assert_eq!((memory.seq, memory.floors.get(&id("new"))), (7, None));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(&path, peers.iter(), &conditions), Default::default());
        assert!(!conditions.holds(Condition::MemoryDamaged));
        std::fs::create_dir(&path).unwrap();
        let (memory, holds) = load(&path, peers.iter(), &conditions);
        assert!(holds.any() && memory.in_doubt && memory.floors.contains_key(&id("new")));
    }

    #[test]
    fn a_reservation_far_ahead_is_used_5_s_ahead_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let head = Head { seq: u64::MAX - 1, ..Head::default() };
        drop(
            slots::create(&path, &Content::new(head, &BTreeMap::new(), &BTreeMap::new())).unwrap(),
        );
        let now = Clock::start().now().wall.unix_us();
        let (memory, _) = load(&path, std::iter::empty(), &Conditions::new());
        assert!(memory.seq >= now && memory.seq <= now + 2 * RESERVE_US, "{}", memory.seq);
    }

    #[tokio::test]
    async fn what_is_kept_is_in_the_file_before_anything_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let conditions = Conditions::new();
        let memory = Memory::default();
        let mut keeper =
            Keeper::new(Some(path.clone()), &memory, None, Holds::default(), conditions.clone());
        keeper.start(Duration::ZERO).await;
        keeper.reserve(100);
        keeper.floor(&id("critic"), 42);
        keeper.manifest(&id("critic"), 41);
        keeper.doubt();
        let (kept, _) = load(&path, std::iter::empty(), &conditions);
        let floors = BTreeMap::from([(id("critic"), 42)]);
        assert_eq!(kept.seq, 100 + RESERVE_US);
        assert!(kept.floors == floors && kept.in_doubt);
        assert_eq!(kept.manifests[&id("critic")], 41);
        // All is read: forgotten at the next look, and not before.
        keeper.look(Duration::from_millis(500), || false);
        assert!(load(&path, std::iter::empty(), &conditions).0.in_doubt);
        keeper.look(Duration::from_secs(1), || false);
        assert!(!load(&path, std::iter::empty(), &conditions).0.in_doubt);
        keeper.written().await;
        assert_eq!(keeper.next_look(), Duration::MAX, "nothing wakes an idle sidecar");
    }
}
