//! What `/readyz` says, and the silence of a broker that does not answer what is published.

use std::time::Duration;

use super::{
    AssetFault, AssetReport, Band, Condition, Driver, Event, Link, Outcome, PublishFault, Standing,
};
use crate::nats::ack::Stored;
use crate::protocol::seal::Fault;

/// How long something that happened once is shown as weakening a promise.
const SHOWN_FOR: Duration = Duration::from_secs(600);

/// Messages that one pull request asks for.
const PULL_BATCH: u16 = 64;
/// How long one pull request stands at the broker.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

impl Driver {
    /// Not before the first look at the stream, which may find what no client can read.
    pub(super) async fn start_pull(&mut self) {
        if !self.connector.is_prepared() {
            return;
        }
        let settings = self.connector.settings();
        let (stream, consumer) = (settings.broker.stream_in.clone(), settings.consumer());
        self.order(Link::hear_notices).await;
        self.hear_telemetry().await;
        self.order(|link| link.start_pull(&stream, &consumer, PULL_BATCH, PULL_EXPIRES)).await;
    }

    /// Silence may mean that the stream is missing: a server says so only where nobody at all has
    /// subscribed to the subject, and whoever watches the fleet has. Or it means that we have gone
    /// deaf on a connection that is otherwise well.
    pub(super) async fn look_for_answers(&mut self) {
        let unanswered = self.bridge.unanswered();
        if unanswered > self.unanswered_seen && self.bridge.band() != Band::Isolated {
            self.connector.repair();
            self.order(Link::listen).await;
            if !self.conditions.holds(Condition::PublishUnanswered) {
                let since = self.clock.now().wall;
                let text = format!("publishes go unanswered by the broker since {since}");
                self.conditions.begin(Condition::PublishUnanswered, text);
            }
        }
        self.unanswered_seen = unanswered;
        // What nobody waits for any more is no silence: it was revoked or superseded.
        if self.conditions.holds(Condition::PublishUnanswered)
            && self.bridge.ledgers().all(|(_, books)| books.pending == 0)
        {
            self.conditions.end(Condition::PublishUnanswered);
        }
    }

    /// Streams and consumer were looked at: after the first look on a link it begins to pull, and
    /// after a later one it does so anew.
    pub(super) async fn looked(&mut self, first: bool, outcome: Result<AssetReport, AssetFault>) {
        let is_seen = outcome.is_ok();
        match outcome {
            Ok(report) => {
                self.conditions.end(Condition::PullFailed);
                let is_stream = |name: &&String| name.starts_with("stream ");
                let remade: Vec<&str> =
                    report.created.iter().filter(is_stream).map(String::as_str).collect();
                if !first && !remade.is_empty() {
                    let text = format!("made again: {}", remade.join(", "));
                    self.happened(Condition::StreamRemade, text);
                }
                self.found(report);
            }
            Err(AssetFault::Revoked) => return,
            Err(fault) => {
                // To ask again would only be complained about again.
                if !matches!(fault, AssetFault::Denied { .. }) {
                    self.connector.repair();
                }
                self.conditions.begin(Condition::BrokerAssets, fault.to_string());
            }
        }
        if (first || is_seen) && self.bridge.is_pulling() {
            self.start_pull().await;
        }
    }

    /// What the broker said to a packet.
    pub(super) fn answered(&mut self, token: u64, outcome: Result<Stored, PublishFault>) {
        let outcome = match outcome {
            Ok(Stored { stream_seq, duplicate }) => {
                self.connector.worked();
                self.conditions.end(Condition::PublishUnanswered);
                self.conditions.end(Condition::PublishRefused);
                Outcome::Stored { stream_seq, duplicate }
            }
            Err(fault) => {
                if fault == PublishFault::NoResponders {
                    self.connector.repair();
                }
                self.publish_refused(&fault);
                publish_outcome(&fault)
            }
        };
        let now = self.clock.now();
        self.effects.extend(self.bridge.answered(now, token, outcome));
    }

    /// Counts a publish that the broker did not take, and says so while it lasts.
    pub(super) fn publish_refused(&mut self, fault: &PublishFault) {
        let reason = fault.reason();
        *self.publish_refused.entry(reason).or_default() += 1;
        self.conditions.begin(Condition::PublishRefused, format!("{reason}: {fault}"));
    }

    /// Books what a look at streams and consumer has found.
    fn found(&mut self, report: AssetReport) {
        for poisoned in report.reclaimed.poisoned {
            self.receiver.poisoned(poisoned);
        }
        self.audit_inbound(self.clock.now());
        self.connector.bucket_seen(report.presence_expires);
        self.conditions.set(Condition::BrokerAssets, report.differences);
    }

    /// A packet in a peer's name that its key did not make. A name that is no peer's says nothing
    /// about a key.
    pub(super) fn look_at_the_key(&mut self, event: &Event) {
        if let Event::InboundRefused { fault: Fault::Forged, source: Some(source), .. } = event
            && self.bridge.is_peer(source)
        {
            let text = format!("packets in the name of {source} do not verify under its key");
            self.happened(Condition::PeerKey, text);
        }
    }

    /// Something happened that weakens a promise and does not last: it is shown for a while.
    fn happened(&mut self, condition: Condition, text: String) {
        self.conditions.begin(condition, text);
        self.shown_until.insert(condition, self.clock.now().mono + SHOWN_FOR);
    }

    /// Whom the clock has left behind.
    pub(super) fn look_at_floors(&mut self) {
        let now = self.clock.now();
        let text = |(source, left)| {
            let until = now.wall.plus(left);
            format!(
                "packets of {source} are refused as replayed until {until}: the clock was set back"
            )
        };
        let longest = self.bridge.unheard(now).map(|(_, left)| left).max();
        self.conditions.set(Condition::FloorAhead, self.bridge.unheard(now).map(text).collect());
        self.shown_until.extend(longest.map(|left| (Condition::FloorAhead, now.mono + left)));
    }

    fn look_at_the_clock(&mut self) {
        let now = self.clock.now();
        if let Some(jump_ms) = self.watch.jump_ms(now) {
            let text = format!("the wall clock jumped by {jump_ms} ms, to {}", now.wall);
            self.happened(Condition::ClockJumped, text);
            self.look_at_floors();
        }
        let conditions = &self.conditions;
        self.shown_until.retain(|condition, until| {
            let is_shown = now.mono < *until;
            if !is_shown {
                conditions.end(*condition);
            }
            is_shown
        });
    }

    /// Tells `/readyz` what has changed.
    pub(super) fn show(&mut self) {
        self.look_at_the_clock();
        self.show_presence();
        let audit = self.recorder.fault();
        for condition in [Condition::AuditLost, Condition::AuditUnwritable] {
            let text = audit.iter().filter(|(held, _)| *held == condition);
            self.conditions.set(condition, text.map(|(_, text)| text.clone()).collect());
        }
        let next =
            Standing { ready: true, broker: self.connector.state(), band: self.bridge.band() };
        self.standing.send_if_modified(|standing| {
            let changed = *standing != next;
            *standing = next;
            changed
        });
    }
}

/// Which refusals may pass by themselves.
fn publish_outcome(fault: &PublishFault) -> Outcome {
    match fault {
        PublishFault::Busy(_)
        | PublishFault::Deaf
        | PublishFault::Denied(_)
        | PublishFault::Full { .. }
        | PublishFault::Malformed
        | PublishFault::NoResponders => Outcome::Later,
        PublishFault::Refused { code, .. } if *code >= 500 => Outcome::Later,
        PublishFault::Refused { .. }
        | PublishFault::TooLarge
        | PublishFault::Unpublishable
        | PublishFault::WrongStream { .. } => Outcome::Refused,
    }
}
