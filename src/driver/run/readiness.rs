//! What `/readyz` says, and the silence of a broker that does not answer what is published.

use super::{AssetReport, Band, Driver, Link, Readiness};
use crate::protocol::time::Timestamp;

/// Publishes without an answer, as long as none is answered again.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Attempts without an answer that have had their look at streams and connection.
    seen: u64,
    /// When the first of them was given up on.
    since: Option<Timestamp>,
}

impl Silence {
    /// Something was stored.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    fn words(&self) -> Option<String> {
        let since = self.since?;
        Some(format!("publishes go unanswered by the broker since {since}"))
    }
}

impl Driver {
    /// Silence may mean that the stream is missing: a server says so only where nobody at all has
    /// subscribed to the subject, and whoever watches the fleet has. Or it means that we have gone
    /// deaf on a connection that is otherwise well.
    pub(super) async fn look_for_answers(&mut self) {
        let unanswered = self.bridge.unanswered();
        if unanswered > self.silence.seen && self.bridge.band() != Band::Isolated {
            self.connector.repair();
            self.order(Link::listen).await;
            self.silence.since = self.silence.since.or_else(|| Some(self.clock.now().wall));
        }
        self.silence.seen = unanswered;
        // What nobody waits for any more is no silence: it was revoked or superseded.
        if self.silence.since.is_some()
            && self.bridge.ledgers().all(|(_, books)| books.pending == 0)
        {
            self.silence.end();
        }
    }

    /// Books what was found before the connection came up; returns what weakens a promise.
    pub(super) fn prepared(&mut self, report: AssetReport) -> Vec<String> {
        for poisoned in report.reclaimed.poisoned {
            self.receiver.poisoned(poisoned);
        }
        let now = self.clock.now();
        self.audit_inbound(now);
        report.differences
    }

    /// Tells `/readyz` what has changed.
    pub(super) fn publish_readiness(&self) {
        let mut degraded = self.configured_degraded.clone();
        degraded.extend(self.broker_faults.iter().cloned());
        degraded.extend(self.silence.words());
        degraded.extend(self.keeper.fault().map(str::to_owned));
        degraded.extend(self.recorder.fault());
        let next = Readiness {
            ready: true,
            broker: self.connector.state(),
            band: self.bridge.band(),
            degraded,
        };
        self.readiness.send_if_modified(|readiness| {
            let changed = *readiness != next;
            if changed {
                *readiness = next;
            }
            changed
        });
    }
}
