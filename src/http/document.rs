//! A report body: media type, content coding, bounds, and the document that is in it.
//!
//! Two steps, because they differ in what they may do. [`BodyForm::of`] looks at headers only: what
//! it refuses was never a report, so a page in a browser cannot move the gate with it.
//! [`BodyForm::read`] reads what claims to be a report: what it refuses is evidence that cannot be
//! read, and the caller closes the gate (P6).

use core::time::Duration;
use std::io::Read;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body as _;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use tokio::time::timeout;

use super::problem::{Outcome, Problem, REPORT_CODINGS, REPORT_MEDIA_TYPES};
use super::settings::BodyLimits;
use crate::protocol::canonical::Json;

/// Bytes of an oversized body that are read and thrown away, so that a client which writes all
/// before it reads sees its 413 and not a reset connection.
const DISCARD_BYTES_MAX: usize = 1024 * 1024;
/// Longest time spent on that.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest window a zstd frame may ask for: 8 MiB, what RFC 8878 section 3.1.1.1.2 asks every
/// decoder to support. It is held for one synchronous decode, so once per worker thread.
const WINDOW_LOG_MAX: u32 = 23;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Zstd,
}

/// How the headers say that the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyForm {
    syntax: Syntax,
    coding: Coding,
    /// The client waits for `100 Continue`: it has sent nothing of the body yet.
    expects: bool,
}

impl BodyForm {
    /// Reads `Content-Type` and `Content-Encoding`.
    ///
    /// # Errors
    /// [`Outcome::UnsupportedMedia`] or [`Outcome::UnsupportedCoding`].
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let syntax = syntax(headers).ok_or_else(|| {
            let detail = format!("send one of: {REPORT_MEDIA_TYPES}; charset utf-8");
            Problem::new(Outcome::UnsupportedMedia, detail).of_field(CONTENT_TYPE.as_str())
        })?;
        let coding = coding(headers).ok_or_else(|| {
            let detail = format!("send one of: {REPORT_CODINGS}");
            Problem::new(Outcome::UnsupportedCoding, detail).of_field(CONTENT_ENCODING.as_str())
        })?;
        Ok(Self { syntax, coding, expects: headers.contains_key(EXPECT) })
    }

    /// Reads the document within `limits`.
    ///
    /// # Errors
    /// [`Outcome::BodyTooLarge`], [`Outcome::BodyTooSlow`] or [`Outcome::Unreadable`].
    pub(super) async fn read(self, mut body: Body, limits: BodyLimits) -> Result<Json, Problem> {
        let bytes = match timeout(limits.timeout, gather(&mut body, limits.bytes_max)).await {
            Err(_) => {
                let detail = format!("longer than {:?}", limits.timeout);
                return Err(Problem::new(Outcome::BodyTooSlow, detail).of_field("/"));
            }
            Ok(Err(Gap::Large)) => {
                if !self.expects {
                    discard_some(&mut body).await;
                }
                return Err(too_large(limits.bytes_max));
            }
            Ok(Err(Gap::Broken)) => return Err(unreadable("the body broke off")),
            Ok(Ok(bytes)) => bytes,
        };
        let bytes = match self.coding {
            Coding::Identity => bytes,
            Coding::Zstd => decode(&bytes, limits.bytes_max)?,
        };
        Ok(match self.syntax {
            Syntax::Json => Json::parse(&bytes)?,
            Syntax::Yaml => {
                let text = str::from_utf8(&bytes).map_err(|error| {
                    unreadable(&format!("not UTF-8 after byte {}", error.valid_up_to()))
                })?;
                Json::from_yaml(text)?
            }
        })
    }
}

fn syntax(headers: &HeaderMap) -> Option<Syntax> {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let mut parts = value.to_str().ok()?.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name.trim().eq_ignore_ascii_case("charset")
            && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        {
            return None;
        }
    }
    match media_type.as_str() {
        "application/json" | "application/ld+json" => Some(Syntax::Json),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Some(Syntax::Yaml),
        _ => None,
    }
}

fn coding(headers: &HeaderMap) -> Option<Coding> {
    let mut given = headers.get_all(CONTENT_ENCODING).iter();
    match (given.next(), given.next()) {
        (None, _) => Some(Coding::Identity),
        (Some(value), None) => match value.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
            "identity" => Some(Coding::Identity),
            "zstd" => Some(Coding::Zstd),
            _ => None,
        },
        // One coding is enough for a report; a chain of them is how bombs are built.
        (Some(_), Some(_)) => None,
    }
}

/// Why a body could not be gathered.
enum Gap {
    Large,
    Broken,
}

/// Gathers at most `bytes_max`; never allocates by what a header claims.
async fn gather(body: &mut Body, bytes_max: usize) -> Result<Vec<u8>, Gap> {
    if usize::try_from(body.size_hint().lower()).is_ok_and(|length| length > bytes_max) {
        return Err(Gap::Large);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Gap::Broken)?;
        // Trailers say nothing that a report needs.
        let Ok(piece) = frame.into_data() else { continue };
        if piece.len() > bytes_max.saturating_sub(bytes.len()) {
            return Err(Gap::Large);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Reads and throws away what a client is still writing, within bounds, so that it sees the answer.
pub(super) async fn discard_some(body: &mut Body) {
    let _ = timeout(DISCARD_TIMEOUT, discard(body)).await;
}

async fn discard(body: &mut Body) {
    let mut left = DISCARD_BYTES_MAX;
    while left > 0 {
        let Some(Ok(frame)) = body.frame().await else { return };
        left = left.saturating_sub(frame.data_ref().map_or(1, |piece| piece.len().max(1)));
    }
}

/// Decodes zstd into at most `bytes_max` bytes; one more is enough to know.
fn decode(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let broken = |_| unreadable("not a whole zstd frame").of_field(CONTENT_ENCODING.as_str());
    let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
    let mut plain = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(plain) }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Outcome::BodyTooLarge, format!("more than {bytes_max} bytes")).of_field("/")
}

fn unreadable(detail: &str) -> Problem {
    Problem::new(Outcome::Unreadable, detail).of_field("/")
}
