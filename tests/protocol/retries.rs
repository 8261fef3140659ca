//! Cycle numbers: missing ones, gaps, repetitions, and the retry of the newest report.

use std::time::Duration;

use driftgate::protocol::bridge::{Answer, Effect};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::view::{Barrier, Decision, PacketStatus, ReportReply};

use crate::support::rig::{Rig, report, settings};

/// A native report without a cycle number where `cycle` is `None`.
fn document(cycle: Option<u64>, di: f64) -> Json {
    let Json::Object(mut members) = report(cycle.unwrap_or(0), di) else { panic!("an object") };
    if cycle.is_none() {
        members.remove("cycle");
    }
    Json::Object(members)
}

/// Every answer to a retry since the last call, by ticket.
fn retried(rig: &mut Rig) -> Vec<(u64, ReportReply)> {
    let mut replies = Vec::new();
    rig.effects.retain(|effect| {
        if let Effect::Answer { ticket, answer: Answer::Retry(reply) } = effect {
            replies.push((ticket.0, (**reply).clone()));
            return false;
        }
        true
    });
    replies
}

fn stored(rig: &mut Rig) {
    for (token, _) in rig.published() {
        rig.answered(token, Outcome::Stored { stream_seq: token + 100, duplicate: false });
    }
}

#[test]
fn a5_a_missing_cycle_number_says_nothing_about_continuity() {
    let mut rig = Rig::connected();
    for cycle in [Some(5), None, Some(6), None, None, Some(9)] {
        rig.report_document(&document(cycle, 0.1));
        let reasons = rig.bridge.safety(rig.now).reasons;
        assert_eq!((rig.bridge.band(), reasons), (Band::Open, vec![]), "cycle {cycle:?}");
    }
    assert_eq!(rig.bridge.counters().cycle_gaps, 0);
}

#[test]
fn a_gap_is_a_reason_and_a_counter_and_no_band() {
    let mut rig = Rig::connected();
    for (cycle, gaps) in [(1, 0), (2, 0), (4, 1), (5, 1), (99, 2)] {
        rig.report_document(&document(Some(cycle), 0.1));
        assert_eq!(rig.bridge.band(), Band::Open);
        assert_eq!(rig.bridge.counters().cycle_gaps, gaps, "cycle {cycle}");
        let reasons = rig.bridge.safety(rig.now).reasons;
        assert_eq!(reasons.contains(&Reason::CycleGap), [4, 99].contains(&cycle), "{cycle}");
    }
}

#[test]
fn a5_the_newest_report_once_more_gets_the_answer_of_the_first_and_moves_nothing() {
    let mut rig = Rig::connected();
    let first = rig.report_document(&document(Some(5), 0.1));
    let (before, seq) = (rig.bridge.counters(), rig.bridge.memory(rig.now).seq);
    // While the first one waits for the broker, the second waits with it.
    let second = rig.report_document(&document(Some(5), 0.1));
    assert!(retried(&mut rig).is_empty());
    stored(&mut rig);
    let told = rig.answers().remove(&first).expect("stored");
    let again = retried(&mut rig);
    assert_eq!(again, [(second, told.clone())]);
    assert_eq!((told.verdict, told.seq), (Decision::Export, first));
    // After it was answered, the answer is there at once.
    let third = rig.report_document(&document(Some(5), 0.1));
    assert_eq!(retried(&mut rig), [(third, told)]);
    assert!(rig.published().is_empty());
    let mut after = rig.bridge.counters();
    assert_eq!(std::mem::take(&mut after.retries), 2);
    assert_eq!((after, rig.bridge.memory(rig.now).seq), (before, seq));
}

#[test]
fn a_retry_hears_what_became_of_packets_after_the_first_was_answered() {
    let mut rig = Rig::connected();
    let first = rig.report_document(&document(Some(5), 0.1));
    rig.wait(Duration::from_millis(2100));
    let told = rig.answers().remove(&first).expect("its time is up");
    assert!(told.packets.iter().all(|line| line.status == PacketStatus::Pending), "{told:?}");
    stored(&mut rig);
    rig.report_document(&document(Some(5), 0.1));
    let (_, again) = retried(&mut rig).remove(0);
    assert!(again.packets.iter().all(|line| line.status == PacketStatus::Stored), "{again:?}");
    assert!(again.packets.iter().all(|line| line.stream_seq.is_some()), "{again:?}");
}

#[test]
fn a_retry_waits_for_a_barrier_under_way_and_says_where_the_gate_stands_now() {
    let mut rig = Rig::connected();
    rig.report_document(&document(Some(4), 0.2));
    stored(&mut rig);
    rig.answers();
    let first = rig.report_document(&document(Some(5), 0.55));
    let second = rig.report_document(&document(Some(5), 0.55));
    assert!(rig.answers().is_empty() && retried(&mut rig).is_empty(), "before the echo");
    for id in rig.confirms() {
        rig.confirm(id);
    }
    let told = rig.answers().remove(&first).expect("confirmed");
    assert_eq!(told.barrier, Some(Barrier::Confirmed));
    assert_eq!(retried(&mut rig), [(second, told)]);
    // An operator isolates: the same report is now answered so, and no echo is forgotten.
    rig.hold(true);
    rig.report_document(&document(Some(5), 0.55));
    assert!(retried(&mut rig).is_empty());
    for id in rig.confirms() {
        rig.confirm(id);
    }
    let (_, again) = retried(&mut rig).remove(0);
    assert_eq!((again.band, again.verdict), (Band::Isolated, Decision::Isolate));
    assert_eq!((again.reasons, again.seq), (vec![Reason::Operator], first));
}

#[test]
fn a_retry_never_opens_and_does_not_end_a_silence() {
    let mut rig = Rig::connected();
    rig.report_document(&document(Some(5), 0.1));
    stored(&mut rig);
    rig.wait(Duration::from_secs(119));
    rig.report_document(&document(Some(5), 0.1));
    assert_eq!(rig.bridge.band(), Band::Open);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.bridge.safety(rig.now).reasons, [Reason::Stale]);
    rig.report_document(&document(Some(5), 0.1));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    rig.report_document(&document(Some(6), 0.1));
    assert_eq!(rig.bridge.band(), Band::Open);
}

#[test]
fn the_same_cycle_with_other_content_is_no_retry_and_no_evidence() {
    for other in [document(Some(5), 0.11), report_with_flag(5)] {
        let mut rig = Rig::connected();
        rig.report_document(&document(Some(5), 0.1));
        rig.report_document(&other);
        assert!(rig.bridge.band().is_closed());
        assert!(rig.bridge.safety(rig.now).reasons.contains(&Reason::DuplicateCycle));
        assert_eq!(rig.bridge.counters().retries, 0);
    }
}

fn report_with_flag(cycle: u64) -> Json {
    let Json::Object(mut members) = report(cycle, 0.1) else { panic!("an object") };
    let flags = Json::parse(br#"{"phase_lock": true}"#).expect("JSON");
    members.insert("safety_flags".to_owned(), flags);
    Json::Object(members)
}

#[test]
fn a_report_without_a_number_or_of_another_life_is_no_retry() {
    let mut rig = Rig::connected();
    rig.report_document(&document(None, 0.1));
    rig.report_document(&document(None, 0.1));
    assert_eq!((rig.bridge.counters().reports, rig.bridge.counters().retries), (2, 0));
    rig.report_document(&document(Some(5), 0.1));
    let memory = rig.bridge.memory(rig.now);
    let mut restarted = Rig::with(settings("planner", &["critic"]), memory);
    restarted.report_document(&document(Some(5), 0.1));
    let counters = restarted.bridge.counters();
    assert_eq!((counters.reports, counters.retries), (1, 0));
    assert_eq!(restarted.bridge.band(), Band::Open);
}
