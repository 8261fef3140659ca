//! The composed machine, step by step: what is sent, held, revoked and answered, and when.

#![allow(
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and measures with the real clock"
)]

#[path = "support/rig.rs"]
mod rig;

use std::time::Duration;

use driftgate::protocol::bridge::{Effect, Memory};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::inbox::Inbound;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::seal::Fault;
use driftgate::protocol::view::{Barrier, Decision, PacketStatus, ReportReply};
use rig::{Rig, id, keyring, settings};

const STORED: Outcome = Outcome::Stored { stream_seq: 9, duplicate: false };

fn store_all(rig: &mut Rig) -> usize {
    let published = rig.published();
    for (token, _) in &published {
        rig.bridge.answered(rig.now, *token, STORED);
    }
    rig.look();
    published.len()
}

fn echo_all(rig: &mut Rig) {
    for id in rig.confirms() {
        rig.bridge.confirmed(rig.now, id);
    }
    rig.look();
}

fn only(rig: &mut Rig) -> ReportReply {
    let answers = rig.answers();
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.into_values().next().expect("one reply")
}

fn statuses(reply: &ReportReply) -> Vec<PacketStatus> {
    reply.packets.iter().map(|packet| packet.status).collect()
}

/// Runs one report to its reply, with a broker that stores and echoes at once.
fn reported(rig: &mut Rig, di: f64) -> ReportReply {
    rig.report(di);
    store_all(rig);
    echo_all(rig);
    only(rig)
}

#[test]
fn p1_p3_the_walk_through_every_band_sends_what_the_table_says() {
    let mut rig = Rig::connected();
    let walk = [
        (0.30, Decision::Export, Band::Open),
        (0.46, Decision::Throttle, Band::Caution),
        (0.49, Decision::Throttle, Band::Caution),
        (0.51, Decision::Block, Band::Blocked),
        (0.47, Decision::Block, Band::Blocked),
        (0.44, Decision::Export, Band::Open),
        (0.65, Decision::Isolate, Band::Isolated),
        (0.55, Decision::Isolate, Band::Isolated),
        (0.44, Decision::Export, Band::Open),
    ];
    for (di, verdict, band) in walk {
        let reply = reported(&mut rig, di);
        assert_eq!((reply.verdict, reply.band), (verdict, band), "at {di}");
        let expected = match verdict {
            Decision::Export => PacketStatus::Stored,
            Decision::Throttle => PacketStatus::Throttled,
            Decision::Block | Decision::Isolate => PacketStatus::Held,
        };
        assert_eq!(statuses(&reply), [expected; 3], "at {di}");
    }
}

#[test]
fn caution_sends_one_report_in_three_per_target() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    let sent: Vec<bool> = (0..9)
        .map(|_| statuses(&reported(&mut rig, 0.47)).contains(&PacketStatus::Stored))
        .collect();
    assert_eq!(sent, [false, false, true, false, false, true, false, false, true]);
}

#[test]
fn caution_stays_thin_when_the_runtime_flaps_around_its_mark() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    for _ in 0..10 {
        let caution = reported(&mut rig, 0.46);
        assert_eq!(caution.verdict, Decision::Throttle);
        assert_eq!(reported(&mut rig, 0.44).verdict, Decision::Export);
    }
}

#[test]
fn p2_the_closing_reply_waits_for_acknowledgements_and_for_the_echo() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let in_flight = rig.published();
    let closing = rig.report(0.55);
    let confirms = rig.confirms();
    assert_eq!(confirms.len(), 1);
    assert!(rig.answers().is_empty(), "nothing is acknowledged, nothing is echoed");
    rig.bridge.confirmed(rig.now, confirms[0]);
    assert!(rig.answers().is_empty(), "three acknowledgements are still out");
    for (token, _) in in_flight {
        rig.bridge.answered(rig.now, token, STORED);
    }
    let reply = rig.answers().remove(&closing).expect("the closing reply");
    assert_eq!(reply.barrier, Some(Barrier::Confirmed));
}

#[test]
fn p2_a_broker_that_does_not_confirm_is_severed_and_the_reply_says_so() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    rig.published();
    let closing = rig.report(0.55);
    rig.wait(Duration::from_millis(1_999));
    assert!(rig.answers().is_empty());
    rig.wait(Duration::from_millis(1));
    let sever = rig.effects.iter().position(|effect| matches!(effect, Effect::Sever));
    let answer = rig
        .effects
        .iter()
        .position(|effect| matches!(effect, Effect::Answer { seq, .. } if *seq == closing));
    assert!(sever.expect("severed") < answer.expect("answered"), "severed before the reply");
    let reply = rig.answers().remove(&closing).expect("the closing reply");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
    assert!(reply.reasons.contains(&Reason::Unconfirmed));
    assert_eq!(rig.bridge.counters().unconfirmed, 1);
}

#[test]
fn p2_nothing_is_sent_while_a_closing_is_under_way_even_if_the_gate_reopens() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.report(0.55);
    let reopened = rig.report(0.3);
    assert!(rig.published().is_empty());
    echo_all(&mut rig);
    let published = rig.published();
    assert_eq!(published.len(), 3);
    assert!(published.iter().all(|(_, packet)| packet.seq() == reopened));
}

#[test]
fn p4_isolation_cuts_after_the_acknowledgements_and_before_the_echo() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let in_flight = rig.published();
    rig.report(0.65);
    assert!(rig.confirms().is_empty(), "the acknowledgements come first");
    for (token, _) in in_flight {
        rig.bridge.answered(rig.now, token, STORED);
    }
    rig.look();
    let order: Vec<&str> = rig
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Notify(_) => Some("notice"),
            Effect::Cut => Some("cut"),
            Effect::Confirm(_) => Some("confirm"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["notice", "notice", "cut", "confirm"], "open, isolated, cut, echo");
    assert!(rig.bridge.field_state().is_none());
}

#[test]
fn p4_nothing_inbound_is_taken_while_isolated() {
    let mut critic = Rig::new(settings("critic", &["planner"]));
    critic.bridge.connected(critic.now);
    critic.report(0.3);
    let (_, packet) = critic.published().remove(0);
    let mut rig = Rig::connected();
    rig.report(0.65);
    echo_all(&mut rig);
    assert!(rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes()).is_none());
    rig.report(0.3);
    let inbound = rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes());
    assert!(matches!(inbound, Some(Inbound::Accepted { .. })), "{inbound:?}");
}

#[test]
fn p4_a_connection_made_while_isolated_gets_no_subscription() {
    let mut rig = Rig::connected();
    rig.report(0.65);
    echo_all(&mut rig);
    rig.bridge.disconnected(rig.now);
    rig.effects.clear();
    rig.bridge.connected(rig.now);
    rig.look();
    assert!(rig.effects.is_empty(), "{:?}", rig.effects);
    rig.report(0.3);
    assert!(rig.effects.iter().any(|effect| matches!(effect, Effect::Subscribe { pull: true })));
}

#[test]
fn p4_an_isolation_on_top_of_a_block_gets_an_echo_of_its_own() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    let blocked = rig.report(0.55);
    let first = rig.confirms();
    let isolated = rig.report(0.65);
    let second = rig.confirms();
    assert_eq!((first.len(), second.len()), (1, 1));
    rig.bridge.confirmed(rig.now, first[0]);
    assert!(rig.answers().is_empty(), "the first echo came before the cut");
    rig.bridge.confirmed(rig.now, second[0]);
    let answers = rig.answers();
    assert!(answers.contains_key(&blocked) && answers.contains_key(&isolated));
}

#[test]
fn p5_what_was_unsent_when_the_gate_closed_is_revoked_and_never_sent() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    let pending = rig.report(0.3);
    let reply = rig.answers().remove(&pending).expect("answered at once: there is no broker");
    assert_eq!(statuses(&reply), [PacketStatus::Pending]);
    rig.report(0.55);
    rig.bridge.connected(rig.now);
    assert!(rig.published().is_empty());
    let reopened = rig.report(0.3);
    let published = rig.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].1.seq(), reopened);
    let (_, ledger) = rig.bridge.ledgers().next().expect("one target");
    assert_eq!((ledger.revoked, ledger.held, ledger.pending), (1, 1, 1));
}

#[test]
fn p5_an_attempt_that_is_unanswered_when_the_gate_closes_is_not_repeated_later() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let first = rig.published();
    rig.report(0.55);
    for (token, _) in &first {
        rig.bridge.answered(rig.now, *token, Outcome::Later);
    }
    echo_all(&mut rig);
    rig.report(0.3);
    rig.wait(Duration::from_secs(1));
    assert!(rig.published().iter().all(|(_, packet)| packet.seq() > first[0].1.seq()));
}

#[test]
fn p5_a_newer_report_supersedes_what_is_unsent_of_an_older_one() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    rig.report(0.3);
    rig.report(0.31);
    let newest = rig.report(0.32);
    rig.bridge.connected(rig.now);
    let published = rig.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].1.seq(), newest);
    let (_, ledger) = rig.bridge.ledgers().next().expect("one target");
    assert_eq!((ledger.reports, ledger.superseded, ledger.pending), (3, 2, 1));
}

#[test]
fn p6_silence_blocks_and_only_a_good_report_reopens() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.wait(Duration::from_millis(119_999));
    assert_eq!(rig.bridge.band(), Band::Open);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    assert_eq!(rig.bridge.safety().reasons, [Reason::Stale]);
    assert_eq!(reported(&mut rig, 0.46).band, Band::Blocked);
    assert_eq!(reported(&mut rig, 0.44).band, Band::Open);
}

#[test]
fn p6_silence_isolates_only_where_that_is_configured() {
    let mut rig = Rig::connected();
    rig.wait(Duration::from_secs(86_400));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    let mut settings = settings("planner", &["critic"]);
    settings.silence_isolates_after = Some(Duration::from_secs(300));
    let mut rig = Rig::new(settings);
    rig.wait(Duration::from_secs(300));
    assert_eq!(rig.bridge.band(), Band::Isolated);
}

#[test]
fn p6_blocked_for_too_long_isolates_where_that_is_configured() {
    let mut settings = settings("planner", &["critic"]);
    settings.isolate_after = Some(Duration::from_secs(60));
    let mut rig = Rig::new(settings);
    rig.wait(Duration::from_secs(59));
    assert_eq!(rig.bridge.band(), Band::Blocked);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(rig.bridge.safety().reasons, [Reason::BlockedTooLong]);
}

#[test]
fn p6_a_report_that_cannot_be_read_closes_and_never_opens() {
    let mut rig = Rig::connected();
    let bad = Json::parse(br#"{"attractor_state": {"scr": 0}, "drift_metrics": {"sdi": 0.1}}"#)
        .expect("JSON");
    assert!(rig.bridge.report(rig.now, &bad).is_err());
    assert_eq!(rig.bridge.band(), Band::Blocked);
    reported(&mut rig, 0.3);
    assert!(rig.bridge.report(rig.now, &bad).is_err());
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
    assert_eq!(rig.bridge.safety().epoch, 1);
    assert_eq!(rig.bridge.safety().transitions.back().map(|last| last.from), Some(Band::Caution));
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
fn p8_a_broker_without_the_stream_is_asked_again_and_the_books_add_up() {
    let mut rig = Rig::connected();
    let seq = rig.report(0.3);
    for (token, _) in rig.published() {
        rig.bridge.answered(rig.now, token, Outcome::Later);
    }
    assert!(rig.published().is_empty(), "not at once");
    rig.wait(Duration::from_secs(2));
    let reply = rig.answers().remove(&seq).expect("bounded (P10)");
    assert_eq!(statuses(&reply), [PacketStatus::Pending; 3]);
    assert_eq!(store_all(&mut rig), 3);
    let stored: u64 = rig.bridge.ledgers().map(|(_, ledger)| ledger.stored).sum();
    assert_eq!(stored, 3);
}

#[test]
fn p8_an_unanswered_attempt_is_repeated_with_the_same_bytes() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let first = rig.published();
    rig.wait(Duration::from_secs(5));
    let second = rig.published();
    assert_eq!(first.len(), second.len());
    for ((_, first), (_, second)) in first.iter().zip(&second) {
        assert_eq!(first.bytes(), second.bytes());
    }
}

#[test]
fn p8_a_lost_connection_repeats_only_what_nothing_newer_has_overtaken() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let newest = rig.report(0.31);
    assert_eq!(rig.published().len(), 6);
    rig.bridge.disconnected(rig.now);
    rig.bridge.connected(rig.now);
    let again = rig.published();
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|(_, packet)| packet.seq() == newest));
}

#[test]
fn p2_a_close_after_a_lost_connection_is_confirmed_only_if_nothing_was_open_on_it() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.disconnected(rig.now);
    assert_eq!(reported(&mut rig, 0.55).barrier, Some(Barrier::Confirmed));
    let mut rig = Rig::connected();
    rig.report(0.3);
    rig.published();
    rig.bridge.disconnected(rig.now);
    rig.answers();
    let closing = rig.report(0.55);
    let reply = rig.answers().remove(&closing).expect("at once");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
}

#[test]
fn sequence_numbers_rise_across_restarts_and_clock_steps() {
    let mut rig = Rig::connected();
    let first = rig.report(0.3);
    rig.now.wall = driftgate::protocol::time::Timestamp::from_unix_ms(0);
    let second = rig.report(0.3);
    assert_eq!(second, first + 1);
    let memory = Memory { seq: second + 60_000_000, ..rig.bridge.memory() };
    let mut restarted = Rig::with(settings("planner", &["critic"]), memory);
    assert!(restarted.report(0.3) > second);
}

#[test]
fn p7_inbound_is_judged_by_seal_address_authority_freshness_stability_and_replay() {
    let mut sender = Rig::new(settings("critic", &["planner", "monitor"]));
    sender.bridge.connected(sender.now);
    sender.report(0.3);
    let older = sender.published();
    sender.report(0.31);
    let newer = sender.published();
    let packet = |set: &[(u64, driftgate::protocol::seal::Sealed)], target: &str| {
        set.iter()
            .find(|(_, packet)| packet.target() == &id(target))
            .map(|(_, packet)| packet.bytes().clone())
            .expect("a packet")
    };
    let (old, new) = (packet(&older, "planner"), packet(&newer, "planner"));
    let misdelivered = packet(&newer, "monitor");
    let fault = |rig: &mut Rig, subject: (&str, &str), bytes: &[u8]| match rig
        .bridge
        .receive(rig.now, subject, bytes)
    {
        Some(Inbound::Refused(refusal)) => Some(refusal.fault),
        _ => None,
    };
    let subject = ("critic", "planner");
    let mut rig = Rig::connected();
    assert_eq!(fault(&mut rig, subject, b"{"), Some(Fault::Malformed));
    let mut flipped = new.to_vec();
    let place = flipped.windows(4).position(|bytes| bytes == b"0.91").expect("stability") + 3;
    flipped[place] = b'2';
    assert_eq!(fault(&mut rig, subject, &flipped), Some(Fault::Forged));
    assert_eq!(fault(&mut rig, ("scribe", "planner"), &new), Some(Fault::Misaddressed));
    assert_eq!(fault(&mut rig, ("critic", "monitor"), &misdelivered), Some(Fault::Misaddressed));
    let accepted = rig.bridge.receive(rig.now, subject, &new);
    assert!(matches!(accepted, Some(Inbound::Accepted { .. })), "{accepted:?}");
    let again = rig.bridge.receive(rig.now, subject, &new);
    assert!(matches!(again, Some(Inbound::Redelivered { .. })), "{again:?}");
    assert_eq!(fault(&mut rig, subject, &old), Some(Fault::Replayed));
    let mut late = Rig::connected();
    late.wait(Duration::from_secs(301));
    assert_eq!(fault(&mut late, subject, &new), Some(Fault::Expired));
    let mut early = Rig::connected();
    early.now.wall = driftgate::protocol::time::Timestamp::from_unix_ms(rig::EPOCH_MS - 31_000);
    assert_eq!(fault(&mut early, subject, &new), Some(Fault::Expired));
    let mut stranger = Rig::new(settings("planner", &["monitor"]));
    assert_eq!(fault(&mut stranger, subject, &new), Some(Fault::Unauthorised));
    let mut pinned = settings("planner", &["critic"]);
    pinned.peers.get_mut(&id("critic")).expect("a peer").key_id = Some("k2".to_owned());
    assert_eq!(fault(&mut Rig::new(pinned), subject, &new), Some(Fault::Unauthorised));
    let mut expired = settings("planner", &["critic"]);
    expired.peers.get_mut(&id("critic")).expect("a peer").expires = Some(rig.now.wall);
    assert_eq!(fault(&mut Rig::new(expired), subject, &new), Some(Fault::Unauthorised));
    let mut strict = settings("planner", &["critic"]);
    strict.policy.thresholds.block = 0.305;
    strict.policy.thresholds.reopen = 0.305;
    assert_eq!(fault(&mut Rig::new(strict), subject, &new), Some(Fault::Unstable));
}

#[test]
fn a_revoked_peer_is_cut_at_once_and_its_state_vanishes() {
    let mut sender = Rig::new(settings("critic", &["planner"]));
    sender.bridge.connected(sender.now);
    sender.report(0.3);
    let (_, packet) = sender.published().remove(0);
    let mut rig = Rig::connected();
    rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes());
    assert!(rig.bridge.peer_state(&id("critic")).is_some());
    rig.bridge.reload(rig.now, settings("planner", &["monitor"]), keyring());
    assert!(rig.bridge.peer_state(&id("critic")).is_none());
    rig.report(0.3);
    assert!(rig.published().iter().all(|(_, packet)| packet.target() == &id("monitor")));
}

#[test]
fn p7_what_a_peer_said_vanishes_when_its_packet_expires() {
    let mut sender = Rig::new(settings("critic", &["planner"]));
    sender.bridge.connected(sender.now);
    sender.report(0.3);
    let (_, packet) = sender.published().remove(0);
    let mut rig = Rig::connected();
    // It lay on the stream for a minute.
    rig.wait(Duration::from_secs(60));
    rig.bridge.receive(rig.now, ("critic", "planner"), packet.bytes());
    rig.wait(Duration::from_secs(240));
    rig.bridge.forget_ended(rig.now);
    assert!(rig.bridge.peer_state(&id("critic")).is_some(), "five minutes old and no more");
    rig.wait(Duration::from_millis(1));
    rig.bridge.forget_ended(rig.now);
    assert!(rig.bridge.peer_state(&id("critic")).is_none());
}

#[test]
fn an_operators_hold_isolates_and_its_release_waits_for_a_good_report() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.hold(rig.now, true);
    echo_all(&mut rig);
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(reported(&mut rig, 0.1).verdict, Decision::Isolate);
    rig.bridge.hold(rig.now, false);
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(reported(&mut rig, 0.46).band, Band::Isolated);
    assert_eq!(reported(&mut rig, 0.1).band, Band::Open);
}

fn stops(rig: &mut Rig) -> Vec<Option<u64>> {
    rig.look();
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
    rig.bridge.uploads_started();
    let accepted = rig.bridge.snapshot_seq(rig.now);
    let closing = rig.report(0.55);
    let stops = stops(&mut rig);
    assert!(matches!(stops[..], [Some(revoke_to)] if revoke_to >= accepted), "{stops:?}");
    echo_all(&mut rig);
    store_all(&mut rig);
    assert!(rig.answers().is_empty(), "the upload is not quiet");
    assert!(!rig.bridge.may_upload() && !rig.bridge.may_fetch());
    rig.bridge.uploads_quiet(rig.now, true);
    let reply = rig.answers().remove(&closing).expect("the closing reply");
    assert_eq!(reply.barrier, Some(Barrier::Confirmed));
    assert!(rig.bridge.may_fetch(), "a blocked gate may still look at peers");
}

#[test]
fn p2_an_upload_that_does_not_become_quiet_is_severed_and_the_reply_says_so() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.uploads_started();
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
    rig.bridge.uploads_started();
    let closing = rig.report(0.7);
    rig.bridge.uploads_quiet(rig.now, false);
    store_all(&mut rig);
    echo_all(&mut rig);
    let reply = rig.answers().remove(&closing).expect("the closing reply");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
}

#[test]
fn a_closing_without_a_broker_waits_for_the_upload_too() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.uploads_started();
    rig.bridge.disconnected(rig.now);
    let closing = rig.report(0.55);
    assert!(rig.answers().is_empty());
    rig.bridge.uploads_quiet(rig.now, true);
    assert!(rig.answers().contains_key(&closing));
}

#[test]
fn caution_holds_snapshots_back_and_revokes_none() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.bridge.uploads_started();
    reported(&mut rig, 0.47);
    assert_eq!(stops(&mut rig), [None]);
    assert!(!rig.bridge.may_upload());
    reported(&mut rig, 0.3);
    assert!(rig.bridge.may_upload());
}

#[test]
fn p5_a_closed_verdict_revokes_what_an_earlier_life_accepted() {
    let mut rig = Rig::connected();
    rig.bridge.raise_seq(u64::MAX / 2);
    rig.bridge.uploads_started();
    rig.report(0.52);
    let stops = stops(&mut rig);
    assert!(matches!(stops[..], [Some(revoke_to)] if revoke_to > u64::MAX / 2), "{stops:?}");
}

#[test]
fn an_isolated_bridge_fetches_nothing_and_its_cut_waits_for_the_fetch() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    assert!(rig.bridge.may_fetch());
    rig.bridge.fetch_started();
    let closing = rig.report(0.7);
    assert_eq!(stops(&mut rig).len(), 1);
    store_all(&mut rig);
    echo_all(&mut rig);
    assert!(rig.answers().is_empty());
    rig.bridge.uploads_quiet(rig.now, true);
    assert!(rig.answers().contains_key(&closing));
    assert!(!rig.bridge.may_fetch());
}
