//! What the small world starts with.

use driftgate::protocol::canonical::Json;

use crate::support::rig::{Rig, Setup, report, settings};

/// What is the same in every world.
pub(crate) struct Start {
    pub(super) setup: Setup,
    pub(super) documents: [Json; 4],
    pub(super) inbound: Vec<u8>,
}

impl Start {
    pub(crate) fn new() -> Self {
        let mut setup = settings("planner", &["critic"]);
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
}
