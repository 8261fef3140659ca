//! The rows of the table that need more than an index: contradictions, jumps, what is no evidence,
//! locks, flapping, what else a runtime measures, misspelt keys, shadow and judging again.

use std::time::Duration;

use driftgate::protocol::bridge::{Answer, Effect};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::{Coherence, Provenance};
use driftgate::protocol::gate::{Band, Mode, Reason, Thresholds};
use driftgate::protocol::judge::Flapping;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::view::{Decision, PacketStatus, ReportReply};
use serde_json::{Value, json};

use crate::support::rig::{Rig, Setup, settings};
use crate::support::traces::{native, reference_03};

/// One report and its reply, acknowledged and echoed; `None` where it was refused.
fn reply(rig: &mut Rig, document: &Value) -> Option<ReportReply> {
    let document = Json::parse(document.to_string().as_bytes()).expect("JSON");
    let ticket = rig.report_document(&document);
    for (token, _) in rig.published() {
        rig.answered(token, Outcome::Stored { stream_seq: 1, duplicate: false });
    }
    for id in rig.confirms() {
        rig.confirm(id);
    }
    rig.answers().remove(&ticket)
}

fn band(rig: &mut Rig, document: &Value) -> (Band, Vec<Reason>) {
    let reply = reply(rig, document).expect("a good report");
    (reply.band, reply.reasons)
}

/// The native shape with `value` put at `pointer`.
fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    document.pointer_mut(parent).expect("its parent")[key] = value;
    document
}

/// Coherence one and three equal parts, so that the index is `di`.
fn even(cycle: u64, di: f64) -> Value {
    let mut document = native(cycle, di);
    document["drift_metrics"] = json!({"sdi": di, "sv": di, "pd": di});
    with(document, "/attractor_state/scr", json!(1.0))
}

fn setup() -> Setup {
    settings("planner", &["critic"])
}

fn connected(setup: Setup) -> Rig {
    let mut rig = Rig::new(setup);
    rig.connect();
    rig
}

#[test]
fn each_row_closes_an_open_gate_by_its_reason() {
    let at = |pointer: &str, value: Value| with(native(2, 0.2), pointer, value);
    let rows = [
        (at("/drift_metrics/di", json!(0.3)), Band::Blocked, Reason::DiMismatch),
        (at("/drift_metrics/di", json!(0.1)), Band::Blocked, Reason::DiMismatch),
        (even(2, 0.44), Band::Blocked, Reason::DiJump),
        (even(2, 0.0), Band::Blocked, Reason::NoEvidence),
        (at("/attractor_state/phase", json!("Initializing")), Band::Blocked, Reason::NoEvidence),
        (native(1, 0.2), Band::Blocked, Reason::DuplicateCycle),
        (native(0, 0.2), Band::Blocked, Reason::NewEpoch),
        (at("/attractor_state/psi", json!(0.59)), Band::Isolated, Reason::PsiLow),
        (at("/attractor_state/psd", json!(0.15)), Band::Blocked, Reason::PsdHigh),
        (at("/memory_snapshot/er", json!(0.31)), Band::Isolated, Reason::ErHigh),
        (
            with(even(2, 0.3), "/attractor_state/scr", json!(0.42)),
            Band::Isolated,
            Reason::DiCritical,
        ),
    ];
    for (document, closed, reason) in rows {
        let mut rig = connected(setup());
        assert_eq!(band(&mut rig, &even(1, 0.03)).0, Band::Open);
        let (now, reasons) = band(&mut rig, &document);
        assert_eq!(now, closed, "{reason:?}: {reasons:?}");
        assert!(reasons.contains(&reason), "{reason:?}: {reasons:?}");
    }
}

#[test]
fn what_is_within_its_mark_closes_nothing() {
    let at = |pointer: &str, value: Value| with(native(2, 0.2), pointer, value);
    for document in [
        at("/drift_metrics/di", json!(0.4 / 2.4 + 0.0049)),
        even(2, 0.42),
        at("/attractor_state/psi", json!(0.6)),
        at("/attractor_state/psd", json!(0.1499)),
        at("/memory_snapshot/er", json!(0.3)),
        at("/memory_snapshot/ci", json!(0.1)),
        at("/memory_snapshot/cc", json!(0.1)),
    ] {
        let mut rig = connected(setup());
        band(&mut rig, &even(1, 0.03));
        assert_eq!(band(&mut rig, &document).0, Band::Open, "{document}");
    }
}

#[test]
fn a_bare_index_of_zero_is_no_evidence() {
    let mut setup = setup();
    setup.live.policy.accept = Provenance::Reported;
    for (di, expected) in [(0.0, Band::Blocked), (0.2, Band::Open)] {
        let mut rig = connected(setup.clone());
        let bare = json!({"cycle": 1, "attractor_state": {"phase": "stable"},
            "drift_metrics": {"di": di}});
        assert_eq!(band(&mut rig, &bare).0, expected, "{di}");
    }
}

#[test]
fn a_report_that_comes_late_does_not_open() {
    let mut rig = connected(setup());
    band(&mut rig, &native(5, 0.2));
    band(&mut rig, &even(6, 0.44));
    assert_eq!(
        band(&mut rig, &with(native(7, 0.2), "/drift_metrics/pd", json!(0.5))).0,
        Band::Blocked
    );
    let (late, reasons) = band(&mut rig, &native(4, 0.2));
    assert_eq!((late, reasons), (Band::Blocked, vec![Reason::NewEpoch]));
    assert_eq!(band(&mut rig, &native(8, 0.2)).0, Band::Open);
}

#[test]
fn parts_below_their_critical_mark_are_remarked_upon_and_close_nothing() {
    let mut rig = connected(setup());
    let (open, reasons) = band(&mut rig, &native(1, 0.36));
    assert_eq!((open, reasons), (Band::Open, vec![Reason::SdiReflective]));
    let (open, reasons) = band(&mut rig, &native(2, 0.46));
    assert_eq!((open, reasons), (Band::Open, vec![Reason::SdiRecovery]));
}

#[test]
fn a_lock_outlives_good_reports_and_a_restart_and_ends_with_an_operator() {
    let mut setup = setup();
    setup.live.policy.lock = Some(0.7);
    let mut rig = connected(setup.clone());
    band(&mut rig, &native(1, 0.2));
    let (locked, reasons) =
        band(&mut rig, &with(native(2, 0.2), "/attractor_state/scr", json!(0.15)));
    assert_eq!(locked, Band::Isolated);
    assert!(reasons.contains(&Reason::Locked), "{reasons:?}");
    assert_eq!(band(&mut rig, &native(3, 0.2)), (Band::Isolated, vec![Reason::Locked]));
    let memory = rig.bridge.memory(rig.now);
    assert!(memory.operator_hold);
    let mut restarted = Rig::with(setup, memory);
    restarted.connect();
    assert_eq!(band(&mut restarted, &native(4, 0.2)).0, Band::Isolated);
    restarted.hold(false);
    assert_eq!(band(&mut restarted, &native(5, 0.2)).0, Band::Open);
}

#[test]
fn closings_that_follow_each_other_ask_for_a_dwell_and_then_isolate() {
    let mut setup = setup();
    setup.live.policy.flapping = Some(Flapping { closings: 2, cycles: 50 });
    let mut rig = connected(setup);
    let mut cycle = 0;
    let mut next = |rig: &mut Rig, is_good: bool| {
        cycle += 1;
        let pd = if is_good { 0.1 } else { 0.46 };
        band(rig, &with(native(cycle, 0.2), "/drift_metrics/pd", json!(pd)))
    };
    for _ in 0..2 {
        assert_eq!(next(&mut rig, true).0, Band::Open);
        assert_eq!(next(&mut rig, false).0, Band::Blocked);
    }
    for is_last in [false, false, true] {
        let (band, reasons) = next(&mut rig, true);
        assert_eq!(band == Band::Open, is_last);
        assert_eq!(reasons.contains(&Reason::Flapping), !is_last, "{reasons:?}");
    }
    assert_eq!(next(&mut rig, false).0, Band::Blocked);
    for _ in 0..3 {
        next(&mut rig, true);
    }
    let (fourth, reasons) = next(&mut rig, false);
    assert_eq!((fourth, reasons.first()), (Band::Isolated, Some(&Reason::Flapping)));
}

#[test]
fn weak_memory_withholds_snapshots_and_their_link() {
    let mut rig = connected(setup());
    rig.stored(Digest::from_bytes([170; 32]), None);
    let mut linked = |document: &Value| {
        let document = Json::parse(document.to_string().as_bytes()).expect("JSON");
        rig.report_document(&document);
        let packets = rig.published();
        assert_eq!(packets.len(), 1);
        let text = String::from_utf8_lossy(packets[0].1.bytes()).into_owned();
        (text.contains("memory_snapshot"), rig.bridge.may_upload())
    };
    assert_eq!(linked(&native(1, 0.2)), (true, true));
    assert_eq!(linked(&with(native(2, 0.2), "/memory_snapshot/ci", json!(0.79))), (false, false));
    assert_eq!(linked(&with(native(3, 0.2), "/memory_snapshot/cc", json!(0.74))), (false, false));
    assert_eq!(linked(&with(native(4, 0.2), "/memory_snapshot/ci", json!(0.8))), (true, true));
}

#[test]
fn a7_a_key_that_is_nearly_a_known_one_is_refused_and_others_are_named() {
    for (key, meant) in [
        ("safety_flag", "safety_flags"),
        ("safetyFlags", "safety_flags"),
        ("SAFETY_FLAGS", "safety_flags"),
        ("saftey_flags", "safety_flags"),
        ("drift_metric", "drift_metrics"),
        ("phase_lock", "/safety_flags/phase_lock"),
        ("aegida_state", "/safety_flags/aegida_status"),
    ] {
        let mut rig = connected(setup());
        reply(&mut rig, &native(1, 0.2));
        let misspelt = with(native(2, 0.2), &format!("/{key}"), json!({"aegida_status": "locked"}));
        assert_eq!(reply(&mut rig, &misspelt), None, "{key}");
        assert_eq!(rig.bridge.band(), Band::Blocked, "{key}");
        let fault = rig.effects.iter().find_map(|effect| {
            let Effect::Answer { answer: Answer::Refused { fault, .. }, .. } = effect else {
                return None;
            };
            fault.clone()
        });
        let problem = fault.expect("a malformed report");
        assert_eq!(problem.field, format!("/{key}"));
        assert_eq!(problem.problem, format!("unknown key; did you mean `{meant}`?"));
    }
    let mut rig = connected(setup());
    let own = with(with(native(1, 0.2), "/usage", json!(1)), "/cycles", json!(2));
    let told = reply(&mut rig, &own).expect("a good report");
    assert_eq!(told.ignored, ["cycles", "response", "usage"]);
    let mut many = native(2, 0.2);
    for number in 0..40 {
        many[format!("own-{number}-{}", "x".repeat(100))] = json!(number);
    }
    let told = reply(&mut rig, &many).expect("a good report");
    assert_eq!(told.ignored.len(), 16);
    assert!(told.ignored.iter().all(|key| key.len() <= 64));
}

#[test]
fn a7_a_misspelt_key_in_a_known_group_is_refused_with_what_was_meant() {
    for (pointer, meant) in [
        ("/safety_flags/phase_locked", "phase_lock"),
        ("/attractor_state/stabilty", "stability"),
        ("/memory_snapshot/colour", "known are"),
    ] {
        let mut rig = connected(setup());
        assert_eq!(reply(&mut rig, &with(native(1, 0.2), pointer, json!(true))), None);
        let told = format!("{:?}", rig.effects);
        assert!(told.contains(pointer) && told.contains(meant), "{told}");
    }
}

#[test]
fn a7_export_is_said_only_where_a_packet_is_on_its_way() {
    let mut bare_is_enough = setup();
    bare_is_enough.live.policy.accept = Provenance::Reported;
    let bare = json!({"cycle": 1, "attractor_state": {"phase": "stable"},
        "drift_metrics": {"di": 0.2}});
    let told = reply(&mut connected(bare_is_enough), &bare).expect("a report");
    assert_eq!((told.verdict, told.band), (Decision::Hold, Band::Open));
    assert_eq!(told.reasons, [Reason::Unfillable]);
    assert!(told.packets.iter().all(|line| line.status == PacketStatus::Held));
    let told = reply(&mut connected(settings("planner", &[])), &native(1, 0.2)).expect("a report");
    assert_eq!((told.verdict, told.packets.len()), (Decision::Hold, 0));
    let told = reply(&mut connected(setup()), &native(1, 0.2)).expect("a report");
    assert_eq!(told.verdict, Decision::Export);
}

#[test]
fn an_attractor_id_leaves_as_it_is_only_where_it_cannot_be_text() {
    for (id, leaves) in [
        ("a-1.B_2:c", true),
        (&*"x".repeat(64), true),
        (&*"x".repeat(65), false),
        ("my dear prompt", false),
        ("na\u{ef}ve", false),
    ] {
        let mut rig = connected(setup());
        let document = with(native(1, 0.2), "/attractor_state/id", json!(id)).to_string();
        rig.report_document(&Json::parse(document.as_bytes()).expect("JSON"));
        let packets = rig.published();
        let text = String::from_utf8_lossy(packets[0].1.bytes()).into_owned();
        let packet: Value = serde_json::from_str(&text).expect("a packet");
        let sent = packet["payload"]["attractor_state"]["id"].as_str().expect("an id");
        assert_eq!(sent == id, leaves, "{sent}");
        assert!(leaves || sent.len() == 36, "{sent}");
    }
}

#[test]
fn a2_a_reload_of_accept_is_the_same_live_as_after_a_restart() {
    let mut rig = connected(derived(Provenance::Native, 0.8));
    reply(&mut rig, &reference_03(1, 0.2));
    let told = reply(&mut rig, &reference_03(2, 0.2)).expect("a report");
    assert_eq!((told.band, told.drift_source), (Band::Blocked, "reported"));
    rig.reload(derived(Provenance::Derived, 0.8).live);
    assert_eq!(rig.bridge.band(), Band::Blocked, "a reload never opens");
    let told = reply(&mut rig, &reference_03(3, 0.2)).expect("a report");
    assert_eq!((told.verdict, told.drift_source), (Decision::Export, "derived"));
}

fn derived(accept: Provenance, scr: f64) -> Setup {
    let mut setup = setup();
    setup.identity.profile = driftgate::profiles::load("reference-0.3").expect("built in");
    setup.live.policy.accept = accept;
    setup.live.policy.assumed_scr = Coherence::new(scr);
    setup
}

#[test]
fn a2_a_reload_judges_the_newest_report_again() {
    // A coherence that nobody measured.
    let mut rig = connected(derived(Provenance::Derived, 0.8));
    reply(&mut rig, &reference_03(1, 0.2));
    assert_eq!(reply(&mut rig, &reference_03(2, 0.2)).expect("a report").band, Band::Open);
    rig.reload(derived(Provenance::Derived, 0.1).live);
    assert_eq!(rig.bridge.band(), Band::Isolated);
    // Evidence that is no longer accepted.
    let mut rig = connected(derived(Provenance::Derived, 0.8));
    reply(&mut rig, &reference_03(1, 0.2));
    reply(&mut rig, &reference_03(2, 0.2));
    rig.reload(derived(Provenance::Native, 0.8).live);
    assert_eq!(rig.bridge.safety(rig.now).reasons, [Reason::ProvenanceRefused]);
    // Marks, with a packet that still waits.
    let mut setup = setup();
    setup.identity.window = 1;
    let mut rig = connected(setup.clone());
    reply(&mut rig, &even(1, 0.2));
    rig.report_document(&Json::parse(even(2, 0.44).to_string().as_bytes()).expect("JSON"));
    rig.report_document(&Json::parse(even(3, 0.44).to_string().as_bytes()).expect("JSON"));
    assert_eq!(rig.published().len(), 1, "one is sent, one waits");
    setup.live.policy.thresholds = Thresholds::new(0.3, 0.35, 0.6).expect("tightened");
    rig.reload(setup.live);
    assert_eq!(rig.bridge.band(), Band::Blocked);
    rig.wait(Duration::from_secs(20));
    assert!(rig.published().is_empty());
    let (_, ledger) = rig.bridge.ledgers().next().expect("a target");
    assert_eq!(ledger.revoked, 1);
}

#[test]
fn shadow_judges_everything_and_exports_nothing() {
    let mut setup = setup();
    setup.identity.mode = Mode::Shadow;
    let mut rig = connected(setup);
    let mut verdicts = Vec::new();
    for (cycle, di) in (1..).zip([0.3, 0.44, 0.2]) {
        let told = reply(&mut rig, &even(cycle, di)).expect("a report");
        verdicts.push((told.verdict, told.packets[0].status));
        assert!(!rig.bridge.may_upload() && !rig.bridge.is_pulling());
    }
    assert!(verdicts.iter().all(|verdict| *verdict == (Decision::Observe, PacketStatus::Shadow)));
    let told = reply(&mut rig, &even(8, 0.451)).expect("a report");
    assert_eq!((told.verdict, told.band), (Decision::Block, Band::Blocked));
    for effect in &rig.effects {
        assert!(!matches!(effect, Effect::Publish { .. } | Effect::Subscribe { pull: true }));
        if let Effect::Notify(notice) = effect {
            assert_eq!(notice.mode, Mode::Shadow);
        }
    }
    let (_, ledger) = rig.bridge.ledgers().next().expect("a target");
    assert_eq!((ledger.shadow, ledger.held), (3, 1));
    assert_eq!(rig.bridge.safety(rig.now).mode, Mode::Shadow);
}

/// A report without a number is a cycle before, too: the first one that has a number leaps from it.
#[test]
fn a_leap_is_one_also_where_the_numbers_begin() {
    let unnumbered = |di: f64| {
        let text = serde_json::to_string(&json!({
            "attractor_state": {"id": "a-1", "type": "symbolic", "stability": 0.91,
                "phase": "stable", "scr": 1.0},
            "drift_metrics": {"sdi": di, "sv": di, "pd": di}
        }));
        Json::parse(text.unwrap().as_bytes()).unwrap()
    };
    let mut rig = Rig::connected();
    rig.report_document(&unnumbered(0.02));
    assert_eq!(rig.bridge.band(), Band::Open);
    rig.report(0.43);
    assert_eq!(rig.bridge.band(), Band::Blocked, "it rose by 0.41");
    assert!(rig.bridge.safety(rig.now).reasons.contains(&Reason::DiJump));
}
