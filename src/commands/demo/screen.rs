//! What the terminal shows while the demonstration runs: a picture on a terminal, plain lines
//! elsewhere. It draws a [`Board`] and decides nothing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _, stdout};
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize as _;
use ratatui::symbols::bar::NINE_LEVELS;
use ratatui::text::{Line, Span, Text};

use super::super::terminal::{Canvas, colour};
use super::promise::{Outcome, Promise};
use super::story::{self, LEGEND};
use crate::protocol::gate::Band;

/// A terminal smaller than this gets plain lines.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;
/// Columns of the labels beside the drift curve, which has all others.
const LABEL_COLUMNS: u16 = 16;
/// Columns from which the reasons have room in the table.
const WIDE: u16 = 100;
/// What the curve's rows stand for: where its lowest begins, and how high each is. The lowest holds
/// everything below it, too.
const CURVE_FLOOR: f64 = 0.30;
const CURVE_STEP: f64 = 0.05;
const CURVE_LABELS: &str = "
isolates 0.60 ┤

  blocks 0.50 ┤
 caution 0.45 ┤



planner's gate";
/// Rows of the curve, and the marks of height in one of them.
const CURVE_ROWS: u16 = 8;
const CURVE_EIGHTHS: u16 = CURVE_ROWS * 8;
/// Reports of planner that the curve is drawn from: more than the longest run has.
const SAMPLES_MAX: usize = 4096;
/// Transitions that are kept, for a terminal that has rows for them.
const NEWS_MAX: usize = 24;

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
    /// Why the gate stands where it stands.
    pub(super) why: String,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
    pub(super) rows: Vec<Row>,
    /// What the drift curve shows: when, how much, and the gate after it.
    curve: Vec<(Duration, f64, Band)>,
    /// Whether planner's gate has closed since it first opened.
    has_been_closed: bool,
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
            curve: Vec::new(),
            has_been_closed: false,
            news: VecDeque::new(),
            seen: (0, 0),
            promises: Vec::new(),
            hints,
        }
    }

    /// Draws one report of the drifting runtime into the curve.
    pub(super) fn plot(&mut self, at: Duration, drift: f64, band: Band) {
        if self.curve.len() < SAMPLES_MAX {
            self.curve.push((at, drift, band));
        }
        let has_opened = self.curve.iter().any(|(_, _, band)| !band.is_closed());
        self.has_been_closed |= band.is_closed() && has_opened;
    }

    /// What is being shown, and why.
    pub(super) fn story(&self) -> &'static str {
        let newest = self.curve.last().map(|(_, drift, band)| (*band, *drift));
        story::told(newest, self.has_been_closed)
    }

    /// Notes one transition.
    pub(super) fn tell(&mut self, line: String) {
        self.news.push_back(line);
        if self.news.len() > NEWS_MAX {
            self.news.pop_front();
        }
    }

    /// The picture.
    fn render(&self, frame: &mut Frame<'_>) {
        let rows = u16::try_from(self.rows.len()).unwrap_or(0);
        let heights = [
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Length(rows + 2),
            Constraint::Length(CURVE_ROWS + 1),
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(1),
            Constraint::Length(2),
        ];
        let page = frame.area();
        let [title, told, table, curve, legend, news, wire, hints] =
            Layout::vertical(heights).areas(page);
        let [labels, curve] =
            Layout::horizontal([Constraint::Length(LABEL_COLUMNS), Constraint::Min(0)])
                .areas(curve);
        let name = "Driftgate demo: three sidecars, one nats-server, and planner's drift";
        let clock = format!("{:.0} of {} s", self.elapsed.as_secs_f64(), self.length.as_secs());
        frame.render_widget(name, title);
        frame.render_widget(Line::from(clock).right_aligned(), title);
        frame.render_widget(Line::from(self.story()).bold(), told);
        let is_wide = page.width >= WIDE;
        let mut heads =
            "           gate      drift   stored  throttled   held  received  last barrier"
                .to_owned();
        if is_wide {
            heads.push_str("  why");
        }
        let rows = self.rows.iter().map(|row| row.line(is_wide));
        frame.render_widget(Text::from_iter([heads.into()].into_iter().chain(rows)), table);
        frame.render_widget(Text::from(CURVE_LABELS), labels);
        self.draw_curve(frame, curve);
        frame.render_widget(legend_line(), legend);
        let shown = self.news.len().saturating_sub(usize::from(news.height));
        frame
            .render_widget(Text::from_iter(self.news.iter().skip(shown).map(String::as_str)), news);
        frame.render_widget(self.wire(), wire);
        frame.render_widget(
            Text::from_iter(self.hints.iter().map(|hint| format!("$ {hint}"))),
            hints,
        );
    }

    /// One bar for each column, and under it, in the same column, the band's letter for whoever
    /// sees no colours. Columns between two reports repeat the older one.
    fn draw_curve(&self, frame: &mut Frame<'_>, area: Rect) {
        let area = area.intersection(frame.area());
        let mut samples = self.curve.iter().peekable();
        let mut newest = None;
        let end = self.curve.last().map(|(at, _, _)| *at).unwrap_or_default();
        for column in 0..area.width {
            let width = f64::from(area.width).max(1.0);
            let from = self.length.mul_f64(f64::from(column) / width);
            let until = self.length.mul_f64(f64::from(column + 1) / width);
            let is_last = column + 1 == area.width;
            // Of several reports in one column the newest is shown.
            while let Some(sample) = samples.next_if(|(at, _, _)| *at < until || is_last) {
                newest = Some(sample);
            }
            let Some((_, drift, band)) = newest.filter(|_| from <= end) else { break };
            let x = area.x + column;
            let mut eighths = height(*drift);
            for row in (0..CURVE_ROWS).rev() {
                let part = eighths.min(8);
                eighths -= part;
                if let Some(cell) = frame.buffer_mut().cell_mut((x, area.y + row)) {
                    cell.set_symbol(level(part)).set_style(colour(*band));
                }
            }
            let letter =
                LEGEND.iter().find(|(of, _, _)| of == band).map_or("?", |(_, letter, _)| letter);
            if let Some(cell) = frame.buffer_mut().cell_mut((x, area.y + CURVE_ROWS)) {
                cell.set_symbol(letter).set_style(colour(*band));
            }
        }
    }

    fn wire(&self) -> String {
        let (packets, notices) = self.seen;
        let mut text = format!("wire: {packets} packets, {notices} notices");
        for promise in &self.promises {
            let word = match promise.outcome {
                Outcome::Broken => "BROKEN",
                Outcome::Held => "held",
                Outcome::Unseen => "..",
            };
            let _ = write!(text, "  {} {word}", promise.code);
        }
        text
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
    fn line(&self, is_wide: bool) -> Line<'_> {
        let Self { id, band, drift, sent, throttled, held, received, barrier, why } = self;
        let word = Span::styled(format!("{:<8}", band.word().to_ascii_uppercase()), colour(*band));
        let drift = drift.map_or_else(|| "-".to_owned(), |drift| format!("{drift:.3}"));
        let mut rest =
            format!("  {drift:>5}  {sent:>7}  {throttled:>9}  {held:>5}  {received:>8}  {barrier}");
        if is_wide {
            let _ = write!(rest, "{:<1$}{why}", "", 14_usize.saturating_sub(barrier.len()));
        }
        Line::from_iter([format!("  {id:<8} ").into(), word, rest.into()])
    }
}

/// Eighths of a row that a bar is high.
fn height(drift: f64) -> u16 {
    let is_reached = |eighth: &u16| drift >= CURVE_FLOOR + CURVE_STEP * f64::from(*eighth) / 8.0;
    (1..=CURVE_EIGHTHS).rev().find(is_reached).unwrap_or(1)
}

/// A cell that is filled by so many eighths.
fn level(eighths: u16) -> &'static str {
    match eighths {
        0 => NINE_LEVELS.empty,
        1 => NINE_LEVELS.one_eighth,
        2 => NINE_LEVELS.one_quarter,
        3 => NINE_LEVELS.three_eighths,
        4 => NINE_LEVELS.half,
        5 => NINE_LEVELS.five_eighths,
        6 => NINE_LEVELS.three_quarters,
        7 => NINE_LEVELS.seven_eighths,
        _ => NINE_LEVELS.full,
    }
}

/// What the strip's letters stand for.
fn legend_line() -> Line<'static> {
    let entry = |(band, letter, what): (Band, &'static str, &'static str)| {
        let name = Span::styled(format!("{letter} {}", band.word()), colour(band));
        [name, format!(" {what}  ").into()]
    };
    LEGEND.into_iter().flat_map(entry).collect()
}

/// How the run is shown.
#[derive(Debug)]
pub(super) enum Screen {
    /// A picture.
    Live(Box<Canvas>),
    /// One line a second, and one for each transition.
    Plain {
        /// Of the newest line.
        second: u64,
        /// The phase that was told last.
        told: &'static str,
    },
    /// Nothing before the end.
    Silent,
}

impl Screen {
    /// Says `text`, which stays, and picks what standard output can show.
    pub(super) fn new(text: &str, silent: bool, colours: bool) -> Self {
        if silent {
            return Self::Silent;
        }
        // Where nobody reads, the first picture will tell.
        let _ = write_out(text);
        let canvas = Canvas::open(COLUMNS, ROWS, colours);
        if canvas.is_none() {
            let bands = LEGEND.map(|(band, _, what)| format!("{} {what}", band.word()));
            let _ = write_out(&format!("Gates: {}.\n\n", bands.join("; ")));
        }
        canvas.map_or(Self::Plain { second: 0, told: "" }, |canvas| Self::Live(Box::new(canvas)))
    }

    /// A transition: part of the picture, or a line of its own.
    pub(super) fn tell(&self, board: &mut Board, line: &str) -> io::Result<()> {
        board.tell(line.to_owned());
        match self {
            Self::Plain { .. } => write_out(&format!("{line}\n")),
            Self::Live(_) | Self::Silent => Ok(()),
        }
    }

    /// Shows the board as it is now.
    pub(super) fn draw(&mut self, board: &Board) -> io::Result<()> {
        match self {
            Self::Silent => Ok(()),
            Self::Plain { second, told } => {
                if *told != board.story() {
                    *told = board.story();
                    write_out(&format!("        {told}\n"))?;
                }
                if board.elapsed.as_secs() <= *second {
                    return Ok(());
                }
                *second = board.elapsed.as_secs();
                write_out(&format!("{}\n", board.line()))
            }
            Self::Live(canvas) => canvas.draw(|frame| board.render(frame)),
        }
    }

    /// Gives the terminal back.
    pub(super) fn finish(&mut self) {
        *self = Self::Silent;
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// The rows of a picture of this size, half way through a run.
    fn picture(columns: u16, rows: u16) -> Vec<String> {
        let row = |id: &str| Row {
            id: id.to_owned(),
            band: Band::Blocked,
            drift: Some(0.52),
            sent: 12,
            throttled: 3,
            held: 4,
            received: 9,
            barrier: "1.2 ms".to_owned(),
            why: "di_block".to_owned(),
        };
        let sidecars = ["planner", "critic", "monitor"].map(row).to_vec();
        let hints = ["nats sub".to_owned(), "curl".to_owned()];
        let mut board = Board::new(Duration::from_secs(40), sidecars, hints);
        let bands = [Band::Open, Band::Caution, Band::Blocked, Band::Isolated];
        for (step, band) in (0..).zip(bands) {
            let at = Duration::from_secs(10 * step);
            board.plot(at, 0.3 + 0.1 * at.as_secs_f64() / 10.0, band);
        }
        board.plot(Duration::from_secs(40), 0.3, Band::Open);
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| board.render(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        buffer
            .content
            .chunks(usize::from(columns))
            .map(|row| row.iter().map(|cell| cell.symbol()).collect())
            .collect()
    }

    #[test]
    fn the_strip_stands_under_the_bars_and_every_column_is_used() {
        for (columns, rows) in [(80, 24), (120, 40)] {
            let picture = picture(columns, rows);
            let place = picture.iter().position(|row| row.starts_with("planner's gate")).unwrap();
            let strip: Vec<char> = picture[place].chars().collect();
            let lowest: Vec<char> = picture[place - 1].chars().collect();
            for (column, letter) in strip.iter().enumerate().skip(usize::from(LABEL_COLUMNS)) {
                assert!("ocBI".contains(*letter), "{columns}: {column}: {letter:?}");
                assert_ne!(lowest[column], ' ', "{columns}: {column}");
            }
            assert_eq!(strip.len(), usize::from(columns));
            let share = strip.iter().filter(|letter| **letter == 'B').count();
            let quarter = (usize::from(columns) - 16) / 4;
            assert!(share.abs_diff(quarter) <= 1, "{columns}: {share}");
        }
    }

    #[test]
    fn the_picture_has_its_legend_its_story_and_where_there_is_room_the_reasons() {
        for (columns, has_room) in [(80, false), (120, true)] {
            let text = picture(columns, 24).join("\n");
            for expected in ["o open sends all", "I isolated cut off", "Reopened: ", "$ curl"] {
                assert!(text.contains(expected), "{expected}\n{text}");
            }
            assert_eq!(text.contains("di_block"), has_room, "{text}");
        }
    }
}
