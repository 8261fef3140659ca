//! The loop inside a link's thread: commands to async-nats, and what arrives to the driver.
//!
//! Commands go out in the order in which they came, many per wake. What arrives is read only while
//! the driver has room for it; commands are obeyed also while it has none, so a closing gate is
//! never held up by unread events. Waiting for async-nats (a server that reads too slowly) is the
//! one place where the loop stands still, and both the loss of the connection and
//! [`Link::sever`](super::link::Link::sever) end it there.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_nats::{Client, Event, Message, PublishErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::ack::{self, PublishFault};
use super::event::{LinkEvent, Outgoing};
use super::pull::{Pull, PullOrder, Sign, Step};
use super::session::{self, ConnectFault, Connected, Greeting, clipped};
use super::settings::Settings;

/// Commands taken per wake: enough to fill one write, few enough to read answers in between.
const COMMANDS_PER_WAKE: usize = 64;
/// Events of our own making that wait while the driver has no room. Above it no command is obeyed
/// until the driver reads.
const BACKLOG_LEN_MAX: usize = 256;
/// Barriers under way. The driver has one or two; the oldest above this is forgotten.
const BARRIERS_LEN_MAX: usize = 64;
/// How long the first echo may take before barriers get their second way.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a message of our own may take to the acknowledgement subscription.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Last token of its subject: no token of the driver's.
const LISTEN_TOKEN: &str = "listen";
/// How often the loop gives way to async-nats's event task when the connection is lost, so that
/// the server's last words are part of the reason.
const LAST_WORDS_TURNS: usize = 3;

/// What the driver may order, one variant per method of [`Link`](super::link::Link).
#[derive(Debug)]
pub(super) enum Command {
    Confirm(u64),
    Listen,
    Notify(Outgoing),
    Publish { token: u64, message: Outgoing },
    StartPull(PullOrder),
    StopPull,
    SubscribeAcks,
    UnsubscribeAll,
}

/// Why the loop ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Ended {
    #[error("acknowledgements do not arrive")]
    Deaf,
    #[error("the driver let go of the link")]
    Dropped,
    #[error("the connection was lost")]
    Lost,
    #[error("messages arrived faster than they could be kept")]
    Overrun,
}

/// What a barrier sends, by what the server let the first echo do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// A question to the JetStream API: our own inbox is forbidden to us.
    Api,
    /// Both: the first echo did not come, and nothing said why.
    Both,
    /// A message to ourselves.
    Echo,
}

#[derive(Debug)]
struct Barrier {
    id: u64,
    echo: Subscriber,
}

/// Everything of one link that lives on its thread.
#[derive(Debug)]
pub(super) struct Pump {
    settings: Settings,
    client: Client,
    notices: mpsc::Receiver<Event>,
    lost: Arc<Notify>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<LinkEvent>,
    /// Begins every reply subject of this link; unguessable.
    inbox: String,
    acks: Option<Subscriber>,
    /// When a message of our own to the acknowledgement subscription is overdue.
    deaf_at: Option<Instant>,
    pull: Option<Pull>,
    pulls_started: u64,
    barriers: VecDeque<Barrier>,
    route: Route,
    backlog: VecDeque<LinkEvent>,
    last_words: Option<String>,
}

impl Pump {
    /// Connects, and learns which way barriers take.
    pub(super) async fn connect(
        settings: Settings,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<LinkEvent>,
    ) -> Result<Self, ConnectFault> {
        let Connected { client, notices, lost } = session::connect(&settings).await?;
        let mut pump = Self {
            inbox: client.new_inbox(),
            settings,
            client,
            notices,
            lost,
            commands,
            events,
            acks: None,
            deaf_at: None,
            pull: None,
            pulls_started: 0,
            barriers: VecDeque::new(),
            route: Route::Echo,
            backlog: VecDeque::new(),
            last_words: None,
        };
        pump.route = pump
            .probe_echo()
            .await
            .map_err(|ended| ConnectFault::Unreachable(ended.to_string()))?;
        Ok(pump)
    }

    pub(super) fn greeting(&self) -> Greeting {
        Greeting::of(&self.client)
    }

    /// Turns until the connection is lost or the driver lets go, and says why in words.
    pub(super) async fn run(mut self) -> String {
        let lost = Arc::clone(&self.lost);
        let ended = tokio::select! {
            biased;
            () = lost.notified() => Ended::Lost,
            ended = self.turn() => match ended {
                Ok(never) => match never {},
                Err(ended) => ended,
            },
        };
        for _ in 0..LAST_WORDS_TURNS {
            tokio::task::yield_now().await;
        }
        while let Ok(notice) = self.notices.try_recv() {
            if let Event::ServerError(error) = notice {
                self.last_words = Some(clipped(&error.to_string()));
            }
        }
        // Answers that arrived in time are outcomes that nobody needs to guess at.
        self.take_acks(None);
        self.empty_backlog();
        match (ended, self.last_words) {
            (Ended::Lost, Some(words)) => format!("{ended}: {words}"),
            (Ended::Deaf | Ended::Dropped | Ended::Lost | Ended::Overrun, _) => ended.to_string(),
        }
    }

    async fn turn(&mut self) -> Result<Infallible, Ended> {
        let mut batch = Vec::with_capacity(COMMANDS_PER_WAKE);
        loop {
            self.empty_backlog();
            // Nobody else sends events, so room that is seen here is still there below.
            let has_room = self.backlog.is_empty() && self.events.capacity() > 0;
            tokio::select! {
                taken = self.commands.recv_many(&mut batch, COMMANDS_PER_WAKE),
                    if self.backlog.len() < BACKLOG_LEN_MAX =>
                {
                    if taken == 0 {
                        return Err(Ended::Dropped);
                    }
                    for command in batch.drain(..) {
                        self.obey(command).await?;
                    }
                }
                message = next_of(&mut self.acks), if has_room => {
                    self.take_acks(Some(message.ok_or(Ended::Lost)?));
                }
                sign = next_sign(&mut self.pull), if has_room => self.take_sign(sign).await?,
                index = next_echo(&mut self.barriers), if has_room => {
                    if let Some(barrier) = self.barriers.remove(index) {
                        self.tell(LinkEvent::Confirmed(barrier.id));
                    }
                }
                notice = self.notices.recv(), if has_room => {
                    self.take_notice(notice.ok_or(Ended::Lost)?)?;
                }
                () = overdue(self.deaf_at), if has_room => return Err(Ended::Deaf),
                is_open = room(&self.events), if !has_room => {
                    if !is_open {
                        return Err(Ended::Dropped);
                    }
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), Ended> {
        match command {
            Command::Confirm(id) => {
                let subject = format!("{}.c.{id}", self.inbox);
                let echo = self.send_echo(&subject, self.route).await?;
                if self.barriers.len() >= BARRIERS_LEN_MAX {
                    self.barriers.pop_front();
                }
                self.barriers.push_back(Barrier { id, echo });
            }
            // One that is under way will do; without a subscription there is nothing to hear.
            Command::Listen if self.acks.is_none() || self.deaf_at.is_some() => {}
            Command::Listen => {
                let subject = Subject::from(format!("{}.a.{LISTEN_TOKEN}", self.inbox));
                self.deaf_at = Some(Instant::now() + LISTEN_TIMEOUT);
                self.send_to_self(subject, self.route).await?;
            }
            Command::Notify(message) => self.notify(message).await?,
            Command::Publish { token, message } => self.publish(token, message).await?,
            Command::StartPull(order) => {
                self.stop_pull().await;
                let inbox = self.next_pull_inbox();
                let mut pull =
                    Pull::start(&self.client, inbox, order).await.map_err(|_| Ended::Lost)?;
                pull.ask(&self.client).await.map_err(|_| Ended::Lost)?;
                self.pull = Some(pull);
            }
            Command::StopPull => self.stop_pull().await,
            Command::SubscribeAcks if self.acks.is_some() => {}
            Command::SubscribeAcks => {
                let subject = format!("{}.a.*", self.inbox);
                self.acks = Some(self.client.subscribe(subject).await.map_err(|_| Ended::Lost)?);
            }
            Command::UnsubscribeAll => {
                self.stop_pull().await;
                self.keep_acks();
                self.deaf_at = None;
                if let Some(mut acks) = self.acks.take() {
                    acks.unsubscribe().await.map_err(|_| Ended::Lost)?;
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self, token: u64, message: Outgoing) -> Result<(), Ended> {
        let fault = if self.acks.is_none() {
            PublishFault::Deaf
        } else {
            let reply = format!("{}.a.{token}", self.inbox);
            let Outgoing { subject, headers, payload } = message;
            let sent =
                self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
            match sent.map_err(|error| error.kind()) {
                Ok(()) => return Ok(()),
                Err(PublishErrorKind::MaxPayloadExceeded) => PublishFault::TooLarge,
                Err(PublishErrorKind::InvalidSubject) => PublishFault::Unpublishable,
                Err(PublishErrorKind::Send) => return Err(Ended::Lost),
            }
        };
        self.tell(LinkEvent::Ack { token, outcome: Err(fault) });
        Ok(())
    }

    async fn notify(&mut self, message: Outgoing) -> Result<(), Ended> {
        let Outgoing { subject, headers, payload } = message;
        let sent = self.client.publish_with_headers(subject, headers, payload).await;
        match sent.map_err(|error| (error.kind(), error)) {
            Ok(()) => {}
            Err((PublishErrorKind::Send, _)) => return Err(Ended::Lost),
            Err((
                PublishErrorKind::InvalidSubject | PublishErrorKind::MaxPayloadExceeded,
                error,
            )) => {
                self.tell(LinkEvent::ServerFault(clipped(&format!("not sent: {error}"))));
            }
        }
        Ok(())
    }

    /// Subscribes to `subject` for one message and has one sent there.
    async fn send_echo(&self, subject: &str, route: Route) -> Result<Subscriber, Ended> {
        let subject = Subject::from(subject);
        let mut echo = self.client.subscribe(subject.clone()).await.map_err(|_| Ended::Lost)?;
        echo.unsubscribe_after(1).await.map_err(|_| Ended::Lost)?;
        self.send_to_self(subject, route).await?;
        Ok(echo)
    }

    /// Has one message or two sent to a subject of our inbox.
    async fn send_to_self(&self, subject: Subject, route: Route) -> Result<(), Ended> {
        if route != Route::Api {
            let sent = self.client.publish(subject.clone(), Bytes::new()).await;
            sent.map_err(|_| Ended::Lost)?;
        }
        if route != Route::Echo {
            let (stream, consumer) = (&self.settings.stream_in, self.settings.consumer());
            let api = format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}");
            let sent = self.client.publish_with_reply(api, subject, Bytes::new()).await;
            sent.map_err(|_| Ended::Lost)?;
        }
        Ok(())
    }

    /// Learns whether a message to our own inbox comes back.
    async fn probe_echo(&mut self) -> Result<Route, Ended> {
        let subject = format!("{}.probe", self.inbox);
        let mut echo = self.send_echo(&subject, Route::Echo).await?;
        let is_refused = async {
            while let Some(notice) = self.notices.recv().await {
                if matches!(notice, Event::ServerError(_)) {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.lost.notified() => Err(Ended::Lost),
            message = echo.next() => message.map(|_| Route::Echo).ok_or(Ended::Lost),
            () = is_refused => Ok(Route::Api),
            () = tokio::time::sleep(PROBE_TIMEOUT) => Ok(Route::Both),
        }
    }

    async fn take_sign(&mut self, sign: Sign) -> Result<(), Ended> {
        let Some(pull) = &mut self.pull else { return Ok(()) };
        let step = match sign {
            Sign::Message(message) => pull.read(message.ok_or(Ended::Lost)?),
            Sign::Woke => pull.woke(),
        };
        match step {
            Step::Deliver(inbound) => self.tell(LinkEvent::Inbound(inbound)),
            Step::Fail(fault) => {
                self.stop_pull().await;
                self.tell(LinkEvent::PullFault(fault));
            }
            Step::Foreign(subject) => {
                let text = format!("a foreign message on our inbox: {subject}");
                self.tell(LinkEvent::ServerFault(clipped(&text)));
            }
            Step::Go => {}
            Step::Renew => {
                let inbox = self.next_pull_inbox();
                if let Some(pull) = self.pull.take() {
                    let renewed = pull.renewed(&self.client, inbox).await;
                    self.pull = Some(renewed.map_err(|_| Ended::Lost)?);
                }
            }
        }
        match &mut self.pull {
            Some(pull) => pull.ask(&self.client).await.map_err(|_| Ended::Lost),
            None => Ok(()),
        }
    }

    fn take_notice(&mut self, notice: Event) -> Result<(), Ended> {
        match notice {
            Event::LameDuckMode => self.tell(LinkEvent::LameDuck),
            Event::ServerError(error) => {
                let words = clipped(&error.to_string());
                self.last_words = Some(words.clone());
                self.tell(LinkEvent::ServerFault(words));
            }
            // async-nats has dropped a message. Nothing is dropped silently here, so that is an
            // end.
            Event::SlowConsumer(_) => return Err(Ended::Overrun),
            // The loss of the connection has a signal of its own that cannot be lost.
            Event::ClientError(_)
            | Event::Closed
            | Event::Connected
            | Event::Disconnected
            | Event::Draining => {}
        }
        Ok(())
    }

    /// Reports `first` and every acknowledgement behind it, as far as there is room.
    fn take_acks(&mut self, first: Option<Message>) {
        let mut message = first;
        loop {
            if let Some(event) = message.and_then(|message| self.ack_event(&message)) {
                self.tell(event);
            }
            let has_room = self.backlog.is_empty() && self.events.capacity() > 0;
            match self
                .acks
                .as_mut()
                .filter(|_| has_room)
                .and_then(|acks| acks.next().now_or_never())
            {
                Some(Some(next)) => message = Some(next),
                Some(None) | None => return,
            }
        }
    }

    /// Moves every acknowledgement that has arrived to the backlog: the subscription is about to
    /// be dropped. They are at most as many as the driver's window.
    fn keep_acks(&mut self) {
        while let Some(Some(message)) =
            self.acks.as_mut().and_then(|acks| acks.next().now_or_never())
        {
            if let Some(event) = self.ack_event(&message) {
                self.backlog.push_back(event);
            }
        }
        self.empty_backlog();
    }

    /// `None` for what bears no token of ours.
    fn ack_event(&mut self, message: &Message) -> Option<LinkEvent> {
        // Whatever arrives here shows that we are not deaf.
        self.deaf_at = None;
        let place = message.subject.strip_prefix(self.inbox.as_str())?;
        let token = place.strip_prefix(".a.")?.parse().ok()?;
        let outcome = ack::outcome(message, self.settings.stream_out.as_str());
        Some(LinkEvent::Ack { token, outcome })
    }

    async fn stop_pull(&mut self) {
        if let Some(mut pull) = self.pull.take() {
            pull.stop().await;
        }
    }

    fn next_pull_inbox(&mut self) -> String {
        self.pulls_started += 1;
        format!("{}.p.{}", self.inbox, self.pulls_started)
    }

    /// Hands an event over, or keeps it until there is room.
    fn tell(&mut self, event: LinkEvent) {
        self.backlog.push_back(event);
        self.empty_backlog();
    }

    fn empty_backlog(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(refused) = self.events.try_send(event) {
                self.backlog.push_front(refused.into_inner());
                return;
            }
        }
    }
}

/// Waits until the driver has read; `false` when it never will again.
async fn room(events: &mpsc::Sender<LinkEvent>) -> bool {
    events.reserve().await.is_ok()
}

/// Done at that time; never without one.
async fn overdue(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

async fn next_of(subscriber: &mut Option<Subscriber>) -> Option<Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => pending().await,
    }
}

async fn next_sign(pull: &mut Option<Pull>) -> Sign {
    match pull {
        Some(pull) => pull.next().await,
        None => pending().await,
    }
}

/// Place of a barrier whose echo has come.
async fn next_echo(barriers: &mut VecDeque<Barrier>) -> usize {
    poll_fn(|context| {
        for (index, Barrier { id, echo }) in barriers.iter_mut().enumerate() {
            // Another barrier's echo on our subscription (a byte changed on the way) says nothing.
            if let Poll::Ready(Some(message)) = echo.poll_next_unpin(context)
                && message.subject.rsplit('.').next() == Some(id.to_string().as_str())
            {
                return Poll::Ready(index);
            }
        }
        Poll::Pending
    })
    .await
}
