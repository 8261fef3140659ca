//! This runtime's capability manifest: what the sidecar knows of itself, narrowed by what its
//! operator declares.

use crate::config::Config;
use crate::nats::{STATE_AGE_S, STATE_EACH};
use crate::protocol::bridge::Live;
use crate::protocol::capabilities::{Capabilities, Marks, Retention};
use crate::protocol::exchange::Artifact;
use crate::protocol::packet::PROTOCOL_VERSION;

/// What the bridge is told: the configuration, and the manifest that follows from it.
pub(super) fn live(config: &Config) -> Live {
    Live { manifest: manifest(config).to_bytes().into(), ..config.live() }
}

fn manifest(config: &Config) -> Capabilities {
    let declared = config.runtime.capabilities.as_ref().map(|(_, declared)| declared.clone());
    let declared = declared.unwrap_or_default();
    let (containment, snapshot) = (&config.containment, &config.snapshot);
    let all = [Artifact::State, Artifact::Snapshot, Artifact::Telemetry];
    Capabilities {
        runtime_id: config.runtime.id.clone(),
        protocol_versions: vec![PROTOCOL_VERSION.to_owned()],
        bridge: concat!("driftgate/", env!("CARGO_PKG_VERSION")).to_owned(),
        surfaces: vec![
            "/field/state",
            "/memory/snapshot",
            "/phase/telemetry",
            "/aegida/safety",
            "/runtime/handshake",
        ],
        serializations: vec!["application/json", "application/ld+json", "application/yaml"],
        compressions: vec!["zstd", "gzip"],
        integrity_algs: vec![config.integrity.alg.word()],
        artifact_types: declared.artifact_types.unwrap_or_else(|| all.to_vec()),
        authorisation: "explicit, per peer, direction and artifact type; none by default; expires",
        gate: "export ends at block or without trusted evidence, all exchange ends at isolate, and \
               both begin again below reopen in a stable posture",
        thresholds: Marks {
            reopen: containment.reopen,
            block: containment.block,
            isolate: containment.isolate,
        },
        profile: config.runtime.profile.name().to_owned(),
        drift_source: containment.accept.word(),
        retention: Retention {
            state_s: STATE_AGE_S,
            state_each: STATE_EACH,
            snapshot_s: snapshot.keep_for.as_secs(),
            snapshot_full: snapshot.keep_full,
        },
        audit: match config.audit.file {
            Some(_) => "hash-chained log of transitions, refusals, handshakes and orders",
            None => "none is kept",
        },
        scopes: declared.scopes,
        deviations: declared.deviations,
        expires: declared.expires,
    }
}
