//! What a route does, in one table beside its handler: its router is made of it, and so is
//! `/openapi.json`. A route that is not described cannot be.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::Query;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use hyper::Uri;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::problem::{Outcome, Problem};

/// Makes a schema, and what it refers to.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// One method of one path.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    /// As the router reads it: `{name}` is a parameter.
    pub(super) path: &'static str,
    /// What it does, in a line.
    pub(super) summary: &'static str,
    /// No other query parameters are taken.
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Input,
    /// All but the problems.
    pub(super) answers: &'static [AnswerDoc],
    /// What can go wrong here beside what [`Operation::outcomes`] adds.
    pub(super) problems: &'static [Outcome],
}

/// What is done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Method {
    /// A HEAD is answered, too.
    Get,
    Post,
    Put,
}

impl Method {
    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
        }
    }
}

/// Part of a request beside its body.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) location: Location,
    pub(super) text: &'static str,
    pub(super) schema: Describe,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Location {
    Header,
    Path,
    Query,
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// Nothing is read.
    None,
    /// A document in each form and coding.
    Document(Describe),
    /// The same, or a stream of them, one in each line.
    Documents(Describe),
    /// One document, or nothing.
    Optional(Describe),
    /// Bytes of any media type.
    Bytes,
}

/// What an answer carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    None,
    /// A document in the form and coding that the client takes.
    Document(Describe),
    /// The same, and one for each line of a stream.
    Documents(Describe),
    /// Bytes of any media type and coding, or a document.
    Bytes {
        or: Describe,
    },
    /// Something of this media type.
    Other(&'static str),
}

/// An answer that is no problem.
#[derive(Debug)]
pub(super) struct AnswerDoc {
    pub(super) status: u16,
    pub(super) text: &'static str,
    pub(super) content: Content,
    /// Those that a client may want to read.
    pub(super) headers: &'static [&'static str],
}

impl AnswerDoc {
    /// A document and no header of note.
    pub(super) const fn document(status: u16, text: &'static str, schema: Describe) -> Self {
        Self { status, text, content: Content::Document(schema), headers: &[] }
    }
}

/// The schema of what is written of a `T`.
pub(super) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    /// A name for it that no other has: `get_field_state`.
    pub(super) fn id(&self) -> String {
        let method: &str = self.method.into();
        let words = self.path.split(|sign: char| !sign.is_ascii_alphanumeric());
        let words: Vec<&str> = core::iter::once(method).chain(words).collect();
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
    }

    /// Whether it answers with a document.
    pub(super) fn has_document(&self) -> bool {
        let is_one = |answer: &AnswerDoc| {
            matches!(answer.content, Content::Document(_) | Content::Documents(_))
        };
        self.answers.iter().any(is_one)
    }

    /// Everything that can go wrong: what may anywhere, what comes with reading a body or writing a
    /// document, and what is its own.
    pub(super) fn outcomes(&self) -> BTreeSet<Outcome> {
        use Outcome as O;
        let anywhere = [
            O::BadQuery,
            O::Unauthorized,
            O::ForeignOrigin,
            O::ForeignUser,
            O::Misdirected,
            O::TooManyConnections,
        ];
        let with_method: &[O] = match self.method {
            Method::Get => &[],
            Method::Post | Method::Put => &[O::Overloaded],
        };
        let with_body: &[O] = match self.body {
            Input::None => &[],
            Input::Document(_) | Input::Documents(_) | Input::Optional(_) => &[
                O::Unreadable,
                O::BodyTooSlow,
                O::BodyTooLarge,
                O::UnsupportedCoding,
                O::UnsupportedMedia,
            ],
            Input::Bytes => &[
                O::Unreadable,
                O::BodyTooSlow,
                O::BodyTooLarge,
                O::UnsupportedCoding,
                O::BadMediaType,
            ],
        };
        let with_document: &[O] = if self.has_document() {
            &[O::NotAcceptable, O::Unencodable, O::Overloaded, O::Stopping]
        } else {
            &[]
        };
        let all = [&anywhere, with_method, with_body, with_document, self.problems];
        all.into_iter().flatten().copied().collect()
    }

    /// Reads the query's parameters, each of which may stand there once.
    ///
    /// # Errors
    /// [`Outcome::BadQuery`], the client's fault; it names the parameter.
    pub(super) fn query(&self, uri: &Uri) -> Result<BTreeMap<&'static str, String>, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Problem::new(Outcome::BadQuery, "the query is not name=value pairs"))?;
        let known = self.parameters.iter().filter(|known| known.location == Location::Query);
        let known: Vec<&'static str> = known.map(|known| known.name).collect();
        let mut found = BTreeMap::new();
        for (name, value) in pairs {
            let Some(&name) = known.iter().find(|known| **known == name) else {
                let words = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let detail = format!("no such parameter; this route knows: {words}");
                return Err(Problem::new(Outcome::BadQuery, detail).of_field(name));
            };
            if found.insert(name, value).is_some() {
                return Err(Problem::new(Outcome::BadQuery, "given more than once").of_field(name));
            }
        }
        Ok(found)
    }
}

/// Routes, and what each of them does.
#[derive(Debug)]
pub(super) struct Routes<S> {
    pub(super) router: Router<S>,
    pub(super) operations: Vec<&'static Operation>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }

    /// Has `handler` do what the operation says.
    pub(super) fn on<T: 'static>(
        mut self,
        operation: &'static Operation,
        handler: impl Handler<T, S>,
    ) -> Self {
        self.operations.push(operation);
        let route = on(operation.method.filter(), handler);
        Self { router: self.router.route(operation.path, route), ..self }
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.operations.extend(other.operations);
        Self { router: self.router.merge(other.router), ..self }
    }
}
