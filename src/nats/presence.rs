//! The KV bucket of presence: where it is, how one entry is written and read.
//!
//! An entry is read by direct get, without a consumer: a stream has 1,000 of those by default, and
//! a fleet may be larger. What an entry means is not known here.

use async_nats::{HeaderMap, StatusCode, Subject};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::headers;
use super::requests::{RequestFault, Requests};
pub use super::subject::PRESENCE as BUCKET;
use crate::protocol::packet::RuntimeId;
use crate::protocol::presence::{Held, TTL};

/// The stream that is the bucket.
pub const STREAM: &str = "KV_driftgate-presence";
/// JetStream errors "wrong last sequence": somebody else has written since.
const ERR_WRONG_SEQUENCE: [u32; 2] = [10_071, 10_164];
/// Entries that are asked for at once.
const READS_MAX: usize = 32;
/// Peers whose entries are read in one round.
const PEERS_MAX: usize = 10_000;

/// Where the entry of a runtime stands.
#[must_use]
pub fn subject(owner: &RuntimeId) -> Subject {
    Subject::from(format!("$KV.{BUCKET}.{owner}"))
}

/// The headers to write an entry with: the condition, and after what it expires.
#[must_use]
pub fn write_headers(expected: u64, expires: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(headers::EXPECTED_SUBJECT_SEQ, expected.to_string().as_str());
    if expires {
        headers.insert(headers::TTL, format!("{}s", TTL.as_secs()).as_str());
    }
    headers
}

/// Whether the broker refuses with this number because the condition failed.
#[must_use]
pub fn is_lost(err_code: u32) -> bool {
    ERR_WRONG_SEQUENCE.contains(&err_code)
}

/// What stands under a runtime's key; `None` when the broker does not say.
pub(super) async fn read(requests: &Requests, owner: &RuntimeId) -> Option<Held> {
    get(requests, &subject(owner)).await.ok()
}

async fn get(requests: &Requests, subject: &str) -> Result<Held, RequestFault> {
    let call = format!("DIRECT.GET.{STREAM}.{subject}");
    let message =
        requests.ask(&requests.settings.api(&call), HeaderMap::new(), Bytes::new()).await?;
    if message.status == Some(StatusCode::NOT_FOUND) {
        return Ok(Held { revision: 0, bytes: None });
    }
    let malformed = || RequestFault::Malformed(format!("the answer to {call}"));
    let fields = message.headers.filter(|_| message.status.is_none()).ok_or_else(malformed)?;
    let revision = fields.get(headers::SEQUENCE).and_then(|text| text.as_str().parse().ok());
    let revision = revision.ok_or_else(malformed)?;
    let is_marker = [headers::KV_OPERATION, headers::MARKER_REASON]
        .into_iter()
        .any(|name| fields.get(name).is_some());
    Ok(Held { revision, bytes: (!is_marker).then_some(message.payload) })
}

/// All that stands in the bucket, by its keys, at most [`PEERS_MAX`] of them. What expires between
/// the list and its reading is left out.
pub(super) async fn list(requests: &Requests) -> Result<Vec<(String, Held)>, RequestFault> {
    let body = json!({ "subjects_filter": ">" });
    let answer = requests.demand(&format!("STREAM.INFO.{STREAM}"), &body).await?;
    let subjects = answer.pointer("/state/subjects").and_then(Value::as_object);
    let subjects = subjects.into_iter().flat_map(|subjects| subjects.keys()).take(PEERS_MAX);
    let reads: Vec<_> = subjects.map(|subject| entry(requests.clone(), subject.clone())).collect();
    stream::iter(reads).buffered(READS_MAX).try_collect().await
}

async fn entry(requests: Requests, subject: String) -> Result<(String, Held), RequestFault> {
    let held = get(&requests, &subject).await?;
    Ok((subject.rsplit('.').next().unwrap_or_default().to_owned(), held))
}

/// What stands under the keys of these peers, one after the other: of whom the broker does not say
/// anything, and of all after him, nothing is known.
pub(super) async fn read_all(requests: &Requests, peers: Vec<RuntimeId>) -> Vec<(RuntimeId, Held)> {
    let mut found = Vec::new();
    for peer in peers.into_iter().take(PEERS_MAX) {
        let Some(held) = read(requests, &peer).await else { break };
        found.push((peer, held));
    }
    found
}
