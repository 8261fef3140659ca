//! What an operator orders, and what the audit log is told beside transitions.

use tokio::sync::oneshot;

use super::{Answer, Deferred, Driver, Event, Kept};
use crate::driver::operator::{MEMORY_TIMEOUT, Order};
use crate::protocol::audit::{Act, Remark, Way};
use crate::protocol::canonical::Json;
use crate::protocol::profile::Malformed;
use crate::protocol::time::Now;
use crate::protocol::trace::TraceParent;
use crate::protocol::view::{HoldView, OperatorReply, SafetyView, Transition};

impl Driver {
    pub(super) fn begin(&mut self) {
        let event = Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            band: self.bridge.band(),
            operator_hold: self.holds.any(),
        };
        self.recorder.record(self.clock.now(), event);
    }

    /// What has to survive a restart.
    pub(super) fn kept(&self) -> Kept {
        Kept { memory: self.bridge.memory(), holds: self.holds }
    }

    /// Keeps it, if something in it matters.
    pub(super) fn remember(&mut self) {
        let (bridge, holds, now) = (&self.bridge, self.holds, self.clock.now());
        self.keeper.look(now.mono, || Kept { memory: bridge.memory(), holds });
    }

    /// One report, and the audit lines that only it causes.
    pub(super) fn report(
        &mut self,
        now: Now,
        document: &Json,
        trace: Option<TraceParent>,
    ) -> Result<u64, Malformed> {
        let before = self.bridge.counters().inspection_failed;
        let outcome = self.bridge.report_traced(now, document, trace);
        match &outcome {
            Ok(seq) => {
                let packets = self.bridge.counters().inspection_failed.saturating_sub(before);
                if packets > 0 {
                    let event = Event::InspectionFailed { seq: *seq, packets };
                    self.recorder.record(now, event);
                }
            }
            Err(_) => self.recorder.record(now, Event::ReportRefused { unreadable: false }),
        }
        outcome
    }

    /// Writes a change of band to the log and to the audit log, and tells those who listen.
    pub(super) fn record(&mut self, transition: Transition) {
        let reasons: Vec<&str> = transition.reasons.iter().map(|reason| reason.word()).collect();
        tracing::info!(
            from = transition.from.word(),
            to = transition.to.word(),
            reasons = reasons.join(","),
            cycle = transition.cycle,
            di = transition.di,
            "gate"
        );
        self.feed.send("transition", || &transition);
        self.recorder.record(self.clock.now(), Event::Transition(transition));
    }

    pub(super) fn audit_inbound(&mut self, now: Now) {
        for event in self.receiver.events.drain(..) {
            self.recorder.record(now, event);
        }
    }

    /// Thresholds, band and reasons, and who holds.
    pub(super) fn safety(&self) -> SafetyView {
        let hold = self.holds.any().then(|| {
            let (order, at) = self.isolated.clone().unzip();
            let (by, reason) = order.map_or((None, None), |order| (order.by, order.reason));
            let text = |remark: Option<Remark>| remark.map(|remark| remark.as_str().to_owned());
            HoldView { held_by: self.holds.words(), by: text(by), reason: text(reason), at }
        });
        SafetyView { hold, ..self.bridge.safety() }
    }

    fn closings(&self) -> u64 {
        let counters = self.bridge.counters();
        counters.confirmed.saturating_add(counters.unconfirmed)
    }

    /// Does what an operator orders. The hold takes effect here and now; only the answer waits, for
    /// the silence and for the disk, both at once and both bounded.
    pub(super) fn operate(&mut self, order: Order, answer: Answer<OperatorReply>) {
        let now = self.clock.now();
        let was_held = self.holds.any();
        self.holds.obey(&order);
        let is_held = self.holds.any();
        tracing::warn!(
            act = order.act.word(),
            way = order.way.word(),
            operator_hold = is_held,
            by = order.by.as_ref().map(Remark::as_str),
            reason = order.reason.as_ref().map(Remark::as_str),
            "an operator acts"
        );
        let is_file = |order: &Order| order.way == Way::File;
        self.isolated = match order.act {
            Act::Isolate => Some((order.clone(), now.wall)),
            Act::Release => {
                self.isolated.take().filter(|(earlier, _)| is_file(earlier) != is_file(&order))
            }
        };
        let Order { act, way, by, reason } = order;
        let event = Event::Operator { act, way, by, reason, operator_hold: is_held };
        self.recorder.record(now, event);
        let closings_before = self.closings();
        if act == Act::Isolate || is_held != was_held {
            self.bridge.hold(now, is_held);
        }
        let stored = self.keeper.promise();
        self.remember();
        let (closed, closing) = oneshot::channel();
        // Without a connection a closing ends as it begins; its effect has yet to be performed.
        if self.bridge.is_closing() || self.closings() != closings_before {
            self.after_closing.push(Deferred::Order(closed));
        } else {
            drop(closed);
        }
        let mut reply = OperatorReply {
            band: self.bridge.band(),
            operator_hold: is_held,
            held_by: self.holds.words(),
            barrier: None,
            survives_restart: false,
            audited: false,
        };
        let written = self.recorder.written();
        tokio::spawn(async move {
            let stored = tokio::time::timeout(MEMORY_TIMEOUT, stored);
            let written = tokio::time::timeout(MEMORY_TIMEOUT, written);
            // Without a closing the sender is gone, and so is the wait.
            let (barrier, stored, written) = tokio::join!(closing, stored, written);
            reply.audited = written.unwrap_or(false);
            reply.barrier = barrier.ok();
            reply.survives_restart = matches!(stored, Ok(Ok(true)));
            drop(answer.send(reply));
        });
    }
}
