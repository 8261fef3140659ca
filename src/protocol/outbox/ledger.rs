//! The books of one target: how every report that was to go to it has ended.

use super::PacketStatus;

/// Every (report, target) pair that reached a lane, by how it ended. At any moment
/// `reports = stored + superseded + held + throttled + revoked + failed + shadow + pending` (P8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Reports that were to go to this target.
    pub reports: u64,
    /// Acknowledged by the stream.
    pub stored: u64,
    /// Overtaken by a newer report before they were sent or acknowledged.
    pub superseded: u64,
    /// Held by the gate.
    pub held: u64,
    /// Thinned out in caution.
    pub throttled: u64,
    /// Revoked by a closing gate before they were sent.
    pub revoked: u64,
    /// Refused by the broker for good, or sent with an outcome that never became known.
    pub failed: u64,
    /// Only observed: this sidecar exports nothing.
    pub shadow: u64,
    /// Unsent or unacknowledged.
    pub pending: u64,
}

impl Ledger {
    /// Whether the books add up.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let sent = self.stored + self.superseded + self.revoked + self.failed + self.pending;
        self.reports == sent + self.held + self.throttled + self.shadow
    }

    /// Both books in one.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            reports: self.reports + other.reports,
            stored: self.stored + other.stored,
            superseded: self.superseded + other.superseded,
            held: self.held + other.held,
            throttled: self.throttled + other.throttled,
            revoked: self.revoked + other.revoked,
            failed: self.failed + other.failed,
            shadow: self.shadow + other.shadow,
            pending: self.pending + other.pending,
        }
    }

    pub(super) fn settle(&mut self, status: PacketStatus) {
        let column = match status {
            PacketStatus::Stored => &mut self.stored,
            PacketStatus::Pending => return,
            PacketStatus::Throttled => &mut self.throttled,
            PacketStatus::Held => &mut self.held,
            PacketStatus::Superseded => &mut self.superseded,
            PacketStatus::Revoked => &mut self.revoked,
            PacketStatus::Failed => &mut self.failed,
            PacketStatus::Shadow => &mut self.shadow,
        };
        *column += 1;
    }
}
