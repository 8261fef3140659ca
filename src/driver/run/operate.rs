//! What an operator orders, and what the audit log is told beside transitions.

use tokio::sync::oneshot;

use super::{Condition, Driver, Event, Waiter};
use crate::driver::operator::{MEMORY_TIMEOUT, OperatorOrder};
use crate::protocol::audit::{Act, Remark, Way};
use crate::protocol::bridge::Live;
use crate::protocol::time::Now;
use crate::protocol::view::{HoldView, OperatorReply, SafetyView, Transition};

impl Driver {
    pub(super) fn begin(&mut self) {
        let event = Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            band: self.bridge.band(),
            operator_hold: self.holds.any(),
        };
        self.recorder.record(self.clock.now(), event);
        self.look_at_floors();
    }

    /// Lets the memory be synced, if it is time.
    pub(super) fn remember(&mut self) {
        let (bridge, now) = (&self.bridge, self.clock.now());
        let is_read = self.connector.link().is_none_or(|link| link.is_read());
        self.keeper.look(now.mono, || bridge.in_doubt(now) || !is_read);
    }

    /// A lock that an index has begun outlives this process, as an operator's hold does.
    pub(super) fn keep_lock(&mut self) {
        if self.bridge.is_held() && !self.holds.any() {
            self.holds.lock = true;
            drop(self.keeper.hold(self.holds));
        }
    }

    /// Writes a change of band to the log, and tells those who listen.
    pub(super) fn show_transition(&self, transition: &Transition) {
        let reasons: Vec<&str> = transition.reasons.iter().map(|reason| reason.word()).collect();
        tracing::info!(
            from = transition.from.word(),
            to = transition.to.word(),
            reasons = reasons.join(","),
            cycle = transition.cycle,
            di = transition.di,
            "gate"
        );
        self.feed.enter(transition.to);
        self.feed.send("transition", || transition);
    }

    pub(super) fn audit_inbound(&mut self, now: Now) {
        self.show_inbound();
        for event in std::mem::take(&mut self.receiver.events) {
            self.look_at_the_key(&event);
            self.recorder.record(now, event);
        }
    }

    /// Thresholds, band and reasons, and who holds.
    pub(super) fn safety(&self, now: Now) -> SafetyView {
        let hold = self.holds.any().then(|| {
            let (order, at) = self.isolated.clone().unzip();
            let (by, reason) = order.map_or((None, None), |order| (order.by, order.reason));
            let text = |remark: Option<Remark>| remark.map(|remark| remark.as_str().to_owned());
            HoldView { held_by: self.holds.words(), by: text(by), reason: text(reason), at }
        });
        SafetyView { hold, ..self.bridge.safety(now) }
    }

    /// Takes over what an operator may change while it runs, on what stands too.
    pub(super) async fn reload(&mut self, live: Live, answer: oneshot::Sender<()>) {
        let now = self.clock.now();
        self.effects.extend(self.bridge.reload(now, live));
        self.ask_again();
        if self.bridge.is_pulling() {
            self.hear_telemetry().await;
        }
        self.recorder.record(now, Event::Reloaded);
        self.manifests.look_soon();
        tracing::info!("configuration reloaded");
        // Whoever asked may have gone.
        let _ = answer.send(());
    }

    /// Does what an operator orders. The hold takes effect here and now; only the answer waits, for
    /// the silence and for the disk, both at once and both bounded.
    pub(in crate::driver) fn operate(
        &mut self,
        order: OperatorOrder,
        answer: oneshot::Sender<OperatorReply>,
    ) {
        let now = self.clock.now();
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
        let is_file = |order: &OperatorOrder| order.way == Way::File;
        self.isolated = match order.act {
            Act::Isolate => Some((order.clone(), now.wall)),
            Act::Release => {
                if !is_held {
                    // What could not be read has been looked at.
                    self.conditions.end(Condition::MemoryDamaged);
                }
                self.isolated.take().filter(|(earlier, _)| is_file(earlier) != is_file(&order))
            }
        };
        let OperatorOrder { act, way, by, reason } = order;
        let event = Event::Operator { act, way, by, reason, operator_hold: is_held };
        self.recorder.record(now, event);
        let (closed, closing) = oneshot::channel();
        let ticket = self.wait(Waiter::Order(closed));
        self.effects.extend(self.bridge.hold(now, ticket, is_held));
        let stored = self.keeper.hold(self.holds);
        self.remember();
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
            let (barrier, stored, written) = tokio::join!(closing, stored, written);
            reply.audited = written.unwrap_or(false);
            reply.barrier = barrier.ok().and_then(|state| state.barrier);
            reply.survives_restart = matches!(stored, Ok(Ok(true)));
            drop(answer.send(reply));
        });
    }
}
