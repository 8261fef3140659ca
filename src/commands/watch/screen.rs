//! The fleet as a picture, from 20 columns by 5 rows to a full screen. It draws a [`View`] and
//! decides nothing; bands have letters, so that colours are never needed.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::symbols::bar::NINE_LEVELS;
use ratatui::text::{Line, Span, Text};

use super::super::terminal::colour;
use super::view::{Runtime, View};
use crate::config::show_duration;
use crate::protocol::gate::{BLOCK_MAX, Band};
use crate::protocol::time::Timestamp;

/// Below this many columns there are names and bands alone; from the second on also mode and
/// version, and histories are as long as there is room.
const NARROW: u16 = 60;
const WIDE: u16 = 130;
/// Below this many rows there is no line of totals and none of keys.
const LOW: u16 = 8;

/// Draws it.
pub(super) fn render(view: &mut View, now: Timestamp, frame: &mut Frame<'_>) {
    let page = frame.area();
    let is_low = page.height < LOW;
    let ends = u16::from(!is_low);
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1 + ends),
        Constraint::Min(0),
        Constraint::Length(ends),
    ])
    .areas(page);
    frame.render_widget(Text::from(heading(view, now, is_low)), head);
    frame.render_widget(footing(view), foot);
    view.page = usize::from(body.height).saturating_sub(1);
    if let Some(explained) = &view.explained {
        frame.render_widget(Text::from(explained.as_str()), body);
        return;
    }
    let shown = view.shown(now);
    let place = view.place(&shown);
    match shown.get(place).filter(|_| view.is_open) {
        Some(runtime) => frame.render_widget(Text::from(alone(runtime, now, body.width)), body),
        None => frame.render_widget(Text::from(table(&shown, place, now, body)), body),
    }
}

fn heading(view: &View, now: Timestamp, is_low: bool) -> Vec<Line<'static>> {
    let mut spans: Vec<Span<'static>> = vec![format!("{} runtimes", view.runtimes.len()).into()];
    for (band, letter) in LETTERS {
        let is_there = |runtime: &&Runtime| runtime.row.live_band(now) == Some(band);
        let count = view.runtimes.values().filter(is_there).count();
        let style = if count > 0 { Style::new().fg(colour(band)) } else { Style::new() };
        spans.push(Span::styled(format!("  {count} {letter}:{band}"), style));
    }
    let away = view.runtimes.values().filter(|one| one.row.live_band(now).is_none()).count();
    spans.push(format!("  {away} -:away").into());
    if is_low {
        return vec![Line::from(spans)];
    }
    let read = match (&view.fault, view.read) {
        (Some(fault), Some(read)) => {
            format!("STALE for {}: {fault}", span(now.since(read)))
        }
        (Some(fault), None) => format!("NOTHING READ: {fault}"),
        (None, Some(read)) => format!("read {} ago", span(now.since(read))),
        (None, None) => "reading".to_owned(),
    };
    let order: &str = view.order.into();
    let filter = match (view.is_filtering, view.filter.as_str()) {
        (true, filter) => format!(", filter: {filter}_"),
        (false, "") => String::new(),
        (false, filter) => format!(", filter: {filter}"),
    };
    let second = format!("{}, {read}; by {order}{filter}", view.broker);
    vec![Line::from(spans), Line::from(second)]
}

fn footing(view: &View) -> Line<'static> {
    let keys = if view.is_filtering {
        "type to filter   Enter keeps it   Esc drops it"
    } else if view.is_open || view.explained.is_some() {
        "Esc back   e explain   q quit"
    } else {
        "q quit   arrows choose   Enter detail   s sort   / filter   e explain"
    };
    Line::from(keys).style(Style::new().add_modifier(Modifier::DIM))
}

/// Each band and its letter in a history.
const LETTERS: [(Band, char); 4] =
    [(Band::Open, 'o'), (Band::Caution, 'c'), (Band::Blocked, 'B'), (Band::Isolated, 'I')];

fn table(shown: &[&Runtime], place: usize, now: Timestamp, area: Rect) -> Vec<Line<'static>> {
    let rows = usize::from(area.height).saturating_sub(1);
    // The chosen one is always to be seen, and no row moves without need.
    let first = place.saturating_sub(rows.saturating_sub(1));
    let mut lines = vec![Line::from(head(area.width)).style(Modifier::BOLD)];
    for (number, runtime) in shown.iter().enumerate().skip(first).take(rows) {
        let line = row(runtime, now, area.width);
        lines.push(if number == place { line.style(Modifier::REVERSED) } else { line });
    }
    lines
}

/// Columns of the name, and of each history.
fn widths(width: u16) -> (usize, usize) {
    if width < WIDE {
        return (16, 8);
    }
    (24, usize::from(width - WIDE) / 4 + 12)
}

fn head(width: u16) -> String {
    if width < NARROW {
        return format!("{:<12} BAND", "RUNTIME");
    }
    let (name, history) = widths(width);
    let more =
        if width < WIDE { String::new() } else { format!("{:<8} {:<9} ", "MODE", "VERSION") };
    format!(
        "{:<name$} {:<8} {:>5} {:<history$} {:>5} {:<history$} {:>4} {:>5} {more}REASONS",
        "RUNTIME", "BAND", "FOR", "BANDS", "INDEX", "DRIFT", "/MIN", "SEEN"
    )
}

fn row(runtime: &Runtime, now: Timestamp, width: u16) -> Line<'static> {
    let presence = runtime.row.presence.as_ref();
    let state = runtime.row.state(now);
    let band = runtime.row.live_band(now);
    let word = band.map_or_else(|| state.to_uppercase(), |band| band.word().to_owned());
    let style = band.map_or_else(Style::new, |band| Style::new().fg(colour(band)));
    if width < NARROW {
        let name = cut(&runtime.row.key, 12);
        return Line::from_iter([format!("{name:<12} ").into(), Span::styled(word, style)]);
    }
    let (name, history) = widths(width);
    let since = presence.map_or_else(|| "-".to_owned(), |told| span(now.since(told.since)));
    let seen = presence.map_or_else(|| "-".to_owned(), |told| span(now.since(told.at)));
    let index = runtime.indices.back().map_or_else(|| "-".to_owned(), |di| format!("{di:.3}"));
    let mut spans = vec![
        format!("{:<name$} ", cut(&runtime.row.key, name)).into(),
        Span::styled(format!("{word:<8}"), style),
        format!(" {since:>5} ").into(),
    ];
    spans.extend(bands(runtime, history));
    spans.push(
        format!(" {index:>5} {} {:>4} {seen:>5} ", sparkline(runtime, history), runtime.rate(now))
            .into(),
    );
    if width >= WIDE {
        let (mode, version) = match presence {
            Some(told) => (<&str>::from(told.mode), told.version.as_str()),
            None => ("-", "-"),
        };
        spans.push(format!("{:<8} {:<9} ", cut(mode, 8), cut(version, 9)).into());
    }
    spans.push(why(runtime).into());
    Line::from(spans)
}

/// Why, in words of the gate; letters of an entry that could move the terminal's mark are not
/// among them.
fn why(runtime: &Runtime) -> String {
    match &runtime.row.presence {
        None => "does not verify".to_owned(),
        Some(told) => {
            let hold = if told.hold { "held, " } else { "" };
            plain(&format!("{hold}{}", told.reasons.join(" ")))
        }
    }
}

/// The newest bands as letters, the newest at the right.
fn bands(runtime: &Runtime, width: usize) -> Vec<Span<'static>> {
    let shown = runtime.bands.len().min(width);
    let mut spans = vec![Span::from(" ".repeat(width - shown))];
    for band in runtime.bands.iter().skip(runtime.bands.len() - shown) {
        spans.push(match band {
            None => "-".into(),
            Some(band) => {
                let letter = LETTERS.iter().find(|(of, _)| of == band).map_or('?', |(_, it)| *it);
                Span::styled(letter.to_string(), Style::new().fg(colour(*band)))
            }
        });
    }
    spans
}

/// The newest indices as bars, a full one where the gate would block.
fn sparkline(runtime: &Runtime, width: usize) -> String {
    let shown = runtime.indices.len().min(width);
    let bar = |index: &f64| {
        let eighths = (1..=8_u32).rev().find(|part| *index >= BLOCK_MAX * f64::from(*part) / 8.0);
        match eighths {
            None => NINE_LEVELS.empty,
            Some(1) => NINE_LEVELS.one_eighth,
            Some(2) => NINE_LEVELS.one_quarter,
            Some(3) => NINE_LEVELS.three_eighths,
            Some(4) => NINE_LEVELS.half,
            Some(5) => NINE_LEVELS.five_eighths,
            Some(6) => NINE_LEVELS.three_quarters,
            Some(7) => NINE_LEVELS.seven_eighths,
            Some(_) => NINE_LEVELS.full,
        }
    };
    let bars = runtime.indices.iter().skip(runtime.indices.len() - shown).map(bar);
    " ".repeat(width - shown) + &bars.collect::<String>()
}

/// One runtime in detail.
fn alone(runtime: &Runtime, now: Timestamp, width: u16) -> Vec<Line<'static>> {
    let state = runtime.row.state(now);
    let mut lines =
        vec![Line::from(format!("runtime   {}", runtime.row.key)).style(Modifier::BOLD)];
    let Some(told) = &runtime.row.presence else {
        lines.push("state     foreign: what stands there does not verify under these keys".into());
        return lines;
    };
    let band = Span::styled(told.band.word(), Style::new().fg(colour(told.band)));
    let since = span(now.since(told.since));
    lines.push(Line::from_iter(["band      ".into(), band, format!(", for {since}").into()]));
    let mode: &str = told.mode.into();
    let history = usize::from(width).saturating_sub(10);
    let mut past = vec!["bands     ".into()];
    past.extend(bands(runtime, history.min(runtime.bands.len())));
    lines.extend([
        format!("state     {state}, seen {} ago", span(now.since(told.at))).into(),
        format!("reasons   {}", why(runtime)).into(),
        format!("mode      {mode}, version {}", plain(&told.version)).into(),
        format!("started   {}, epoch {}, claim {}", told.started, told.epoch, told.claim).into(),
        format!("frames    {} in the last minute", runtime.rate(now)).into(),
        Line::from(past),
    ]);
    if let Some(index) = runtime.indices.back() {
        let bars = sparkline(runtime, history.min(runtime.indices.len()));
        lines.push(format!("index     {index:.4}, as last told while open").into());
        lines.push(format!("drift     {bars}").into());
    }
    lines
}

/// A time in its largest whole unit: `8s`, `12m`, `3h`, `4d`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = match seconds {
        0..60 => 1,
        60..3600 => 60,
        3600..86_400 => 3600,
        _ => 86_400,
    };
    show_duration(Duration::from_secs(seconds / unit * unit))
}

fn cut(text: &str, chars: usize) -> String {
    plain(text).chars().take(chars).collect()
}

/// Without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::super::status::Row;
    use super::super::view::Wish;
    use super::*;
    use crate::protocol::gate::Mode;
    use crate::protocol::packet::RuntimeId;
    use crate::protocol::presence::{Instance, Presence};

    fn now() -> Timestamp {
        Timestamp::parse("2026-12-01T12:00:00Z").unwrap()
    }

    /// A fleet of which nine in ten do not stand open.
    fn fleet(count: usize) -> View {
        let row = |number: usize| {
            let key = format!("runtime-{number:04}");
            let bands = [Band::Open, Band::Caution, Band::Blocked, Band::Isolated, Band::Blocked];
            let band = bands[number % bands.len()];
            let ago = |seconds: usize| {
                Timestamp::from_unix_ms(now().unix_ms() - 1000 * i64::try_from(seconds).unwrap())
            };
            let reasons = if band == Band::Open { vec![] } else { vec!["di_block", "latched"] };
            let presence = Presence {
                runtime_id: RuntimeId::new(&key).unwrap(),
                mode: Mode::Enforce,
                band,
                reasons: reasons.into_iter().map(str::to_owned).collect(),
                since: ago(17 * number + 8),
                epoch: 1,
                hold: number % 50 == 3,
                instance: Instance::new(7),
                claim: 1,
                version: "0.1.0".to_owned(),
                started: ago(90_000),
                at: ago(if number % 20 == 6 { 60 } else { number % 9 }),
            };
            Row { key, presence: (number % 40 != 9).then_some(presence) }
        };
        let mut view = View { broker: "nats://127.0.0.1:4222".to_owned(), ..View::default() };
        for _ in 0..12 {
            view.took((0..count).map(row).collect(), now());
        }
        for step in 0..12_u32 {
            view.heard("runtime-0000", Some(0.04 * f64::from(step)), now());
        }
        view
    }

    fn picture(view: &mut View, columns: u16, rows: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| render(view, now(), frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(usize::from(columns));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect()).collect()
    }

    #[test]
    fn a_fleet_of_three_and_of_a_thousand_is_drawn_at_every_size() {
        for count in [0, 3, 1000] {
            let mut view = fleet(count);
            for (columns, rows) in [(1, 1), (20, 5), (59, 7), (80, 24), (160, 50), (300, 90)] {
                for is_open in [false, true] {
                    view.is_open = is_open;
                    assert_eq!(picture(&mut view, columns, rows).len(), usize::from(rows));
                }
            }
            view.is_open = false;
            let text = picture(&mut view, 80, 24).join("\n");
            assert!(text.contains(&format!("{count} runtimes")), "{text}");
            if count == 3 {
                let told = picture(&mut view, 160, 50).join("\n");
                for expected in ["runtime-0002             blocked", "BBBBBBBBBBBB", "0.1.0"] {
                    assert!(told.contains(expected), "{expected}\n{told}");
                }
                assert!(told.contains("oooooooooooo") && told.contains("0.440"), "{told}");
            }
        }
    }

    /// What a terminal is sent, in order.
    #[derive(Clone, Default)]
    struct Sent(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

    impl std::io::Write for Sent {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_thousand_runtimes_do_not_flicker_when_one_of_them_changes() {
        let sent = Sent::default();
        let viewport = ratatui::Viewport::Fixed(Rect::new(0, 0, 160, 50));
        let options = ratatui::TerminalOptions { viewport };
        let backend = ratatui::backend::CrosstermBackend::new(sent.clone());
        let mut terminal = Terminal::with_options(backend, options).unwrap();
        let mut view = fleet(1000);
        view.order = super::super::view::SortBy::Name;
        let mut drawn = |view: &mut View| {
            terminal.draw(|frame| render(view, now(), frame)).unwrap();
            std::mem::take(&mut *sent.0.borrow_mut())
        };
        let whole = drawn(&mut view).len();
        let still = drawn(&mut view).len();
        view.heard("runtime-0003", Some(0.31), now());
        let changed = drawn(&mut view);
        println!("whole {whole} bytes, nothing new {still}, one has changed {}", changed.len());
        let text = String::from_utf8(changed).unwrap();
        assert!(text.contains("0.31"), "{text:?}");
        assert!(!text.contains("\u{1b}[2J") && !text.contains("runtime-0004"), "{text:?}");
        assert!(still < 100 && text.len() < whole / 50, "{} of {whole}", text.len());
    }

    #[test]
    fn the_capture_in_the_documents_is_what_is_drawn() {
        let document = include_str!("../../../docs/console.md");
        let drawn = picture(&mut fleet(12), 80, 24);
        let lines: Vec<&str> = drawn.iter().map(|line| line.trim_end()).collect();
        let block = format!("```text\n{}\n```\n", lines.join("\n"));
        assert!(document.contains(&block), "docs/console.md lacks this:\n{block}");
    }

    #[test]
    fn who_needs_attention_comes_first_and_the_order_can_be_changed() {
        let mut view = fleet(1000);
        let first = |view: &mut View| picture(view, 80, 24)[3].clone();
        assert!(first(&mut view).contains("FOREIGN"), "{}", first(&mut view));
        view.obey(Wish::Letter('s'), now());
        assert!(first(&mut view).starts_with("runtime-0000"), "{}", first(&mut view));
        view.obey(Wish::Letter('s'), now());
        assert!(first(&mut view).starts_with("runtime-0000"), "{}", first(&mut view));
        assert!(picture(&mut view, 80, 24)[1].contains("by index"));
    }

    #[test]
    fn the_chosen_runtime_stays_in_sight_and_is_shown_alone() {
        let mut view = fleet(1000);
        view.obey(Wish::Letter('s'), now());
        picture(&mut view, 80, 24);
        view.obey(Wish::PageDown, now());
        view.obey(Wish::Letter('j'), now());
        assert_eq!(view.chosen.as_deref(), Some("runtime-0021"));
        assert!(picture(&mut view, 80, 24).iter().any(|row| row.starts_with("runtime-0021")));
        view.obey(Wish::Last, now());
        assert_eq!(view.chosen.as_deref(), Some("runtime-0999"));
        view.obey(Wish::Down, now());
        assert!(picture(&mut view, 20, 5).iter().any(|row| row.contains("runtime-0999")));
        view.obey(Wish::Open, now());
        let alone = picture(&mut view, 80, 24).join("\n");
        assert!(alone.contains("runtime   runtime-0999") && alone.contains("reasons "), "{alone}");
        view.obey(Wish::Back, now());
        assert!(!view.is_open);
    }

    #[test]
    fn a_filter_is_typed_kept_and_dropped() {
        let mut view = fleet(1000);
        for letter in "/isolated".chars() {
            view.obey(Wish::Letter(letter), now());
        }
        view.obey(Wish::Open, now());
        let rows = picture(&mut view, 80, 24);
        assert!(rows[1].contains("filter: isolated"), "{rows:?}");
        for row in rows.iter().skip(3).take(19) {
            assert!(row.contains("isolated") || row.contains("STALE"), "{row}");
        }
        view.obey(Wish::Back, now());
        assert_eq!(view.filter, "");
    }

    #[test]
    fn what_is_stale_says_so_and_nothing_told_moves_the_terminal() {
        let mut view = fleet(3);
        view.fault = Some("no broker answers".to_owned());
        if let Some(presence) =
            view.runtimes.get_mut("runtime-0002").and_then(|told| told.row.presence.as_mut())
        {
            presence.reasons = vec!["\u{1b}[2Jdi_block".to_owned()];
        }
        let rows = picture(&mut view, 110, 24);
        assert!(rows[1].contains("STALE for 0s: no broker answers"), "{}", rows[1]);
        let text = rows.join("\n");
        assert!(text.contains("?[2Jdi_block") && !text.contains('\u{1b}'), "{text}");
    }
}
