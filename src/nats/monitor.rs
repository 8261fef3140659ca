//! What `nats server check stream|consumer` reads from an asset, so that it knows our thresholds.
//!
//! The keys are those of jsm.go's `monitor` package; all values are texts. A flag of the command
//! wins over what stands here.

use serde_json::{Map, Value};

/// How long a replica may not have been heard of.
const PEER_SEEN: &str = "10s";
/// Operations that a replica may be behind.
const PEER_LAG: &str = "1000";

/// The metadata of an asset with so many replicas, and thresholds of its own.
pub(super) fn metadata(replicas: u8, thresholds: &[(&str, u64)]) -> Value {
    let own = thresholds.iter().map(|(key, value)| (*key, value.to_string()));
    let enabled = core::iter::once(("enabled", "true".to_owned()));
    let replicated = [
        ("peer-expect", replicas.to_string()),
        ("peer-lag-critical", PEER_LAG.to_owned()),
        ("peer-seen-critical", PEER_SEEN.to_owned()),
    ];
    let replicated = replicated.into_iter().filter(|_| replicas > 1);
    let members = enabled.chain(own).chain(replicated);
    let member = |(key, value): (&str, String)| (format!("io.nats.monitor.{key}"), value.into());
    Value::Object(members.map(member).collect::<Map<_, _>>())
}
