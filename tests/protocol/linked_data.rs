//! A packet is linked data, with the context that its `Link` header names.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot read its vectors should panic"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use driftgate::protocol::packet::CONTEXT;
use serde_json::{Value, json};

/// What `tests/vectors/linked_data.py` ends with where there is no pyld.
const NO_PROCESSOR: i32 = 77;

fn context() -> Value {
    let document: Value =
        serde_json::from_str(include_str!("../../deploy/context.jsonld")).unwrap();
    document["@context"].clone()
}

fn golden_packet() -> Value {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/packets.json")).unwrap();
    let case = &vectors["cases"][0];
    assert_eq!(case["expect"], "ok");
    serde_json::from_str(case["wire"].as_str().unwrap()).unwrap()
}

/// Each leaf of a document, with the IRI and type that the context gives it.
fn leaves(json: &Value, scopes: &[&Value], found: &mut Vec<(String, String)>) {
    let Some(members) = json.as_object() else { return };
    for (key, member) in members {
        let term = scopes.iter().rev().find_map(|scope| scope.get(key));
        let term = term.unwrap_or_else(|| panic!("{key} is no term"));
        if member.is_object() {
            let inner = term.get("@context").unwrap_or(&Value::Null);
            leaves(member, &[scopes, &[inner]].concat(), found);
        } else {
            let word = |name: &str| term[name].as_str().unwrap_or_default().to_owned();
            found.push((word("@id"), word("@type")));
        }
    }
}

#[test]
fn the_context_names_and_types_each_of_the_twenty_leaves() {
    let (context, mut found) = (context(), Vec::new());
    assert!(context.get("@vocab").is_none(), "an unknown member would get a meaning");
    leaves(&golden_packet(), &[&context], &mut found);
    assert_eq!(found.len(), 20);
    assert!(found.iter().all(|(id, kind)| id.starts_with("dg:") && !kind.is_empty()), "{found:?}");
    let mut ids: Vec<&String> = found.iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "no two leaves mean the same");
}

/// What an independent processor makes of a document; `None`, loudly, where there is none.
fn quads(document: &Value) -> Option<Vec<String>> {
    let python = std::env::var_os("DRIFTGATE_PYTHON").unwrap_or_else(|| "python3".into());
    let child = Command::new(&python)
        .args(["tests/vectors/linked_data.py", "deploy/context.jsonld"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let ended = child.map(|mut child| {
        // Without a processor nobody reads it.
        let _ = child.stdin.take().unwrap().write_all(document.to_string().as_bytes());
        child.wait_with_output().unwrap()
    });
    match ended {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).unwrap();
            Some(text.lines().map(|line| line.trim_end_matches(" .").to_owned()).collect())
        }
        Ok(output) if output.status.code() != Some(NO_PROCESSOR) => {
            panic!("the processor refuses it: {}", output.status)
        }
        _ => {
            println!("SKIPPED: {python:?} has no pyld; `make linked` fetches one");
            None
        }
    }
}

/// The objects of `predicate`, as N-Quads write them.
fn objects<'a>(quads: &'a [String], predicate: &str) -> Vec<&'a str> {
    let infix = format!(" <urn:driftgate:v1:{predicate}> ");
    quads.iter().filter_map(|quad| Some(quad.split_once(&infix)?.1)).collect()
}

fn typed(value: &str, kind: &str) -> String {
    format!("\"{value}\"^^<http://www.w3.org/2001/XMLSchema#{kind}>")
}

#[test]
fn an_independent_processor_reads_twenty_leaves_from_a_packet() {
    let Some(quads) = quads(&golden_packet()) else { return };
    // Header, payload, signature, and the four parts of the payload are the other seven.
    assert_eq!(quads.len(), 27, "{quads:#?}");
    let rows = [
        ("protocol_version", "\"1.0\"".to_owned()),
        ("source_runtime_id", "<urn:driftgate:runtime:planner>".to_owned()),
        ("target_runtime_id", "<urn:driftgate:runtime:critic>".to_owned()),
        ("timestamp", typed("2026-11-23T01:02:03.450Z", "dateTime")),
        ("attractor_id", "\"a-1\"".to_owned()),
        ("attractor_type", "<urn:driftgate:attractor-type:symbolic>".to_owned()),
        ("phase", "<urn:driftgate:phase:stable>".to_owned()),
        ("scr", typed("8.0E-1", "double")),
        ("sdi", typed("2.0E-1", "double")),
        ("phase_lock", typed("false", "boolean")),
    ];
    for (predicate, object) in rows {
        assert_eq!(objects(&quads, predicate), [object], "{predicate}");
    }
    println!("{} triples", quads.len());
}

#[test]
fn a_runtime_that_is_called_like_a_term_is_still_a_runtime() {
    let mut packet = golden_packet();
    packet["header"]["source_runtime_id"] = "signature".into();
    let Some(quads) = quads(&packet) else { return };
    assert_eq!(objects(&quads, "source_runtime_id"), ["<urn:driftgate:runtime:signature>"]);
}

#[test]
fn an_answer_that_names_our_context_is_linked_data() {
    let answer = json!({
        "@context": CONTEXT, "runtime_id": "critic", "band": "open", "di": 0.25, "cycle": 7,
        "reasons": ["di_block"], "since": "2026-11-23T01:02:03.450Z",
        "peers": [{"source": "planner", "external": true, "packet": golden_packet()}],
    });
    let Some(quads) = quads(&answer) else { return };
    assert_eq!(objects(&quads, "runtime_id"), ["<urn:driftgate:runtime:critic>"]);
    assert_eq!(objects(&quads, "cycle"), [typed("7", "integer")]);
    assert_eq!(objects(&quads, "sdi"), [typed("2.0E-1", "double")]);
    assert_eq!(objects(&quads, "di").len(), 2);
    let planner = "<urn:driftgate:runtime:planner>";
    assert_eq!(objects(&quads, "source_runtime_id"), [planner, planner]);
}
