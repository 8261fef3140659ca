//! The operator's routes, and who may use them.

use driftgate::http::settings::{ApiSettings, Token};

use super::rig::{Actor, Mood, REPORT};
use super::table::{TOKEN, ask, check};

/// As [`TOKEN`], the operator's.
const OPERATOR_TOKEN: &str = "the-operators-own-token";

fn with_tokens(token: Option<&str>, operator_token: Option<&str>) -> ApiSettings {
    let [token, operator_token] =
        [token, operator_token].map(|text| text.map(|text| Token::new(text).unwrap()));
    ApiSettings { token, operator_token, ..ApiSettings::default() }
}

#[tokio::test]
async fn an_operator_isolates_and_releases() {
    let actor = Actor::new(Mood::Calm);
    let settings = with_tokens(None, Some(OPERATOR_TOKEN));
    let json = "content-type: application/json";
    let order = br#"{"reason": "odd replies", "by": "eve"}"#;
    let reply = ask(&actor, &settings, ("POST /operator/isolate", json, order)).await;
    assert_eq!(reply.status, 200);
    let expected = serde_json::json!({
        "band": "isolated", "operator_hold": true, "held_by": ["command"],
        "barrier": "confirmed", "survives_restart": true, "audited": true,
    });
    assert_eq!(reply.json(), expected);
    let release = format!("authorization: Bearer {OPERATOR_TOKEN}");
    let reply = ask(&actor, &settings, ("POST /operator/release", &release, b"")).await;
    assert_eq!((reply.status, &reply.json()["barrier"]), (200, &serde_json::Value::Null));
    let orders = actor.with(|script| script.orders.clone());
    let words: Vec<&str> = orders.iter().map(|order| order.act.word()).collect();
    assert_eq!(words, ["isolate", "release"]);
    assert!(orders[0].reason.is_some() && orders[0].by.is_some() && orders[1].by.is_none());
}

#[tokio::test]
async fn who_can_report_can_isolate_and_only_the_operator_releases() {
    let (both, none) = (with_tokens(Some(TOKEN), Some(OPERATOR_TOKEN)), with_tokens(None, None));
    let (runtimes, operators) =
        (with_tokens(Some(TOKEN), None), with_tokens(None, Some(OPERATOR_TOKEN)));
    let rows: [(&ApiSettings, &str, [u16; 3]); 10] = [
        // Settings, token sent, status of isolate, release, safety.
        (&both, "", [401, 401, 401]),
        (&both, "wrong-wrong-wrong-wrong", [401, 401, 401]),
        (&both, TOKEN, [200, 401, 200]),
        (&both, OPERATOR_TOKEN, [200, 200, 401]),
        (&none, "", [200, 403, 200]),
        (&none, OPERATOR_TOKEN, [200, 403, 200]),
        (&runtimes, TOKEN, [200, 403, 200]),
        (&runtimes, OPERATOR_TOKEN, [401, 401, 401]),
        (&operators, "", [200, 401, 200]),
        (&operators, OPERATOR_TOKEN, [200, 200, 200]),
    ];
    for (settings, token, expected) in rows {
        let actor = Actor::new(Mood::Calm);
        let more =
            if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}") };
        for (line, expected) in
            ["POST /operator/isolate", "POST /operator/release", "GET /aegida/safety"]
                .into_iter()
                .zip(expected)
        {
            let reply = ask(&actor, settings, (line, &more, b"")).await;
            assert_eq!(reply.status, expected, "{line} with {token:?}");
            if expected == 403 {
                assert_eq!(reply.json()["type"], "urn:driftgate:problem:no-operator-token");
            }
        }
        let released =
            actor.with(|script| script.orders.iter().any(|order| order.act.word() == "release"));
        assert_eq!(released, expected[1] == 200, "with {token:?}");
    }
}

#[tokio::test]
async fn a_listener_without_reports_serves_everything_else() {
    let actor = Actor::new(Mood::Calm);
    let settings = ApiSettings { reports: false, ..ApiSettings::default() };
    let json = "content-type: application/json";
    for body in [REPORT, "{"] {
        let reply = ask(&actor, &settings, ("POST /field/state", json, body.as_bytes())).await;
        assert_eq!(reply.status, 403);
        assert_eq!(reply.json()["type"], "urn:driftgate:problem:no-reports");
        assert!(reply.json()["detail"].as_str().unwrap().contains("ingest.http"));
    }
    assert_eq!((actor.reports(), actor.unreadable_count()), (0, 0), "nothing moved the gate");
    for line in ["GET /field/state", "GET /aegida/safety", "POST /operator/isolate"] {
        assert_eq!(ask(&actor, &settings, (line, "", b"")).await.status, 200, "{line}");
    }
}

#[tokio::test]
async fn an_order_that_cannot_be_read_is_refused_and_is_no_report() {
    let json = "content-type: application/json";
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(257));
    let huge = format!(r#"{{"reason": "{}"}}"#, "x".repeat(5000));
    let rows: [(&[u8], u16, &str); 8] = [
        (b"[]", 422, "/"),
        (br#"{"why": "x"}"#, 422, "/"),
        (br#"{"reason": 7}"#, 422, "/reason"),
        (br#"{"reason": ""}"#, 422, "/reason"),
        (br#"{"by": "two\nlines"}"#, 422, "/by"),
        (long.as_bytes(), 422, "/reason"),
        (huge.as_bytes(), 413, "/"),
        (b"{", 400, "/"),
    ];
    for (body, status, field) in rows {
        check(Mood::Calm, ("POST /operator/isolate", json, body), status, field).await;
    }
    check(Mood::Calm, ("POST /operator/isolate", "", b"{}"), 415, "content-type").await;
    check(Mood::Stopping, ("POST /operator/isolate", json, b"{}"), 503, "").await;
    check(Mood::Calm, ("GET /operator/isolate", "", b""), 405, "").await;
    let page = "content-type: application/json\norigin: https://evil.example";
    check(Mood::Calm, ("POST /operator/release", page, b"{}"), 403, "origin").await;
}
