//! Peers without a sidecar that are known all the same: their capability manifests, written to the
//! broker as their sidecars would.

use std::time::Duration;

use driftgate::protocol::document::sign_body;
use driftgate::protocol::keyring::{Domain, Keyring};
use serde_json::{Value, json};

use super::forge::{fleet_keyring, unix_ms};

pub(crate) const BUCKET: &str = "driftgate-capabilities";

/// The manifest of a peer that does all that we do.
pub(crate) fn manifest(peer: &str) -> Value {
    json!({
        "runtime_id": peer,
        "protocol_versions": ["1.0"],
        "artifact_types": ["state", "snapshot", "telemetry"],
    })
}

/// A number for the next token.
pub(crate) fn seq_now() -> u64 {
    u64::try_from(unix_ms()).expect("after 1970") * 1000
}

/// Writes these bytes under a name, signed or not, and makes the bucket if there is none.
pub(crate) async fn put(url: &str, key: &str, body: &[u8], token: Option<&str>) -> Option<()> {
    let connecting = async_nats::ConnectOptions::new().connection_timeout(Duration::from_secs(2));
    let client = connecting.connect(url).await.ok()?;
    let bucket = json!({
        "name": format!("KV_{BUCKET}"), "subjects": [format!("$KV.{BUCKET}.>")],
        "discard": "new", "storage": "file", "num_replicas": 1, "max_msgs_per_subject": 1,
        "duplicate_window": 120_000_000_000_u64, "allow_rollup_hdrs": true, "allow_direct": true,
        "allow_msg_ttl": true, "deny_delete": true,
    });
    let create = format!("$JS.API.STREAM.CREATE.KV_{BUCKET}");
    client.request(create, bucket.to_string().into()).await.ok()?;
    let mut headers = async_nats::HeaderMap::new();
    if let Some(token) = token {
        headers.insert("Driftgate-Token", token);
    }
    let subject = format!("$KV.{BUCKET}.{key}");
    let payload = bytes::Bytes::copy_from_slice(body);
    let request = async_nats::Request::new().headers(headers).payload(payload);
    client.send_request(subject, request).await.ok().map(drop)
}

/// Signs a manifest.
pub(crate) fn token(keyring: &Keyring, seq: u64, body: &[u8]) -> String {
    sign_body(keyring, Domain::Capabilities, seq, body).expect("a key that signs")
}

/// Makes a peer of the fleet known, where there is a broker that lets us.
pub(crate) async fn meet(url: &str, peer: &str) {
    let body = manifest(peer).to_string();
    let token = token(&fleet_keyring(), seq_now(), body.as_bytes());
    let _ = put(url, peer, body.as_bytes(), Some(&token)).await;
}

/// The same from code that cannot wait.
pub(crate) fn meet_now(url: &str, peer: &str) {
    std::thread::scope(|scope| {
        let meeting = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(meet(url, peer));
        };
        scope.spawn(meeting).join().expect("no panic");
    });
}
