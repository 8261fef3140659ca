//! Reading from outside: strict, bounded, and never a panic.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; the clippy setting does not reach helpers"
)]

use driftgate::protocol::canonical::{Json, SyntaxFault};
use proptest::prelude::*;

fn any_json() -> impl Strategy<Value = Json> {
    // Between 2^53 and 1e21 no number is read, for RFC 8785 prints it as an integer.
    let number = any::<f64>().prop_filter_map("would not survive", |number| {
        let survives = number.abs() <= 9_007_199_254_740_992.0 || number.abs() >= 1e21;
        survives.then_some(Json::Number(number + 0.0))
    });
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        number,
        any::<String>().prop_map(Json::String),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Json::Object),
        ]
    })
}

proptest! {
    #[test]
    fn canonical_bytes_read_back_and_are_canonical(json in any_json()) {
        let bytes = json.to_canonical();
        let read = Json::parse(&bytes).unwrap();
        prop_assert_eq!(&read, &json);
        prop_assert_eq!(&read.to_canonical(), &bytes);
        // A foreign reader finds the same value in them, and we find ours in what it writes.
        let foreign: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let ours = serde_json::to_value(&json).unwrap();
        prop_assert_eq!(Json::parse(foreign.to_string().as_bytes()).ok(), Some(json));
        prop_assert_eq!(Json::parse(ours.to_string().as_bytes()).unwrap().to_canonical(), bytes);
    }

    #[test]
    fn reading_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
        let _ = Json::parse(&bytes);
        let _ = Json::from_yaml(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn reading_what_looks_like_json_never_panics(text in "[\\[\\]{}:,\"\\\\ue0-9.+-]{0,40}") {
        if let Ok(json) = Json::parse(text.as_bytes()) {
            prop_assert_eq!(Json::parse(&json.to_canonical()), Ok(json));
        }
        let _ = Json::from_yaml(&text);
    }
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn what_json_may_not_hold_is_refused_where_it_stands() {
    let deep = format!(r#"{{"a":{}}}"#, nested(32));
    let deepest = format!("/a{}", "/0".repeat(31));
    let cases: [(&str, &str, &str); 22] = [
        (r#"{"a":1,"a":1}"#, "/a", "duplicate key"),
        (r#"{"a":[{"b":1,"\u0062":2}]}"#, "/a/0/b", "duplicate key"),
        (r#"{"a/b":{"~":1,"~":2}}"#, "/a~1b/~0", "duplicate key"),
        (r#"{"a":[0,1e999]}"#, "/a/1", "number out of range: it must be finite"),
        (r#"{"a":-1e999}"#, "/a", "number out of range: it must be finite"),
        (r#"{"a":NaN}"#, "/a", "expected value: NaN, Infinity"),
        (r#"{"a":Infinity}"#, "/a", "expected value: NaN, Infinity"),
        (r#"{"a":-Infinity}"#, "/a", "invalid number: NaN, Infinity"),
        (r#"{"a":nan}"#, "/a", "expected ident: NaN, Infinity"),
        (r#"{"a":9007199254740993}"#, "/a", "integer beyond 2^53"),
        (r#"{"a":-9007199254740993}"#, "/a", "integer beyond 2^53"),
        (r#"{"a":18446744073709551616}"#, "/a", "integer beyond 2^53"),
        (r#"{"a":1e16}"#, "/a", "integer beyond 2^53"),
        (r#"{"a":"\ud800"}"#, "/a", ""),
        (r#"{"a":"\udc00\ud800"}"#, "/a", "lone leading surrogate"),
        ("{\"a\":\"\u{1}\"}", "/a", "control character"),
        (&deep, &deepest, "nested more than 32 levels deep"),
        ("{} {}", "/", "trailing characters"),
        ("[1,]", "/", "trailing comma"),
        ("", "/", "EOF while parsing a value"),
        ("{1:2}", "/", "key must be a string"),
        ("{\"a\":01}", "/a", "invalid number"),
    ];
    for (text, field, problem) in cases {
        let fault = Json::parse(text.as_bytes()).unwrap_err();
        assert_eq!(fault.field, field, "{text}");
        assert!(fault.problem.starts_with(problem), "{text}: {fault}");
        assert_eq!(fault.line, 1, "{text}");
    }
    assert!(Json::parse(nested(32).as_bytes()).is_ok());
    assert!(Json::parse(nested(33).as_bytes()).is_err());
    assert!(Json::parse(nested(100_000).as_bytes()).is_err());
    assert_eq!(Json::parse(b"9007199254740992").unwrap().as_f64(), Some(9_007_199_254_740_992.0));
    let not_utf8 = Json::parse(b"\"\xff\"").unwrap_err();
    assert_eq!((not_utf8.field.as_str(), not_utf8.problem.as_str()), ("/", "not UTF-8 at byte 1"));
}

#[test]
fn a_fault_gives_its_line_and_quotes_no_value() {
    let fault = Json::parse(b"{\n  \"a\": {\n    \"b\": 1,\n    \"b\": 2\n  }\n}").unwrap_err();
    let expected =
        SyntaxFault { field: "/a/b".into(), problem: "duplicate key".into(), line: 4, column: 7 };
    assert_eq!(fault, expected);
    let long = format!(r#"{{"{0}":1,"{0}":2}}"#, "\\u001b[31m\u{e9}".repeat(2000));
    let fault = Json::parse(long.as_bytes()).unwrap_err();
    assert!(fault.field.len() <= 80, "{fault}");
    assert!(fault.field.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{fault}");
    let key = "k".repeat(100);
    let wide = format!(r#"{}1e999{}"#, format!(r#"{{"{key}":"#).repeat(30), "}".repeat(30));
    assert!(Json::parse(wide.as_bytes()).unwrap_err().field.len() <= 256);
}

#[test]
fn yaml_is_read_into_the_same_values() {
    let yaml = "cycle: 7\nattractor_state:\n  id: a-1\n  scr: 0.8\n  phase: stable\nflags: [true, off, ~]\nname: 'NO'\n";
    let json = br#"{"attractor_state":{"id":"a-1","phase":"stable","scr":0.8},"cycle":7,"flags":[true,"off",null],"name":"NO"}"#;
    assert_eq!(Json::from_yaml(yaml).unwrap().to_canonical(), json);
    assert_eq!(Json::from_yaml(r#"{"a": [1.5, "x"]}"#), Json::parse(br#"{"a": [1.5, "x"]}"#));
}

#[test]
fn what_yaml_may_not_hold_is_refused_where_it_stands() {
    let deep = nested(33);
    let cases = [
        ("a:\n  b: 1\n  b: 2", "/a/b", "duplicate key"),
        ("a: .nan", "/a", "number out of range"),
        ("a: [-.inf]", "/a/0", "number out of range"),
        ("a: 1e999", "/a", "number out of range"),
        ("a: 9007199254740993", "/a", "integer beyond 2^53"),
        ("a: &x 1\nb: *x", "/", "YAML anchors and aliases are not accepted"),
        ("<<: {a: 1}", "/", "YAML merge keys"),
        ("a: !thing b", "/", "unsupported tag"),
        ("a: 1\n---\nb: 2", "/", "more than one YAML document"),
        ("a: [1", "/a", "unclosed bracket"),
        (&deep, "/0", "nested more than 32 levels deep"),
    ];
    for (text, field, problem) in cases {
        let fault = Json::from_yaml(text).unwrap_err();
        assert!(fault.field.starts_with(field), "{text}: {fault}");
        assert!(fault.problem.contains(problem), "{text}: {fault}");
    }
}

#[test]
fn a_pointer_finds_what_rfc_6901_says() {
    let json = Json::parse(br#"{"a":[{"b/c":1},true],"":"x","m~n":null}"#).unwrap();
    assert_eq!(json.pointer("/a/0/b~1c").and_then(Json::as_f64), Some(1.0));
    assert_eq!(json.pointer("/a/1").and_then(Json::as_bool), Some(true));
    assert_eq!(json.pointer("/").and_then(Json::as_str), Some("x"));
    assert_eq!(json.pointer("/m~0n"), Some(&Json::Null));
    assert_eq!(json.pointer(""), Some(&json));
    for absent in ["/a/2", "/a/01", "/a/-", "/a/+1", "/b", "a", "/a/1/c"] {
        assert_eq!(json.pointer(absent), None, "{absent}");
    }
}
