//! What the bridge counts, when it wants to be woken, and what it does not do twice: the small
//! print that mutations of it have shown to need a test.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for one kind of effect")]

use std::time::Duration;

use crate::support::rig::{Rig, live, settings};
use driftgate::protocol::bridge::{Counters, Effect, Live, TRANSITIONS_MAX};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::keyring::Keyring;
use driftgate::protocol::outbox::{FULL_PAUSE, Outcome};
use driftgate::protocol::view::{Barrier, Decision};

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

/// Reports with a broker that answers at once.
fn settled(rig: &mut Rig, di: f64) {
    rig.report(di);
    store_all(rig);
    echo_all(rig);
}

/// When the bridge wants to be woken, from now on; `None` for never.
fn wakes_after(rig: &Rig) -> Option<Duration> {
    let deadline = rig.bridge.deadline(rig.now);
    (deadline < Duration::MAX).then(|| deadline.saturating_sub(rig.now.mono))
}

#[test]
fn every_counter_counts_one_by_one() {
    let mut sender = Rig::new(settings("critic", &["planner"]));
    sender.connect();
    let mut rig = Rig::connected();
    for round in 1..=3 {
        settled(&mut rig, 0.3);
        settled(&mut rig, 0.55);
        rig.report_document(&Json::Null);
        sender.report(0.3);
        let (token, packet) = sender.published().remove(0);
        sender.answered(token, STORED);
        for _ in 0..2 {
            rig.receive(("critic", "planner"), packet.bytes());
        }
        let expected = Counters {
            cycle_gaps: 0,
            retries: 0,
            reports: 2 * round,
            malformed: round,
            inspection_failed: 0,
            transitions: 2 * round,
            confirmed: round,
            unconfirmed: 0,
            accepted: round,
            narrowed: 0,
            enveloped: 0,
            redelivered: round,
        };
        assert_eq!(rig.bridge.counters(), expected);
        assert_eq!(rig.bridge.take_closing_times(), [Duration::ZERO]);
    }
    for round in 1..=2 {
        settled(&mut rig, 0.3);
        rig.report(0.55);
        rig.wait(Duration::from_secs(2));
        assert_eq!(rig.bridge.counters().unconfirmed, round);
        rig.connect();
    }
}

#[test]
fn p8_a_packet_that_the_connection_could_not_take_goes_after_a_short_pause() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let published = rig.published();
    let (token, packet) = published[1].clone();
    for (other, _) in [&published[0], &published[2]] {
        rig.answered(*other, STORED);
    }
    rig.not_sent(token);
    assert!(rig.published().is_empty(), "the connection is full");
    assert_eq!(wakes_after(&rig), Some(FULL_PAUSE));
    rig.wait(FULL_PAUSE);
    let again = rig.published();
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].0, token, "an attempt of its own");
    assert_eq!(again[0].1.bytes(), packet.bytes());
}

#[test]
fn p2_a_notice_that_a_lost_connection_held_leaves_the_closing_unconfirmed() {
    let mut rig = Rig::connected();
    settled(&mut rig, 0.3);
    let closing = rig.report(0.55);
    rig.disconnect();
    let reply = rig.answers().remove(&closing).expect("nothing is left to wait for");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed), "its notice may still arrive");
}

#[test]
fn silence_adds_nothing_to_a_band_that_is_closed_for_another_reason() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.silence_isolates_after = Some(Duration::from_secs(600));
    for (di, band, reason) in
        [(0.55, Band::Blocked, Reason::DiBlock), (0.65, Band::Isolated, Reason::DiIsolate)]
    {
        let mut rig = Rig::new(settings.clone());
        rig.report(di);
        rig.wait(Duration::from_secs(599));
        let mut reasons = rig.bridge.safety(rig.now).reasons;
        reasons.retain(|reason| !reason.is_remark());
        assert_eq!((rig.bridge.band(), reasons), (band, vec![reason]));
        let transitions = rig.bridge.counters().transitions;
        rig.wait(Duration::from_secs(600));
        if band == Band::Isolated {
            assert!(
                rig.bridge.safety(rig.now).reasons.contains(&reason),
                "isolated by its index, not silent"
            );
            assert_eq!(rig.bridge.counters().transitions, transitions);
        } else {
            assert_eq!(rig.bridge.safety(rig.now).reasons, [Reason::Silent]);
        }
    }
}

#[test]
fn it_wants_to_be_woken_when_something_is_due_and_else_never() {
    let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
    let mut settings = settings("planner", &["critic"]);
    settings.live.stale_after = Duration::from_secs(120);
    settings.live.silence_isolates_after = seconds(300);
    settings.live.isolate_after = seconds(200);
    let mut rig = Rig::new(settings);
    rig.connect();
    assert_eq!(wakes_after(&rig), seconds(200), "blocked since the start");
    rig.report(0.3);
    assert_eq!(wakes_after(&rig), seconds(2), "the reply");
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.answers().len(), 1);
    assert_eq!(wakes_after(&rig), seconds(3), "the acknowledgement");
    store_all(&mut rig);
    assert_eq!(wakes_after(&rig), seconds(118), "silence blocks");
    rig.report(0.55);
    assert_eq!(wakes_after(&rig), seconds(2), "the echo");
    echo_all(&mut rig);
    assert_eq!(wakes_after(&rig), seconds(200), "blocked for too long");
    rig.wait(Duration::from_secs(150));
    assert_eq!(wakes_after(&rig), seconds(50));
    rig.report(0.3);
    rig.report(0.65);
    assert_eq!(wakes_after(&rig), seconds(1), "half of the bound is the acknowledgements'");
    store_all(&mut rig);
    echo_all(&mut rig);
    assert_eq!(wakes_after(&rig), None, "isolated: nothing is due");
}

#[test]
fn the_history_holds_the_newest_transitions() {
    let mut rig = Rig::connected();
    for _ in 0..TRANSITIONS_MAX {
        settled(&mut rig, 0.3);
        settled(&mut rig, 0.55);
        assert!(rig.bridge.safety(rig.now).transitions.len() <= TRANSITIONS_MAX);
    }
    let history = rig.bridge.safety(rig.now).transitions;
    assert_eq!(history.len(), TRANSITIONS_MAX);
    assert_eq!(history.back().map(|newest| newest.cycle), Some(Some(rig.cycle)));
    let oldest = rig.cycle - u64::try_from(TRANSITIONS_MAX).unwrap() + 1;
    assert_eq!(history.front().map(|first| first.cycle), Some(Some(oldest)));
}

#[test]
fn one_closing_asks_for_one_echo_however_often_the_gate_opens_and_blocks_meanwhile() {
    let mut rig = Rig::connected();
    settled(&mut rig, 0.3);
    for _ in 0..5 {
        rig.report(0.55);
        rig.report(0.3);
    }
    let echoes = rig.confirms();
    assert_eq!(echoes.len(), 1);
    rig.report(0.65);
    let cut = rig.confirms();
    assert_eq!(cut.len(), 1, "the cut needs one of its own");
    rig.effects.clear();
    rig.report(0.3);
    rig.report(0.65);
    rig.report(0.3);
    assert!(rig.confirms().is_empty(), "nothing has been subscribed to since");
    rig.confirm(echoes[0]);
    assert!(rig.bridge.is_closing(), "the echo of before the cut proves nothing of it");
    let subscribes = |effect: &Effect| matches!(effect, Effect::Subscribe { .. });
    assert!(!rig.effects.iter().any(subscribes), "not before the silence is confirmed");
    rig.confirm(cut[0]);
    assert!(rig.effects.iter().any(subscribes));
}

/// Blocks, opens, isolates, opens and blocks again, all before the first echo: the last notice was
/// of the isolation. Gives the first closing report's number.
fn isolated_and_blocked_again(rig: &mut Rig) -> u64 {
    settled(rig, 0.3);
    let closing = rig.report(0.55);
    for di in [0.3, 0.65, 0.3, 0.55] {
        rig.report(di);
    }
    rig.answers();
    closing
}

fn notices(rig: &mut Rig) -> Vec<Band> {
    let mut bands = Vec::new();
    rig.effects.retain(|effect| match effect {
        Effect::Notify(notice) => {
            bands.push(notice.band);
            false
        }
        _ => true,
    });
    bands
}

#[test]
fn a_notice_that_was_kept_back_goes_out_and_is_echoed_while_there_is_time() {
    let mut rig = Rig::connected();
    let closing = isolated_and_blocked_again(&mut rig);
    assert_eq!(notices(&mut rig).last(), Some(&Band::Isolated));
    rig.wait(Duration::from_millis(1999));
    echo_all(&mut rig);
    assert_eq!(notices(&mut rig), [Band::Blocked]);
    assert!(rig.answers().is_empty(), "its echo is still to come");
    echo_all(&mut rig);
    let reply = rig.answers().remove(&closing).expect("the silence is confirmed");
    assert_eq!(reply.barrier, Some(Barrier::Confirmed));
}

#[test]
fn p2_a_notice_for_which_there_is_no_time_is_left_out() {
    let mut rig = Rig::connected();
    settled(&mut rig, 0.3);
    let closing = rig.report(0.55);
    rig.wait(Duration::from_millis(1500));
    for di in [0.3, 0.65, 0.3, 0.55] {
        rig.report(di);
    }
    rig.answers();
    assert_eq!(notices(&mut rig).last(), Some(&Band::Isolated));
    rig.wait(Duration::from_millis(500));
    echo_all(&mut rig);
    let reply = rig.answers().remove(&closing).expect("the bound of the first report is over");
    assert_eq!(reply.barrier, Some(Barrier::Confirmed));
    assert!(notices(&mut rig).is_empty(), "nothing follows a confirmed silence");
    assert!(rig.confirms().is_empty());
}

#[test]
fn a_report_that_is_sent_in_caution_names_no_throttling() {
    let mut rig = Rig::connected();
    let reasons = |rig: &mut Rig, di: f64| {
        let seq = rig.report(di);
        store_all(rig);
        let mut reply = rig.answers().remove(&seq).expect("settled");
        // Remarks on single parts are beside the point.
        reply.reasons.retain(|reason| !reason.is_remark());
        (reply.verdict, reply.reasons)
    };
    assert_eq!(reasons(&mut rig, 0.3), (Decision::Export, vec![]));
    let throttled = (Decision::Throttle, vec![Reason::DiCaution, Reason::Throttled]);
    assert_eq!(reasons(&mut rig, 0.46), throttled);
    assert_eq!(reasons(&mut rig, 0.46), throttled);
    assert_eq!(reasons(&mut rig, 0.46), (Decision::Export, vec![Reason::DiCaution]));
}

#[test]
fn p6_packets_that_fail_their_inspection_are_counted_and_close_the_gate() {
    let mut rig = Rig::connected();
    settled(&mut rig, 0.3);
    let deaf = Keyring::new([], None).expect("a ring that cannot sign");
    let can_sign = live(&["critic", "monitor", "scribe"]);
    for round in 1..=2 {
        rig.reload(Live { keyring: deaf.clone(), ..can_sign.clone() });
        let seq = rig.report(0.3);
        assert!(rig.published().is_empty());
        echo_all(&mut rig);
        let reply = rig.answers().remove(&seq).expect("settled");
        assert_eq!((reply.band, reply.verdict), (Band::Blocked, Decision::Block));
        assert!(reply.reasons.contains(&Reason::InspectionFailed), "{:?}", reply.reasons);
        assert_eq!(rig.bridge.counters().inspection_failed, 3 * round);
        assert_eq!(reply.barrier, Some(Barrier::Confirmed));
        rig.reload(can_sign.clone());
        settled(&mut rig, 0.3);
        assert_eq!(rig.bridge.band(), Band::Open);
    }
}

#[test]
fn a_pull_that_a_block_has_stopped_goes_on_when_the_gate_opens() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.blocked_inbound_hold = true;
    let mut rig = Rig::new(settings);
    let pulls = |rig: &mut Rig| {
        let mut pulls = Vec::new();
        rig.effects.retain(|effect| match effect {
            Effect::Subscribe { pull } => {
                pulls.push(*pull);
                false
            }
            _ => true,
        });
        pulls
    };
    rig.connect();
    assert_eq!(pulls(&mut rig), [false], "acknowledgements yes, packets no");
    for _ in 0..2 {
        settled(&mut rig, 0.3);
        assert_eq!((pulls(&mut rig), rig.bridge.is_pulling()), (vec![true], true));
        settled(&mut rig, 0.55);
        assert_eq!((pulls(&mut rig), rig.bridge.is_pulling()), (vec![false], false));
    }
}

#[test]
fn it_is_woken_for_silence_that_isolates_until_it_is_isolated() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.silence_isolates_after = Some(Duration::from_secs(60));
    let mut rig = Rig::new(settings);
    assert_eq!(wakes_after(&rig), Some(Duration::from_secs(60)));
    settled(&mut rig, 0.3);
    rig.wait(Duration::from_secs(59));
    assert_eq!(wakes_after(&rig), Some(Duration::from_secs(1)));
    rig.wait(Duration::from_secs(1));
    assert_eq!(
        (rig.bridge.band(), rig.bridge.safety(rig.now).reasons),
        (Band::Isolated, vec![Reason::Silent])
    );
    assert_eq!(wakes_after(&rig), None);
}
