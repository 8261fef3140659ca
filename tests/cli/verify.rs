//! `driftgate verify` and `driftgate keygen`, without their process.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report; the clippy setting does not reach helpers"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use driftgate::commands::keygen;
use driftgate::commands::verify::{Arguments, Check, Proof, Totals, run, verify};
use driftgate::keys::{self, KeyFault};
use driftgate::protocol::keyring::{Alg, KeyMaterial, Keyring};
use driftgate::protocol::time::Timestamp;
use serde_json::Value;

/// When the golden packet was sealed.
const SEALED: &str = "2026-11-23T01:02:03.450Z";

fn wire(name: &str) -> String {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/packets.json")).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == name).unwrap();
    case["wire"].as_str().unwrap().to_owned()
}

fn keyed() -> Proof {
    let secret: Vec<u8> = (0..32).collect();
    let key = KeyMaterial::hmac_secret(&secret).unwrap();
    Proof::Keyed(Keyring::new([("k1".to_owned(), key)], None).unwrap())
}

fn check(stream: &[u8], proof: Proof) -> (Totals, String) {
    check_at(stream, proof, None, SEALED)
}

fn check_at(stream: &[u8], proof: Proof, max_age_s: Option<u64>, now: &str) -> (Totals, String) {
    let clock = || Timestamp::parse(now).unwrap();
    let check = Check {
        proof,
        block: 0.5,
        max_age: max_age_s.map(Duration::from_secs),
        clock: &clock,
        json: false,
    };
    let mut printed = Vec::new();
    let mut stream = stream;
    let totals = verify(&mut stream, &mut printed, &check).unwrap();
    (totals, String::from_utf8(printed).unwrap())
}

#[test]
fn good_packets_are_printed_one_a_line() {
    let packet = wire("golden hmac");
    let line = "ok planner->critic 1795000000000000 k1 0.16666666666666666\n";
    let (totals, printed) = check(format!("{packet}\n{packet}\n").as_bytes(), keyed());
    assert_eq!(printed, format!("{line}{line}2 packets: 2 ok, 0 bad\n"));
    assert_eq!(totals, Totals { good: 2, bad: 0 });
}

#[test]
fn packets_may_be_concatenated_or_pretty_printed() {
    let packet = wire("golden hmac");
    let value: Value = serde_json::from_str(&packet).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let stream = format!("{packet}{packet} {packet}\r\n\n{pretty}\n{pretty}{packet}");
    assert_eq!(check(stream.as_bytes(), keyed()).0, Totals { good: 6, bad: 0 });
}

#[test]
fn any_flipped_bit_costs_exactly_its_own_packet() {
    let packet = wire("golden hmac");
    for at in 0..packet.len() {
        for bit in 0..8 {
            let mut flipped = packet.clone().into_bytes();
            flipped[at] ^= 1 << bit;
            let stream =
                [packet.as_bytes(), b"\n", &flipped, b"\n", packet.as_bytes(), b"\n"].concat();
            let (totals, printed) = check(&stream, keyed());
            assert_eq!(totals, Totals { good: 2, bad: 1 }, "byte {at} bit {bit}: {printed}");
            assert!(printed.contains("\nBAD line 2: "), "{printed}");
        }
    }
}

#[test]
fn a_packet_cut_anywhere_costs_exactly_itself() {
    let packet = wire("golden hmac");
    for at in 1..packet.len() {
        let stream = format!("{}\n{packet}\n{}", &packet[..at], &packet[..at]);
        assert_eq!(check(stream.as_bytes(), keyed()).0, Totals { good: 1, bad: 2 }, "{at}");
    }
}

#[test]
fn what_is_bad_is_named() {
    let tampered = wire("/payload/drift_metrics/sdi tampered");
    let mended = wire("golden hmac").replace(r#""sdi":0.2"#, r#""sdi":0. 2"#);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(16 * 1024));
    let cases = [
        (tampered.as_str(), "forged: /signature/checksum: not that of header and payload"),
        ("[#1] Received on \"x\"", "malformed: /: not a JSON object"),
        (large.as_str(), "malformed: /: larger than a packet can be"),
        ("{}", "malformed: /header: missing"),
        ("{\"a\":\"b\n", "malformed: /: cut short: the line ends inside a string"),
        (mended.as_str(), "malformed: /payload/drift_metrics/sdi: "),
    ];
    for (text, expected) in cases {
        let (totals, printed) = check(format!("\n{text}\n").as_bytes(), keyed());
        assert_eq!(totals, Totals { good: 0, bad: 1 }, "{printed}");
        assert!(printed.starts_with(&format!("BAD line 2: {expected}")), "{printed}");
    }
    let (totals, printed) = check(wire("golden ed25519").as_bytes(), keyed());
    assert_eq!(totals.bad, 1);
    assert!(printed.contains("forged: /signature/integrity_token: unknown key id"), "{printed}");
}

#[test]
fn freshness_is_checked_when_asked_for() {
    let packet = wire("golden hmac");
    let judge = |now| check_at(packet.as_bytes(), keyed(), Some(60), now).1;
    assert!(judge("2026-11-23T01:03:03.450Z").starts_with("ok "));
    let late = judge("2026-11-23T01:03:04.451Z");
    assert!(late.starts_with("BAD line 1: expired: /header/timestamp: 61 s old"), "{late}");
    assert!(judge("2026-11-23T01:01:33.450Z").starts_with("ok "));
    let early = judge("2026-11-23T01:01:32.449Z");
    assert!(early.starts_with("BAD line 1: expired: /header/timestamp: 31 s ahead"), "{early}");
    let recorded = check_at(packet.as_bytes(), keyed(), None, "2036-01-01T00:00:00Z");
    assert_eq!(recorded.0.good, 1);
}

#[test]
fn checksums_alone_are_said_to_prove_nothing() {
    let (totals, printed) = check(wire("golden ed25519").as_bytes(), Proof::ChecksumOnly);
    assert_eq!(totals, Totals { good: 1, bad: 0 });
    assert!(printed.ends_with("(checksums only: this does not say who made them)\n"), "{printed}");
    let tampered = wire("/header/source_runtime_id tampered");
    assert_eq!(check(tampered.as_bytes(), Proof::ChecksumOnly).0.bad, 1);
}

#[test]
fn exit_codes_say_what_was_missing() {
    let clock = || Timestamp::from_unix_ms(0);
    let code = |arguments: &Arguments| {
        format!("{:?}", run(arguments, &BTreeMap::new(), &clock, &mut Vec::new()))
    };
    let expect = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
    assert_eq!(code(&Arguments::default()), expect(78));
    let folder = tempfile::tempdir().unwrap();
    let key_files = vec![("k1".into(), folder.path().join("none"))];
    assert_eq!(code(&Arguments { key_files, ..Arguments::default() }), expect(78));
    let absent = Arguments {
        checksum_only: true,
        file: Some(folder.path().join("none")),
        ..Arguments::default()
    };
    assert_eq!(code(&absent), expect(66));
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    assert_eq!(code(&Arguments { file: Some(empty), ..absent }), expect(65));
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_generated_key_file_is_private_and_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    for alg in [Alg::HmacSha256, Alg::Ed25519] {
        let path = folder.path().join(alg.word());
        let fresh = keys::generate(alg).unwrap();
        assert_eq!(fresh.public.is_some(), alg == Alg::Ed25519);
        assert!(!format!("{fresh:?}").contains(&fresh.secret_text));
        keygen::write_new(&path, &fresh.secret_text).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        let file = keys::read(&path).unwrap();
        assert_eq!((file.material.alg(), file.material.can_sign()), (alg, true));
        assert_eq!(file.warning, None);
        let error = keygen::write_new(&path, "other").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), fresh.secret_text + "\n");
    }
}

#[test]
fn a_secret_that_others_may_read_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let fresh = keys::generate(Alg::Ed25519).unwrap();
    write(&path, &fresh.secret_text, 0o640);
    assert!(keys::read(&path).unwrap().warning.unwrap().contains("(mode 0640)"));
    write(&path, &format!("  {}\r\n", fresh.public.unwrap()), 0o644);
    let public = keys::read(&path).unwrap();
    assert_eq!((public.material.can_sign(), public.warning), (false, None));
}

#[test]
fn a_file_that_holds_no_key_is_refused_without_quoting_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let form = "must hold the base64 of 32 bytes, a user nkey seed (SU...) or a user nkey (U...)";
    let cases = [
        ("", form),
        (&"A".repeat(1025), "has more than 1024 bytes, and a key is short"),
        ("hello world", form),
        ("c2VjcmV0LXNlY3JldA==", form),
        ("SUAMRSOKZPGM3TWP2DI5FU6U2XLNPWGZ3LN5ZXO637QODYXD4TS6NZ4BCF", "not a NATS nkey"),
    ];
    for (text, expected) in cases {
        write(&path, text, 0o600);
        let fault = keys::read(&path).unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
        assert!(fault.contains("/key: ") && (text.is_empty() || !fault.contains(text)), "{fault}");
    }
    let folder_fault = keys::read(folder.path()).unwrap_err();
    assert!(matches!(folder_fault, KeyFault::Unreadable { .. }), "{folder_fault}");
}

#[test]
fn the_arguments_are_sound() {
    use clap::Args as _;
    Arguments::augment_args(clap::Command::new("verify")).debug_assert();
    keygen::Arguments::augment_args(clap::Command::new("keygen")).debug_assert();
    let bad = Arguments::augment_args(clap::Command::new("verify")).try_get_matches_from([
        "verify",
        "--key-file",
        "k1",
    ]);
    assert!(bad.unwrap_err().to_string().contains("must be ID=PATH"));
}

#[test]
fn a_configuration_lends_its_keys_and_its_block_mark() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("k1"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", 0o600);
    std::fs::write(at("packets"), wire("golden hmac")).unwrap();
    let judge = |block: &str| {
        let text = format!(
            "[runtime]\nid = \"critic\"\nattractor_type = \"symbolic\"\n[containment]\n{block}\n\
             [integrity]\nsign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = {:?} }}]\n",
            at("k1")
        );
        std::fs::write(at("driftgate.toml"), text).unwrap();
        let arguments = Arguments {
            config: vec![at("driftgate.toml")].into(),
            file: Some(at("packets")),
            ..Arguments::default()
        };
        let (clock, mut output) = (|| Timestamp::from_unix_ms(0), Vec::new());
        let code = run(&arguments, &BTreeMap::new(), &clock, &mut output);
        (format!("{code:?}"), String::from_utf8(output).unwrap())
    };
    let expect = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
    let (code, printed) = judge("");
    assert_eq!(code, expect(0), "{printed}");
    let (code, printed) = judge("reopen = 0.05\nblock = 0.1");
    assert_eq!(code, expect(65), "{printed}");
    assert!(printed.starts_with("BAD line 1: unstable: /payload/drift_metrics/di"), "{printed}");
    assert_eq!(judge("block = 0.7").0, expect(78));
}
