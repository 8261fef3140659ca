//! A body: media type, content coding, bounds, and the document that is in it.
//!
//! Two steps, because they differ in what they may do. [`BodyForm::of`] looks at headers only: what
//! it refuses was never a report, so a page in a browser cannot move the gate with it.
//! [`BodyForm::read`] reads what claims to be a report: what it refuses is evidence that cannot be
//! read, and the caller closes the gate (P6); but for want of memory it refuses without having
//! read.
//!
//! **Memory.** All bodies of a listener share one budget, in which a large one takes its place
//! whole before it is read on, so that no two wait for each other. Small ones need no place.

use core::time::Duration;
use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, EXPECT};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::accept::Form;
use super::coding::Coding;
use super::problem::{MEDIA_TYPES, Outcome, Problem};
use super::settings::BodyLimits;
use crate::protocol::canonical::{Json, push_pointer};
use crate::protocol::packet::CONTEXT;

/// Bytes of an oversized body that are read and thrown away, so that a client which writes all
/// before it reads sees its 413 and not a reset connection.
const DISCARD_BYTES_MAX: usize = 1024 * 1024;
/// Longest time spent on that.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a body that need no place in the budget: four times a usual report, and with every
/// connection open 1 MiB.
const FREE_BYTES: usize = 4 * 1024;
/// What a body takes for each of its bytes until it is answered, at most: `0,` is two bytes and a
/// value of 32, in a list that doubles while it grows.
const COST_PER_BYTE: usize = 16;
/// What all bodies under way may take together, in bytes: six of the largest.
const BUDGET_BYTES: usize = 24 * 1024 * 1024;
/// The same for the lines of streams, in bytes: two of the longest.
const STREAMS_BUDGET_BYTES: usize = 8 * 1024 * 1024;
/// Longest wait for a place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds until a place may be free.
const PLACE_RETRY_S: u32 = 1;
/// The memory that bodies may take together.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES)))
    }

    /// For streams of reports: room for two of the longest lines, so that no stream takes what
    /// single reports need.
    pub(super) fn of_streams() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_BUDGET_BYTES)))
    }

    /// The place of a line of `bytes`, if it needs one.
    ///
    /// # Errors
    /// [`NoMemory`] while others have it.
    pub(super) fn try_hold(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, NoMemory> {
        if bytes <= FREE_BYTES {
            return Ok(None);
        }
        let place = Arc::clone(&self.0).try_acquire_many_owned(cost(bytes, STREAMS_BUDGET_BYTES));
        place.map(Some).map_err(|_| NoMemory)
    }

    /// The same, but waits for it. Whoever has it gives it back when its lines are judged.
    pub(super) async fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let cost = cost(bytes, STREAMS_BUDGET_BYTES);
        // The semaphore is never closed.
        Arc::clone(&self.0).acquire_many_owned(cost).await.ok()
    }

    /// Takes the place of a body of `bytes`; one that is larger than the budget takes all of it.
    async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Gap> {
        let cost = cost(bytes, BUDGET_BYTES);
        let place = timeout(PLACE_TIMEOUT, Arc::clone(&self.0).acquire_many_owned(cost)).await;
        // The semaphore is never closed.
        place.ok().and_then(Result::ok).ok_or(Gap::NoPlace)
    }
}

/// What `bytes` of a body take of a budget of `most`.
fn cost(bytes: usize, most: usize) -> u32 {
    u32::try_from(bytes.saturating_mul(COST_PER_BYTE).min(most)).unwrap_or(u32::MAX)
}

/// There is no memory for it now.
pub(super) struct NoMemory;

/// A document and its place in the budget, if it needed one.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) json: Json,
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// How the headers say that the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyForm {
    form: Form,
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
        let form = form(headers).ok_or_else(|| {
            let detail = format!("send one of: {MEDIA_TYPES}; charset utf-8");
            Problem::new(Outcome::UnsupportedMedia, detail).of_field(CONTENT_TYPE.as_str())
        })?;
        let coding = Coding::of_body(headers)?;
        Ok(Self { form, coding, expects: headers.contains_key(EXPECT) })
    }

    /// Reads the document within `limits` and `budget`.
    ///
    /// # Errors
    /// [`Outcome::BodyTooLarge`], [`Outcome::BodyTooSlow`] or [`Outcome::Unreadable`];
    /// [`Outcome::Overloaded`] when there was no memory to read it.
    pub(super) async fn read(
        self,
        mut body: Body,
        limits: BodyLimits,
        budget: &Budget,
    ) -> Result<Document, Problem> {
        let gathering = self.gather(&mut body, limits.bytes_max, budget);
        let gap = match timeout(limits.timeout, gathering).await {
            Err(_) => {
                let detail = format!("longer than {:?}", limits.timeout);
                return Err(Problem::new(Outcome::BodyTooSlow, detail).of_field("/"));
            }
            Ok(Ok((bytes, place))) => return self.parse(bytes, place, limits, budget).await,
            Ok(Err(gap)) => gap,
        };
        if !self.expects && matches!(gap, Gap::Large | Gap::NoPlace) {
            discard_some(&mut body).await;
        }
        Err(gap.problem(limits.bytes_max))
    }

    /// Gathers at most `bytes_max`; never allocates by what a header claims, unless there is a
    /// place for it.
    async fn gather(
        self,
        body: &mut Body,
        bytes_max: usize,
        budget: &Budget,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Gap> {
        let hint = body.size_hint();
        if usize::try_from(hint.lower()).is_ok_and(|length| length > bytes_max) {
            return Err(Gap::Large);
        }
        let declared = hint.exact().and_then(|length| usize::try_from(length).ok());
        let mut place = None;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Gap::Broken)?;
            // Trailers say nothing that a report needs.
            let Ok(piece) = frame.into_data() else { continue };
            if piece.len() > bytes_max.saturating_sub(bytes.len()) {
                return Err(Gap::Large);
            }
            if place.is_none() && bytes.len().saturating_add(piece.len()) > FREE_BYTES {
                let whole = match self.coding {
                    Coding::Identity => declared.unwrap_or(bytes_max),
                    Coding::Gzip | Coding::Zstd => bytes_max,
                };
                place = Some(budget.reserve(whole).await?);
                bytes.reserve_exact(declared.unwrap_or_default());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, place))
    }

    async fn parse(
        self,
        bytes: Vec<u8>,
        mut place: Option<OwnedSemaphorePermit>,
        limits: BodyLimits,
        budget: &Budget,
    ) -> Result<Document, Problem> {
        let bytes = self.plain(bytes, &mut place, limits.bytes_max, budget).await?;
        let json = match self.form {
            Form::Json => Json::parse(&bytes)?,
            Form::JsonLd => unlinked(Json::parse(&bytes)?)?,
            Form::Yaml => {
                let text = str::from_utf8(&bytes).map_err(|error| {
                    unreadable(&format!("not UTF-8 after byte {}", error.valid_up_to()))
                })?;
                Json::from_yaml(text)?
            }
        };
        Ok(Document { json, place })
    }

    /// The bytes without their coding. More than a small body of them takes a place, too.
    async fn plain(
        self,
        bytes: Vec<u8>,
        place: &mut Option<OwnedSemaphorePermit>,
        bytes_max: usize,
        budget: &Budget,
    ) -> Result<Vec<u8>, Problem> {
        if self.coding == Coding::Identity {
            return Ok(bytes);
        }
        if let Some(plain) = self.coding.decode(&bytes, FREE_BYTES.min(bytes_max))? {
            return Ok(plain);
        }
        if place.is_none() {
            let reserved = budget.reserve(bytes_max).await;
            *place = Some(reserved.map_err(|gap| gap.problem(bytes_max))?);
        }
        let plain = self.coding.decode(&bytes, bytes_max)?;
        plain.ok_or_else(|| Gap::Large.problem(bytes_max))
    }
}

fn form(headers: &HeaderMap) -> Option<Form> {
    Form::of(media_type(headers)?)
}

/// The one media type that the headers name, without its parameters; `None` when there is not one,
/// or it is in another charset.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let mut parts = value.to_str().ok()?.split(';').map(str::trim);
    let name = parts.next()?;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name.trim().eq_ignore_ascii_case("charset")
            && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        {
            return None;
        }
    }
    Some(name)
}

/// Takes our own context out of a document of linked data. Another would give its members another
/// meaning, and nothing is fetched to learn which.
fn unlinked(mut json: Json) -> Result<Json, Problem> {
    if let Json::Object(members) = &mut json {
        let is_own = |context: &Json| context.as_str() == Some(CONTEXT);
        let own = match members.get("@context") {
            None => true,
            Some(Json::Array(contexts)) => contexts.iter().all(is_own),
            Some(context) => is_own(context),
        };
        if own {
            members.remove("@context");
        }
    }
    match foreign_context(&json) {
        None => Ok(json),
        Some(field) => {
            let detail = format!("the one context that is read is {CONTEXT}, at the top");
            Err(Problem::new(Outcome::Unreadable, detail).of_field(field))
        }
    }
}

/// Where a document names a context.
fn foreign_context(json: &Json) -> Option<String> {
    let below = |key: &str, json| {
        let rest = foreign_context(json)?;
        let mut field = String::new();
        push_pointer(&mut field, key);
        Some(field + &rest)
    };
    match json {
        Json::Object(members) if members.contains_key("@context") => Some("/@context".into()),
        Json::Object(members) => members.iter().find_map(|(key, json)| below(key, json)),
        Json::Array(elements) => {
            elements.iter().zip(0..).find_map(|(json, index)| below(&format!("{index}"), json))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// Why a body could not be gathered.
#[derive(Clone, Copy, Debug)]
enum Gap {
    Broken,
    Large,
    NoPlace,
}

impl Gap {
    fn problem(self, bytes_max: usize) -> Problem {
        match self {
            Self::Broken => unreadable("the body broke off"),
            Self::Large => {
                let detail = format!("more than {bytes_max} bytes");
                Problem::new(Outcome::BodyTooLarge, detail).of_field("/")
            }
            Self::NoPlace => {
                let detail = "too many large bodies are under way";
                Problem::new(Outcome::Overloaded, detail).retry_after(PLACE_RETRY_S)
            }
        }
    }
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

fn unreadable(detail: &str) -> Problem {
    Problem::new(Outcome::Unreadable, detail).of_field("/")
}
