//! The one table from outcome to status, and the RFC 9457 document that carries it.
//!
//! A detail names the field and what would be right. It never repeats a header or a body, so that
//! a client which logs its errors leaks nothing (P9).

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_VERSION, VARY, WWW_AUTHENTICATE,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::driver::{ReadFault, ReportFault, Unavailable};
use crate::protocol::bridge::GateState;
use crate::protocol::canonical::SyntaxFault;
use crate::protocol::gate::{Band, Reason};
use crate::protocol::view::Barrier;

/// Media type of every error (RFC 9457).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// Media types of documents, both ways: for people, and the `Accept` header of a 415.
pub(super) const MEDIA_TYPES: &str = "application/json, application/ld+json, application/yaml";
/// Content codings, both ways: for people, and the `Accept-Encoding` header of a 415.
pub(super) const CODINGS: &str = "zstd, gzip, identity";
/// A sidecar that stops is replaced by one that is ready within a fraction of a second.
const STOPPING_RETRY_S: u32 = 1;

/// Attempts to reach a broker are seconds apart.
const BROKER_RETRY_S: u32 = 5;

/// Everything that can go wrong at the local interface, in the order of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    BadQuery,
    DigestMismatch,
    Unreadable,
    Unauthorized,
    ForeignOrigin,
    ForeignUser,
    NoOperatorToken,
    NoReports,
    NoReader,
    UnknownRoute,
    UnknownAttractor,
    UnknownPeer,
    UnknownReport,
    UnknownSnapshot,
    UnknownSchema,
    WrongMethod,
    NotAcceptable,
    BodyTooSlow,
    UnsupportedVersion,
    BodyTooLarge,
    UnsupportedCoding,
    UnsupportedMedia,
    BadMediaType,
    Misdirected,
    BadHandshake,
    BadOrder,
    EmptySnapshot,
    Malformed,
    Isolated,
    NotOpen,
    BadUpgrade,
    Unencodable,
    SnapshotRefused,
    NoBroker,
    NoSnapshots,
    Overloaded,
    Stopping,
    TooManyConnections,
    TooManyStreams,
    SnapshotLate,
    SpoolFull,
}

impl Outcome {
    /// The table: status, the last word of `type`, and `title`. A held report is not in it, for it
    /// is not an error: 200.
    pub(super) fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadQuery => (400, "bad-query", "Bad query parameter"),
            Self::DigestMismatch => (400, "digest-mismatch", "The digest does not match"),
            Self::Unreadable => (400, "unreadable", "The body is not a document"),
            Self::Unauthorized => (401, "unauthorized", "Bearer token missing or wrong"),
            Self::ForeignOrigin => (403, "foreign-origin", "Origin not allowed"),
            Self::ForeignUser => (403, "foreign-user", "User not allowed"),
            Self::NoOperatorToken => (403, "no-operator-token", "No operator's token configured"),
            Self::NoReports => (403, "no-reports", "Reports are not taken here"),
            Self::NoReader => (403, "no-reader", "Nobody may have it"),
            Self::UnknownRoute => (404, "unknown-route", "No such route"),
            Self::UnknownAttractor => (404, "unknown-attractor", "No such attractor"),
            Self::UnknownPeer => (404, "unknown-peer", "No such peer"),
            Self::UnknownReport => (404, "unknown-report", "No such report"),
            Self::UnknownSnapshot => (404, "unknown-snapshot", "No such snapshot"),
            Self::UnknownSchema => (404, "unknown-schema", "No such schema"),
            Self::WrongMethod => (405, "wrong-method", "Method not allowed"),
            Self::NotAcceptable => (406, "not-acceptable", "Nothing acceptable"),
            Self::BodyTooSlow => (408, "body-too-slow", "The body did not arrive in time"),
            Self::BodyTooLarge => (413, "body-too-large", "The body is too large"),
            Self::UnsupportedCoding => (415, "unsupported-coding", "Content coding not supported"),
            Self::UnsupportedMedia => (415, "unsupported-media", "Media type not supported"),
            Self::BadMediaType => (415, "bad-media-type", "Media type not readable"),
            Self::Misdirected => (421, "misdirected", "Host not allowed"),
            Self::UnsupportedVersion => (409, "unsupported-version", "Another major version"),
            Self::BadHandshake => (422, "bad-handshake", "Not a handshake with this runtime"),
            Self::BadOrder => (422, "bad-order", "The order cannot be read"),
            Self::EmptySnapshot => (422, "empty-snapshot", "The snapshot is empty"),
            Self::Malformed => (422, "malformed", "The report breaks its profile"),
            Self::Isolated => (423, "isolated", "The gate is isolated"),
            Self::NotOpen => (423, "not-open", "The gate is not open"),
            Self::BadUpgrade => (426, "bad-upgrade", "Not the handshake of a WebSocket"),
            Self::Unencodable => (500, "unencodable", "The answer could not be written"),
            Self::SnapshotRefused => (502, "snapshot-refused", "The snapshot was refused"),
            Self::NoBroker => (503, "no-broker", "The broker is away"),
            Self::NoSnapshots => (503, "no-snapshots", "Snapshots cannot be served now"),
            Self::Overloaded => (503, "overloaded", "Too many reports are waiting"),
            Self::Stopping => (503, "stopping", "The sidecar is stopping"),
            Self::TooManyConnections => {
                (503, "too-many-connections", "Too many connections are open")
            }
            Self::TooManyStreams => (503, "too-many-streams", "Too many streams are open"),
            Self::SnapshotLate => (504, "snapshot-late", "The broker is too slow"),
            Self::SpoolFull => (507, "spool-full", "The spool is full"),
        }
    }

    /// The `type` of its document.
    pub(super) fn kind(self) -> String {
        format!("urn:driftgate:problem:{}", self.row().1)
    }

    /// The header that HTTP asks for beside this status (RFC 9110 section 15), or that ends a
    /// connection whose body was left unread.
    fn header(self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::Unauthorized => Some((WWW_AUTHENTICATE, "Bearer realm=\"driftgate\"")),
            Self::BadUpgrade => Some((SEC_WEBSOCKET_VERSION, "13")),
            Self::NotAcceptable => Some((VARY, "accept, accept-encoding")),
            Self::UnsupportedCoding => Some((ACCEPT_ENCODING, CODINGS)),
            Self::UnsupportedMedia => Some((ACCEPT, MEDIA_TYPES)),
            Self::BodyTooSlow
            | Self::BodyTooLarge
            | Self::SpoolFull
            | Self::NotOpen
            | Self::NoReader
            | Self::ForeignUser
            | Self::TooManyConnections => Some((CONNECTION, "close")),
            Self::BadQuery
            | Self::DigestMismatch
            | Self::UnknownSnapshot
            | Self::UnknownSchema
            | Self::BadMediaType
            | Self::SnapshotRefused
            | Self::NoBroker
            | Self::NoSnapshots
            | Self::SnapshotLate
            | Self::Unreadable
            | Self::ForeignOrigin
            | Self::NoOperatorToken
            | Self::NoReports
            | Self::UnknownRoute
            | Self::UnknownAttractor
            | Self::UnknownPeer
            | Self::UnknownReport
            | Self::WrongMethod
            | Self::Misdirected
            | Self::BadHandshake
            | Self::BadOrder
            | Self::UnsupportedVersion
            | Self::EmptySnapshot
            | Self::Malformed
            | Self::Isolated
            | Self::Unencodable
            | Self::Overloaded
            | Self::Stopping
            | Self::TooManyStreams => None,
        }
    }
}

/// An error as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    outcome: Outcome,
    detail: String,
    field: Option<String>,
    retry_after_s: Option<u32>,
    /// Where the gate stands, when what is refused has closed it.
    gate: Option<GateState>,
    /// Whether it only would.
    check: bool,
}

/// What went wrong (RFC 9457).
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Problem")]
pub(super) struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// A JSON Pointer into the body, a header, or a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(flatten)]
    gate: Option<Gate<'a>>,
    /// Whether that is only what would happen: nothing was moved or counted.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    check: bool,
}

/// Where the gate stands that this has closed.
#[derive(JsonSchema, Serialize)]
struct Gate<'a> {
    band: Band,
    reasons: &'a [Reason],
    barrier: Option<Barrier>,
}

impl Problem {
    pub(super) fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
            field: None,
            retry_after_s: None,
            gate: None,
            check: false,
        }
    }

    /// Names the field at fault: a JSON Pointer into the body, a header, or a query parameter.
    pub(super) fn of_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says where the gate stands that it closed, and how the closing ended.
    pub(super) fn that_closed(mut self, state: GateState) -> Self {
        self.gate = Some(state);
        self
    }

    /// Says that nothing of it has happened.
    pub(super) fn of_check(mut self) -> Self {
        self.check = true;
        self
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The last word of its type, for the metrics.
    pub(super) fn word(&self) -> &'static str {
        self.outcome.row().1
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.outcome.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The whole answer in bytes, for connections that are turned away before HTTP begins.
    pub(super) fn to_wire(&self) -> Vec<u8> {
        let body = self.body();
        let retry = self.retry_after_s.map(|seconds| format!("Retry-After: {seconds}\r\n"));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {length}\r\n\
             {retry}Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            status = self.status(),
            length = body.len(),
            retry = retry.unwrap_or_default(),
        );
        [head.into_bytes(), body].concat()
    }

    /// The document, in one line.
    pub(super) fn body(&self) -> Vec<u8> {
        let (status, _, title) = self.outcome.row();
        let document = Document {
            r#type: self.outcome.kind(),
            title,
            status,
            detail: &self.detail,
            field: self.field.as_deref(),
            gate: self.gate.as_ref().map(|state| Gate {
                band: state.band,
                reasons: &state.reasons,
                barrier: state.barrier,
            }),
            check: self.check,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let media_type = [(CONTENT_TYPE, MEDIA_TYPE)];
        let mut response = (self.status(), media_type, self.body()).into_response();
        let headers = response.headers_mut();
        if let Some((name, value)) = self.outcome.header() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<SyntaxFault> for Problem {
    fn from(fault: SyntaxFault) -> Self {
        Self::new(Outcome::Unreadable, fault.to_string()).of_field(fault.field)
    }
}

impl From<ReportFault> for Problem {
    fn from(fault: ReportFault) -> Self {
        match fault {
            ReportFault::Malformed { malformed, state } => {
                Self::new(Outcome::Malformed, malformed.to_string())
                    .of_field(malformed.field)
                    .that_closed(state)
            }
            ReportFault::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<ReadFault> for Problem {
    fn from(fault: ReadFault) -> Self {
        let detail = fault.to_string();
        match fault {
            ReadFault::Isolated => Self::new(
                Outcome::Isolated,
                format!("{detail}; GET /aegida/safety says what would reopen it"),
            ),
            ReadFault::Unknown(_) => Self::new(Outcome::UnknownPeer, detail).of_field("source"),
            ReadFault::NoAttractor => Self::new(Outcome::UnknownAttractor, detail).of_field("id"),
            ReadFault::NotKept | ReadFault::NoneCame => {
                Self::new(Outcome::UnknownReport, detail).of_field("seq")
            }
            ReadFault::NoBroker => Self::new(Outcome::NoBroker, detail).retry_after(BROKER_RETRY_S),
            ReadFault::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let detail = unavailable.to_string();
        match unavailable {
            Unavailable::Overloaded(seconds) => {
                Self::new(Outcome::Overloaded, detail).retry_after(seconds.max(1))
            }
            Unavailable::Stopping => {
                Self::new(Outcome::Stopping, detail).retry_after(STOPPING_RETRY_S)
            }
        }
    }
}
