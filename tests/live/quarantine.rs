//! What refused packets leave behind, and that they hold up nothing (P7).

use async_nats::ConnectOptions;

use super::exchange::shows;
use crate::support::forge::{draft, fleet_keyring, foreign_keyring, sign, unix_ms};
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

const SUBJECT: &str = "driftgate.v1.state.planner.critic";
/// As many as a consumer leaves unacknowledged.
const REFUSED: u64 = 256;

fn seq_now() -> u64 {
    u64::try_from(unix_ms()).unwrap() * 1000
}

async fn flood(critic: &Sidecar, observer: &Observer) {
    let forged = sign(&draft("planner", "critic"), &foreign_keyring(), seq_now());
    // The stream keeps eight of a subject.
    for number in 0..REFUSED {
        let subject = format!("driftgate.v1.state.s{}.critic", number / 8);
        observer.store(&subject, &forged).await;
    }
    let seq = seq_now();
    let good = sign(&draft("planner", "critic"), &fleet_keyring(), seq);
    observer.store(SUBJECT, &good).await;
    shows(critic, "planner", seq).await;
    let all = i64::try_from(REFUSED).unwrap();
    until("every refused packet to be done with", async || {
        let books = critic.books().await;
        let ended =
            books.sum("inbound_quarantined", &[]) + books.sum("inbound_quarantine_lost", &[]);
        (ended == all).then_some(())
    })
    .await;
    until("the acknowledgements", async || {
        let call = "CONSUMER.INFO.DRIFTGATE_STATE.driftgate-critic";
        let info = observer.api(call, &serde_json::Value::Null).await;
        (info["num_ack_pending"] == 0 && info["num_pending"] == 0).then_some(())
    })
    .await;
    let books = critic.books().await;
    assert_eq!(books.sum("inbound_refused", &[("fault", "forged")]), all);
}

async fn degraded(critic: &Sidecar) -> String {
    critic.readiness().await["degraded"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_refused_packets_hold_up_nothing_where_the_quarantine_is_missing() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    let answer = observer.api("STREAM.DELETE.DRIFTGATE_QUARANTINE", &serde_json::json!({})).await;
    assert_eq!(answer["success"], true, "{answer}");
    flood(&critic, &observer).await;
    let books = critic.books().await;
    assert_eq!(books.sum("inbound_quarantine_lost", &[]), i64::try_from(REFUSED).unwrap());
    let said = degraded(&critic).await;
    assert!(said.contains("quarantine_refused: "), "{said}");
    assert!(!said.contains("peer_key"), "these names are no peer's: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_refused_packets_hold_up_nothing_where_the_quarantine_is_denied() {
    let users = "authorization { users: [ { user: critic, password: p, permissions: { publish: { \
                 deny: \"driftgate.v1.quarantine.>\" } } }, { user: all, password: p } ] }\n\
                 no_auth_user: critic";
    let server = NatsServer::start_with(users);
    let options = ConnectOptions::with_user_and_password("all".to_owned(), "p".to_owned());
    let observer = Observer::of(options.connect(server.url()).await.unwrap()).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    flood(&critic, &observer).await;
    assert!(degraded(&critic).await.contains("quarantine_refused: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_quarantined_packet_says_where_it_came_from() {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let critic = Sidecar::connected(Plan::new("critic", &["planner"], &server.url())).await;
    let forged = sign(&draft("planner", "critic"), &foreign_keyring(), seq_now());
    observer.store(SUBJECT, &forged).await;
    let is_quarantined = |message: &async_nats::Message| {
        message.subject.as_str() == "driftgate.v1.quarantine.critic"
    };
    let (_, kept) = observer.find(0, "the quarantined packet", is_quarantined).await;
    let headers = kept.headers.unwrap();
    let text = |name: &str| headers.get(name).unwrap().to_string();
    assert!(text("Driftgate-Reason").starts_with("forged: "));
    assert_eq!(text("Driftgate-Subject"), SUBJECT);
    assert_eq!(text("Driftgate-Stream-Seq"), "1");
    until("/readyz to say it", async || {
        let said = degraded(&critic).await;
        said.contains("peer_key: packets in the name of planner ").then_some(())
    })
    .await;
}
