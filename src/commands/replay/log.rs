//! The shapes that recorded runs come in, told apart by content: an object with `cycles`, an array,
//! JSON Lines, or one report.

use std::fmt;

use crate::protocol::canonical::{Json, SyntaxFault};

/// Largest log, in bytes: some 40,000 cycles of the richest public runtime, and it is held in
/// memory together with its parsed form.
pub(super) const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most cycles: a hundred times the longest public run, and each is a line of output.
pub(super) const CYCLES_MAX: usize = 50_000;

/// Where in the log a cycle stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// In this line, counted from 1.
    Line(usize),
    /// At this place of the list, counted from 1.
    Entry(usize),
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(formatter, "line {number}"),
            Self::Entry(number) => write!(formatter, "entry {number}"),
        }
    }
}

/// One cycle as recorded.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) place: Position,
    pub(super) document: Result<Json, SyntaxFault>,
}

/// Why a file is no log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// Larger than 64 MiB.
    #[error("larger than {LOG_BYTES_MAX} bytes: replay a part of it")]
    TooLarge,
    /// More cycles than can be shown.
    #[error("more than {CYCLES_MAX} cycles: replay a part of it")]
    TooLong,
    /// Neither JSON nor JSON Lines.
    #[error("neither JSON nor JSON Lines: {0}")]
    Syntax(#[from] SyntaxFault),
    /// Nothing in it.
    #[error("there is no cycle in it")]
    Empty,
}

/// Takes a log apart.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Recorded>, LogFault> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LOG_BYTES_MAX) {
        return Err(LogFault::TooLarge);
    }
    let cycles = match Json::parse(bytes) {
        Ok(document) => entries(document)?,
        Err(whole) => lines(bytes, whole)?,
    };
    if cycles.is_empty() { Err(LogFault::Empty) } else { Ok(cycles) }
}

/// The cycles of one JSON document.
fn entries(document: Json) -> Result<Vec<Recorded>, LogFault> {
    let list = match document {
        Json::Array(list) => list,
        Json::Object(mut members) => match members.remove("cycles") {
            Some(Json::Array(list)) => list,
            Some(cycles) => {
                members.insert("cycles".to_owned(), cycles);
                vec![Json::Object(members)]
            }
            None => vec![Json::Object(members)],
        },
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => vec![document],
    };
    if list.len() > CYCLES_MAX {
        return Err(LogFault::TooLong);
    }
    let recorded =
        |(index, document)| Recorded { place: Position::Entry(index + 1), document: Ok(document) };
    Ok(list.into_iter().enumerate().map(recorded).collect())
}

/// The cycles of JSON Lines. At least one line must be an object, else it is a broken document and
/// `whole` says where.
fn lines(bytes: &[u8], whole: SyntaxFault) -> Result<Vec<Recorded>, LogFault> {
    let mut cycles = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if cycles.len() >= CYCLES_MAX {
            return Err(LogFault::TooLong);
        }
        cycles.push(Recorded { place: Position::Line(index + 1), document: Json::parse(line) });
    }
    let is_object = |cycle: &Recorded| matches!(cycle.document, Ok(Json::Object(_)));
    if cycles.iter().any(is_object) { Ok(cycles) } else { Err(LogFault::Syntax(whole)) }
}
