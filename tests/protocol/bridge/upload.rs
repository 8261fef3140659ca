//! Memory snapshots: a closing waits for the uploads, and revokes them (P2, P4, P5).

use std::time::Duration;

use driftgate::protocol::bridge::{Effect, Memory};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::gate::Band;
use driftgate::protocol::view::Barrier;

use super::{echo_all, reported, store_all};
use crate::support::rig::{Rig, settings};

/// Orders to stop since the last call: whether each revokes.
fn stops(rig: &mut Rig) -> Vec<bool> {
    let mut stops = Vec::new();
    rig.effects.retain(|effect| match effect {
        Effect::StopUploads { revoke } => {
            stops.push(*revoke);
            false
        }
        _ => true,
    });
    stops
}

#[test]
fn p2_a_closing_waits_until_the_upload_is_quiet() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    assert!(rig.bridge.may_upload());
    rig.bridge.grant_push(rig.now).unwrap();
    let closing = rig.report(0.55);
    let stops = stops(&mut rig);
    assert_eq!(stops, [true]);
    echo_all(&mut rig);
    store_all(&mut rig);
    assert!(rig.answers().is_empty(), "the upload is not quiet");
    assert!(!rig.bridge.may_upload() && !rig.bridge.may_fetch());
    rig.uploads_quiet(true);
    let reply = rig.answers().remove(&closing).expect("the closing reply");
    assert_eq!(reply.barrier, Some(Barrier::Confirmed));
    assert!(rig.bridge.may_fetch(), "a blocked gate may still look at peers");
}

#[test]
fn a_report_that_leaves_the_gate_open_leaves_the_upload_alone() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.grant_push(rig.now).unwrap();
    reported(&mut rig, 0.31);
    assert!(stops(&mut rig).is_empty());
    assert!(rig.bridge.may_upload());
}

#[test]
fn p2_an_upload_that_does_not_become_quiet_is_severed_and_the_reply_says_so() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.grant_push(rig.now).unwrap();
    let closing = rig.report(0.55);
    echo_all(&mut rig);
    store_all(&mut rig);
    rig.wait(Duration::from_secs(2));
    assert!(rig.effects.iter().any(|effect| matches!(effect, Effect::SeverUploads)));
    assert!(!rig.effects.iter().any(|effect| matches!(effect, Effect::Sever)), "it echoed");
    let reply = rig.answers().remove(&closing).expect("the closing reply");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
}

#[test]
fn an_upload_that_was_cut_unconfirmed_makes_the_closing_unconfirmed() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.grant_push(rig.now).unwrap();
    let closing = rig.report(0.7);
    rig.uploads_quiet(false);
    store_all(&mut rig);
    echo_all(&mut rig);
    let reply = rig.answers().remove(&closing).expect("the closing reply");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
}

#[test]
fn a_closing_without_a_broker_waits_for_the_upload_too() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.grant_push(rig.now).unwrap();
    rig.disconnect();
    let closing = rig.report(0.55);
    assert!(rig.answers().is_empty());
    rig.uploads_quiet(true);
    assert!(rig.answers().contains_key(&closing));
}

#[test]
fn caution_holds_snapshots_back_and_revokes_none() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.grant_push(rig.now).unwrap();
    reported(&mut rig, 0.47);
    assert_eq!(stops(&mut rig), [false]);
    assert!(!rig.bridge.may_upload());
    reported(&mut rig, 0.3);
    assert!(rig.bridge.may_upload());
}

/// Whether a report of this kind, the first of this life, revokes what an earlier life accepted.
fn revokes_earlier(report: impl Fn(&mut Rig)) -> bool {
    let mut rig = Rig::connected();
    rig.recovered(7, true);
    report(&mut rig);
    store_all(&mut rig);
    echo_all(&mut rig);
    let is_revoked = stops(&mut rig).contains(&true);
    if !is_revoked {
        rig.answers();
        reported(&mut rig, 0.3);
        assert!(rig.bridge.may_upload(), "it waits for the first opening");
    }
    is_revoked
}

#[test]
fn p5_a_start_is_no_closing_and_revokes_nothing_of_an_earlier_life() {
    let unread: fn(&mut Rig) = |rig| _ = rig.report_document(&Json::Null);
    let weak = [
        ("a document that breaks its profile", unread),
        ("what is no document", |rig| _ = rig.unreadable()),
        ("0.46 cannot reopen", |rig| _ = rig.report(0.46)),
        ("an unknown phase", |rig| _ = rig.report_in(0.3, "dreaming")),
        ("silence", |rig| rig.wait(Duration::from_secs(600))),
    ];
    for (what, report) in weak {
        assert!(!revokes_earlier(report), "{what} is no evidence of instability");
    }
}

#[test]
fn letting_go_of_a_hold_is_no_evidence_of_instability() {
    let memory = Memory { operator_hold: true, ..Memory::default() };
    let mut rig = Rig::with(settings("planner", &["critic"]), memory);
    rig.recovered(7, true);
    rig.hold(false);
    assert!(stops(&mut rig).is_empty());
    rig.hold(true);
    assert_eq!(stops(&mut rig), [true]);
}

#[test]
fn p5_evidence_of_instability_revokes_what_an_earlier_life_accepted() {
    let at_block: fn(&mut Rig) = |rig| _ = rig.report(0.5);
    let strong = [
        ("at the block mark", at_block),
        ("at the isolate mark", |rig| _ = rig.report(0.7)),
        ("Reflective", |rig| _ = rig.report_in(0.3, "reflective")),
        ("Recenter", |rig| _ = rig.report_in(0.3, "recenter")),
        ("an operator", |rig| _ = rig.hold(true)),
        ("a weak report, then a strong one", |rig| {
            rig.unreadable();
            rig.report(0.55);
        }),
    ];
    for (what, report) in strong {
        assert!(revokes_earlier(report), "{what} is evidence of instability");
    }
}

#[test]
fn p5_time_alone_isolates_without_revoking_and_evidence_after_it_revokes() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.isolate_after = Some(Duration::from_secs(60));
    let mut rig = Rig::new(settings);
    rig.connect();
    rig.recovered(7, true);
    rig.wait(Duration::from_secs(60));
    echo_all(&mut rig);
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(stops(&mut rig), [false], "its connection goes, and nothing is revoked");
    rig.uploads_quiet(true);
    rig.report(0.7);
    assert_eq!(stops(&mut rig), [true]);
}

#[test]
fn p5_what_is_found_in_the_spool_after_the_evidence_is_revoked_too() {
    let mut rig = Rig::connected();
    rig.report(0.7);
    rig.recovered(7, true);
    assert_eq!(stops(&mut rig), [true]);
    let mut rig = Rig::connected();
    rig.report(0.3);
    rig.unreadable();
    rig.recovered(7, true);
    assert_eq!(stops(&mut rig), [true], "it had opened, so this is a closing");
    let mut rig = Rig::connected();
    rig.report(0.7);
    reported(&mut rig, 0.3);
    rig.recovered(7, true);
    assert_eq!(stops(&mut rig), [true], "an opening before the spool is read undoes nothing");
}

#[test]
fn an_isolated_bridge_fetches_nothing_and_its_cut_waits_for_the_fetch() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    assert!(rig.bridge.may_fetch());
    rig.bridge.grant_fetch(rig.now).unwrap();
    let closing = rig.report(0.7);
    assert_eq!(stops(&mut rig).len(), 1);
    store_all(&mut rig);
    echo_all(&mut rig);
    assert!(rig.answers().is_empty());
    rig.uploads_quiet(true);
    assert!(rig.answers().contains_key(&closing));
    assert!(!rig.bridge.may_fetch());
}
