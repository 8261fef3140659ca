//! What the bridge is started with: the operator's choices, and what survived the last run.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::gate::Mode;
use crate::protocol::inbox::{InboundLimits, Peer};
use crate::protocol::judge::Policy;
use crate::protocol::packet::{AttractorType, RuntimeId};
use crate::protocol::presence::{Instance, Life};
use crate::protocol::profile::Profile;
use crate::protocol::seal::Keyring;

/// What a bridge is for its whole life: a change of it takes a restart.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Whether anything is exported.
    pub mode: Mode,
    /// What its reports look like.
    pub profile: Profile,
    /// Attractor type where a report names none.
    pub attractor_type: Option<AttractorType>,
    /// How long a reply waits for acknowledgements.
    pub reply_timeout: Duration,
    /// How long one attempt waits for its acknowledgement.
    pub ack_timeout: Duration,
    /// Unacknowledged packets at a time.
    pub window: usize,
    /// Who is shown to be present, if that is shown.
    pub life: Option<Life>,
}

/// What may change while a bridge runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// Who may be reached and heard.
    pub peers: BTreeMap<RuntimeId, Peer>,
    /// Keys to sign and verify with.
    pub keyring: Keyring,
    /// Marks, provenance, dwell.
    pub policy: Policy,
    /// One report in this many per target in caution. At least 1.
    pub caution_every: u32,
    /// Strict reading of SRIP-05 section 9: caution publishes nothing.
    pub caution_blocks: bool,
    /// Leave inbound packets on the stream while blocked.
    pub blocked_inbound_hold: bool,
    /// Silence for this long blocks.
    pub stale_after: Duration,
    /// Silence for this long isolates, if set.
    pub silence_isolates_after: Option<Duration>,
    /// Blocked for this long isolates, if set.
    pub isolate_after: Option<Duration>,
    /// How long a closing waits for the broker. Longer than [`Identity::reply_timeout`] counts as
    /// that, so that no answer takes longer than twice that.
    pub barrier_timeout: Duration,
    /// Freshness of inbound packets.
    pub packet_max_age: Duration,
    /// Tolerated clock difference of inbound packets.
    pub clock_skew_max: Duration,
    /// This runtime's own capability manifest as it is published; empty publishes none.
    pub manifest: Bytes,
}

impl Live {
    pub(super) fn limits(&self) -> InboundLimits {
        InboundLimits {
            packet_max_age: self.packet_max_age,
            clock_skew_max: self.clock_skew_max,
            block: self.policy.thresholds.block,
        }
    }
}

/// What survives a restart of the sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// No packet may carry a sequence number up to this.
    pub seq: u64,
    /// Highest accepted sequence number per source.
    pub floors: BTreeMap<RuntimeId, u64>,
    /// Number of the newest capability manifest that was believed, per peer; 0 for none.
    pub manifests: BTreeMap<RuntimeId, u64>,
    /// An operator's hold.
    pub operator_hold: bool,
    /// Whether the broker may still have to read what that life had sent.
    pub in_doubt: bool,
    /// That life. It is over: whoever has this memory has its disk for himself.
    pub instance: Option<Instance>,
}
