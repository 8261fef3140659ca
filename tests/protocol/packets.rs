//! Sealing and opening: what the gate cleared travels unchanged, and nothing else does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report; the clippy setting does not reach helpers"
)]

use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::{Coherence, DriftIndex, DriftParts, Fraction};
use driftgate::protocol::gate::{Reason, Thresholds};
use driftgate::protocol::judge::{Clearance, Judge, Judgement, Policy};
use driftgate::protocol::keyring::Domain;
use driftgate::protocol::packet::{
    AttractorState, AttractorType, Header, MemorySnapshot, Payload, RuntimeId, SafetyFlags,
    StatePacket,
};
use driftgate::protocol::profile::{Translation, Translator};
use driftgate::protocol::seal::{
    EncodedPayload, Fault, KeyMaterial, Keyring, KeyringFault, MaterialFault, Sealed, Step,
    Unproven, unstable,
};
use driftgate::protocol::time::Timestamp;
use proptest::prelude::*;

use crate::support::traces::native;

/// What a judge makes of native reports, each a cycle number and its SDI.
fn judged(policy: Policy, cycles: &[(u64, f64)]) -> Vec<Judgement> {
    let mut translator = Translator::new(driftgate::profiles::load("srip-05").unwrap());
    let mut judge = Judge::new(policy, false);
    let mut judgement = |&(cycle, sdi): &(u64, f64)| {
        let document = Json::parse(native(cycle, sdi).to_string().as_bytes()).unwrap();
        match translator.translate(&document).unwrap() {
            Translation::Report { report, .. } => Some(judge.report(&report)),
            Translation::Retry => None,
        }
    };
    cycles.iter().filter_map(&mut judgement).collect()
}

/// What a judge under these marks hands out for a report with an index of 0.08.
pub(crate) fn clearance(thresholds: &Thresholds) -> Clearance {
    let policy = Policy { thresholds: *thresholds, ..Policy::default() };
    judged(policy, &[(1, 0.0)]).pop().unwrap().clearance.unwrap()
}

#[test]
fn p1_a_judge_clears_what_the_gate_lets_through_on_evidence_and_nothing_else() {
    let mut cleared = Vec::new();
    // An index of 0.08 and 0.29, both open, and an SDI past its critical mark.
    let sdis = [0.0, 0.5, 0.9];
    for (sdi, then) in sdis.into_iter().flat_map(|one| sdis.map(|two| (one, two))) {
        // The third report repeats the cycle of the second with other numbers: no evidence.
        for judgement in judged(Policy::default(), &[(1, sdi), (2, then), (2, 0.1)]) {
            let is_evidence = !judgement.verdict.reasons.contains(&Reason::DuplicateCycle);
            let is_clear = !judgement.verdict.band.is_closed() && is_evidence;
            assert_eq!(judgement.clearance.is_some(), is_clear, "{judgement:?}");
            cleared.push(is_clear);
        }
    }
    assert!(cleared.contains(&true) && cleared.contains(&false));
}

fn hmac_ring() -> Keyring {
    let key = KeyMaterial::hmac_secret(&[7; 32]).unwrap();
    Keyring::new([("k1".to_owned(), key)], Some("k1")).unwrap()
}

fn ed25519_ring() -> Keyring {
    let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [9; 32]).unwrap();
    let key = KeyMaterial::nkey_seed(&pair.seed().unwrap()).unwrap();
    Keyring::new([("planner".to_owned(), key)], Some("planner")).unwrap()
}

fn fraction(number: f64) -> Fraction {
    Fraction::new(number).unwrap()
}

fn parts(sdi: f64, sv: f64, pd: f64, scr: f64) -> DriftParts {
    let scr = Coherence::new(scr).unwrap();
    DriftParts { sdi: fraction(sdi), sv: fraction(sv), pd: fraction(pd), scr }
}

fn payload(drift: DriftParts) -> Payload {
    Payload {
        attractor_state: AttractorState {
            id: "a-1".into(),
            kind: AttractorType::Symbolic,
            stability: fraction(0.91),
            phase: "stable".into(),
        },
        drift,
        di: drift.index(),
        memory_snapshot: Some(MemorySnapshot {
            summary_hash: Digest::from_bytes([10; 32]),
            retention_index: fraction(0.82),
        }),
        safety_flags: SafetyFlags {
            aegida_status: "nominal".into(),
            phase_lock: false,
            recenter_active: false,
        },
    }
}

fn golden() -> StatePacket {
    let header = Header {
        protocol_version: "1.0".into(),
        source_runtime_id: RuntimeId::new("planner").unwrap(),
        target_runtime_id: RuntimeId::new("critic").unwrap(),
        timestamp: Timestamp::parse("2026-11-23T01:02:03.450Z").unwrap(),
    };
    StatePacket { header, payload: payload(parts(0.2, 0.1, 0.1, 0.8)) }
}

fn seal(ring: &Keyring, packet: &StatePacket, full: bool) -> Result<Sealed, Step> {
    let encoded = EncodedPayload::new(&packet.payload, full);
    ring.seal(&clearance(&Thresholds::default()), &packet.header, &encoded, 1_795_000_000_000_000)
}

prop_compose! {
    fn any_packet()(
        id in "[^\\p{Cc}]{1,60}",
        source in "[A-Za-z0-9_-]{1,32}",
        (sdi, sv, pd) in (0.0..0.3, 0.0..0.3, 0.0..0.3),
        scr in 0.7..=1.0,
        stability in 0.0..=1.0,
        memory in proptest::option::of(("[0-9a-f]{64}", 0.0..=1.0)),
        is_forming in any::<bool>(),
        unix_ms in 0..Timestamp::MAX.unix_ms(),
    ) -> StatePacket {
        let mut packet = golden();
        packet.header.source_runtime_id = RuntimeId::new(&source).unwrap();
        packet.header.target_runtime_id = RuntimeId::new(&format!("{source}-2")).unwrap();
        packet.header.timestamp = Timestamp::from_unix_ms(unix_ms);
        packet.payload = payload(parts(sdi, sv, pd, scr));
        packet.payload.attractor_state.id = id;
        packet.payload.attractor_state.stability = fraction(stability);
        packet.payload.attractor_state.phase = if is_forming { "forming" } else { "stable" }.into();
        packet.payload.memory_snapshot = memory.map(|(hex, retention_index)| MemorySnapshot {
            summary_hash: Digest::parse(&format!("sha256:{hex}")).unwrap(),
            retention_index: fraction(retention_index),
        });
        packet
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_as_it_was(packet in any_packet(), full: bool, seq: u64) {
        for ring in [hmac_ring(), ed25519_ring()] {
            let encoded = EncodedPayload::new(&packet.payload, full);
            let sealed = ring
                .seal(&clearance(&Thresholds::default()), &packet.header, &encoded, seq)
                .unwrap();
            let verified = ring.open(sealed.bytes()).unwrap();
            let mut expected = packet.clone();
            expected.payload.memory_snapshot = expected.payload.memory_snapshot.filter(|_| full);
            prop_assert_eq!(verified.packet(), &expected);
            prop_assert_eq!(verified.bytes(), sealed.bytes());
            prop_assert_eq!((verified.seq(), verified.key_id()), (seq, ring.sign_with().unwrap()));
            prop_assert_eq!(verified.checksum(), sealed.checksum());
            prop_assert_eq!(sealed.target(), &packet.header.target_runtime_id);
            prop_assert_eq!(unstable(verified.packet(), 0.5), None);
        }
    }

    #[test]
    fn a_flipped_bit_of_any_packet_is_refused(packet in any_packet(), at: prop::sample::Index) {
        let ring = hmac_ring();
        let mut bytes = seal(&ring, &packet, true).unwrap().bytes().to_vec();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(ring.open(&bytes).is_err(), "bit {}", bit);
    }

    #[test]
    fn opening_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
        prop_assert!(hmac_ring().open(&bytes).is_err());
    }
}

#[test]
fn every_single_flipped_bit_is_refused() {
    for ring in [hmac_ring(), ed25519_ring()] {
        let bytes = seal(&ring, &golden(), true).unwrap().bytes().to_vec();
        assert!(ring.open(&bytes).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open(&flipped).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_packet_cut_short_or_too_long_is_malformed() {
    let ring = hmac_ring();
    let bytes = seal(&ring, &golden(), true).unwrap().bytes().to_vec();
    for length in 0..bytes.len() {
        assert_eq!(ring.open(&bytes[..length]).unwrap_err().fault, Fault::Malformed);
    }
    let refusal = ring.open(&vec![b' '; 16 * 1024 + 1]).unwrap_err();
    assert_eq!(refusal.to_string(), "malformed: /: 16385 bytes, and a packet has at most 16384");
}

#[test]
fn a_packet_may_be_as_long_as_the_limit_and_not_longer() {
    let ring = hmac_ring();
    let sealed = seal(&ring, &golden(), true).unwrap();
    let text = str::from_utf8(sealed.bytes()).unwrap().replace(r#""1.0""#, r#""1.1""#);
    let (content, _) = text.split_once(r#","signature""#).unwrap();
    let checksum = Digest::of_parts(&[content.as_bytes(), b"}"]);
    let token = ring.sign_checksum(Domain::Token, sealed.seq(), checksum).unwrap();
    let signature = format!(r#"{{"checksum":"{checksum}","integrity_token":"{token}"}}"#);
    let bytes = format!(r#"{content},"signature":{signature}}}"#).into_bytes();
    // A field that a later 1.x may add, and that sorts after the three we know.
    let of_length = |length: usize| {
        let mut longer = bytes[..bytes.len() - 1].to_vec();
        longer.extend(br#","unknown":""#);
        longer.resize(length - 2, b'a');
        longer.extend(br#""}"#);
        longer
    };
    ring.open(&of_length(16 * 1024)).unwrap();
    assert_eq!(ring.open(&of_length(16 * 1024 + 1)).unwrap_err().fault, Fault::Malformed);
}

#[test]
fn a_packet_whose_tag_nobody_has_checked_still_tells_what_it_claims() {
    let sealed = seal(&hmac_ring(), &golden(), true).unwrap();
    let unproven = Unproven::read(sealed.bytes()).unwrap();
    assert_eq!((unproven.key_id(), unproven.seq()), ("k1", sealed.seq()));
    assert_eq!(unproven.packet(), &golden());
}

#[test]
fn a_packet_that_breaks_one_invariant_is_never_made() {
    type Change = fn(&mut StatePacket);
    let changes: [(&str, Step, Change); 13] = [
        ("index at the mark", Step::Invariants, |p| p.payload = payload(parts(0.5, 0.5, 0.5, 1.0))),
        ("index over the mark", Step::Invariants, |p| {
            p.payload = payload(parts(0.5, 0.5, 0.6, 1.0));
        }),
        ("index that is not the formula's", Step::Invariants, |p| {
            p.payload.di = DriftIndex::new(0.1).unwrap();
        }),
        ("recovering phase", Step::Invariants, |p| {
            p.payload.attractor_state.phase = "recovery".into();
        }),
        ("phase in upper case", Step::Invariants, |p| {
            p.payload.attractor_state.phase = "Stable".into();
        }),
        ("phase of another vocabulary", Step::Invariants, |p| {
            p.payload.attractor_state.phase = "initializing".into();
        }),
        ("empty attractor id", Step::Invariants, |p| p.payload.attractor_state.id = String::new()),
        ("attractor id too long", Step::Invariants, |p| {
            p.payload.attractor_state.id = "x".repeat(257);
        }),
        ("status", Step::Invariants, |p| p.payload.safety_flags.aegida_status = "locked".into()),
        ("phase lock", Step::Invariants, |p| p.payload.safety_flags.phase_lock = true),
        ("recenter", Step::Invariants, |p| p.payload.safety_flags.recenter_active = true),
        ("target is source", Step::Assertion, |p| {
            p.header.target_runtime_id = p.header.source_runtime_id.clone();
        }),
        ("version", Step::Assertion, |p| p.header.protocol_version = "1.1".into()),
    ];
    for (name, step, change) in changes {
        let mut packet = golden();
        change(&mut packet);
        let sealed = seal(&hmac_ring(), &packet, true).map(|sealed| sealed.bytes().clone());
        assert_eq!(sealed, Err(step), "{name}");
    }
    let deaf = Keyring::new([], None).unwrap();
    assert_eq!(seal(&deaf, &golden(), true).map(|_| ()), Err(Step::Evidence));
}

#[test]
fn a_tightened_mark_holds_at_the_seal_too() {
    let thresholds = Thresholds::new(0.1, 0.2, 0.3).unwrap();
    let sample_di = golden().payload.di.value();
    assert!(sample_di < 0.2);
    let encoded = EncodedPayload::new(&payload(parts(0.3, 0.1, 0.1, 0.8)), false);
    let header = golden().header;
    assert!(hmac_ring().seal(&clearance(&thresholds), &header, &encoded, 1).is_err());
    assert!(hmac_ring().seal(&clearance(&Thresholds::default()), &header, &encoded, 1).is_ok());
}

#[test]
fn an_unstable_packet_is_named_by_its_field() {
    type Change = fn(&mut StatePacket);
    let changes: [(Option<&str>, Change); 8] = [
        (None, |_| {}),
        (None, |p| p.payload.attractor_state.phase = "initializing".into()),
        (Some("/payload/drift_metrics/di"), |p| p.payload.di = DriftIndex::new(0.5).unwrap()),
        (Some("/payload/drift_metrics"), |p| p.payload.drift = parts(0.5, 0.5, 0.5, 1.0)),
        (Some("/payload/attractor_state/phase"), |p| {
            p.payload.attractor_state.phase = "reflection".into();
        }),
        (Some("/payload/safety_flags/aegida_status"), |p| {
            p.payload.safety_flags.aegida_status = "Nominal".into();
        }),
        (Some("/payload/safety_flags/phase_lock"), |p| p.payload.safety_flags.phase_lock = true),
        (Some("/payload/safety_flags/recenter_active"), |p| {
            p.payload.safety_flags.recenter_active = true;
        }),
    ];
    for (field, change) in changes {
        let mut packet = golden();
        change(&mut packet);
        let detail = unstable(&packet, 0.5);
        assert_eq!(detail.as_deref().and_then(|detail| detail.split(':').next()), field);
    }
}

#[test]
fn a_ring_without_a_signing_key_seals_nothing() {
    let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [9; 32]).unwrap();
    let public = || KeyMaterial::nkey_public(&pair.public_key()).unwrap();
    let ring = Keyring::new([("planner".to_owned(), public())], None).unwrap();
    assert!(seal(&ring, &golden(), true).is_err());
    let sealed = seal(&ed25519_ring(), &golden(), true).unwrap();
    assert!(ring.open(sealed.bytes()).is_ok());
    let keys = |id: &str| [(id.to_owned(), public())];
    let fault = |keys: Vec<(String, KeyMaterial)>, sign_with| {
        Keyring::new(keys, sign_with).map(|_| ()).unwrap_err()
    };
    assert_eq!(fault(keys("a").into(), Some("a")), KeyringFault::CannotSign("a".into()));
    assert_eq!(fault(keys("a").into(), Some("b")), KeyringFault::UnknownSigner("b".into()));
    assert_eq!(fault(keys("a.b").into(), None), KeyringFault::BadId("a.b".into()));
    let twice = [keys("a"), keys("a")].concat();
    assert_eq!(fault(twice, None), KeyringFault::Duplicate("a".into()));
}

#[test]
fn what_is_no_key_is_refused_with_its_reason() {
    let fault = |key: Result<KeyMaterial, MaterialFault>| key.map(|_| ()).unwrap_err();
    assert_eq!(fault(KeyMaterial::hmac_secret(&[1; 31])), MaterialFault::SecretLength(31));
    assert_eq!(fault(KeyMaterial::hmac_secret(&[1; 65])), MaterialFault::SecretLength(65));
    let account = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::Account, [9; 32]).unwrap();
    let user = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [9; 32]).unwrap();
    assert_eq!(fault(KeyMaterial::nkey_seed(&account.seed().unwrap())), MaterialFault::NotUser);
    assert_eq!(fault(KeyMaterial::nkey_public(&account.public_key())), MaterialFault::NotUser);
    assert_eq!(fault(KeyMaterial::nkey_public(&user.seed().unwrap())), MaterialFault::NotNkey);
    let mistyped = user.public_key().replace(|last: char| last.is_ascii_digit(), "A");
    assert_eq!(fault(KeyMaterial::nkey_public(&mistyped)), MaterialFault::NotNkey);
    assert_eq!(fault(KeyMaterial::nkey_seed(&"é".repeat(29))), MaterialFault::NotNkey);
}

#[test]
fn a_printed_ring_shows_no_secret() {
    let ring = hmac_ring();
    assert_eq!(
        format!("{ring:?}"),
        r#"Keyring { keys: {"k1": hmac-sha256}, sign_with: Some("k1") }"#
    );
}
