//! What the bridge asks the driver to do.

use std::sync::Arc;

use bytes::Bytes;

use super::notice::Notice;
use super::presence::PresenceEffect;
use crate::protocol::audit::Event;
use crate::protocol::gate::{Band, Reason};
use crate::protocol::outbox::Origin;
use crate::protocol::phase::PhaseFrame;
use crate::protocol::profile::Malformed;
use crate::protocol::seal::Sealed;
use crate::protocol::view::{Barrier, ReportReply, Ticket};

/// Where the gate stands, for an answer that is no [`ReportReply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateState {
    /// Band after what is answered.
    pub band: Band,
    /// Why.
    pub reasons: Vec<Reason>,
    /// How the closing ended that was waited for; `None` where there was none.
    pub barrier: Option<Barrier>,
}

/// What somebody waits for: given at once, or when the broker has spoken, or in the end when the
/// bound on it has passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a report that was judged.
    Report(Box<ReportReply>),
    /// To the newest report once more: the answer to the first, as it stands now.
    Retry(Box<ReportReply>),
    /// To a report that was not.
    Refused {
        /// Where it breaks its profile; `None` for what is not even a document.
        fault: Option<Malformed>,
        /// Where the gate stands now.
        state: GateState,
    },
    /// To an operator's order.
    Order(GateState),
}

impl Answer {
    /// How the closing ended that it waited for.
    pub(super) fn barrier(&self) -> Option<Barrier> {
        match self {
            Self::Report(reply) | Self::Retry(reply) => reply.barrier,
            Self::Refused { state, .. } | Self::Order(state) => state.barrier,
        }
    }

    /// Says that nothing of it has happened.
    pub(super) fn mark_as_check(&mut self) {
        match self {
            Self::Report(reply) | Self::Retry(reply) => (reply.check, reply.barrier) = (true, None),
            Self::Refused { state, .. } | Self::Order(state) => state.barrier = None,
        }
    }

    /// Says how the closing ended that this answer waited for.
    pub(super) fn close(&mut self, barrier: Barrier) {
        let (place, reasons) = match self {
            Self::Report(reply) | Self::Retry(reply) => (&mut reply.barrier, &mut reply.reasons),
            Self::Refused { state, .. } | Self::Order(state) => {
                (&mut state.barrier, &mut state.reasons)
            }
        };
        *place = Some(barrier);
        if barrier == Barrier::Unconfirmed {
            reasons.push(Reason::Unconfirmed);
        }
    }
}

/// What is said of a snapshot that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its signed manifest.
    pub manifest: Bytes,
    /// Its exchange envelope.
    pub envelope: Arc<str>,
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
    /// Publish a transition notice, as [`Bridge::signed`](super::Bridge::signed) gives it.
    Notify(Notice),
    /// A report that the gate let through: show its phase to those who listen here, and publish it
    /// to peers as [`Bridge::signed_frame`](super::Bridge::signed_frame) gives it, if it says so.
    Phase {
        /// Its phase.
        frame: Box<PhaseFrame>,
        /// The number of the report.
        seq: u64,
        /// Whether peers may have it now.
        is_published: bool,
    },
    /// Publish the signed manifest of a snapshot that is stored.
    Announce(Announcement),
    /// Publish our capability manifest under our name, with its token.
    Declare {
        /// Its place among what is sent: `Bridge::confirmed` when the broker has answered it.
        number: u64,
        /// The manifest.
        body: Bytes,
        /// Over its bytes.
        token: String,
    },
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
        /// Whether what is accepted and not yet sent is never to be sent (P5), or waits for the
        /// gate to open.
        revoke: bool,
    },
    /// The uploads' connection did not become quiet in time: drop it with its buffers.
    SeverUploads,
    /// Give somebody the answer that he waits for.
    Answer {
        /// Who.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
    /// Read or write presence.
    Presence(PresenceEffect),
    /// Write to the log and to the audit log.
    Record(Event),
}
