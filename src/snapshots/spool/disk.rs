//! Files that are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Creates a folder that only we may read, with its parents.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates or opens a file that only we may read.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Creates a file that only we may read and write, and that is not there yet.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(path)
}

/// Writes a file beside its place and syncs it; where it is, to be renamed.
pub(super) fn prepare(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let beside = path.with_extension("part");
    remove(&beside);
    let mut file = create_file(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    match written {
        Ok(()) => Ok(beside),
        Err(error) => {
            remove(&beside);
            Err(error)
        }
    }
}

/// Puts a file in its place without a sync, for what the bucket can tell again: a killed process
/// loses nothing of it, a machine that loses its power may.
pub(super) fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("part");
    remove(&beside);
    let written = create_file(&beside).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| remove(&beside))
}

/// Cuts a file to nothing, for good.
pub(super) fn empty(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(0)?;
    file.sync_all()
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
