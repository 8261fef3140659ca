//! Inbound messages: to the bridge for judgement, then to the inbox and the runtime, or to the
//! quarantine stream with their reason.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::deliver::{Courier, Delivery, Parcel, Settings};
use crate::nats::headers;
use crate::nats::inbound::InboundMessage;
use crate::nats::link::{Link, Outgoing};
use crate::nats::reclaim::Poisoned;
use crate::nats::subject::{Address, Prefix};
use crate::protocol::audit::Event;
use crate::protocol::bridge::Bridge;
use crate::protocol::inbox::Inbound;
use crate::protocol::packet::RuntimeId;
use crate::protocol::seal::{Fault, Refusal};
use crate::protocol::time::Now;

/// Tokens from here up name quarantine publications; the bridge counts its own from 1.
pub(super) const QUARANTINE_TOKENS: u64 = 1 << 63;
/// Refused messages that may wait for the quarantine stream. One more is left unacknowledged on
/// its stream, and comes back.
const QUARANTINE_MAX: usize = 64;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Receiver {
    prefix: Prefix,
    me: RuntimeId,
    courier: Option<(Courier, mpsc::Receiver<Delivery>)>,
    deliver: Option<Settings>,
    /// Refused messages under way to the quarantine stream, by the token of their publication.
    quarantining: BTreeMap<u64, Refused>,
    /// What is to be audited, since the driver last took it.
    pub(super) events: Vec<Event>,
    next_token: u64,
    pub(super) refused: BTreeMap<Fault, u64>,
    pub(super) quarantined: u64,
    pub(super) delivered: u64,
    pub(super) superseded: u64,
    pub(super) declined: u64,
}

/// A refused message.
#[derive(Debug)]
struct Refused {
    /// Its acknowledgement subject.
    reply: String,
    fault: Fault,
    /// Who its subject says sent it.
    source: Option<RuntimeId>,
}

impl Receiver {
    pub(super) fn new(prefix: Prefix, me: RuntimeId, deliver: Option<Settings>) -> Self {
        Self {
            prefix,
            me,
            courier: deliver.clone().map(Courier::start),
            deliver,
            quarantining: BTreeMap::new(),
            events: Vec::new(),
            next_token: QUARANTINE_TOKENS,
            refused: BTreeMap::new(),
            quarantined: 0,
            delivered: 0,
            superseded: 0,
            declined: 0,
        }
    }

    /// Judges one message and does what follows from it.
    pub(super) fn receive(
        &mut self,
        now: Now,
        bridge: &mut Bridge,
        link: &mut Link,
        message: InboundMessage,
    ) {
        let Some(Address::State { source, target }) = self.prefix.parse(&message.subject) else {
            // Only a foreign consumer configuration brings other subjects here.
            let detail = "the subject is not {prefix}.state.{source}.{target}".to_owned();
            self.refuse(link, message, &Refusal { fault: Fault::Misaddressed, detail }, None);
            return;
        };
        let ids = (source.as_str(), target.as_str());
        match bridge.receive(now, ids, &message.payload) {
            // Not now: it stays unacknowledged on the stream.
            None => {}
            // A packet that comes again is perhaps still undelivered; the courier knows.
            Some(
                Inbound::Accepted { source, seq, packet }
                | Inbound::Redelivered { source, seq, packet },
            ) => {
                self.hand_over(link, Parcel { source, seq, bytes: packet, reply: message.reply });
            }
            Some(Inbound::Refused(refusal)) => self.refuse(link, message, &refusal, Some(source)),
        }
    }

    fn hand_over(&mut self, link: &mut Link, parcel: Parcel) {
        match &self.courier {
            None => acknowledge(link, &parcel.reply),
            Some((courier, _)) => {
                if !courier.take(parcel) {
                    self.declined += 1;
                }
            }
        }
    }

    fn refuse(
        &mut self,
        link: &mut Link,
        message: InboundMessage,
        refusal: &Refusal,
        source: Option<RuntimeId>,
    ) {
        let fault = refusal.fault;
        self.events.push(Event::InboundRefused { fault, source: source.clone() });
        *self.refused.entry(refusal.fault).or_default() += 1;
        // The detail may name a field, and a name is a peer's text too: it goes where the bytes go,
        // not into the log (P9).
        tracing::warn!(
            subject = %message.subject,
            stream_seq = message.delivery.stream_seq,
            fault = refusal.fault.word(),
            "inbound packet refused"
        );
        if self.quarantining.len() >= QUARANTINE_MAX {
            return;
        }
        let token = self.next_token;
        let outgoing = Outgoing {
            subject: self.prefix.quarantine(&self.me),
            headers: headers::quarantine(&refusal.to_string()),
            payload: message.payload,
        };
        if link.publish(token, outgoing).is_ok() {
            self.next_token += 1;
            self.quarantining.insert(token, Refused { reply: message.reply, fault, source });
        }
    }

    /// Books a message that could not even be read; the broker does not bring it again.
    pub(super) fn poisoned(&mut self, poisoned: Poisoned) {
        let Poisoned { source, stream_seq, is_kept } = poisoned;
        let fault = Fault::Malformed;
        tracing::warn!(stream_seq, is_kept, "an inbound message that no client can read");
        *self.refused.entry(fault).or_default() += 1;
        self.events.push(Event::InboundRefused { fault, source: source.clone() });
        if is_kept {
            self.quarantined += 1;
            self.events.push(Event::Quarantined { fault, source });
        }
    }

    /// The quarantine stream has spoken: acknowledged there means acknowledged here.
    pub(super) fn quarantine_answered(&mut self, link: &mut Link, token: u64, stored: bool) {
        if let Some(Refused { reply, fault, source }) = self.quarantining.remove(&token)
            && stored
        {
            self.quarantined += 1;
            self.events.push(Event::Quarantined { fault, source });
            acknowledge(link, &reply);
        }
    }

    /// What the courier reports; waits for ever when there is none.
    pub(super) async fn delivery(&mut self) -> Option<Delivery> {
        match &mut self.courier {
            Some((_, outcomes)) => outcomes.recv().await,
            None => std::future::pending().await,
        }
    }

    /// What it has reported already.
    pub(super) fn try_delivery(&mut self) -> Option<Delivery> {
        self.courier.as_mut()?.1.try_recv().ok()
    }

    /// Acknowledges what was delivered or superseded.
    pub(super) fn delivered(&mut self, link: Option<&mut Link>, delivery: Option<Delivery>) {
        let reply = match delivery {
            Some(Delivery::Done { reply }) => {
                self.delivered += 1;
                reply
            }
            Some(Delivery::Superseded { reply }) => {
                self.superseded += 1;
                reply
            }
            None => {
                // The courier was stopped while swamped; a new one starts empty.
                self.courier = self.deliver.clone().map(Courier::start);
                return;
            }
        };
        if let Some(link) = link {
            acknowledge(link, &reply);
        }
    }

    /// Isolated: nothing that came in may still reach the runtime (P4).
    pub(super) fn cut(&mut self) {
        if let Some((courier, _)) = &self.courier {
            courier.clear();
        }
        self.quarantining.clear();
    }

    /// The connection is gone: its acknowledgement subjects are worthless.
    pub(super) fn disconnected(&mut self) {
        self.quarantining.clear();
    }
}

/// An acknowledgement that the link cannot take is not lost: the message comes again after the
/// consumer's `ack_wait` and is then recognised by its sequence number.
fn acknowledge(link: &mut Link, reply: &str) {
    if let Err(fault) = link.ack(reply) {
        tracing::debug!(%fault, "acknowledgement not taken");
    }
}
