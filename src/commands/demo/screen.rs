//! What the terminal shows while the demonstration runs: a picture redrawn in place on a terminal,
//! plain lines elsewhere. It draws a [`Board`] and decides nothing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _, stdout};
use std::time::Duration;

use super::promise::{Outcome, Promise};
use crate::protocol::gate::Band;

/// Widest line.
const COLUMNS: usize = 80;
/// Columns of the drift curve: with its labels it fits.
const CURVE_COLUMNS: usize = 62;
/// Rows of the drift curve: the lower edge of each. The lowest holds everything below it, too.
const CURVE_EDGES: [f64; 8] = [0.65, 0.60, 0.55, 0.50, 0.45, 0.40, 0.35, 0.30];
/// Height of a row of the curve.
const EDGE_STEP: f64 = 0.05;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Transitions that are shown.
const NEWS_MAX: usize = 3;
/// A terminal smaller than this gets plain lines.
const SIZE_MIN: (u16, u16) = (80, 24);

/// One sidecar's line.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) band: Band,
    pub(super) drift: Option<f64>,
    pub(super) sent: u64,
    pub(super) throttled: u64,
    pub(super) held: u64,
    pub(super) received: u64,
    /// How the newest closing ended.
    pub(super) barrier: String,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
    pub(super) rows: Vec<Row>,
    /// What the drift curve shows, column by column.
    curve: Vec<Option<(f64, Band)>>,
    /// The newest transitions, oldest first.
    news: VecDeque<String>,
    /// Packets and notices that the observer saw.
    pub(super) seen: (u64, u64),
    pub(super) promises: Vec<Promise>,
    /// Two commands to look from outside.
    pub(super) hints: [String; 2],
}

impl Board {
    pub(super) fn new(length: Duration, rows: Vec<Row>, hints: [String; 2]) -> Self {
        Self {
            elapsed: Duration::ZERO,
            length,
            rows,
            curve: vec![None; CURVE_COLUMNS],
            news: VecDeque::new(),
            seen: (0, 0),
            promises: Vec::new(),
            hints,
        }
    }

    /// Draws one report of the drifting runtime into the curve.
    pub(super) fn plot(&mut self, at: Duration, drift: f64, band: Band) {
        let columns = u128::try_from(CURVE_COLUMNS).unwrap_or(0);
        let column = at.as_millis() * columns / self.length.as_millis().max(1);
        let column = usize::try_from(column).unwrap_or(0).min(CURVE_COLUMNS - 1);
        // Columns between two reports repeat the older one.
        let first = self.curve.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let older = first.checked_sub(1).and_then(|last| *self.curve.get(last)?);
        for cell in self.curve.iter_mut().take(column).skip(first) {
            *cell = older;
        }
        if let Some(cell) = self.curve.get_mut(column) {
            *cell = Some((drift, band));
        }
    }

    /// Notes one transition.
    pub(super) fn tell(&mut self, line: String) {
        self.news.push_back(line);
        if self.news.len() > NEWS_MAX {
            self.news.pop_front();
        }
    }

    /// The picture: always as many lines, each at most 80 columns wide.
    fn frame(&self, colours: bool) -> Vec<String> {
        let clock = format!("{:.0} of {} s", self.elapsed.as_secs_f64(), self.length.as_secs());
        let title = "Driftgate demo: three sidecars, one nats-server, and planner's drift";
        let mut lines = vec![
            format!("{title}{clock:>width$}", width = COLUMNS - title.len()),
            String::new(),
            "           gate      drift   stored  throttled   held  received  last barrier"
                .to_owned(),
        ];
        lines.extend(self.rows.iter().map(|row| row.line(colours)));
        lines.push(String::new());
        lines.extend(CURVE_EDGES.iter().map(|edge| self.curve_row(*edge, colours)));
        lines.push(self.strip());
        let news = self.news.iter().cloned().chain(std::iter::repeat(String::new()));
        lines.extend(news.take(NEWS_MAX).map(|line| clipped(&line)));
        let promises = self.promises.iter().fold(String::new(), |mut text, promise| {
            let word = match promise.outcome {
                Outcome::Broken => "BROKEN",
                Outcome::Held => "held",
                Outcome::Unseen => "..",
            };
            let _ = write!(text, "  {} {word}", promise.code);
            text
        });
        let (packets, notices) = self.seen;
        lines.push(clipped(&format!("wire: {packets} packets, {notices} notices{promises}")));
        lines.extend(self.hints.iter().map(|hint| clipped(&format!("$ {hint}"))));
        lines
    }

    fn curve_row(&self, edge: f64, colours: bool) -> String {
        // Each mark is the lower edge of a row.
        let mark = |mark: f64| (edge - mark).abs() < EDGE_STEP / 2.0;
        let label = if mark(0.60) {
            "isolates 0.60 ┤"
        } else if mark(0.50) {
            "  blocks 0.50 ┤"
        } else if mark(0.45) {
            " caution 0.45 ┤"
        } else {
            "              │"
        };
        let is_lowest = CURVE_EDGES.last().is_some_and(|lowest| mark(*lowest));
        let mut line = label.to_owned();
        for cell in self.curve.iter().map_while(Option::as_ref) {
            let (drift, band) = cell;
            let eighths = |eighth: &u32| *drift >= edge + EDGE_STEP * f64::from(*eighth) / 8.0;
            let level = (1..=8).filter(eighths).count().max(usize::from(is_lowest));
            let block = BLOCKS.get(level).copied().unwrap_or(' ');
            line.push_str(&paint(colours, *band, &block.to_string()));
        }
        line
    }

    /// The bands in letters, for whoever sees no colours.
    fn strip(&self) -> String {
        let letter = |cell: &Option<(f64, Band)>| match cell {
            None => ' ',
            Some((_, Band::Open)) => 'o',
            Some((_, Band::Caution)) => 'c',
            Some((_, Band::Blocked)) => 'B',
            Some((_, Band::Isolated)) => 'I',
        };
        let letters: String = self.curve.iter().map(letter).collect();
        format!("planner's gate └{letters}")
    }

    /// One line for the whole state, where nothing can be redrawn.
    fn line(&self) -> String {
        let mut line = format!("{:>5.0} s ", self.elapsed.as_secs_f64());
        if let Some(row) = self.rows.first() {
            let drift = row.drift.map_or_else(|| "-".to_owned(), |drift| format!("{drift:.3}"));
            let _ = write!(
                line,
                " {} {drift} {:<8}  stored {}  throttled {}  held {}  received {}",
                row.id, row.band, row.sent, row.throttled, row.held, row.received
            );
        }
        let _ = write!(line, "  wire {}", self.seen.0);
        line
    }
}

impl Row {
    fn line(&self, colours: bool) -> String {
        let Self { id, band, drift, sent, throttled, held, received, barrier } = self;
        let word = format!("{:<8}", band.word().to_ascii_uppercase());
        let drift = drift.map_or_else(|| "-".to_owned(), |drift| format!("{drift:.3}"));
        format!(
            "  {id:<8} {}  {drift:>5}  {sent:>7}  {throttled:>9}  {held:>5}  {received:>8}  {barrier}",
            paint(colours, *band, &word),
        )
    }
}

/// A line without colours that does not wrap.
fn clipped(line: &str) -> String {
    line.chars().take(COLUMNS).collect()
}

fn paint(colours: bool, band: Band, text: &str) -> String {
    if !colours || text.trim().is_empty() {
        return text.to_owned();
    }
    let colour = match band {
        Band::Open => 32,
        Band::Caution => 33,
        Band::Blocked => 31,
        Band::Isolated => 35,
    };
    format!("\x1b[{colour}m{text}\x1b[0m")
}

/// How the run is shown.
#[derive(Debug)]
pub(super) enum Screen {
    /// Redrawn in place.
    Live {
        colours: bool,
        /// Lines that the cursor has to go up; 0 before the first picture.
        height: usize,
    },
    /// One line a second, and one for each transition.
    Plain { second: u64 },
    /// Nothing before the end.
    Silent,
}

impl Screen {
    /// Picks what standard output can show.
    pub(super) fn new(silent: bool, colours: bool) -> Self {
        let is_large = rustix::termios::tcgetwinsize(stdout())
            .is_ok_and(|size| size.ws_col >= SIZE_MIN.0 && size.ws_row >= SIZE_MIN.1);
        if silent {
            Self::Silent
        } else if stdout().is_terminal() && is_large {
            Self::Live { colours, height: 0 }
        } else {
            Self::Plain { second: 0 }
        }
    }

    /// Text that stays: before the first picture, or after [`Self::finish`].
    pub(super) fn say(&self, text: &str) -> io::Result<()> {
        match self {
            Self::Silent => Ok(()),
            Self::Live { .. } | Self::Plain { .. } => write_out(text),
        }
    }

    /// A transition: part of the picture, or a line of its own.
    pub(super) fn tell(&self, board: &mut Board, line: &str) -> io::Result<()> {
        board.tell(line.to_owned());
        match self {
            Self::Plain { .. } => write_out(&format!("{line}\n")),
            Self::Live { .. } | Self::Silent => Ok(()),
        }
    }

    /// Shows the board as it is now.
    pub(super) fn draw(&mut self, board: &Board) -> io::Result<()> {
        match self {
            Self::Silent => Ok(()),
            Self::Plain { second } => {
                if board.elapsed.as_secs() <= *second {
                    return Ok(());
                }
                *second = board.elapsed.as_secs();
                write_out(&format!("{}\n", board.line()))
            }
            Self::Live { colours, height } => {
                let lines = board.frame(*colours);
                let mut text = "\x1b[?25l".to_owned();
                if *height > 0 {
                    let _ = write!(text, "\x1b[{height}A\r");
                }
                *height = lines.len();
                for line in lines {
                    let _ = writeln!(text, "{line}\x1b[K");
                }
                write_out(&text)
            }
        }
    }

    /// Leaves the last picture standing and gives the cursor back.
    pub(super) fn finish(&self) {
        if matches!(self, Self::Live { height: 1.., .. }) {
            // Whoever closed the terminal needs no cursor.
            let _ = write_out("\x1b[?25h");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.finish();
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
