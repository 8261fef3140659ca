//! Follows a JSONL file that the runtime appends to, on a volume that both share.
//!
//! It looks at fixed intervals, because file events do not cross every kind of shared volume. A
//! look reads a bounded piece, and the next piece is read when every line of the last was taken: a
//! slow receiver costs bounded memory and no line. Lines are handed over in the order in which they
//! stand, all of them; what supersedes what is decided further down the walk.
//!
//! Where reading begins:
//! - A file that is there when following starts holds cycles of the past, which are stale (P5): it
//!   is read from its end. A last line without a newline is being written just then, so it is read
//!   from its own beginning once it is complete.
//! - A file that comes to the path later, for the first time or in place of another, is read from
//!   its beginning.
//! - A file that was truncated, by its size or by what stands before the reading position, is read
//!   again from its beginning.
//!
//! Where it ends: a file that another has replaced (or that was deleted) is read on until its
//! successor holds something. Then its writer has moved, and the rest of the old one is read before
//! the first line of the new. There is one writer, or the order would mean nothing. A line that
//! never got its newline, because its file was replaced or truncated, is read as it stands.
//!
//! What deliberately is not here: files that came and went between two looks. Nothing names them.
//! Unix only: a file is known by device and inode.

mod cutter;
mod file;

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::config::Tail;
use crate::protocol::canonical::{Json, SyntaxFault};

use file::{Followed, Standing};

/// Lines that wait for the receiver: enough that reading and deciding overlap, few because each may
/// weigh as much as `line_bytes_max`.
pub const LINES_LEN_MAX: usize = 16;
/// Bytes that one look reads: dozens of reports, and nothing that an idle sidecar would notice.
pub const LOOK_BYTES_MAX: usize = 64 * 1024;
/// Looks in a row that find no file before it is called a fault. One alone may fall between the two
/// steps of a rotation.
const ABSENT_LOOKS_MAX: u32 = 2;

/// What following a file brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// One line, read. Not yet translated.
    Report(Json),
    /// One line that is no JSON document; the writer's fault. Evidence that cannot be read.
    Unreadable {
        /// The line, from 1, counted from where reading began: its number in the file, unless
        /// following joined the file at its end.
        line_number: u64,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// The file itself cannot be read; names it and says why. Once per change, not per look. What
    /// is there to be read again needs no word of its own: lines come.
    Fault(String),
}

/// Why a line is no JSON document. None of them quotes the line (P9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Not UTF-8.
    #[error("not UTF-8 after {bytes_before} bytes")]
    NotUtf8 {
        /// Bytes of the line that are UTF-8.
        bytes_before: usize,
    },
    /// Not JSON, or not as strict as [`Json::parse`] wants it. A NUL is among its reasons.
    #[error(transparent)]
    Syntax(SyntaxFault),
    /// Longer than `line_bytes_max`. It is skipped up to its newline.
    #[error("longer than {bytes_max} bytes")]
    TooLong {
        /// The limit, without the line's ending.
        bytes_max: usize,
    },
}

/// Starts to follow a file.
///
/// The channel holds [`LINES_LEN_MAX`] lines; while it is full nothing is read. The task ends when
/// the receiver is dropped, or with `abort`. It never ends by itself while the file may come back,
/// so a channel that closes while the receiver lives means that the task died: a broken feed (P6).
///
/// Must be called within a tokio runtime.
///
/// ```no_run
/// # async fn example() {
/// use std::time::Duration;
/// use driftgate::config::Tail;
/// use driftgate::ingest::tail::{Line, follow};
/// let (path, interval) = ("/var/log/runtime/cycles.jsonl".into(), Duration::from_millis(250));
/// let (mut lines, task) = follow(Tail { path, interval, line_bytes_max: 1 << 18 });
/// while let Some(line) = lines.recv().await {
///     assert!(matches!(line, Line::Report(_)));
/// }
/// # }
/// ```
#[must_use]
pub fn follow(settings: Tail) -> (mpsc::Receiver<Line>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(LINES_LEN_MAX);
    (receiver, tokio::spawn(run(settings, sender)))
}

async fn run(settings: Tail, lines: mpsc::Sender<Line>) {
    let mut follower = Follower::new(&settings);
    while !lines.is_closed() {
        let look = spawn_blocking(move || {
            let look = follower.look();
            (follower, look)
        });
        let Ok((returned, look)) = look.await else { return };
        follower = returned;
        for line in look.lines {
            if lines.send(line).await.is_err() {
                return;
            }
        }
        if !look.has_more {
            tokio::select! {
                () = lines.closed() => return,
                () = sleep(settings.interval) => {}
            }
        }
    }
}

/// What one look brought.
#[derive(Debug, Default)]
struct Look {
    lines: Vec<Line>,
    /// Whether there may be more to read at once.
    has_more: bool,
}

/// Everything that is remembered between two looks.
#[derive(Debug)]
struct Follower {
    path: PathBuf,
    line_bytes_max: usize,
    followed: Option<Followed>,
    /// Whether it is known what stood at the path when following started.
    has_started: bool,
    /// The file that stood there and could not be opened yet: still to be read from its end.
    stale: Option<file::Identity>,
    absent_looks: u32,
    /// What was last said to be wrong and has not been right since.
    fault: Option<String>,
}

impl Follower {
    fn new(settings: &Tail) -> Self {
        Self {
            path: settings.path.clone(),
            // A limit beyond the address space is none.
            line_bytes_max: usize::try_from(settings.line_bytes_max).unwrap_or(usize::MAX),
            followed: None,
            has_started: false,
            stale: None,
            absent_looks: 0,
            fault: None,
        }
    }

    /// Looks once: reads what there is, at most [`LOOK_BYTES_MAX`], and goes on to the next file
    /// when this one is done. Blocks.
    fn look(&mut self) -> Look {
        let mut look = Look::default();
        // What stands at the path is asked before the rest of the present file is read: if a
        // successor holds something by now, the rest is all there is.
        let standing = Standing::at(&self.path);
        let read = self.followed.as_mut().map(|followed| followed.read(&mut look.lines));
        look.has_more = matches!(read, Some(Ok(true)));
        let mut fault = self.note_standing(&standing, look.has_more);
        if let Some(Err(error)) = read {
            fault = fault.or_else(|| Some(describe(&self.path, &error)));
        }
        if let Standing::File { identity, bytes } = standing
            && !look.has_more
            && self.followed.as_ref().is_none_or(|old| old.identity() != identity && bytes > 0)
        {
            match self.open(&mut look.lines) {
                Ok(()) => look.has_more = true,
                // Gone since it was seen; the next look says whether it stays away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => fault = Some(describe(&self.path, &error)),
            }
        }
        if let Some(fault) = &fault
            && self.fault.as_ref() != Some(fault)
        {
            look.lines.push(Line::Fault(fault.clone()));
        }
        self.fault = fault;
        look
    }

    /// Remembers what stands at the path, and says what is wrong with it.
    fn note_standing(&mut self, standing: &Standing, has_more: bool) -> Option<String> {
        if !matches!(standing, Standing::Unknown(_)) && !self.has_started {
            self.has_started = true;
            self.stale = standing.identity();
        }
        self.absent_looks = match standing {
            // The next look comes at once, and would count the same moment twice.
            Standing::Absent if has_more => self.absent_looks,
            Standing::Absent => self.absent_looks.saturating_add(1),
            Standing::File { .. } | Standing::Other(_) | Standing::Unknown(_) => 0,
        };
        match standing {
            Standing::Absent if self.absent_looks < ABSENT_LOOKS_MAX => self.fault.clone(),
            Standing::Absent => Some(describe(&self.path, &"does not exist")),
            Standing::File { .. } => None,
            Standing::Other(kind) => Some(describe(&self.path, kind)),
            Standing::Unknown(error) => Some(describe(&self.path, error)),
        }
    }

    fn open(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        let next = Followed::open(&self.path, self.line_bytes_max, self.stale, lines)?;
        if let Some(mut old) = self.followed.replace(next) {
            old.end(lines);
        }
        self.stale = None;
        Ok(())
    }
}

fn describe(path: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("{}: {problem}", path.display())
}
