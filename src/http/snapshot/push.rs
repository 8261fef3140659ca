//! `PUT /memory/snapshot`: streamed to disk as it comes, never held in memory.

use core::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderName};
use hyper::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::coding::{CONTENT_DIGEST, Claim, REPR_DIGEST, claim};
use super::{Receipt, Snapshots};
use crate::http::document::discard_some;
use crate::http::problem::{Outcome, Problem};
use crate::http::query::parameters;
use crate::protocol::snapshot::{Digest, MEDIA_TYPE_BYTES_MAX};
use crate::snapshots::spool::{Entry, SpoolFault, Stored};
use crate::snapshots::{Coding, Incoming, IncomingFault, Pushed, Refused};

/// Media type of what names none.
const ANY_BYTES: &str = "application/octet-stream";

/// Takes one snapshot in. `stall` is the longest wait for the next piece of the body; the whole may
/// take as long as it has bytes.
pub(super) async fn push(
    snapshots: &Snapshots,
    stall: Duration,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, mut body) = request.into_parts();
    parameters(&parts.uri, &[])?;
    let media_type = media_type(&parts.headers)?;
    let coding = coding(&parts.headers)?;
    let (content, plain) =
        (wanted(&parts.headers, &CONTENT_DIGEST)?, wanted(&parts.headers, &REPR_DIGEST)?);
    let is_waiting = parts.headers.contains_key(EXPECT);
    let outcome = receive(snapshots, stall, coding, content, &mut body).await;
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
        return Err(mismatch(&REPR_DIGEST));
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
    Ok((status, axum::Json(receipt(&entry, stored.as_ref()))).into_response())
}

fn receipt(entry: &Entry, stored: Option<&Stored>) -> Receipt {
    Receipt {
        digest: entry.digest.to_string(),
        seq: entry.seq,
        kind: stored.map(|stored| stored.kind.word()),
        size: entry.size,
        stored_bytes: stored.map(|stored| stored.stored_bytes),
        base: stored.and_then(|stored| stored.base).map(|digest| digest.to_string()),
    }
}

/// Passes the body on piece by piece, and checks its digest as it was sent.
async fn receive(
    snapshots: &Snapshots,
    stall: Duration,
    coding: Coding,
    content: Option<Digest>,
    body: &mut Body,
) -> Result<Incoming, Problem> {
    let bytes_max = snapshots.bytes_max();
    if body.size_hint().lower() > bytes_max {
        return Err(Refused::Spool(SpoolFault::TooLarge(bytes_max)).into());
    }
    let mut incoming = snapshots.begin(coding)?;
    let mut hash = content.map(|_| Sha256::new());
    loop {
        let frame = match timeout(stall, body.frame()).await {
            Err(_) => {
                let detail = format!("nothing came for {stall:?}");
                return Err(Problem::new(Outcome::BodyTooSlow, detail).of_field("/"));
            }
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                let problem = Problem::new(Outcome::Unreadable, "the body broke off");
                return Err(problem.of_field("/"));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers say nothing that a snapshot needs.
        let Ok(piece) = frame.into_data() else { continue };
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
    let sent = hash.map(|hash| Digest::from_bytes(hash.finalize().into()));
    if sent == content { Ok(incoming) } else { Err(mismatch(&CONTENT_DIGEST)) }
}

fn fault(fault: IncomingFault) -> Problem {
    match fault {
        IncomingFault::Spool(fault) => Refused::Spool(fault).into(),
        IncomingFault::NotZstd => Problem::new(Outcome::Unreadable, "not whole zstd frames")
            .of_field(CONTENT_ENCODING.as_str()),
    }
}

fn mismatch(field: &HeaderName) -> Problem {
    let detail = "the bytes that arrived have another SHA-256";
    Problem::new(Outcome::DigestMismatch, detail).of_field(field.as_str())
}

fn wanted(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Digest>, Problem> {
    match claim(headers, name) {
        Claim::Absent => Ok(None),
        Claim::Sha256(digest) => Ok(Some(digest)),
        Claim::Malformed => {
            let detail = "must be sha-256=:base64: (RFC 9530)";
            Err(Problem::new(Outcome::DigestMismatch, detail).of_field(name.as_str()))
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

fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    let mut given = headers.get_all(CONTENT_ENCODING).iter();
    let word = match (given.next(), given.next()) {
        (None, _) => Some("identity".to_owned()),
        (Some(value), None) => value.to_str().ok().map(|text| text.trim().to_ascii_lowercase()),
        (Some(_), Some(_)) => None,
    };
    match word.as_deref() {
        Some("identity") => Ok(Coding::Identity),
        Some("zstd") => Ok(Coding::Zstd),
        _ => {
            let detail = "send one of: zstd, identity";
            let problem = Problem::new(Outcome::UnsupportedCoding, detail);
            Err(problem.of_field(CONTENT_ENCODING.as_str()))
        }
    }
}
