//! What comes in: judged, shown, cut (P4, P7).

use std::time::Duration;

use driftgate::protocol::inbox::Inbound;
use driftgate::protocol::seal::Fault;

use super::echo_all;
use crate::support::rig::{EPOCH_MS, Rig, id, live, settings};

#[test]
fn p4_nothing_inbound_is_taken_while_isolated() {
    let mut critic = Rig::new(settings("critic", &["planner"]));
    critic.connect();
    critic.report(0.3);
    let (_, packet) = critic.published().remove(0);
    let mut rig = Rig::connected();
    rig.report(0.65);
    echo_all(&mut rig);
    assert!(rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes()).is_none());
    rig.report(0.3);
    let inbound = rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes());
    assert!(matches!(inbound, Some(Inbound::Accepted { .. })), "{inbound:?}");
}

#[test]
fn p7_inbound_is_judged_by_seal_address_authority_freshness_stability_and_replay() {
    let mut sender = Rig::new(settings("critic", &["planner", "monitor"]));
    sender.connect();
    sender.report(0.3);
    let older = sender.published();
    sender.report(0.31);
    let newer = sender.published();
    let packet = |set: &[(u64, driftgate::protocol::seal::Sealed)], target: &str| {
        set.iter()
            .find(|(_, packet)| packet.target() == &id(target))
            .map(|(_, packet)| packet.bytes().clone())
            .expect("a packet")
    };
    let (old, new) = (packet(&older, "planner"), packet(&newer, "planner"));
    let misdelivered = packet(&newer, "monitor");
    let fault = |rig: &mut Rig, subject: (&str, &str), bytes: &[u8]| match rig
        .bridge
        .receive(rig.now, subject, bytes)
    {
        Some(Inbound::Refused(refusal)) => Some(refusal.fault),
        _ => None,
    };
    let subject = ("critic", "planner");
    let mut rig = Rig::connected();
    assert_eq!(fault(&mut rig, subject, b"{"), Some(Fault::Malformed));
    let mut flipped = new.to_vec();
    let place = flipped.windows(4).position(|bytes| bytes == b"0.91").expect("stability") + 3;
    flipped[place] = b'2';
    assert_eq!(fault(&mut rig, subject, &flipped), Some(Fault::Forged));
    assert_eq!(fault(&mut rig, ("scribe", "planner"), &new), Some(Fault::Misaddressed));
    assert_eq!(fault(&mut rig, ("critic", "monitor"), &misdelivered), Some(Fault::Misaddressed));
    let accepted = rig.bridge.receive(rig.now, subject, &new);
    assert!(matches!(accepted, Some(Inbound::Accepted { .. })), "{accepted:?}");
    let again = rig.bridge.receive(rig.now, subject, &new);
    assert!(matches!(again, Some(Inbound::Redelivered { .. })), "{again:?}");
    assert_eq!(fault(&mut rig, subject, &old), Some(Fault::Replayed));
    let mut late = Rig::connected();
    late.wait(Duration::from_secs(301));
    assert_eq!(fault(&mut late, subject, &new), Some(Fault::Expired));
    let mut early = Rig::connected();
    early.now.wall = driftgate::protocol::time::Timestamp::from_unix_ms(EPOCH_MS - 31_000);
    assert_eq!(fault(&mut early, subject, &new), Some(Fault::Expired));
    let mut stranger = Rig::new(settings("planner", &["monitor"]));
    assert_eq!(fault(&mut stranger, subject, &new), Some(Fault::Unauthorised));
    let mut pinned = settings("planner", &["critic"]);
    pinned.live.peers.get_mut(&id("critic")).expect("a peer").key_id = Some("k2".to_owned());
    assert_eq!(fault(&mut Rig::new(pinned), subject, &new), Some(Fault::Unauthorised));
    let mut expired = settings("planner", &["critic"]);
    expired.live.peers.get_mut(&id("critic")).expect("a peer").expires = Some(rig.now.wall);
    assert_eq!(fault(&mut Rig::new(expired), subject, &new), Some(Fault::Unauthorised));
    let mut strict = settings("planner", &["critic"]);
    strict.live.policy.thresholds.block = 0.305;
    strict.live.policy.thresholds.reopen = 0.305;
    assert_eq!(fault(&mut Rig::new(strict), subject, &new), Some(Fault::Unstable));
}

#[test]
fn a_revoked_peer_is_cut_at_once_and_its_state_vanishes() {
    let mut sender = Rig::new(settings("critic", &["planner"]));
    sender.connect();
    sender.report(0.3);
    let (_, packet) = sender.published().remove(0);
    let mut rig = Rig::connected();
    rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes());
    assert!(rig.bridge.peer_state(rig.now, &id("critic")).is_some());
    rig.reload(live(&["monitor"]));
    assert!(rig.bridge.peer_state(rig.now, &id("critic")).is_none());
    rig.report(0.3);
    assert!(rig.published().iter().all(|(_, packet)| packet.target() == &id("monitor")));
}

#[test]
fn p7_what_a_peer_said_vanishes_when_its_packet_expires() {
    let mut sender = Rig::new(settings("critic", &["planner"]));
    sender.connect();
    sender.report(0.3);
    let (_, packet) = sender.published().remove(0);
    let mut rig = Rig::connected();
    // It lay on the stream for a minute.
    rig.wait(Duration::from_secs(60));
    rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes());
    rig.wait(Duration::from_secs(240));
    assert!(
        rig.bridge.peer_state(rig.now, &id("critic")).is_some(),
        "five minutes old and no more"
    );
    rig.wait(Duration::from_millis(1));
    assert!(rig.bridge.peer_state(rig.now, &id("critic")).is_none());
}
