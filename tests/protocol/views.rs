//! What the bridge tells of itself, and what of a snapshot goes into packets.

#![allow(clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use crate::support::rig::{Rig, Setup, id, settings};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::packet::Posture;
use driftgate::protocol::view::PacketStatus;

const STORED: Outcome = Outcome::Stored { stream_seq: 9, duplicate: false };

fn store_all(rig: &mut Rig) {
    for (token, _) in rig.published() {
        rig.answered(token, STORED);
    }
}

fn echo_all(rig: &mut Rig) {
    for id in rig.confirms() {
        rig.confirm(id);
    }
}

fn settled(rig: &mut Rig, di: f64) {
    rig.report(di);
    store_all(rig);
    echo_all(rig);
}

#[test]
fn safety_says_in_words_what_would_reopen_the_gate() {
    let mut patient = settings("planner", &["critic"]);
    patient.live.policy.dwell = 3;
    let would_reopen = |settings: Setup, reports: &[f64], hold: bool| {
        let mut rig = Rig::new(settings);
        for di in reports {
            settled(&mut rig, *di);
        }
        rig.hold(hold);
        rig.bridge.safety(rig.now).would_reopen
    };
    let plain = settings("planner", &["critic"]);
    let words = "a report with di < 0.45, posture stable and native drift metrics";
    assert_eq!(would_reopen(plain.clone(), &[], false).as_deref(), Some(words));
    assert_eq!(would_reopen(plain.clone(), &[0.3], false), None);
    assert_eq!(would_reopen(plain.clone(), &[0.3, 0.46], false), None);
    let held = format!("an operator's release, then {words}");
    assert_eq!(would_reopen(plain, &[0.3], true), Some(held));
    let three = words.replace("a report", "3 reports in a row");
    assert_eq!(would_reopen(patient, &[], false), Some(three));
}

#[test]
fn field_state_shows_the_newest_report_and_nothing_while_isolated() {
    let mut rig = Rig::connected();
    assert_eq!((rig.bridge.drift_index(), rig.bridge.is_pulling()), (None, true));
    settled(&mut rig, 0.3);
    let index = rig.bridge.drift_index().expect("a report was judged");
    assert!((index - 0.3).abs() < 1e-9);
    let shown = rig.bridge.field_state(rig.now).expect("the gate is open");
    assert_eq!((shown.runtime_id, shown.band, shown.cycle), (id("planner"), Band::Open, Some(1)));
    assert_eq!((shown.di, shown.posture), (Some(index), Posture::Stable));
    assert_eq!((shown.drift_source, shown.peers.len()), ("native", 0));
    settled(&mut rig, 0.65);
    assert!(rig.bridge.field_state(rig.now).is_none());
    assert!(!rig.bridge.is_pulling());
}

#[test]
fn what_waits_for_the_broker_is_answered_as_it_stands_when_the_connection_ends() {
    let mut rig = Rig::connected();
    let seq = rig.report(0.3);
    assert!(rig.answers().is_empty());
    rig.disconnect();
    let reply = rig.answers().remove(&seq).expect("there is nobody left to wait for");
    assert!(reply.packets.iter().all(|packet| packet.status == PacketStatus::Pending));
}

#[test]
fn alarms_and_silences_are_counted() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let used = Outcome::Stored { stream_seq: 9, duplicate: true };
    for (token, _) in rig.published().into_iter().take(2) {
        rig.answered(token, used);
    }
    assert_eq!((rig.bridge.duplicate_alarms(), rig.bridge.unanswered()), (2, 0));
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.bridge.unanswered(), 1);
    for (token, _) in rig.published() {
        rig.answered(token, used);
    }
    assert_eq!(rig.bridge.duplicate_alarms(), 2, "of the second attempt it is no alarm");
}

#[test]
fn closing_times_are_those_from_verdict_to_echo() {
    let mut rig = Rig::connected();
    settled(&mut rig, 0.3);
    rig.report(0.55);
    rig.wait(Duration::from_millis(70));
    assert!(rig.bridge.take_closing_times().is_empty());
    echo_all(&mut rig);
    assert_eq!(rig.bridge.take_closing_times(), [Duration::from_millis(70)]);
    assert!(rig.bridge.take_closing_times().is_empty());
}

/// The `memory_snapshot` of the packet for `target`, when `retention` is reported.
fn link(rig: &mut Rig, retention: Option<f64>, target: &str) -> Option<Json> {
    rig.cycle += 1;
    let memory = retention
        .map(|retention| format!(r#","memory_snapshot": {{"retention_index": {retention}}}"#));
    let text = format!(
        r#"{{"cycle": {}, "attractor_state": {{"id": "a-1", "type": "symbolic",
            "stability": 0.9, "phase": "stable", "scr": 0.9}},
            "drift_metrics": {{"sdi": 0.1, "sv": 0.1, "pd": 0.1}}{}}}"#,
        rig.cycle,
        memory.as_deref().unwrap_or_default(),
    );
    rig.report_document(&Json::parse(text.as_bytes()).expect("JSON"));
    let mut found = None;
    for (token, packet) in rig.published() {
        if packet.target() == &id(target) {
            let packet = Json::parse(packet.bytes()).expect("a packet");
            found = packet.pointer("/payload/memory_snapshot").cloned();
        }
        rig.answered(token, STORED);
    }
    found
}

#[test]
fn a_packet_links_a_stored_snapshot_that_is_retained_well_enough() {
    let mut settings = settings("planner", &["critic", "monitor"]);
    settings.live.peers.get_mut(&id("monitor")).expect("a peer").export_snapshot = false;
    let mut rig = Rig::new(settings);
    rig.connect();
    assert_eq!(link(&mut rig, Some(0.9), "critic"), None, "no snapshot yet");
    let digest = Digest::from_bytes([10; 32]);
    rig.stored(digest, None);
    let linked = link(&mut rig, Some(0.7), "critic").expect("retained well enough");
    assert_eq!(linked.pointer("/summary_hash"), Some(&Json::String(digest.to_string())));
    assert_eq!(linked.pointer("/retention_index"), Some(&Json::Number(0.7)));
    assert_eq!(link(&mut rig, Some(0.699), "critic"), None, "SPEC R43");
    assert_eq!(link(&mut rig, None, "critic"), None, "nobody makes a retention up");
    assert_eq!(link(&mut rig, Some(0.9), "monitor"), None, "not authorised for snapshots");
}
