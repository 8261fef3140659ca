//! One line: its members out, and what the chain needs of them back in.
//!
//! Every line has the same members; those that say nothing about an event are null.

use super::{
    Admission, Artifact, BTreeMap, Digest, Entry, Event, ExchangeMode, Fault, Json, LINE_BYTES_MAX,
    ModeReason, Provenance, Reason, Ruling, RuntimeId, Timestamp, TraceParent, Transition,
};
use crate::protocol::canonical::whole;
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

fn texts(words: &[String]) -> Json {
    Json::Array(words.iter().map(|word| text(word)).collect())
}

fn id(runtime_id: &RuntimeId) -> Json {
    text(runtime_id.as_str())
}

/// What one event puts on its line.
struct Description {
    /// `outbound`, `inbound` or `local`.
    direction: &'static str,
    /// This runtime; of an inbound event the peer, where one is known.
    source: Option<RuntimeId>,
    target: Option<RuntimeId>,
    /// `containment`, `state`, `snapshot`, `handshake` or `process`.
    scope: &'static str,
    /// By whose authority it took effect: `gate`, `operator`, `broker` or `process`. What a peer
    /// sends has none: an event does not authorise itself.
    authority: &'static str,
    /// `effect` changes what goes out or comes in, `observation` changes nothing.
    effect: &'static str,
    /// `accepted`, `refused` or `none`.
    evidence: &'static str,
    /// The words that say by which rule it happened.
    rules: Vec<&'static str>,
    /// The report that caused it.
    cycle: Option<u64>,
    seq: Option<u64>,
    value: Option<f64>,
    provenance: Option<&'static str>,
    trace_id: Option<String>,
    /// What only this kind of event has.
    detail: Vec<(&'static str, Json)>,
}

/// Of an event of this runtime's own.
fn local(
    entry: &Entry,
    scope: &'static str,
    authority: &'static str,
    evidence: &'static str,
) -> Description {
    Description {
        direction: "local",
        source: Some(entry.runtime_id.clone()),
        target: None,
        scope,
        authority,
        effect: "effect",
        evidence,
        rules: Vec::new(),
        cycle: None,
        seq: None,
        value: None,
        provenance: None,
        trace_id: None,
        detail: Vec::new(),
    }
}

/// Of something that a peer sent.
fn inbound(
    entry: &Entry,
    source: Option<&RuntimeId>,
    scope: &'static str,
    evidence: &'static str,
) -> Description {
    Description {
        direction: "inbound",
        source: source.cloned(),
        target: Some(entry.runtime_id.clone()),
        effect: "observation",
        ..local(entry, scope, "gate", evidence)
    }
}

fn transition(entry: &Entry, transition: &Transition) -> Description {
    let by_operator = transition.reasons.first() == Some(&Reason::Operator);
    let authority = if by_operator { "operator" } else { "gate" };
    let (from, to) = (transition.from.word(), transition.to.word());
    Description {
        direction: "outbound",
        rules: transition.reasons.iter().map(|reason| reason.word()).collect(),
        cycle: transition.cycle,
        seq: transition.seq,
        value: transition.di,
        provenance: Some(transition.drift_source),
        trace_id: transition.trace_id.clone(),
        detail: vec![("from", text(from)), ("to", text(to))],
        ..local(entry, "containment", authority, evidence(transition))
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

fn handshake(
    entry: &Entry,
    (peer, is_inbound): (&RuntimeId, bool),
    theirs: Option<Version>,
    (mode, reason): (ExchangeMode, ModeReason),
) -> Description {
    let ended = if is_inbound {
        let is_refused = mode == ExchangeMode::Rejected;
        let evidence = if is_refused { "refused" } else { "accepted" };
        inbound(entry, Some(peer), "handshake", evidence)
    } else {
        Description {
            direction: "outbound",
            target: Some(peer.clone()),
            ..local(entry, "handshake", "gate", "none")
        }
    };
    Description {
        rules: vec![reason.word()],
        detail: vec![
            ("peer", text(peer.as_str())),
            ("theirs", optional(theirs, |version| text(&version.to_string()))),
            ("ours", text(PROTOCOL_VERSION)),
            ("verdict", text(verdict(theirs))),
            ("mode", text(mode.word())),
        ],
        ..ended
    }
}

fn trace_id(trace: Option<&TraceParent>) -> Option<String> {
    trace.map(|trace| trace.trace_id().to_owned())
}

/// A snapshot of ours that is at the broker.
fn stored(entry: &Entry, (seq, digest): (u64, Digest), trace: Option<&TraceParent>) -> Description {
    Description {
        direction: "outbound",
        seq: Some(seq),
        trace_id: trace_id(trace),
        detail: vec![("digest", text(&digest.to_string()))],
        ..local(entry, Artifact::Snapshot.word(), "gate", "none")
    }
}

fn accepted(
    entry: &Entry,
    (artifact, source, seq): (Artifact, &RuntimeId, u64),
    admission: &Admission,
    trace: Option<&TraceParent>,
) -> Description {
    let verdict = admission.verdict.word();
    Description {
        rules: vec![verdict],
        seq: Some(seq),
        provenance: admission.drift_source.map(Provenance::word),
        trace_id: trace_id(trace),
        detail: vec![
            ("verdict", text(verdict)),
            ("allowed_use", texts(&admission.allowed_use)),
            ("scope", optional(admission.scope.as_deref(), text)),
        ],
        ..inbound(entry, Some(source), artifact.word(), "accepted")
    }
}

fn refused(
    entry: &Entry,
    artifact: Artifact,
    source: Option<&RuntimeId>,
    fault: Fault,
) -> Description {
    Description {
        rules: vec![fault.word()],
        detail: vec![("verdict", text(Ruling::of(fault).word()))],
        ..inbound(entry, source, artifact.word(), "refused")
    }
}

fn describe(entry: &Entry) -> Description {
    let of = |scope, authority, evidence| local(entry, scope, authority, evidence);
    match &entry.event {
        Event::Started { version, band, operator_hold } => Description {
            detail: vec![
                ("version", text(version)),
                ("band", text(band.word())),
                ("operator_hold", Json::Bool(*operator_hold)),
            ],
            ..of("process", "process", "none")
        },
        Event::Transition(change) => transition(entry, change),
        Event::ReportRefused { unreadable } => Description {
            rules: vec![if *unreadable { "unreadable" } else { "malformed" }],
            ..of("state", "gate", "refused")
        },
        Event::InspectionFailed { seq, packets } => Description {
            direction: "outbound",
            rules: vec![Reason::InspectionFailed.word()],
            seq: Some(*seq),
            detail: vec![("packets", number(*packets))],
            ..of("state", "gate", "refused")
        },
        Event::SnapshotStored { seq, digest, drift_source, trace } => {
            let provenance = Some(drift_source.word());
            Description { provenance, ..stored(entry, (*seq, *digest), trace.as_ref()) }
        }
        Event::InboundAccepted { artifact, source, seq, admission, trace } => {
            accepted(entry, (*artifact, source, *seq), admission, trace.as_ref())
        }
        Event::InboundRefused { artifact, fault, source } => {
            refused(entry, *artifact, source.as_ref(), *fault)
        }
        Event::Quarantined { fault, source } => {
            refused(entry, Artifact::State, source.as_ref(), *fault)
        }
        Event::Handshake { peer, inbound: is_inbound, theirs, mode, reason } => {
            handshake(entry, (peer, *is_inbound), *theirs, (*mode, *reason))
        }
        Event::Operator { act, way, by, reason, operator_hold } => Description {
            rules: vec![Reason::Operator.word()],
            detail: vec![
                ("act", text(act.word())),
                ("way", text(way.word())),
                ("by", optional(by.as_ref(), |by| text(&by.0))),
                ("reason", optional(reason.as_ref(), |reason| text(&reason.0))),
                ("operator_hold", Json::Bool(*operator_hold)),
            ],
            ..of("containment", "operator", "none")
        },
        Event::Barrier(barrier) => Description {
            direction: "outbound",
            rules: vec![barrier.word()],
            ..of("containment", "broker", "none")
        },
        Event::Lost { count, loss } => Description {
            rules: vec![loss.word()],
            detail: vec![("count", number(*count))],
            ..of("process", "process", "none")
        },
        Event::Torn { bytes, digest } => Description {
            detail: vec![("bytes", number(*bytes)), ("sha256", text(digest))],
            ..of("process", "process", "none")
        },
        Event::Reloaded | Event::Stopped => of("process", "process", "none"),
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

/// Everything but the three members that the chain gives.
pub(super) fn members(entry: &Entry) -> BTreeMap<String, Json> {
    let described = describe(entry);
    let named = |(name, json): (&str, Json)| (name.to_owned(), json);
    let cause = [("cycle", described.cycle), ("seq", described.seq)]
        .map(|(name, count)| named((name, optional(count, number))));
    let rule = described.rules.into_iter().map(text).collect();
    let detail = described.detail.into_iter().map(named);
    [
        ("time", text(&entry.time.to_string())),
        ("event", text(entry.event.word())),
        ("cause", Json::Object(cause.into())),
        ("value", optional(described.value, Json::Number)),
        ("rule", Json::Array(rule)),
        ("detail", Json::Object(detail.collect())),
        ("direction", text(described.direction)),
        ("source", optional(described.source.as_ref(), id)),
        ("target", optional(described.target.as_ref(), id)),
        ("scope", text(described.scope)),
        ("authority", text(described.authority)),
        ("effect", text(described.effect)),
        ("evidence", text(described.evidence)),
        ("provenance", optional(described.provenance, text)),
        ("trace_id", optional(described.trace_id.as_deref(), text)),
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
