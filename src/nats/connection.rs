//! One connection: everything that is sent on it passes one place, in order, and every
//! subscription stands in one table.
//!
//! Its owner turns it by [`Connection::next`]. Nothing that sends ever waits: a message is handed
//! to async-nats's queue or refused.
//!
//! - **The books (P2).** Each message with content that is handed over counts as sent; an answer
//!   to it, or an echo asked for after it, shows that the broker has read it and all before it,
//!   since a server handles one connection's commands in order. [`Connection::is_read`] compares.
//! - **The echo.** `SUB {inbox}.e.{nonce}`, `UNSUB` after one, and a `PUB` to that subject. A
//!   server may let us subscribe to our inbox and not publish to it: such a one answers
//!   `$JS.API.CONSUMER.INFO` for our consumer to that subject instead, and an answer, even an
//!   error, is made after what came before the question. Until the first echo has shown which way
//!   works, both are taken.
//! - **The cut (P4).** [`Connection::unsubscribe_all`] empties the table; when an echo asked for
//!   after it arrives, the server shows no subscription of ours. Requests are refused until the
//!   answers' subscription is opened again.
//! - **Strangers.** Whoever sees a message sees its reply subject. Echoes hold a nonce of 128
//!   random bits and answers one of 64, so that nobody can answer for the broker what was not
//!   shown to them.
//!
//! What deliberately is not here: what the messages mean, and connecting again.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use async_nats::{Client, Event, HeaderMap, Message, PublishErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::requests::{Command, Requests};
use super::responder::ServiceSubject;
use super::session::{self, ConnectFault, Connected, End, Session};
use super::settings::Settings;
use pending::{Nonces, Pending, Table};

mod arrivals;
mod pending;

pub(super) use arrivals::{Arrival, serve};
pub(super) use pending::{Answer, Unanswered, Waiter};

/// Orders of other tasks that wait for the owner to turn the connection.
const ORDERS_LEN_MAX: usize = 256;
/// Echoes under way; the oldest above this is forgotten, which its deadline notices.
const ECHOES_LEN_MAX: usize = 64;

/// What a subscription of the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Answers to what was published with a reply subject.
    Answers,
    /// Notices of containment.
    Notices,
    /// What our consumer delivers.
    Pull,
    /// What a short-lived consumer delivers to one reader.
    Reader(u64),
    /// Phase telemetry, one subscription per number.
    Telemetry(usize),
    /// The answer to one question of ours.
    Greeting(u64),
    /// What others ask. Last, so that no flood of it keeps anything above from being read.
    Service(ServiceSubject),
}

/// Why a message was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotSent {
    #[error("not a subject to publish to")]
    BadSubject,
    #[error("the connection is closed")]
    Closed,
    #[error("too many messages wait for the connection")]
    Full,
    #[error("the message is larger than the broker takes")]
    TooLarge,
}

impl From<async_nats::PublishError> for NotSent {
    fn from(error: async_nats::PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::InvalidSubject => Self::BadSubject,
            PublishErrorKind::MaxPayloadExceeded => Self::TooLarge,
            PublishErrorKind::Send => Self::Closed,
        }
    }
}

/// Which way an echo takes, by what the first one has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// A question to the JetStream API.
    Api,
    /// Both ways.
    Both,
    /// A message to ourselves.
    Inbox,
}

/// Who asked for an echo.
#[derive(Debug)]
pub(super) enum Asker {
    /// The books alone.
    Books,
    /// A task that waits.
    Caller(oneshot::Sender<()>),
    /// The owner, by a number of its own.
    Owner(u64),
}

#[derive(Debug)]
struct Echo {
    subject: Subject,
    subscriber: Subscriber,
    /// What was sent before it.
    mark: u64,
    asker: Asker,
}

/// See the module. Dropping it severs the connection without waiting.
#[derive(Debug)]
pub(super) struct Connection {
    session: Session,
    client: Client,
    notices: mpsc::Receiver<Event>,
    lost: oneshot::Receiver<()>,
    is_lost: bool,
    orders: mpsc::Receiver<Command>,
    /// Why it has ended, once it has.
    over: watch::Sender<Option<String>>,
    /// Counts stored messages that were answered.
    progress: watch::Sender<u64>,
    /// Begins every reply subject.
    inbox: String,
    /// Where an echo's question goes.
    question: String,
    nonces: Nonces,
    subscriptions: BTreeMap<Topic, Subscriber>,
    readers: BTreeMap<u64, mpsc::Sender<Message>>,
    pending: Table,
    echoes: VecDeque<Echo>,
    route: Route,
    /// Messages with content that were handed over, and how many of them the broker has read.
    sent: u64,
    read: u64,
    /// Nothing is to be stored any more.
    is_revoked: bool,
    arrivals: VecDeque<Arrival>,
    last_words: Option<String>,
}

impl Connection {
    /// Connects within `nats.connect_timeout`, without any subscription, with a handle for
    /// other tasks. When the last handle is gone the connection ends.
    ///
    /// # Cancel safety
    /// Dropping the future severs what has been begun.
    pub(super) async fn connect(settings: &Settings) -> Result<(Self, Requests), ConnectFault> {
        let nonces = Nonces::new();
        let (session, connected) = Session::connect(settings).await?;
        let Connected { client, notices, lost } = connected;
        let (order_sender, orders) = mpsc::channel(ORDERS_LEN_MAX);
        let (over, over_receiver) = watch::channel(None);
        let (progress, progress_receiver) = watch::channel(0);
        let inbox = client.new_inbox();
        let consumer =
            format!("CONSUMER.INFO.{}.{}", settings.broker.stream_in, settings.consumer());
        let requests = Requests {
            orders: order_sender,
            over: over_receiver,
            progress: progress_receiver,
            end: session.end().clone(),
            inbox: Arc::from(inbox.as_str()),
            settings: Arc::new(settings.clone()),
        };
        let connection = Self {
            session,
            client,
            notices,
            lost,
            is_lost: false,
            orders,
            over,
            progress,
            inbox,
            question: settings.api(&consumer),
            nonces,
            subscriptions: BTreeMap::new(),
            readers: BTreeMap::new(),
            pending: Table::default(),
            echoes: VecDeque::new(),
            route: Route::Both,
            sent: 0,
            read: 0,
            is_revoked: false,
            arrivals: VecDeque::new(),
            last_words: None,
        };
        Ok((connection, requests))
    }

    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Name and version of the server.
    pub(super) fn server(&self) -> String {
        let info = self.client.server_info();
        session::clipped(&format!("{} {}", info.server_name, info.version))
    }

    pub(super) fn end(&self) -> &End {
        self.session.end()
    }

    /// Whether the broker has read all content that was handed over.
    pub(super) fn is_read(&self) -> bool {
        self.read >= self.sent
    }

    /// Publishes of the owner that are unanswered.
    pub(super) fn unanswered(&self) -> usize {
        self.pending.tokens()
    }

    pub(super) fn has(&self, topic: Topic) -> bool {
        self.subscriptions.contains_key(&topic)
    }

    /// A connection that has ended, and is not dropped yet, takes nothing.
    fn is_open(&self) -> Result<(), NotSent> {
        if self.over.borrow().is_some() { Err(NotSent::Closed) } else { Ok(()) }
    }

    /// Everything that is sent goes through here: into async-nats's queue now, or not at all.
    fn hand_over<Sending, Fault>(sending: Sending) -> Result<(), NotSent>
    where
        Sending: Future<Output = Result<(), Fault>>,
        NotSent: From<Fault>,
    {
        // Unconstrained: tokio's turn-taking must not make it look as if there were no room.
        match tokio::task::unconstrained(sending).now_or_never() {
            Some(sent) => Ok(sent?),
            None => Err(NotSent::Full),
        }
    }

    /// Publishes content that is not acknowledged, with an echo for the books.
    pub(super) fn publish(
        &mut self,
        subject: Subject,
        reply: Option<String>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), NotSent> {
        self.is_open()?;
        let client = &self.client;
        match reply {
            Some(reply) => {
                let sending =
                    client.publish_with_reply_and_headers(subject, reply, headers, payload);
                Self::hand_over(sending)?;
            }
            None => Self::hand_over(client.publish_with_headers(subject, headers, payload))?,
        }
        self.sent += 1;
        // One at a time: when it has come, another asks for what was sent meanwhile.
        if self.echoes.iter().any(|echo| matches!(echo.asker, Asker::Books)) {
            return Ok(());
        }
        self.echo(Asker::Books)
    }

    /// Sends what says nothing of ours: an acknowledgement, a request for more.
    pub(super) fn signal(
        &self,
        subject: String,
        reply: Option<String>,
        payload: Bytes,
    ) -> Result<(), NotSent> {
        self.is_open()?;
        match reply {
            Some(reply) => Self::hand_over(self.client.publish_with_reply(subject, reply, payload)),
            None => Self::hand_over(self.client.publish(subject, payload)),
        }
    }

    /// Publishes with a reply subject. The waiter is told what comes back on it; `Err` gives it
    /// back untold. Needs [`Topic::Answers`].
    pub(super) fn request(
        &mut self,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
        waiter: Waiter,
    ) -> Result<(), (NotSent, Waiter)> {
        let Some(nonce) = self.nonces.next() else { return Err((NotSent::Full, waiter)) };
        let (number, reply) = self.pending.next_reply(&self.inbox, nonce);
        let sending =
            self.client.publish_with_reply_and_headers(subject.clone(), reply, headers, payload);
        if let Err(fault) = self.is_open().and_then(|()| Self::hand_over(sending)) {
            return Err((fault, waiter));
        }
        self.sent += 1;
        self.pending.add(number, Pending { subject, nonce, mark: self.sent, waiter });
        Ok(())
    }

    /// Opens a subscription; one of the same topic is replaced.
    pub(super) fn subscribe(&mut self, topic: Topic, subject: String) -> Result<(), NotSent> {
        self.unsubscribe(topic)?;
        let subscriber = self.subscriber(Subject::from(subject))?;
        self.subscriptions.insert(topic, subscriber);
        Ok(())
    }

    /// The same for `count` messages, after which the server ends it.
    pub(super) fn subscribe_for(
        &mut self,
        topic: Topic,
        subject: String,
        count: u64,
    ) -> Result<(), NotSent> {
        self.subscribe(topic, subject)?;
        let subscriber = self.subscriptions.get_mut(&topic).ok_or(NotSent::Closed)?;
        Self::hand_over(subscriber.unsubscribe_after(count))
    }

    /// Opens the subscription that answers arrive on. Twice is once.
    pub(super) fn subscribe_answers(&mut self) -> Result<(), NotSent> {
        if self.has(Topic::Answers) {
            return Ok(());
        }
        self.subscribe(Topic::Answers, format!("{}.a.*", self.inbox))
    }

    fn subscriber(&self, subject: Subject) -> Result<Subscriber, NotSent> {
        self.is_open()?;
        let subscribing = tokio::task::unconstrained(self.client.subscribe(subject));
        match subscribing.now_or_never() {
            Some(Ok(subscriber)) => Ok(subscriber),
            Some(Err(_)) => Err(NotSent::Closed),
            None => Err(NotSent::Full),
        }
    }

    /// Removes a subscription, in order with what was sent before.
    pub(super) fn unsubscribe(&mut self, topic: Topic) -> Result<(), NotSent> {
        match self.subscriptions.get_mut(&topic) {
            Some(subscriber) => Self::hand_over(subscriber.unsubscribe())?,
            None => return Ok(()),
        }
        self.subscriptions.remove(&topic);
        Ok(())
    }

    /// Removes every subscription. Answers that have arrived are still told; whoever waits for a
    /// later one is told that there will be none.
    pub(super) fn unsubscribe_all(&mut self) -> Result<(), NotSent> {
        self.keep_answers();
        while let Some(topic) = self.subscriptions.keys().next().copied() {
            self.unsubscribe(topic)?;
        }
        self.readers.clear();
        self.pending.cut();
        Ok(())
    }

    /// Has these subscriptions for phase telemetry and no others.
    pub(super) fn subscribe_telemetry(&mut self, subjects: Vec<String>) -> Result<(), NotSent> {
        let telemetry = Topic::Telemetry(0)..=Topic::Telemetry(usize::MAX);
        while let Some((topic, _)) = self.subscriptions.range(telemetry.clone()).next() {
            self.unsubscribe(*topic)?;
        }
        for (number, subject) in subjects.into_iter().enumerate() {
            self.subscribe(Topic::Telemetry(number), subject)?;
        }
        Ok(())
    }

    /// Asks for an echo of all that was sent before.
    pub(super) fn echo(&mut self, asker: Asker) -> Result<(), NotSent> {
        let nonce = self.nonce().ok_or(NotSent::Full)?;
        let subject = Subject::from(format!("{}.e.{nonce}", self.inbox));
        let mut subscriber = self.subscriber(subject.clone())?;
        Self::hand_over(subscriber.unsubscribe_after(1))?;
        self.send_to_self(&subject)?;
        if self.echoes.len() >= ECHOES_LEN_MAX {
            self.echoes.pop_front();
        }
        self.echoes.push_back(Echo { subject, subscriber, mark: self.sent, asker });
        Ok(())
    }

    /// Sends a message to the answers' subscription, to see whether it is heard; it bears no token.
    pub(super) fn knock(&self) -> Result<(), NotSent> {
        self.send_to_self(&Subject::from(format!("{}.a.knock", self.inbox)))
    }

    fn send_to_self(&self, subject: &Subject) -> Result<(), NotSent> {
        if self.route != Route::Api {
            self.signal(subject.to_string(), None, Bytes::new())?;
        }
        if self.route != Route::Inbox {
            self.signal(self.question.clone(), Some(subject.to_string()), Bytes::new())?;
        }
        Ok(())
    }

    /// 128 random bits in hex.
    pub(super) fn nonce(&mut self) -> Option<String> {
        let (high, low) = (self.nonces.next()?, self.nonces.next()?);
        Some(format!("{high:016x}{low:016x}"))
    }

    /// Where a pull or a reader is delivered to.
    pub(super) fn new_inbox(&mut self, kind: &str) -> Option<String> {
        let nonce = self.nonces.next()?;
        Some(format!("{}.{kind}.{nonce:016x}", self.inbox))
    }
}

impl From<async_nats::UnsubscribeError> for NotSent {
    fn from(_: async_nats::UnsubscribeError) -> Self {
        Self::Closed
    }
}
