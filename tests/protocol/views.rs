//! What the bridge tells of itself, and what of a snapshot goes into packets.

#![allow(clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use crate::support::rig::{Rig, Setup, id, settings};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::packet::Posture;
use driftgate::protocol::view::{EndsView, PacketStatus};

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
    assert_eq!((shown.drift_source, shown.peers.len()), ("native", 3));
    let metrics = shown.drift_metrics;
    assert_eq!((metrics.scr, metrics.di), (Some(1.0), Some(index)));
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
    assert_eq!(link(&mut rig, Some(0.699), "critic"), None, "retained too little");
    assert_eq!(link(&mut rig, None, "critic"), None, "nobody makes a retention up");
    assert_eq!(link(&mut rig, Some(0.9), "monitor"), None, "not authorised for snapshots");
}

/// R29, R33: what is not known is null, never 0.
#[test]
fn an_attractor_is_found_by_its_id_ours_or_a_peers() {
    let mut critic = Rig::new(settings("critic", &["planner"]));
    critic.connect();
    critic.report(0.3);
    let (_, packet) = critic.published().remove(0);
    let mut rig = Rig::connected();
    rig.receive(("critic", "planner"), packet.bytes());
    let shown = |rig: &Rig, id: &str| {
        let view = rig.bridge.attractor(rig.now, id);
        view.map(|view| serde_json::to_value(view).expect("a document"))
    };
    assert_eq!(shown(&rig, "nobody's"), None);
    let theirs = shown(&rig, "a-1").expect("the critic's: ours has not reported yet");
    assert_eq!((&theirs["source"], &theirs["external"]), (&"critic".into(), &true.into()));
    settled(&mut rig, 0.4);
    let ours = shown(&rig, "a-1").expect("ours comes first");
    assert_eq!((&ours["source"], &ours["external"]), (&"planner".into(), &false.into()));
    assert_eq!((&ours["type"], &ours["lifecycle_state"]), (&"symbolic".into(), &"stable".into()));
    for unknown in [
        "name",
        "motifs",
        "stability_index",
        "phase_stability_delta",
        "density",
        "phase_shift_delta",
        "phase_alignment",
        "created_at",
        "origin_cycle",
        "parent_id",
        "tags",
    ] {
        assert!(ours.get(unknown).is_some_and(serde_json::Value::is_null), "{unknown}");
    }
}

/// Every configured peer, and why there is nothing of it.
#[test]
fn field_state_says_of_each_peer_how_much_is_exchanged_and_why_there_is_no_packet() {
    let mut setup = settings("planner", &["critic", "deaf", "gone", "monitor", "scribe"]);
    let live = &mut setup.live;
    live.peers.get_mut(&id("deaf")).expect("a peer").import_state = false;
    live.peers.get_mut(&id("gone")).expect("a peer").expires =
        driftgate::protocol::time::Timestamp::parse("2025-01-01T00:00:00Z");
    let mut rig = Rig::new(setup);
    rig.connect();
    settled(&mut rig, 0.3);
    let mut critic = Rig::new(settings("critic", &["planner"]));
    critic.connect();
    critic.report(0.3);
    let (_, packet) = critic.published().remove(0);
    rig.receive(("critic", "planner"), packet.bytes());
    rig.receive(("scribe", "planner"), b"{}");
    rig.learn("scribe", Err(driftgate::protocol::exchange::ModeReason::ManifestForged));
    let peers = |rig: &Rig| {
        let state = rig.bridge.field_state(rig.now).expect("not isolated");
        let state = serde_json::to_value(state).expect("a document");
        let peers = state["peers"].as_array().cloned().expect("a list");
        peers
            .into_iter()
            .map(|peer| (peer["source"].as_str().expect("an id").to_owned(), peer))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let shown = peers(&rig);
    let absent: Vec<_> = shown.values().map(|peer| peer["absent"].as_str()).collect();
    let expected =
        [None, Some("unauthorised"), Some("unauthorised"), Some("never_heard"), Some("refused")];
    assert_eq!(absent, expected);
    assert!(shown["critic"]["packet"]["signature"].is_object());
    assert!(shown["critic"]["age_s"].as_f64().is_some_and(|age| age >= 0.0));
    assert_eq!(shown["scribe"]["refused"]["fault"], "malformed");
    assert_eq!(shown["scribe"]["mode_reason"], "manifest_forged");
    assert_eq!(shown["gone"]["authorised_until"], "2025-01-01T00:00:00.000Z");
    assert!(shown.values().all(|peer| peer["external"] == true && peer["mode"].is_string()));
    settled(&mut rig, 0.3);
    rig.wait(Duration::from_secs(100));
    settled(&mut rig, 0.3);
    rig.wait(Duration::from_secs(100));
    settled(&mut rig, 0.3);
    rig.wait(Duration::from_secs(101));
    let shown = peers(&rig);
    assert_eq!(shown["critic"]["absent"], "expired");
    assert!(shown["critic"].get("packet").is_none());
}

#[test]
fn safety_says_what_left_for_each_target_and_what_was_confirmed_after_it() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    rig.connect();
    let target = |rig: &Rig| rig.bridge.safety(rig.now).targets.first().cloned();
    let first = target(&rig).expect("whom the configuration exports to");
    assert_eq!((first.stream_seq, first.ends, first.authorised), (None, EndsView::default(), true));
    settled(&mut rig, 0.3);
    let left = target(&rig).expect("a target");
    assert_eq!((left.stream_seq, left.pending, left.barrier), (Some(9), 0, None));
    assert_eq!((left.stored_at, left.ends.stored), (Some(rig.now.wall), 1));
    settled(&mut rig, 0.55);
    let closed = target(&rig).expect("a target");
    assert_eq!((closed.seq, closed.stored_at), (left.seq, left.stored_at), "nothing left since");
    assert_eq!(closed.ends, EndsView { stored: 1, held: 1, ..EndsView::default() });
    assert_eq!(closed.barrier, Some(driftgate::protocol::view::Barrier::Confirmed));
    let reopening = rig.bridge.safety(rig.now).reopening.expect("closed");
    assert!((reopening.di_below - 0.45).abs() < 1e-9 && !reopening.operator_release);
    settled(&mut rig, 0.3);
    assert_eq!(target(&rig).expect("a target").barrier, None);
    assert!(rig.bridge.safety(rig.now).reopening.is_none());
    // The doubt of a connection that ended has an end.
    rig.report(0.3);
    rig.disconnect();
    let safety = rig.bridge.safety(rig.now);
    assert!(safety.in_doubt && safety.in_doubt_until.is_some_and(|until| until > rig.now.wall));
}
