//! The replay as a picture: drift per cycle against the three marks, coloured by band.
//!
//! One self-contained SVG, readable at 900 px in light and dark. Colour is never the only carrier:
//! the band of a cycle is also the lane in which it stands under the plot.

use std::fmt::{self, Write};

use crate::protocol::gate::Band;

use super::outcome::{Outcome, Row};
use super::table::{BANDS, policy};

/// Size of the picture and of the plot in it, in pixels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 88.0;
const BOTTOM: f64 = 318.0;
/// Top of the lanes, and the height of one.
const LANES_TOP: f64 = 334.0;
const LANE: f64 = 14.0;
/// Most columns: beyond one per pixel, several cycles share a column, which shows their worst.
const COLUMNS_MAX: usize = 736;
/// Up to this many columns each drift value gets its own mark.
const MARKS_MAX: usize = 184;
/// Highest drift value on the axis; anything above is drawn at the edge.
const AXIS_MAX: f64 = 2.0;

const STYLE: &str = "\
text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#24292f}\
.title{font-size:16px;font-weight:600}\
.quiet{fill:#57606a}\
.ground{fill:#ffffff}\
.grid{stroke:#d0d7de;stroke-width:1}\
.mark{stroke:#57606a;stroke-width:1;stroke-dasharray:5 4}\
.line{fill:none;stroke:#6e7781;stroke-width:1}\
.lane{fill:#eef1f4}\
.open{fill:#1f83c9}.caution{fill:#d99a00}.blocked{fill:#cf4a12}.isolated{fill:#5b2a86}\
@media (prefers-color-scheme:dark){\
text{fill:#e6edf3}\
.quiet{fill:#9da7b3}\
.ground{fill:#0d1117}\
.grid{stroke:#30363d}\
.mark{stroke:#9da7b3}\
.line{stroke:#8b949e}\
.lane{fill:#1b222b}\
.open{fill:#6cb8f0}.caution{fill:#f2c14e}.blocked{fill:#ff8050}.isolated{fill:#c49bff}\
}";

/// Least distance between two labels, in pixels.
const LABEL: f64 = 14.0;
/// Longest list of reasons in a tooltip, in words.
const REASONS_SHOWN_MAX: usize = 4;

/// One column of the picture: a cycle, or the worst of several.
struct Column {
    di: Option<f64>,
    band: Band,
    /// What it stands for, in words.
    title: String,
}

/// Draws the picture.
pub(super) fn draw(outcome: &Outcome) -> String {
    let mut svg = String::new();
    // Writing to a string cannot fail, so what is drawn is drawn to the end.
    let _ = Plot::of(outcome).write(&mut svg);
    svg
}

struct Plot<'a> {
    outcome: &'a Outcome,
    columns: Vec<Column>,
    axis_max: f64,
    step: f64,
}

impl<'a> Plot<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let per_column = outcome.rows.len().div_ceil(COLUMNS_MAX).max(1);
        let columns: Vec<Column> = outcome
            .rows
            .chunks(per_column)
            .enumerate()
            .map(|(place, rows)| worst(place * per_column + 1, rows))
            .collect();
        let highest = columns.iter().filter_map(|column| column.di).fold(0.0, f64::max);
        let axis_max = ((highest * 5.0).ceil() / 5.0).clamp(0.8, AXIS_MAX);
        let step = (RIGHT - LEFT) / number(columns.len().max(1));
        Self { outcome, columns, axis_max, step }
    }

    fn x(&self, column: usize) -> f64 {
        LEFT + self.step * (number(column) + 0.5)
    }

    fn y(&self, di: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * di.min(self.axis_max) / self.axis_max
    }

    fn write(&self, svg: &mut String) -> fmt::Result {
        self.head(svg)?;
        self.legend(svg)?;
        self.axes(svg)?;
        self.marks(svg)?;
        self.drift(svg)?;
        self.lanes(svg)?;
        svg.write_str("</svg>\n")
    }

    fn head(&self, svg: &mut String) -> fmt::Result {
        let outcome = self.outcome;
        let total = outcome.rows.len();
        let name = outcome.profile.name();
        write!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title desc">
<title id="title">Drift and gate over {total} cycles</title>
<desc id="desc">Gate value per cycle, profile {name}, {}. "#,
            policy(outcome)
        )?;
        for band in BANDS {
            write!(svg, "{} {}, ", band.word(), outcome.count(band))?;
        }
        writeln!(
            svg,
            "{} changes of band, at most {} cycles closed in a row. Below the plot each cycle \
             stands in the lane of its band.</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"22\">Drift and gate over {total} cycles</text>\n\
             <text class=\"quiet\" x=\"{LEFT}\" y=\"40\">{name}, {}</text>",
            outcome.transitions,
            outcome.longest_closed,
            policy(outcome)
        )
    }

    fn legend(&self, svg: &mut String) -> fmt::Result {
        let width = (RIGHT - LEFT) / number(BANDS.len());
        for (place, band) in BANDS.into_iter().enumerate() {
            let x = LEFT + width * number(place);
            let count = self.outcome.count(band);
            writeln!(
                svg,
                r#"<rect class="{word}" x="{x}" y="53" width="12" height="12" rx="2"/><text x="{}" y="64">{word} <tspan class="quiet">{count} ({:.1} %)</tspan></text>"#,
                x + 18.0,
                self.outcome.percent(count),
                word = band.word(),
            )?;
        }
        Ok(())
    }

    fn axes(&self, svg: &mut String) -> fmt::Result {
        let mut level = 0.0;
        while level <= self.axis_max + 0.01 {
            let y = self.y(level);
            writeln!(
                svg,
                r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/><text class="quiet" x="{}" y="{:.1}" text-anchor="end">{level:.1}</text>"#,
                LEFT - 8.0,
                y + 4.0,
            )?;
            level += 0.2;
        }
        let middle = f64::midpoint(TOP, BOTTOM);
        writeln!(
            svg,
            r#"<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">drift index</text>"#
        )?;
        let total = self.outcome.rows.len();
        let stride = tick_stride(total);
        let baseline = LANES_TOP + LANE * number(BANDS.len()) + 18.0;
        for tick in (1..=total).filter(|tick| *tick == 1 || tick.is_multiple_of(stride)) {
            let x = LEFT + (RIGHT - LEFT) * (number(tick) - 0.5) / number(total);
            writeln!(
                svg,
                r#"<text class="quiet" x="{x:.1}" y="{baseline}" text-anchor="middle">{tick}</text>"#
            )?;
        }
        writeln!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="middle">cycle, in the order of the log</text>"#,
            f64::midpoint(LEFT, RIGHT),
            baseline + 22.0
        )
    }

    fn marks(&self, svg: &mut String) -> fmt::Result {
        let marks = self.outcome.policy.thresholds;
        // On a long axis two marks lie closer together than their labels are high.
        let mut above = f64::NEG_INFINITY;
        for (word, mark) in
            [("isolate", marks.isolate), ("block", marks.block), ("reopen", marks.reopen)]
        {
            let y = self.y(mark);
            let label = (y + 4.0).max(above + LABEL);
            above = label;
            writeln!(
                svg,
                r#"<line class="mark" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/><text x="{}" y="{:.1}">{word} {mark:.2}</text>"#,
                RIGHT + 8.0,
                label,
            )?;
        }
        Ok(())
    }

    /// A line through neighbours that have a value, and a mark per value while there is room.
    fn drift(&self, svg: &mut String) -> fmt::Result {
        let mut path = String::new();
        let mut pen_down = false;
        for (place, column) in self.columns.iter().enumerate() {
            if let Some(di) = column.di {
                let command = if pen_down { 'L' } else { 'M' };
                write!(path, "{command}{:.1} {:.1}", self.x(place), self.y(di))?;
            }
            pen_down = column.di.is_some();
        }
        writeln!(svg, r#"<path class="line" d="{path}"/>"#)?;
        if self.columns.len() > MARKS_MAX {
            return Ok(());
        }
        for (place, column) in self.columns.iter().enumerate() {
            let Some(di) = column.di else { continue };
            writeln!(
                svg,
                r#"<circle class="{}" cx="{:.1}" cy="{:.1}" r="3"><title>{}</title></circle>"#,
                column.band.word(),
                self.x(place),
                self.y(di),
                column.title
            )?;
        }
        Ok(())
    }

    /// Worst on top, as on the drift axis. Neighbours in one band are one bar.
    fn lanes(&self, svg: &mut String) -> fmt::Result {
        for (lane, band) in BANDS.into_iter().rev().enumerate() {
            let y = LANES_TOP + LANE * number(lane);
            writeln!(
                svg,
                r#"<rect class="lane" x="{LEFT}" y="{}" width="{}" height="{}"/><text x="{}" y="{}">{}</text>"#,
                y + 1.0,
                RIGHT - LEFT,
                LANE - 2.0,
                RIGHT + 8.0,
                y + 11.0,
                band.word()
            )?;
        }
        let mut start = 0;
        for run in self.columns.chunk_by(|one, next| one.band == next.band) {
            let Some(band) = run.first().map(|column| column.band) else { continue };
            let above = BANDS.into_iter().filter(|worse| *worse > band).count();
            writeln!(
                svg,
                r#"<rect class="{}" x="{:.1}" y="{}" width="{:.1}" height="{}"><title>{}</title></rect>"#,
                band.word(),
                LEFT + self.step * number(start),
                LANES_TOP + LANE * number(above) + 1.0,
                self.step * number(run.len()),
                LANE - 2.0,
                spanned(run)
            )?;
            start += run.len();
        }
        Ok(())
    }
}

/// What `rows` come to, the first of which is the one of this number.
fn worst(first: usize, rows: &[Row]) -> Column {
    let di = rows.iter().filter_map(|row| row.di).reduce(f64::max);
    let band = rows.iter().map(|row| row.band).max().unwrap_or(Band::Blocked);
    let shown = rows.iter().find(|row| row.band == band);
    let reasons = shown.map(|row| row.reasons.as_slice()).unwrap_or_default();
    let words: Vec<&str> =
        reasons.iter().take(REASONS_SHOWN_MAX).map(|reason| reason.word()).collect();
    let more = if reasons.len() > REASONS_SHOWN_MAX { " ..." } else { "" };
    let why = if words.is_empty() { String::new() } else { format!(": {}", words.join(" ")) };
    let cycles = match rows.len() {
        0 | 1 => format!("cycle {first}"),
        many => format!("cycles {first} to {}", first + many - 1),
    };
    let di_text = di.map_or_else(|| "no index".to_owned(), |di| format!("di {di:.3}"));
    Column { di, band, title: format!("{cycles}, {di_text}, {}{why}{more}", band.word()) }
}

/// What neighbours in one band stand for: how it began.
fn spanned(run: &[Column]) -> String {
    let first = run.first().map(|column| column.title.clone()).unwrap_or_default();
    if run.len() > 1 { format!("{first}; {} columns", run.len()) } else { first }
}

/// Every how many cycles the axis is labelled: 1, 2 or 5 times a power of ten, at most 12 labels.
fn tick_stride(total: usize) -> usize {
    let mut unit = 1;
    loop {
        for stride in [unit, 2 * unit, 5 * unit] {
            if total / stride <= 12 {
                return stride;
            }
        }
        unit *= 10;
    }
}

/// A count as a coordinate. Counts here are bounded by the length of a log, far below 2^32.
fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
