//! What this machine has for the spool.

use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::{Finding, Patient};

const MIB: u64 = 1024 * 1024;
/// Files of the spool that are counted.
const FILES_MAX: usize = 100_000;

/// The folder, or where it would be made.
fn standing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder)
}

pub(super) fn spool(patient: &Patient<'_>) -> Vec<Finding> {
    let folder = &patient.config.snapshot.spool;
    let found = standing(folder);
    let shown = folder.display();
    vec![match access(found, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if found == folder => Finding::ok(format!("{shown} can be written")),
        Ok(()) => Finding::ok(format!("{shown} is not there yet, and can be made")),
        Err(error) => {
            let text = format!("snapshot.spool {shown} cannot be written: {error}");
            let user = rustix::process::getuid().as_raw();
            Finding::fail(text, format!("sudo install -d -m 0700 -o {user} {shown}"))
        }
    }]
}

pub(super) fn disk(patient: &Patient<'_>) -> Vec<Finding> {
    let snapshot = &patient.config.snapshot;
    let found = standing(&snapshot.spool);
    let disk = match statvfs(found) {
        Ok(disk) => disk,
        Err(error) => return vec![Finding::skip(format!("{}: {error}", found.display()))],
    };
    let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    vec![fits(snapshot.bytes_max, snapshot.spool_bytes_max, free + held(&snapshot.spool), all)]
}

/// `room`: what is free, and what the spool has already.
fn fits(bytes_max: u64, cap: u64, room: u64, all: u64) -> Finding {
    let text = format!(
        "snapshot.spool_bytes_max is {} MiB, and its volume of {} MiB has {} MiB for it",
        cap / MIB,
        all / MIB,
        room / MIB
    );
    let fix = format!("set snapshot.spool_bytes_max = \"{}MiB\", or free room", room / MIB * 4 / 5);
    if room < bytes_max {
        Finding::fail(format!("{text}: not even one snapshot of the largest size"), fix)
    } else if room < cap || cap > all / 5 * 4 {
        Finding::warn(text, fix)
    } else {
        Finding::ok(text)
    }
}

/// What lies in the spool, two folders deep as it is made.
fn held(spool: &Path) -> u64 {
    let list = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let inner = list(spool).filter(|entry| entry.path().is_dir());
    let deep = inner.flat_map(|entry| list(&entry.path()));
    let files = list(spool).chain(deep).take(FILES_MAX).filter_map(|entry| entry.metadata().ok());
    files.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::{MIB, fits};

    #[test]
    fn a_volume_has_to_hold_the_spool_and_a_fifth_more() {
        for (room, all, severity) in [
            (900, 1000, Severity::Ok),
            (500, 600, Severity::Warn),
            (499, 1000, Severity::Warn),
            (63, 1000, Severity::Fail),
        ] {
            let finding = fits(64 * MIB, 500 * MIB, room * MIB, all * MIB);
            assert_eq!(finding.severity, severity, "{room} {all}: {finding:?}");
        }
    }
}
