//! Where a snapshot is written to: beside its place, and renamed there when it is whole.
//!
//! Nobody ever finds half a snapshot, and what stood there before stays until then. A snapshot is
//! memory, so a new file is readable by its owner only.

use std::fs;
use std::io::{self, Seek as _, Write, stdout};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::super::sysexits;
use super::Fault;

/// The name of standard output.
const STDOUT: &str = "-";

/// A place that is being written.
#[derive(Debug)]
pub(super) struct Target {
    file: NamedTempFile,
    /// `None`: standard output.
    place: Option<PathBuf>,
    /// As it was asked for.
    name: String,
}

impl Target {
    /// Begins to write. A link is followed to the file that it names.
    ///
    /// # Errors
    /// [`Fault`] when a file cannot be made there.
    pub(super) fn open(out: &Path) -> Result<Self, Fault> {
        let fault = |error: io::Error| {
            Fault::new(sysexits::CANNOT_CREATE, format!("{}: {error}", out.display()))
        };
        let name = out.display().to_string();
        if out.as_os_str() == STDOUT {
            return Ok(Self { file: NamedTempFile::new().map_err(fault)?, place: None, name });
        }
        let place = match fs::metadata(out) {
            Ok(found) if found.is_file() => fs::canonicalize(out).map_err(fault)?,
            Ok(_) => {
                let text = format!("{}: is no regular file", out.display());
                return Err(Fault::new(sysexits::CANNOT_CREATE, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => out.to_owned(),
            Err(error) => return Err(fault(error)),
        };
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file =
            NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new("."))).map_err(fault)?;
        Ok(Self { file, place: Some(place), name })
    }

    /// Writes more.
    ///
    /// # Errors
    /// [`Fault`] of the disk.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.file.write_all(bytes).map_err(|error| self.broken(&error))
    }

    /// All is there and verified: puts it where it belongs.
    ///
    /// # Errors
    /// [`Fault`] of the disk; then nothing has changed there.
    pub(super) fn keep(mut self) -> Result<(), Fault> {
        let Some(place) = self.place.clone() else {
            let copied = self.file.rewind().and_then(|()| {
                let mut output = stdout();
                io::copy(self.file.as_file_mut(), &mut output)?;
                output.flush()
            });
            return copied.map_err(|error| self.broken(&error));
        };
        self.file.as_file().sync_all().map_err(|error| self.broken(&error))?;
        self.file.persist(&place).map(drop).map_err(|fault| {
            Fault::new(sysexits::IO_ERROR, format!("{}: {}", self.name, fault.error))
        })
    }

    /// How it is called in what is said.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn broken(&self, error: &io::Error) -> Fault {
        Fault::new(sysexits::IO_ERROR, format!("{}: {error}", self.name))
    }
}
