//! `GET /memory/snapshot`: whole, or compressed, or as a delta of what the client has.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use hyper::{HeaderMap, StatusCode, Uri};

use super::Snapshots;
use super::coding::{CONTENT_DIGEST, REPR_DIGEST, dictionary, digest_field, takes};
use crate::http::problem::{Outcome, Problem};
use crate::http::query::parameters;
use crate::protocol::packet::{RUNTIME_ID_BYTES_MAX, RuntimeId};
use crate::protocol::snapshot::{
    Digest, Level, Plain, dcz_coding_source_max, encode_delta, encode_full,
};
use crate::snapshots::Which;

#[derive(serde::Serialize)]
struct List<T> {
    snapshots: Vec<T>,
}

/// Answers with one snapshot or with the list.
pub(super) async fn pull(
    snapshots: &Snapshots,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut parameters = parameters(uri, &["source", "digest", "list"])?;
    let source = match parameters.remove("source") {
        None => None,
        Some(text) => Some(RuntimeId::new(&text).ok_or_else(|| {
            let detail = format!("a runtime id is 1 to {RUNTIME_ID_BYTES_MAX} of A-Z a-z 0-9 _ -");
            Problem::new(Outcome::BadQuery, detail).of_field("source")
        })?),
    };
    if parameters.remove("list").is_some() {
        let snapshots = snapshots.list(source).await?;
        return Ok(axum::Json(List { snapshots }).into_response());
    }
    let which = match parameters.remove("digest") {
        None => Which::Newest,
        Some(text) => Which::Digest(Digest::parse(&text).ok_or_else(|| {
            let detail = "must be sha256: and 64 lower-case hex digits";
            Problem::new(Outcome::BadQuery, detail).of_field("digest")
        })?),
    };
    let (media_type, plain) = match source {
        None => snapshots.own(which).await?,
        Some(source) => snapshots.peer(source, which).await?,
    };
    answer(snapshots, headers, &media_type, &plain).await
}

async fn answer(
    snapshots: &Snapshots,
    headers: &HeaderMap,
    media_type: &str,
    plain: &Plain,
) -> Result<Response, Problem> {
    let etag = format!("\"{}\"", plain.digest());
    if is_known(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
    }
    let (coding, bytes) = match encoded(snapshots, headers, plain).await {
        Some((coding, bytes)) => (Some(coding), bytes),
        None => (None, plain.bytes().clone()),
    };
    let sent = if coding.is_some() { Digest::of(&bytes) } else { plain.digest() };
    let mut response = bytes.into_response();
    let out = response.headers_mut();
    let mut set = |name, text: &str| {
        // Media types are checked when they come in; the rest is ours.
        if let Ok(value) = HeaderValue::from_str(text) {
            out.insert(name, value);
        }
    };
    set(CONTENT_TYPE, media_type);
    set(ETAG, &etag);
    set(CONTENT_DIGEST, &digest_field(sent));
    set(REPR_DIGEST, &digest_field(plain.digest()));
    set(VARY, "accept-encoding, available-dictionary");
    if let Some(coding) = coding {
        set(CONTENT_ENCODING, coding);
    }
    Ok(response)
}

/// As a delta of the dictionary that the client has, else compressed, if it takes that; `None`: as
/// it is.
async fn encoded(
    snapshots: &Snapshots,
    headers: &HeaderMap,
    plain: &Plain,
) -> Option<(&'static str, Bytes)> {
    let base = match dictionary(headers).filter(|_| takes(headers, "dcz")) {
        Some(digest) => snapshots.at_hand(digest).await,
        None => None,
    };
    // A snapshot that has outgrown its base would need a window that clients may refuse.
    let base = base.filter(|base| plain.size() <= dcz_coding_source_max(base.size()));
    if base.is_none() && !takes(headers, "zstd") {
        return None;
    }
    let plain = plain.clone();
    let coding = if base.is_some() { "dcz" } else { "zstd" };
    let encoding = tokio::task::spawn_blocking(move || match base {
        Some(base) => encode_delta(&base, &plain, Level::DEFAULT, usize::MAX),
        None => encode_full(&plain, Level::DEFAULT),
    });
    // A snapshot that cannot be encoded is sent as it is.
    let bytes = encoding.await.ok()?.ok()?;
    Some((coding, bytes.into()))
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH);
    let mut tags = values.iter().filter_map(|value| value.to_str().ok());
    tags.any(|text| {
        text.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    })
}
