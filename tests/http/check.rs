//! `POST /field/state?check`: what would happen, and nothing of it.

use driftgate::http::settings::ApiSettings;

use super::rig::{Actor, Mood, REPORT};
use super::table::ask;

const JSON: &str = "content-type: application/json";

#[tokio::test]
async fn a_check_is_marked_and_reaches_no_report_nor_its_fault_the_gate() {
    for (mood, body, status) in
        [(Mood::Calm, REPORT, 200), (Mood::Picky, REPORT, 422), (Mood::Calm, "{", 400)]
    {
        let actor = Actor::new(mood);
        let request = ("POST /field/state?check", JSON, body.as_bytes());
        let reply = ask(&actor, &ApiSettings::default(), request).await;
        assert_eq!((reply.status, &reply.json()["check"]), (status, &true.into()), "{body}");
        assert_eq!(actor.with(|script| script.checks.clone()), [body == REPORT]);
        assert_eq!((actor.reports(), actor.unreadable_count()), (0, 0), "{body}");
        let said = reply.json();
        if status != 200 {
            assert_eq!(
                (&said["band"], &said["reasons"][0]),
                (&"blocked".into(), &"invalid".into())
            );
            assert_eq!(said["barrier"], serde_json::Value::Null);
        }
    }
}
