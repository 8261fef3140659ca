//! What may no longer leave for a reason that is no report: a twin, a reload.

use driftgate::protocol::bridge::{Fence, Live};
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::presence::{Instance, Life};
use driftgate::protocol::view::Barrier;

use super::{echo_all, reported, store_all};
use crate::support::rig::{Rig, live, settings};

/// Packets revoked so far, and pending.
fn revoked_and_pending(rig: &Rig) -> (u64, u64) {
    let ledgers = rig.bridge.ledgers().map(|(_, ledger)| (ledger.revoked, ledger.pending));
    ledgers.fold((0, 0), |(revoked, pending), (one, other)| (revoked + one, pending + other))
}

#[test]
fn a_twin_closes_the_gate_and_no_report_opens_it_while_it_is_there() {
    for (fence, reason) in [(Fence::Twin, Reason::Twin), (Fence::Replaced, Reason::Replaced)] {
        let mut rig = Rig::connected();
        reported(&mut rig, 0.3);
        rig.fence(Some(fence));
        assert_eq!(rig.bridge.band(), Band::Blocked);
        echo_all(&mut rig);
        let reply = reported(&mut rig, 0.3);
        assert_eq!((reply.band, reply.reasons), (Band::Blocked, vec![reason]));
        assert!(rig.published().is_empty());
        rig.fence(None);
        assert_eq!(rig.bridge.band(), Band::Blocked, "its end opens nothing");
        assert_eq!(reported(&mut rig, 0.3).band, Band::Open);
    }
}

#[test]
fn p3_an_isolated_gate_stays_isolated_while_fenced() {
    let mut rig = Rig::connected();
    rig.report(0.7);
    rig.fence(Some(Fence::Twin));
    rig.report(0.3);
    assert_eq!(rig.bridge.band(), Band::Isolated);
}

#[test]
fn p2_a_twin_that_is_seen_revokes_what_is_unsent_and_asks_for_an_echo() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    rig.report(0.3);
    rig.fence(Some(Fence::Twin));
    assert_eq!(revoked_and_pending(&rig), (1, 0));
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.fence(Some(Fence::Twin));
    let closing = rig.report(0.7);
    store_all(&mut rig);
    echo_all(&mut rig);
    let reply = rig.answers().remove(&closing).expect("answered");
    assert_eq!(reply.barrier, Some(Barrier::Confirmed));
}

#[test]
fn a_reload_revokes_what_waits_for_a_peer_that_it_removes() {
    let mut rig = Rig::new(settings("planner", &["critic", "monitor"]));
    rig.report(0.3);
    assert_eq!(revoked_and_pending(&rig), (0, 2));
    rig.reload(live(&["monitor"]));
    assert_eq!(revoked_and_pending(&rig), (1, 1));
}

#[test]
fn a_reload_that_lets_caution_block_revokes_what_waits_in_caution() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    rig.report(0.3);
    rig.report(0.46);
    assert_eq!((rig.bridge.band(), revoked_and_pending(&rig)), (Band::Caution, (0, 1)));
    rig.reload(Live { caution_blocks: true, ..live(&["critic"]) });
    assert_eq!(revoked_and_pending(&rig), (1, 0));
}

#[test]
fn p10_a_read_of_the_own_name_is_waited_for_and_not_asked_after() {
    let mut setup = settings("planner", &["critic"]);
    let instance = Instance::new(1);
    setup.identity.life = Some(Life { instance, version: "0".to_owned() });
    let mut rig = Rig::new(setup);
    rig.connect();
    let deadline = rig.bridge.deadline(rig.now);
    assert!(deadline > rig.now.mono, "wants to be woken at once, until the broker answers");
}
