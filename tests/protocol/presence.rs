//! Presence entries, and who of several instances holds a name.

use std::time::Duration;

use driftgate::protocol::gate::{Band, Mode};
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::presence::{
    Condition, ENTRY_BYTES_MAX, Fence, Instance, Lease, LeaseStep, Presence, Reading, TTL,
};
use driftgate::protocol::refusal::{Fault, Refusal};
use driftgate::protocol::time::{Now, Timestamp};

use crate::support::rig::{EPOCH_MS, id, keyring};

const SKEW: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);
const ME: Instance = Instance::new(7);

fn entry(instance: u128, claim: u64, at: Timestamp) -> Presence {
    Presence {
        runtime_id: id("planner"),
        mode: Mode::Enforce,
        band: Band::Open,
        reasons: vec!["di_block".to_owned()],
        since: Timestamp::from_unix_ms(EPOCH_MS),
        epoch: 1,
        hold: false,
        instance: Instance::new(instance),
        claim,
        version: "0.1.0".to_owned(),
        started: Timestamp::from_unix_ms(EPOCH_MS),
        at,
    }
}

/// One instance, its clock and the key as the broker has it.
struct Bench {
    lease: Lease,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        Self::after(None)
    }

    fn after(earlier: Option<Instance>) -> Self {
        let wall = Timestamp::from_unix_ms(EPOCH_MS);
        Self { lease: Lease::new(ME, earlier), now: Now { wall, mono: Duration::from_secs(100) } }
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall = self.now.wall.plus(time);
        self.lease.lapse(self.now.mono);
    }

    fn next(&mut self) -> Option<LeaseStep> {
        self.lease.next(self.now, TIMEOUT)
    }

    /// Reads `entry` at `revision`; whether a hold is taken over.
    fn read(&mut self, revision: u64, entry: Result<Option<Presence>, Refusal>) -> bool {
        assert_eq!(self.next(), Some(LeaseStep::Read));
        self.lease.found(self.now, SKEW, &Reading::Found { revision, entry })
    }

    fn claim(&mut self) -> (u64, u64) {
        match self.next() {
            Some(LeaseStep::Write { claim, expected }) => (claim, expected),
            other => panic!("it does not write: {other:?}"),
        }
    }

    fn us(&self) -> u64 {
        self.now.wall.unix_us()
    }

    /// Another instance's entry, `age` old, with a claim `ahead` microseconds after now.
    fn rival(&self, age: Duration, ahead: i64) -> Presence {
        let ms = self.now.wall.unix_ms() - i64::try_from(age.as_millis()).expect("short");
        let claim = self.us().checked_add_signed(ahead).expect("no overflow");
        entry(9, claim, Timestamp::from_unix_ms(ms))
    }

    /// It holds the name at revision 1.
    fn holding() -> Self {
        let mut bench = Self::new();
        bench.read(0, Ok(None));
        bench.claim();
        bench.lease.written(bench.now, Some(1));
        bench
    }

    /// It waits behind a rival whose entry is at revision 5.
    fn waiting() -> (Self, Presence) {
        let mut bench = Self::new();
        let rival = bench.rival(Duration::from_secs(1), -1_000_000);
        bench.read(5, Ok(Some(rival.clone())));
        (bench, rival)
    }
}

#[test]
fn an_entry_is_read_as_it_was_signed_and_only_under_its_own_name_and_key() {
    let other = KeyMaterial::hmac_secret(&[9; 32]).expect("32 bytes");
    let mine = KeyMaterial::hmac_secret(&[7; 32]).expect("32 bytes");
    let both = [("k1".to_owned(), mine), ("k2".to_owned(), other)];
    let ring = Keyring::new(both, Some("k2")).expect("a ring");
    let at = Timestamp::from_unix_ms(EPOCH_MS);
    let presence = entry(7, 1, at);
    let bytes = presence.sign(&keyring()).expect("a key to sign with");
    let open = |signer: Option<&str>, owner: &str, bytes: &[u8]| {
        Presence::open(&ring, signer, &id(owner), bytes).map_err(|refusal| refusal.fault)
    };
    assert_eq!(open(Some("k1"), "planner", &bytes), Ok(presence.clone()));
    assert_eq!(open(None, "planner", &bytes), Ok(presence.clone()));
    let foreign = presence.sign(&ring).expect("a key to sign with");
    let unsigned = serde_json::to_vec(&presence).expect("json");
    let tampered = String::from_utf8(bytes.clone()).expect("utf-8").replace("open", "caution");
    for (fault, signer, owner, bytes) in [
        (Fault::Forged, Some("k1"), "planner", &foreign[..]),
        (Fault::Misaddressed, None, "critic", &bytes[..]),
        (Fault::Malformed, None, "planner", &unsigned[..]),
        (Fault::Forged, None, "planner", tampered.as_bytes()),
        (Fault::Malformed, None, "planner", b""),
        (Fault::Malformed, None, "planner", &[b' '; ENTRY_BYTES_MAX + 1][..]),
    ] {
        assert_eq!(open(signer, owner, bytes), Err(fault));
    }
    assert_eq!(Instance::parse(&ME.to_string()), Some(ME));
    assert_eq!(Instance::parse("+0000000000000000000000000000007"), None);
}

#[test]
fn the_bytes_are_those_of_the_contract() {
    let bytes = entry(7, 1, Timestamp::from_unix_ms(EPOCH_MS)).sign(&keyring()).expect("signed");
    let text = String::from_utf8(bytes).expect("utf-8");
    let (body, signature) = text.split_once(r#""signature":{"#).expect("a signature");
    assert_eq!(
        body,
        r#"{"at":"2026-01-01T00:00:00.000Z","band":"open","claim":1,"epoch":1,"hold":false,"instance":"00000000000000000000000000000007","mode":"enforce","reasons":["di_block"],"runtime_id":"planner","#
    );
    assert!(signature.starts_with(r#""checksum":"sha256:"#), "{signature}");
    assert!(signature.contains(r#""integrity_token":"hmac-sha256:k1:"#), "{signature}");
}

#[test]
fn a_reader_judges_an_entry_by_its_age_and_by_what_it_says() {
    let at = Timestamp::from_unix_ms(EPOCH_MS);
    let open = entry(7, 1, at);
    let isolated = Presence { band: Band::Isolated, ..open.clone() };
    let stopped = Presence { reasons: vec!["stopped".to_owned()], ..open.clone() };
    for (presence, age_s, condition) in [
        (&open, 0, Condition::Live),
        (&open, 34, Condition::Live),
        (&open, 35, Condition::Stale),
        (&isolated, 1, Condition::Cut),
        (&isolated, 3600, Condition::Cut),
        (&stopped, 1, Condition::Cut),
    ] {
        assert_eq!(presence.condition(at.plus(Duration::from_secs(age_s))), condition);
    }
}

#[test]
fn a_free_name_is_claimed_by_the_clock_and_refreshed_under_the_same_claim() {
    let mut bench = Bench::new();
    bench.read(0, Ok(None));
    assert_eq!(bench.claim(), (bench.us(), 0));
    let claim = bench.us();
    assert_eq!(bench.next(), None, "one question at a time");
    bench.lease.written(bench.now, Some(4));
    let mut spans = Vec::new();
    for revision in 4..40 {
        let before = bench.now.mono;
        bench.pass(bench.lease.deadline().saturating_sub(bench.now.mono));
        spans.push(bench.now.mono.saturating_sub(before).as_millis());
        assert_eq!(bench.claim(), (claim, revision));
        bench.lease.written(bench.now, Some(revision + 1));
    }
    assert!(spans.iter().all(|ms| (9_000..=11_000).contains(ms)), "{spans:?}");
    spans.dedup();
    assert!(spans.len() > 1, "no jitter");
}

#[test]
fn what_is_found_at_the_start_decides_who_has_to_wait() {
    let bench = Bench::new();
    let live = bench.rival(Duration::from_secs(34), -1);
    let old = bench.rival(TTL, -1);
    let ahead = bench.rival(Duration::ZERO, 30_000_001);
    let near = bench.rival(Duration::ZERO, 30_000_000);
    let stopped = Presence { reasons: vec!["stopped".to_owned()], ..live.clone() };
    let mine = Presence { instance: ME, ..live.clone() };
    let foreign = Refusal::forged("/signature/integrity_token: wrong tag");
    for (name, entry, fence) in [
        ("nothing", Ok(None), None),
        ("another live instance", Ok(Some(live)), Some(Fence::Twin)),
        ("one that is long gone", Ok(Some(old)), None),
        ("one that has stopped", Ok(Some(stopped)), None),
        ("a claim beyond the clock", Ok(Some(ahead)), None),
        ("a claim just within", Ok(Some(near)), Some(Fence::Twin)),
        ("ourselves", Ok(Some(mine)), None),
        ("an entry that does not verify", Err(foreign), None),
    ] {
        let mut bench = Bench::new();
        bench.read(5, entry);
        assert_eq!(bench.lease.fence(), fence, "{name}");
        let writes = matches!(bench.next(), Some(LeaseStep::Write { expected: 5, .. }));
        assert_eq!(writes, fence.is_none(), "{name}");
    }
}

#[test]
fn an_earlier_life_on_the_same_disk_is_no_twin() {
    let mut bench = Bench::after(Some(Instance::new(9)));
    let earlier = bench.rival(Duration::from_secs(1), -1);
    let held = Presence { hold: true, ..earlier };
    assert!(!bench.read(5, Ok(Some(held))), "our own disk knows better");
    assert_eq!(bench.lease.fence(), None);
}

#[test]
fn a_newcomer_writes_nothing_until_its_runtime_is_fit_to_open() {
    let (mut bench, rival) = Bench::waiting();
    for _ in 0..10 {
        assert_eq!(bench.next(), None);
        bench.pass(Duration::from_secs(11));
        let newer = Presence { at: bench.now.wall, ..rival.clone() };
        bench.read(6, Ok(Some(newer)));
        assert_eq!(bench.lease.fence(), Some(Fence::Twin));
    }
    bench.lease.fit();
    let (claim, expected) = bench.claim();
    assert_eq!((claim, expected), (bench.us(), 6));
    assert_eq!(bench.lease.fence(), Some(Fence::Twin), "not before the broker has stored it");
    bench.lease.written(bench.now, Some(7));
    assert_eq!(bench.lease.fence(), None);
}

#[test]
fn a_claim_that_finds_the_other_ones_refresh_is_written_anew() {
    let (mut bench, rival) = Bench::waiting();
    bench.lease.fit();
    let (claim, _) = bench.claim();
    bench.lease.written(bench.now, None);
    bench.read(6, Ok(Some(rival)));
    assert_eq!(bench.lease.fence(), Some(Fence::Twin));
    assert_eq!(bench.claim(), (claim, 6));
    bench.lease.written(bench.now, Some(7));
    assert_eq!(bench.lease.fence(), None);
}

#[test]
fn a_claim_is_above_every_verified_one_that_was_seen() {
    let mut bench = Bench::new();
    let ahead = bench.rival(Duration::from_secs(1), 20_000_000);
    bench.read(5, Ok(Some(ahead.clone())));
    bench.lease.fit();
    assert_eq!(bench.claim(), (ahead.claim + 1, 5));
}

#[test]
fn a_lost_write_replaces_only_where_a_verified_higher_claim_is_found() {
    let bench = Bench::new();
    let higher = bench.rival(Duration::from_secs(1), 1);
    let lower = bench.rival(Duration::from_secs(1), -1);
    let equal = bench.rival(Duration::from_secs(1), 0);
    let foreign = Refusal::forged("/signature/integrity_token: wrong tag");
    let beyond = bench.rival(Duration::from_secs(1), 3_600_000_000);
    for (name, entry, fence) in [
        ("a higher claim", Ok(Some(higher)), Some(Fence::Replaced)),
        ("a lower claim", Ok(Some(lower)), None),
        ("an equal claim of a higher instance", Ok(Some(equal.clone())), Some(Fence::Replaced)),
        (
            "an equal claim of a lower instance",
            Ok(Some(Presence { instance: Instance::new(1), ..equal })),
            None,
        ),
        ("nothing: it has expired", Ok(None), None),
        ("an entry that does not verify", Err(foreign), None),
        ("a claim beyond the clock", Ok(Some(beyond)), None),
    ] {
        let mut bench = Bench::holding();
        bench.pass(Duration::from_millis(1));
        bench.lease.touch();
        bench.claim();
        bench.lease.written(bench.now, None);
        bench.read(9, entry);
        assert_eq!(bench.lease.fence(), fence, "{name}");
        match fence {
            None => assert_eq!(bench.claim().1, 9, "{name}: it is rewritten"),
            Some(_) => assert_eq!(bench.next(), None, "{name}: it writes nothing"),
        }
    }
}

/// One that was replaced a moment ago, and by whom.
fn replaced() -> (Bench, Presence) {
    let mut bench = Bench::holding();
    bench.lease.touch();
    bench.claim();
    bench.lease.written(bench.now, None);
    let rival = bench.rival(Duration::ZERO, 1);
    bench.read(9, Ok(Some(rival.clone())));
    (bench, rival)
}

#[test]
fn who_was_replaced_does_not_claim_and_is_free_when_the_entry_expires() {
    let (mut bench, rival) = replaced();
    bench.lease.fit();
    assert_eq!(bench.next(), None);
    bench.pass(TTL / 2);
    bench.read(9, Ok(Some(rival.clone())));
    assert_eq!(bench.lease.fence(), Some(Fence::Replaced));
    bench.pass(TTL / 2);
    assert_eq!(bench.lease.fence(), None, "its time is over");
    bench.read(0, Ok(None));
    assert!(bench.claim().0 > rival.claim);
}

#[test]
fn a_bucket_that_cannot_be_reached_fences_nobody_and_lifts_nothing_early() {
    let mut bench = Bench::new();
    assert_eq!(bench.next(), Some(LeaseStep::Read));
    assert!(!bench.lease.is_read());
    bench.lease.found(bench.now, SKEW, &Reading::Unreachable);
    assert!(bench.lease.is_read());
    assert_eq!((bench.lease.fence(), bench.next()), (None, None));
    let mut bench = Bench::new();
    assert_eq!(bench.next(), Some(LeaseStep::Read));
    bench.pass(TIMEOUT);
    assert!(bench.lease.is_read(), "an answer that never comes is one");
    let (mut bench, _) = replaced();
    bench.pass(Duration::from_secs(12));
    assert_eq!(bench.next(), Some(LeaseStep::Read));
    bench.lease.found(bench.now, SKEW, &Reading::Unreachable);
    assert_eq!(bench.lease.fence(), Some(Fence::Replaced));
    bench.pass(TTL);
    assert_eq!(bench.lease.fence(), None);
}

#[test]
fn a_new_connection_reads_before_it_writes() {
    let mut bench = Bench::holding();
    bench.lease.reset();
    assert!(!bench.lease.is_read());
    assert_eq!(bench.lease.last(bench.now, TIMEOUT), None);
    let rival = bench.rival(Duration::from_secs(1), 1);
    bench.read(9, Ok(Some(rival)));
    assert_eq!(bench.lease.fence(), Some(Fence::Replaced));
}

#[test]
fn the_last_word_before_a_cut_is_that_of_the_holder_alone() {
    let mut bench = Bench::holding();
    assert!(matches!(
        bench.lease.last(bench.now, TIMEOUT),
        Some(LeaseStep::Write { expected: 1, .. })
    ));
    assert_eq!(bench.lease.last(bench.now, TIMEOUT), None, "one question at a time");
    let (mut bench, _) = Bench::waiting();
    assert_eq!(bench.lease.last(bench.now, TIMEOUT), None);
    let (mut bench, _) = replaced();
    assert_eq!(bench.lease.last(bench.now, TIMEOUT), None);
}

#[test]
fn a_hold_that_another_life_has_written_is_taken_over_at_the_start_alone() {
    let mut bench = Bench::new();
    let held = Presence { hold: true, ..bench.rival(Duration::from_secs(3600), -1) };
    assert!(bench.read(5, Ok(Some(held.clone()))), "however old it is");
    let mut bench = Bench::new();
    assert!(!bench.read(0, Ok(None)));
    bench.lease.reset();
    assert!(!bench.read(5, Ok(Some(held))), "not at a later connection");
}

/// Two instances and one key: whatever order their steps come in, one of them ends as the holder,
/// the other is fenced, and it stays so.
#[test]
fn two_that_start_at_once_come_to_rest() {
    for order in 0_u32..256 {
        let mut now = Now { wall: Timestamp::from_unix_ms(EPOCH_MS), mono: Duration::from_secs(9) };
        let mut leases = [1, 2].map(|instance| Lease::new(Instance::new(instance), None));
        let mut key: (u64, Option<Presence>) = (0, None);
        let mut writes = 0;
        for step in 0..96 {
            if step == 32 || step == 64 {
                // Whoever was first learns of the other by its next refresh, twice at most.
                now.mono += Duration::from_secs(11);
                now.wall = now.wall.plus(Duration::from_secs(11));
            }
            // The order's bits first, then in turn until both are at rest.
            let index = if step < 32 { order.rotate_right(step) & 1 } else { step & 1 };
            let index = usize::try_from(index).expect("a bit");
            let lease = &mut leases[index];
            match lease.next(now, TIMEOUT) {
                Some(LeaseStep::Read) => {
                    let entry = Ok(key.1.clone());
                    lease.found(now, SKEW, &Reading::Found { revision: key.0, entry });
                }
                Some(LeaseStep::Write { claim, expected }) => {
                    let is_right = expected == key.0;
                    if is_right {
                        let instance = u128::try_from(index).expect("small") + 1;
                        key = (key.0 + 1, Some(entry(instance, claim, now.wall)));
                        writes += 1;
                    }
                    lease.written(now, is_right.then_some(key.0));
                }
                None => {}
            }
        }
        assert!(leases.iter_mut().all(|lease| lease.next(now, TIMEOUT).is_none()), "{order}");
        let fenced = leases.iter().filter(|lease| lease.fence().is_some()).count();
        assert!(fenced == 1 && writes <= 6, "{order}: {fenced} fenced, {writes} writes");
    }
}
