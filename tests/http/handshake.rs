//! `/runtime/handshake`: every answer and what it names.

use serde_json::json;

use super::rig::{Actor, Mood};
use super::table::{ask, check};
use driftgate::http::settings::ApiSettings;
use driftgate::protocol::gate::Band;
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::view::HandshakeView;

const JSON: &str = "content-type: application/json";
const LINE: &str = "POST /runtime/handshake";

#[tokio::test]
async fn a_handshake_says_who_we_are_what_we_read_and_how_each_peer_stands() {
    for version in ["1.0", "1.7"] {
        let body = json!({"runtime_id": "planner", "protocol_version": version}).to_string();
        let request = (LINE, JSON, body.as_bytes());
        let reply = ask(&Actor::new(Mood::Calm), &ApiSettings::default(), request).await;
        assert_eq!(reply.status, 200);
        let answer = reply.json();
        assert_eq!(answer["runtime_id"], "planner");
        // uuid.uuid5(uuid.NAMESPACE_OID, "planner")
        assert_eq!(answer["runtime_uuid"], "06c4a9b7-a49d-51c0-993d-7c9777d04859");
        assert_eq!(
            (&answer["protocol_version"], &answer["supported"]),
            (&json!("1.0"), &json!(["1.0"]))
        );
        let peers = json!([{"id": "critic", "mode": "unreachable", "reason": "no_answer"}]);
        assert_eq!(answer["peers"], peers);
        // What SRIP-17 XI and XIII ask to be said (R2).
        for key in ["surfaces", "authorization", "artifact_types", "gate", "retention", "audit"] {
            assert!(!answer[key].is_null(), "{key}");
        }
        assert_eq!(answer["posture"], "open");
    }
}

#[test]
fn an_id_that_is_a_uuid_is_its_own() {
    let id = "0b6f0a3e-5a53-4d8c-9a9e-2f6f7d0a1c11";
    let view = HandshakeView::new(RuntimeId::new(id).unwrap(), Band::Open, Vec::new());
    assert_eq!(view.runtime_uuid, id);
}

#[tokio::test]
async fn what_is_no_handshake_with_us_is_refused_by_name() {
    let rows: [(&str, u16, &str); 9] = [
        (r#"{"runtime_id": "planner", "protocol_version": "2.0"}"#, 409, "/protocol_version"),
        (r#"{"runtime_id": "planner", "protocol_version": "0.9"}"#, 409, "/protocol_version"),
        (r#"{"runtime_id": "planner", "protocol_version": "one"}"#, 422, "/protocol_version"),
        (r#"{"runtime_id": "planner", "protocol_version": 1.0}"#, 422, "/protocol_version"),
        (r#"{"runtime_id": "planner"}"#, 422, "/protocol_version"),
        (r#"{"runtime_id": "critic", "protocol_version": "1.0"}"#, 422, "/runtime_id"),
        (r#"{"runtime_id": "a.b", "protocol_version": "1.0"}"#, 422, "/runtime_id"),
        (r#"{"protocol_version": "1.0"}"#, 422, "/runtime_id"),
        ("[]", 422, ""),
    ];
    for (body, status, field) in rows {
        let reply = check(Mood::Calm, (LINE, JSON, body.as_bytes()), status, field).await;
        if status == 409 {
            assert!(reply.json()["detail"].as_str().unwrap().contains("1.0"), "{body}");
        }
    }
    let good = br#"{"runtime_id": "planner", "protocol_version": "1.0"}"#;
    check(Mood::Isolated, (LINE, JSON, good), 423, "").await;
    check(Mood::Overloaded, (LINE, JSON, good), 503, "").await;
    check(Mood::Calm, ("GET /runtime/handshake", "", b""), 405, "").await;
    check(Mood::Calm, (LINE, "", good), 415, "content-type").await;
}
