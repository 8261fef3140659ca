//! The files on disk: appended and synced, rotated by size, taken up again after a crash.
//!
//! **After a crash** the last write may be cut short. The bytes stay where they are: evidence is
//! never removed. They are closed with a newline, and a `torn` line that holds their length and
//! hash continues the chain from the last whole line. So a reader can tell the trace of a crash
//! from a line that somebody changed.
//!
//! Everything here blocks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::BATCH_MAX;
use crate::config::Audit;
use crate::protocol::audit::{Chain, Entry, Event, LINE_BYTES_MAX, Link};
use crate::protocol::digest::Digest;
use crate::protocol::packet::RuntimeId;
use crate::protocol::time::Timestamp;

/// How much of a file's end is read to take it up again: more than one batch, because only the last
/// batch can be torn.
const TAIL_BYTES_MAX: usize = 2 * BATCH_MAX * LINE_BYTES_MAX;
/// Owner writes, group reads: for a collector of logs, and for nobody else.
const MODE: u32 = 0o640;

/// The newest file, locked for this process.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    settings: Audit,
    file: File,
    bytes: u64,
    chain: Chain,
}

/// How a file ends.
#[derive(Debug, Default)]
struct Tail {
    /// The newest whole line, unless it stands further from the end than is read.
    last: Option<Link>,
    /// What follows it and is no line.
    torn: Vec<u8>,
    /// Whether the file's last byte is a newline.
    ends_whole: bool,
}

impl LogFile {
    /// Takes the log up where it ended, or begins one; also tells the sequence number of the newest
    /// line that was found. `now` is the time of the event that is to be written.
    ///
    /// # Errors
    /// The operating system's, or that another process holds the file.
    pub(super) fn open(
        path: PathBuf,
        settings: Audit,
        me: &RuntimeId,
        now: Timestamp,
    ) -> io::Result<(Self, u64)> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = open(&path)?;
        let mut bytes = file.metadata()?.len();
        let mut tail = read_tail(&mut file, bytes)?;
        let mut chain = tail.last.as_ref().map(Chain::after);
        if chain.is_none() && bytes > 0 {
            // Not one whole line: this is no log of ours, or it was destroyed. It is kept beside,
            // and a new chain begins, which `verify` will not take for the old one.
            file = rotate(&path, settings.files_max)?;
            (bytes, tail) = (0, Tail::default());
            chain = Some(Chain::new(me, now));
        }
        let chain = match chain {
            Some(chain) => chain,
            // Empty: a crash may have come between a rotation and the first line after it.
            None => match last_of_rotated(&path)? {
                Some(link) => Chain::after(&link),
                None => Chain::new(me, now),
            },
        };
        let found = chain.seq();
        let mut log = Self { path, settings, file, bytes, chain };
        let is_torn = !tail.torn.is_empty();
        if bytes > 0 && !tail.ends_whole {
            log.put(b"\n")?;
            tail.torn.push(b'\n');
        }
        if is_torn {
            log.close_torn(&tail.torn, me, now)?;
        }
        Ok((log, found))
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Appends one line per entry and syncs. On an error the file is cut back to where it was, if
    /// the disk lets us; the caller opens it anew and sees.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            let mut line = self.chain.append(entry);
            line.push(b'\n');
            let bytes = self.bytes.saturating_add(length(&lines)).saturating_add(length(&line));
            if bytes > self.settings.bytes_max && (self.bytes > 0 || !lines.is_empty()) {
                self.put(&lines)?;
                lines.clear();
                self.file = rotate(&self.path, self.settings.files_max)?;
                self.bytes = 0;
            }
            lines.append(&mut line);
        }
        self.put(&lines)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let outcome = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        match outcome {
            Ok(()) => self.bytes = self.bytes.saturating_add(length(bytes)),
            // Cutting works on a full disk; where it does not, a `torn` line will tell.
            Err(_) => drop(self.file.set_len(self.bytes)),
        }
        outcome
    }

    fn close_torn(&mut self, torn: &[u8], me: &RuntimeId, now: Timestamp) -> io::Result<()> {
        tracing::warn!(bytes = torn.len(), "the audit log's last write was cut short");
        let event = Event::Torn { bytes: length(torn), digest: Digest::of(torn).hex() };
        self.append(&[Entry { time: now, runtime_id: me.clone(), event }])
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Opens for appending, creating it, and locks it: two writers would break the chain.
fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, MODE);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process writes it"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// `audit.jsonl.1` for 1.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Moves every file one number up, dropping the oldest, and opens an empty newest one.
fn rotate(path: &Path, files_max: u32) -> io::Result<File> {
    let kept = files_max.saturating_sub(1);
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    // Also what a larger files_max left behind.
    let mut beyond = kept.max(1);
    while fs::remove_file(numbered(path, beyond)).is_ok() {
        beyond = beyond.saturating_add(1);
    }
    for number in (1..kept).rev() {
        let renamed = fs::rename(numbered(path, number), numbered(path, number + 1));
        renamed.or_else(|error| if absent(&error) { Ok(()) } else { Err(error) })?;
    }
    if kept == 0 {
        fs::remove_file(path)?;
    } else {
        fs::rename(path, numbered(path, 1))?;
    }
    let file = open(path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

/// The newest line of the newest rotated file.
fn last_of_rotated(path: &Path) -> io::Result<Option<Link>> {
    match File::open(numbered(path, 1)) {
        Ok(mut file) => {
            let bytes = file.metadata()?.len();
            Ok(read_tail(&mut file, bytes)?.last)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_tail(file: &mut File, bytes: u64) -> io::Result<Tail> {
    let limit = u64::try_from(TAIL_BYTES_MAX).unwrap_or(u64::MAX);
    let start = bytes.saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text)?;
    if start > 0 {
        // It most likely begins inside a line.
        let first = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..first);
    }
    let mut tail = Tail { ends_whole: text.ends_with(b"\n"), ..Tail::default() };
    for piece in text.split_inclusive(|byte| *byte == b'\n') {
        let line = piece.strip_suffix(b"\n").unwrap_or(piece);
        match (Link::read(line), &tail.last) {
            (Ok(link), _) if tail.torn.is_empty() => tail.last = Some(link),
            // The traces of an earlier crash were closed by an earlier start.
            (Ok(link), Some(last)) if link.torn.is_some() && link.previous == last.digest => {
                tail.torn.clear();
                tail.last = Some(link);
            }
            (Ok(_) | Err(_), _) => tail.torn.extend_from_slice(piece),
        }
    }
    Ok(tail)
}
