//! The assets of DESIGN section 3 on the broker: created where absent, else bound and compared.
//!
//! Provisioning has a connection of its own that ends with it. It needs requests, and the client
//! keeps one inbox subscription for requests as long as it lives, which the link must not have
//! (P4). Requests and configurations are written here as JSON, field by field: servers since 2.12
//! refuse fields that they do not know, and answers hold fields that no client library of one
//! version lists (`persist_mode`).
//!
//! What deliberately is not here: what is wanted and how a difference is worded (`wanted.rs`),
//! changing an existing asset (an operator's decision; the report says what to change), KV buckets,
//! the object bucket and the micro service (they come with what uses them).

use std::time::Duration;

use async_nats::{Client, RequestErrorKind};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::ack::ApiError;
use super::session::{self, ConnectFault, Session, clipped};
use super::settings::Settings;
use super::wanted::{Consumer, Stream};

/// JetStream error "stream not found".
const ERR_STREAM_ABSENT: u32 = 10_059;
/// JetStream error "consumer not found".
const ERR_CONSUMER_ABSENT: u32 = 10_014;
/// JetStream errors "stream name already in use" and "consumer already exists": somebody was
/// faster, with another configuration than ours.
const ERR_TAKEN: [u32; 3] = [10_058, 10_148, 10_013];
/// JetStream errors "not enabled" and "not enabled for account".
const ERR_NO_JETSTREAM: [u32; 2] = [10_076, 10_039];
/// Longest answer that is read, in bytes: a stream's state with all its sources.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// JetStream calls of one [`ensure`]: three assets, each looked up, created and looked up again.
const CALLS_MAX: u32 = 9;

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
}

/// Why nothing can be said about the assets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssetFault {
    /// No connection.
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
    #[error("the answer to {0} cannot be read")]
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
    /// No answer within `call_timeout`.
    #[error("no answer to {0} in time")]
    TimedOut(String),
}

/// Makes sure of both streams and our consumer, on a connection that is gone when this returns.
/// Running it twice changes nothing.
///
/// # Cancel safety
/// Dropping the future ends the connection; what has been created stays.
///
/// # Errors
/// [`AssetFault`]; worth trying again except for [`AssetFault::Denied`].
pub async fn ensure(settings: &Settings) -> Result<AssetReport, AssetFault> {
    let (sender, receiver) = oneshot::channel();
    let owned = settings.clone();
    let work = move || async move { run(&owned).await };
    let last = move |outcome| {
        // Nobody listens any more when the deadline has passed.
        let _ = sender.send(outcome);
    };
    let session =
        Session::start(work, last).map_err(|error| ConnectFault::Starved(error.to_string()))?;
    let deadline = settings.connect_timeout + settings.call_timeout * CALLS_MAX;
    let outcome = tokio::time::timeout(deadline, receiver).await;
    session.sever().await;
    match outcome {
        Ok(Ok(Some(outcome))) => outcome,
        Ok(Ok(None) | Err(_)) | Err(_) => Err(AssetFault::TimedOut("provisioning".to_owned())),
    }
}

async fn run(settings: &Settings) -> Result<AssetReport, AssetFault> {
    let connecting = session::connect(settings);
    let session::Connected { client, notices, lost } =
        tokio::time::timeout(settings.connect_timeout, connecting)
            .await
            .map_err(|_| ConnectFault::TimedOut)??;
    let mut control = Control { client, notices, timeout: settings.call_timeout };
    tokio::select! {
        () = lost.notified() => {
            Err(ConnectFault::Unreachable("the connection was lost".to_owned()).into())
        }
        report = control.ensure_all(settings) => report,
    }
}

/// One asset, as far as creating and comparing go.
trait Asset {
    fn name(&self) -> String;
    fn lookup(&self) -> String;
    /// `None`: never ours to create.
    fn creation(&self) -> Option<(String, Value)>;
    fn is_absent(&self, err_code: u32) -> bool;
    fn differences(&self, config: &Value) -> Vec<String>;
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
}

struct Control {
    client: Client,
    notices: tokio::sync::mpsc::Receiver<async_nats::Event>,
    timeout: Duration,
}

impl Control {
    async fn ensure_all(&mut self, settings: &Settings) -> Result<AssetReport, AssetFault> {
        let mut report = AssetReport::default();
        let state = Stream::state_out(settings);
        report.has_stream_out = self.ensure(&state, settings.provision, &mut report).await?;
        let has_stream_in = match Stream::state_in(settings) {
            Some(stream) => self.ensure(&stream, settings.provision, &mut report).await?,
            None => report.has_stream_out,
        };
        let quarantine = Stream::quarantine(settings);
        self.ensure(&quarantine, settings.provision, &mut report).await?;
        if has_stream_in {
            let consumer = Consumer::of(settings);
            report.has_consumer = self.ensure(&consumer, settings.provision, &mut report).await?;
        }
        Ok(report)
    }

    /// Whether the asset is there in the end.
    async fn ensure(
        &mut self,
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
                Err(error) => return Err(refused(&call, &error)),
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
    async fn look(&mut self, asset: &impl Asset) -> Result<Option<Value>, AssetFault> {
        let call = asset.lookup();
        match self.call(&call, &Value::Null).await? {
            Ok(mut answer) => match answer.get_mut("config").map(Value::take) {
                Some(config) => Ok(Some(config)),
                None => Err(AssetFault::Malformed(call)),
            },
            Err(error) if asset.is_absent(error.err_code) => Ok(None),
            Err(error) => Err(refused(&call, &error)),
        }
    }

    /// One JetStream API call.
    async fn call(
        &mut self,
        call: &str,
        body: &Value,
    ) -> Result<Result<Value, ApiError>, AssetFault> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        while self.notices.try_recv().is_ok() {}
        let subject = format!("$JS.API.{call}");
        let denial = async {
            while let Some(notice) = self.notices.recv().await {
                if let async_nats::Event::ServerError(error) = notice {
                    return clipped(&error.to_string());
                }
            }
            std::future::pending().await
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(self.timeout, self.client.request(subject, body)) => answer,
            words = denial => {
                return Err(AssetFault::Denied { call: call.to_owned(), words });
            }
        };
        let timed_out = || AssetFault::TimedOut(call.to_owned());
        let message = answer.map_err(|_| timed_out())?.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => AssetFault::NoJetStream,
            RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded
            | RequestErrorKind::Other
            | RequestErrorKind::TimedOut => timed_out(),
        })?;
        let malformed = || AssetFault::Malformed(call.to_owned());
        if message.payload.len() > ANSWER_BYTES_MAX {
            return Err(malformed());
        }
        let mut answer: Value =
            serde_json::from_slice(&message.payload).map_err(|_| malformed())?;
        match answer.get_mut("error").map(Value::take) {
            Some(error) => serde_json::from_value(error).map(Err).map_err(|_| malformed()),
            None => Ok(Ok(answer)),
        }
    }
}

fn refused(call: &str, error: &ApiError) -> AssetFault {
    if ERR_NO_JETSTREAM.contains(&error.err_code) {
        return AssetFault::NoJetStream;
    }
    AssetFault::Refused {
        call: call.to_owned(),
        err_code: error.err_code,
        description: clipped(&error.description),
    }
}
