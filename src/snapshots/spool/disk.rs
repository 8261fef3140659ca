//! Files that are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Creates a folder that only we may read, with its parents.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates or opens a file that only we may read.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Writes a file beside its place, syncs it, renames it there and syncs the folder.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("part");
    remove(&beside);
    let mut file = create_file(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        remove(&beside);
        return Err(error);
    }
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The same without a sync, for what the bucket can tell again: a killed process loses nothing of
/// it, a machine that loses its power may.
pub(super) fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("part");
    remove(&beside);
    create_file(&beside)?.write_all(bytes)?;
    fs::rename(&beside, path)
}

/// Makes renames and removals in a folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file. One that is not there is removed; one that cannot be is found again at the next
/// start.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a spooled file cannot be removed");
    }
}
