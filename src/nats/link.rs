//! One TCP connection's life, as the driver sees it: commands in, events out, nothing waits.
//!
//! A link starts without any subscription of ours on the server, never connects again, and leaves
//! nothing behind when it ends (see `session.rs` for the proof and its one limit). Commands take
//! effect on the connection in the order in which they were called, and that order is what the
//! two promises of the gate rest on:
//!
//! - **Barrier (P2).** [`Link::confirm`] sends `SUB {inbox}.c.{id}`, `UNSUB` after one, and a
//!   `PUB` to that same subject. A server handles one connection's commands in order, so when the
//!   echo arrives, everything called before it has been handled, and the subscription has removed
//!   itself. A server whose permissions let us subscribe to our inbox but not publish to it is
//!   found out by a first such echo while connecting; on such a link each barrier sends
//!   `$JS.API.CONSUMER.INFO` for our consumer instead, with that subject as the reply: an answer,
//!   even an error, is made after what came before the question. A link whose first echo just did
//!   not come sends both, and the first answer counts.
//! - **Isolation (P4).** [`Link::unsubscribe_all`] then [`Link::confirm`]: when the barrier is
//!   confirmed the server shows no subscription of ours.
//!
//! *Handled* means routed: handed to subscribers and to the stream. That a packet is stored is
//! what its own [`LinkEvent::Ack`] says.

use std::time::Duration;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use super::inbound::is_ack_subject;
use super::pull::PullOrder;
use super::pump::{Command, Pump};
use super::session::{Greeting, Session};
use super::settings::Settings;
use super::subject::AssetName;

pub use super::event::{LinkEvent, Outgoing};
pub use super::pull::{BATCH_MAX, PullFault};
pub use super::session::{ConnectFault, Severed};

/// Commands that wait for the link's thread: above the driver's window of 256 publishes, as many
/// acknowledgements of pulled messages, and control messages.
pub const COMMAND_QUEUE_LEN_MAX: usize = 1024;
/// Events that wait for the driver. When full, the link stops reading what the server sent; it
/// drops nothing.
pub const EVENT_QUEUE_LEN_MAX: usize = 1024;

/// A command was not taken; nothing of it will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The link is over; [`LinkEvent::Closed`] says why.
    #[error("the connection is closed")]
    Closed,
    /// [`COMMAND_QUEUE_LEN_MAX`] commands wait already: the server reads too slowly.
    #[error("too many commands wait for the connection")]
    Full,
    /// Not a reply subject of a pulled message.
    #[error("not an acknowledgement subject")]
    NotAReply,
}

/// One connection. Dropping it severs it without waiting.
#[derive(Debug)]
pub struct Link {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<LinkEvent>,
    session: Session,
    max_payload: usize,
    server: String,
}

impl Link {
    /// Connects to the first of `settings.urls` that takes us, starting at a random one, within
    /// `settings.connect_timeout`. The new link has no subscription.
    ///
    /// # Cancel safety
    /// Dropping the future severs what has been begun.
    ///
    /// # Errors
    /// [`ConnectFault`]; the driver tries again after
    /// [`backoff`](super::backoff::backoff).
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectFault> {
        let (commands, command_receiver) = mpsc::channel(COMMAND_QUEUE_LEN_MAX);
        // One place more, which only the last event uses, so that it never waits.
        let (event_sender, events) = mpsc::channel(EVENT_QUEUE_LEN_MAX + 1);
        let last_place = event_sender
            .clone()
            .try_reserve_owned()
            .map_err(|_| ConnectFault::Starved("no event queue".to_owned()))?;
        let (ready_sender, ready) = oneshot::channel();
        let owned = settings.clone();
        let work = move || async move {
            match Pump::connect(owned, command_receiver, event_sender).await {
                Ok(pump) => {
                    // Nobody listens any more: the deadline has severed us.
                    let _ = ready_sender.send(Ok(pump.greeting()));
                    pump.run().await
                }
                Err(fault) => {
                    let text = fault.to_string();
                    let _ = ready_sender.send(Err(fault));
                    text
                }
            }
        };
        let last = move |reason: Option<String>| {
            last_place.send(LinkEvent::Closed(reason.unwrap_or_else(|| "severed".to_owned())));
        };
        let session =
            Session::start(work, last).map_err(|error| ConnectFault::Starved(error.to_string()))?;
        let greeting = tokio::time::timeout(settings.connect_timeout, ready)
            .await
            .map_err(|_| ConnectFault::TimedOut)?
            .map_err(|_| ConnectFault::Starved("the link's thread ended".to_owned()))??;
        let Greeting { max_payload, server } = greeting;
        Ok(Self { commands, events, session, max_payload, server })
    }

    /// The next event; after [`LinkEvent::Closed`] there is no other.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn event(&mut self) -> LinkEvent {
        let event = self.events.recv().await;
        event.unwrap_or_else(|| LinkEvent::Closed("the connection ended".to_owned()))
    }

    /// An event that is there already.
    pub fn try_event(&mut self) -> Option<LinkEvent> {
        self.events.try_recv().ok()
    }

    /// Largest headers and payload together that the server takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Name and version of the server, for logs and `/readyz`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Publishes to JetStream; the answer is an [`LinkEvent::Ack`] with `token`. Needs
    /// [`Link::subscribe_acks`] before it. Never waits. The driver bounds how many are unanswered.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing is sent.
    pub fn publish(&mut self, token: u64, message: Outgoing) -> Result<(), NotTaken> {
        self.order(Command::Publish { token, message })
    }

    /// Publishes without an answer (core NATS), in order with everything else. A message that the
    /// client refuses is a [`LinkEvent::ServerFault`].
    ///
    /// # Errors
    /// [`NotTaken`]: nothing is sent.
    pub fn notify(&mut self, message: Outgoing) -> Result<(), NotTaken> {
        self.order(Command::Notify(message))
    }

    /// Opens the subscription that acknowledgements arrive on. Twice is once.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn subscribe_acks(&mut self) -> Result<(), NotTaken> {
        self.order(Command::SubscribeAcks)
    }

    /// Ends the link unless a message of our own comes back on the acknowledgement subscription
    /// within 2 s. For a publish that nobody answered: a server that has our subscription wrong
    /// answers pings and echoes, and no publish, for as long as the connection stands.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn listen(&mut self) -> Result<(), NotTaken> {
        self.order(Command::Listen)
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
        self.order(Command::StartPull(order))
    }

    /// Ends pulling and its subscription. Messages that had arrived and were not handed over come
    /// again after the consumer's `ack_wait`.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn stop_pull(&mut self) -> Result<(), NotTaken> {
        self.order(Command::StopPull)
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

    /// Removes the pull and the acknowledgement subscriptions. Acknowledgements that had arrived
    /// are still handed over; later ones are lost, and publishing is refused
    /// ([`PublishFault::Deaf`](super::ack::PublishFault::Deaf)) until [`Link::subscribe_acks`].
    ///
    /// # Errors
    /// [`NotTaken`]: the subscriptions stand. Sever the link instead.
    pub fn unsubscribe_all(&mut self) -> Result<(), NotTaken> {
        self.order(Command::UnsubscribeAll)
    }

    /// Asks for [`LinkEvent::Confirmed`] with `id` once the server has handled everything called
    /// before. Ids are the driver's and unique on a link. A broker that cannot confirm is silent:
    /// the deadline is the driver's, and [`Link::sever`] the answer to it.
    ///
    /// # Errors
    /// [`NotTaken`]: there will be no confirmation. Sever the link instead.
    pub fn confirm(&mut self, id: u64) -> Result<(), NotTaken> {
        self.order(Command::Confirm(id))
    }

    /// Ends the connection at once. What waits in the command queue, in async-nats and in its
    /// write buffer is never sent. Await the result to know that the socket is closed.
    pub fn sever(self) -> Severed {
        self.session.sever()
    }

    fn answer(&self, reply: &str, body: Bytes) -> Result<(), NotTaken> {
        if !is_ack_subject(reply) {
            return Err(NotTaken::NotAReply);
        }
        let message =
            Outgoing { subject: Subject::from(reply), headers: HeaderMap::new(), payload: body };
        self.order(Command::Notify(message))
    }

    fn order(&self, command: Command) -> Result<(), NotTaken> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Closed(_) => NotTaken::Closed,
            TrySendError::Full(_) => NotTaken::Full,
        })
    }
}
