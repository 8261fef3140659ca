//! Pulling from one durable consumer: what to ask for, and what the broker's statuses mean.
//!
//! A plain subscription and `CONSUMER.MSG.NEXT` requests, so that the subscription ends in order
//! with everything else on the connection. A message is read only when the driver takes events:
//! what has been asked for and not taken waits in the subscription, which is larger than two
//! requests, and no more is asked for meanwhile.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::Instant;

use super::inbound::InboundMessage;
use super::session::clipped;
use super::subject::AssetName;

/// Most messages of one request: the consumer's `max_ack_pending`, beyond which the broker would
/// hold back anyway.
pub const BATCH_MAX: u16 = 256;
/// Shortest and longest life of a request: below, it is polling; above, servers refuse.
const EXPIRES_MIN: Duration = Duration::from_secs(1);
const EXPIRES_MAX: Duration = Duration::from_secs(300);
/// Longest time between heartbeats of a request with nothing to deliver.
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);
/// Requests in a row that may go without a sign of life before it is a fault: with a heartbeat of
/// 10 s a consumer that vanished without a word is missed after some 40 s.
const SILENCES_MAX: u8 = 1;
/// Pause before asking again after the broker said that now is a bad time.
const PAUSE: Duration = Duration::from_millis(500);

/// Why pulling stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullFault {
    /// Nobody answers for the consumer: it or its stream is missing or without a leader.
    #[error("no consumer answers")]
    Absent,
    /// The consumer was deleted under us.
    #[error("the consumer was deleted")]
    Deleted,
    /// The broker refuses this way of asking, in its words.
    #[error("the broker refuses to be pulled from: {0}")]
    Refused(String),
    /// No heartbeat on several requests in a row, though the connection stands.
    #[error("the consumer has fallen silent")]
    Silent,
}

/// What to pull.
#[derive(Clone, Debug)]
pub(super) struct PullOrder {
    stream: AssetName,
    consumer: AssetName,
    batch: u16,
    expires: Duration,
}

impl PullOrder {
    pub(super) fn new(
        stream: AssetName,
        consumer: AssetName,
        batch: u16,
        expires: Duration,
    ) -> Self {
        let expires = expires.clamp(EXPIRES_MIN, EXPIRES_MAX);
        Self { stream, consumer, batch: batch.clamp(1, BATCH_MAX), expires }
    }

    /// At most half of `expires`, as the server demands.
    fn heartbeat(&self) -> Duration {
        (self.expires / 3).min(HEARTBEAT_MAX)
    }
}

/// A running pull: what was asked for and when to ask again. Its subscription is the link's.
#[derive(Debug)]
pub(super) struct Pull {
    order: PullOrder,
    /// Where the consumer delivers to.
    pub(super) inbox: String,
    /// Messages asked for and neither delivered nor given up by the broker.
    requested: u16,
    silences: u8,
    /// When the silence becomes suspicious, or when a pause ends.
    pub(super) wake_at: Instant,
    is_paused: bool,
}

/// What the link has to do about a message.
#[derive(Debug)]
pub(super) enum Step {
    /// Hand it over.
    Deliver(InboundMessage),
    /// Stop the pull.
    Fail(PullFault),
    /// Somebody else's message on our inbox.
    Foreign(Subject),
    /// Nothing but asking for more, if it is time.
    Go,
    /// Subscribe anew: the old subscription seems dead.
    Renew,
}

impl Pull {
    pub(super) fn new(order: PullOrder) -> Self {
        Self {
            order,
            inbox: String::new(),
            requested: 0,
            silences: 0,
            wake_at: Instant::now(),
            is_paused: false,
        }
    }

    /// The same pull for a new subscription.
    pub(super) fn renewed(self) -> Self {
        Self { silences: self.silences, ..Self::new(self.order) }
    }

    /// The API call for more and its body, when half of what was asked for is used up.
    pub(super) fn next_request(&mut self) -> Option<(String, Bytes)> {
        if self.is_paused || self.requested > self.order.batch / 2 {
            return None;
        }
        let PullOrder { stream, consumer, batch, expires } = &self.order;
        let body = format!(
            r#"{{"batch":{},"expires":{},"idle_heartbeat":{}}}"#,
            batch - self.requested,
            expires.as_nanos(),
            self.order.heartbeat().as_nanos()
        );
        let call = format!("CONSUMER.MSG.NEXT.{stream}.{consumer}");
        self.requested = *batch;
        self.heard();
        Some((call, Bytes::from(body)))
    }

    /// Asks again a little later.
    pub(super) fn pause(&mut self) {
        self.requested = 0;
        self.is_paused = true;
        self.wake_at = Instant::now() + PAUSE;
    }

    /// Understands a message or status.
    pub(super) fn read(&mut self, message: Message) -> Step {
        self.heard();
        self.silences = 0;
        let Some(status) = message.status.filter(|_| message.reply.is_none()) else {
            let subject = message.subject.clone();
            let PullOrder { stream, consumer, .. } = &self.order;
            return match InboundMessage::of(message, stream, consumer) {
                Some(inbound) => {
                    self.requested = self.requested.saturating_sub(1);
                    Step::Deliver(inbound)
                }
                None => Step::Foreign(subject),
            };
        };
        let words = message.description.as_deref().unwrap_or_default();
        match status.as_u16() {
            100 => Step::Go,
            404 | 408 => self.given_up(&message),
            409 => self.conflict(words, &message),
            503 if status == StatusCode::NO_RESPONDERS => Step::Fail(PullFault::Absent),
            _ => Step::Fail(PullFault::Refused(clipped(&format!("{status} {words}")))),
        }
    }

    /// Understands the timer.
    pub(super) fn woke(&mut self) -> Step {
        if std::mem::take(&mut self.is_paused) {
            return Step::Go;
        }
        self.silences += 1;
        if self.silences > SILENCES_MAX { Step::Fail(PullFault::Silent) } else { Step::Renew }
    }

    fn conflict(&mut self, words: &str, message: &Message) -> Step {
        let words_lower = words.to_ascii_lowercase();
        let says = |part: &str| words_lower.contains(part);
        if says("consumer deleted") {
            Step::Fail(PullFault::Deleted)
        } else if says("exceeded maxwaiting") || says("leadership change") || says("shutdown") {
            self.pause();
            Step::Go
        } else if says("push based") || says("exceeded maxrequest") {
            Step::Fail(PullFault::Refused(clipped(words)))
        } else {
            // "Batch Completed" and the like: that request is over.
            self.given_up(message)
        }
    }

    /// A request ended; the broker says how many of its messages will not come.
    fn given_up(&mut self, message: &Message) -> Step {
        let pending = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Pending-Messages"))
            .and_then(|value| value.as_str().parse::<u16>().ok());
        self.requested = pending.map_or(0, |pending| self.requested.saturating_sub(pending));
        Step::Go
    }

    fn heard(&mut self) {
        self.wake_at = Instant::now() + self.order.heartbeat() * 2 + PAUSE;
    }
}
