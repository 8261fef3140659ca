//! The file that keeps what has to survive a crash, as `protocol/memory.rs` writes it.
//!
//! A slot is written in place, without a sync: what a process has written survives its `kill -9`,
//! for the system's page cache does. The driver syncs once a second against a crash of the machine.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use crate::protocol::memory::{Content, Patch};

/// Writes a whole file beside its place, synced, and renames it there.
pub(super) fn create(path: &Path, content: &Content) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    file.write_all(&content.bytes())?;
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

/// Puts slots in their places.
pub(super) fn put(file: &File, patches: &[Patch]) -> io::Result<()> {
    patches.iter().try_for_each(|patch| {
        let at = u64::try_from(patch.at).map_err(io::Error::other)?;
        file.write_all_at(&patch.bytes, at)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::memory::Head;

    #[test]
    fn a_file_that_was_replaced_is_no_longer_what_a_restart_would_find() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let content = Content::new(Head::default(), &BTreeMap::new(), &BTreeMap::new());
        let file = create(&path, &content).unwrap();
        let _other = create(&path, &content).unwrap();
        assert!(sync(&path, &file).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(sync(&path, &file).is_err());
    }
}
