//! Signed manifests: one spelling, every member bound, nothing accepted that does not add up.

use driftgate::protocol::canonical::Json;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;
use driftgate::protocol::keyring::Domain;
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::seal::{Fault, KeyMaterial, Keyring};
use driftgate::protocol::snapshot::{
    FrameKind, MANIFEST_BYTES_MAX, Manifest, ObjectName, VerifiedManifest,
};
use driftgate::protocol::time::Timestamp;

fn keyring(secret: u8) -> Keyring {
    let key = KeyMaterial::hmac_secret(&[secret; 32]).unwrap();
    Keyring::new([("k1".to_owned(), key)], Some("k1")).unwrap()
}

pub(super) fn full() -> Manifest {
    let digest = Digest::of(b"plain");
    let mut manifest = Manifest {
        runtime: RuntimeId::new("planner").unwrap(),
        seq: 1_800_000_000_000_001,
        digest,
        size: 5,
        stored_digest: Some(Digest::of(b"stored")),
        stored_bytes: 6,
        base_digest: None,
        window_log: 10,
        media_type: "application/jsonl".into(),
        time: Timestamp::from_unix_ms(1_800_000_000_000),
        di_band: Band::Open,
        objects: vec![],
    };
    manifest.objects = vec![manifest.object_name().to_string()];
    manifest
}

fn delta() -> Manifest {
    let base = full();
    let mut manifest = Manifest {
        seq: base.seq + 7,
        digest: Digest::of(b"next"),
        base_digest: Some(base.digest),
        stored_digest: None,
        ..base.clone()
    };
    manifest.objects = vec![base.objects[0].clone(), manifest.object_name().to_string()];
    manifest
}

/// One of each kind, and the ring that signed them.
pub(in super::super) fn signed_manifests() -> (Keyring, Vec<serde_json::Value>) {
    let read =
        |manifest: Manifest| serde_json::from_slice(&manifest.sign(&keyring(1)).unwrap()).unwrap();
    (keyring(1), vec![read(full()), read(delta())])
}

/// Signs what [`Manifest::sign`] would refuse to sign: these members, with these changes.
fn forge(manifest: &Manifest, changes: &[(&str, Option<Json>)]) -> Vec<u8> {
    let signed = manifest.sign(&keyring(1)).unwrap();
    let Json::Object(mut members) = Json::parse(&signed).unwrap() else { panic!() };
    members.retain(|name, _| name != "checksum" && name != "integrity_token");
    for (name, json) in changes {
        match json {
            Some(json) => members.insert((*name).into(), json.clone()),
            None => members.remove(*name),
        };
    }
    let sum = Digest::of(&Json::Object(members.clone()).to_canonical());
    let token = keyring(1).sign_checksum(Domain::Token, manifest.seq, sum).unwrap();
    members.insert("checksum".into(), Json::String(sum.to_string()));
    members.insert("integrity_token".into(), Json::String(token));
    Json::Object(members).to_canonical()
}

#[test]
fn a_manifest_is_read_back_as_it_was_signed() {
    for manifest in [full(), delta()] {
        let bytes = manifest.sign(&keyring(1)).unwrap();
        assert!(bytes.len() <= MANIFEST_BYTES_MAX);
        let read = VerifiedManifest::open(&keyring(1), &bytes).unwrap();
        assert_eq!((read.manifest(), read.key_id()), (&manifest, "k1"));
        assert_eq!(forge(&manifest, &[]), bytes);
    }
}

#[test]
fn a_manifest_has_one_spelling() {
    let bytes = full().sign(&keyring(1)).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let digest = Digest::of(b"plain");
    let start = &digest.hex()[..16];
    let expected = format!(
        "{{\"base_digest\":null,\"checksum\":\"sha256:CHECKSUM\",\"di_band\":\"open\",\
         \"digest\":\"{digest}\",\"integrity_token\":\"TOKEN\",\"kind\":\"full\",\
         \"media_type\":\"application/jsonl\",\
         \"objects\":[\"planner/1800000000000001-{start}.zst\"],\"runtime\":\"planner\",\
         \"schema\":\"driftgate-snapshot-v1\",\"seq\":1800000000000001,\"size\":5,\
         \"stored_bytes\":6,\"stored_digest\":\"{}\",\"time\":\"2027-01-15T08:00:00.000Z\",\
         \"window_log\":10}}",
        Digest::of(b"stored")
    );
    let member = |name: &str| {
        Json::parse(text.as_bytes()).unwrap().pointer(name).unwrap().as_str().unwrap().to_owned()
    };
    let normalised = text
        .replace(&member("/checksum"), "sha256:CHECKSUM")
        .replace(&member("/integrity_token"), "TOKEN");
    assert_eq!(normalised, expected);
    for other in
        [text.replace(",\"size\"", ", \"size\""), text.replace(":5,", ":5.0,"), text + "\n"]
    {
        let refusal = VerifiedManifest::open(&keyring(1), other.as_bytes()).unwrap_err();
        assert_eq!(refusal.fault, Fault::Malformed, "{refusal}");
    }
}

#[test]
fn a_manifest_of_another_key_or_with_a_changed_byte_is_refused() {
    let bytes = delta().sign(&keyring(1)).unwrap();
    let refusal = VerifiedManifest::open(&keyring(2), &bytes).unwrap_err();
    assert_eq!(refusal.fault, Fault::Forged);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(VerifiedManifest::open(&keyring(1), &flipped).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(VerifiedManifest::open(&keyring(1), &bytes[..cut]).is_err(), "{cut}");
    }
    assert!(VerifiedManifest::open(&keyring(1), &vec![b' '; MANIFEST_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_token_of_another_seq_is_refused() {
    let bytes = full().sign(&keyring(1)).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let Json::Object(members) = Json::parse(text.as_bytes()).unwrap() else { panic!() };
    let sum = members["checksum"].as_str().unwrap();
    let token = members["integrity_token"].as_str().unwrap();
    let later = keyring(1)
        .sign_checksum(Domain::Token, full().seq + 1, Digest::parse(sum).unwrap())
        .unwrap();
    let refusal =
        VerifiedManifest::open(&keyring(1), text.replace(token, &later).as_bytes()).unwrap_err();
    assert_eq!(refusal.to_string(), "forged: /integrity_token: not of this seq");
}

#[test]
fn a_manifest_that_does_not_add_up_is_refused_although_it_is_signed() {
    let text = |text: &str| Some(Json::String(text.into()));
    let names = |names: &[&str]| {
        Some(Json::Array(names.iter().map(|name| Json::String((*name).into())).collect()))
    };
    let (base, own) = (full().objects[0].clone(), delta().objects[1].clone());
    let other = base.replace("planner", "critic");
    let sixteen: Vec<String> = (0..16).map(|n| base.replace("1800", &format!("{n}"))).collect();
    let sixteen: Vec<&str> = sixteen.iter().map(String::as_str).chain([own.as_str()]).collect();
    let cases = [
        ("/schema", Fault::Incompatible, "schema", text("driftgate-snapshot-v2")),
        ("/runtime", Fault::Malformed, "runtime", text("plan.ner")),
        ("/objects", Fault::Malformed, "runtime", text("critic")),
        ("/seq", Fault::Malformed, "seq", text("7")),
        ("/seq", Fault::Malformed, "seq", Some(Json::Number(7.5))),
        ("/size", Fault::Malformed, "size", Some(Json::Number(-1.0))),
        ("/size", Fault::Malformed, "size", None),
        ("/digest", Fault::Malformed, "digest", text("sha256:00")),
        ("/base_digest", Fault::Malformed, "base_digest", Some(Json::Bool(true))),
        ("/kind", Fault::Malformed, "kind", text("full")),
        ("/kind", Fault::Malformed, "base_digest", Some(Json::Null)),
        ("/objects", Fault::Malformed, "base_digest", text(&Digest::of(b"?").to_string())),
        ("/window_log", Fault::Malformed, "window_log", Some(Json::Number(28.0))),
        ("/window_log", Fault::Malformed, "window_log", Some(Json::Number(9.0))),
        ("/media_type", Fault::Malformed, "media_type", text("")),
        ("/media_type", Fault::Malformed, "media_type", text("text/plain\u{7}")),
        ("/time", Fault::Malformed, "time", text("yesterday")),
        ("/", Fault::Malformed, "time", text("2027-01-15T09:00:00+01:00")),
        ("/di_band", Fault::Malformed, "di_band", text("ajar")),
        ("/di_band", Fault::Unstable, "di_band", text("caution")),
        ("/di_band", Fault::Unstable, "di_band", text("isolated")),
        ("/comment", Fault::Malformed, "comment", text("more")),
        ("/", Fault::Malformed, "stored_digest", Some(Json::Null)),
        ("/objects", Fault::Malformed, "objects", names(&[])),
        ("/objects", Fault::Malformed, "objects", names(&[&own])),
        ("/objects", Fault::Malformed, "objects", names(&[&base])),
        ("/objects", Fault::Malformed, "objects", names(&[&own, &base])),
        ("/objects", Fault::Malformed, "objects", names(&[&other, &own])),
        ("/objects", Fault::Malformed, "objects", names(&["../base", &own])),
        ("/objects", Fault::Malformed, "objects", names(&sixteen)),
    ];
    for (field, fault, name, json) in cases {
        let bytes = forge(&delta(), &[(name, json.clone())]);
        let refusal = VerifiedManifest::open(&keyring(1), &bytes).unwrap_err();
        assert_eq!(refusal.fault, fault, "{name} = {json:?}: {refusal}");
        assert!(refusal.detail.starts_with(&format!("{field}:")), "{name} = {json:?}: {refusal}");
    }
}

#[test]
fn what_a_reader_would_refuse_is_not_signed() {
    let nobody = Keyring::new([], None).unwrap();
    assert_eq!(full().sign(&nobody), None);
    let refused = [
        Manifest { di_band: Band::Caution, ..full() },
        Manifest { objects: vec![], ..full() },
        Manifest { size: (1 << 53) + 1, ..full() },
        Manifest { media_type: "é".into(), ..full() },
        Manifest { seq: 1, ..full() },
    ];
    for manifest in refused {
        assert_eq!(manifest.sign(&keyring(1)), None, "{manifest:?}");
    }
}

#[test]
fn an_object_name_has_one_spelling() {
    let name = full().object_name();
    assert_eq!(ObjectName::parse(&name.to_string()).as_ref(), Some(&name));
    assert_eq!(delta().object_name().kind, FrameKind::Delta);
    let digits = "0123456789abcdef";
    assert!(ObjectName::parse(&format!("a/7-{digits}.dcz")).is_some());
    for name in [
        format!("a/07-{digits}.dcz"),
        format!("a/+7-{digits}.dcz"),
        format!("a/-{digits}.dcz"),
        format!("a/7-{digits}.zip"),
        format!("a/7-{digits}"),
        format!("a/7-{digits}0.zst"),
        "a/7-0123456789ABCDEF.zst".into(),
        format!("a b/7-{digits}.zst"),
        format!("a/b/7-{digits}.zst"),
        format!("7-{digits}.zst"),
    ] {
        assert_eq!(ObjectName::parse(&name), None, "{name}");
    }
}
