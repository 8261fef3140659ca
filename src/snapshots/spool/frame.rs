//! A full frame from disk to disk: what a snapshot too large for the memory at hand is stored as.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};

use super::{Spool, SpoolEntry, SpoolFault, disk};
use crate::protocol::digest::{Digest, Hasher};
use crate::protocol::snapshot::{FrameHeader, FrameKind, Level, WINDOW_LOG_MAX};

/// Plain bytes that are encoded at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Longest frame header, in bytes (RFC 8878 section 3.1.1.1).
const HEADER_BYTES_MAX: usize = 18;

/// A frame that has no name on disk and is gone when it is dropped.
#[derive(Debug)]
pub struct Frame {
    /// Its bytes.
    pub file: File,
    /// How many there are.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
    /// The window that decoding needs, as a power of two.
    pub window_log: u32,
}

/// Counts and hashes what is written, and keeps its beginning.
struct Sink {
    file: File,
    hash: Hasher,
    size: u64,
    head: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let bytes = bytes.get(..written).unwrap_or_default();
        self.hash.update(bytes);
        self.size = self.size.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        let missing = HEADER_BYTES_MAX.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Spool {
    /// Encodes one snapshot as `zstd` would, in memory that depends on the level alone.
    ///
    /// # Errors
    /// [`SpoolFault::Damaged`], [`SpoolFault::Unknown`] or [`SpoolFault::Io`].
    pub fn encode(&self, entry: &SpoolEntry, level: Level) -> Result<Frame, SpoolFault> {
        let plain = match File::open(self.plain_path(entry.seq)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.missing(entry));
            }
            Err(error) => return Err(error.into()),
        };
        let path = self.folder.join(format!("{}.frame", entry.seq));
        disk::remove(&path);
        let file = disk::create_new(&path)?;
        disk::remove(&path);
        let sink = Sink { file, hash: Hasher::default(), size: 0, head: Vec::new() };
        let mut encoder = zstd::stream::write::Encoder::new(sink, level.number())?;
        encoder.include_checksum(true)?;
        encoder.include_contentsize(true)?;
        encoder.set_pledged_src_size(Some(entry.size))?;
        // One byte more than was accepted is enough to see that the file is another.
        let mut reader = BufReader::new(plain).take(entry.size.saturating_add(1));
        let mut piece = vec![0; PIECE_BYTES];
        let (mut hash, mut size) = (Hasher::default(), 0_u64);
        loop {
            let length = reader.read(&mut piece)?;
            size = size.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            if size > entry.size || (length == 0 && size < entry.size) {
                return Err(self.lose(entry));
            }
            if length == 0 {
                break;
            }
            let bytes = piece.get(..length).unwrap_or_default();
            hash.update(bytes);
            encoder.write_all(bytes)?;
        }
        if hash.finish() != entry.digest {
            return Err(self.lose(entry));
        }
        let sink = encoder.finish()?;
        let header = FrameHeader::parse(FrameKind::Full, &sink.head);
        Ok(Frame {
            file: sink.file,
            size: sink.size,
            digest: sink.hash.finish(),
            window_log: header.map_or(WINDOW_LOG_MAX, |header| header.window_log()),
        })
    }
}
