//! The driver's connection: packets and notices out, acknowledgements and pulled messages in.
//!
//! A link starts without any subscription of ours on the server, never connects again, and leaves
//! nothing behind when it ends (see `session.rs` for the proof and its one limit). Nothing that
//! the driver orders waits, and orders take effect on the connection in their order, which is what
//! the two promises of the gate rest on:
//!
//! - **Barrier (P2).** When [`LinkEvent::Confirmed`] comes, the server has handled everything that
//!   was called before [`Link::confirm`]: packets, notices and announcements alike.
//! - **Isolation (P4).** [`Link::unsubscribe_all`] then [`Link::confirm`]: when that is confirmed
//!   the server shows no subscription of ours, provisioning's included, which runs on this
//!   connection and on no other.
//!
//! *Handled* means routed: handed to subscribers and to the stream. That a packet is stored is
//! what its own [`LinkEvent::Ack`] says.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, Sleep};

use super::ack::{self, PublishFault};
use super::assets::{self, AssetFault, AssetReport};
use super::connection::{Arrival, Asker, Connection, NotSent, Topic, Unanswered, Waiter};
use super::inbound::is_ack_subject;
use super::pull::{Pull, PullOrder, Step};
use super::requests::Requests;
use super::responder::Responder;
use super::session::clipped;
use super::settings::Settings;
use super::subject::AssetName;
use crate::protocol::packet::RuntimeId;

mod questions;

pub use super::event::{LinkEvent, Outgoing, Told};
pub use super::pull::{BATCH_MAX, PullFault};
pub use super::session::ConnectFault;
pub use crate::config::WINDOW_MAX;

/// Runtimes that are subscribed to one by one, so that a broker sends what is wanted; above this
/// everybody's telemetry costs less than so many subscriptions.
const TELEMETRY_SUBSCRIPTIONS_MAX: usize = 64;
/// How long a message of our own may take to the acknowledgement subscription.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Something was not taken; nothing of it will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The link is over; [`LinkEvent::Closed`] says why.
    #[error("the connection is closed")]
    Closed,
    /// Too much waits already: the server reads too slowly.
    #[error("too many messages wait for the connection")]
    Full,
    /// Not a reply subject of a pulled message.
    #[error("not an acknowledgement subject")]
    NotAReply,
}

impl NotTaken {
    /// What the client refuses for its own sake is refused for good and never reaches here.
    fn of(fault: NotSent) -> Self {
        match fault {
            NotSent::Full => Self::Full,
            NotSent::BadSubject | NotSent::Closed | NotSent::TooLarge => Self::Closed,
        }
    }
}

/// One connection. Dropping it severs it without waiting.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    requests: Requests,
    settings: Settings,
    pull: Option<Pull>,
    responder: Responder,
    /// Whose phase telemetry is subscribed to.
    heard: Option<Vec<RuntimeId>>,
    /// When a message of our own to the acknowledgement subscription is overdue.
    deaf_at: Option<Instant>,
    /// The timer of all, which may ring early and never late.
    alarm: Pin<Box<Sleep>>,
    events: VecDeque<LinkEvent>,
    server: String,
}

impl Link {
    /// Connects to the first of `nats.url` that takes us, starting at a random one, within
    /// `nats.connect_timeout`. The new link has no subscription.
    ///
    /// # Cancel safety
    /// Dropping the future severs what has been begun.
    ///
    /// # Errors
    /// [`ConnectFault`]; the driver tries again after
    /// [`backoff`](super::backoff::backoff).
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectFault> {
        let (connection, requests) = Connection::connect(settings).await?;
        Ok(Self {
            server: connection.server(),
            connection,
            requests,
            settings: settings.clone(),
            pull: None,
            responder: Responder::default(),
            heard: None,
            deaf_at: None,
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            events: VecDeque::new(),
        })
    }

    /// Largest headers and payload together that the server takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.connection.max_payload()
    }

    /// Name and version of the server, for logs and `/readyz`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether the broker has read every packet and notice that was handed over, as far as its
    /// acknowledgements and echoes say. What is not read when the link ends may be read later.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.connection.is_read()
    }

    pub(super) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// How many publishes are unanswered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.connection.unanswered()
    }

    /// The next event; [`LinkEvent::Closed`] is the last and comes again and again.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn event(&mut self) -> LinkEvent {
        std::future::poll_fn(|context| {
            loop {
                if let Some(event) = self.events.pop_front() {
                    return std::task::Poll::Ready(event);
                }
                if let std::task::Poll::Ready(arrival) = self.connection.poll_next(context) {
                    self.take(arrival);
                } else if self.is_due(context) {
                    self.wake();
                } else {
                    return std::task::Poll::Pending;
                }
            }
        })
        .await
    }

    /// An event that is there already.
    pub fn try_event(&mut self) -> Option<LinkEvent> {
        self.event().now_or_never()
    }

    /// Makes sure of streams and consumer over this link, whose owner keeps asking it for events.
    /// With `reclaims` also sees to what was under way when an earlier connection ended, which
    /// only makes sense before the pull starts. Needs [`Link::subscribe_acks`].
    ///
    /// # Errors
    /// [`AssetFault`]; [`AssetFault::Revoked`] after the cut.
    pub fn provision(
        &self,
        reclaims: bool,
    ) -> impl Future<Output = Result<AssetReport, AssetFault>> + Send + use<> {
        let requests = self.requests.clone();
        async move { assets::run(&requests, reclaims).await }
    }

    /// Publishes to JetStream; the answer is an [`LinkEvent::Ack`] with `token`. Needs
    /// [`Link::subscribe_acks`] before it. Never waits. The driver bounds how many are unanswered,
    /// by [`WINDOW_MAX`] at most.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing is sent.
    pub fn publish(&mut self, token: u64, message: Outgoing) -> Result<(), NotTaken> {
        let Outgoing { subject, headers, payload } = message;
        let fault = if self.connection.has(Topic::Answers) {
            let sent = self.connection.request(subject, headers, payload, Waiter::Token(token));
            match sent.map_err(|(fault, _)| fault) {
                Ok(()) => return Ok(()),
                Err(fault @ (NotSent::Closed | NotSent::Full)) => return Err(NotTaken::of(fault)),
                Err(NotSent::BadSubject) => PublishFault::Unpublishable,
                Err(NotSent::TooLarge) => PublishFault::TooLarge,
            }
        } else {
            PublishFault::Deaf
        };
        self.events.push_back(LinkEvent::Ack { token, outcome: Err(fault) });
        Ok(())
    }

    /// Publishes without an answer (core NATS), in order with everything else. A message that the
    /// client refuses is a [`LinkEvent::ServerFault`].
    ///
    /// # Errors
    /// [`NotTaken`]: nothing is sent.
    pub fn notify(&mut self, message: Outgoing) -> Result<(), NotTaken> {
        let Outgoing { subject, headers, payload } = message;
        match self.connection.publish(subject, None, headers, payload) {
            Ok(()) => Ok(()),
            Err(fault @ (NotSent::Closed | NotSent::Full)) => Err(NotTaken::of(fault)),
            Err(fault @ (NotSent::BadSubject | NotSent::TooLarge)) => {
                self.events.push_back(LinkEvent::ServerFault(format!("not sent: {fault}")));
                Ok(())
            }
        }
    }

    /// Opens the subscription that acknowledgements arrive on. Twice is once.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn subscribe_acks(&mut self) -> Result<(), NotTaken> {
        self.connection.subscribe_answers().map_err(NotTaken::of)
    }

    /// Ends the link unless a message of our own comes back on the acknowledgement subscription
    /// within 2 s. For a publish that nobody answered: a server that has our subscription wrong
    /// answers pings and echoes, and no publish, for as long as the connection stands.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn listen(&mut self) -> Result<(), NotTaken> {
        // One that is under way will do; without a subscription there is nothing to hear.
        if self.deaf_at.is_some() || !self.connection.has(Topic::Answers) {
            return Ok(());
        }
        self.deaf_at = Some(Instant::now() + LISTEN_TIMEOUT);
        self.connection.knock().map_err(NotTaken::of)
    }

    /// Begins to pull: at most `batch` messages (1 to 256) are asked for at a time, each request
    /// lasting `expires` (1 s to 5 min). How many may be unacknowledged is the consumer's
    /// `max_ack_pending`. A pull that is running is replaced.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn start_pull(
        &mut self,
        stream: &AssetName,
        consumer: &AssetName,
        batch: u16,
        expires: Duration,
    ) -> Result<(), NotTaken> {
        let order = PullOrder::new(stream.clone(), consumer.clone(), batch, expires);
        self.pull_on_a_new_inbox(Pull::new(order)).map_err(NotTaken::of)
    }

    /// Hears the notices of all runtimes, those of our own included. Twice is once.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn hear_notices(&mut self) -> Result<(), NotTaken> {
        if self.connection.has(Topic::Notices) {
            return Ok(());
        }
        let subject = self.settings.broker.prefix.every_containment();
        self.connection.subscribe(Topic::Notices, subject).map_err(NotTaken::of)
    }

    /// Hears the phase telemetry of these runtimes and of no others. Twice is once.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn hear_telemetry(&mut self, sources: Vec<RuntimeId>) -> Result<(), NotTaken> {
        if self.heard.as_ref() == Some(&sources) {
            return Ok(());
        }
        let prefix = &self.settings.broker.prefix;
        let subjects = if sources.len() > TELEMETRY_SUBSCRIPTIONS_MAX {
            vec![prefix.every_telemetry()]
        } else {
            sources.iter().map(|source| prefix.telemetry(source).to_string()).collect()
        };
        self.connection.subscribe_telemetry(subjects).map_err(NotTaken::of)?;
        self.heard = Some(sources);
        Ok(())
    }

    /// Ends pulling and its subscription. Messages that had arrived and were not handed over come
    /// again after the consumer's `ack_wait`.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn stop_pull(&mut self) -> Result<(), NotTaken> {
        self.pull = None;
        self.connection.unsubscribe(Topic::Pull).map_err(NotTaken::of)
    }

    /// Tells the broker that the message of `reply` is done with.
    ///
    /// # Errors
    /// [`NotTaken`]; the message comes again after `ack_wait`.
    pub fn ack(&mut self, reply: &str) -> Result<(), NotTaken> {
        self.answer(reply, Bytes::from_static(b"+ACK"))
    }

    /// Asks for the message of `reply` again, not before `delay`.
    ///
    /// # Errors
    /// [`NotTaken`]; the message comes again after `ack_wait`.
    pub fn nak(&mut self, reply: &str, delay: Duration) -> Result<(), NotTaken> {
        let body = format!("-NAK {{\"delay\": {}}}", delay.as_nanos());
        self.answer(reply, Bytes::from(body))
    }

    /// Asks for another `ack_wait` for the message of `reply`.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn in_progress(&mut self, reply: &str) -> Result<(), NotTaken> {
        self.answer(reply, Bytes::from_static(b"+WPI"))
    }

    /// Removes every subscription: the pull's, the acknowledgements', and what provisioning waits
    /// on. Acknowledgements that had arrived are still handed over; later ones are lost, and
    /// publishing is refused ([`PublishFault::Deaf`]) until [`Link::subscribe_acks`].
    ///
    /// # Errors
    /// [`NotTaken`]: the subscriptions stand. Sever the link instead.
    pub fn unsubscribe_all(&mut self) -> Result<(), NotTaken> {
        self.pull = None;
        self.heard = None;
        self.deaf_at = None;
        self.responder.close();
        // What was asked before the cut is not answered after it.
        self.events
            .retain(|event| !matches!(event, LinkEvent::Asked(_) | LinkEvent::Answered { .. }));
        self.connection.unsubscribe_all().map_err(NotTaken::of)
    }

    /// Asks for [`LinkEvent::Confirmed`] with `id` once the server has handled everything called
    /// before. Ids are the driver's and unique on a link. A broker that cannot confirm is silent:
    /// the deadline is the driver's, and [`Link::sever`] the answer to it.
    ///
    /// # Errors
    /// [`NotTaken`]: there will be no confirmation. Sever the link instead.
    pub fn confirm(&mut self, id: u64) -> Result<(), NotTaken> {
        self.connection.echo(Asker::Owner(id)).map_err(NotTaken::of)
    }

    /// Ends the connection at once. What waits in async-nats and in its write buffer is never
    /// sent. Await the result to know that the socket is closed: well under a millisecond unless
    /// the machine is starved.
    #[must_use = "await it where the next step relies on silence"]
    pub fn sever(&mut self) -> impl Future<Output = ()> + Send + use<> {
        self.connection.end().sever()
    }

    fn answer(&self, reply: &str, body: Bytes) -> Result<(), NotTaken> {
        if !is_ack_subject(reply) {
            return Err(NotTaken::NotAReply);
        }
        self.connection.signal(reply.to_owned(), None, body).map_err(NotTaken::of)
    }

    fn take(&mut self, arrival: Arrival) {
        let event = match arrival {
            Arrival::Answer { token, answer } => {
                self.deaf_at = None;
                let outcome = match answer {
                    Ok(message) => ack::outcome(&message, self.settings.broker.stream_out.as_str()),
                    Err(Unanswered::Denied(words)) => Err(PublishFault::Denied(words)),
                    Err(Unanswered::NotSent(_) | Unanswered::Revoked) => Err(PublishFault::Deaf),
                };
                LinkEvent::Ack { token, outcome }
            }
            Arrival::Asked(service, message) => {
                LinkEvent::Asked(Responder::read(service, &message))
            }
            Arrival::Complaint(words) => LinkEvent::ServerFault(words),
            Arrival::Echoed(id) => LinkEvent::Confirmed(id),
            Arrival::Ended(reason) => LinkEvent::Closed(reason),
            Arrival::Greeted(id, message) => questions::answered(id, &message),
            Arrival::Knocked => {
                self.deaf_at = None;
                return;
            }
            Arrival::LameDuck => LinkEvent::LameDuck,
            Arrival::Notice(message) => LinkEvent::Notice(Told::of(&message)),
            Arrival::Telemetry(message) => LinkEvent::Telemetry(Told::of(&message)),
            Arrival::Pulled(message) => return self.take_pulled(message),
            Arrival::Spent(service) => return self.responder.spent(service),
        };
        self.events.push_back(event);
    }

    fn take_pulled(&mut self, message: Message) {
        if let Some(pull) = &mut self.pull {
            let step = pull.read(message);
            self.follow(step);
        }
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Deliver(inbound) => self.events.push_back(LinkEvent::Inbound(inbound)),
            Step::Fail(fault) => {
                // An error says that the connection is gone, and the subscription with it.
                let _ = self.stop_pull();
                self.events.push_back(LinkEvent::PullFault(fault));
            }
            Step::Foreign(subject) => {
                let text = format!("a foreign message on our inbox: {subject}");
                self.events.push_back(LinkEvent::ServerFault(clipped(&text)));
            }
            Step::Go => {}
            Step::Renew => {
                if let Some(pull) = self.pull.take()
                    && self.pull_on_a_new_inbox(pull.renewed()).is_err()
                {
                    self.events.push_back(LinkEvent::PullFault(PullFault::Silent));
                }
                return;
            }
        }
        self.ask_for_more();
    }

    fn pull_on_a_new_inbox(&mut self, mut pull: Pull) -> Result<(), NotSent> {
        let inbox = self.connection.new_inbox("p").ok_or(NotSent::Full)?;
        self.connection.subscribe(Topic::Pull, inbox.clone())?;
        pull.inbox = inbox;
        self.pull = Some(pull);
        self.ask_for_more();
        Ok(())
    }

    fn ask_for_more(&mut self) {
        let Some(pull) = &mut self.pull else { return };
        if let Some((call, body)) = pull.next_request() {
            let (subject, reply) = (self.settings.api(&call), Some(pull.inbox.clone()));
            if self.connection.signal(subject, reply, body).is_err() {
                pull.pause();
            }
        }
    }

    /// When something is to be done by time alone.
    fn wake_at(&self) -> Option<Instant> {
        let pull = self.pull.as_ref().map(|pull| pull.wake_at);
        [self.deaf_at, pull, self.responder.wake_at()].into_iter().flatten().min()
    }

    fn is_due(&mut self, context: &mut std::task::Context<'_>) -> bool {
        let Some(wake_at) = self.wake_at() else { return false };
        // Signs of life move the time on, mostly; so the timer is set anew when it has rung.
        if self.alarm.deadline() > wake_at || self.alarm.as_mut().poll(context).is_ready() {
            if wake_at <= Instant::now() {
                return true;
            }
            self.alarm.as_mut().reset(wake_at);
            return self.alarm.as_mut().poll(context).is_ready();
        }
        false
    }

    fn wake(&mut self) {
        let now = Instant::now();
        if self.deaf_at.is_some_and(|at| at <= now) {
            let reason = "acknowledgements do not arrive".to_owned();
            self.deaf_at = None;
            drop(self.connection.end().sever());
            self.events.push_back(LinkEvent::Closed(reason));
        } else if let Some(pull) = self.pull.as_mut().filter(|pull| pull.wake_at <= now) {
            let step = pull.woke();
            self.follow(step);
        } else {
            self.open_again(now);
        }
    }
}
