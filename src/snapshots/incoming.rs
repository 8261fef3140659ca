//! One snapshot on its way in: pieces of a body to a blocking thread, which decodes, counts, hashes
//! and writes them.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::Refused;
use super::spool::{Part, Sealed, Spool, SpoolFault};

/// Pieces that may wait for the disk; a piece is what hyper reads at once, some 64 KiB at most.
const PIECES_MAX: usize = 16;
/// Plain bytes that are decoded at a time.
const PLAIN_BUFFER_BYTES: usize = 128 * 1024;
/// Largest window of a compressed body, as a power of two: what every zstd decoder takes unasked.
const WINDOW_LOG_MAX: u32 = 27;

/// How the body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// gzip members.
    Gzip,
    /// As it is.
    Identity,
    /// zstd frames.
    Zstd,
}

/// Why it did not come in.
#[derive(Debug, thiserror::Error)]
pub enum IncomingFault {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolFault),
    /// It is not what its coding says, or not all of it.
    #[error("not whole zstd frames or gzip members")]
    Undecodable,
}

enum Piece {
    More(Bytes),
    Whole,
}

/// See the module's documentation. Dropping it throws away what has come.
#[derive(Debug)]
pub struct Incoming {
    pieces: mpsc::Sender<Piece>,
    writer: JoinHandle<Result<Sealed, IncomingFault>>,
    _permit: OwnedSemaphorePermit,
}

impl Incoming {
    pub(super) fn begin(
        spool: Arc<Spool>,
        coding: Coding,
        bytes_max: u64,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Refused> {
        let (pieces, queue) = mpsc::channel(PIECES_MAX);
        let writer = tokio::task::spawn_blocking(move || {
            let part = spool.begin(bytes_max)?;
            match coding {
                Coding::Gzip => inflated(part, queue),
                Coding::Identity => plain(part, queue),
                Coding::Zstd => decoded(part, queue),
            }
        });
        Ok(Self { pieces, writer, _permit: permit })
    }

    /// Takes one more piece. `false` when the writer has given up; [`Incoming::finish`] says why.
    pub async fn write(&mut self, piece: Bytes) -> bool {
        self.pieces.send(Piece::More(piece)).await.is_ok()
    }

    /// That was all: waits until it is on disk.
    ///
    /// # Errors
    /// [`IncomingFault`]; nothing of it is left.
    pub async fn finish(self) -> Result<Sealed, IncomingFault> {
        // A writer that has given up says why below.
        let _ = self.pieces.send(Piece::Whole).await;
        self.writer.await.map_err(|error| SpoolFault::Io(std::io::Error::other(error)))?
    }
}

fn cut() -> IncomingFault {
    SpoolFault::Io(std::io::ErrorKind::UnexpectedEof.into()).into()
}

fn plain(mut part: Part, mut queue: mpsc::Receiver<Piece>) -> Result<Sealed, IncomingFault> {
    loop {
        match queue.blocking_recv() {
            Some(Piece::More(bytes)) => part.write_all(&bytes)?,
            Some(Piece::Whole) => return Ok(part.seal()?),
            None => return Err(cut()),
        }
    }
}

fn inflated(part: Part, mut queue: mpsc::Receiver<Piece>) -> Result<Sealed, IncomingFault> {
    let mut decoder = MultiGzDecoder::new(part);
    let mut is_whole = false;
    while !is_whole {
        let moved = match queue.blocking_recv() {
            Some(Piece::More(bytes)) => decoder.write_all(&bytes),
            Some(Piece::Whole) => {
                is_whole = true;
                decoder.try_finish()
            }
            None => return Err(cut()),
        };
        if moved.is_err() {
            // What the disk says goes before what the decoder says.
            let fault = decoder.get_mut().take_fault();
            return Err(fault.map_or(IncomingFault::Undecodable, IncomingFault::Spool));
        }
    }
    let part = decoder.finish().map_err(|_| IncomingFault::Undecodable)?;
    Ok(part.seal()?)
}

/// Decodes as the bytes come, into a buffer of fixed size; the part counts the plain bytes.
fn decoded(mut part: Part, mut queue: mpsc::Receiver<Piece>) -> Result<Sealed, IncomingFault> {
    let mut decoder = Decoder::new().map_err(SpoolFault::Io)?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(SpoolFault::Io)?;
    let mut plain = vec![0; PLAIN_BUFFER_BYTES];
    let mut is_frame_over = false;
    loop {
        let bytes = match queue.blocking_recv() {
            Some(Piece::More(bytes)) => bytes,
            Some(Piece::Whole) if is_frame_over => return Ok(part.seal()?),
            Some(Piece::Whole) => return Err(IncomingFault::Undecodable),
            None => return Err(cut()),
        };
        let mut input = InBuffer::around(&bytes);
        loop {
            let mut output = OutBuffer::around(plain.as_mut_slice());
            let before = input.pos();
            let hint =
                decoder.run(&mut input, &mut output).map_err(|_| IncomingFault::Undecodable)?;
            let written = output.pos();
            part.write_all(plain.get(..written).unwrap_or_default())?;
            let is_stuck = input.pos() == before && written == 0;
            if !is_stuck {
                is_frame_over = hint == 0;
            }
            // A full buffer may hide more; an empty input and room left mean that all is out.
            if is_stuck || (input.pos() == bytes.len() && written < plain.len()) {
                break;
            }
        }
    }
}
