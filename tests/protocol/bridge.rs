//! The composed machine, step by step: what is sent, held, revoked and answered, and when.

#![allow(
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and measures with the real clock"
)]

#[cfg(test)]
mod closing;

#[cfg(test)]
mod doubt;

#[cfg(test)]
mod evidence;

#[cfg(test)]
mod fence;

#[cfg(test)]
mod inbound;

#[cfg(test)]
mod notices;

#[cfg(test)]
mod phase;

#[cfg(test)]
mod upload;

use std::time::Duration;

use crate::support::rig::Rig;
use driftgate::protocol::gate::Band;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::view::{Decision, PacketStatus, ReportReply};

const STORED: Outcome = Outcome::Stored { stream_seq: 9, duplicate: false };

fn store_all(rig: &mut Rig) -> usize {
    let published = rig.published();
    for (token, _) in &published {
        rig.answered(*token, STORED);
    }
    published.len()
}

fn echo_all(rig: &mut Rig) {
    for id in rig.confirms() {
        rig.confirm(id);
    }
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
            Decision::Hold | Decision::Block | Decision::Isolate => PacketStatus::Held,
            Decision::Observe => PacketStatus::Shadow,
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
fn p8_a_broker_without_the_stream_is_asked_again_and_the_books_add_up() {
    let mut rig = Rig::connected();
    let seq = rig.report(0.3);
    for (token, _) in rig.published() {
        rig.answered(token, Outcome::Later);
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
    rig.disconnect();
    rig.connect();
    let again = rig.published();
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|(_, packet)| packet.seq() == newest));
}
