//! How a packet has ended, for those who wait to hear of it.

use crate::protocol::reason::Reason;
use crate::protocol::seal::Step;
use crate::protocol::view::{PacketStatus, ReportReply, Ticket};

/// A packet that was settled, for the reply that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Who waits for the reply to its report.
    pub ticket: Ticket,
    /// Its line in that reply.
    pub line: usize,
    /// How it ended.
    pub status: PacketStatus,
    /// Sequence number on the stream, when stored.
    pub stream_seq: Option<u64>,
}

impl Settled {
    /// Writes it down in its reply; whether there is such a packet.
    pub fn write(&self, reply: &mut ReportReply) -> bool {
        let Some(line) = reply.packets.get_mut(self.line) else { return false };
        line.status = self.status;
        line.stream_seq = self.stream_seq;
        // Only an inspection holds what was under way.
        let reason = Reason::InspectionFailed;
        if self.status == PacketStatus::Held && !reply.reasons.contains(&reason) {
            reply.reasons.push(reason);
        }
        true
    }
}

/// A packet that could not be made when its turn came; it is settled as held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmade {
    /// Who waits for it, and its line in the reply.
    pub line: (Ticket, usize),
    /// Number of its report.
    pub seq: u64,
    /// The step that failed.
    pub step: Step,
}
