//! Memory snapshots: a closing waits for the uploads, and revokes them (P2, P4, P5).

use std::time::Duration;

use driftgate::protocol::bridge::Effect;
use driftgate::protocol::view::Barrier;

use super::{echo_all, reported, store_all};
use crate::support::rig::Rig;

fn stops(rig: &mut Rig) -> Vec<Option<u64>> {
    let mut stops = Vec::new();
    rig.effects.retain(|effect| match effect {
        Effect::StopUploads { revoke_to } => {
            stops.push(*revoke_to);
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
    let accepted = rig.bridge.grant_upload(rig.now).unwrap();
    let closing = rig.report(0.55);
    let stops = stops(&mut rig);
    assert!(matches!(stops[..], [Some(revoke_to)] if revoke_to >= accepted), "{stops:?}");
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
    rig.bridge.grant_upload(rig.now).unwrap();
    reported(&mut rig, 0.31);
    assert!(stops(&mut rig).is_empty());
    assert!(rig.bridge.may_upload());
}

#[test]
fn p2_an_upload_that_does_not_become_quiet_is_severed_and_the_reply_says_so() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.grant_upload(rig.now).unwrap();
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
    rig.bridge.grant_upload(rig.now).unwrap();
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
    rig.bridge.grant_upload(rig.now).unwrap();
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
    rig.bridge.grant_upload(rig.now).unwrap();
    reported(&mut rig, 0.47);
    assert_eq!(stops(&mut rig), [None]);
    assert!(!rig.bridge.may_upload());
    reported(&mut rig, 0.3);
    assert!(rig.bridge.may_upload());
}

#[test]
fn p5_a_closed_verdict_revokes_what_an_earlier_life_accepted() {
    let mut rig = Rig::connected();
    rig.bridge.recovered(u64::MAX / 2, true);
    rig.report(0.52);
    let stops = stops(&mut rig);
    assert!(matches!(stops[..], [Some(revoke_to)] if revoke_to > u64::MAX / 2), "{stops:?}");
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
