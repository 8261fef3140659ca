//! What the bridge asks the driver to do.

use crate::protocol::gate::{Band, Reason};
use crate::protocol::outbox::Origin;
use crate::protocol::packet::RuntimeId;
use crate::protocol::seal::Sealed;
use crate::protocol::time::Timestamp;
use crate::protocol::view::{Barrier, ReportReply, Transition};

/// State-free notice of a transition, `{p}.containment.{source}` (DESIGN section 3).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Notice {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Band from here on.
    pub band: Band,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Since when.
    pub since: Timestamp,
    /// Runtime restarts seen.
    pub epoch: u64,
}

/// One thing the driver has to do. Effects of one call are done in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Publish a packet and report its outcome under the token.
    Publish {
        /// Names the attempt in `Bridge::answered`.
        token: u64,
        /// What to publish.
        packet: Sealed,
        /// Where it came from, for the headers.
        origin: Origin,
    },
    /// Publish a transition notice, if connected.
    Notify(Notice),
    /// Remove every subscription of ours.
    Cut,
    /// Have the subscriptions that an open or blocked gate has.
    Subscribe {
        /// Whether inbound packets are pulled; acknowledgements always are.
        pull: bool,
    },
    /// Ask the broker to echo, after everything sent so far.
    Confirm(u64),
    /// Drop the connection together with its buffers, then call `Bridge::disconnected`.
    Sever,
    /// Stop uploading snapshots, make the broker confirm what was sent of one, then call
    /// `Bridge::uploads_quiet`.
    StopUploads {
        /// What is accepted up to this sequence number and not yet sent is never to be sent (P5).
        /// `None`: it waits, for caution holds snapshots back and does not close.
        revoke_to: Option<u64>,
    },
    /// The uploads' connection did not become quiet in time: drop it with its buffers.
    SeverUploads,
    /// A closing has ended: replies that the driver itself kept back for it may go.
    Closed(Barrier),
    /// The reply of a report.
    Answer {
        /// Which report: [`ReportReply::seq`].
        seq: u64,
        /// The reply.
        reply: Box<ReportReply>,
    },
    /// Write a transition to the log and the audit file.
    Record(Transition),
}
