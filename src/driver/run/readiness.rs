//! What `/readyz` says, and the silence of a broker that does not answer what is published.

use super::{AssetReport, Band, Condition, Driver, Link, Standing};

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

    /// Books what was found before the connection came up.
    pub(super) fn prepared(&mut self, report: AssetReport) {
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
