//! What closes and opens the gate: silence, epochs, unreadable reports, operators (P1, P3, P6).

use std::time::Duration;

use driftgate::protocol::bridge::Memory;
use driftgate::protocol::canonical::Json;
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::view::Decision;

use super::{echo_all, reported};
use crate::support::rig::{Rig, settings};

#[test]
fn p6_silence_blocks_and_only_a_good_report_reopens() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.wait(Duration::from_millis(119_999));
    assert_eq!(rig.bridge.band(), Band::Open);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    assert_eq!(rig.bridge.safety(rig.now).reasons, [Reason::Stale]);
    assert_eq!(reported(&mut rig, 0.46).band, Band::Blocked);
    assert_eq!(reported(&mut rig, 0.44).band, Band::Open);
}

#[test]
fn p6_silence_isolates_only_where_that_is_configured() {
    let mut rig = Rig::connected();
    rig.wait(Duration::from_secs(86_400));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    let mut settings = settings("planner", &["critic"]);
    settings.live.silence_isolates_after = Some(Duration::from_secs(300));
    let mut rig = Rig::new(settings);
    rig.wait(Duration::from_secs(300));
    assert_eq!(rig.bridge.band(), Band::Isolated);
}

#[test]
fn p6_blocked_for_too_long_isolates_where_that_is_configured() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.isolate_after = Some(Duration::from_secs(60));
    let mut rig = Rig::new(settings);
    rig.wait(Duration::from_secs(59));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(rig.bridge.safety(rig.now).reasons, [Reason::BlockedTooLong]);
}

#[test]
fn p6_a_report_that_cannot_be_read_closes_and_never_opens() {
    let mut rig = Rig::connected();
    let bad = Json::parse(br#"{"attractor_state": {"scr": 0}, "drift_metrics": {"sdi": 0.1}}"#)
        .expect("JSON");
    rig.report_document(&bad);
    assert_eq!(rig.bridge.band(), Band::Blocked);
    reported(&mut rig, 0.3);
    rig.report_document(&bad);
    assert_eq!(rig.bridge.band(), Band::Blocked);
    assert_eq!(rig.bridge.counters().malformed, 2);
}

#[test]
fn p6_a_duplicate_cycle_is_no_evidence() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    reported(&mut rig, 0.55);
    rig.cycle -= 1;
    let reply = reported(&mut rig, 0.1);
    assert_eq!(reply.band, Band::Blocked);
    assert!(reply.reasons.contains(&Reason::DuplicateCycle));
}

#[test]
fn a_cycle_number_that_falls_back_opens_an_epoch_and_does_not_inherit_caution() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    reported(&mut rig, 0.46);
    rig.cycle = 0;
    let reply = reported(&mut rig, 0.46);
    assert_eq!(reply.band, Band::Blocked);
    assert!(reply.reasons.contains(&Reason::NewEpoch));
    assert_eq!(rig.bridge.safety(rig.now).epoch, 1);
    assert_eq!(
        rig.bridge.safety(rig.now).transitions.back().map(|last| last.from),
        Some(Band::Caution)
    );
}

#[test]
fn p1_a_reflective_or_unknown_phase_exports_nothing_whatever_the_index() {
    for (phase, band) in [
        ("reflective", Band::Blocked),
        ("Reflection", Band::Blocked),
        ("daydreaming", Band::Blocked),
        ("recenter", Band::Isolated),
        ("fragmenting", Band::Isolated),
    ] {
        let mut rig = Rig::connected();
        reported(&mut rig, 0.1);
        rig.report_in(0.1, phase);
        assert!(rig.published().is_empty(), "{phase}");
        assert_eq!(rig.bridge.band(), band, "{phase}");
    }
}

#[test]
fn sequence_numbers_rise_across_restarts_and_clock_steps() {
    let mut rig = Rig::connected();
    let first = rig.report(0.3);
    rig.now.wall = driftgate::protocol::time::Timestamp::from_unix_ms(0);
    let second = rig.report(0.3);
    assert_eq!(second, first + 1);
    let memory = Memory { seq: second + 60_000_000, ..rig.bridge.memory(rig.now) };
    let mut restarted = Rig::with(settings("planner", &["critic"]), memory);
    assert!(restarted.report(0.3) > second);
}

#[test]
fn an_operators_hold_isolates_and_its_release_waits_for_a_good_report() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.hold(true);
    echo_all(&mut rig);
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(reported(&mut rig, 0.1).verdict, Decision::Isolate);
    rig.hold(false);
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(reported(&mut rig, 0.46).band, Band::Isolated);
    assert_eq!(reported(&mut rig, 0.1).band, Band::Open);
}
