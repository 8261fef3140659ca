//! What has to hold in every state.

use driftgate::protocol::gate::Band;

use super::{Item, World};

impl World {
    pub(super) fn demand(&mut self, holds: bool, text: &str) {
        if !holds && self.broken.is_none() {
            self.broken = Some(text.to_owned());
        }
    }

    /// What holds between two events.
    pub(super) fn check(&mut self) {
        let is_cut = !self.has_acks && !self.pulls;
        let is_isolated = self.band == Band::Isolated;
        let rules = [
            (self.bridge.band() == self.band, "P3: another band than the table's"),
            (self.bridge.is_balanced(), "P8: the books do not add up"),
            (self.bridge.is_closing() == self.is_closing, "P2: is_closing is wrong"),
            (!is_isolated || self.is_closing || is_cut, "P4: subscriptions while isolated"),
            (!is_isolated || self.bridge.field_state(self.now).is_none(), "P4: shows peers"),
            (self.exactly_one_unknown(), "P8: the books forget a packet"),
        ];
        for (holds, text) in rules {
            self.demand(holds, text);
        }
        let unread = self.wire.iter().any(|(_, item)| *item != Item::Echo);
        let is_known = !unread || self.bridge.in_doubt(self.now);
        self.demand(is_known, "P2: something is unread and no doubt is kept");
    }

    /// At most the window is in flight and one packet is unsent.
    fn exactly_one_unknown(&self) -> bool {
        self.bridge.ledgers().all(|(_, ledger)| ledger.pending <= 3)
    }
}
