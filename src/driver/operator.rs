//! What an operator can order, and who holds the gate.
//!
//! A route or a signal gives a command; a file holds for as long as it exists. The gate is held
//! while either of them holds it, so that taking one back does not undo the other. What
//! deliberately is not here: what a hold does, which is the gate's.

use std::time::Duration;

use crate::protocol::audit::{Act, Remark, Way};
pub use crate::protocol::memory::Holds;

/// Orders that may wait for the driver, in a queue of their own: an isolate never waits behind
/// reports.
pub const ORDERS_MAX: usize = 16;
/// How long an answer waits for the disk. After it the hold is in force and does not count as kept.
pub const MEMORY_TIMEOUT: Duration = Duration::from_secs(1);

/// One act of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorOrder {
    /// What is to be done.
    pub act: Act,
    /// How it came in.
    pub way: Way,
    /// Who says to do it; for the audit log.
    pub by: Option<Remark>,
    /// Why; for the audit log.
    pub reason: Option<Remark>,
}

impl OperatorOrder {
    /// An order without remarks.
    #[must_use]
    pub fn new(act: Act, way: Way) -> Self {
        Self { act, way, by: None, reason: None }
    }
}

impl Holds {
    pub(super) fn obey(&mut self, order: &OperatorOrder) {
        let hold = order.act == Act::Isolate;
        match order.way {
            Way::File => self.file = hold,
            Way::Http | Way::Presence | Way::Signal => {
                self.command = hold;
                // A lock asks for an operator, and here he is.
                self.lock &= hold;
            }
        }
    }
}
