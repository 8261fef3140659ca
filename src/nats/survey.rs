//! One look at a broker that changes nothing: what it is, what of ours it holds, what we may do.
//!
//! Only questions go out, and publishes that no stream takes: they name a stream that there is not,
//! which the broker refuses before it stores. What deliberately is not here: what a finding means,
//! and what to do (`commands/doctor.rs`).

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::assets::AssetFault;
use super::connection::{Arrival, Connection};
use super::presence;
use super::requests::{RequestFault, Requests};
use super::session::ConnectFault;
use super::settings::Settings;
use super::subject::AssetName;
use crate::protocol::packet::RuntimeId;
use crate::protocol::presence::Held;
use crate::protocol::time::Timestamp;

pub use super::asset::Compared;

/// The stream that a probe expects, and that nobody has.
const NO_STREAM: &str = "driftgate-probe";
/// Where a server tells a user what it may do.
pub const USER_INFO: &str = "$SYS.REQ.USER.INFO";
/// How the server begins to say that we may not listen somewhere.
const DEAF: &str = "Permissions Violation for Subscription to ";
/// Origins of one stream that are looked at.
const SOURCES_MAX: usize = 256;

/// The clock of this machine.
pub type Clock<'a> = &'a (dyn Fn() -> Timestamp + Sync);

/// What was seen.
#[derive(Debug)]
pub struct Survey {
    /// Name and version of the server.
    pub server: String,
    /// Largest message that it takes, in bytes.
    pub max_payload: usize,
    /// Streams, consumer and buckets, held against what the configuration promises.
    pub assets: Result<Vec<Compared>, AssetFault>,
    /// The account's room in JetStream, as the broker tells it.
    pub account: Option<Value>,
    /// What this user is and may do, as the broker tells it; `None` where it does not.
    pub user: Option<Value>,
    /// Our clock just before and just after the broker read its own for [`Self::user`].
    pub asked: (Timestamp, Timestamp),
    /// Whether a packet to the first peer could be published; `None` when that is not known.
    pub may_export: Option<bool>,
    /// Whether a packet in the name of that peer could be.
    pub may_forge: Option<bool>,
    /// What stands in the bucket of presence under our own name.
    pub presence: Option<Held>,
    /// The streams that fill the one that we pull from.
    pub sources: Vec<Source>,
}

/// One stream that fills another.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// The name of the stream that it fills.
    pub fills: String,
    /// Sequence number of its newest message that the other takes; `None` where it does not say.
    pub last: Option<u64>,
    /// What the other stream says of it, asked after [`Self::last`].
    pub told: Value,
}

/// Why nothing was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SurveyFault {
    /// There is no connection, or it ended too early.
    #[error(transparent)]
    Connect(#[from] ConnectFault),
    /// The broker does not let us hear its answers, in its words.
    #[error("the broker does not let us hear its answers: {0}")]
    Deaf(String),
}

/// Looks, on a connection that is gone when this returns: for memory snapshots too where there are
/// any, and with `peer` as the one that packets are for, and the one to pretend to be.
///
/// # Cancel safety
/// Dropping the future ends the connection.
///
/// # Errors
/// [`SurveyFault`].
pub async fn survey(
    settings: &Settings,
    peer: Option<&RuntimeId>,
    snapshots: bool,
    clock: Clock<'_>,
) -> Result<Survey, SurveyFault> {
    let (mut connection, requests) = Connection::connect(settings).await?;
    let end = connection.end().clone();
    let about = (connection.server(), connection.max_payload());
    let opened = connection.subscribe_answers();
    opened.map_err(|fault| ConnectFault::Unreachable(fault.to_string()))?;
    let outcome = tokio::select! {
        survey = look(&requests, peer, snapshots, clock, about) => Ok(survey),
        fault = turn(&mut connection) => Err(fault),
    };
    end.sever().await;
    outcome
}

/// Turns the connection until it is of no use any more.
async fn turn(connection: &mut Connection) -> SurveyFault {
    loop {
        let arrival = connection.next().await;
        if let Arrival::Ended(reason) = arrival {
            return ConnectFault::Unreachable(reason).into();
        }
        // We listen to nothing but answers.
        if let Arrival::Complaint(words) = arrival
            && words.contains(DEAF)
        {
            return SurveyFault::Deaf(words);
        }
    }
}

async fn look(
    requests: &Requests,
    peer: Option<&RuntimeId>,
    snapshots: bool,
    clock: Clock<'_>,
    (server, max_payload): (String, usize),
) -> Survey {
    let me = &requests.settings.runtime_id;
    let before = clock();
    let user = requests.ask(USER_INFO, HeaderMap::new(), Bytes::new()).await.ok();
    let asked = (before, clock());
    let (may_export, may_forge) = match peer {
        Some(peer) => (may(requests, me, peer).await, may(requests, peer, me).await),
        None => (None, None),
    };
    let assets = requests.compare_all(snapshots).await;
    let (mut account, mut held, mut sources) = (None, None, Vec::new());
    // Without JetStream nobody answers, and what is denied once need not be waited for again.
    if assets.is_ok() {
        account = requests.demand("INFO", &Value::Null).await.ok();
        held = presence::read(requests, me).await;
        sources = sources_of(requests, &requests.settings.broker.stream_in).await;
    }
    Survey {
        server,
        max_payload,
        assets,
        account,
        user: user.and_then(|message| serde_json::from_slice(&message.payload).ok()),
        asked,
        may_export,
        may_forge,
        presence: held,
        sources,
    }
}

/// Whether we may publish a packet of `source` for `target`.
async fn may(requests: &Requests, source: &RuntimeId, target: &RuntimeId) -> Option<bool> {
    let subject = requests.settings.broker.prefix.state(source, target);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", NO_STREAM);
    match requests.ask(subject.as_str(), headers, Bytes::new()).await {
        Ok(_) | Err(RequestFault::NoJetStream) => Some(true),
        Err(RequestFault::Denied { .. }) => Some(false),
        Err(_) => None,
    }
}

/// The newest of each origin first, so that what arrives meanwhile does not look like a gap.
async fn sources_of(requests: &Requests, stream: &AssetName) -> Vec<Source> {
    let call = format!("STREAM.INFO.{stream}");
    let list = |info: &Value| info.get("sources").and_then(Value::as_array).cloned();
    let info = requests.demand(&call, &Value::Null).await.unwrap_or_default();
    // The broker tells them in any order.
    let which = |source: &Value| {
        ["/name", "/external/api", "/filter_subject"].map(|at| source.pointer(at).cloned())
    };
    // Side by side, so that origins that do not answer cost one wait together.
    let origins = list(&info).unwrap_or_default();
    let asked = origins.iter().take(SOURCES_MAX);
    let lasts =
        join_all(asked.map(async |source| (which(source), newest(requests, source).await))).await;
    let later = requests.demand(&call, &Value::Null).await.unwrap_or_default();
    let source = |told: Value| Source {
        name: told.get("name").and_then(Value::as_str).unwrap_or("?").to_owned(),
        fills: stream.to_string(),
        last: lasts.iter().find(|(one, _)| *one == which(&told)).and_then(|(_, last)| *last),
        told,
    };
    list(&later).unwrap_or_default().into_iter().take(SOURCES_MAX).map(source).collect()
}

/// Sequence number of the newest message of a source that its filter lets through.
async fn newest(requests: &Requests, source: &Value) -> Option<u64> {
    let name = source.get("name").and_then(Value::as_str)?;
    let api = source.pointer("/external/api").and_then(Value::as_str);
    let (filter, at, body) = match source.get("filter_subject").and_then(Value::as_str) {
        _ if source.get("subject_transforms").is_some() => return None,
        None => ("STREAM.INFO", "/state/last_seq", Value::Null),
        Some(filter) => ("STREAM.MSG.GET", "/message/seq", json!({ "last_by_subj": filter })),
    };
    let call = format!("{filter}.{name}");
    let subject = api.map_or_else(|| requests.settings.api(&call), |api| format!("{api}.{call}"));
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let answer = requests.ask(&subject, HeaderMap::new(), body).await.ok()?;
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    answer.pointer(at).and_then(Value::as_u64)
}
