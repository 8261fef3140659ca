//! Media types and content codings, in and out, through the router alone.

use std::io::{Read, Write};

use driftgate::http::settings::ApiSettings;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::rig::{Actor, Mood, REPORT, Reply};
use super::table::{ask, check};

const CONTEXT: &str = "urn:driftgate:context:v1";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 19).unwrap()
}

async fn calm(request: (&str, &str, &[u8])) -> Reply {
    ask(&Actor::new(Mood::Calm), &ApiSettings::default(), request).await
}

/// The same document, however it is written.
fn document(reply: &Reply) -> Value {
    let mut bytes = Vec::new();
    match reply.header("content-encoding") {
        None => bytes.clone_from(&reply.body),
        Some("gzip") => drop(GzDecoder::new(&reply.body[..]).read_to_end(&mut bytes).unwrap()),
        Some("zstd") => bytes = zstd::decode_all(&reply.body[..]).unwrap(),
        Some(other) => panic!("{other}"),
    }
    match reply.header("content-type").unwrap() {
        "application/json" | "application/problem+json" => serde_json::from_slice(&bytes).unwrap(),
        "application/ld+json" => {
            let text = str::from_utf8(&bytes).unwrap();
            let mut value: Value = serde_json::from_str(text).unwrap();
            assert!(text.starts_with(&format!("{{\"@context\":\"{CONTEXT}\"")), "{text}");
            value.as_object_mut().unwrap().remove("@context");
            value
        }
        _ => {
            let text = str::from_utf8(&bytes).unwrap();
            assert!(!text.starts_with('{'), "JSON is YAML too, but not what was asked for");
            serde_saphyr::from_str(text).unwrap()
        }
    }
}

#[tokio::test]
async fn an_answer_is_one_document_in_every_media_type_and_coding() {
    let order = br#"{"reason": "drill"}"#.as_slice();
    for (line, body) in [
        ("POST /field/state", REPORT.as_bytes()),
        ("GET /field/state", b""),
        ("GET /field/state?source=critic", b""),
        ("GET /aegida/safety", b""),
        ("POST /operator/isolate", order),
    ] {
        let actor = Actor::new(Mood::Calm);
        actor.with(|script| script.packet_bytes = 4000);
        let sent = if body.is_empty() { "" } else { "content-type: application/json\n" };
        let asked = async |more: &str| {
            let headers = format!("{sent}{more}");
            let reply = ask(&actor, &ApiSettings::default(), (line, &headers, body)).await;
            assert_eq!(reply.status, 200, "{line} {more}");
            assert_eq!(reply.header("vary"), Some("accept, accept-encoding"), "{line} {more}");
            reply
        };
        let plain = asked("").await;
        assert_eq!(plain.header("content-type"), Some("application/json"));
        let expected = document(&plain);
        for media_type in
            ["application/ld+json", "application/yaml", "application/x-yaml", "text/yaml"]
        {
            for coding in ["zstd", "gzip", "identity"] {
                let more = format!("accept: {media_type}\naccept-encoding: {coding}");
                let reply = asked(&more).await;
                assert_eq!(reply.header("content-type"), Some(media_type));
                let named = reply.header("content-encoding");
                let is_long = plain.body.len() > 2000;
                assert_eq!(named, Some(coding).filter(|coding| *coding != "identity" && is_long));
                assert_eq!(document(&reply), expected, "{line} {more}");
            }
        }
        // Weights decide, and what is not offered is passed over.
        let more = "accept: text/html, application/json;q=0.4, application/yaml;q=0.5\n\
                    accept-encoding: br, gzip;q=0.2";
        let reply = asked(more).await;
        assert_eq!(reply.header("content-type"), Some("application/yaml"));
        assert_eq!(document(&reply), expected);
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_before_anything_is_done() {
    for line in [
        "POST /field/state",
        "GET /field/state",
        "GET /aegida/safety",
        "POST /operator/isolate",
        "GET /phase/telemetry",
    ] {
        let actor = Actor::new(Mood::Calm);
        let accept = "content-type: application/json\naccept: text/html, application/xml";
        let reply = ask(&actor, &ApiSettings::default(), (line, accept, REPORT.as_bytes())).await;
        assert_eq!((reply.status, &reply.json()["field"]), (406, &json!("accept")), "{line}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(reply.header("vary"), Some("accept, accept-encoding"));
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        let offered = if line.ends_with("telemetry") {
            "text/event-stream"
        } else {
            "application/json, application/ld+json, application/yaml"
        };
        assert!(detail.contains(offered), "{detail}");
        assert_eq!((actor.reports(), actor.unreadable_count()), (0, 0));
        assert!(actor.with(|script| script.orders.is_empty()));
    }
    let headers = "content-type: application/json\naccept-encoding: br, *;q=0";
    let request = ("POST /field/state", headers, REPORT.as_bytes());
    let reply = check(Mood::Calm, request, 406, "accept-encoding").await;
    assert!(reply.json()["detail"].as_str().unwrap().contains("zstd, gzip, identity"));
}

#[tokio::test]
async fn an_error_is_problem_json_whatever_is_accepted() {
    let headers = "content-type: application/json\naccept: application/yaml\naccept-encoding: gzip";
    let reply = check(Mood::Calm, ("POST /field/state", headers, b"{"), 400, "/").await;
    assert_eq!(reply.header("content-encoding"), None);
    check(
        Mood::Picky,
        ("POST /field/state", headers, REPORT.as_bytes()),
        422,
        "/drift_metrics/sdi",
    )
    .await;
}

#[tokio::test]
async fn a_report_in_each_form_and_coding_is_the_same_report() {
    let linked = REPORT.replacen('{', &format!("{{\"@context\":\"{CONTEXT}\","), 1);
    let listed = REPORT.replacen('{', &format!("{{\"@context\":[\"{CONTEXT}\"],"), 1);
    let yaml = "cycle: 7\ndrift_metrics:\n  sdi: 0.2\n  sv: 0.1\n  pd: 0.1\n";
    let expected = Actor::new(Mood::Calm);
    let json = ("POST /field/state", "content-type: application/json", REPORT.as_bytes());
    ask(&expected, &ApiSettings::default(), json).await;
    for (media_type, text) in [
        ("application/json", REPORT),
        ("application/ld+json", REPORT),
        ("application/ld+json", &linked),
        ("application/ld+json; profile=\"http://www.w3.org/ns/json-ld#compacted\"", &listed),
        ("application/yaml", yaml),
        ("application/yaml", REPORT),
    ] {
        for (coding, bytes) in [
            ("identity", text.as_bytes().to_vec()),
            ("gzip", gzip(text.as_bytes())),
            ("zstd", zstd(text.as_bytes())),
            ("ZSTD", zstd(text.as_bytes())),
        ] {
            let headers = format!("content-type: {media_type}\ncontent-encoding: {coding}");
            let actor = Actor::new(Mood::Calm);
            let request = ("POST /field/state", headers.as_str(), bytes.as_slice());
            let reply = ask(&actor, &ApiSettings::default(), request).await;
            assert_eq!(reply.status, 200, "{headers}");
            let [found, wanted] =
                [&actor, &expected].map(|actor| actor.with(|script| script.reports.clone()));
            assert_eq!(found, wanted, "{headers}");
        }
    }
}

#[tokio::test]
async fn a_foreign_context_is_refused_by_name_and_closes_the_gate() {
    let own = format!("\"@context\":\"{CONTEXT}\"");
    for (body, field) in [
        (r#"{"@context": "https://example.org/context"}"#.to_owned(), "/@context"),
        (r#"{"@context": {"sdi": "https://example.org/sv"}}"#.to_owned(), "/@context"),
        (r#"{"@context": null}"#.to_owned(), "/@context"),
        (format!(r#"{{"@context": ["{CONTEXT}", {{}}]}}"#), "/@context"),
        (format!(r#"{{{own}, "drift_metrics": {{{own}}}}}"#), "/drift_metrics/@context"),
        (format!(r#"{{"a": [1, {{{own}}}]}}"#), "/a/1/@context"),
        (format!(r#"[{{{own}}}]"#), "/0/@context"),
    ] {
        let actor = Actor::new(Mood::Calm);
        let headers = "content-type: application/ld+json";
        let request = ("POST /field/state", headers, body.as_bytes());
        let reply = ask(&actor, &ApiSettings::default(), request).await;
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(reply.json()["field"], field, "{body}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(CONTEXT), "{body}");
        assert_eq!((actor.reports(), actor.unreadable_count()), (0, 1), "{body}");
    }
}

#[tokio::test]
async fn yaml_that_could_grow_or_mean_two_things_is_refused_where_it_stands() {
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    for (text, field) in [
        ("cycle: 1\ncycle: 2", "/cycle"),
        ("drift_metrics: {sdi: 1, sdi: 2}", "/drift_metrics/sdi"),
        ("drift_metrics: {sdi: .inf}", "/drift_metrics/sdi"),
        ("a: &a 1\nb: *a", "/"),
        ("base: {a: 1}\n<<: {b: 2}", "/"),
        ("a: !thing 1", "/"),
        ("a: 1\n---\nb: 2", "/"),
        (deep.as_str(), "/"),
    ] {
        let actor = Actor::new(Mood::Calm);
        let request = ("POST /field/state", "content-type: application/yaml", text.as_bytes());
        let reply = ask(&actor, &ApiSettings::default(), request).await;
        assert_eq!(reply.status, 400, "{text}");
        let found = reply.json()["field"].as_str().unwrap().to_owned();
        assert!(found.starts_with(field), "{text}: {}", reply.json());
        assert_eq!((actor.reports(), actor.unreadable_count()), (0, 1), "{text}");
    }
}

#[tokio::test]
async fn a_bomb_in_either_coding_is_too_large_on_every_route_that_reads_a_document() {
    let bombs = |bytes: usize| {
        let blanks = vec![b' '; bytes];
        [("gzip", gzip(&blanks)), ("zstd", zstd(&blanks))]
    };
    for (line, plain, coded) in
        [("POST /field/state", 64 << 20, 128 << 10), ("POST /operator/isolate", 1 << 20, 4 << 10)]
    {
        for (coding, bomb) in bombs(plain) {
            assert!(bomb.len() < coded, "{coding}: what is bounded here is the plain text");
            let headers = format!("content-type: application/json\ncontent-encoding: {coding}");
            check(Mood::Calm, (line, &headers, &bomb), 413, "/").await;
        }
    }
    let whole = REPORT.as_bytes();
    for (coding, coded) in [("gzip", gzip(whole)), ("zstd", zstd(whole))] {
        let headers = format!("content-type: application/json\ncontent-encoding: {coding}");
        for body in [b"no such thing", &coded[..coded.len() - 3], whole] {
            check(Mood::Calm, ("POST /field/state", &headers, body), 400, "content-encoding").await;
        }
    }
}

/// Most memory that this process has taken so far, in KiB.
#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_bomb_of_four_gibibytes_takes_the_memory_of_one_body() {
    // Blocks of one repeated byte (RFC 8878 section 3.1.1.2): 4 bytes for 128 KiB.
    let block = |is_last: u32| {
        let header = (128 << 10 << 3) | (1 << 1) | is_last;
        let [low, middle, high, _] = header.to_le_bytes();
        [low, middle, high, b' ']
    };
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    bomb.extend([block(0); (1 << 15) - 1].concat());
    bomb.extend(block(1));
    let before = peak_kib();
    let headers = "content-type: application/json\ncontent-encoding: zstd";
    check(Mood::Calm, ("POST /field/state", headers, &bomb), 413, "/").await;
    let taken = peak_kib() - before;
    assert!(taken < 1 << 20, "{taken} KiB");
}

#[tokio::test]
async fn the_context_is_served_as_it_lies_in_deploy() {
    let reply = calm(("GET /context.jsonld", "", b"")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/ld+json"));
    assert_eq!(reply.body, include_bytes!("../../deploy/context.jsonld"));
    assert_eq!(reply.json()["@context"]["@version"], 1.1);
    // Even where the gate is isolated: it says what the members mean, and nothing of the runtime.
    let request = ("GET /context.jsonld", "", b"".as_slice());
    let isolated = ask(&Actor::new(Mood::Isolated), &ApiSettings::default(), request).await;
    assert_eq!(isolated.status, 200);
}
