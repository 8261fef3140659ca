//! The driver's side of the snapshots' room: permissions, orders to stop, the digest in packets.
//!
//! What deliberately is not here: any decision, which is the bridge's, and any waiting: an order is
//! a value in a watch channel, and whether it was carried out comes back as a question does.

use crate::snapshots::gate::{DriverEnd, GateOrder, Question};

/// See the module's documentation. Without a room nothing ever asks, and there is nothing to stop.
#[derive(Debug)]
pub(super) struct Uploads(Option<DriverEnd>);

impl Uploads {
    pub(super) fn new(end: Option<DriverEnd>) -> Self {
        Self(end)
    }

    /// The next question. Pending for ever once the room is gone.
    ///
    /// # Cancel safety
    /// Safe: questions stay in their channel.
    pub(super) async fn question(&mut self) -> Question {
        if let Some(end) = &mut self.0
            && let Some(question) = end.questions.recv().await
        {
            return question;
        }
        self.0 = None;
        std::future::pending().await
    }

    /// A question that is there already.
    pub(super) fn try_question(&mut self) -> Option<Question> {
        self.0.as_mut()?.questions.try_recv().ok()
    }

    /// Orders to stop. `false` when nobody is there who could.
    pub(super) fn stop(&self, revoke: bool) -> bool {
        let Some(end) = self.0.as_ref().filter(|end| !end.orders.is_closed()) else { return false };
        end.orders.send_modify(|order| {
            order.number += 1;
            (order.is_open, order.is_shared) = (false, false);
            order.revocations += u64::from(revoke);
        });
        true
    }

    /// The time of every order so far is over.
    pub(super) fn sever(&self) {
        if let Some(end) = &self.0 {
            end.orders.send_modify(|order| order.sever = order.number);
        }
    }

    /// How many orders have revoked.
    pub(super) fn revocations(&self) -> u64 {
        self.0.as_ref().map_or(0, |end| end.orders.borrow().revocations)
    }

    /// Whether the newest order has this number.
    pub(super) fn is_newest(&self, number: u64) -> bool {
        self.0.as_ref().is_some_and(|end| end.orders.borrow().number == number)
    }

    pub(super) fn show(&self, is_open: bool, is_shared: bool, is_isolated: bool) {
        if let Some(end) = &self.0 {
            end.orders.send_if_modified(|order| {
                let next = GateOrder { is_open, is_shared, is_isolated, ..*order };
                let changed = *order != next;
                *order = next;
                changed
            });
        }
    }
}
