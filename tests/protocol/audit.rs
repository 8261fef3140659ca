//! The chain itself: pure, no file.

use driftgate::protocol::audit::{
    Act, BY_BYTES_MAX, Broken, Chain, Entry, Event, LINE_BYTES_MAX, Link, Loss, NOTHING_BEFORE,
    REASON_BYTES_MAX, Remark, Verifier, Way, Why, verify,
};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::envelope::{Admission, Ruling};
use driftgate::protocol::exchange::{Artifact, ExchangeMode, ModeReason, Version};
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::refusal::Fault;
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::trace::TraceParent;
use driftgate::protocol::view::{Barrier, Transition};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_oneof, proptest};
use serde_json::Value;

fn id(text: &str) -> RuntimeId {
    RuntimeId::new(text).unwrap()
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_767_225_600_000 + ms)
}

fn transition(reasons: &[Reason], seq: Option<u64>) -> Event {
    Event::Transition(Transition {
        from: Band::Open,
        to: Band::Blocked,
        at: at(0),
        reasons: reasons.to_vec(),
        cycle: Some(7),
        di: Some(0.55),
        seq,
        drift_source: "native",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
    })
}

fn accepted(artifact: Artifact) -> Event {
    Event::InboundAccepted {
        artifact,
        source: id("critic"),
        seq: 8,
        admission: Admission {
            verdict: Ruling::Narrow,
            allowed_use: vec!["evidence".to_owned()],
            scope: Some("planning".to_owned()),
            drift_source: Some(Provenance::Derived),
        },
        trace: TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    }
}

fn stored() -> Event {
    Event::SnapshotStored {
        seq: 9,
        digest: Digest::of(b"memory"),
        drift_source: Provenance::Native,
        trace: TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    }
}

/// One event of each kind.
fn events() -> Vec<Event> {
    let (artifact, source) = (Artifact::State, Some(id("critic")));
    vec![
        Event::Started { version: "0.1.0", band: Band::Blocked, operator_hold: false },
        transition(&[Reason::DiBlock, Reason::DiMismatch], Some(1_767_225_600_000_000)),
        Event::Barrier(Barrier::Confirmed),
        Event::ReportRefused { unreadable: false },
        Event::ReportRefused { unreadable: true },
        Event::InspectionFailed { seq: 9, packets: 3 },
        Event::InboundRefused { artifact, fault: Fault::Forged, source: source.clone() },
        Event::Quarantined { fault: Fault::Forged, source },
        Event::InboundRefused { artifact, fault: Fault::Misaddressed, source: None },
        Event::Handshake {
            peer: id("critic"),
            inbound: true,
            theirs: Some(Version { major: 2, minor: 0 }),
            mode: ExchangeMode::Rejected,
            reason: ModeReason::UnsupportedMajor,
        },
        Event::Operator {
            act: Act::Isolate,
            way: Way::Http,
            by: Remark::new("eve", BY_BYTES_MAX),
            reason: Remark::new("odd \"replies\" \u{1f600}", REASON_BYTES_MAX),
            operator_hold: true,
        },
        transition(&[Reason::Operator], None),
        Event::Reloaded,
        Event::Lost { count: 17, loss: Loss::QueueFull },
        accepted(Artifact::State),
        accepted(Artifact::Snapshot),
        stored(),
        Event::InboundRefused {
            artifact: Artifact::Snapshot,
            fault: Fault::Unauthorised,
            source: Some(id("critic")),
        },
        Event::Stopped,
    ]
}

/// A whole chain of these events, a second apart.
fn lines(events: Vec<Event>) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(&id("planner"), at(0));
    let entry =
        |(second, event)| Entry { time: at(1000 * second), runtime_id: id("planner"), event };
    let seconds = 0_i64..;
    seconds.zip(events).map(entry).map(|entry| chain.append(&entry)).collect()
}

/// One line of each kind.
pub(super) fn every_line() -> Vec<Value> {
    let torn = Event::Torn { bytes: 3, digest: Digest::of(b"{\"a").hex() };
    lines(events().into_iter().chain([torn]).collect()).iter().map(|line| json(line)).collect()
}

fn check(lines: &[Vec<u8>]) -> Result<driftgate::protocol::audit::Summary, Broken> {
    verify(lines.iter().map(Vec::as_slice))
}

fn json(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap()
}

fn reloads(count: usize) -> Vec<Vec<u8>> {
    lines(vec![Event::Reloaded; count])
}

#[test]
fn each_line_says_its_place_its_cause_and_the_ten_fields_of_an_event() {
    let lines = lines(events());
    let ten = [
        "direction",
        "source",
        "target",
        "scope",
        "time",
        "authority",
        "effect",
        "evidence",
        "provenance",
        "trace_id",
    ];
    let own = ["seq", "event", "cause", "value", "rule", "detail", "chain", "previous"];
    for (place, line) in (1..).zip(&lines) {
        let json = json(line);
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), ten.len() + own.len(), "{json}");
        assert!(ten.iter().chain(&own).all(|key| keys.contains(key)), "{json}");
        assert_eq!(json["seq"], place);
        assert!(line.len() <= LINE_BYTES_MAX);
    }
    let blocked = json(&lines[1]);
    assert_eq!(blocked["time"], "2026-01-01T00:00:01.000Z");
    assert_eq!(blocked["event"], "transition");
    assert_eq!(blocked["cause"], serde_json::json!({"cycle": 7, "seq": 1_767_225_600_000_000_u64}));
    assert_eq!(blocked["value"], 0.55);
    assert_eq!(blocked["rule"], serde_json::json!(["di_block", "di_mismatch"]));
    assert_eq!(blocked["detail"], serde_json::json!({"from": "open", "to": "blocked"}));
    let words = |line: &[u8]| {
        let json = json(line);
        ["direction", "source", "target", "authority", "effect", "evidence"]
            .map(|key| json[key].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(words(&lines[1]), ["outbound", "planner", "-", "gate", "effect", "accepted"]);
    assert_eq!(
        words(&lines[6]),
        ["inbound", "critic", "planner", "gate", "observation", "refused"]
    );
    assert_eq!(words(&lines[8]), ["inbound", "-", "planner", "gate", "observation", "refused"]);
    assert_eq!(words(&lines[11]), ["outbound", "planner", "-", "operator", "effect", "none"]);
    assert_eq!(json(&lines[10])["detail"]["by"], "eve");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!((&blocked["provenance"], &blocked["trace_id"]), (&"native".into(), &trace.into()));
    let accepted = json(&lines[14]);
    let evidence = ["inbound", "critic", "planner", "gate", "observation", "accepted"];
    assert_eq!(words(&lines[14]), evidence);
    assert_eq!(
        (&accepted["provenance"], &accepted["trace_id"]),
        (&"derived".into(), &trace.into())
    );
    let under =
        serde_json::json!({"allowed_use": ["evidence"], "scope": "planning", "verdict": "narrow"});
    assert_eq!(accepted["detail"], under);
    assert_eq!(json(&lines[6])["detail"], serde_json::json!({"verdict": "reject"}));
}

#[test]
fn r74_snapshots_that_leave_and_come_are_lines_with_provenance_and_trace() {
    let lines = lines(events());
    let words = |line: &[u8]| {
        let json = json(line);
        ["event", "direction", "source", "target", "scope", "effect", "evidence", "provenance"]
            .map(|key| json[key].as_str().unwrap_or("-").to_owned())
    };
    let taken =
        ["inbound_accepted", "inbound", "critic", "planner", "snapshot", "observation", "accepted"];
    assert_eq!(words(&lines[15])[..7], taken);
    assert_eq!(words(&lines[15])[7], "derived");
    let left = ["snapshot_stored", "outbound", "planner", "-", "snapshot", "effect", "none"];
    assert_eq!(words(&lines[16])[..7], left);
    assert_eq!(words(&lines[16])[7], "native");
    let refused =
        ["inbound_refused", "inbound", "critic", "planner", "snapshot", "observation", "refused"];
    assert_eq!(words(&lines[17])[..7], refused);
    let (left, refused) = (json(&lines[16]), json(&lines[17]));
    assert_eq!(left["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(left["cause"]["seq"], 9);
    assert_eq!(left["detail"], serde_json::json!({"digest": Digest::of(b"memory")}));
    assert_eq!(refused["detail"], serde_json::json!({"verdict": "quarantine"}));
    assert_eq!(refused["rule"], serde_json::json!(["unauthorised"]));
}

#[test]
fn each_line_holds_the_hash_of_the_line_before_and_the_first_holds_zeros() {
    let lines = lines(events());
    assert_eq!(json(&lines[0])["previous"], NOTHING_BEFORE);
    for pair in lines.windows(2) {
        assert_eq!(json(&pair[1])["previous"], Digest::of(&pair[0]).hex());
        assert_eq!(json(&pair[1])["chain"], json(&pair[0])["chain"]);
    }
    let summary = check(&lines).unwrap();
    assert_eq!((summary.lines, summary.first_seq, summary.last_seq), (19, 1, 19));
    assert_eq!((summary.starts, summary.crashes, summary.torn, summary.lost), (1, 0, 0, 17));
    assert_eq!((summary.first_time, summary.last_time), (at(0), at(18_000)));
    assert_eq!(summary.head, Link::read(&lines[18]).unwrap().digest);
}

#[test]
fn a_chain_is_taken_up_from_its_last_line() {
    let mut lines = lines(events());
    let mut chain = Chain::after(&Link::read(lines.last().unwrap()).unwrap());
    let event = Event::Started { version: "0.2.0", band: Band::Blocked, operator_hold: true };
    let again = Entry { time: at(0), runtime_id: id("planner"), event };
    lines.push(chain.append(&again));
    // Without a stop in between: a crash.
    lines.push(chain.append(&again));
    let summary = check(&lines).unwrap();
    assert_eq!((summary.last_seq, summary.starts, summary.crashes), (21, 3, 1));
}

#[test]
fn what_rotation_dropped_at_the_beginning_breaks_nothing() {
    let summary = check(&reloads(9)[4..]).unwrap();
    assert_eq!((summary.lines, summary.first_seq, summary.last_seq), (5, 5, 9));
}

#[test]
fn a_deleted_line_is_found_where_it_is_missing() {
    for gone in 1..8 {
        let mut lines = reloads(9);
        lines.remove(gone);
        let seq = u64::try_from(gone).unwrap() + 1;
        let why = Why::Missing { from: seq, to: seq };
        assert_eq!(check(&lines), Err(Broken { line: seq, why }));
    }
    let mut lines = reloads(9);
    lines.drain(2..6);
    assert_eq!(check(&lines), Err(Broken { line: 3, why: Why::Missing { from: 3, to: 6 } }));
}

#[test]
fn an_altered_line_is_named_and_not_its_neighbour() {
    for place in 0..8 {
        let mut lines = reloads(9);
        let text = String::from_utf8(lines[place].clone()).unwrap();
        lines[place] = text.replace("\"reloaded\"", "\"stopped!\"").into_bytes();
        let line = u64::try_from(place).unwrap() + 1;
        assert_eq!(check(&lines), Err(Broken { line, why: Why::Altered }), "{line}");
    }
}

#[test]
fn a_line_whose_own_link_was_altered_is_found() {
    let mut lines = reloads(9);
    let text = String::from_utf8(lines[4].clone()).unwrap();
    let previous = Link::read(&lines[4]).unwrap().previous;
    lines[4] = text.replace(&previous, &"7".repeat(64)).into_bytes();
    assert_eq!(check(&lines), Err(Broken { line: 5, why: Why::Unlinked }));
}

#[test]
fn lines_out_of_order_or_twice_are_found() {
    let mut lines = reloads(9);
    lines.swap(3, 4);
    assert_eq!(check(&lines), Err(Broken { line: 4, why: Why::Missing { from: 4, to: 4 } }));
    let mut lines = reloads(9);
    let again = lines[3].clone();
    lines.insert(4, again.clone());
    assert_eq!(check(&lines), Err(Broken { line: 5, why: Why::Repeated }));
    let mut lines = reloads(9);
    lines.push(again);
    assert_eq!(check(&lines), Err(Broken { line: 10, why: Why::OutOfOrder { seq: 4, last: 9 } }));
}

#[test]
fn a_line_that_is_not_as_it_was_written_is_found_even_if_it_means_the_same() {
    let mut lines = reloads(3);
    lines[1].insert(1, b' ');
    let why = Why::Unreadable("not in canonical form, so not as it was written");
    assert_eq!(check(&lines), Err(Broken { line: 2, why }));
    let mut lines = reloads(3);
    let half = lines[1].len() / 2;
    lines[1].truncate(half);
    assert_eq!(check(&lines), Err(Broken { line: 2, why: Why::Unreadable("not a JSON object") }));
}

#[test]
fn another_chain_in_the_place_of_this_one_is_found() {
    let mut other = Chain::new(&id("planner"), at(1));
    let entry = Entry { time: at(1), runtime_id: id("planner"), event: Event::Reloaded };
    let mut lines = reloads(3);
    lines.push(other.append(&entry));
    assert_eq!(check(&lines), Err(Broken { line: 4, why: Why::OtherChain }));
    assert_eq!(check(&[]), Err(Broken { line: 0, why: Why::Empty }));
}

#[test]
fn a_head_kept_elsewhere_finds_what_was_cut_off_the_end() {
    let lines = reloads(5);
    let head = Link::read(&lines[4]).unwrap().digest;
    let verify_with = |count: usize| {
        let mut verifier = Verifier::new(Some(head.clone()));
        lines.iter().take(count).try_for_each(|line| verifier.feed(line)).unwrap();
        verifier.finish()
    };
    assert!(verify_with(5).is_ok());
    assert!(check(&lines[..4]).is_ok(), "without a head nobody can know");
    assert_eq!(verify_with(4), Err(Broken { line: 4, why: Why::HeadMissing(head.clone()) }));
}

/// A chain with traces of a crash after `whole` lines, closed by its marker, and a line after that.
fn torn(whole: usize, traces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut lines = reloads(whole);
    let mut chain = Chain::after(&Link::read(lines.last().unwrap()).unwrap());
    let mut text = Vec::new();
    for piece in traces {
        lines.push(piece.to_vec());
        text.extend_from_slice(piece);
        text.push(b'\n');
    }
    let bytes = u64::try_from(text.len()).unwrap();
    let digest = Digest::of(&text).hex();
    for event in [Event::Torn { bytes, digest }, Event::Stopped] {
        lines.push(chain.append(&Entry { time: at(0), runtime_id: id("planner"), event }));
    }
    lines
}

#[test]
fn the_traces_of_a_crash_are_a_crash_and_no_forgery() {
    let next = reloads(4).remove(3);
    let traces: [&[&[u8]]; 4] =
        [&[b"{\"authority\":\"ga"], &[b""], &[&[0; 4096], b"\0{"], &[b"{", &next]];
    for traces in traces {
        let summary = check(&torn(3, traces)).unwrap();
        assert_eq!((summary.torn, summary.last_seq), (1, 5));
    }
}

#[test]
fn traces_that_are_not_those_the_marker_speaks_of_are_a_forgery() {
    let mut lines = torn(3, &[b"{\"authority\":\"ga"]);
    lines[3].push(b'x');
    assert_eq!(check(&lines).unwrap_err().line, 4);
    let mut lines = torn(3, &[b"{\"authority\":\"ga"]);
    lines.insert(4, b"more".to_vec());
    assert_eq!(check(&lines).unwrap_err().line, 4);
    // A marker in the place of a line that was taken out.
    let mut lines = torn(3, &[b"{\"authority\":\"ga"]);
    lines.remove(2);
    assert_eq!(check(&lines).unwrap_err().line, 3);
}

#[test]
fn a_remark_is_one_short_line_of_text() {
    assert!(Remark::new(&"x".repeat(256), REASON_BYTES_MAX).is_some());
    for text in ["", "two\nlines", "bell\u{7}", &"x".repeat(257)] {
        assert!(Remark::new(text, REASON_BYTES_MAX).is_none());
    }
}

/// What somebody with an editor does to a log.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Delete,
    Repeat,
    Swap,
    Flip(usize, u8),
    Cut(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        Just(Harm::Delete),
        Just(Harm::Repeat),
        Just(Harm::Swap),
        (0_usize..400, 1_u8..=255).prop_map(|(place, mask)| Harm::Flip(place, mask)),
        (0_usize..400).prop_map(Harm::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_harm_before_the_last_line_goes_unnoticed(
        count in 3_usize..12, place in 0_usize..12, harm in harm(),
    ) {
        let mut lines = reloads(count);
        // The first line may go by rotation, the last is pinned by a head only.
        let place = 1 + place % (count - 2);
        let line = &mut lines[place];
        match harm {
            Harm::Delete => drop(lines.remove(place)),
            Harm::Repeat => {
                let again = line.clone();
                lines.insert(place, again);
            }
            Harm::Swap => lines.swap(place - 1, place),
            Harm::Flip(byte, mask) => {
                let byte = byte % line.len();
                line[byte] ^= mask;
            }
            Harm::Cut(length) => line.truncate(length % line.len()),
        }
        prop_assert!(check(&lines).is_err(), "{harm:?} at {place}");
    }

    #[test]
    fn reading_never_panics_and_takes_only_what_was_written(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
    ) {
        prop_assert!(Link::read(&bytes).is_err());
        prop_assert!(verify([bytes.as_slice()]).is_err());
    }
}
