//! What the gate let through of one report, until the turn of its packets comes.

use std::sync::Arc;

use crate::protocol::drift::Provenance;
use crate::protocol::judge::Clearance;
use crate::protocol::seal::EncodedPayload;
use crate::protocol::time::Timestamp;
use crate::protocol::trace::TraceParent;

/// What all packets of one report have in common. It was inspected when the report was judged; a
/// packet is made of it when its turn comes, so one that is superseded before costs nothing.
#[derive(Debug)]
pub struct Cleared {
    /// Number of the report, which its packets carry.
    pub seq: u64,
    /// When it was judged: what its packets say of their time.
    pub at: Timestamp,
    /// That the gate let it through, and under which mark.
    pub clearance: Clearance,
    /// Its payload with the link to the newest snapshot, where there is one that somebody may have.
    pub full: Option<EncodedPayload>,
    /// Its payload without, where somebody may have no more or there is none.
    pub minimal: Option<EncodedPayload>,
    /// Where its drift metrics came from.
    pub provenance: Provenance,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

impl Cleared {
    /// The payload for a peer that may have the link to the newest snapshot, or may not.
    #[must_use]
    pub fn payload(&self, full: bool) -> Option<&EncodedPayload> {
        self.full.as_ref().filter(|_| full).or(self.minimal.as_ref())
    }

    /// Whether it would be let through under this block mark, too.
    #[must_use]
    pub fn is_under(&self, block: f64) -> bool {
        [&self.full, &self.minimal].into_iter().flatten().all(|payload| payload.is_under(block))
    }
}

/// What a packet's headers say beside the packet: where it came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where its drift metrics came from.
    pub provenance: Provenance,
    /// The trace that its report belongs to.
    pub trace: Option<TraceParent>,
    /// Its exchange envelope.
    pub envelope: Arc<String>,
}
