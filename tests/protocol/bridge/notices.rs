//! Notices of peers: they can withhold and nothing else (P7).

use std::time::Duration;

use driftgate::protocol::bridge::Effect;
use driftgate::protocol::document::sign_body;
use driftgate::protocol::inbox::Inbound;
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use driftgate::protocol::seal::Fault;
use serde_json::{Value, json};

use super::{STORED, echo_all};
use crate::support::rig::{EPOCH_MS, Rig, id, keyring, settings};

/// The planner, and a critic that has just sent it a packet.
fn pair() -> (Rig, Rig) {
    let mut critic = Rig::new(settings("critic", &["planner"]));
    critic.connect();
    let mut planner = Rig::connected();
    planner.report(0.3);
    send(&mut critic, &mut planner);
    (planner, critic)
}

fn send(critic: &mut Rig, planner: &mut Rig) {
    critic.report(0.3);
    let (token, packet) = critic.published().remove(0);
    critic.answered(token, STORED);
    let inbound = planner.receive(("critic", "planner"), packet.bytes());
    assert!(matches!(inbound, Some(Inbound::Accepted { .. })), "{inbound:?}");
}

fn shows(planner: &Rig) -> bool {
    planner.bridge.peer_state(planner.now, &id("critic")).is_some()
}

/// The newest notice of `rig`, as it goes out.
fn notice(rig: &Rig) -> (Vec<u8>, Option<String>) {
    let notices = rig.effects.iter().filter_map(|effect| match effect {
        Effect::Notify(notice) => Some(rig.bridge.signed(notice)),
        _ => None,
    });
    let (body, token) = notices.last().expect("a notice");
    (body.to_vec(), token)
}

fn hears(planner: &mut Rig, body: &[u8], token: Option<&str>) -> Option<Fault> {
    planner.bridge.noticed(planner.now, "critic", token, body).err().map(|refusal| refusal.fault)
}

#[test]
fn p7_a_source_that_says_it_is_closed_is_withheld_until_a_later_packet() {
    let (mut planner, mut critic) = pair();
    critic.wait(Duration::from_secs(1));
    planner.wait(Duration::from_secs(1));
    critic.report(0.55);
    let (body, token) = notice(&critic);
    assert_eq!(hears(&mut planner, &body, token.as_deref()), None);
    assert!(!shows(&planner), "withheld");
    // It is open again, and says so: that alone brings nothing back.
    echo_all(&mut critic);
    critic.wait(Duration::from_secs(1));
    planner.wait(Duration::from_secs(1));
    critic.report(0.3);
    let (_, packet) = critic.published().pop().expect("a packet");
    let (reopened, reopened_token) = notice(&critic);
    assert_eq!(hears(&mut planner, &reopened, reopened_token.as_deref()), None);
    assert!(!shows(&planner), "a notice never restores");
    planner.receive(("critic", "planner"), packet.bytes());
    assert!(shows(&planner), "dated later");
    // The old notice once more withholds nothing that is later.
    assert_eq!(hears(&mut planner, &body, token.as_deref()), None);
    assert!(shows(&planner));
}

#[test]
fn p7_a_packet_that_overtook_the_notice_of_its_end_is_not_handed_on() {
    let (mut planner, mut critic) = pair();
    critic.wait(Duration::from_secs(1));
    planner.wait(Duration::from_secs(1));
    critic.report(0.3);
    let (_, packet) = critic.published().pop().expect("a packet");
    critic.wait(Duration::from_secs(1));
    planner.wait(Duration::from_secs(1));
    critic.report(0.55);
    let (body, token) = notice(&critic);
    assert_eq!(hears(&mut planner, &body, token.as_deref()), None);
    let inbound = planner.receive(("critic", "planner"), packet.bytes());
    assert!(matches!(inbound, Some(Inbound::Accepted { .. })), "{inbound:?}");
    assert!(!shows(&planner));
    let deliverable = planner.bridge.deliverable(planner.now, &id("critic"), packet.seq());
    assert_eq!(deliverable, Err(Fault::Unstable));
}

fn said(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut notice = json!({
        "runtime_id": "critic", "mode": "enforce", "band": "blocked", "reasons": [],
        "since": "2026-01-01T00:00:01.000Z", "epoch": 1
    });
    change(&mut notice);
    serde_json::to_vec(&notice).unwrap()
}

fn signed(ring: &Keyring, domain: Domain, body: &[u8]) -> Option<String> {
    sign_body(ring, domain, u64::try_from(EPOCH_MS).unwrap() * 1000, body)
}

#[test]
fn p7_a_notice_that_proves_nothing_moves_nothing() {
    let (mut planner, _) = pair();
    planner.wait(Duration::from_secs(1));
    let body = said(|_| ());
    let stranger = KeyMaterial::hmac_secret(&[8; 32]).unwrap();
    let stranger = Keyring::new([("k1".to_owned(), stranger)], Some("k1")).unwrap();
    let later = said(|notice| notice["since"] = json!("2026-01-01T00:01:00.000Z"));
    let other = said(|notice| notice["runtime_id"] = json!("monitor"));
    let unknown = said(|notice| notice["band"] = json!("shut"));
    let ours = |body: &[u8]| signed(&keyring(), Domain::Notice, body);
    let cases = [
        (body.clone(), None, Fault::Forged),
        (body.clone(), signed(&stranger, Domain::Notice, &body), Fault::Forged),
        (body.clone(), signed(&keyring(), Domain::Presence, &body), Fault::Forged),
        (body.clone(), Some("k1".to_owned()), Fault::Malformed),
        (later.clone(), ours(&later), Fault::Expired),
        (other.clone(), ours(&other), Fault::Misaddressed),
        (unknown.clone(), ours(&unknown), Fault::Malformed),
        (vec![b' '; 5000], ours(&[b' '; 5000]), Fault::Malformed),
    ];
    for (body, token, fault) in cases {
        assert_eq!(hears(&mut planner, &body, token.as_deref()), Some(fault));
        assert!(shows(&planner), "{fault:?} moved something");
    }
    let token = ours(&body);
    let stranger = planner.bridge.noticed(planner.now, "nobody", token.as_deref(), &body);
    assert_eq!(stranger.unwrap_err().fault, Fault::Unauthorised);
    // The same, proved, does.
    assert_eq!(hears(&mut planner, &body, token.as_deref()), None);
    assert!(!shows(&planner));
}

#[test]
fn p7_a_key_that_is_not_the_peers_own_cannot_withhold() {
    let mut setup = settings("planner", &["critic"]);
    let pinned = setup.live.peers.get_mut(&id("critic")).expect("a peer");
    pinned.key_id = Some("k2".to_owned());
    let mut planner = Rig::new(setup);
    planner.connect();
    planner.wait(Duration::from_secs(1));
    let body = said(|_| ());
    let token = signed(&keyring(), Domain::Notice, &body);
    assert_eq!(hears(&mut planner, &body, token.as_deref()), Some(Fault::Unauthorised));
}
