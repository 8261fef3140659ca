//! A snapshot while it is being written: counted, hashed, gone when it is dropped.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Spool, SpoolFault, disk};
use crate::protocol::digest::{Digest, Hasher};

/// A file that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: Option<PathBuf>,
    spool: Arc<Spool>,
    hash: Hasher,
    size: u64,
    size_max: u64,
    /// What stopped it, behind the [`Write`] interface.
    fault: Option<SpoolFault>,
}

impl Part {
    pub(super) fn create(
        spool: Arc<Spool>,
        number: u64,
        size_max: u64,
    ) -> Result<Self, SpoolFault> {
        let path = spool.folder.join(format!("{number}.incoming"));
        let file = disk::create_file(&path)?;
        file.set_len(0)?;
        let (hash, path) = (Hasher::default(), Some(path));
        Ok(Self { file, path, spool, hash, size: 0, size_max, fault: None })
    }

    /// Writes more of it.
    ///
    /// # Errors
    /// [`SpoolFault::TooLarge`], [`SpoolFault::Full`] or [`SpoolFault::Io`].
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), SpoolFault> {
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if more > self.size_max.saturating_sub(self.size) {
            return Err(SpoolFault::TooLarge(self.size_max));
        }
        self.spool.reserve(more)?;
        self.size = self.size.saturating_add(more);
        self.hash.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    /// What stopped a [`Write`], which can only say that something did.
    pub fn take_fault(&mut self) -> Option<SpoolFault> {
        self.fault.take()
    }

    /// Syncs it. Its bytes are now on disk, and nobody has accepted it yet.
    ///
    /// # Errors
    /// [`SpoolFault::Io`].
    pub fn seal(mut self) -> Result<Sealed, SpoolFault> {
        self.file.sync_all()?;
        let digest = std::mem::take(&mut self.hash).finish();
        Ok(Sealed { part: self, digest })
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Self::write_all(self, bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(fault) => {
                self.fault = Some(fault);
                Err(io::Error::other("the spool does not take it"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            disk::remove(path);
            self.spool.release(self.size);
        }
    }
}

/// A whole snapshot on disk, not yet accepted. Dropping it removes it.
#[derive(Debug)]
pub struct Sealed {
    part: Part,
    digest: Digest,
}

impl Sealed {
    /// Digest of its bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.part.size
    }

    /// Puts it in its place. The bytes stay reserved.
    pub(super) fn rename(mut self, path: &Path) -> io::Result<()> {
        if let Some(from) = self.part.path.take() {
            // Where that fails, dropping it has to remove it.
            fs::rename(&from, path).inspect_err(|_| self.part.path = Some(from))?;
        }
        Ok(())
    }
}
