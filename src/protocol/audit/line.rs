//! One line: its members out, and what the chain needs of them back in.
//!
//! Every line has the same members; those that say nothing about an event are null. The ten that
//! SPEC R74 asks for are `direction`, `source`, `target`, `scope`, `time`, `authority`, `effect`,
//! `evidence`, `provenance` and `trace_id`.

use super::{
    BTreeMap, Digest, Entry, Event, ExchangeMode, INTEGER_MAX, Json, LINE_BYTES_MAX, Reason,
    RuntimeId, Timestamp, Transition,
};
use crate::protocol::exchange::{SUPPORTED, Version};
use crate::protocol::packet::PROTOCOL_VERSION;

pub(super) fn text(text: &str) -> Json {
    Json::String(text.to_owned())
}

/// Counts and sequence numbers: exact up to 2^53, which microseconds reach in the year 2255.
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "exact up to 2^53")]
pub(super) fn number(number: u64) -> Json {
    Json::Number(number as f64)
}

fn optional<T>(value: Option<T>, json: impl FnOnce(T) -> Json) -> Json {
    value.map_or(Json::Null, json)
}

fn id(runtime_id: &RuntimeId) -> Json {
    text(runtime_id.as_str())
}

/// The members that depend on what kind of event it is.
struct Nature {
    /// `outbound`, `inbound` or `local`.
    direction: &'static str,
    /// The peer of an inbound event.
    source: Option<Option<RuntimeId>>,
    target: Option<RuntimeId>,
    /// `containment`, `state`, `handshake` or `process`.
    scope: &'static str,
    /// By whose authority it took effect: `gate`, `operator`, `broker` or `process`. What a peer
    /// sends has none: an event does not authorise itself.
    authority: &'static str,
    /// `effect` changes what goes out or comes in, `observation` changes nothing.
    effect: &'static str,
    /// `accepted`, `refused` or `none`.
    evidence: &'static str,
}

const fn local(scope: &'static str, authority: &'static str, evidence: &'static str) -> Nature {
    Nature {
        direction: "local",
        source: None,
        target: None,
        scope,
        authority,
        effect: "effect",
        evidence,
    }
}

fn nature(entry: &Entry) -> Nature {
    let inbound = |source: &Option<RuntimeId>| Nature {
        direction: "inbound",
        source: Some(source.clone()),
        target: Some(entry.runtime_id.clone()),
        effect: "observation",
        ..local("state", "gate", "refused")
    };
    match &entry.event {
        Event::Transition(transition) => {
            let by_operator = transition.reasons.first() == Some(&Reason::Operator);
            let authority = if by_operator { "operator" } else { "gate" };
            Nature {
                direction: "outbound",
                ..local("containment", authority, evidence(transition))
            }
        }
        Event::ReportRefused { .. } => local("state", "gate", "refused"),
        Event::InspectionFailed { .. } => {
            Nature { direction: "outbound", ..local("state", "gate", "refused") }
        }
        Event::InboundRefused { source, .. } | Event::Quarantined { source, .. } => inbound(source),
        Event::Handshake { peer, inbound: true, mode, .. } => Nature {
            scope: "handshake",
            evidence: if *mode == ExchangeMode::Rejected { "refused" } else { "accepted" },
            ..inbound(&Some(peer.clone()))
        },
        Event::Handshake { peer, inbound: false, .. } => Nature {
            direction: "outbound",
            target: Some(peer.clone()),
            ..local("handshake", "gate", "none")
        },
        Event::Operator { .. } => local("containment", "operator", "none"),
        Event::Barrier(_) => {
            Nature { direction: "outbound", ..local("containment", "broker", "none") }
        }
        Event::Started { .. }
        | Event::Reloaded
        | Event::Stopped
        | Event::Lost { .. }
        | Event::Torn { .. } => local("process", "process", "none"),
    }
}

/// What the report that caused a transition was worth as evidence.
fn evidence(transition: &Transition) -> &'static str {
    let refuses = |reason: &Reason| {
        matches!(
            reason,
            Reason::NoEvidence
                | Reason::DuplicateCycle
                | Reason::Incomplete
                | Reason::Invalid
                | Reason::ProvenanceRefused
                | Reason::GenerationChange
        )
    };
    if transition.reasons.iter().any(refuses) {
        "refused"
    } else if transition.seq.is_some() {
        "accepted"
    } else {
        "none"
    }
}

/// The words that say by which rule it happened.
fn rules(event: &Event) -> Vec<&'static str> {
    match event {
        Event::Transition(transition) => {
            transition.reasons.iter().map(|reason| reason.word()).collect()
        }
        Event::ReportRefused { unreadable: true } => vec!["unreadable"],
        Event::ReportRefused { unreadable: false } => vec!["malformed"],
        Event::InspectionFailed { .. } => vec![Reason::InspectionFailed.word()],
        Event::InboundRefused { fault, .. } | Event::Quarantined { fault, .. } => {
            vec![fault.word()]
        }
        Event::Handshake { reason, .. } => vec![reason.word()],
        Event::Operator { .. } => vec![Reason::Operator.word()],
        Event::Barrier(barrier) => vec![barrier.word()],
        Event::Lost { loss, .. } => vec![loss.word()],
        Event::Started { .. } | Event::Reloaded | Event::Stopped | Event::Torn { .. } => Vec::new(),
    }
}

/// How a handshake with one that speaks this version ends.
fn verdict(theirs: Option<Version>) -> &'static str {
    match theirs {
        None => "unanswered",
        Some(version) if version.major == SUPPORTED.major => "accepted",
        Some(_) => "rejected",
    }
}

/// What only this kind of event has.
fn detail(event: &Event) -> Vec<(&'static str, Json)> {
    match event {
        Event::Started { version, band, operator_hold } => vec![
            ("version", text(version)),
            ("band", text(band.word())),
            ("operator_hold", Json::Bool(*operator_hold)),
        ],
        Event::Transition(transition) => {
            vec![("from", text(transition.from.word())), ("to", text(transition.to.word()))]
        }
        Event::InspectionFailed { packets, .. } => vec![("packets", number(*packets))],
        Event::Handshake { peer, theirs, mode, .. } => vec![
            ("peer", text(peer.as_str())),
            ("theirs", optional(*theirs, |version| text(&version.to_string()))),
            ("ours", text(PROTOCOL_VERSION)),
            ("verdict", text(verdict(*theirs))),
            ("mode", text(mode.word())),
        ],
        Event::Operator { act, way, by, reason, operator_hold } => vec![
            ("act", text(act.word())),
            ("way", text(way.word())),
            ("by", optional(by.as_ref(), |by| text(&by.0))),
            ("reason", optional(reason.as_ref(), |reason| text(&reason.0))),
            ("operator_hold", Json::Bool(*operator_hold)),
        ],
        Event::Lost { count, .. } => vec![("count", number(*count))],
        Event::Torn { bytes, digest } => {
            vec![("bytes", number(*bytes)), ("sha256", text(digest))]
        }
        Event::ReportRefused { .. }
        | Event::InboundRefused { .. }
        | Event::Quarantined { .. }
        | Event::Barrier(_)
        | Event::Reloaded
        | Event::Stopped => Vec::new(),
    }
}

/// Everything but the three members that the chain gives.
pub(super) fn members(entry: &Entry) -> BTreeMap<String, Json> {
    let nature = nature(entry);
    let (mut cycle, mut seq, mut value, mut provenance) =
        (Json::Null, Json::Null, Json::Null, Json::Null);
    match &entry.event {
        Event::Transition(transition) => {
            cycle = optional(transition.cycle, number);
            seq = optional(transition.seq, number);
            value = optional(transition.di, Json::Number);
            provenance = text(transition.drift_source);
        }
        Event::InspectionFailed { seq: report, .. } => seq = number(*report),
        Event::Started { .. }
        | Event::ReportRefused { .. }
        | Event::InboundRefused { .. }
        | Event::Quarantined { .. }
        | Event::Handshake { .. }
        | Event::Operator { .. }
        | Event::Barrier(_)
        | Event::Reloaded
        | Event::Stopped
        | Event::Lost { .. }
        | Event::Torn { .. } => {}
    }
    let source = match &nature.source {
        Some(peer) => optional(peer.as_ref(), id),
        None => id(&entry.runtime_id),
    };
    let named = |(name, json): (&str, Json)| (name.to_owned(), json);
    let cause = [("cycle", cycle), ("seq", seq)].map(named);
    let rule = rules(&entry.event).into_iter().map(text).collect();
    let detail = detail(&entry.event).into_iter().map(named);
    [
        ("time", text(&entry.time.to_string())),
        ("event", text(entry.event.word())),
        ("cause", Json::Object(cause.into())),
        ("value", value),
        ("rule", Json::Array(rule)),
        ("detail", Json::Object(detail.collect())),
        ("direction", text(nature.direction)),
        ("source", source),
        ("target", optional(nature.target.as_ref(), id)),
        ("scope", text(nature.scope)),
        ("authority", text(nature.authority)),
        ("effect", text(nature.effect)),
        ("evidence", text(nature.evidence)),
        ("provenance", provenance),
        ("trace_id", Json::Null),
    ]
    .map(named)
    .into()
}

/// What the chain needs of a line that was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Which chain it belongs to.
    pub chain: String,
    /// Its place in it, from 1.
    pub seq: u64,
    /// Its time.
    pub time: Timestamp,
    /// Its event's word.
    pub event: String,
    /// The hash of the line before.
    pub previous: String,
    /// Its own hash.
    pub digest: String,
    /// Events that a `lost` line stands for.
    pub lost: u64,
    /// Length and hash of the bytes that a `torn` line closes.
    pub torn: Option<(u64, String)>,
}

impl Link {
    /// Reads one line, without its newline.
    ///
    /// # Errors
    /// What is wrong with it. The line was altered, or cut short.
    pub fn read(line: &[u8]) -> Result<Self, &'static str> {
        if line.len() > LINE_BYTES_MAX {
            return Err("longer than any line of an audit log");
        }
        let json = Json::parse(line).map_err(|_| "not a JSON object")?;
        if json.to_canonical() != line {
            return Err("not in canonical form, so not as it was written");
        }
        let word = |pointer: &str| json.pointer(pointer).and_then(Json::as_str);
        let count = |pointer: &str| json.pointer(pointer).and_then(Json::as_f64).and_then(whole);
        let event = word("/event").ok_or("without an event")?;
        let torn = if event == "torn" {
            let bytes = count("/detail/bytes").ok_or("without its number of bytes")?;
            Some((bytes, word("/detail/sha256").ok_or("without its hash")?.to_owned()))
        } else {
            None
        };
        Ok(Self {
            chain: word("/chain").ok_or("without a chain id")?.to_owned(),
            seq: count("/seq").filter(|seq| *seq > 0).ok_or("without a sequence number")?,
            time: word("/time").and_then(Timestamp::parse).ok_or("without a time")?,
            previous: word("/previous").ok_or("without the hash of the line before")?.to_owned(),
            digest: Digest::of(line).hex(),
            lost: if event == "lost" { count("/detail/count").unwrap_or(0) } else { 0 },
            torn,
            event: event.to_owned(),
        })
    }
}

/// The whole number that `number` is, if it is one.
fn whole(number: f64) -> Option<u64> {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "whole and within 2^53, so the conversion is exact"
    )]
    (number.fract() == 0.0 && (0.0..=INTEGER_MAX).contains(&number)).then_some(number as u64)
}
