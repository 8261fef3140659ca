//! `GET /memory/snapshot`: whole, or compressed, or as a delta of what the client has.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode, Uri};

use super::Snapshots;
use super::coding::{CONTENT_DIGEST, PLAIN_DIGEST, REPR_DIGEST, dictionary, digest_field, takes};
use crate::http::accept::{AnswerType, is_known};
use crate::http::coding::{Coding as Wanted, gzip};
use crate::http::operation::{
    AnswerDoc, Content, Input, Location, Method, Operation, Parameter, schema_of,
};
use crate::http::problem::{Outcome, Problem};
use crate::protocol::digest::Digest;
use crate::protocol::packet::{RUNTIME_ID_BYTES_MAX, RuntimeId};
use crate::protocol::snapshot::{Level, Plain, dcz_coding_source_max, encode_delta, encode_full};
use crate::snapshots::fetch::Item;
use crate::snapshots::{Fetched, Which};

/// Answer to `?list`.
#[derive(schemars::JsonSchema, serde::Serialize)]
#[schemars(rename = "SnapshotList")]
struct List {
    snapshots: Vec<Item>,
}

pub(super) static PULL: Operation = Operation {
    method: Method::Get,
    path: "/memory/snapshot",
    summary: "A snapshot as it was pushed, or the list of them",
    parameters: &[
        Parameter {
            name: "source",
            location: Location::Query,
            text: "Of this peer",
            schema: schema_of::<RuntimeId>,
        },
        Parameter {
            name: "digest",
            location: Location::Query,
            text: "The one with these plain bytes, not the newest",
            schema: schema_of::<Digest>,
        },
        Parameter {
            name: "list",
            location: Location::Query,
            text: "The list, as a document",
            schema: schema_of::<String>,
        },
    ],
    body: Input::None,
    answers: &[
        AnswerDoc {
            status: 200,
            text: "The snapshot, or the list",
            content: Content::Bytes { or: schema_of::<List> },
            headers: HEADERS,
        },
        AnswerDoc {
            status: 304,
            text: "The client has it",
            content: Content::None,
            headers: HEADERS,
        },
    ],
    problems: &[
        Outcome::UnknownPeer,
        Outcome::UnknownSnapshot,
        Outcome::Isolated,
        Outcome::SnapshotRefused,
        Outcome::NoSnapshots,
        Outcome::SnapshotLate,
    ],
};

const HEADERS: &[&str] = &[
    "ETag",
    "Driftgate-Digest",
    "Driftgate-Source",
    "Driftgate-Seq",
    "Driftgate-External",
    "Driftgate-Allowed-Use",
];
/// A peer's snapshot is labelled as its packets are where they are delivered.
const SOURCE: HeaderName = HeaderName::from_static("driftgate-source");
const SEQ: HeaderName = HeaderName::from_static("driftgate-seq");
const EXTERNAL: HeaderName = HeaderName::from_static("driftgate-external");
const ALLOWED_USE: HeaderName = HeaderName::from_static("driftgate-allowed-use");

/// Answers with one snapshot or with the list.
pub(super) async fn pull(
    snapshots: &Snapshots,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut parameters = PULL.query(uri)?;
    let source = match parameters.remove("source") {
        None => None,
        Some(text) => Some(RuntimeId::new(&text).ok_or_else(|| {
            let detail = format!("a runtime id is 1 to {RUNTIME_ID_BYTES_MAX} of A-Z a-z 0-9 _ -");
            Problem::new(Outcome::BadQuery, detail).of_field("source")
        })?),
    };
    if parameters.remove("list").is_some() {
        let answer = AnswerType::of(headers)?;
        return answer.write(&List { snapshots: snapshots.list(source).await? }).await;
    }
    let which = match parameters.remove("digest") {
        None => Which::Newest,
        Some(text) => Which::Digest(
            Digest::parse(&text)
                .ok_or_else(|| Problem::new(Outcome::BadQuery, Digest::RULE).of_field("digest"))?,
        ),
    };
    let Some(source) = source.filter(|source| !snapshots.is_own(source)) else {
        let (media_type, plain) = snapshots.own(which).await?;
        return answer(snapshots, headers, &media_type, &plain).await;
    };
    let Fetched { seq, media_type, plain, admission } =
        snapshots.peer(source.clone(), which).await?;
    let mut response = answer(snapshots, headers, &media_type, &plain).await?;
    set(&mut response, SOURCE, source.as_str());
    set(&mut response, SEQ, &seq.to_string());
    set(&mut response, EXTERNAL, "true");
    if let Some(admission) = admission {
        set(&mut response, ALLOWED_USE, &admission.allowed_use.join(", "));
    }
    Ok(response)
}

/// How an answer is coded.
#[derive(Clone)]
enum Coding {
    Gzip,
    Identity,
    Zstd,
    /// As a delta of this one.
    Dcz(Plain),
}

impl Coding {
    /// The entity tag of `plain` in this coding: another for each, for they differ in their bytes
    /// (RFC 9110 section 8.8.3). A coded one is weak, for another build may code otherwise.
    fn entity_tag(&self, plain: &Plain) -> String {
        let digest = plain.digest();
        match self {
            Self::Gzip => format!("W/\"{digest}+gzip\""),
            Self::Identity => format!("\"{digest}\""),
            Self::Zstd => format!("W/\"{digest}+zstd\""),
            Self::Dcz(base) => format!("W/\"{digest}+dcz+{}\"", base.digest()),
        }
    }
}

async fn answer(
    snapshots: &Snapshots,
    headers: &HeaderMap,
    media_type: &str,
    plain: &Plain,
) -> Result<Response, Problem> {
    let mut coding = chosen(snapshots, headers, plain).await?;
    if is_known(headers, &coding.entity_tag(plain)) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(&mut response, &coding, plain);
        return Ok(response);
    }
    let (name, bytes) = match encoded(&coding, plain).await {
        Some((name, bytes)) => (Some(name), bytes),
        None => {
            coding = Coding::Identity;
            (None, plain.bytes().clone())
        }
    };
    let sent = if name.is_some() { Digest::of(&bytes) } else { plain.digest() };
    let mut response = bytes.into_response();
    describe(&mut response, &coding, plain);
    set(&mut response, CONTENT_TYPE, media_type);
    set(&mut response, CONTENT_DIGEST, &digest_field(sent));
    set(&mut response, REPR_DIGEST, &digest_field(sent));
    if let Some(name) = name {
        set(&mut response, CONTENT_ENCODING, name);
    }
    Ok(response)
}

/// What a 304 says as well.
fn describe(response: &mut Response, coding: &Coding, plain: &Plain) {
    set(response, ETAG, &coding.entity_tag(plain));
    set(response, VARY, "accept-encoding, available-dictionary");
    set(response, PLAIN_DIGEST, &plain.digest().to_string());
}

fn set(response: &mut Response, name: HeaderName, text: &str) {
    // Media types are checked when they come in; the rest is ours.
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
}

/// As a delta of the dictionary that the client has, else as it takes documents.
async fn chosen(
    snapshots: &Snapshots,
    headers: &HeaderMap,
    plain: &Plain,
) -> Result<Coding, Problem> {
    let base = match dictionary(headers).filter(|_| takes(headers, "dcz")) {
        Some(digest) => snapshots.at_hand(digest).await,
        None => None,
    };
    // A snapshot that has outgrown its base would need a window that clients may refuse.
    let base = base.filter(|base| plain.size() <= dcz_coding_source_max(base.size()));
    if let Some(base) = base {
        return Ok(Coding::Dcz(base));
    }
    Ok(match Wanted::of_answer(headers)? {
        Wanted::Gzip => Coding::Gzip,
        Wanted::Identity => Coding::Identity,
        Wanted::Zstd => Coding::Zstd,
    })
}

/// `None`: it is sent as it is, because that was chosen or it cannot be encoded.
async fn encoded(coding: &Coding, plain: &Plain) -> Option<(&'static str, Bytes)> {
    let name = match coding {
        Coding::Identity => return None,
        Coding::Gzip => "gzip",
        Coding::Zstd => "zstd",
        Coding::Dcz(_) => "dcz",
    };
    let (coding, plain) = (coding.clone(), plain.clone());
    let encoding = tokio::task::spawn_blocking(move || match coding {
        Coding::Identity => None,
        Coding::Gzip => gzip(plain.bytes()).ok(),
        Coding::Zstd => encode_full(&plain, Level::DEFAULT).ok(),
        Coding::Dcz(base) => encode_delta(&base, &plain, Level::DEFAULT, usize::MAX).ok(),
    });
    Some((name, encoding.await.ok()??.into()))
}
