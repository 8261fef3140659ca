//! YAML as a tree that knows where each of its nodes stands in the text.
//!
//! It is for looking, not for writing back: whoever wants to change a document inserts lines into
//! the text, so that the rest stays as it was written, comments and all.

use core::iter::Peekable;

use serde_saphyr::granit_parser::{Event, Parser, ScanError, Span, StructureStyle};

/// Deepest nesting that is looked into; a Pod's is some 12.
const DEPTH_MAX: usize = 64;

/// Why a text is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Refusal {
    /// Where, from 1.
    pub line: usize,
    /// What is not understood, and what to do.
    pub problem: String,
}

impl Refusal {
    pub(super) fn new(line: usize, problem: impl Into<String>) -> Self {
        Self { line, problem: problem.into() }
    }
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    /// From 0.
    pub(super) column: usize,
    pub(super) is_anchored: bool,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// What an alias stands for is not looked up.
    Alias,
    /// No text at all, as after a key that stands alone.
    Nothing,
    Scalar(String),
    List(StructureStyle, Vec<Node>),
    Map(StructureStyle, Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            Value::Alias | Value::Nothing | Value::List(..) | Value::Map(..) => None,
        }
    }

    /// The entries of a mapping; of anything else none.
    pub(super) fn entries(&self) -> &[(Self, Self)] {
        match &self.value {
            Value::Map(_, entries) => entries,
            Value::Alias | Value::Nothing | Value::Scalar(_) | Value::List(..) => &[],
        }
    }

    /// The entries of a list; of anything else none.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(_, items) => items,
            Value::Alias | Value::Nothing | Value::Scalar(_) | Value::Map(..) => &[],
        }
    }

    /// A key of a mapping with its value.
    pub(super) fn entry(&self, name: &str) -> Option<&(Self, Self)> {
        self.entries().iter().find(|(key, _)| key.text() == Some(name))
    }

    /// What a key of a mapping holds.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.entry(name).map(|(_, value)| value)
    }

    /// The text that a key of a mapping holds.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.get(name)?.text()
    }

    /// Whether lines can be inserted into it: written in block style, or nothing at all.
    pub(super) fn is_block(&self) -> bool {
        match &self.value {
            Value::Map(style, _) | Value::List(style, _) => *style == StructureStyle::Block,
            Value::Nothing => true,
            Value::Scalar(_) | Value::Alias => false,
        }
    }
}

/// The documents of a text, in order.
///
/// # Errors
/// [`Refusal`]: no YAML, or nested too deep.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Refusal> {
    let mut events = Parser::new_from_str(text).peekable();
    let mut documents = Vec::new();
    while let Some((event, span)) = next(&mut events)? {
        if is_node(&event) {
            documents.push(node(event, span, &mut events, 0)?);
        }
    }
    Ok(documents)
}

fn is_node(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::Alias(_) | Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..)
    )
}

/// The next event that is no comment.
fn next<'t>(
    events: &mut Peekable<impl Iterator<Item = Result<(Event<'t>, Span), ScanError>>>,
) -> Result<Option<(Event<'t>, Span)>, Refusal> {
    loop {
        match events.next().transpose() {
            Ok(Some((Event::Comment(..), _))) => {}
            Ok(event) => return Ok(event),
            Err(error) => {
                let problem = format!("not YAML: {}", error.info());
                return Err(Refusal::new(error.marker().line(), problem));
            }
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum of a library may grow")]
fn node<'t>(
    event: Event<'t>,
    span: Span,
    events: &mut Peekable<impl Iterator<Item = Result<(Event<'t>, Span), ScanError>>>,
    depth: usize,
) -> Result<Node, Refusal> {
    let (line, column) = (span.start.line(), span.start.col());
    if depth >= DEPTH_MAX {
        return Err(Refusal::new(line, format!("nested deeper than {DEPTH_MAX}")));
    }
    let mut children = |line| -> Result<Vec<Node>, Refusal> {
        let mut children = Vec::new();
        loop {
            match next(events)? {
                Some((Event::SequenceEnd | Event::MappingEnd, _)) => return Ok(children),
                Some((event, span)) => children.push(node(event, span, events, depth + 1)?),
                None => return Err(Refusal::new(line, "ends too early")),
            }
        }
    };
    let (anchor, value) = match event {
        Event::Scalar(..) if span.start.index() == span.end.index() => (0, Value::Nothing),
        Event::Scalar(text, _, anchor, _) => (anchor, Value::Scalar(text.into_owned())),
        Event::SequenceStart(style, anchor, _) => (anchor, Value::List(style, children(line)?)),
        Event::MappingStart(style, anchor, _) => {
            let mut children = children(line)?.into_iter();
            let mut entries = Vec::new();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                entries.push((key, value));
            }
            (anchor, Value::Map(style, entries))
        }
        Event::Alias(_) | Event::UnresolvedAlias(_) => (0, Value::Alias),
        _ => return Err(Refusal::new(line, "not where a value can begin")),
    };
    Ok(Node { line, column, is_anchored: anchor != 0, value })
}
