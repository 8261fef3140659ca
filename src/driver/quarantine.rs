//! Refused inbound messages on their way to the quarantine stream.
//!
//! A message is acknowledged when the stream has its copy. A stream that is missing, full or denied
//! costs the copy and never the inbox: after a bounded wait the message is acknowledged all the
//! same, counted, and said. While the stream takes nothing, one message at a time finds out whether
//! it does again, and the others do not wait.

use std::collections::BTreeMap;
use std::time::Duration;

use super::inbound::acknowledge;
use crate::nats::headers;
use crate::nats::inbound::InboundMessage;
use crate::nats::link::{Link, Outgoing};
use crate::nats::subject::Prefix;
use crate::protocol::audit::Event;
use crate::protocol::packet::RuntimeId;
use crate::protocol::seal::{Fault, Refusal};
use crate::telemetry::{Condition, Conditions};

/// Tokens from here up name quarantine publications; the bridge counts its own from 1.
pub(super) const QUARANTINE_TOKENS: u64 = 1 << 63;
/// Messages that may wait for the stream: as many as the consumer leaves unacknowledged.
const WAITING_MAX: usize = 256;
/// How long one waits.
const QUARANTINE_TIMEOUT: Duration = Duration::from_secs(2);

/// A refused message.
#[derive(Debug)]
struct Refused {
    /// Its acknowledgement subject.
    reply: String,
    fault: Fault,
    /// Who its subject says sent it.
    source: Option<RuntimeId>,
    until: Duration,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Quarantine {
    prefix: Prefix,
    me: RuntimeId,
    /// By the token of the publication, and so in the order of their deadlines.
    waiting: BTreeMap<u64, Refused>,
    next_token: u64,
    conditions: Conditions,
    /// Copies that are on the stream.
    pub(super) kept: u64,
    /// Copies that are not.
    pub(super) lost: u64,
}

impl Quarantine {
    pub(super) fn new(prefix: Prefix, me: RuntimeId, conditions: Conditions) -> Self {
        Self {
            prefix,
            me,
            waiting: BTreeMap::new(),
            next_token: QUARANTINE_TOKENS,
            conditions,
            kept: 0,
            lost: 0,
        }
    }

    /// Sends a refused message there.
    pub(super) fn put(
        &mut self,
        now: Duration,
        link: &mut Link,
        message: InboundMessage,
        refusal: &Refusal,
        source: Option<RuntimeId>,
    ) {
        let is_closed = self.conditions.holds(Condition::QuarantineRefused);
        if (is_closed && !self.waiting.is_empty()) || self.waiting.len() >= WAITING_MAX {
            self.lost += 1;
            acknowledge(link, &message.reply);
            return;
        }
        let token = self.next_token;
        let headers = headers::quarantine(
            &refusal.to_string(),
            &message.subject,
            message.delivery.stream_seq,
        );
        let subject = self.prefix.quarantine(&self.me);
        // A link that is full or over keeps the message on its stream: it comes again.
        if link.publish(token, Outgoing { subject, headers, payload: message.payload }).is_ok() {
            self.next_token += 1;
            let until = now + QUARANTINE_TIMEOUT;
            let (reply, fault) = (message.reply, refusal.fault);
            self.waiting.insert(token, Refused { reply, fault, source, until });
        }
    }

    /// The stream has spoken. What is kept there is to be audited.
    pub(super) fn answered(
        &mut self,
        link: &mut Link,
        token: u64,
        stored: Result<(), String>,
    ) -> Option<Event> {
        let Refused { reply, fault, source, .. } = self.waiting.remove(&token)?;
        acknowledge(link, &reply);
        match stored {
            Ok(()) => {
                self.kept += 1;
                self.conditions.end(Condition::QuarantineRefused);
                Some(Event::Quarantined { fault, source })
            }
            Err(words) => {
                self.lost += 1;
                self.conditions.begin(Condition::QuarantineRefused, words);
                None
            }
        }
    }

    /// Gives up on answers that are overdue.
    pub(super) fn tick(&mut self, now: Duration, link: &mut Link) {
        while let Some(first) = self.waiting.first_entry().filter(|first| first.get().until <= now)
        {
            let token = *first.key();
            let seconds = QUARANTINE_TIMEOUT.as_secs();
            self.answered(link, token, Err(format!("no answer within {seconds} s")));
        }
    }

    /// When [`Self::tick`] wants to be called.
    pub(super) fn deadline(&self) -> Duration {
        self.waiting.first_key_value().map_or(Duration::MAX, |(_, refused)| refused.until)
    }

    /// The connection or its acknowledgement subscription is gone: what waited comes again.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}
