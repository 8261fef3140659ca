//! One connection with numbered replies: what the object store speaks over.
//!
//! The connection lives in a [`Session`] of its own, so that severing it drops its queues and its
//! socket; async-nats's `request` and `jetstream::publish` are not used, for they keep an entry for
//! every answer that never comes. Whoever calls holds the numbers here, and a number goes with its
//! caller.
//!
//! **Revoking (P1, P5).** Every message is handed to the connection inside one short lock and
//! without waiting, so [`Line::quiesce`] has a clean cut: what was handed over before it is
//! answered and confirmed, and nothing is handed over after it, whatever the callers were doing.
//! That never waits is true because at most [`WINDOW`] stored messages and a few calls are under
//! way, far below async-nats's queue of 2048; a queue that is full all the same is a stall.
//!
//! What deliberately is not here: what the messages mean.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::StoreFault;
use super::answers::{Leave, Parts, run};
use crate::nats::ack::ApiError;
use crate::nats::session::{self, ConnectFault, Session, clipped};
use crate::nats::settings::Settings;

/// Stored messages under way on one connection: enough to fill a fast link at 128 KiB each, 8 MiB
/// in all, far below the 128 MiB that a server takes in for one stream.
pub const WINDOW: usize = 64;
/// Calls that may go unanswered for so many `call_timeout`s before bytes count as stalled: 15 s by
/// default, so a link of some 10 KiB/s still makes progress.
const STALL_CALLS: u32 = 3;
/// Longest answer to a call, in bytes: a page of 100,000 subjects of some 60 bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    client: Client,
    inbox: String,
    desk: Arc<Desk>,
    window: Arc<Semaphore>,
    /// Asks the connection's own loop to leave.
    leave: mpsc::Sender<Leave>,
    session: Mutex<Option<Session>>,
    /// Why the connection is over, once it is.
    over: watch::Receiver<Option<String>>,
    call_timeout: Duration,
    pub(super) max_payload: usize,
    pub(super) server: String,
}

/// Where answers find their caller.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// Stored messages without an answer.
    in_flight: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    is_revoked: bool,
    is_over: bool,
    last_token: u64,
    waiting: BTreeMap<u64, Waiter>,
    /// What the server last complained about: often why an answer does not come.
    words: Option<String>,
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Message>,
    /// Of the window, for a stored message. It stays until the answer comes or the connection
    /// ends, also when nobody waits any more.
    permit: Option<OwnedSemaphorePermit>,
}

/// An answer that is under way.
#[derive(Debug)]
pub(super) struct Answer {
    token: u64,
    receiver: oneshot::Receiver<Message>,
    desk: Arc<Desk>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        if state.waiting.get(&self.token).is_some_and(|waiter| waiter.permit.is_none()) {
            state.waiting.remove(&self.token);
        }
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an answer to whoever waits for it.
    pub(super) fn take(&self, message: Message) {
        let token = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let waiter = token.and_then(|token: u64| self.state().waiting.remove(&token));
        if let Some(Waiter { answer, permit }) = waiter {
            // The caller first, so that whoever waits for the count finds the answer there.
            let _ = answer.send(message);
            if permit.is_some() {
                self.in_flight.send_modify(|count| *count = count.saturating_sub(1));
            }
        }
    }

    /// Keeps what the server complained about last.
    pub(super) fn note(&self, words: String) {
        self.state().words = Some(words);
    }

    /// Why the connection was lost, with the server's last words.
    pub(super) fn loss(&self) -> String {
        match &self.state().words {
            Some(words) => format!("the connection was lost: {words}"),
            None => "the connection was lost".to_owned(),
        }
    }

    /// Nothing will be answered any more.
    fn close(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.waiting.clear();
        self.in_flight.send_replace(0);
    }
}

impl Line {
    /// Connects within `settings.connect_timeout`.
    pub(super) async fn connect(settings: &Settings) -> Result<Self, ConnectFault> {
        let (ready_sender, ready) = oneshot::channel();
        let (over_sender, over) = watch::channel(None);
        let desk = Arc::new(Desk { state: Mutex::default(), in_flight: watch::Sender::new(0) });
        let (inner, last_desk) = (Arc::clone(&desk), Arc::clone(&desk));
        let owned = settings.clone();
        let (leave, leaving) = mpsc::channel(1);
        let work = move || async move { run(&owned, &inner, ready_sender, leaving).await };
        let last = move |reason: Option<String>| {
            // The reason first: whoever is told below asks for it.
            over_sender.send_replace(Some(reason.unwrap_or_else(|| "severed".to_owned())));
            last_desk.close();
        };
        let session =
            Session::start(work, last).map_err(|error| ConnectFault::Starved(error.to_string()))?;
        let Parts { client, inbox } = tokio::time::timeout(settings.connect_timeout, ready)
            .await
            .map_err(|_| ConnectFault::TimedOut)?
            .map_err(|_| ConnectFault::Starved("the connection's thread ended".to_owned()))??;
        let greeting = session::Greeting::of(&client);
        Ok(Self {
            client,
            inbox,
            desk,
            window: Arc::new(Semaphore::new(WINDOW)),
            leave,
            session: Mutex::new(Some(session)),
            over,
            call_timeout: settings.call_timeout,
            max_payload: greeting.max_payload,
            server: greeting.server,
        })
    }

    /// Waits for a place in the window.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, StoreFault> {
        let place = Arc::clone(&self.window).acquire_owned();
        match tokio::time::timeout(self.stall_timeout(), place).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(self.lost()),
            Err(_) => Err(self.stalled("no acknowledgement")),
        }
    }

    /// Publishes what is to be stored, if the line is not revoked.
    pub(super) fn publish(
        &self,
        place: OwnedSemaphorePermit,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Answer, StoreFault> {
        self.send(Some(place), |reply| {
            self.client.publish_with_reply_and_headers(subject.to_owned(), reply, headers, payload)
        })
    }

    /// The answer to a stored message. Waits as long as something else is acknowledged meanwhile
    /// and then `stall_timeout`.
    pub(super) async fn landed(&self, answer: &mut Answer) -> Result<Message, StoreFault> {
        let mut in_flight = self.desk.in_flight.subscribe();
        loop {
            in_flight.mark_unchanged();
            tokio::select! {
                biased;
                message = &mut answer.receiver => return message.map_err(|_| self.lost()),
                changed = tokio::time::timeout(self.stall_timeout(), in_flight.changed()) => {
                    if changed.is_err() {
                        return Err(self.stalled("no acknowledgement"));
                    }
                }
            }
        }
    }

    /// The answer, if it is there.
    pub(super) fn has_landed(&self, answer: &mut Answer) -> Result<Option<Message>, StoreFault> {
        match answer.receiver.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(self.lost()),
        }
    }

    /// One JetStream API call. Reads and removals only, so it works on a revoked line as well.
    pub(super) async fn call(
        &self,
        call: &str,
        body: &Value,
    ) -> Result<Result<Value, ApiError>, StoreFault> {
        let mut answer = self.send(None, |reply| {
            self.client.publish_with_reply(format!("$JS.API.{call}"), reply, body_of(body))
        })?;
        let message = match tokio::time::timeout(self.call_timeout, &mut answer.receiver).await {
            Ok(Ok(message)) => message,
            Ok(Err(_)) => return Err(self.lost()),
            Err(_) => return Err(self.stalled(&format!("no answer to {call}"))),
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(StoreFault::NoJetStream);
        }
        let malformed = || StoreFault::Malformed(format!("the answer to {call}"));
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
    pub(super) async fn demand(&self, call: &str, body: &Value) -> Result<Value, StoreFault> {
        self.call(call, body).await?.map_err(|error| StoreFault::refused(call, &error))
    }

    /// A call whose answer nobody needs. Never waits.
    pub(super) fn tell(&self, call: &str) {
        let sent = self.client.publish(format!("$JS.API.{call}"), Bytes::new());
        let _ = tokio::task::unconstrained(sent).now_or_never();
    }

    /// A subscription for what a consumer delivers, with the subject to deliver to.
    pub(super) fn inlet(&self) -> Result<(String, Subscriber), StoreFault> {
        let token = self.desk.state().next_token();
        let subject = format!("{}.r.{token}", self.inbox);
        let subscribing = self.client.subscribe(subject.clone());
        match tokio::task::unconstrained(subscribing).now_or_never() {
            Some(Ok(subscriber)) => Ok((subject, subscriber)),
            Some(Err(_)) => Err(self.lost()),
            None => Err(self.stalled("the connection takes no more")),
        }
    }

    /// Asks a consumer to deliver to an inlet.
    pub(super) fn pull(&self, call: &str, inlet: &str, body: &Value) -> Result<(), StoreFault> {
        let sent = self.client.publish_with_reply(
            format!("$JS.API.{call}"),
            inlet.to_owned(),
            body_of(body),
        );
        match tokio::task::unconstrained(sent).now_or_never() {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(self.lost()),
            None => Err(self.stalled("the connection takes no more")),
        }
    }

    /// The next message of an inlet.
    pub(super) async fn delivered(&self, inlet: &mut Subscriber) -> Result<Message, StoreFault> {
        match tokio::time::timeout(self.stall_timeout(), inlet.next()).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.lost()),
            Err(_) => Err(self.stalled("nothing was delivered")),
        }
    }

    /// Waits until everything that was published is answered.
    pub(super) async fn settle(&self) -> Result<(), StoreFault> {
        let mut in_flight = self.desk.in_flight.subscribe();
        loop {
            let count = *in_flight.borrow_and_update();
            if count == 0 {
                return Ok(());
            }
            if tokio::time::timeout(self.stall_timeout(), in_flight.changed()).await.is_err() {
                return Err(self.stalled("no acknowledgement"));
            }
        }
    }

    /// See [`super::Store::quiesce`].
    pub(super) async fn quiesce(&self, stream: &str, timeout: Duration) -> Result<(), StoreFault> {
        let mut echo = {
            let mut state = self.desk.state();
            state.is_revoked = true;
            // Both ways of a barrier at once, with one number: the first answer counts. A server
            // may forbid us to publish to our own inbox, and answers the question then.
            self.send_in(&mut state, None, |reply| {
                let client = self.client.clone();
                let call = format!("$JS.API.STREAM.INFO.{stream}");
                async move {
                    client.publish(reply.clone(), Bytes::new()).await?;
                    client.publish_with_reply(call, reply, Bytes::new()).await
                }
            })?
        };
        let mut in_flight = self.desk.in_flight.subscribe();
        let confirmed = async {
            // An error means that the connection is over, and so does a missing echo.
            let _ = in_flight.wait_for(|count| *count == 0).await;
            (&mut echo.receiver).await.map_err(|_| self.lost())
        };
        match tokio::time::timeout(timeout, confirmed).await {
            Ok(confirmed) => confirmed.map(|_| ()),
            Err(_) => Err(self.stalled("the broker does not confirm")),
        }
    }

    /// See [`super::Store::leave`].
    pub(super) async fn leave(&self, stream: &str, timeout: Duration) -> Result<(), StoreFault> {
        let (done, left) = oneshot::channel();
        let asked = self.leave.send(Leave { stream: stream.to_owned(), done });
        let answered = async {
            asked.await.map_err(|_| self.lost())?;
            left.await.map_err(|_| self.lost())
        };
        match tokio::time::timeout(timeout, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(self.stalled("the broker does not confirm that we have left")),
        }
    }

    /// See [`super::Store::sever`].
    pub(super) fn sever(&self) -> impl Future<Output = ()> + Send + use<> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Not awaited: the watch below says the same to everybody who severs.
        drop(session.map(Session::sever));
        let mut over = self.over.clone();
        async move {
            // An error means that the thread is gone, and with it the connection.
            let _ = over.wait_for(Option::is_some).await;
        }
    }

    fn stall_timeout(&self) -> Duration {
        self.call_timeout * STALL_CALLS
    }

    /// Numbers a message and hands it over, all inside the lock.
    fn send<Sending>(
        &self,
        place: Option<OwnedSemaphorePermit>,
        sending: impl FnOnce(String) -> Sending,
    ) -> Result<Answer, StoreFault>
    where
        Sending: Future<Output = Result<(), async_nats::PublishError>>,
    {
        let mut state = self.desk.state();
        if state.is_revoked && place.is_some() {
            return Err(StoreFault::Revoked);
        }
        self.send_in(&mut state, place, sending)
    }

    fn send_in<Sending>(
        &self,
        state: &mut State,
        permit: Option<OwnedSemaphorePermit>,
        sending: impl FnOnce(String) -> Sending,
    ) -> Result<Answer, StoreFault>
    where
        Sending: Future<Output = Result<(), async_nats::PublishError>>,
    {
        if state.is_over {
            return Err(self.lost());
        }
        let token = state.next_token();
        // Unconstrained: tokio's turn-taking must not make it look as if there were no room.
        let sending = sending(format!("{}.a.{token}", self.inbox));
        match tokio::task::unconstrained(sending).now_or_never() {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(self.unsent(&error)),
            None => return Err(StoreFault::Stalled("the connection takes no more".to_owned())),
        }
        if permit.is_some() {
            self.desk.in_flight.send_modify(|count| *count += 1);
        }
        let (answer, receiver) = oneshot::channel();
        state.waiting.insert(token, Waiter { answer, permit });
        Ok(Answer { token, receiver, desk: Arc::clone(&self.desk) })
    }

    fn unsent(&self, error: &async_nats::PublishError) -> StoreFault {
        use async_nats::PublishErrorKind;
        match error.kind() {
            PublishErrorKind::Send => self.lost(),
            PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                StoreFault::Malformed(clipped(&error.to_string()))
            }
        }
    }

    fn lost(&self) -> StoreFault {
        let reason = self.over.borrow().clone();
        StoreFault::Lost(reason.unwrap_or_else(|| "the connection is closing".to_owned()))
    }

    /// Not under the lock.
    fn stalled(&self, what: &str) -> StoreFault {
        let words = self.desk.state().words.clone();
        StoreFault::Stalled(match words {
            Some(words) => format!("{what}; the server last said: {words}"),
            None => what.to_owned(),
        })
    }
}

impl State {
    fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }
}

fn body_of(body: &Value) -> Bytes {
    if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) }
}
