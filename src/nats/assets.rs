//! The streams and the consumer on the broker: created where absent, else bound and compared.
//!
//! A link does this over itself, so that its cut ends it like everything else (P4); on a
//! connection of its own it is for whoever has no link. Requests and configurations are written
//! here as JSON, field by field: servers since 2.12 refuse fields that they do not know, and
//! answers hold fields that no client library of one version lists (`persist_mode`).
//!
//! What deliberately is not here: what is wanted and how a difference is worded (`wanted.rs`),
//! changing an existing asset (an operator's decision; the report says what to change), KV buckets,
//! the object bucket and the micro service (they come with what uses them).

use serde_json::{Value, json};

use super::connection::{Connection, serve};
use super::object::{StoreFault, bucket};
use super::presence;
use super::reclaim::{self, Reclaimed};
use super::requests::{RequestFault, Requests};
use super::session::ConnectFault;
use super::settings::Settings;
use super::wanted::{Consumer, Stream};
use crate::protocol::presence::Held;

/// JetStream error "stream not found".
const ERR_STREAM_ABSENT: u32 = 10_059;
/// JetStream error "consumer not found".
const ERR_CONSUMER_ABSENT: u32 = 10_014;
/// JetStream errors "stream name already in use" and "consumer already exists": somebody was
/// faster, with another configuration than ours.
const ERR_TAKEN: [u32; 3] = [10_058, 10_148, 10_013];

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

/// One stream or consumer, held against what is wanted.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Which, such as `stream DRIFTGATE_STATE`.
    pub name: String,
    /// What weakens a promise; empty when nothing does.
    pub differences: Vec<String>,
    /// A shell command for the `nats` program that mends it; empty where it is not ours to mend.
    pub fix: String,
}

/// What a stream keeps for life: another value takes another stream.
const FIXED: [&str; 3] = ["storage", "retention", "max_consumers"];

/// One asset, as far as creating and comparing go.
trait Asset {
    fn name(&self) -> String;
    fn lookup(&self) -> String;
    /// `None`: never ours to create.
    fn creation(&self) -> Option<(String, Value)>;
    fn is_absent(&self, err_code: u32) -> bool;
    fn differences(&self, config: &Value) -> Vec<String>;
    /// The `nats` command that removes it.
    fn removal(&self) -> String;
    /// The call that gives one that is there this configuration instead; `None` where only a new
    /// one can have it.
    fn update(&self, config: &Value) -> Option<(String, Value)>;
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

    fn is_absent(&self, err_code: u32) -> bool {
        err_code == ERR_STREAM_ABSENT
    }

    fn differences(&self, config: &Value) -> Vec<String> {
        Stream::differences(self, config)
    }

    fn removal(&self) -> String {
        format!("nats stream rm -f {}", self.name)
    }

    fn update(&self, config: &Value) -> Option<(String, Value)> {
        let wanted = self.config();
        let is_fixed = FIXED.iter().any(|field| config.get(field) != wanted.get(field));
        let mut merged = config.as_object()?.clone();
        merged.extend(wanted.as_object()?.clone());
        (!is_fixed).then(|| (format!("STREAM.UPDATE.{}", self.name), merged.into()))
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
        report.has_stream_out = self.ensure(&state, settings.broker.provision, &mut report).await?;
        let has_stream_in = match Stream::state_in(settings) {
            Some(stream) => self.ensure(&stream, settings.broker.provision, &mut report).await?,
            None => report.has_stream_out,
        };
        let quarantine = Stream::quarantine(settings);
        self.ensure(&quarantine, settings.broker.provision, &mut report).await?;
        if has_stream_in {
            let consumer = Consumer::of(settings);
            report.has_consumer =
                self.ensure(&consumer, settings.broker.provision, &mut report).await?;
        }
        let presence = bucket::Wanted::kv(presence::BUCKET, settings.broker.replicas);
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

    /// Looks at all of them and changes nothing.
    pub(super) async fn compare_all(&self) -> Result<Vec<Compared>, AssetFault> {
        let settings: &Settings = &self.settings;
        let mut all = vec![self.compare(&Stream::state_out(settings)).await?];
        if let Some(stream) = Stream::state_in(settings) {
            all.push(self.compare(&stream).await?);
        }
        all.push(self.compare(&Stream::quarantine(settings)).await?);
        all.push(self.compare(&Consumer::of(settings)).await?);
        Ok(all)
    }

    async fn compare(&self, asset: &impl Asset) -> Result<Compared, AssetFault> {
        let found = self.look(asset).await?;
        let differences = match &found {
            Some(config) => asset.differences(config),
            None => vec![format!("{} is absent", asset.name())],
        };
        let fix = asset.creation().map_or_else(String::new, |creation| {
            let updated = found.as_ref().and_then(|config| asset.update(config));
            let is_made_again = found.is_some() && updated.is_none();
            let removal =
                if is_made_again { format!("{} && ", asset.removal()) } else { String::new() };
            let (call, body) = updated.unwrap_or(creation);
            format!("{removal}nats req '{}' '{body}'", self.settings.api(&call))
        });
        Ok(Compared { name: asset.name(), differences, fix })
    }

    /// Whether the asset is there in the end.
    async fn ensure(
        &self,
        asset: &impl Asset,
        provision: bool,
        report: &mut AssetReport,
    ) -> Result<bool, AssetFault> {
        let mut found = self.look(asset).await?;
        if let (None, true, Some((call, body))) = (&found, provision, asset.creation()) {
            match self.call(&call, &body).await? {
                Ok(_) => report.created.push(asset.name()),
                // Somebody was faster: compare with what they made.
                Err(error) if ERR_TAKEN.contains(&error.err_code) => {}
                Err(error) => return Err(RequestFault::refused(&call, &error).into()),
            }
            found = self.look(asset).await?;
        }
        match &found {
            Some(config) => report.differences.extend(asset.differences(config)),
            None => report.differences.push(format!("{} is absent", asset.name())),
        }
        Ok(found.is_some())
    }

    /// The configuration of an asset, `None` when it is absent.
    async fn look(&self, asset: &impl Asset) -> Result<Option<Value>, AssetFault> {
        let call = asset.lookup();
        match self.call(&call, &Value::Null).await? {
            Ok(mut answer) => match answer.get_mut("config").map(Value::take) {
                Some(config) => Ok(Some(config)),
                None => Err(AssetFault::Malformed(format!("the answer to {call}"))),
            },
            Err(error) if asset.is_absent(error.err_code) => Ok(None),
            Err(error) => Err(RequestFault::refused(&call, &error).into()),
        }
    }
}
