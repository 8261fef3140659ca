//! Reading JSON and YAML, strictly.
//!
//! Strict on the way in: no duplicate keys, no number that would not survive, bounded depth, and an
//! error that names the place by its JSON Pointer. The tokenizers are `serde_json` and
//! `serde-saphyr`; what is here is the rule, not the grammar. What deliberately is not here: size
//! limits, which are the caller's, because only it knows what a body, a packet or a line may weigh.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::canonical::{DEPTH_MAX, INTEGER_MAX, Json, SyntaxFault, push_pointer};

/// From here on RFC 8785 writes exponents, so a number is no longer read as an integer.
const EXPONENT_MIN: f64 = 1e21;
/// The problem of a number beyond the range of `f64`.
const OUT_OF_RANGE: &str = "number out of range: it must be finite as a 64-bit float";

impl Json {
    /// Reads one JSON document (RFC 8259), strictly: UTF-8, no duplicate keys, no lone surrogates,
    /// nothing after the document, at most [`DEPTH_MAX`] levels, finite numbers, and no integer
    /// that an `f64` cannot hold (from 2^53 up to 1e21, where RFC 8785 would print digits that were
    /// never there). The caller bounds the length.
    ///
    /// ```
    /// use driftgate::protocol::canonical::Json;
    /// let json = Json::parse(br#"{"b": [1.50, -0.0], "a": "\u00e9"}"#).unwrap();
    /// assert_eq!(json.to_canonical(), r#"{"a":"é","b":[1.5,0]}"#.as_bytes());
    /// assert_eq!(Json::parse(br#"{"a":{"b":1,"b":2}}"#).unwrap_err().field, "/a/b");
    /// ```
    ///
    /// # Errors
    /// [`SyntaxFault`], always the sender's fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, SyntaxFault> {
        let text = core::str::from_utf8(bytes).map_err(|error| SyntaxFault {
            field: "/".into(),
            problem: format!("not UTF-8 at byte {}", error.valid_up_to()),
            line: 0,
            column: 0,
        })?;
        let first = FirstFault::default();
        let mut source = serde_json::Deserializer::from_str(text);
        Node { position: Position::ROOT, first: &first }
            .deserialize(&mut source)
            .and_then(|json| source.end().map(|()| json))
            .map_err(|error| {
                let (line, column) = (error.line(), error.column());
                let text = error.to_string();
                let ending = format!(" at line {line} column {column}");
                first.into_fault(explain(text.strip_suffix(&ending).unwrap_or(&text)), line, column)
            })
    }

    /// Reads one YAML 1.2 document into the same data model with the same strictness as
    /// [`Json::parse`]. Anchors, aliases, merge keys and tags that name no plain value are refused:
    /// a report, a profile and a capability manifest need none, and they are what makes YAML grow.
    ///
    /// # Errors
    /// [`SyntaxFault`], always the writer's fault.
    pub fn from_yaml(text: &str) -> Result<Self, SyntaxFault> {
        use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: DEPTH_MAX,
                // One more, so that the depth is what is named.
                flow_nesting_limit: DEPTH_MAX + 1,
                max_aliases: 0,
                max_anchors: 0,
                max_documents: 1,
            },
            // The visitor below refuses duplicates, and knows where they are.
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            merge_keys: MergeKeyPolicy::Error,
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
            strict_booleans: true,
            reject_unsupported_tags: true,
            emit_comments: false,
            with_snippet: false,
        };
        let first = FirstFault::default();
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |source| {
            Node { position: Position::ROOT, first: &first }.deserialize(source)
        })
        .map_err(|error| {
            let at = error.location();
            let part = |number: Option<u64>| {
                number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
            };
            let (line, column) = (part(at.map(|at| at.line())), part(at.map(|at| at.column())));
            first.into_fault(explain_yaml(&error), line, column)
        })
    }
}

/// Where a value stands: a list on the stack, from the value up to the root.
#[derive(Clone, Copy)]
struct Position<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
    /// How many containers are around the value.
    depth: usize,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Position<'a> {
    const ROOT: Self = Self { parent: None, step: Step::Root, depth: 0 };

    fn child(&'a self, step: Step<'a>) -> Self {
        Self { parent: Some(self), step, depth: self.depth + 1 }
    }

    fn push_onto(&self, pointer: &mut String) {
        if let Some(parent) = self.parent {
            parent.push_onto(pointer);
        }
        match self.step {
            Step::Root => {}
            Step::Key(key) => push_pointer(pointer, key),
            Step::Index(index) => push_pointer(pointer, &index.to_string()),
        }
    }
}

/// The innermost place at which reading failed: seeds return from the inside out, so the first to
/// report is the one at fault.
#[derive(Default)]
struct FirstFault(RefCell<Option<(String, Option<String>)>>);

impl FirstFault {
    fn note(&self, position: &Position<'_>, problem: Option<String>) {
        let mut first = self.0.borrow_mut();
        if first.is_none() {
            let mut pointer = String::new();
            position.push_onto(&mut pointer);
            *first = Some((pointer, problem));
        }
    }

    fn into_fault(self, otherwise: String, line: usize, column: usize) -> SyntaxFault {
        let (pointer, problem) = self.0.into_inner().unwrap_or_default();
        let field = if pointer.is_empty() { "/".into() } else { pointer };
        SyntaxFault { field, problem: problem.unwrap_or(otherwise), line, column }
    }
}

/// Says more than the tokenizer does where its words would leave the writer guessing.
fn explain(words: &str) -> String {
    match words {
        "number out of range" => OUT_OF_RANGE.into(),
        "expected value" | "invalid number" | "expected ident" => {
            format!("{words}: NaN, Infinity and bare words are not JSON")
        }
        other => other.to_owned(),
    }
}

/// The parser's words without its position and without anything that it quotes.
fn explain_yaml(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::budget::BudgetBreach;
    if let serde_saphyr::Error::Budget { breach, .. } = error {
        return if let BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } = breach {
            "YAML anchors and aliases are not accepted".into()
        } else if let BudgetBreach::Depth { .. } = breach {
            too_deep()
        } else if let BudgetBreach::Documents { .. } = breach {
            "more than one YAML document".into()
        } else {
            "the YAML document is too large".into()
        };
    }
    let words = error.without_snippet().to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    let words = words.split(['`', '\n']).next().unwrap_or_default().trim_end();
    format!("YAML: {words}")
}

fn too_deep() -> String {
    format!("nested more than {DEPTH_MAX} levels deep")
}

/// Reads one value at one place.
#[derive(Clone, Copy)]
struct Node<'a> {
    position: Position<'a>,
    first: &'a FirstFault,
}

impl Node<'_> {
    fn refuse<E: serde::de::Error>(&self, problem: String) -> E {
        self.first.note(&self.position, Some(problem));
        E::custom("refused")
    }

    fn number<E: serde::de::Error>(&self, number: f64) -> Result<Json, E> {
        if !number.is_finite() {
            return Err(self.refuse(OUT_OF_RANGE.into()));
        }
        if number.abs() > INTEGER_MAX && number.abs() < EXPONENT_MIN {
            return Err(self.refuse("integer beyond 2^53: it would not survive".into()));
        }
        Ok(Json::Number(number))
    }

    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.position.depth >= DEPTH_MAX {
            return Err(self.refuse(too_deep()));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Json, D::Error> {
        source.deserialize_any(self).inspect_err(|_| self.first.note(&self.position, None))
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Json;

    fn expecting(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<Json, E> {
        Ok(Json::Bool(truth))
    }

    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "rounding keeps the order, and beyond 2^53 the number is refused"
    )]
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Json, E> {
        // 2^53 + 1 rounds to 2^53, so the comparison is made on the integer.
        self.number(if number > 1 << 53 { INTEGER_MAX * 2.0 } else { number as f64 })
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Json, E> {
        let Json::Number(size) = self.visit_u64(number.unsigned_abs())? else {
            return Err(self.refuse("not a number".into()));
        };
        Ok(Json::Number(if number < 0 { -size } else { size }))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Json, E> {
        self.number(number)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Json, A::Error> {
        self.enter()?;
        let mut elements = Vec::new();
        let element_at =
            |index| Node { position: self.position.child(Step::Index(index)), first: self.first };
        while let Some(element) = source.next_element_seed(element_at(elements.len()))? {
            elements.push(element);
        }
        Ok(Json::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Json, A::Error> {
        self.enter()?;
        let mut members = BTreeMap::new();
        while let Some(key) = source.next_key::<String>()? {
            let node = Node { position: self.position.child(Step::Key(&key)), first: self.first };
            if members.contains_key(&key) {
                return Err(node.refuse("duplicate key".into()));
            }
            let member = source.next_value_seed(node)?;
            members.insert(key, member);
        }
        Ok(Json::Object(members))
    }
}
