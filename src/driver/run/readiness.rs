//! What `/readyz` says, and the silence of a broker that does not answer what is published.

use super::{AssetFault, AssetReport, Band, Condition, Driver, Link, PublishFault, Standing};

impl Driver {
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
        self.conditions.set(Condition::BrokerAssets, report.differences);
    }

    /// Tells `/readyz` what has changed.
    pub(super) fn show(&self) {
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
