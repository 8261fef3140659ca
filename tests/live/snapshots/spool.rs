//! The spool alone: full, damaged, half-written, held by another.

use std::path::Path;
use std::sync::Arc;

use driftgate::protocol::snapshot::{Digest, FrameKind};
use driftgate::protocol::time::Timestamp;
use driftgate::snapshots::spool::{Spool, SpoolFault, State, Stored, put};

fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_767_225_600_000)
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
    put(&spool, b"one", 1, now()).unwrap();
    put(&spool, b"two", 2, now()).unwrap();
    spool.note_stored(1, &stored());
    spool.write_down(1).unwrap();
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
    put(&spool, b"one", 1, now()).unwrap();
    assert_eq!(spool.revoke(5).unwrap(), 1);
    assert!(matches!(put(&spool, b"late", 4, now()), Err(SpoolFault::Revoked)));
    put(&spool, b"after", 6, now()).unwrap();
    drop(spool);
    let spool = open(folder.path());
    assert_eq!(spool.entry(1).unwrap().state, State::Revoked);
    assert_eq!(spool.next_unsent().unwrap().seq, 6);
    assert_eq!(&spool.read(1).unwrap().bytes()[..], b"one");
}

#[test]
fn a_full_spool_refuses_and_loses_nothing_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    put(&spool, &[1; 600], 1, now()).unwrap();
    assert!(matches!(put(&spool, &[2; 600], 2, now()), Err(SpoolFault::Full { .. })));
    assert_eq!(spool.read(1).unwrap().size(), 600);
    put(&spool, &[2; 300], 3, now()).expect("the refused one has given its room back");
    // What is stored makes way.
    spool.note_stored(1, &stored());
    put(&spool, &[4; 600], 4, now()).unwrap();
    assert!(spool.entry(1).is_none());
    assert_eq!(spool.read(3).unwrap().size(), 300);
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
    put(&spool, b"whole", 1, now()).unwrap();
    put(&spool, b"harmed", 2, now()).unwrap();
    drop(spool);
    let names = ["2.plain", "2.json"];
    for name in names {
        let good = std::fs::read(folder.path().join(name)).unwrap();
        for place in 0..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 0x20;
            for bad in [&good[..place], &changed[..]] {
                let other = tempfile::tempdir().unwrap();
                for file in ["1.plain", "1.json", "2.plain", "2.json"] {
                    std::fs::copy(folder.path().join(file), other.path().join(file)).unwrap();
                }
                std::fs::write(other.path().join(name), bad).unwrap();
                let spool = Arc::new(Spool::open(other.path(), 1000).unwrap());
                let recovery = spool.recover().unwrap();
                assert_eq!(spool.read(1).unwrap().size(), 5, "{name} {place}");
                let told = recovery.damaged.len() == 1 || spool.read(2).is_ok();
                assert!(told, "{name} {place}: {recovery:?}");
                put(&spool, b"next", 3, now()).expect("it goes on working");
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

#[test]
fn a_damaged_marker_revokes_what_is_there_and_nothing_later() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    put(&spool, b"one", 1, now()).unwrap();
    drop(spool);
    std::fs::write(folder.path().join("revoked"), b"\xff\xff").unwrap();
    let spool = open(folder.path());
    assert!(spool.next_unsent().is_none());
    put(&spool, b"two", 2, now()).unwrap();
    assert_eq!(spool.next_unsent().unwrap().seq, 2);
}
