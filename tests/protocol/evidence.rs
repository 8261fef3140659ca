//! What counts as evidence, cycle by cycle: restarts, repetitions, critical marks, collapse.

use std::time::Duration;

use driftgate::protocol::canonical::Json;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::gate::{Band, Reason};

use serde_json::json;

use crate::support::rig::{Rig, settings};
use crate::support::traces::reference_03;

/// The parts of one native report.
#[derive(Clone, Copy)]
struct Parts {
    sdi: f64,
    sv: f64,
    pd: f64,
    scr: f64,
    stability: f64,
}

const CALM: Parts = Parts { sdi: 0.1, sv: 0.1, pd: 0.1, scr: 0.9, stability: 0.9 };

/// Reports these parts as cycle `cycle`; gives the band and its reasons.
fn reported(rig: &mut Rig, cycle: u64, parts: Parts) -> (Band, Vec<Reason>) {
    let Parts { sdi, sv, pd, scr, stability } = parts;
    let text = format!(
        r#"{{"cycle": {cycle},
            "attractor_state": {{"id": "a-1", "type": "symbolic", "stability": {stability},
                                 "phase": "stable", "scr": {scr}}},
            "drift_metrics": {{"sdi": {sdi}, "sv": {sv}, "pd": {pd}}}}}"#
    );
    let document = Json::parse(text.as_bytes()).unwrap();
    rig.report_document(&document);
    (rig.bridge.band(), rig.bridge.safety(rig.now).reasons)
}

#[test]
fn each_native_part_closes_past_its_critical_mark_and_not_on_it() {
    let rows = [
        (Parts { sdi: 0.55, ..CALM }, None),
        (Parts { sdi: 0.5501, ..CALM }, Some(Reason::SdiCritical)),
        (Parts { sv: 0.65, ..CALM }, None),
        (Parts { sv: 0.6501, ..CALM }, Some(Reason::SvCritical)),
        (Parts { pd: 0.45, ..CALM }, None),
        (Parts { pd: 0.4501, ..CALM }, Some(Reason::PdCritical)),
        (Parts { scr: 0.45, ..CALM }, None),
        (Parts { scr: 0.4499, ..CALM }, Some(Reason::ScrCritical)),
    ];
    for (parts, critical) in rows {
        let mut rig = Rig::connected();
        let (band, reasons) = reported(&mut rig, 1, parts);
        match critical {
            None => {
                assert_eq!(band, Band::Open);
                assert!(reasons.iter().all(|reason| reason.is_remark()), "{reasons:?}");
            }
            Some(reason) => {
                // All of these have an index under 0.45: the part alone closes.
                assert!(rig.bridge.drift_index().unwrap() < 0.45);
                assert_eq!(band, Band::Blocked);
                assert!(reasons.contains(&reason), "{reasons:?}");
            }
        }
    }
}

/// A bridge for the reference runtime of version 0.3, which reports neither SV nor PD nor SCR.
fn derived() -> Rig {
    let mut settings = settings("planner", &["critic"]);
    settings.live.policy.accept = Provenance::Derived;
    settings.live.policy.assumed_scr = driftgate::protocol::drift::Coherence::new(0.8);
    settings.identity.profile = driftgate::profiles::load("reference-0.3").unwrap();
    Rig::new(settings)
}

#[test]
fn a_derived_part_never_trips_a_critical_mark_or_a_collapse() {
    let mut rig = derived();
    let mut reasons = Vec::new();
    for cycle in 1..=12 {
        // Semantic drift far past its mark, and low stability, cycle after cycle.
        let mut document = reference_03(cycle, 0.3);
        document["drift_metrics"]["semantic"] = json!(0.8);
        document["attractor_state"]["stability"] = json!(0.2);
        let document = Json::parse(document.to_string().as_bytes()).unwrap();
        let ticket = rig.report_document(&document);
        rig.wait(Duration::from_secs(5));
        let reply = rig.answers().remove(&ticket).expect("the profile reads it");
        if cycle > 1 {
            assert_eq!(reply.drift_source, "derived");
            assert!(reply.reasons.contains(&Reason::DiIsolate), "{:?}", reply.reasons);
        }
        reasons.extend(reply.reasons);
    }
    let native_only = [
        Reason::SdiCritical,
        Reason::SvCritical,
        Reason::PdCritical,
        Reason::ScrCritical,
        Reason::Collapse,
    ];
    assert!(!reasons.iter().any(|reason| native_only.contains(reason)), "{reasons:?}");
}

#[test]
fn collapse_takes_more_than_three_unstable_cycles_and_weak_coherence_or_phase_drift() {
    let unstable = Parts { stability: 0.49, scr: 0.59, ..CALM };
    let mut rig = Rig::connected();
    for cycle in 1..=3 {
        assert_eq!(reported(&mut rig, cycle, unstable).0, Band::Open, "cycle {cycle}");
    }
    let (band, reasons) = reported(&mut rig, 4, unstable);
    assert_eq!(band, Band::Isolated);
    assert!(reasons.contains(&Reason::Collapse), "{reasons:?}");
    // Either sign will do, neither will not, and on the mark is not past it.
    for (parts, band) in [
        (Parts { stability: 0.49, pd: 0.2501, ..CALM }, Band::Isolated),
        (Parts { stability: 0.49, pd: 0.25, ..CALM }, Band::Open),
        (Parts { stability: 0.49, scr: 0.6, ..CALM }, Band::Open),
        (Parts { stability: 0.5, scr: 0.59, ..CALM }, Band::Open),
    ] {
        let mut rig = Rig::connected();
        let last = (1..=8).map(|cycle| reported(&mut rig, cycle, parts).0).last();
        assert_eq!(last, Some(band));
    }
}

#[test]
fn a_stable_cycle_ends_the_count_towards_collapse_and_a_repeated_one_adds_nothing() {
    let unstable = Parts { stability: 0.49, scr: 0.59, ..CALM };
    let mut rig = Rig::connected();
    for cycle in 1..=12 {
        let parts = if cycle % 4 == 0 { CALM } else { unstable };
        assert_eq!(reported(&mut rig, cycle, parts).0, Band::Open, "cycle {cycle}");
    }
    let mut rig = Rig::connected();
    for cycle in [1, 2, 2, 2, 2, 3, 3] {
        let (band, reasons) = reported(&mut rig, cycle, unstable);
        assert_ne!(band, Band::Isolated, "{reasons:?}");
    }
    // A calm repetition of an unstable cycle does not end the count either.
    reported(&mut rig, 3, CALM);
    assert_eq!(reported(&mut rig, 4, unstable).0, Band::Isolated);
}

#[test]
fn a_runtime_that_restarts_begins_its_count_towards_collapse_anew() {
    let unstable = Parts { stability: 0.49, scr: 0.59, ..CALM };
    let mut rig = Rig::connected();
    for cycle in [7, 8, 9, 1, 2, 3] {
        let band = if cycle == 1 { Band::Blocked } else { Band::Open };
        assert_eq!(reported(&mut rig, cycle, unstable).0, band, "cycle {cycle}");
    }
    assert_eq!(rig.bridge.safety(rig.now).epoch, 1);
    assert_eq!(reported(&mut rig, 4, unstable).0, Band::Isolated);
}

#[test]
fn repeating_one_cycle_is_silence() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.silence_isolates_after = Some(Duration::from_secs(300));
    let mut rig = Rig::new(settings);
    assert_eq!(reported(&mut rig, 1, CALM).0, Band::Open);
    for second in 1..=299 {
        rig.wait(Duration::from_secs(1));
        let band = if second < 120 { Band::Open } else { Band::Blocked };
        assert_eq!(reported(&mut rig, 1, CALM).0, band, "a retry feeds no silence");
    }
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(rig.bridge.safety(rig.now).reasons, [Reason::Silent]);
}

#[test]
fn each_fall_of_the_cycle_number_is_an_epoch_and_none_opens_what_is_held_or_bad() {
    let mut rig = Rig::connected();
    for (cycle, di, band, epoch) in [
        (5, 0.1, Band::Open, 0),
        (1, 0.46, Band::Blocked, 1),
        (2, 0.1, Band::Open, 1),
        (1, 0.55, Band::Blocked, 2),
        (2, 0.7, Band::Isolated, 2),
        (1, 0.55, Band::Isolated, 3),
        (1, 0.1, Band::Isolated, 3),
        (2, 0.1, Band::Open, 3),
    ] {
        rig.cycle = cycle - 1;
        rig.report(di);
        assert_eq!(
            (rig.bridge.band(), rig.bridge.safety(rig.now).epoch),
            (band, epoch),
            "cycle {cycle}"
        );
    }
    rig.hold(true);
    rig.cycle = 0;
    rig.report(0.1);
    assert_eq!((rig.bridge.band(), rig.bridge.safety(rig.now).epoch), (Band::Isolated, 4));
}

#[test]
fn a_sidecar_that_restarts_begins_closed_whatever_it_was_before() {
    let mut rig = Rig::connected();
    rig.report(0.1);
    assert_eq!(rig.bridge.band(), Band::Open);
    let memory = rig.bridge.memory(rig.now);
    let mut restarted = Rig::with(settings("planner", &["critic"]), memory);
    assert_eq!(restarted.bridge.band(), Band::Blocked);
    restarted.connect();
    assert!(restarted.published().is_empty());
    restarted.cycle = rig.cycle;
    restarted.report(0.46);
    assert_eq!(restarted.bridge.band(), Band::Blocked, "no caution from a block");
    restarted.report(0.1);
    assert_eq!(restarted.bridge.band(), Band::Open);
    rig.hold(true);
    let held = Rig::with(settings("planner", &["critic"]), rig.bridge.memory(rig.now));
    assert_eq!(held.bridge.band(), Band::Isolated);
}
