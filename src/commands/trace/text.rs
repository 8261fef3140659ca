//! An explanation as people read it.

use std::fmt::Write as _;

use serde_json::Value;
use strum::VariantArray as _;

use crate::commands::columns::columns;
use crate::commands::send::words;
use crate::protocol::seal::Step;

/// The whole of it.
pub(super) fn of(trace: &Value) -> String {
    let at = |pointer: &str| shown(trace.pointer(pointer));
    let mut text = format!(
        "report   seq {}, cycle {}, at {}; {}, {}\nparse    profile {}: {}\n",
        at("/seq"),
        at("/cycle"),
        at("/at"),
        at("/runtime_id"),
        at("/mode"),
        at("/profile"),
        parse(trace)
    );
    // Writing into a String does not fail.
    if trace.get("index").is_some_and(|index| !index.is_null()) {
        let _ = write!(
            text,
            "cycle    {}, {} missed\nindex    native {}\n         reported {}\n         \
             derived {}, coherence assumed {}\n         used {}, {} where {} is accepted\n",
            at("/continuity/is"),
            missed(trace),
            parts(trace.pointer("/index/native")),
            at("/index/reported"),
            parts(trace.pointer("/index/derived")),
            at("/index/assumed_scr"),
            at("/index/used"),
            at("/index/source"),
            at("/index/accept"),
        );
    }
    let _ = write!(
        text,
        "gate     {} -> {}, the table asks for {}\nverdict  {}\nreasons  {}\nbarrier  {}\n\n{}\n",
        at("/gate/before"),
        at("/gate/after"),
        at("/gate/asked"),
        at("/gate/verdict"),
        words(trace.pointer("/gate/reasons")),
        at("/gate/barrier"),
        columns(&rows(trace)),
    );
    let targets = targets(trace);
    if targets.len() > 1 {
        let _ = writeln!(text, "{}", columns(&targets));
    }
    let omitted = trace.get("targets_omitted").and_then(Value::as_u64).unwrap_or_default();
    if omitted > 0 {
        let _ = writeln!(text, "and {omitted} targets more\n");
    }
    let _ = writeln!(text, "reopens  {}", at("/would_reopen"));
    text
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn missed(trace: &Value) -> String {
    let missed = trace.pointer("/continuity/missed").and_then(Value::as_u64).unwrap_or_default();
    if missed == 0 { "none".to_owned() } else { missed.to_string() }
}

fn list<'a>(trace: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    trace.get(member).and_then(Value::as_array).into_iter().flatten()
}

fn parse(trace: &Value) -> String {
    let at = |member: &str| shown(trace.pointer(&format!("/parse/{member}")));
    if trace.pointer("/parse/refused").is_some_and(|refused| !refused.is_null()) {
        let key = match at("refused/key_bytes").as_str() {
            "0" => String::new(),
            bytes => format!(" and an unknown key of {bytes} bytes"),
        };
        return format!("refused at {}{key}: {}", at("refused/field"), at("refused/problem"));
    }
    let ignored = trace.pointer("/parse/ignored_bytes").and_then(Value::as_array);
    let ignored: Vec<String> = ignored.into_iter().flatten().map(Value::to_string).collect();
    let ignored = if ignored.is_empty() {
        "no key ignored".to_owned()
    } else {
        format!("ignored keys of {} bytes", ignored.join(", "))
    };
    format!(
        "attractor id of {} bytes, type {}, stability {}, phase {}; retention {}; {ignored}",
        at("id_bytes"),
        at("type"),
        at("stability"),
        at("phase"),
        at("retention_index"),
    )
}

fn parts(parts: Option<&Value>) -> String {
    let Some(parts) = parts.filter(|parts| !parts.is_null()) else { return "-".to_owned() };
    let [di, sdi, sv, pd, scr] =
        ["di", "sdi", "sv", "pd", "scr"].map(|name| shown(parts.get(name)));
    format!("{di} (sdi {sdi}, sv {sv}, pd {pd}, scr {scr})")
}

fn rows(trace: &Value) -> Vec<[String; 6]> {
    let head = ["ROW", "ASKS FOR", "LOOKS AT", "VALUE", "LIMIT", "APPLIES"].map(str::to_owned);
    let rows = list(trace, "table").map(|row| {
        let cell = |name: &str| shown(row.get(name));
        let asks = if cell("band") == "open" { "remarks".to_owned() } else { cell("band") };
        let limit = match (bound(row.get("limit")), bound(row.get("unless"))) {
            (limit, unless) if unless == "-" => limit,
            (limit, unless) => format!("{limit}, not {unless}"),
        };
        let applies = if row.get("applies") == Some(&Value::Bool(true)) { "yes" } else { "" };
        [cell("reason"), asks, cell("of"), cell("value"), limit, applies.to_owned()]
    });
    core::iter::once(head).chain(rows).collect()
}

/// `{"at_least": 0.5}` as `>= 0.5`, a word as it is.
fn bound(bound: Option<&Value>) -> String {
    let of = |(name, mark): (&String, &Value)| {
        let sign = match name.as_str() {
            "at_least" => ">=",
            "above" => ">",
            "at_most" => "<=",
            _ => "<",
        };
        format!("{sign} {mark}")
    };
    match bound {
        Some(Value::Object(members)) => members.iter().map(of).collect(),
        other => shown(other),
    }
}

fn targets(trace: &Value) -> Vec<[String; 4]> {
    let head = ["TARGET", "MODE", "INSPECTION", "BECAME"].map(str::to_owned);
    let targets = list(trace, "targets").map(|target| {
        let cell = |name: &str| shown(target.get(name));
        let stored = target.get("stream_seq").and_then(Value::as_u64);
        let place = stored.map_or_else(String::new, |seq| format!(" at {seq}"));
        let became = cell("status") + &place;
        [cell("target"), cell("mode"), inspection(target.get("inspection")), became]
    });
    core::iter::once(head).chain(targets).collect()
}

/// The steps as far as they came.
fn inspection(inspection: Option<&Value>) -> String {
    let failed = inspection.and_then(|inspection| inspection.get("failed")).and_then(Value::as_str);
    if failed.is_none() && inspection.and_then(Value::as_str) != Some("passed") {
        return "not begun".to_owned();
    }
    let mut steps = Vec::new();
    for step in Step::VARIANTS.iter().map(<&str>::from) {
        if failed == Some(step) {
            steps.push(format!("{step} FAILED"));
            break;
        }
        steps.push(step.to_owned());
    }
    steps.join(", ")
}
