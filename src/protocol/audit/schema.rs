//! The JSON Schema of one line. It follows `line.rs` member by member.

use serde_json::{Value, json};
use strum::VariantArray as _;

use super::{BY_BYTES_MAX, Band, ExchangeMode, INTEGER_MAX, REASON_BYTES_MAX};
use crate::protocol::envelope::{TERM_BYTES_MAX, USES_MAX};
use crate::protocol::exchange::SUPPORTED;
use crate::protocol::schema::{
    digest, flag, hex, index, object, or_null, runtime_id, text, version, whole, words,
    written_time,
};

/// One line of the audit log.
#[must_use]
pub fn audit() -> Value {
    let details = details();
    let events: Vec<&str> = details.iter().map(|(event, _)| *event).collect();
    let rule = json!({"type": "array", "items": {"type": "string", "pattern": "^[a-z_]+$"}});
    let chain = json!({"type": "string", "pattern": "^[0-9a-f]{16}$"});
    let trace_id = json!({"type": "string", "pattern": "^[0-9a-f]{32}$"});
    let seq = json!({"type": "integer", "minimum": 1, "maximum": INTEGER_MAX});
    let mut line = object([
        ("time", written_time()),
        ("event", json!({"enum": events})),
        ("cause", object([("cycle", or_null(whole())), ("seq", or_null(whole()))])),
        ("value", or_null(index())),
        ("rule", rule),
        ("detail", json!({"type": "object"})),
        ("direction", json!({"enum": ["inbound", "local", "outbound"]})),
        ("source", or_null(runtime_id())),
        ("target", or_null(runtime_id())),
        ("scope", json!({"enum": ["containment", "handshake", "process", "snapshot", "state"]})),
        ("authority", json!({"enum": ["broker", "gate", "operator", "process"]})),
        ("effect", json!({"enum": ["effect", "observation"]})),
        ("evidence", json!({"enum": ["accepted", "none", "refused"]})),
        ("provenance", or_null(json!({"enum": ["derived", "native", "none", "reported"]}))),
        ("trace_id", or_null(trace_id)),
        ("chain", chain),
        ("previous", hex()),
        ("seq", seq),
    ]);
    let of_event = |(event, detail): (&str, Value)| {
        json!({
            "if": {"properties": {"event": {"const": event}}},
            "then": {"properties": {"detail": detail}}})
    };
    let rules = details.into_iter().map(of_event).collect();
    if let Some(line) = line.as_object_mut() {
        line.insert("allOf".to_owned(), rules);
    }
    line
}

/// What `detail` holds for each kind of event.
fn details() -> [(&'static str, Value); 15] {
    let band = || words(Band::VARIANTS);
    let nothing = || object([]);
    let word = || json!({"type": "string", "minLength": 1});
    let remark = |bytes_max| or_null(text(bytes_max));
    let operator = object([
        ("act", json!({"enum": ["isolate", "release"]})),
        ("way", json!({"enum": ["file", "http", "presence", "signal"]})),
        ("by", remark(BY_BYTES_MAX)),
        ("reason", remark(REASON_BYTES_MAX)),
        ("operator_hold", flag()),
    ]);
    let handshake = object([
        ("peer", runtime_id()),
        ("theirs", or_null(version("(0|[1-9][0-9]{0,9})"))),
        ("ours", json!({"const": SUPPORTED.to_string()})),
        ("verdict", json!({"enum": ["accepted", "rejected", "unanswered"]})),
        ("mode", words(ExchangeMode::VARIANTS)),
    ]);
    let refused = || object([("verdict", json!({"enum": ["quarantine", "reject"]}))]);
    let term =
        json!({"type": "string", "pattern": format!("^[A-Za-z0-9_-]{{1,{TERM_BYTES_MAX}}}$")});
    let accepted = object([
        ("verdict", json!({"enum": ["accept", "narrow"]})),
        ("scope", or_null(term.clone())),
        ("allowed_use", json!({"type": "array", "items": term, "maxItems": USES_MAX})),
    ]);
    let torn = object([("bytes", whole()), ("sha256", hex())]);
    let started = object([("version", word()), ("band", band()), ("operator_hold", flag())]);
    [
        ("started", started),
        ("transition", object([("from", band()), ("to", band())])),
        ("report_refused", nothing()),
        ("inspection_failed", object([("packets", whole())])),
        ("snapshot_stored", object([("digest", digest())])),
        ("inbound_accepted", accepted),
        ("inbound_refused", refused()),
        ("quarantined", refused()),
        ("handshake", handshake),
        ("operator", operator),
        ("barrier", nothing()),
        ("reloaded", nothing()),
        ("stopped", nothing()),
        ("lost", object([("count", whole())])),
        ("torn", torn),
    ]
}
