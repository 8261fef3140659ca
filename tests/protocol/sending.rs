//! A packet is made when its turn comes, and says what its own report was, under the keys of then.
//! What a reload has made stricter meanwhile holds for it too.

use std::sync::Arc;
use std::time::Duration;

use crate::packets::clearance;
use crate::support::rig::{EPOCH_MS, Rig, id, live, settings};
use driftgate::protocol::bridge::Live;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::gate::{Band, Thresholds};
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::outbox::{Cleared, Ledger, Outbox, Unmade};
use driftgate::protocol::seal::Step;
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::view::{PacketStatus, Ticket};

fn ring(sign_with: &str) -> Keyring {
    let key = |byte| KeyMaterial::hmac_secret(&[byte; 32]).unwrap();
    Keyring::new([("k1".to_owned(), key(7)), ("k2".to_owned(), key(9))], Some(sign_with)).unwrap()
}

fn ledger(rig: &Rig) -> Ledger {
    let books = rig.bridge.ledgers().map(|(_, ledger)| *ledger);
    books.fold(Ledger::default(), |sum, ledger| sum.plus(&ledger))
}

#[test]
fn a_packet_that_waits_says_what_its_report_was_under_the_key_of_then() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    let number = rig.report(0.3);
    rig.reload(Live { keyring: ring("k2"), ..live(&["critic"]) });
    rig.wait(Duration::from_secs(7));
    rig.connect();
    let (token, packet) = rig.published().remove(0);
    let opened = ring("k1").open(packet.bytes()).unwrap();
    assert_eq!((packet.seq(), opened.seq(), opened.key_id()), (number, number, "k1"));
    assert_eq!(opened.packet().header.timestamp, Timestamp::from_unix_ms(EPOCH_MS));
    // What was sent once is sent again as it was.
    rig.reload(Live { keyring: Keyring::new([], None).unwrap(), ..live(&["critic"]) });
    rig.not_sent(token);
    rig.wait(Duration::from_secs(1));
    let (_, again) = rig.published().remove(0);
    assert_eq!(again.bytes(), packet.bytes());
}

#[test]
fn what_waits_over_a_mark_that_became_stricter_is_revoked() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    // The fourth is this target's turn in caution. The fifth is not: the fourth goes on waiting.
    for di in [0.3, 0.46, 0.46, 0.48, 0.46] {
        rig.report(di);
    }
    let books = ledger(&rig);
    assert_eq!((rig.bridge.band(), books.throttled, books.pending), (Band::Caution, 3, 1));
    let mut stricter = live(&["critic"]);
    stricter.policy.thresholds.block = 0.47;
    rig.reload(stricter);
    assert_eq!(rig.bridge.band(), Band::Caution, "the newest report is under it");
    assert_eq!(ledger(&rig).revoked, 1);
    rig.connect();
    assert!(rig.published().is_empty());
}

#[test]
fn what_waits_with_a_link_to_a_snapshot_is_revoked_with_the_right_to_it() {
    let mut rig = Rig::new(settings("planner", &["critic"]));
    rig.report(0.3);
    let mut narrower = live(&["critic"]);
    narrower.peers.values_mut().for_each(|peer| peer.export_snapshot = false);
    rig.reload(narrower.clone());
    assert_eq!(ledger(&rig).revoked, 1);
    // What was made for it without the link may go.
    rig.report(0.3);
    rig.reload(narrower);
    rig.connect();
    assert_eq!(rig.published().len(), 1);
}

#[test]
fn a_packet_that_cannot_be_made_when_its_turn_comes_is_held_and_the_books_add_up() {
    let cleared = Arc::new(Cleared {
        seq: 7,
        at: Timestamp::from_unix_ms(EPOCH_MS),
        clearance: clearance(&Thresholds::default()),
        full: None,
        minimal: None,
        provenance: Provenance::Native,
        trace: None,
    });
    let mut outbox = Outbox::new(1, Duration::from_secs(5));
    let lane = outbox.lane(&id("critic"));
    outbox.offer(lane, (Ticket(3), 0), (cleared, false));
    let next = outbox.next(Duration::ZERO, |_| true, |_, _, _| Err(Step::Evidence));
    let unmade = Unmade { line: (Ticket(3), 0), seq: 7, step: Step::Evidence };
    assert_eq!(next.map(|next| next.map(|_| ())), Some(Err(unmade)));
    let (_, books) = outbox.ledgers().next().unwrap();
    assert_eq!((books.held, books.pending, books.is_balanced()), (1, 0, true));
    assert_eq!(outbox.take_settled()[0].status, PacketStatus::Held);
}
