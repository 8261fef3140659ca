//! What the broker may still have to read, and who says so: notices, manifests, lives that ended.

use std::time::Duration;

use driftgate::protocol::audit::Event;
use driftgate::protocol::bridge::{Effect, LINGER_MAX, Memory};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;
use driftgate::protocol::view::Barrier;

use super::{echo_all, reported, store_all};
use crate::support::rig::{Rig, settings};

/// How the closing ends whose report says 0.55, with a broker that stores and echoes.
fn closing(rig: &mut Rig) -> Option<Barrier> {
    let closing = rig.report(0.55);
    store_all(rig);
    echo_all(rig);
    rig.answers().remove(&closing).expect("answered").barrier
}

fn open() -> Rig {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    assert!(!rig.bridge.in_doubt(rig.now), "all of it is acknowledged");
    rig
}

fn reconnect(rig: &mut Rig) {
    rig.disconnect();
    rig.connect();
}

#[test]
fn p2_a_notice_that_may_be_unread_leaves_a_doubt() {
    let mut rig = open();
    // Throttled: of this report only the notice goes out.
    rig.report(0.46);
    assert!(rig.published().is_empty());
    assert!(rig.effects.iter().any(|effect| matches!(effect, Effect::Notify(_))));
    assert!(rig.bridge.in_doubt(rig.now));
    reconnect(&mut rig);
    assert_eq!(closing(&mut rig), Some(Barrier::Unconfirmed));
}

#[test]
fn p2_a_manifest_that_may_be_unread_leaves_a_doubt() {
    let mut rig = open();
    rig.stored(Digest::of(b""), Some(b"{}"));
    assert!(rig.effects.iter().any(|effect| matches!(effect, Effect::Announce(_))));
    assert!(rig.bridge.in_doubt(rig.now));
    reconnect(&mut rig);
    assert_eq!(closing(&mut rig), Some(Barrier::Unconfirmed));
}

#[test]
fn p2_what_was_sent_before_an_echo_or_an_acknowledgement_is_read() {
    let mut rig = open();
    rig.stored(Digest::of(b""), Some(b"{}"));
    reported(&mut rig, 0.3);
    assert!(!rig.bridge.in_doubt(rig.now), "the packet went out after the manifest");
    rig.report(0.46);
    assert_eq!(closing(&mut rig), Some(Barrier::Confirmed), "the echo came after the notice");
    assert!(!rig.bridge.in_doubt(rig.now));
    reconnect(&mut rig);
    reported(&mut rig, 0.3);
    assert_eq!(closing(&mut rig), Some(Barrier::Confirmed));
}

#[test]
fn p2_an_upload_that_caution_stopped_unconfirmed_leaves_a_doubt() {
    let mut rig = open();
    rig.bridge.grant_push(rig.now).unwrap();
    rig.report(0.46);
    rig.uploads_quiet(false);
    let closing = rig.report(0.55);
    store_all(&mut rig);
    echo_all(&mut rig);
    rig.uploads_quiet(true);
    let reply = rig.answers().remove(&closing).expect("answered");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
}

#[test]
fn p1_no_manifest_is_announced_unless_the_gate_is_open() {
    for di in [0.46, 0.55, 0.7] {
        let mut rig = open();
        rig.report(di);
        rig.stored(Digest::of(b""), Some(b"{}"));
        assert!(!rig.effects.iter().any(|effect| matches!(effect, Effect::Announce(_))), "{di}");
    }
}

#[test]
fn p2_nothing_is_sent_between_the_end_of_a_closing_and_an_opening() {
    let mut rig = open();
    // Isolated, reopened and blocked while the broker does not answer: the notice of the block has
    // no time left for an echo of its own.
    rig.report(0.7);
    rig.report(0.3);
    rig.report(0.55);
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    rig.connect();
    rig.wait(Duration::from_secs(2));
    let is_end = |effect: &Effect| matches!(effect, Effect::Record(Event::Barrier(_)));
    let end = rig.effects.iter().position(is_end).expect("it ends in time");
    let sent = rig.effects[end..].iter().find(|effect| {
        matches!(effect, Effect::Publish { .. } | Effect::Notify(_) | Effect::Announce(_))
    });
    assert!(sent.is_none(), "{sent:?}");
}

#[test]
fn p2_a_life_that_was_killed_with_packets_unread_leaves_its_doubt_to_the_next() {
    let mut killed = open();
    killed.report(0.3);
    let memory = killed.bridge.memory(killed.now);
    assert!(memory.in_doubt, "three packets are in flight");
    let mut rig = Rig::with(settings("planner", &["critic"]), memory.clone());
    rig.connect();
    reported(&mut rig, 0.3);
    assert!(rig.bridge.safety(rig.now).in_doubt);
    assert_eq!(closing(&mut rig), Some(Barrier::Unconfirmed));
    let mut late = Rig::with(settings("planner", &["critic"]), memory);
    late.connect();
    late.wait(LINGER_MAX);
    reported(&mut late, 0.3);
    assert_eq!(closing(&mut late), Some(Barrier::Confirmed), "nobody waits for longer than that");
    let clean = Memory { in_doubt: false, ..killed.bridge.memory(killed.now) };
    let mut rig = Rig::with(settings("planner", &["critic"]), clean);
    rig.connect();
    reported(&mut rig, 0.3);
    assert_eq!(closing(&mut rig), Some(Barrier::Confirmed));
}

#[test]
fn p2_an_uploader_that_answers_an_older_order_leaves_its_doubt() {
    let mut rig = open();
    let effects = rig.bridge.uploads_unread(rig.now);
    assert!(effects.is_empty());
    assert_eq!(closing(&mut rig), Some(Barrier::Unconfirmed));
}
