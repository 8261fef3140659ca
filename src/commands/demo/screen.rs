//! What the terminal shows while the demonstration runs: a picture on a terminal, plain lines
//! elsewhere. It draws a [`Board`] and decides nothing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _, stdout};
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Bar, BarChart, BarGroup};

use super::super::terminal::{Canvas, colour};
use super::promise::{Outcome, Promise};
use crate::protocol::gate::Band;

/// A terminal smaller than this gets plain lines.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;
/// Columns of the drift curve: with its labels it fits.
const CURVE_COLUMNS: u16 = 62;
/// What the curve's rows stand for: where its lowest begins, and how high each is. The lowest holds
/// everything below it, too.
const CURVE_FLOOR: f64 = 0.30;
const CURVE_STEP: f64 = 0.05;
const CURVE_LABELS: &str = "
isolates 0.60 ┤

  blocks 0.50 ┤
 caution 0.45 ┤



planner's gate";
/// Eighths of a row that the curve is high.
const CURVE_EIGHTHS: u32 = 64;
/// Transitions that are shown.
const NEWS_MAX: usize = 3;

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
            curve: vec![None; usize::from(CURVE_COLUMNS)],
            news: VecDeque::new(),
            seen: (0, 0),
            promises: Vec::new(),
            hints,
        }
    }

    /// Draws one report of the drifting runtime into the curve.
    pub(super) fn plot(&mut self, at: Duration, drift: f64, band: Band) {
        let column = at.as_millis() * u128::from(CURVE_COLUMNS) / self.length.as_millis().max(1);
        let column = usize::try_from(column).unwrap_or(0).min(self.curve.len().saturating_sub(1));
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

    /// The picture.
    fn render(&self, frame: &mut Frame<'_>) {
        let rows = u16::try_from(self.rows.len()).unwrap_or(0);
        let heights = [2, rows + 2, 9, 3, 1, 2].map(Constraint::Length);
        let page = Rect { width: COLUMNS, ..frame.area() }.intersection(frame.area());
        let [title, table, curve, news, wire, hints] = Layout::vertical(heights).areas(page);
        let [labels, curve] = Layout::horizontal([16, CURVE_COLUMNS]).areas(curve);
        let name = "Driftgate demo: three sidecars, one nats-server, and planner's drift";
        let clock = format!("{:.0} of {} s", self.elapsed.as_secs_f64(), self.length.as_secs());
        frame.render_widget(name, title);
        frame.render_widget(Line::from(clock).right_aligned(), title);
        let heads = "           gate      drift   stored  throttled   held  received  last barrier";
        let rows = self.rows.iter().map(Row::line);
        frame.render_widget(Text::from_iter([heads.into()].into_iter().chain(rows)), table);
        frame.render_widget(Text::from(CURVE_LABELS), labels);
        frame.render_widget(self.curve(), curve);
        frame.render_widget(Text::from_iter(self.news.iter().map(String::as_str)), news);
        frame.render_widget(self.wire(), wire);
        frame.render_widget(
            Text::from_iter(self.hints.iter().map(|hint| format!("$ {hint}"))),
            hints,
        );
    }

    /// One bar for each column, and under it the band's letter, for whoever sees no colours.
    fn curve(&self) -> BarChart<'_> {
        let bar = |(drift, band): &(f64, Band)| {
            let is_reached =
                |eighth: &u32| *drift >= CURVE_FLOOR + CURVE_STEP * f64::from(*eighth) / 8.0;
            let height = (1..=CURVE_EIGHTHS).rev().find(is_reached).unwrap_or(1);
            let letter = match band {
                Band::Open => "o",
                Band::Caution => "c",
                Band::Blocked => "B",
                Band::Isolated => "I",
            };
            Bar::with_label(letter, height.into()).text_value("").style(colour(*band))
        };
        let bars: Vec<Bar<'_>> = self.curve.iter().map_while(Option::as_ref).map(bar).collect();
        let chart = BarChart::default().data(BarGroup::new(bars)).max(CURVE_EIGHTHS.into());
        chart.bar_width(1).bar_gap(0)
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
    fn line(&self) -> Line<'_> {
        let Self { id, band, drift, sent, throttled, held, received, barrier } = self;
        let word = Span::styled(format!("{:<8}", band.word().to_ascii_uppercase()), colour(*band));
        let drift = drift.map_or_else(|| "-".to_owned(), |drift| format!("{drift:.3}"));
        let rest =
            format!("  {drift:>5}  {sent:>7}  {throttled:>9}  {held:>5}  {received:>8}  {barrier}");
        Line::from_iter([format!("  {id:<8} ").into(), word, rest.into()])
    }
}

/// How the run is shown.
#[derive(Debug)]
pub(super) enum Screen {
    /// A picture.
    Live(Box<Canvas>),
    /// One line a second, and one for each transition.
    Plain { second: u64 },
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
        canvas.map_or(Self::Plain { second: 0 }, |canvas| Self::Live(Box::new(canvas)))
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
            Self::Plain { second } => {
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
