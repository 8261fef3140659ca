//! The spool alone: full, damaged, half-written, held by another.

use std::path::Path;
use std::sync::Arc;

use driftgate::protocol::digest::Digest;
use driftgate::protocol::snapshot::FrameKind;
use driftgate::protocol::time::Timestamp;
use driftgate::snapshots::gate::Grant;
use driftgate::snapshots::spool::{Spool, SpoolFault, State, Stored, put};

/// The beginning of all time, so that snapshots are numbered 1, 2, 3.
fn now() -> Timestamp {
    Timestamp::from_unix_ms(0)
}

fn open(folder: &Path) -> Arc<Spool> {
    let spool = Arc::new(Spool::open(folder, 1000).expect("the folder is ours"));
    spool.recover().expect("a folder");
    spool
}

fn stored() -> Stored {
    Stored { kind: FrameKind::Full, stored_bytes: 1, base: None }
}

#[test]
fn what_was_accepted_is_there_in_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    put(&spool, b"one", now()).unwrap();
    put(&spool, b"two", now()).unwrap();
    spool.note_stored(1, &stored());
    spool.write_stored(1).unwrap();
    let entries = spool.entries();
    drop(spool);
    let spool = open(folder.path());
    assert_eq!(spool.entries(), entries);
    assert_eq!(spool.next_unsent().unwrap().seq, 2);
    assert_eq!(spool.read(2).unwrap().digest(), Digest::of(b"two"));
}

#[test]
fn what_was_revoked_stays_revoked_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    put(&spool, b"one", now()).unwrap();
    let granted = spool.begin(100).unwrap().seal().unwrap();
    assert_eq!(spool.revoke(1).unwrap(), 1);
    let late = spool.accept(granted, Grant { now: now(), revocations: 0 }, "text/plain");
    assert!(matches!(late, Err(SpoolFault::Revoked)), "granted before, accepted after");
    put(&spool, b"after", now()).unwrap();
    drop(spool);
    let spool = open(folder.path());
    assert_eq!(spool.entry(1).unwrap().state, State::Revoked);
    assert_eq!(spool.next_unsent().unwrap().seq, 2);
    assert_eq!(&spool.read(1).unwrap().bytes()[..], b"one");
    assert_eq!(spool.entries().len(), 2);
}

#[test]
fn a_number_that_was_used_is_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let wrong = Timestamp::from_unix_ms(i64::MAX / 1000);
    let ahead = put(&spool, b"from a wrong clock", wrong).unwrap().seq;
    assert_eq!(put(&spool, b"now", now()).unwrap().seq, ahead + 1);
    assert_eq!(spool.revoke(1).unwrap(), 2, "whatever their numbers");
}

#[test]
fn a_full_spool_refuses_and_loses_nothing_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    put(&spool, &[1; 600], now()).unwrap();
    assert!(matches!(put(&spool, &[2; 600], now()), Err(SpoolFault::Full { .. })));
    assert_eq!(spool.read(1).unwrap().size(), 600);
    put(&spool, &[2; 300], now()).expect("the refused one has given its room back");
    // What is stored makes way.
    spool.note_stored(1, &stored());
    put(&spool, &[4; 600], now()).unwrap();
    assert!(spool.entry(1).is_none());
    assert_eq!(spool.read(2).unwrap().size(), 300);
}

#[test]
fn another_sidecar_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    assert!(matches!(Spool::open(folder.path(), 1000), Err(SpoolFault::Held(_))));
    drop(spool);
    open(folder.path());
}

#[test]
fn whatever_byte_is_cut_or_changed_the_others_are_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    put(&spool, b"whole", now()).unwrap();
    put(&spool, b"harmed", now()).unwrap();
    drop(spool);
    let names = ["2.plain", "2.unsent"];
    for name in names {
        let good = std::fs::read(folder.path().join(name)).unwrap();
        for place in 0..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 0x20;
            for bad in [&good[..place], &changed[..]] {
                let other = tempfile::tempdir().unwrap();
                for file in ["1.plain", "1.unsent", "2.plain", "2.unsent"] {
                    std::fs::copy(folder.path().join(file), other.path().join(file)).unwrap();
                }
                std::fs::write(other.path().join(name), bad).unwrap();
                let spool = Arc::new(Spool::open(other.path(), 1000).unwrap());
                let recovery = spool.recover().unwrap();
                assert_eq!(spool.read(1).unwrap().size(), 5, "{name} {place}");
                let told = recovery.damaged.len() == 1 || spool.read(2).is_ok();
                assert!(told, "{name} {place}: {recovery:?}");
                put(&spool, b"next", now()).expect("it goes on working");
            }
        }
    }
}

#[test]
fn what_was_never_accepted_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["7.plain", "3.incoming", "8.part", "notes.txt"] {
        std::fs::write(folder.path().join(name), b"half").unwrap();
    }
    let spool = open(folder.path());
    assert!(spool.entries().is_empty());
    assert!(spool.damaged().is_empty());
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
    left.sort_by_key(std::fs::DirEntry::file_name);
    let left: Vec<_> = left.iter().map(std::fs::DirEntry::file_name).collect();
    assert_eq!(left, ["lock", "notes.txt"]);
}

/// A life with one stored, one revoked and one promised snapshot.
fn lived(folder: &Path) {
    let spool = open(folder);
    put(&spool, b"stored", now()).unwrap();
    spool.note_stored(1, &stored());
    spool.write_stored(1).unwrap();
    put(&spool, b"revoked", now()).unwrap();
    assert_eq!(spool.revoke(1).unwrap(), 1);
    put(&spool, b"promised", now()).unwrap();
}

fn unsent(spool: &Spool) -> Vec<u64> {
    let entries = spool.entries().into_iter();
    entries.filter(|entry| entry.state == State::Unsent).map(|entry| entry.seq).collect()
}

#[test]
fn p5_p8_no_damaged_byte_sends_what_was_revoked_or_drops_a_promise_silently() {
    let folder = tempfile::tempdir().unwrap();
    lived(folder.path());
    let files = || std::fs::read_dir(folder.path()).unwrap().flatten().map(|file| file.path());
    let mut damages = 0;
    for harmed in files().filter(|path| std::fs::metadata(path).unwrap().len() > 0) {
        let good = std::fs::read(&harmed).unwrap();
        for (place, flip) in (0..good.len()).map(|place| (place, 1 << (place % 8))) {
            let other = tempfile::tempdir().unwrap();
            for file in files() {
                std::fs::copy(&file, other.path().join(file.file_name().unwrap())).unwrap();
            }
            let mut bad = good.clone();
            bad[place] ^= flip;
            std::fs::write(other.path().join(harmed.file_name().unwrap()), bad).unwrap();
            let spool = Arc::new(Spool::open(other.path(), 1000).unwrap());
            spool.recover().unwrap();
            let said = spool.damaged();
            let what = format!("{harmed:?} byte {place} ^ {flip}: {:?} {said:?}", spool.entries());
            let unsent = unsent(&spool);
            assert!(unsent.iter().all(|seq| *seq == 3), "sends what was revoked: {what}");
            assert!(unsent == [3] || !said.is_empty(), "drops a promise silently: {what}");
            damages += 1;
        }
    }
    println!("{damages} damages");
}

#[test]
fn p5_a_full_disk_keeps_a_revocation() {
    let Some(disk) = SmallDisk::mount("64k") else {
        println!("mounting a small disk is not permitted here");
        return;
    };
    let spool = Arc::new(Spool::open(disk.path(), 1 << 20).unwrap());
    spool.recover().unwrap();
    put(&spool, b"one", now()).unwrap();
    let filled = std::fs::write(disk.path().join("ballast"), vec![0; 1 << 20]);
    assert!(filled.is_err(), "it does not fit");
    assert_eq!(spool.revoke(1).unwrap(), 1);
    drop(spool);
    let spool = Arc::new(Spool::open(disk.path(), 1 << 20).unwrap());
    spool.recover().unwrap();
    assert_eq!(unsent(&spool), [0; 0], "a later life sends what was revoked");
}

/// A file system of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);
impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
}
impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}
