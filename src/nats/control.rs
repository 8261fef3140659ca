//! Requests to the broker on a short connection: provisioning's, never the link's.
//!
//! A denial comes as a notice of the whole connection, not as an answer, so one call is under way
//! at a time. What deliberately is not here: what is asked for (`assets.rs`, `reclaim.rs`).

use std::time::Duration;

use async_nats::{Client, Event, HeaderMap, Message, RequestErrorKind};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::ack::ApiError;
use super::session::{ConnectFault, clipped};

/// JetStream errors "not enabled" and "not enabled for account".
const ERR_NO_JETSTREAM: [u32; 2] = [10_076, 10_039];
/// Longest answer that is read, in bytes: a stream's state with all its sources.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

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

/// A short connection that asks.
pub(super) struct Control {
    pub(super) client: Client,
    pub(super) notices: mpsc::Receiver<Event>,
    pub(super) timeout: Duration,
}

impl Control {
    /// One JetStream API call.
    pub(super) async fn call(
        &mut self,
        call: &str,
        body: &Value,
    ) -> Result<Result<Value, ApiError>, AssetFault> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let message = self.ask(&format!("$JS.API.{call}"), HeaderMap::new(), body).await?;
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

    /// One request to any subject, and its answer.
    pub(super) async fn ask(
        &mut self,
        subject: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Message, AssetFault> {
        while self.notices.try_recv().is_ok() {}
        let call = || subject.strip_prefix("$JS.API.").unwrap_or(subject).to_owned();
        let denial = async {
            while let Some(notice) = self.notices.recv().await {
                if let Event::ServerError(error) = notice {
                    return clipped(&error.to_string());
                }
            }
            std::future::pending().await
        };
        let request = self.client.request_with_headers(subject.to_owned(), headers, body);
        let answer = tokio::select! {
            answer = tokio::time::timeout(self.timeout, request) => answer,
            words = denial => return Err(AssetFault::Denied { call: call(), words }),
        };
        let timed_out = || AssetFault::TimedOut(call());
        answer.map_err(|_| timed_out())?.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => AssetFault::NoJetStream,
            RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded
            | RequestErrorKind::Other
            | RequestErrorKind::TimedOut => timed_out(),
        })
    }
}

/// The broker's refusal of a call, sorted.
pub(super) fn refused(call: &str, error: &ApiError) -> AssetFault {
    if ERR_NO_JETSTREAM.contains(&error.err_code) {
        return AssetFault::NoJetStream;
    }
    AssetFault::Refused {
        call: call.to_owned(),
        err_code: error.err_code,
        description: clipped(&error.description),
    }
}
