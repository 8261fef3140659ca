//! What the simulation found about barriers, buffers and authorisations, each as a few steps.

use std::time::Duration;

use crate::support::rig::{EPOCH_MS, Rig, id, live, settings};
use driftgate::protocol::audit::Event;
use driftgate::protocol::bridge::{Effect, LINGER_MAX, WAITING_MAX};
use driftgate::protocol::gate::Band;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::view::Barrier;

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

/// Closes with a broker that echoes at once, and says what the reply claims.
fn close(rig: &mut Rig) -> Option<Barrier> {
    let closing = rig.report(0.55);
    echo_all(rig);
    rig.answers().remove(&closing).and_then(|reply| reply.barrier)
}

#[test]
fn p2_an_echo_on_a_new_connection_says_nothing_about_the_bytes_of_the_last_one() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    assert_eq!(rig.published().len(), 3);
    rig.disconnect();
    rig.connect();
    store_all(&mut rig);
    assert_eq!(close(&mut rig), Some(Barrier::Unconfirmed), "three packets may still arrive");
    rig.wait(LINGER_MAX);
    rig.report(0.3);
    store_all(&mut rig);
    assert_eq!(close(&mut rig), Some(Barrier::Confirmed), "by now they do not travel any more");
}

#[test]
fn p2_an_attempt_that_was_given_up_on_may_still_be_read() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    let published = rig.published();
    rig.wait(Duration::from_millis(4950));
    // One answer asks for a pause, so that what times out is not sent again at once: nothing is in
    // flight, and two packets are still on the wire.
    rig.answered(published[0].0, Outcome::Later);
    rig.wait(Duration::from_millis(50));
    assert!(rig.published().is_empty());
    rig.disconnect();
    assert_eq!(close(&mut rig), Some(Barrier::Unconfirmed));
}

#[test]
fn p2_a_later_acknowledgement_proves_that_an_earlier_attempt_was_read() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    rig.published();
    rig.wait(Duration::from_secs(5));
    store_all(&mut rig);
    rig.disconnect();
    assert_eq!(close(&mut rig), Some(Barrier::Confirmed));
}

#[test]
fn p7_an_authorisation_that_ends_while_a_packet_waits_revokes_the_packet() {
    let mut removed = Rig::new(settings("planner", &["critic", "monitor"]));
    removed.report(0.3);
    removed.reload(live(&["monitor"]));
    let mut expiring = settings("planner", &["critic", "monitor"]);
    expiring.live.peers.get_mut(&id("critic")).expect("a peer").expires =
        Some(Timestamp::from_unix_ms(EPOCH_MS + 1000));
    let mut expired = Rig::new(expiring);
    expired.report(0.3);
    expired.wait(Duration::from_secs(1));
    for rig in [&mut removed, &mut expired] {
        rig.connect();
        let targets: Vec<_> =
            rig.published().iter().map(|(_, packet)| packet.target().clone()).collect();
        assert_eq!(targets, [id("monitor")]);
        let revoked: u64 = rig.bridge.ledgers().map(|(_, ledger)| ledger.revoked).sum();
        assert_eq!(revoked, 1);
    }
}

#[test]
fn p10_a_closing_ends_in_time_however_often_the_band_changes_meanwhile() {
    let mut rig = Rig::connected();
    rig.report(0.3);
    store_all(&mut rig);
    let closing = rig.report(0.55);
    let begun = rig.now.mono;
    let step = Duration::from_millis(100);
    let mut was_closed = false;
    // Every echo finds the gate closed in another way than the last notice said.
    while !was_closed && rig.now.mono - begun < Duration::from_secs(10) {
        let word = if rig.bridge.band() == Band::Isolated { 0.55 } else { 0.65 };
        rig.report(0.3);
        rig.report(word);
        rig.wait(step);
        echo_all(&mut rig);
        was_closed =
            rig.effects.iter().any(|effect| matches!(effect, Effect::Record(Event::Barrier(_))));
    }
    let reply = rig.answers().remove(&closing).expect("answered with the rest");
    assert_eq!(reply.barrier, Some(Barrier::Confirmed));
    let bound = Duration::from_secs(4);
    assert!(rig.now.mono - begun <= bound, "took {:?}", rig.now.mono - begun);
}

#[test]
fn p10_more_replies_than_may_wait_are_answered_at_once_and_say_so() {
    let mut rig = Rig::connected();
    let mut answered = 0;
    let flips = WAITING_MAX + 10;
    for _ in 0..flips {
        rig.report(0.3);
        let closing = rig.report(0.55);
        // The first closing has not ended, so every reply that closes waits for it.
        if let Some(reply) = rig.answers().remove(&closing) {
            assert_eq!(reply.barrier, Some(Barrier::Unconfirmed));
            assert_eq!(reply.band, Band::Blocked);
            answered += 1;
        }
    }
    // Two places are taken: by the first report, whose packets are in flight, and by each good one
    // until the next report closes the gate again.
    assert_eq!(answered, flips - (WAITING_MAX - 2), "of {flips} are answered at once");
    let before = rig.published().len();
    echo_all(&mut rig);
    rig.wait(Duration::from_secs(4));
    assert_eq!(rig.published().len(), 0, "{before} were sent before the first closing");
}
