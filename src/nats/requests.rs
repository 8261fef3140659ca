//! Requests over a connection that somebody else turns: JetStream API calls, stored messages,
//! readers. Any number of tasks may hold a handle and ask at the same time.
//!
//! async-nats's own `request` and `jetstream::publish` are not used: they share a subscription that
//! no cut could remove (P4), and keep an entry for every answer that never comes.
//!
//! What deliberately is not here: what is asked for, and trying again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::ack::ApiError;
use super::connection::{Answer, Unanswered, Waiter};
use super::session::End;
use super::settings::Settings;

/// Calls that may go unanswered for so many `call_timeout`s before bytes count as stalled: 15 s by
/// default, so a link of some 10 KiB/s still makes progress.
const STALL_CALLS: u32 = 3;
/// Longest answer to a call, in bytes: a page of 100,000 subjects of some 60 bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a task asks of a connection.
#[derive(Debug)]
pub(super) enum Command {
    /// No more from this reader.
    EndRead(u64),
    /// Remove every subscription, then echo.
    Leave(oneshot::Sender<()>),
    /// Hand what arrives on `inbox` to `messages`.
    Read { id: u64, inbox: String, messages: mpsc::Sender<Message> },
    /// Publish with an answer.
    Request { subject: Subject, headers: HeaderMap, payload: Bytes, waiter: Waiter },
    /// Store nothing more, then echo.
    Revoke(oneshot::Sender<()>),
    /// Publish without an answer of its own.
    Tell { subject: String, reply: Option<String>, payload: Bytes },
}

/// Why a request has no useful answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestFault {
    #[error("the broker does not permit {call}: {words}")]
    Denied { call: String, words: String },
    #[error("the connection is over: {0}")]
    Lost(String),
    #[error("cannot be read: {0}")]
    Malformed(String),
    #[error("the broker has no JetStream for us")]
    NoJetStream,
    #[error("the broker refused {call} ({err_code}): {description}")]
    Refused { call: String, err_code: u32, description: String },
    #[error("nothing more is sent")]
    Revoked,
    #[error("the broker stalls: {0}")]
    Stalled(String),
}

/// JetStream errors "not enabled" and "not enabled for account".
const ERR_NO_JETSTREAM: [u32; 2] = [10_076, 10_039];

impl RequestFault {
    /// The broker's refusal of a call, sorted.
    pub(super) fn refused(call: &str, error: &ApiError) -> Self {
        if ERR_NO_JETSTREAM.contains(&error.err_code) {
            return Self::NoJetStream;
        }
        let description = super::session::clipped(&error.description);
        Self::Refused { call: call.to_owned(), err_code: error.err_code, description }
    }
}

/// A handle on a connection. Dropping the last ends a connection that nobody else holds.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    pub(super) orders: mpsc::Sender<Command>,
    pub(super) over: watch::Receiver<Option<String>>,
    pub(super) progress: watch::Receiver<u64>,
    pub(super) end: End,
    pub(super) inbox: Arc<str>,
    pub(super) settings: Arc<Settings>,
}

/// An answer that is under way.
#[derive(Debug)]
pub(super) struct Awaited {
    receiver: oneshot::Receiver<Answer>,
    subject: String,
}

impl Requests {
    /// One JetStream API call; the broker's own error is an answer.
    pub(super) async fn call(
        &self,
        call: &str,
        body: &Value,
    ) -> Result<Result<Value, ApiError>, RequestFault> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let message = self.ask(&self.settings.api(call), HeaderMap::new(), body).await?;
        let malformed = || RequestFault::Malformed(format!("the answer to {call}"));
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

    /// The same for a call where every error is a fault.
    pub(super) async fn demand(&self, call: &str, body: &Value) -> Result<Value, RequestFault> {
        self.call(call, body).await?.map_err(|error| RequestFault::refused(call, &error))
    }

    /// One request to any subject, and its answer within `call_timeout`.
    pub(super) async fn ask(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Message, RequestFault> {
        let asking = async {
            let mut awaited = self.request(None, subject, headers, payload).await?;
            self.answer(&mut awaited).await
        };
        let message = match tokio::time::timeout(self.settings.call_timeout, asking).await {
            Ok(message) => message?,
            Err(_) => return Err(RequestFault::Stalled(format!("no answer to {subject}"))),
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(RequestFault::NoJetStream);
        }
        Ok(message)
    }

    /// Publishes what is to be stored, if nothing was revoked.
    pub(super) async fn store(
        &self,
        place: OwnedSemaphorePermit,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Awaited, RequestFault> {
        self.request(Some(place), subject, headers, payload).await
    }

    async fn request(
        &self,
        place: Option<OwnedSemaphorePermit>,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Awaited, RequestFault> {
        let (answer, receiver) = oneshot::channel();
        let waiter = Waiter::Caller(answer, place);
        self.order(Command::Request { subject: Subject::from(subject), headers, payload, waiter })
            .await?;
        Ok(Awaited { receiver, subject: subject.to_owned() })
    }

    async fn order(&self, order: Command) -> Result<(), RequestFault> {
        self.orders.send(order).await.map_err(|_| self.lost())
    }

    async fn answer(&self, awaited: &mut Awaited) -> Result<Message, RequestFault> {
        match (&mut awaited.receiver).await {
            Ok(answer) => answer.map_err(|fault| self.unanswered(fault, &awaited.subject)),
            Err(_) => Err(self.lost()),
        }
    }

    /// The answer to a stored message. Waits as long as something else is acknowledged meanwhile
    /// and then `stall_timeout`.
    pub(super) async fn landed(&self, awaited: &mut Awaited) -> Result<Message, RequestFault> {
        self.while_acknowledged(self.answer(awaited)).await?
    }

    /// The answer, if it is there.
    pub(super) fn has_landed(
        &self,
        awaited: &mut Awaited,
    ) -> Result<Option<Message>, RequestFault> {
        match awaited.receiver.try_recv() {
            Ok(answer) => {
                answer.map(Some).map_err(|fault| self.unanswered(fault, &awaited.subject))
            }
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(self.lost()),
        }
    }

    /// Waits for something that acknowledgements bring about; gives up when none comes for
    /// `stall_timeout`.
    pub(super) async fn while_acknowledged<T>(
        &self,
        waiting: impl Future<Output = T>,
    ) -> Result<T, RequestFault> {
        let mut waiting = std::pin::pin!(waiting);
        let mut progress = self.progress.clone();
        loop {
            progress.mark_unchanged();
            tokio::select! {
                biased;
                outcome = &mut waiting => return Ok(outcome),
                changed = tokio::time::timeout(self.stall_timeout(), progress.changed()) => {
                    match changed {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(self.lost()),
                        Err(_) => return Err(RequestFault::Stalled("no acknowledgement".to_owned())),
                    }
                }
            }
        }
    }

    /// Begins to read what will be delivered to the returned subject.
    pub(super) async fn read(
        &self,
        id: u64,
        len_max: usize,
    ) -> Result<(String, mpsc::Receiver<Message>), RequestFault> {
        let (messages, receiver) = mpsc::channel(len_max);
        let inbox = format!("{}.r.{id:016x}", self.inbox);
        self.order(Command::Read { id, inbox: inbox.clone(), messages }).await?;
        Ok((inbox, receiver))
    }

    /// Asks a consumer to deliver to `inbox`.
    pub(super) async fn pull(
        &self,
        call: &str,
        inbox: &str,
        body: &Value,
    ) -> Result<(), RequestFault> {
        let payload = Bytes::from(body.to_string());
        let (subject, reply) = (self.settings.api(call), Some(inbox.to_owned()));
        self.order(Command::Tell { subject, reply, payload }).await
    }

    /// The next message of a reader.
    pub(super) async fn delivered(
        &self,
        messages: &mut mpsc::Receiver<Message>,
    ) -> Result<Message, RequestFault> {
        match tokio::time::timeout(self.stall_timeout(), messages.recv()).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.lost()),
            Err(_) => Err(RequestFault::Stalled("nothing was delivered".to_owned())),
        }
    }

    /// Ends a reader and its consumer. Never waits: without room the connection is stalled and
    /// about to be severed, and the server forgets the consumer by itself.
    pub(super) fn end_read(&self, id: u64, call: &str) {
        let _ = self.orders.try_send(Command::EndRead(id));
        let subject = self.settings.api(call);
        let _ = self.orders.try_send(Command::Tell { subject, reply: None, payload: Bytes::new() });
    }

    /// Publishes without an answer.
    pub(super) async fn tell(&self, subject: &str, payload: Bytes) -> Result<(), RequestFault> {
        let subject = subject.to_owned();
        self.order(Command::Tell { subject, reply: None, payload }).await
    }

    /// Stores nothing more, for good, and waits for an echo of all that was sent. Stopping is done
    /// when this has been polled once.
    pub(super) async fn revoke(&self) -> Result<(), RequestFault> {
        let (done, echoed) = oneshot::channel();
        self.order(Command::Revoke(done)).await?;
        echoed.await.map_err(|_| self.lost())
    }

    /// Removes every subscription and waits for an echo.
    pub(super) async fn leave(&self) -> Result<(), RequestFault> {
        let (done, echoed) = oneshot::channel();
        self.order(Command::Leave(done)).await?;
        echoed.await.map_err(|_| self.lost())
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        self.settings.call_timeout * STALL_CALLS
    }

    pub(super) fn lost(&self) -> RequestFault {
        let reason = self.over.borrow().clone();
        RequestFault::Lost(match reason {
            Some(reason) => reason,
            None if self.end.is_severed() => "severed".to_owned(),
            None => "the connection is closing".to_owned(),
        })
    }

    fn unanswered(&self, fault: Unanswered, subject: &str) -> RequestFault {
        use super::connection::NotSent;
        match fault {
            Unanswered::Denied(words) => {
                let call = self.settings.call_of(subject).to_owned();
                RequestFault::Denied { call, words }
            }
            Unanswered::Revoked => RequestFault::Revoked,
            Unanswered::NotSent(NotSent::Closed) => self.lost(),
            Unanswered::NotSent(NotSent::Full) => {
                RequestFault::Stalled("the connection takes no more".to_owned())
            }
            Unanswered::NotSent(fault @ (NotSent::BadSubject | NotSent::TooLarge)) => {
                RequestFault::Malformed(fault.to_string())
            }
        }
    }
}
