//! Each schema against its reader: what is written validates, and of every document that is broken
//! in shape, type or range both say the same.

use driftgate::http::describe::Name;
use driftgate::protocol::canonical::Json;
use driftgate::protocol::capabilities::{LIST_LEN_MAX, declared};
use driftgate::protocol::keyring::Keyring;
use driftgate::protocol::packet::{StatePacket, TEXT_BYTES_MAX};
use driftgate::protocol::profile::Translator;
use driftgate::protocol::snapshot::VerifiedManifest;
use jsonschema::Validator;
use serde_json::{Value, json};

pub(super) fn validator(name: Name) -> Validator {
    let schema = name.schema().unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// What may be wrong with any one value.
const WRONG: [&str; 14] = [
    "null",
    "true",
    "-1",
    "0",
    "0.5",
    "1.5",
    "1e300",
    "\"\"",
    "\"x\\u0007\"",
    "\"x\"",
    "[]",
    "{}",
    "[null]",
    "{\"x\": 1}",
];

/// Every pointer of a document but the whole.
fn places(document: &Value, at: &str, places: &mut Vec<String>) {
    let below = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match document {
        Value::Object(members) => {
            for (key, value) in members {
                places.push(below(key));
                self::places(value, &below(key), places);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places.push(below(&index.to_string()));
                self::places(value, &below(&index.to_string()), places);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The document with each value left out, replaced by each wrong one, or with a stranger beside it.
pub(super) fn broken(document: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut found = Vec::new();
    places(document, "", &mut found);
    for place in &found {
        let (parent, key) = place.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        for wrong in WRONG {
            let mut changed = document.clone();
            *changed.pointer_mut(place).unwrap() = serde_json::from_str(wrong).unwrap();
            all.push((format!("{place} = {wrong}"), changed));
        }
        if let Some(members) = document.pointer(parent).and_then(Value::as_object) {
            let mut without = members.clone();
            without.remove(&key);
            let mut with = members.clone();
            with.insert("qqqqqqqqqqqq".to_owned(), json!(1));
            for (what, members) in [("-", without), ("+", with)] {
                let mut changed = document.clone();
                *changed.pointer_mut(parent).unwrap() = Value::Object(members);
                all.push((format!("{what} {place}"), changed));
            }
        }
    }
    all
}

fn parsed(document: &Value) -> Json {
    Json::parse(document.to_string().as_bytes()).unwrap()
}

/// Both say the same of every broken document, but where `is_beyond` says that no schema can know.
fn check(
    name: Name,
    documents: &[Value],
    reads: impl Fn(&Value) -> Result<(), String>,
    is_beyond: impl Fn(&str) -> bool,
) {
    let validator = validator(name);
    let mut refused = 0;
    for document in documents {
        assert_eq!(reads(document), Ok(()));
        assert!(validator.is_valid(document), "{:?}", validator.validate(document));
        for (what, changed) in broken(document) {
            let (read, valid) = (reads(&changed), validator.is_valid(&changed));
            refused += usize::from(!valid);
            match read {
                Ok(()) => assert!(valid, "{what}: only the schema refuses it"),
                Err(why) => assert!(!valid || is_beyond(&why), "{what}: only the reader: {why}"),
            }
        }
    }
    assert!(refused > 100, "{refused} documents were refused");
}

fn golden_packets() -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/packets.json")).unwrap();
    let is_golden = |case: &&Value| case["name"].as_str().unwrap().starts_with("golden");
    let golden = vectors["cases"].as_array().unwrap().iter().filter(is_golden);
    golden.map(|case| serde_json::from_str(case["wire"].as_str().unwrap()).unwrap()).collect()
}

#[test]
fn r14_the_packet_schema_says_what_the_packet_reader_says() {
    let read = |document: &Value| {
        StatePacket::from_json(&parsed(document)).map(drop).map_err(|refusal| refusal.detail)
    };
    let mut later = golden_packets();
    later.truncate(1);
    later[0]["header"]["protocol_version"] = json!("1.7");
    later[0]["payload"]["drift_metrics"]["new"] = json!([1]);
    check(Name::Packet, &[golden_packets(), later].concat(), read, |_| false);
    let vectors: Value = serde_json::from_str(include_str!("../vectors/packets.json")).unwrap();
    let validator = validator(Name::Packet);
    for case in vectors["cases"].as_array().unwrap() {
        let Ok(wire) = serde_json::from_str(case["wire"].as_str().unwrap()) else { continue };
        let Ok(json) = Json::parse(case["wire"].as_str().unwrap().as_bytes()) else { continue };
        let read = StatePacket::from_json(&json);
        assert_eq!(validator.is_valid(&wire), read.is_ok(), "{}: {read:?}", case["name"]);
    }
}

#[test]
fn the_report_schema_says_what_the_native_profile_says() {
    let profile = driftgate::profiles::load("srip-05").unwrap();
    let read = |document: &Value| {
        let translated = Translator::new(profile.clone()).translate(&parsed(document));
        translated.map(drop).map_err(|malformed| malformed.to_string())
    };
    let full = json!({
        "cycle": 7,
        "attractor_state": {"id": "a-1", "type": "symbolic", "stability": 0.9, "phase": "Stable",
                            "scr": 0.8, "psi": 0.9, "psd": 0.1},
        "drift_metrics": {"sdi": 0.1, "sv": 0.1, "pd": 0.1, "di": 0.125},
        "memory_snapshot": {"summary_hash": "x", "retention_index": 0.5, "ci": 0.9, "er": 0.1,
                            "cc": 0.9},
        "safety_flags": {"aegida_status": "Nominal", "phase_lock": false, "recenter_active": null}});
    let bare = json!({"drift_metrics": {"di": 0.2}, "mine": {"any": "thing"}});
    check(Name::Report, &[full, bare], read, |_| false);
    for name in driftgate::profiles::names() {
        let schema = driftgate::profiles::load(name).unwrap().schema();
        jsonschema::meta::validate(&schema).unwrap();
    }
}

#[test]
fn the_manifest_schema_says_what_the_manifest_reader_says() {
    let (ring, documents) = super::snapshot::signed_manifests();
    let read = |document: &Value| opened(&ring, document);
    let beyond = [
        "/checksum: not that",
        "/integrity_token",
        "/di_band: ",
        "own object",
        "same runtime",
        "must rise",
        "the base before",
        "another spelling",
    ];
    check(Name::Manifest, &documents, read, |why| beyond.iter().any(|known| why.contains(known)));
}

#[test]
fn the_schema_of_capabilities_says_what_their_reader_says() {
    let read = |document: &Value| {
        let mistakes = declared(document.to_string().as_bytes()).err().unwrap_or_default();
        mistakes.first().map_or(Ok(()), |mistake| Err(mistake.to_string()))
    };
    let example = include_str!("../../config/runtime_capabilities.yml");
    let example: Value = serde_saphyr::from_str(example).unwrap();
    let mut full = example.clone();
    full["expires"] = json!("2030-01-01T00:00:00Z");
    full["scopes"] = json!(vec!["x"; LIST_LEN_MAX]);
    check(Name::Capabilities, &[json!({}), example, full.clone()], read, |_| false);
    let validator = validator(Name::Capabilities);
    let long = "x".repeat(TEXT_BYTES_MAX);
    for (member, value, is_good) in [
        ("scopes", json!(vec!["x"; LIST_LEN_MAX + 1]), false),
        ("deviations", json!([long]), true),
        ("deviations", json!([long + "x"]), false),
        ("artifact_types", json!([]), true),
        ("artifact_types", json!(["State"]), false),
        ("protocol_versions", json!([]), false),
        ("protocol_versions", json!(["1.0", "1.0"]), false),
        ("expires", json!("2030-01-01"), false),
        ("expires", json!("2030-01-01T00:00:00+01:00"), true),
    ] {
        full[member] = value;
        assert_eq!(read(&full).is_ok(), is_good, "{member} {}", full[member]);
        assert_eq!(validator.is_valid(&full), is_good, "{member} {}", full[member]);
        full.as_object_mut().unwrap().remove(member);
    }
}

fn opened(ring: &Keyring, document: &Value) -> Result<(), String> {
    let bytes = parsed(document).to_canonical();
    VerifiedManifest::open(ring, &bytes).map(drop).map_err(|refusal| refusal.detail)
}

#[test]
fn every_audit_line_has_the_form_that_its_schema_says() {
    let validator = validator(Name::Audit);
    let lines = super::audit::every_line();
    for line in &lines {
        assert!(validator.is_valid(line), "{line}: {:?}", validator.validate(line));
    }
    let mut refused = 0;
    for (what, changed) in lines.iter().flat_map(broken) {
        let is_stranger = what.starts_with('+') || what.starts_with('-');
        let valid = validator.is_valid(&changed);
        refused += usize::from(!valid);
        assert!(!valid || !is_stranger, "{what}: a line with other members");
    }
    assert!(refused > 1000, "{refused}");
}
