//! What comes in on a connection, and the orders of other tasks, in turn.

use std::future::poll_fn;
use std::task::{Context, Poll};

use async_nats::{Event, Message, ServerError};
use futures_util::{FutureExt, StreamExt};

use super::pending::{Answer, Pending, Unanswered, Waiter};
use super::{Asker, Connection, Echo, Route, Topic};
use crate::nats::requests::Command;
use crate::nats::responder::ServiceSubject;
use crate::nats::session::clipped;

/// How the server begins to say that we may not publish somewhere; the subject follows in quotes.
const DENIED: &str = "Permissions Violation for Publish to \"";

/// What has happened on a connection, for its owner.
#[derive(Debug)]
pub(in crate::nats) enum Arrival {
    /// The answer to a publish of the owner's.
    Answer { token: u64, answer: Answer },
    /// The server complained, in its words; the connection goes on.
    Complaint(String),
    /// Something came in by a subscription for questions.
    Asked(ServiceSubject, Message),
    /// The echo of that number has come.
    Echoed(u64),
    /// The connection is over, and why. It stays so.
    Ended(String),
    /// Something of ours came back on the answers' subscription.
    Knocked,
    /// The answer to a question of ours.
    Greeted(u64, Message),
    /// The server is about to shut down.
    LameDuck,
    /// A message on the notices' subscription.
    Notice(Message),
    /// A message on the pull's subscription.
    Pulled(Message),
    /// A subscription for questions has taken as many messages as it was opened for.
    Spent(ServiceSubject),
    /// A message on one of telemetry's subscriptions.
    Telemetry(Message),
}

/// Turns a connection for those who have its handle, until it ends.
pub(in crate::nats) async fn serve(mut connection: Connection) -> String {
    loop {
        if let Arrival::Ended(reason) = connection.next().await {
            return reason;
        }
    }
}

impl Connection {
    /// The next thing that happens.
    ///
    /// # Cancel safety
    /// Safe.
    pub(in crate::nats) async fn next(&mut self) -> Arrival {
        poll_fn(|context| self.poll_next(context)).await
    }

    pub(in crate::nats) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        loop {
            if let Some(arrival) = self.arrivals.pop_front() {
                return Poll::Ready(arrival);
            }
            let ended = self.over.borrow().clone();
            if let Some(reason) = ended {
                return Poll::Ready(Arrival::Ended(reason));
            }
            if !self.poll_once(context) {
                return Poll::Pending;
            }
        }
    }

    /// Takes one thing; `false` when there is none.
    fn poll_once(&mut self, context: &mut Context<'_>) -> bool {
        // Answers that arrived in time are outcomes that nobody needs to guess at, so the end of
        // the connection is looked at before them and believed after them.
        self.is_lost = self.is_lost || self.lost.poll_unpin(context).is_ready();
        let arrived =
            self.subscriptions.iter_mut().find_map(|(topic, subscriber)| {
                match subscriber.poll_next_unpin(context) {
                    Poll::Ready(message) => Some((*topic, message)),
                    Poll::Pending => None,
                }
            });
        match arrived {
            Some((topic, Some(message))) => {
                self.take(topic, message);
                return true;
            }
            Some((Topic::Greeting(id), None)) => {
                self.subscriptions.remove(&Topic::Greeting(id));
                return true;
            }
            Some((Topic::Service(service), None)) => {
                self.subscriptions.remove(&Topic::Service(service));
                self.arrivals.push_back(Arrival::Spent(service));
                return true;
            }
            Some((
                Topic::Answers
                | Topic::Notices
                | Topic::Pull
                | Topic::Reader(_)
                | Topic::Telemetry(_),
                None,
            )) => return self.finish("the connection was lost"),
            None => {}
        }
        let came = self.echoes.iter_mut().position(|echo| {
            matches!(echo.subscriber.poll_next_unpin(context), Poll::Ready(Some(message))
                if is_own(echo, &message) && note_route(&mut self.route, &message))
        });
        if let Some(echo) = came.and_then(|index| self.echoes.remove(index)) {
            self.take_echo(echo);
            return true;
        }
        if let Poll::Ready(notice) = self.notices.poll_recv(context) {
            return match notice {
                Some(notice) => self.take_notice(notice),
                None => self.finish("the connection was lost"),
            };
        }
        if self.is_lost {
            return self.finish("the connection was lost");
        }
        match self.orders.poll_recv(context) {
            Poll::Ready(Some(order)) => {
                self.obey(order);
                true
            }
            Poll::Ready(None) => self.finish("nobody uses the connection"),
            Poll::Pending => false,
        }
    }

    /// The connection is over; the first reason counts.
    fn finish(&mut self, reason: &str) -> bool {
        let reason = match &self.last_words {
            _ if self.session.end().is_severed() => "severed".to_owned(),
            Some(words) => format!("{reason}: {words}"),
            None => reason.to_owned(),
        };
        self.over.send_replace(Some(reason));
        drop(self.session.end().sever());
        // Whoever waits finds the reason there.
        self.pending = super::Table::default();
        self.readers.clear();
        self.echoes.clear();
        true
    }

    fn take(&mut self, topic: Topic, message: Message) {
        match topic {
            Topic::Answers => self.take_answer(message),
            Topic::Notices => self.arrivals.push_back(Arrival::Notice(message)),
            Topic::Telemetry(_) => self.arrivals.push_back(Arrival::Telemetry(message)),
            Topic::Pull => self.arrivals.push_back(Arrival::Pulled(message)),
            Topic::Greeting(id) => {
                // In words, and not by the count that it was opened for: what the server says when
                // nobody is there counts with async-nats and not with the server.
                let _ = self.unsubscribe(topic);
                self.arrivals.push_back(Arrival::Greeted(id, message));
            }
            Topic::Service(service) => self.arrivals.push_back(Arrival::Asked(service, message)),
            Topic::Reader(id) => {
                let is_taken =
                    self.readers.get(&id).is_some_and(|reader| reader.try_send(message).is_ok());
                // Otherwise somebody else writes to it, or it has been given up on.
                if !is_taken {
                    self.end_reader(id);
                }
            }
        }
    }

    fn take_answer(&mut self, message: Message) {
        let token = message.subject.rsplit('.').next().unwrap_or_default();
        if token == "knock" {
            self.arrivals.push_back(Arrival::Knocked);
        } else if let Some(pending) = self.pending.take(token) {
            self.settle(pending, Ok(message));
        }
    }

    /// Tells whoever waits. Any answer shows that the broker has read the question.
    fn settle(&mut self, pending: Pending, answer: Answer) {
        self.read = self.read.max(pending.mark);
        match pending.waiter {
            Waiter::Token(token) => self.arrivals.push_back(Arrival::Answer { token, answer }),
            Waiter::Caller(caller, place) => {
                // The caller first, so that whoever waits for the place finds the answer there.
                // Nobody listens where the caller has given up.
                let _ = caller.send(answer);
                if place.is_some() {
                    self.progress.send_modify(|count| *count += 1);
                }
            }
        }
    }

    /// Takes in every answer that has arrived: their subscription is about to go.
    pub(super) fn keep_answers(&mut self) {
        while let Some(Some(message)) = self
            .subscriptions
            .get_mut(&Topic::Answers)
            .and_then(|answers| answers.next().now_or_never())
        {
            self.take_answer(message);
        }
    }

    fn take_echo(&mut self, echo: Echo) {
        self.read = self.read.max(echo.mark);
        match echo.asker {
            Asker::Books if self.is_read() => {}
            // Without room the books stay open, which the end of the connection tells.
            Asker::Books => drop(self.echo(Asker::Books)),
            Asker::Caller(caller) => drop(caller.send(())),
            Asker::Owner(id) => self.arrivals.push_back(Arrival::Echoed(id)),
        }
    }

    fn take_notice(&mut self, notice: Event) -> bool {
        match notice {
            Event::LameDuckMode => self.arrivals.push_back(Arrival::LameDuck),
            Event::ServerError(error) => self.take_complaint(&error),
            // async-nats has dropped a message. Nothing is dropped silently here, so that is an
            // end.
            Event::SlowConsumer(_) => {
                return self.finish("messages arrived faster than they could be kept");
            }
            // The loss of the connection has a signal of its own that cannot be lost.
            Event::ClientError(_)
            | Event::Closed
            | Event::Connected
            | Event::Disconnected
            | Event::Draining => {}
        }
        true
    }

    fn take_complaint(&mut self, error: &ServerError) {
        let words = clipped(&error.to_string());
        let denied = words.split_once(DENIED).and_then(|(_, rest)| rest.split('"').next());
        if let Some(subject) = denied {
            // An echo tries both ways until it is known that one of them is forbidden.
            if subject.starts_with(&self.inbox) {
                self.route = Route::Api;
                return;
            }
            for pending in self.pending.take_subject(subject) {
                self.settle(pending, Err(Unanswered::Denied(words.clone())));
            }
        }
        self.last_words = Some(words.clone());
        self.arrivals.push_back(Arrival::Complaint(words));
    }

    fn end_reader(&mut self, id: u64) {
        self.readers.remove(&id);
        // Without room the connection is stalled and about to be severed.
        let _ = self.unsubscribe(Topic::Reader(id));
    }

    /// Does what another task asks for. What cannot be done is told by dropping the answer.
    fn obey(&mut self, order: Command) {
        match order {
            // Whoever has given up is not asked for any more.
            Command::Request { waiter: Waiter::Caller(caller, None), .. } if caller.is_closed() => {
            }
            Command::Request { subject, headers, payload, waiter } => {
                let fault = match &waiter {
                    Waiter::Caller(_, Some(_)) if self.is_revoked => Some(Unanswered::Revoked),
                    _ if !self.has(Topic::Answers) => Some(Unanswered::Revoked),
                    Waiter::Caller(..) | Waiter::Token(_) => None,
                };
                let unsent = match fault {
                    Some(fault) => Some((fault, waiter)),
                    None => self
                        .request(subject, headers, payload, waiter)
                        .err()
                        .map(|(fault, waiter)| (Unanswered::NotSent(fault), waiter)),
                };
                if let Some((fault, Waiter::Caller(caller, _))) = unsent {
                    // Nobody listens where the caller has given up.
                    let _ = caller.send(Err(fault));
                }
            }
            Command::Tell { subject, reply, payload } => {
                if self.has(Topic::Answers) {
                    // What is told has no answer, so nobody learns that it found no room.
                    let _ = self.signal(subject, reply, payload);
                }
            }
            Command::Read { id, inbox, messages } => {
                if self.has(Topic::Answers) && self.subscribe(Topic::Reader(id), inbox).is_ok() {
                    self.readers.insert(id, messages);
                }
            }
            Command::EndRead(id) => self.end_reader(id),
            Command::Revoke(done) => {
                self.is_revoked = true;
                let _ = self.echo(Asker::Caller(done));
            }
            Command::Leave(done) => {
                if self.unsubscribe_all().is_ok() {
                    let _ = self.echo(Asker::Caller(done));
                }
            }
        }
    }
}

/// Another echo's message on our subscription (a byte changed on the way) says nothing.
fn is_own(echo: &Echo, message: &Message) -> bool {
    message.subject == echo.subject
}

/// What came first shows which way works: a message to ourselves is handled in order, and so comes
/// before the answer to a question, and is empty.
fn note_route(route: &mut Route, message: &Message) -> bool {
    if *route == Route::Both {
        *route = if message.payload.is_empty() { Route::Inbox } else { Route::Api };
    }
    true
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.over.borrow().is_none() {
            self.finish("the connection was given up");
        }
    }
}
