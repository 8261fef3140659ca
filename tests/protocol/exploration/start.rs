//! What the small world starts with.

use driftgate::protocol::bridge::Live;
use driftgate::protocol::canonical::Json;
use driftgate::protocol::gate::{Mode, Thresholds};

use crate::support::rig::{Rig, Setup, report, settings};

/// What is the same in every world.
pub(crate) struct Start {
    pub(super) setup: Setup,
    pub(super) documents: [Json; 4],
    pub(super) inbound: Vec<u8>,
}

impl Start {
    pub(crate) fn new(mode: Mode) -> Self {
        let mut setup = settings("planner", &["critic"]);
        setup.identity.mode = mode;
        setup.identity.window = 2;
        setup.live.caution_every = 2;
        let mut critic = Rig::new(settings("critic", &["planner"]));
        critic.connect();
        critic.report(0.3);
        let inbound = critic.published().remove(0).1.bytes().to_vec();
        let document = |di| match report(1, di) {
            Json::Object(mut members) => {
                members.remove("cycle");
                Json::Object(members)
            }
            other @ (Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::String(_)
            | Json::Array(_)) => other,
        };
        Self { setup, documents: [0.3, 0.46, 0.55, 0.7].map(document), inbound }
    }

    /// Settings with or without the peer, with the specification's marks or tight ones.
    pub(super) fn live(&self, is_listed: bool, is_tight: bool) -> Live {
        let mut live = self.setup.live.clone();
        if !is_listed {
            live.peers.clear();
        }
        if is_tight {
            live.policy.thresholds = Thresholds::new(0.25, 0.28, 0.4).expect("tight marks");
        }
        live
    }
}
