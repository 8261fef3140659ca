//! The documents that describe the rest. They are the same in every band and for everybody who may
//! ask, and need no driver. `driftgate schema` gives the same bytes as their routes.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::accept::is_known;
use super::operation::{
    AnswerDoc, Content, Input, Location, Method, Operation, Parameter, Routes, schema_of,
};
use super::problem::{Outcome, Problem};
use super::{ApiState, Backend, openapi};
use crate::config;
use crate::profiles;
use crate::protocol::capabilities::capabilities_schema;
use crate::protocol::digest::Digest;
use crate::protocol::{audit, schema, snapshot, wire};

/// What [`CONTEXT`](crate::protocol::packet::CONTEXT) names.
const CONTEXT: &str = include_str!("../../deploy/context.jsonld");
const SCHEMA_TYPE: &str = "application/schema+json";

/// What a document describes.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    clap::ValueEnum,
)]
#[strum(serialize_all = "lowercase")]
pub enum Name {
    /// A line of the audit log
    Audit,
    /// What a runtime says of itself to its peers
    Capabilities,
    /// The configuration
    Config,
    /// The terms of packets and of the field, for JSON-LD
    Context,
    /// The manifest of a memory snapshot
    Manifest,
    /// The routes of the API listener
    Openapi,
    /// A packet between runtimes
    Packet,
    /// A report of the native profile
    Report,
}

impl Name {
    /// All of them.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// What it is of, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Audit => "One line of the audit log",
            Self::Capabilities => "A capability manifest, runtime_capabilities.yml",
            Self::Config => "A configuration file; what is required may stand in another one",
            Self::Context => "The JSON-LD context of packets and of the field",
            Self::Manifest => "The manifest of a memory snapshot",
            Self::Openapi => "The local interface, as OpenAPI 3.1",
            Self::Packet => "A packet (SRIP-05 section 3)",
            Self::Report => "A state report of the profile srip-05",
        }
    }

    /// Where it is served.
    #[must_use]
    pub fn path(self) -> String {
        match self {
            Self::Context => CONTEXT_ROUTE.path.to_owned(),
            Self::Openapi => OPENAPI_ROUTE.path.to_owned(),
            Self::Audit
            | Self::Capabilities
            | Self::Config
            | Self::Manifest
            | Self::Packet
            | Self::Report => {
                format!("/schemas/{}.json", self.word())
            }
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Context => "application/ld+json",
            Self::Openapi => "application/json",
            Self::Audit
            | Self::Capabilities
            | Self::Config
            | Self::Manifest
            | Self::Packet
            | Self::Report => SCHEMA_TYPE,
        }
    }

    /// Its JSON Schema (2020-12) by itself, where it is one.
    #[must_use]
    pub fn schema(self) -> Option<Value> {
        match self {
            Self::Audit => Some(audit::line_schema()),
            Self::Capabilities => Some(capabilities_schema()),
            Self::Config => Some(config::schema()),
            Self::Manifest => Some(snapshot::manifest_schema()),
            Self::Packet => Some(wire::packet_schema()),
            Self::Report => profiles::load("srip-05").ok().map(|profile| profile.schema()),
            Self::Context | Self::Openapi => None,
        }
    }

    /// The bytes that are given out, and their digest.
    #[must_use]
    pub fn document(self) -> (Vec<u8>, Digest) {
        let bytes = match self {
            Self::Context => CONTEXT.as_bytes().to_vec(),
            Self::Openapi => pretty(&openapi::document()),
            Self::Audit
            | Self::Capabilities
            | Self::Config
            | Self::Manifest
            | Self::Packet
            | Self::Report => pretty(&self.titled()),
        };
        let digest = Digest::of(&bytes);
        (bytes, digest)
    }

    fn titled(self) -> Value {
        let mut schema = self.schema().unwrap_or(Value::Bool(true));
        if let Some(members) = schema.as_object_mut() {
            let named = [
                ("$schema", "https://json-schema.org/draft/2020-12/schema".to_owned()),
                ("$id", format!("urn:driftgate:schema:{}", self.word())),
                ("title", self.title().to_owned()),
            ];
            members.extend(named.map(|(name, text)| (name.to_owned(), json!(text))));
        }
        schema
    }
}

fn pretty(document: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(document).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

static OPENAPI_ROUTE: Operation = Operation {
    method: Method::Get,
    path: "/openapi.json",
    summary: "This document",
    parameters: &[IF_NONE_MATCH],
    body: Input::None,
    answers: &[described("application/json"), KNOWN],
    problems: &[],
};

static CONTEXT_ROUTE: Operation = Operation {
    path: "/context.jsonld",
    summary: "What the members of packets and of the field mean",
    answers: &[described("application/ld+json"), KNOWN],
    ..OPENAPI_ROUTE
};

static SCHEMA_ROUTE: Operation = Operation {
    path: "/schemas/{file}",
    summary: "A JSON Schema (2020-12)",
    parameters: &[
        IF_NONE_MATCH,
        Parameter {
            name: "file",
            location: Location::Path,
            text: "Which one",
            schema: |_| {
                let files = schemas().map(|name| format!("{}.json", name.word()));
                schema::of(json!({"enum": files.collect::<Vec<_>>()}))
            },
        },
    ],
    answers: &[described(SCHEMA_TYPE), KNOWN],
    problems: &[Outcome::UnknownSchema],
    ..OPENAPI_ROUTE
};

const IF_NONE_MATCH: Parameter = Parameter {
    name: "If-None-Match",
    location: Location::Header,
    text: "Entity tags that the client has",
    schema: schema_of::<String>,
};

const KNOWN: AnswerDoc = AnswerDoc {
    status: 304,
    text: "The client has it",
    content: Content::None,
    headers: &["ETag"],
};

const fn described(media_type: &'static str) -> AnswerDoc {
    let content = Content::Other(media_type);
    AnswerDoc { status: 200, text: "The document", content, headers: &["ETag"] }
}

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new()
        .on(&CONTEXT_ROUTE, async |request: Request| {
            CONTEXT_ROUTE.query(request.uri()).map(|_| answer(Name::Context, request.headers()))
        })
        .on(&OPENAPI_ROUTE, async |request: Request| {
            OPENAPI_ROUTE.query(request.uri()).map(|_| answer(Name::Openapi, request.headers()))
        })
        .on(&SCHEMA_ROUTE, one_schema)
}

async fn one_schema(request: Request) -> Result<Response, Problem> {
    SCHEMA_ROUTE.query(request.uri())?;
    let name = schemas().find(|name| name.path() == request.uri().path());
    name.map(|name| answer(name, request.headers())).ok_or_else(|| {
        let all: Vec<String> = schemas().map(Name::path).collect();
        Problem::new(Outcome::UnknownSchema, format!("there is {}", all.join(", ")))
    })
}

/// Those that stand at [`SCHEMA_ROUTE`].
fn schemas() -> impl Iterator<Item = Name> {
    Name::ALL.iter().copied().filter(|name| name.media_type() == SCHEMA_TYPE)
}

/// A document with its digest as its entity tag.
fn answer(name: Name, headers: &HeaderMap) -> Response {
    let (bytes, digest) = name.document();
    let tag = format!("\"{digest}\"");
    let mut response = if is_known(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, name.media_type())], bytes).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
