//! The streams and the consumer on the broker: created where absent, else bound and compared.
//!
//! A link does this over itself, so that its cut ends it like everything else (P4); on a
//! connection of its own it is for whoever has no link.
//!
//! What deliberately is not here: what is wanted and how a difference is worded (`wanted.rs`),
//! changing an existing asset (an operator's decision; the report says what to change), and the
//! buckets but for presence (they are made by what uses them).

use serde_json::{Value, json};

use super::asset::{Asset, Compared, ERR_STREAM_ABSENT, stream_update};
use super::connection::{Connection, serve};
use super::object::{StoreFault, bucket};
use super::presence;
use super::reclaim::{self, Reclaimed};
use super::requests::{RequestFault, Requests};
use super::session::ConnectFault;
use super::settings::Settings;
use super::wanted::{Consumer, Stream};
use crate::protocol::presence::Held;

/// JetStream error "consumer not found".
const ERR_CONSUMER_ABSENT: u32 = 10_014;
/// Why nothing can be said about the assets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssetFault {
    /// No connection, or its end.
    #[error(transparent)]
    Connect(#[from] ConnectFault),
    /// The server's permissions keep us from asking. Publishing and pulling may still work.
    #[error("the broker does not permit {call}: {words}")]
    Denied {
        /// The call.
        call: String,
        /// The server's words.
        words: String,
    },
    /// An answer that cannot be read.
    #[error("{0} cannot be read")]
    Malformed(String),
    /// The server or the account has no JetStream.
    #[error("the broker has no JetStream for us")]
    NoJetStream,
    /// The broker refuses, in its words.
    #[error("the broker refused {call} ({err_code}): {description}")]
    Refused {
        /// The call.
        call: String,
        /// JetStream error number.
        err_code: u32,
        /// Description.
        description: String,
    },
    /// Given up: the gate has cut the connection's subscriptions.
    #[error("not asked any further: the gate is closed")]
    Revoked,
    /// No answer within `call_timeout`.
    #[error("not in time: {0}")]
    TimedOut(String),
}

impl From<RequestFault> for AssetFault {
    fn from(fault: RequestFault) -> Self {
        match fault {
            RequestFault::Denied { call, words } => Self::Denied { call, words },
            RequestFault::Lost(reason) => ConnectFault::Unreachable(reason).into(),
            RequestFault::Malformed(what) => Self::Malformed(what),
            RequestFault::NoJetStream => Self::NoJetStream,
            RequestFault::Refused { call, err_code, description } => {
                Self::Refused { call, err_code, description }
            }
            RequestFault::Revoked => Self::Revoked,
            RequestFault::Stalled(what) => Self::TimedOut(what),
        }
    }
}

/// What [`ensure`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssetReport {
    /// What was absent and is there now.
    pub created: Vec<String>,
    /// What weakens a promise, in words, one sentence each; for `/readyz` and `doctor`.
    pub differences: Vec<String>,
    /// Whether the outbound stream is there: without it no packet can be stored.
    pub has_stream_out: bool,
    /// Whether our consumer is there: without it nothing can be pulled.
    pub has_consumer: bool,
    /// Whether entries of the bucket of presence can expire.
    pub presence_expires: bool,
    /// What became of messages that were under way when an earlier connection ended; empty but
    /// from [`prepare`].
    pub reclaimed: Reclaimed,
}

/// Makes sure of both streams and our consumer, on a connection that is gone when this returns.
/// Running it twice changes nothing. A link does the same over itself
/// ([`Link::provision`](super::link::Link::provision)).
///
/// # Cancel safety
/// Dropping the future ends the connection; what has been created stays.
///
/// # Errors
/// [`AssetFault`]; worth trying again except for [`AssetFault::Denied`].
pub async fn ensure(settings: &Settings) -> Result<AssetReport, AssetFault> {
    on_a_connection(settings, false).await
}

/// The same, and sees to what was under way when the last connection ended ([`reclaim`]). While a
/// link pulls it would only make the broker repeat itself.
///
/// # Cancel safety
/// As [`ensure`].
///
/// # Errors
/// As [`ensure`]. That nothing could be reclaimed is a difference, not an error.
pub async fn prepare(settings: &Settings) -> Result<AssetReport, AssetFault> {
    on_a_connection(settings, true).await
}

/// All that stands in the bucket of presence, by its keys, on a connection that is gone when this
/// returns.
///
/// # Errors
/// [`AssetFault`].
pub async fn presences(settings: &Settings) -> Result<Vec<(String, Held)>, AssetFault> {
    over_a_connection(settings, async |requests| Ok(presence::list(requests).await?)).await
}

async fn on_a_connection(settings: &Settings, reclaims: bool) -> Result<AssetReport, AssetFault> {
    over_a_connection(settings, async |requests| run(requests, reclaims).await).await
}

async fn over_a_connection<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&Requests) -> Result<T, AssetFault>,
) -> Result<T, AssetFault> {
    let (mut connection, requests) = Connection::connect(settings).await?;
    let end = connection.end().clone();
    let opened = connection.subscribe_answers();
    opened.map_err(|fault| ConnectFault::Unreachable(fault.to_string()))?;
    let outcome = tokio::select! {
        outcome = work(&requests) => outcome,
        reason = serve(connection) => Err(ConnectFault::Unreachable(reason).into()),
    };
    end.sever().await;
    outcome
}

/// The work itself, over a connection that somebody turns.
pub(super) async fn run(requests: &Requests, reclaims: bool) -> Result<AssetReport, AssetFault> {
    let mut report = requests.ensure_all().await?;
    if reclaims && report.has_consumer {
        match reclaim::run(requests).await {
            Ok(reclaimed) => report.reclaimed = reclaimed,
            Err(fault) => report.differences.push(reclaim::words(&fault)),
        }
    }
    Ok(report)
}

impl Asset for Stream<'_> {
    fn name(&self) -> String {
        format!("stream {}", self.name)
    }

    fn lookup(&self) -> String {
        format!("STREAM.INFO.{}", self.name)
    }

    fn creation(&self) -> Option<(String, Value)> {
        self.is_ours.then(|| (format!("STREAM.CREATE.{}", self.name), self.config()))
    }

    fn differences(&self, config: &Value) -> Vec<String> {
        Stream::differences(self, config)
    }

    fn removal(&self) -> String {
        format!("nats stream rm -f {}", self.name)
    }

    fn update(&self, config: &Value) -> Option<(String, Value)> {
        stream_update(self.name.as_str(), &self.config(), config)
    }
}

impl Asset for Consumer<'_> {
    fn name(&self) -> String {
        format!("consumer {} of stream {}", self.name, self.stream)
    }

    fn lookup(&self) -> String {
        format!("CONSUMER.INFO.{}.{}", self.stream, self.name)
    }

    fn creation(&self) -> Option<(String, Value)> {
        let call = format!("CONSUMER.CREATE.{}.{}.{}", self.stream, self.name, self.filter);
        let stream = self.stream.as_str();
        Some((call, json!({ "stream_name": stream, "config": self.config(), "action": "create" })))
    }

    fn is_absent(&self, err_code: u32) -> bool {
        err_code == ERR_CONSUMER_ABSENT || err_code == ERR_STREAM_ABSENT
    }

    fn differences(&self, config: &Value) -> Vec<String> {
        Consumer::differences(self, config)
    }

    fn removal(&self) -> String {
        format!("nats consumer rm -f {} {}", self.stream, self.name)
    }

    fn update(&self, _: &Value) -> Option<(String, Value)> {
        None
    }
}

impl Requests {
    async fn ensure_all(&self) -> Result<AssetReport, AssetFault> {
        let settings: &Settings = &self.settings;
        let mut report = AssetReport::default();
        let state = Stream::state_out(settings);
        report.has_stream_out = self.ensure(&state, &mut report).await?;
        let has_stream_in = match Stream::state_in(settings) {
            Some(stream) => self.ensure(&stream, &mut report).await?,
            None => report.has_stream_out,
        };
        let quarantine = Stream::quarantine(settings);
        self.ensure(&quarantine, &mut report).await?;
        if has_stream_in {
            let consumer = Consumer::of(settings);
            report.has_consumer = self.ensure(&consumer, &mut report).await?;
        }
        let presence = bucket::BucketSpec::kv(presence::BUCKET, settings.broker.replicas);
        match bucket::ensure(self, &presence).await {
            Ok(found) => {
                report.differences.extend(found.differences);
                report.presence_expires = found.expires;
            }
            Err(StoreFault::Absent(_)) => {
                report.differences.push(format!("bucket {} is absent", presence::BUCKET));
            }
            // Without it nobody is seen, and nobody is fenced: no reason not to go on.
            Err(fault) => {
                report.differences.push(format!("bucket {}: {fault}", presence::BUCKET));
            }
        }
        Ok(report)
    }

    /// Looks at all of them and changes nothing; at those for memory snapshots where there are any.
    pub(super) async fn compare_all(&self, snapshots: bool) -> Result<Vec<Compared>, AssetFault> {
        let settings: &Settings = &self.settings;
        let mut all = vec![self.compare(&Stream::state_out(settings)).await?];
        if let Some(stream) = Stream::state_in(settings) {
            all.push(self.compare(&stream).await?);
        }
        all.push(self.compare(&Stream::quarantine(settings)).await?);
        all.push(self.compare(&Consumer::of(settings)).await?);
        for bucket in bucket::BucketSpec::all(settings.broker.replicas, snapshots) {
            all.push(self.compare(&bucket).await?);
        }
        Ok(all)
    }

    /// Whether the asset is there in the end.
    async fn ensure(
        &self,
        asset: &impl Asset,
        report: &mut AssetReport,
    ) -> Result<bool, AssetFault> {
        let (found, is_created) = self.provide(asset).await?;
        if is_created {
            report.created.push(asset.name());
        }
        match &found {
            Some(config) => report.differences.extend(asset.differences(config)),
            None => report.differences.push(format!("{} is absent", asset.name())),
        }
        Ok(found.is_some())
    }
}
