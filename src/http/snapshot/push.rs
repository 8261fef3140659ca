//! `PUT /memory/snapshot`: streamed to disk as it comes, never held in memory.

use core::pin::Pin;
use core::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderName};
use hyper::{HeaderMap, StatusCode};
use tokio::time::{Sleep, sleep};

use super::coding::{CONTENT_DIGEST, Claim, PLAIN_DIGEST, REPR_DIGEST, claim};
use super::{Receipt, Snapshots};
use crate::http::accept::AnswerType;
use crate::http::coding::Coding as Sent;
use crate::http::document::discard_some;
use crate::http::operation::{AnswerDoc, Input, Location, Method, Operation, Parameter, schema_of};
use crate::http::problem::{Outcome, Problem};
use crate::protocol::digest::{Digest, Hasher};
use crate::protocol::snapshot::MEDIA_TYPE_BYTES_MAX;
use crate::snapshots::spool::{SpoolEntry, SpoolFault, Stored};
use crate::snapshots::{Coding, Incoming, IncomingFault, Pushed, Refused};

/// Media type of what names none.
const ANY_BYTES: &str = "application/octet-stream";

/// Bytes of a body that have to come before it takes a place among the pushes: who sends next to
/// nothing keeps nobody out.
const FIRST_BYTES: usize = 16 * 1024;
/// Bytes that have to come within each stall time: with 10 s some 100 KiB/s, far below what any
/// runtime on this machine writes, and the largest snapshot has its place for minutes at most.
const PROGRESS_BYTES: usize = 1024 * 1024;

pub(super) static PUSH: Operation = Operation {
    method: Method::Put,
    path: "/memory/snapshot",
    summary: "Push a snapshot; only while the gate is open",
    parameters: &[
        Parameter {
            name: "empty",
            location: Location::Query,
            text: "The memory is meant to be empty",
            schema: schema_of::<String>,
        },
        digest("Content-Digest", "RFC 9530, of the body as it is sent"),
        digest("Repr-Digest", "RFC 9530, of the body as it is sent"),
        Parameter {
            name: "Driftgate-Digest",
            location: Location::Header,
            text: "Of the plain bytes",
            schema: schema_of::<Digest>,
        },
    ],
    body: Input::Bytes,
    answers: &[
        AnswerDoc::document(201, "It is stored", schema_of::<Receipt>),
        AnswerDoc::document(
            202,
            "It is safe on disk, and sent when it can be",
            schema_of::<Receipt>,
        ),
        AnswerDoc::document(200, "It is the newest one already", schema_of::<Receipt>),
    ],
    problems: &[
        Outcome::DigestMismatch,
        Outcome::NoReader,
        Outcome::EmptySnapshot,
        Outcome::Isolated,
        Outcome::NotOpen,
        Outcome::NoSnapshots,
        Outcome::SpoolFull,
    ],
};

const fn digest(name: &'static str, text: &'static str) -> Parameter {
    Parameter { name, location: Location::Header, text, schema: schema_of::<String> }
}

/// Takes one snapshot in. `stall` is the longest time for [`PROGRESS_BYTES`] of the body or its
/// end; the whole may take as long as it has bytes.
pub(super) async fn push(
    snapshots: &Snapshots,
    stall: Duration,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, mut body) = request.into_parts();
    let may_be_empty = PUSH.query(&parts.uri)?.contains_key("empty");
    let answer = AnswerType::of(&parts.headers)?;
    let media_type = media_type(&parts.headers)?;
    let coding = match Sent::of_body(&parts.headers)? {
        Sent::Gzip => Coding::Gzip,
        Sent::Identity => Coding::Identity,
        Sent::Zstd => Coding::Zstd,
    };
    let sent = [CONTENT_DIGEST, REPR_DIGEST].map(|name| wanted(&parts.headers, name));
    let [content, representation] = sent;
    let sent = [content?, representation?];
    let plain = wanted_plain(&parts.headers)?;
    let is_waiting = parts.headers.contains_key(EXPECT);
    let outcome = receive(snapshots, stall, coding, sent, &mut body).await;
    let incoming = match outcome {
        Ok(incoming) => incoming,
        Err(problem) => {
            if !is_waiting {
                discard_some(&mut body).await;
            }
            return Err(problem);
        }
    };
    let sealed = incoming.finish().await.map_err(fault)?;
    let found = sealed.digest();
    if plain.is_some_and(|plain| plain != found) {
        return Err(mismatch(&PLAIN_DIGEST));
    }
    if sealed.size() == 0 && !may_be_empty {
        let detail = "no bytes came; to store an empty memory, say so with ?empty";
        return Err(Problem::new(Outcome::EmptySnapshot, detail).of_field("/"));
    }
    let pushed = snapshots.accept(sealed, media_type).await?;
    let (status, entry, stored) = match pushed {
        Pushed::Stored(entry, stored) => (StatusCode::CREATED, entry, Some(stored)),
        Pushed::Spooled(entry) => (StatusCode::ACCEPTED, entry, None),
        Pushed::Unchanged(entry) => {
            let stored = entry.state.stored().cloned();
            (StatusCode::OK, entry, stored)
        }
    };
    Ok((status, answer.write(&receipt(&entry, stored.as_ref())).await?).into_response())
}

fn receipt(entry: &SpoolEntry, stored: Option<&Stored>) -> Receipt {
    Receipt {
        digest: entry.digest,
        seq: entry.seq,
        kind: stored.map(|stored| stored.kind.word()),
        size: entry.size,
        stored_bytes: stored.map(|stored| stored.stored_bytes),
        base: stored.and_then(|stored| stored.base),
    }
}

/// Passes the body on piece by piece, and checks its digest as it was sent.
async fn receive(
    snapshots: &Snapshots,
    stall: Duration,
    coding: Coding,
    wanted: [Option<(HeaderName, Digest)>; 2],
    body: &mut Body,
) -> Result<Incoming, Problem> {
    let bytes_max = snapshots.bytes_max();
    if body.size_hint().lower() > bytes_max {
        return Err(Refused::Spool(SpoolFault::TooLarge(bytes_max)).into());
    }
    snapshots.check_open()?;
    let mut pieces = Pieces { body, stall, timer: Box::pin(sleep(stall)), progress: 0 };
    let mut hash = wanted.iter().any(Option::is_some).then(Hasher::default);
    let mut first = Vec::new();
    let mut bytes = 0;
    while bytes < FIRST_BYTES {
        let Some(piece) = pieces.next().await? else { break };
        bytes = bytes.saturating_add(piece.len());
        first.push(piece);
    }
    let mut incoming = snapshots.begin(coding)?;
    let mut first = first.into_iter();
    loop {
        let piece = match first.next() {
            Some(piece) => piece,
            None => match pieces.next().await? {
                Some(piece) => piece,
                None => break,
            },
        };
        if let Some(hash) = &mut hash {
            hash.update(&piece);
        }
        if !incoming.write(piece).await {
            return match incoming.finish().await {
                Err(why) => Err(fault(why)),
                Ok(_) => Err(Problem::new(Outcome::Unreadable, "bytes after the end")),
            };
        }
    }
    let sent = hash.map(|hash| hash.finish());
    match wanted.into_iter().flatten().find(|(_, digest)| Some(*digest) != sent) {
        Some((name, _)) => Err(mismatch(&name)),
        None => Ok(incoming),
    }
}

/// The data of a body that has to keep coming.
struct Pieces<'a> {
    body: &'a mut Body,
    stall: Duration,
    timer: Pin<Box<Sleep>>,
    /// Bytes since the timer was set.
    progress: usize,
}

impl Pieces<'_> {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.body.frame() => frame,
                () = self.timer.as_mut() => {
                    let detail = format!("less than {PROGRESS_BYTES} bytes came in {:?}", self.stall);
                    return Err(Problem::new(Outcome::BodyTooSlow, detail).of_field("/"));
                }
            };
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    let problem = Problem::new(Outcome::Unreadable, "the body broke off");
                    return Err(problem.of_field("/"));
                }
            };
            // Trailers say nothing that a snapshot needs.
            let Ok(piece) = frame.into_data() else { continue };
            self.progress = self.progress.saturating_add(piece.len());
            if self.progress >= PROGRESS_BYTES {
                self.progress = 0;
                self.timer.set(sleep(self.stall));
            }
            return Ok(Some(piece));
        }
    }
}

fn fault(fault: IncomingFault) -> Problem {
    match fault {
        IncomingFault::Spool(fault) => Refused::Spool(fault).into(),
        IncomingFault::Undecodable => {
            Problem::new(Outcome::Unreadable, fault.to_string()).of_field(CONTENT_ENCODING.as_str())
        }
    }
}

fn mismatch(field: &HeaderName) -> Problem {
    let detail = "the bytes that arrived have another SHA-256";
    Problem::new(Outcome::DigestMismatch, detail).of_field(field.as_str())
}

fn wanted(headers: &HeaderMap, name: HeaderName) -> Result<Option<(HeaderName, Digest)>, Problem> {
    match claim(headers, &name) {
        Claim::Absent => Ok(None),
        Claim::Sha256(digest) => Ok(Some((name, digest))),
        Claim::Malformed => {
            let detail = "must be sha-256=:base64: (RFC 9530)";
            Err(Problem::new(Outcome::DigestMismatch, detail).of_field(name.as_str()))
        }
    }
}

fn wanted_plain(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    let Some(value) = headers.get(PLAIN_DIGEST) else { return Ok(None) };
    match value.to_str().ok().and_then(Digest::parse) {
        Some(digest) => Ok(Some(digest)),
        None => {
            Err(Problem::new(Outcome::DigestMismatch, Digest::RULE).of_field(PLAIN_DIGEST.as_str()))
        }
    }
}

fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let text = match (given.next(), given.next()) {
        (None, _) => Some(ANY_BYTES),
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    let is_good = |text: &&str| {
        (1..=MEDIA_TYPE_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    text.filter(is_good).map(str::to_owned).ok_or_else(|| {
        let detail = "one Content-Type of 1 to 128 printable ASCII characters, any media type";
        Problem::new(Outcome::BadMediaType, detail).of_field(CONTENT_TYPE.as_str())
    })
}
