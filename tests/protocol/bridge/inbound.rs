//! What comes in: judged, shown, cut (P4, P7).

use std::collections::BTreeMap;
use std::time::Duration;

use driftgate::protocol::bridge::{Live, Memory};
use driftgate::protocol::inbox::Inbound;
use driftgate::protocol::seal::Fault;
use driftgate::protocol::time::{Now, Timestamp};
use serde_json::json;

use super::echo_all;
use crate::support::forge::{draft, fleet_keyring, sign, unix_ms};
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
    assert!(rig.receive(("critic", "planner"), packet.bytes()).is_none());
    rig.report(0.3);
    let inbound = rig.receive(("critic", "planner"), packet.bytes());
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
    let fault =
        |rig: &mut Rig, subject: (&str, &str), bytes: &[u8]| match rig.receive(subject, bytes) {
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
    let accepted = rig.receive(subject, &new);
    assert!(matches!(accepted, Some(Inbound::Accepted { .. })), "{accepted:?}");
    let again = rig.receive(subject, &new);
    assert!(matches!(again, Some(Inbound::Redelivered { .. })), "{again:?}");
    assert_eq!(fault(&mut rig, subject, &old), Some(Fault::Replayed));
    let mut late = Rig::connected();
    late.wait(Duration::from_secs(301));
    assert_eq!(fault(&mut late, subject, &new), Some(Fault::Expired));
    let mut early = Rig::connected();
    early.now.wall = Timestamp::from_unix_ms(EPOCH_MS - 31_000);
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
    rig.receive(("critic", "planner"), packet.bytes());
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
    rig.receive(("critic", "planner"), packet.bytes());
    rig.wait(Duration::from_secs(240));
    assert!(
        rig.bridge.peer_state(rig.now, &id("critic")).is_some(),
        "five minutes old and no more"
    );
    rig.wait(Duration::from_millis(1));
    assert!(rig.bridge.peer_state(rig.now, &id("critic")).is_none());
}

/// A planner with one peer, its clock the forger's.
fn planner(change: impl FnOnce(&mut Live), memory: Memory) -> Rig {
    let mut settings = settings("planner", &["critic"]);
    change(&mut settings.live);
    let now = Now { wall: Timestamp::from_unix_ms(unix_ms()), mono: Duration::ZERO };
    let mut rig = Rig::at(settings, memory, now);
    rig.connect();
    rig
}

/// The newest number that an honest sender has now.
fn seq_now() -> u64 {
    u64::try_from(unix_ms()).expect("after 1970") * 1000
}

/// What a packet of the critic with some changes is refused for; `None` when it is accepted.
fn verdict(rig: &mut Rig, seq: u64, changes: &[(&str, f64)]) -> Option<Fault> {
    let mut packet = draft("critic", "planner");
    for (pointer, value) in changes {
        *packet.pointer_mut(pointer).expect("a field") = json!(value);
    }
    match rig.receive(("critic", "planner"), &sign(&packet, &fleet_keyring(), seq)) {
        Some(Inbound::Refused(refusal)) => Some(refusal.fault),
        Some(Inbound::Accepted { .. }) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn p7_an_accepted_packet_is_recognised_however_late_it_comes_again() {
    let mut rig = planner(|_| {}, Memory::default());
    let bytes = sign(&draft("critic", "planner"), &fleet_keyring(), seq_now());
    let subject = ("critic", "planner");
    assert!(matches!(rig.receive(subject, &bytes), Some(Inbound::Accepted { .. })));
    rig.wait(Duration::from_secs(3600));
    let again = rig.receive(subject, &bytes);
    assert!(matches!(again, Some(Inbound::Redelivered { .. })), "{again:?}");
}

#[test]
fn p7_another_packet_of_an_equal_number_is_replayed() {
    let mut rig = planner(|_| {}, Memory::default());
    let seq = seq_now();
    assert_eq!(verdict(&mut rig, seq, &[]), None);
    let other = [("/payload/attractor_state/stability", 0.5)];
    assert_eq!(verdict(&mut rig, seq, &other), Some(Fault::Replayed));
    let state = rig.bridge.peer_state(rig.now, &id("critic")).expect("the first one");
    assert!(state.packet.get().contains("0.91"), "{}", state.packet);
}

#[test]
fn p7_no_single_number_locks_a_source_out() {
    let mut rig = planner(|_| {}, Memory::default());
    let seq = seq_now();
    for ahead in [seq + 40_000_000, 1 << 53, u64::MAX] {
        assert_eq!(verdict(&mut rig, ahead, &[]), Some(Fault::Expired), "{ahead}");
    }
    assert_eq!(verdict(&mut rig, seq + 29_000_000, &[]), None, "as far ahead as it may be");
}

#[test]
fn p7_a_clock_that_was_set_back_shows_nothing_twice_and_locks_nobody_out_for_long() {
    const HOUR_US: u64 = 3_600_000_000;
    let with_floor = |seq| {
        let floors = BTreeMap::from([(id("critic"), seq)]);
        planner(|_| {}, Memory { floors, ..Memory::default() })
    };
    let unheard = |rig: &Rig| rig.bridge.unheard(rig.now).count();
    // Taken before the clock was set back by two hours and the process started.
    let floor = seq_now() + 2 * HOUR_US;
    let mut rig = with_floor(floor);
    assert_eq!(verdict(&mut rig, seq_now() + 1_000_000, &[]), Some(Fault::Replayed));
    assert_eq!(unheard(&rig), 1);
    // The clock is put right again, or has come as far: what was taken stays taken.
    rig.now.wall = rig.now.wall.plus(Duration::from_micros(2 * HOUR_US));
    assert_eq!(verdict(&mut rig, floor - 1, &[]), Some(Fault::Replayed));
    assert_eq!(unheard(&rig), 0);
    // A clock that had been a year ahead.
    let mut rig = with_floor(seq_now() + 365 * 24 * HOUR_US);
    assert_eq!(unheard(&rig), 0);
    let seq = seq_now();
    assert_eq!(verdict(&mut rig, seq, &[]), None);
    assert_eq!(verdict(&mut rig, seq - 1, &[]), Some(Fault::Replayed), "has a floor again");
    // A clock that shows nonsense until it has been set forgets no floor.
    let floor = seq_now();
    let mut rig = with_floor(floor);
    let wall = std::mem::replace(&mut rig.now.wall, Timestamp::from_unix_ms(0));
    assert_eq!(verdict(&mut rig, floor - 1, &[]), Some(Fault::Expired));
    rig.now.wall = wall;
    assert_eq!(verdict(&mut rig, floor - 1, &[]), Some(Fault::Replayed));
}

#[test]
fn p7_what_is_past_a_critical_mark_is_unstable() {
    let scr = "/payload/attractor_state/scr";
    let metric = |name: &str| format!("/payload/drift_metrics/{name}");
    let [sdi, sv, pd, di] = ["sdi", "sv", "pd", "di"].map(metric);
    let rows: [[(&str, f64); 5]; 4] = [
        [(&sdi, 0.56), (&sv, 0.0), (&pd, 0.0), (scr, 0.8), (&di, 0.2334)],
        [(&sdi, 0.0), (&sv, 0.66), (&pd, 0.0), (scr, 0.8), (&di, 0.275)],
        [(&sdi, 0.0), (&sv, 0.0), (&pd, 0.46), (scr, 0.8), (&di, 0.192)],
        [(&sdi, 0.1), (&sv, 0.1), (&pd, 0.1), (scr, 0.44), (&di, 0.2273)],
    ];
    for row in rows {
        let mut rig = planner(|_| {}, Memory::default());
        assert_eq!(verdict(&mut rig, seq_now(), &row), Some(Fault::Unstable), "{row:?}");
    }
}

#[test]
fn p7_derived_metrics_are_accepted_where_the_entry_says_so() {
    let bytes = sign(&draft("critic", "planner"), &fleet_keyring(), seq_now());
    let faults = |accepts_derived| {
        ["native", "derived", "reported"].map(|source| {
            let change = |live: &mut Live| {
                let peer = live.peers.get_mut(&id("critic")).expect("a peer");
                peer.terms.accepts_derived = accepts_derived;
            };
            let mut rig = planner(change, Memory::default());
            match rig.receive_of(("critic", "planner"), Some(source), &bytes) {
                Some(Inbound::Refused(refusal)) => Some(refusal.fault),
                _ => None,
            }
        })
    };
    let refused = Some(Fault::Unauthorised);
    assert_eq!(faults(false), [None, refused, refused]);
    assert_eq!(faults(true), [None, None, refused]);
}

#[test]
fn p7_what_may_be_delivered_is_asked_when_it_is_delivered() {
    let seq = seq_now();
    let critic = id("critic");
    let accepted = || {
        let mut rig = planner(|_| {}, Memory::default());
        assert_eq!(verdict(&mut rig, seq, &[]), None);
        rig
    };
    let rig = accepted();
    assert!(rig.bridge.deliverable(rig.now, &critic, seq).is_ok());
    assert_eq!(rig.bridge.deliverable(rig.now, &critic, seq - 1), Err(Fault::Replayed));
    let mut late = accepted();
    late.wait(Duration::from_secs(301));
    assert_eq!(late.bridge.deliverable(late.now, &critic, seq), Err(Fault::Expired));
    let mut alone = accepted();
    alone.reload(live(&["monitor"]));
    assert_eq!(alone.bridge.deliverable(alone.now, &critic, seq), Err(Fault::Unauthorised));
    let mut pinned = accepted();
    let mut other = live(&["critic"]);
    other.peers.get_mut(&critic).expect("a peer").key_id = Some("k2".to_owned());
    pinned.reload(other);
    assert_eq!(pinned.bridge.deliverable(pinned.now, &critic, seq), Err(Fault::Unauthorised));
    assert!(pinned.bridge.peer_state(pinned.now, &critic).is_none(), "nor is it shown");
}
