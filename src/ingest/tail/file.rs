//! The file at the path, and the file that is being read, which need not be the same one.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use super::cutter::Cutter;
use super::{LOOK_BYTES_MAX, Line};

/// Bytes before the reading position that are compared, so that a file that was truncated and has
/// grown past the position since is noticed. Two cycles do not end in the same so many bytes.
const MEMORY_BYTES_MAX: usize = 64;

/// Device and inode. No other file has it while this one is open or has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What stands at a path.
#[derive(Debug)]
pub(super) enum Standing {
    /// Nothing.
    Absent,
    /// A regular file.
    File { identity: Identity, bytes: u64 },
    /// Something that is not a file of lines, in words.
    Other(&'static str),
    /// It could not be found out.
    Unknown(io::Error),
}

impl Standing {
    /// Looks, and opens nothing: opening a pipe waits for its writer, opening a device may act.
    pub(super) fn at(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                Self::File { identity: Identity::of(&metadata), bytes: metadata.len() }
            }
            Ok(metadata) => Self::Other(kind(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(error) => Self::Unknown(error),
        }
    }

    /// The regular file, if it is one.
    pub(super) fn identity(&self) -> Option<Identity> {
        match self {
            Self::File { identity, .. } => Some(*identity),
            Self::Absent | Self::Other(_) | Self::Unknown(_) => None,
        }
    }
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "is a directory, not a regular file"
    } else if kind.is_fifo() {
        "is a named pipe, not a regular file"
    } else if kind.is_socket() {
        "is a socket, not a regular file"
    } else {
        "is a device, not a regular file"
    }
}

/// An open file and how far it has been read.
#[derive(Debug)]
pub(super) struct Followed {
    file: File,
    identity: Identity,
    /// Bytes from the beginning that have been read.
    position: u64,
    /// The last bytes before `position`, at most [`MEMORY_BYTES_MAX`].
    memory: Vec<u8>,
    line_bytes_max: usize,
    cutter: Cutter,
}

impl Followed {
    /// Opens the file at `path`, which has just been seen to be a regular one. It is read from its
    /// end if it is the `stale` one, else from its beginning.
    ///
    /// Between seeing and opening, a pipe may take its place; opening then waits for that pipe's
    /// writer. Only the blocking thread waits, and the silence closes the gate (P6).
    pub(super) fn open(
        path: &Path,
        line_bytes_max: usize,
        stale: Option<Identity>,
        lines: &mut Vec<Line>,
    ) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(kind(&metadata)));
        }
        let identity = Identity::of(&metadata);
        let cutter = Cutter::at_beginning(line_bytes_max);
        let memory = Vec::new();
        let mut followed = Self { file, identity, position: 0, memory, line_bytes_max, cutter };
        if stale == Some(identity) {
            followed.join(metadata.len(), lines)?;
        }
        Ok(followed)
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Goes to the beginning of the last line, or to the end if that line is already over the
    /// limit. Looks back no further than the limit.
    fn join(&mut self, bytes: u64, lines: &mut Vec<Line>) -> io::Result<()> {
        let limit = u64::try_from(self.line_bytes_max).unwrap_or(u64::MAX);
        let mut end = bytes;
        self.position = loop {
            if end == 0 {
                break 0;
            }
            if bytes - end > limit {
                self.cutter = Cutter::in_long_line(self.line_bytes_max, lines);
                break bytes;
            }
            let piece = self.before(end, LOOK_BYTES_MAX)?;
            let start = end.saturating_sub(length(&piece));
            if let Some(newline) = piece.iter().rposition(|byte| *byte == b'\n') {
                self.cutter = Cutter::at_line(self.line_bytes_max);
                break start + length(piece.get(..=newline).unwrap_or_default());
            }
            end = start;
        };
        self.memory = self.before(self.position, MEMORY_BYTES_MAX)?;
        Ok(())
    }

    /// The bytes that stand before `end`, at most `bytes_max` of them.
    fn before(&self, end: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let wanted = usize::try_from(end).unwrap_or(usize::MAX).min(bytes_max);
        let mut piece = vec![0; wanted];
        let start = end.saturating_sub(length(&piece));
        self.file.read_exact_at(&mut piece, start)?;
        Ok(piece)
    }

    /// Reads on, at most [`LOOK_BYTES_MAX`]. `true` when there may be more.
    pub(super) fn read(&mut self, lines: &mut Vec<Line>) -> io::Result<bool> {
        let bytes = self.file.metadata()?.len();
        if bytes < self.position || !self.is_as_remembered()? {
            self.end(lines);
            self.cutter = Cutter::at_beginning(self.line_bytes_max);
            self.position = 0;
            self.memory.clear();
        }
        if bytes == self.position {
            return Ok(false);
        }
        let mut piece = vec![0; LOOK_BYTES_MAX];
        let read = self.file.read_at(&mut piece, self.position)?;
        piece.truncate(read);
        self.position += length(&piece);
        self.remember(&piece);
        self.cutter.take(&piece, lines);
        Ok(!piece.is_empty())
    }

    /// Says that nothing more of this text will come.
    pub(super) fn end(&mut self, lines: &mut Vec<Line>) {
        self.cutter.end(lines);
    }

    fn is_as_remembered(&self) -> io::Result<bool> {
        match self.before(self.position, self.memory.len()) {
            Ok(present) => Ok(present == self.memory),
            // It has shrunk since its size was asked.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remember(&mut self, piece: &[u8]) {
        let start = piece.len().saturating_sub(MEMORY_BYTES_MAX);
        self.memory.extend_from_slice(piece.get(start..).unwrap_or_default());
        let surplus = self.memory.len().saturating_sub(MEMORY_BYTES_MAX);
        self.memory.drain(..surplus);
    }
}

/// A length as a part of a position.
fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
