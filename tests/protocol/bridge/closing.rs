//! Closing: what waits for what, what is revoked, cut and severed (P2, P4, P5).

use std::time::Duration;

use driftgate::protocol::bridge::Effect;
use driftgate::protocol::gate::Reason;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::view::{Barrier, PacketStatus};

use super::{STORED, echo_all, reported, statuses};
use crate::support::rig::{Rig, settings};

#[test]
fn p2_the_closing_reply_waits_for_acknowledgements_and_for_the_echo() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let in_flight = rig.published();
    let closing = rig.report(0.55);
    let confirms = rig.confirms();
    assert_eq!(confirms.len(), 1);
    assert!(rig.answers().is_empty(), "nothing is acknowledged, nothing is echoed");
    rig.confirm(confirms[0]);
    assert!(rig.answers().is_empty(), "three acknowledgements are still out");
    for (token, _) in in_flight {
        rig.answered(token, STORED);
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
        .position(|effect| matches!(effect, Effect::Answer { ticket, .. } if ticket.0 == closing));
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
        rig.answered(token, STORED);
    }
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
    assert!(rig.bridge.field_state(rig.now).is_none());
}

#[test]
fn p4_a_connection_made_while_isolated_gets_no_subscription() {
    let mut rig = Rig::connected();
    rig.report(0.65);
    echo_all(&mut rig);
    rig.disconnect();
    rig.effects.clear();
    rig.connect();
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
    rig.confirm(first[0]);
    assert!(rig.answers().is_empty(), "the first echo came before the cut");
    rig.confirm(second[0]);
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
    rig.connect();
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
        rig.answered(*token, Outcome::Later);
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
    rig.connect();
    let published = rig.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].1.seq(), newest);
    let (_, ledger) = rig.bridge.ledgers().next().expect("one target");
    assert_eq!((ledger.reports, ledger.superseded, ledger.pending), (3, 2, 1));
}

#[test]
fn p2_a_close_after_a_lost_connection_is_confirmed_only_if_nothing_was_open_on_it() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.3);
    rig.disconnect();
    assert_eq!(reported(&mut rig, 0.55).barrier, Some(Barrier::Confirmed));
    let mut rig = Rig::connected();
    rig.report(0.3);
    rig.published();
    rig.disconnect();
    rig.answers();
    let closing = rig.report(0.55);
    let reply = rig.answers().remove(&closing).expect("at once");
    assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
}
