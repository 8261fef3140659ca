//! Reading a chain back: what holds, or the first line that does not and why.

use super::{Link, NOTHING_BEFORE, Timestamp};
use crate::protocol::digest::Hasher;

/// What a chain that holds says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that were read.
    pub lines: u64,
    /// Id of the chain.
    pub chain: String,
    /// Sequence number of the first line; above 1 where older files were rotated away or not given.
    pub first_seq: u64,
    /// Sequence number of the last line.
    pub last_seq: u64,
    /// Time of the first line.
    pub first_time: Timestamp,
    /// Time of the last line.
    pub last_time: Timestamp,
    /// Hash of the last line.
    pub head: String,
    /// Starts of the sidecar.
    pub starts: u64,
    /// Starts that no stop in order came before: the sidecar was killed, or crashed.
    pub crashes: u64,
    /// Places where a crash or a full disk cut a write short, each closed by its `torn` line.
    pub torn: u64,
    /// Events that the log itself says it lost.
    pub lost: u64,
}

/// The first line at which a chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Broken {
    /// Counted from 1 over everything that was read.
    pub line: u64,
    /// What is wrong there.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Another line holds another hash of it.
    #[error("altered: it is not the line whose hash the next line holds")]
    Altered,
    /// Its own hash of the line before is wrong, and the line after does not vouch for it either.
    #[error("altered: it does not hold the hash of the line before")]
    Unlinked,
    /// Sequence numbers are missing before it.
    #[error("lines {from} to {to} before it are missing: deleted, or put elsewhere")]
    Missing {
        /// First missing sequence number.
        from: u64,
        /// Last missing sequence number.
        to: u64,
    },
    /// Its sequence number was there already.
    #[error("out of order: sequence number {seq} after {last}")]
    OutOfOrder {
        /// Its sequence number.
        seq: u64,
        /// The one before it.
        last: u64,
    },
    /// The line before, again.
    #[error("repeated: the line before once more")]
    Repeated,
    /// It belongs to another chain.
    #[error("another chain begins here")]
    OtherChain,
    /// It says to be the first and holds the hash of a line before, or the other way round.
    #[error("a first line that holds the hash of a line before it")]
    NotFirst,
    /// It cannot be read, and no `torn` line explains it as the trace of a crash.
    #[error("{0}, and no later line says that a crash cut it short")]
    Unreadable(&'static str),
    /// The last line was cut short. The next start of the sidecar closes it with a `torn` line.
    #[error("cut short: by a crash that no start has followed yet, or by hand")]
    CutShort,
    /// The head that was asked for is the hash of no line.
    #[error("no line has the hash {0}: the end was cut off, or the chain was made anew")]
    HeadMissing(String),
    /// Nothing was read.
    #[error("there are no lines")]
    Empty,
}

/// Bytes that are no line, up to the `torn` line that closes them.
#[derive(Debug)]
struct Gap {
    line: u64,
    why: &'static str,
    bytes: u64,
    hasher: Hasher,
}

/// Reads a chain line by line, in bounded memory. Several files are one chain: give their lines
/// one after the other, the oldest first.
#[derive(Debug, Default)]
pub struct Verifier {
    summary: Summary,
    last: Option<Link>,
    gap: Option<Gap>,
    /// The newest line does not hold the hash of the one before; the next line tells which of the
    /// two was altered.
    unlinked: bool,
    /// The head that has to be among the lines, until it was seen.
    wanted: Option<String>,
    whole: bool,
}

impl Verifier {
    /// Reads lines from the start of a file. `head`, when given, is the hash of a line that has to
    /// be there.
    #[must_use]
    pub fn new(head: Option<String>) -> Self {
        Self { wanted: head, whole: true, ..Self::default() }
    }

    /// One line, without its newline.
    ///
    /// # Errors
    /// [`Broken`] as soon as it is certain; some breaks show at a later line, or at the end.
    pub fn feed(&mut self, line: &[u8]) -> Result<(), Broken> {
        self.summary.lines += 1;
        let read = Link::read(line);
        if let Some(gap) = &mut self.gap {
            return match read {
                Ok(link) if closes(gap, self.last.as_ref(), &link) => {
                    self.gap = None;
                    self.summary.torn += 1;
                    self.link(link)
                }
                Ok(_) | Err(_) => {
                    gap.take(line);
                    Ok(())
                }
            };
        }
        match read {
            Ok(link) => self.link(link),
            Err(why) => {
                let line_number = self.summary.lines;
                let mut gap = Gap { line: line_number, why, bytes: 0, hasher: Hasher::default() };
                gap.take(line);
                self.gap = Some(gap);
                Ok(())
            }
        }
    }

    /// Says that the line that was fed last has no newline: it is the end of a file that a writer
    /// died on.
    pub fn unterminated(&mut self) {
        self.whole = false;
    }

    fn link(&mut self, link: Link) -> Result<(), Broken> {
        let line = self.summary.lines;
        let broken = |line, why| Err(Broken { line, why });
        let Some(last) = &self.last else {
            if (link.seq == 1) != (link.previous == NOTHING_BEFORE) {
                return broken(line, Why::NotFirst);
            }
            self.summary.first_seq = link.seq;
            self.summary.first_time = link.time;
            self.summary.chain.clone_from(&link.chain);
            self.keep(link);
            return Ok(());
        };
        if self.unlinked {
            let vouched = link.seq == last.seq + 1 && link.previous == last.digest;
            return if vouched {
                broken(line.saturating_sub(2), Why::Altered)
            } else {
                broken(line - 1, Why::Unlinked)
            };
        }
        if link.chain != last.chain {
            return broken(line, Why::OtherChain);
        }
        if link.digest == last.digest {
            return broken(line, Why::Repeated);
        }
        if link.seq <= last.seq {
            return broken(line, Why::OutOfOrder { seq: link.seq, last: last.seq });
        }
        if link.seq > last.seq + 1 {
            return broken(line, Why::Missing { from: last.seq + 1, to: link.seq - 1 });
        }
        self.unlinked = link.previous != last.digest;
        self.keep(link);
        Ok(())
    }

    fn keep(&mut self, link: Link) {
        if link.event == "started" {
            self.summary.starts += 1;
            let stopped = self.last.as_ref().is_none_or(|last| last.event == "stopped");
            self.summary.crashes += u64::from(!stopped);
        }
        self.summary.lost = self.summary.lost.saturating_add(link.lost);
        if self.wanted.as_ref() == Some(&link.digest) {
            self.wanted = None;
        }
        self.last = Some(link);
    }

    /// The end of everything.
    ///
    /// # Errors
    /// [`Broken`], when what was open stays open.
    pub fn finish(self) -> Result<Summary, Broken> {
        let Self { mut summary, last, gap, unlinked, wanted, whole } = self;
        let broken = |line, why| Err(Broken { line, why });
        if let Some(gap) = gap {
            let why = if gap.line == summary.lines && !whole {
                Why::CutShort
            } else {
                Why::Unreadable(gap.why)
            };
            return broken(gap.line, why);
        }
        let Some(last) = last else { return broken(summary.lines, Why::Empty) };
        if unlinked {
            return broken(summary.lines.saturating_sub(1), Why::Altered);
        }
        if let Some(head) = wanted {
            return broken(summary.lines, Why::HeadMissing(head));
        }
        summary.last_seq = last.seq;
        summary.last_time = last.time;
        summary.head = last.digest;
        Ok(summary)
    }
}

impl Gap {
    /// Every byte counts, the newline too: the marker's hash was taken over the file as it is.
    fn take(&mut self, line: &[u8]) {
        self.hasher.update(line);
        self.hasher.update(b"\n");
        self.bytes = self.bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX) + 1);
    }
}

/// Whether `link` is the marker of exactly these bytes, at exactly this place of the chain.
fn closes(gap: &Gap, last: Option<&Link>, link: &Link) -> bool {
    let Some((bytes, digest)) = &link.torn else { return false };
    let follows = match last {
        None => true,
        Some(last) => link.seq == last.seq + 1 && link.previous == last.digest,
    };
    follows && *bytes == gap.bytes && *digest == gap.hasher.clone().finish().hex()
}

/// Verifies lines that are all there already, without their newlines.
///
/// # Errors
/// [`Broken`].
pub fn verify<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Summary, Broken> {
    let mut verifier = Verifier::new(None);
    for line in lines {
        verifier.feed(line)?;
    }
    verifier.finish()
}
