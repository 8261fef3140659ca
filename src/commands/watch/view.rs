//! What is known of the fleet and how it is looked at: order, filter, the chosen runtime.
//!
//! It takes what the feed brings and keys as words; it reads no terminal, no clock and no broker.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::super::status::Row;
use crate::protocol::gate::Band;
use crate::protocol::time::Timestamp;

/// Looks whose bands are remembered, and frames whose index is: as many as a wide terminal has
/// columns for.
const HISTORY_MAX: usize = 240;
/// Runtimes that are remembered; beyond, the first ones by name.
const RUNTIMES_MAX: usize = 10_000;
/// Over which frames are counted.
const RATE_SPAN: Duration = Duration::from_secs(60);
/// Frames that are counted in that time.
const RATE_MAX: usize = 6000;
/// Longest filter, in characters.
const FILTER_CHARS_MAX: usize = 64;

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(super) enum SortBy {
    /// Who needs attention comes first.
    #[default]
    Attention,
    Name,
    Index,
    Age,
}

impl SortBy {
    fn next(self) -> Self {
        match self {
            Self::Attention => Self::Name,
            Self::Name => Self::Index,
            Self::Index => Self::Age,
            Self::Age => Self::Attention,
        }
    }
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    /// Part of the filter while one is typed; else s sorts, / filters, j and k go down and up.
    Letter(char),
    Erase,
}

/// One runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) row: Row,
    /// Its band at each look, the newest last; `None` while nobody vouches for one.
    pub(super) bands: VecDeque<Option<Band>>,
    /// The index of each frame, the newest last. There are none while a gate is closed.
    pub(super) indices: VecDeque<f64>,
    frames: VecDeque<Timestamp>,
}

impl Runtime {
    /// Frames of the last minute.
    pub(super) fn rate(&self, now: Timestamp) -> usize {
        self.frames.iter().filter(|at| now.since(**at) < RATE_SPAN).count()
    }
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) runtimes: BTreeMap<String, Runtime>,
    pub(super) broker: String,
    /// When the bucket was read last.
    pub(super) read: Option<Timestamp>,
    /// Why what is shown is not new.
    pub(super) fault: Option<String>,
    pub(super) order: SortBy,
    pub(super) filter: String,
    pub(super) is_filtering: bool,
    /// The runtime that the mark stands on, by name so that it stays there when rows move.
    pub(super) chosen: Option<String>,
    /// Whether that one is shown alone.
    pub(super) is_open: bool,
    /// The newest explanation that was asked for.
    pub(super) explained: Option<String>,
    /// Rows that fit, as the screen found at its last picture.
    pub(super) page: usize,
}

impl View {
    /// Takes what the bucket holds.
    pub(super) fn took(&mut self, rows: Vec<Row>, now: Timestamp) {
        let mut left = core::mem::take(&mut self.runtimes);
        for row in rows.into_iter().take(RUNTIMES_MAX) {
            let mut runtime = left.remove(&row.key).unwrap_or_else(|| Runtime {
                row: row.clone(),
                bands: VecDeque::new(),
                indices: VecDeque::new(),
                frames: VecDeque::new(),
            });
            remember(&mut runtime.bands, row.live_band(now));
            runtime.row = row;
            self.runtimes.insert(runtime.row.key.clone(), runtime);
        }
        self.read = Some(now);
        self.fault = None;
    }

    /// Takes one frame of a runtime that is known.
    pub(super) fn heard(&mut self, source: &str, index: Option<f64>, now: Timestamp) {
        let Some(runtime) = self.runtimes.get_mut(source) else { return };
        if let Some(index) = index {
            remember(&mut runtime.indices, index);
        }
        runtime.frames.retain(|at| now.since(*at) < RATE_SPAN);
        if runtime.frames.len() < RATE_MAX {
            runtime.frames.push_back(now);
        }
    }

    /// The names that are shown, in order.
    pub(super) fn shown(&self, now: Timestamp) -> Vec<&Runtime> {
        let wanted = self.filter.to_lowercase();
        let is_wanted = |runtime: &&Runtime| runtime.row.words(now).contains(&wanted);
        let mut shown: Vec<&Runtime> = self.runtimes.values().filter(is_wanted).collect();
        match self.order {
            SortBy::Name => {}
            SortBy::Attention => shown.sort_by_key(|runtime| runtime.row.rank(now)),
            SortBy::Index => shown.sort_by(|one, other| {
                let index = |runtime: &Runtime| runtime.indices.back().copied().unwrap_or(-1.0);
                index(other).total_cmp(&index(one))
            }),
            SortBy::Age => shown.sort_by_key(|runtime| {
                let at = runtime.row.presence.as_ref().map(|presence| presence.at);
                at.map_or(i64::MIN, Timestamp::unix_ms)
            }),
        }
        shown
    }

    /// Where the mark stands among `shown`.
    pub(super) fn place(&self, shown: &[&Runtime]) -> usize {
        let is_chosen = |runtime: &&Runtime| Some(&runtime.row.key) == self.chosen.as_ref();
        shown.iter().position(is_chosen).unwrap_or(0)
    }

    /// Does what a key asks for.
    pub(super) fn obey(&mut self, wish: Wish, now: Timestamp) {
        match wish {
            Wish::Letter(letter) if self.is_filtering => {
                if self.filter.chars().count() < FILTER_CHARS_MAX && !letter.is_control() {
                    self.filter.push(letter);
                }
            }
            Wish::Erase if self.is_filtering => drop(self.filter.pop()),
            Wish::Open if self.is_filtering => self.is_filtering = false,
            Wish::Back if self.is_filtering => {
                self.is_filtering = false;
                self.filter.clear();
            }
            Wish::Back if self.explained.is_some() => self.explained = None,
            Wish::Back if self.is_open => self.is_open = false,
            Wish::Back => self.filter.clear(),
            Wish::Letter('s') => self.order = self.order.next(),
            Wish::Letter('/') => self.is_filtering = true,
            Wish::Letter('k') => self.obey(Wish::Up, now),
            Wish::Letter('j') => self.obey(Wish::Down, now),
            Wish::Letter(_) | Wish::Erase => {}
            Wish::Open => {
                self.chosen = self.at(now, |place, _| place);
                self.is_open = self.chosen.is_some();
            }
            Wish::Up => self.chosen = self.at(now, |place, _| place.saturating_sub(1)),
            Wish::Down => self.chosen = self.at(now, |place, _| place.saturating_add(1)),
            Wish::PageUp => {
                let page = self.page.max(1);
                self.chosen = self.at(now, |place, _| place.saturating_sub(page));
            }
            Wish::PageDown => {
                let page = self.page.max(1);
                self.chosen = self.at(now, |place, _| place.saturating_add(page));
            }
            Wish::First => self.chosen = self.at(now, |_, _| 0),
            Wish::Last => self.chosen = self.at(now, |_, count| count),
        }
    }

    /// The name at a place that `step` makes of the present one and the number of rows.
    fn at(&self, now: Timestamp, step: impl Fn(usize, usize) -> usize) -> Option<String> {
        let shown = self.shown(now);
        let place = step(self.place(&shown), shown.len()).min(shown.len().saturating_sub(1));
        shown.get(place).map(|runtime| runtime.row.key.clone())
    }
}

fn remember<T>(history: &mut VecDeque<T>, newest: T) {
    if history.len() >= HISTORY_MAX {
        history.pop_front();
    }
    history.push_back(newest);
}
