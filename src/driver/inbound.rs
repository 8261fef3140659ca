//! Inbound messages: to the bridge for judgement, then to the inbox and the runtime, or to the
//! quarantine stream with their reason.
//!
//! The order of an accepted one is: its number is kept, it is shown and delivered, it is
//! acknowledged. So no crash brings back what was shown.

use std::collections::BTreeMap;
use std::time::Duration;

use super::memory::Keeper;
use super::quarantine::Quarantine;
use crate::config::Deliver;
use crate::deliver::{Counts, Deliveries, Ended};
use crate::nats::inbound::InboundMessage;
use crate::nats::link::Link;
use crate::nats::reclaim::Poisoned;
use crate::nats::subject::{Address, Prefix};
use crate::protocol::audit::Event;
use crate::protocol::bridge::Bridge;
use crate::protocol::exchange::Artifact;
use crate::protocol::inbox::{Arrival, Inbound};
use crate::protocol::packet::RuntimeId;
use crate::protocol::seal::{Fault, Refusal};
use crate::protocol::time::Now;
use crate::telemetry::{Condition, Conditions, Histogram};

/// Between two log lines of one fault: peers decide how many refusals there are, and the lines are
/// the sidecar's.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Upper bounds of the buckets of exchange latency, in seconds: from one broker beside both to a
/// packet that waited on the stream until it was nearly too old.
pub(super) const LATENCY_BUCKETS_S: [f64; 10] =
    [0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Which refusals get a log line: the first of each fault, then one in [`LOG_INTERVAL`].
#[derive(Debug, Default)]
struct Lines(BTreeMap<Fault, (Duration, u64)>);

impl Lines {
    /// How many were left out since the last line, if this one gets a line.
    fn take(&mut self, now: Duration, fault: Fault) -> Option<u64> {
        match self.0.get_mut(&fault) {
            Some((next, left_out)) if now < *next => {
                *left_out += 1;
                None
            }
            known => {
                let left_out = known.map_or(0, |(_, left_out)| *left_out);
                self.0.insert(fault, (now + LOG_INTERVAL, 0));
                Some(left_out)
            }
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Receiver {
    prefix: Prefix,
    deliveries: Option<Deliveries>,
    conditions: Conditions,
    /// What is to be audited, since the driver last took it.
    pub(super) events: Vec<Event>,
    /// What is to be told to those who listen, since then.
    pub(super) accepted: Vec<(RuntimeId, u64)>,
    pub(super) quarantine: Quarantine,
    pub(super) refused: BTreeMap<Fault, u64>,
    /// From the sealing of a packet, by its sender's clock, to its acceptance.
    pub(super) latencies: Histogram,
    lines: Lines,
}

impl Receiver {
    pub(super) fn new(
        prefix: Prefix,
        me: RuntimeId,
        deliver: &Deliver,
        conditions: Conditions,
    ) -> Self {
        Self {
            quarantine: Quarantine::new(prefix.clone(), me, conditions.clone()),
            prefix,
            deliveries: deliver.url.clone().map(|url| Deliveries::new(url, deliver.timeout)),
            conditions,
            events: Vec::new(),
            accepted: Vec::new(),
            refused: BTreeMap::new(),
            latencies: Histogram::new(LATENCY_BUCKETS_S),
            lines: Lines::default(),
        }
    }

    /// Judges one message and does what follows from it.
    pub(super) fn receive(
        &mut self,
        now: Now,
        bridge: &mut Bridge,
        keeper: &mut Keeper,
        link: &mut Link,
        message: InboundMessage,
    ) {
        let Some(Address::State { source, target }) = self.prefix.parse(&message.subject) else {
            // Only a foreign consumer configuration brings other subjects here.
            let detail = "the subject is not {prefix}.state.{source}.{target}".to_owned();
            let refusal = Refusal { fault: Fault::Misaddressed, detail };
            self.refuse(now, link, message, &refusal, None);
            return;
        };
        let arrival = Arrival {
            subject: (source.as_str(), target.as_str()),
            envelope: message.headers.envelope.as_deref(),
            drift_source: message.headers.drift_source.as_deref(),
            bytes: &message.payload,
        };
        match bridge.receive(now, &arrival) {
            // Not now: it stays unacknowledged on the stream.
            None => {}
            Some(Inbound::Accepted { source, seq, sent, admission, trace, is_news }) => {
                keeper.floor(&source, seq);
                self.latencies.observe(now.wall.since(sent).as_secs_f64());
                if is_news {
                    let source = source.clone();
                    let artifact = Artifact::State;
                    self.events.push(Event::InboundAccepted {
                        artifact,
                        source,
                        seq,
                        admission,
                        trace,
                    });
                }
                self.accepted.push((source.clone(), seq));
                self.deliver(link, source, seq, message.reply);
            }
            // What is still to be delivered goes on with the fresher acknowledgement subject; what
            // an earlier life accepted is done with.
            Some(Inbound::Redelivered { source, seq }) => {
                if bridge.peer_state(now, &source).is_some() {
                    self.deliver(link, source, seq, message.reply);
                } else {
                    acknowledge(link, &message.reply);
                }
            }
            Some(Inbound::Refused(refusal)) => {
                self.refuse(now, link, message, &refusal, Some(source));
            }
        }
    }

    fn deliver(&mut self, link: &mut Link, source: RuntimeId, seq: u64, reply: String) {
        let done = match &mut self.deliveries {
            None => Some(reply),
            Some(deliveries) => deliveries.take(source, seq, reply),
        };
        if let Some(reply) = done {
            acknowledge(link, &reply);
        }
    }

    fn refuse(
        &mut self,
        now: Now,
        link: &mut Link,
        message: InboundMessage,
        refusal: &Refusal,
        source: Option<RuntimeId>,
    ) {
        let (artifact, fault) = (Artifact::State, refusal.fault);
        self.events.push(Event::InboundRefused { artifact, fault, source: source.clone() });
        *self.refused.entry(fault).or_default() += 1;
        // The detail may name a field, and a name is a peer's text too: it goes where the bytes go,
        // not into the log (P9).
        if let Some(left_out) = self.lines.take(now.mono, fault) {
            tracing::warn!(
                subject = %message.subject,
                stream_seq = message.delivery.stream_seq,
                fault = fault.word(),
                left_out,
                "inbound packet refused"
            );
        }
        self.quarantine.put(now.mono, link, message, refusal, source);
    }

    /// Books a message that could not even be read; the broker does not bring it again.
    pub(super) fn poisoned(&mut self, poisoned: Poisoned) {
        let Poisoned { source, stream_seq, is_kept } = poisoned;
        let (artifact, fault) = (Artifact::State, Fault::Malformed);
        tracing::warn!(stream_seq, is_kept, "an inbound message that no client can read");
        *self.refused.entry(fault).or_default() += 1;
        self.events.push(Event::InboundRefused { artifact, fault, source: source.clone() });
        if is_kept {
            self.quarantine.kept += 1;
            self.events.push(Event::Quarantined { fault, source });
        } else {
            self.quarantine.lost += 1;
        }
    }

    /// The quarantine stream has spoken: acknowledged there means acknowledged here.
    pub(super) fn quarantine_answered(
        &mut self,
        link: &mut Link,
        token: u64,
        stored: Result<(), String>,
    ) {
        self.events.extend(self.quarantine.answered(link, token, stored));
    }

    /// The end of a turn: starts the deliveries that may start, and gives up on the quarantine's
    /// answers that are overdue.
    pub(super) fn turn(&mut self, now: Now, bridge: &Bridge, link: Option<&mut Link>) {
        let mut done = Vec::new();
        if bridge.may_receive()
            && let Some(deliveries) = &mut self.deliveries
        {
            done = deliveries.start(|source, seq| bridge.deliverable(now, source, seq));
        }
        if let Some(link) = link {
            done.iter().for_each(|reply| acknowledge(link, reply));
            self.quarantine.tick(now.mono, link);
        }
    }

    /// Waits for the end of a delivery; for ever when there is none.
    pub(super) async fn delivery(&mut self) -> Ended {
        match &mut self.deliveries {
            Some(deliveries) => deliveries.ended().await,
            None => std::future::pending().await,
        }
    }

    /// One that has ended already.
    pub(super) fn try_delivery(&mut self) -> Option<Ended> {
        self.deliveries.as_mut()?.try_ended()
    }

    /// Books the end of a delivery, and acknowledges what is done with.
    pub(super) fn delivered(&mut self, link: Option<&mut Link>, ended: Ended) {
        let Some(deliveries) = &mut self.deliveries else { return };
        let Some((reply, outcome)) = deliveries.book(ended) else { return };
        match outcome {
            Ok(()) => self.conditions.end(Condition::DeliveryFailed),
            Err(failure) => self.conditions.begin(Condition::DeliveryFailed, failure.to_string()),
        }
        if let (Some(link), Some(reply)) = (link, reply) {
            acknowledge(link, &reply);
        }
    }

    /// What became of deliveries.
    pub(super) fn deliveries(&self) -> Counts {
        self.deliveries.as_ref().map(Deliveries::counts).unwrap_or_default()
    }

    /// Isolated: nothing that came in may still reach the runtime (P4).
    pub(super) fn cut(&mut self) {
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.cut();
        }
        self.quarantine.clear();
    }

    /// The connection is gone: its acknowledgement subjects are worthless.
    pub(super) fn disconnected(&mut self) {
        self.quarantine.clear();
    }
}

/// An acknowledgement that the link cannot take is not lost: the message comes again after the
/// consumer's `ack_wait` and is then recognised by its sequence number.
pub(super) fn acknowledge(link: &mut Link, reply: &str) {
    if let Err(fault) = link.ack(reply) {
        tracing::debug!(%fault, "acknowledgement not taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_one_line_of_each_fault_in_ten_seconds() {
        let mut lines = Lines::default();
        let at = Duration::from_millis;
        assert_eq!(lines.take(at(0), Fault::Forged), Some(0));
        let taken = (1..10_000).filter_map(|ms| lines.take(at(ms), Fault::Forged));
        assert_eq!(taken.count(), 0);
        assert_eq!(lines.take(at(5), Fault::Expired), Some(0), "another fault is news");
        assert_eq!(lines.take(at(10_000), Fault::Forged), Some(9_999));
    }
}
