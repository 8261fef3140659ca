//! `/openapi.json` by itself, and that answers are really held against it.

use std::collections::BTreeSet;

use driftgate::http::describe::Name;
use serde_json::{Value, json};

use super::described::{Seen, held};

fn document() -> Value {
    serde_json::from_slice(&Name::Openapi.document().0).unwrap()
}

/// Every `$ref` in it.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    if let Some(reference) = value.get("$ref") {
        found.insert(reference.as_str().unwrap());
    }
    for below in value.as_object().into_iter().flat_map(|members| members.values()) {
        references(below, found);
    }
    for below in value.as_array().into_iter().flatten() {
        references(below, found);
    }
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 30, "{found:?}");
    for reference in found {
        let place = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{reference}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::meta::is_valid(schema), "{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let wanted: Vec<&str> =
            path.split('/').filter_map(|step| step.strip_prefix('{')?.strip_suffix('}')).collect();
        for (method, operation) in item.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
            let parameters = operation["parameters"].as_array().unwrap();
            let named: BTreeSet<_> = parameters
                .iter()
                .map(|known| (known["in"].as_str().unwrap(), known["name"].as_str().unwrap()))
                .collect();
            assert_eq!(named.len(), parameters.len(), "{method} {path}");
            let inside = named.iter().filter(|(place, _)| *place == "path").map(|(_, name)| *name);
            assert_eq!(inside.collect::<Vec<_>>(), wanted, "{method} {path}");
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
        }
    }
    assert!(ids.len() >= 13, "{ids:?}");
}

#[test]
fn an_answer_that_is_not_described_is_found_out() {
    let problem = |kind: &str| {
        json!({"type": format!("urn:driftgate:problem:{kind}"), "title": "x", "status": 1,
               "detail": "x"})
    };
    let reply = json!({"band": "open", "operator_hold": false, "held_by": [], "barrier": null,
                       "survives_restart": true, "audited": true});
    let mut without = reply.clone();
    without.as_object_mut().unwrap().remove("audited");
    let mut with = reply.clone();
    with["more"] = json!(1);
    let mut wrong = reply.clone();
    wrong["band"] = json!("ajar");
    let (json_type, kinds) = ("application/json", "application/problem+json");
    let (isolate, field) = ("POST /operator/isolate", "GET /field/state?source=x");
    for (line, status, media_type, body, is_right) in [
        (isolate, 200, json_type, reply.clone(), true),
        (isolate, 200, "text/yaml", reply.clone(), true),
        (isolate, 200, "application/ld+json", reply.clone(), false),
        (isolate, 200, "text/html", reply.clone(), false),
        (isolate, 201, json_type, reply.clone(), false),
        (isolate, 200, json_type, without, false),
        (isolate, 200, json_type, with, false),
        (isolate, 200, json_type, wrong, false),
        (isolate, 422, kinds, problem("bad-order"), true),
        (isolate, 422, kinds, problem("malformed"), false),
        (isolate, 423, kinds, problem("isolated"), false),
        (field, 423, kinds, problem("isolated"), true),
        (field, 423, json_type, problem("isolated"), false),
        (field, 200, json_type, reply.clone(), false),
        ("DELETE /field/state", 405, kinds, problem("wrong-method"), true),
        ("DELETE /field/state", 200, json_type, reply, false),
        ("GET /readyz", 200, json_type, json!({}), true),
    ] {
        let (method, target) = line.split_once(' ').unwrap();
        let body = body.to_string();
        let (media_type, body) = (Some(media_type), body.as_bytes());
        let found = held(&Seen { method, target, status, media_type, body });
        assert_eq!(found.is_ok(), is_right, "{line} {status} {media_type:?}: {found:?}");
    }
}

/// The parts of `docs/api.md` that are made from the document: routes, and types of problems.
fn tables(document: &Value) -> [(&'static str, String); 2] {
    let mut routes = String::from("| route | does | answers |\n|---|---|---|\n");
    let mut problems = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let does = operation["summary"].as_str().unwrap();
            let parameters: Vec<String> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| {
                    let name = parameter["name"].as_str().unwrap();
                    format!("`?{name}`: {}", parameter["description"].as_str().unwrap())
                })
                .collect();
            let more: String = parameters.iter().map(|text| format!("<br>{text}")).collect();
            let responses = operation["responses"].as_object().unwrap();
            let statuses: Vec<&str> = responses.keys().map(String::as_str).collect();
            let method = method.to_uppercase();
            routes += &format!("| `{method} {path}` | {does}{more} | {} |\n", statuses.join(" "));
            for (status, response) in responses {
                let schema = &response["content"]["application/problem+json"]["schema"];
                let types = schema["allOf"][1]["properties"]["type"]["enum"].as_array();
                let titles = response["description"].as_str().unwrap().split(". ");
                for (kind, title) in types.into_iter().flatten().zip(titles) {
                    let kind = kind.as_str().unwrap().rsplit(':').next().unwrap();
                    problems.insert((status.clone(), kind.to_owned(), title.to_owned()));
                }
            }
        }
    }
    let rows =
        problems.iter().map(|(status, kind, title)| format!("| {status} | `{kind}` | {title} |\n"));
    let head = "| status | type | title |\n|---|---|---|\n".to_owned();
    [("routes", routes), ("problems", rows.fold(head, |all, row| all + &row))]
}

/// `make documents` sets the variable and so writes them.
#[test]
fn documents_the_tables_of_the_interface_are_what_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
    let found = std::fs::read_to_string(path).unwrap();
    let mut written = found.clone();
    for (name, table) in tables(&document()) {
        let (begin, end) = (format!("<!-- {name}: "), format!("<!-- end of {name} -->"));
        let (before, rest) = written.split_once(&begin).unwrap();
        let (remark, rest) = rest.split_once('\n').unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        written = format!("{before}{begin}{remark}\n{table}{end}{after}");
    }
    if std::env::var_os("DRIFTGATE_WRITE_DOCUMENTS").is_some() {
        std::fs::write(path, &written).unwrap();
        return;
    }
    let differs = found.lines().zip(written.lines()).find(|(found, made)| found != made);
    assert_eq!(differs, None, "run `make documents`");
    assert_eq!(found.len(), written.len(), "run `make documents`");
}
