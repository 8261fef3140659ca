//! The pure parts of `nats`: subjects, names, addresses and headers.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use async_nats::HeaderMap;
use driftgate::config::names::ServerUrl;
use driftgate::nats::headers::{InboundHeaders, PacketHeaders};
use driftgate::nats::subject::{Address, AssetName, Prefix};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::envelope::ENVELOPE_BYTES_MAX;
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::trace::TraceParent;

fn id(text: &str) -> RuntimeId {
    RuntimeId::new(text).unwrap()
}

#[test]
fn every_subject_reads_back_as_what_it_was_built_from() {
    let prefix = Prefix::new("a-b.v1").unwrap();
    let (source, target) = (id("planner"), id("critic"));
    for (subject, address) in [
        (
            prefix.state(&source, &target),
            Address::State { source: source.clone(), target: target.clone() },
        ),
        (prefix.containment(&source), Address::Containment { source: source.clone() }),
        (prefix.telemetry(&source), Address::Telemetry { source: source.clone() }),
        (prefix.snapshot(&source), Address::Snapshot { source }),
        (prefix.handshake(&target), Address::Handshake { target: target.clone() }),
        (prefix.quarantine(&target), Address::Quarantine { target }),
    ] {
        assert!(subject.is_valid());
        assert_eq!(prefix.parse(&subject), Some(address), "{subject}");
    }
}

#[test]
fn what_is_not_one_of_our_subjects_is_nothing() {
    let prefix = Prefix::new("driftgate.v1").unwrap();
    for subject in [
        "",
        "driftgate.v1",
        "driftgate.v1.state",
        "driftgate.v1.state.planner",
        "driftgate.v1.state.planner.critic.more",
        "driftgate.v1.state.planner.",
        "driftgate.v1.state..critic",
        "driftgate.v1.state.*.critic",
        "driftgate.v1.telemetry.>",
        "driftgate.v1.telemetry.planner.more",
        "driftgate.v1.other.planner",
        "driftgate.v10.telemetry.planner",
        "driftgate.v1telemetry.planner",
    ] {
        assert_eq!(prefix.parse(subject), None, "{subject}");
    }
}

#[test]
fn only_plain_tokens_make_a_prefix_or_a_name() {
    for text in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\n", "$JS.API", "ä"] {
        assert_eq!(Prefix::new(text), None, "{text:?}");
    }
    for text in ["", "a.b", "a b", "*", ">", "a/b", "a\\b", &"x".repeat(129)] {
        assert_eq!(AssetName::new(text), None, "{text:?}");
    }
    assert_eq!(AssetName::consumer_of(&id("planner")).as_str(), "driftgate-planner");
}

#[test]
fn an_address_names_a_server_and_holds_no_secret() {
    for text in [
        "",
        "nats://",
        "http://host:1",
        "ws://host:1",
        "nats://host:1/path",
        "nats://h:x",
        "nats://user@host:1",
        "nats://user:word@host:1",
        "nats://:word@host:1",
    ] {
        assert_eq!(ServerUrl::new(text), None, "{text:?}");
    }
    for (text, shown) in [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("tls://broker.example", "tls://broker.example:4222"),
        ("nats://[::1]:4333", "nats://[::1]:4333"),
    ] {
        assert_eq!(ServerUrl::new(text).unwrap().to_string(), shown);
    }
}

#[test]
fn a_packet_carries_its_six_headers() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let parsed = TraceParent::parse(trace).unwrap();
    let message_id = format!("{}:7", Digest::of(b"abc"));
    let mut packet = PacketHeaders {
        checksum: Digest::of(b"abc"),
        seq: 7,
        context: "https://example.org/context",
        traceparent: Some(&parsed),
        drift_source: Provenance::Native,
        envelope: "e30",
    };
    let headers = packet.to_headers();
    for (name, expected) in [
        ("Nats-Msg-Id", message_id.as_str()),
        ("Content-Type", "application/ld+json"),
        ("Link", "<https://example.org/context>; rel=\"http://www.w3.org/ns/json-ld#context\""),
        ("traceparent", trace),
        ("Driftgate-Drift-Source", "native"),
        ("Driftgate-Exchange", "e30"),
    ] {
        assert_eq!(headers.get(name).map(|value| value.as_str()), Some(expected), "{name}");
    }
    assert_eq!(headers.len(), 6);
    let read = InboundHeaders::of(Some(&headers));
    assert_eq!(read.message_id.as_deref(), Some(message_id.as_str()));
    assert_eq!(read.traceparent.as_ref(), Some(&parsed));
    packet.traceparent = None;
    assert_eq!(packet.to_headers().len(), 5);
}

/// What is handed on is refused by whoever reads it: it is no base64url, or longer than one may be.
#[test]
fn an_envelope_that_is_doubled_or_too_long_is_not_taken_for_none() {
    let read = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| headers.append("Driftgate-Exchange", *value));
        InboundHeaders::of(Some(&headers)).envelope
    };
    assert_eq!(read(&[]), None);
    assert_eq!(read(&["e30"]).as_deref(), Some("e30"));
    assert_eq!(read(&["e30", "e30"]).as_deref(), Some("e30,e30"));
    let long = read(&[&"A".repeat(1 << 20)]).expect("it is there");
    assert_eq!(long.len(), ENVELOPE_BYTES_MAX + 1);
    let odd = read(&[&"é".repeat(ENVELOPE_BYTES_MAX)]).expect("it is there");
    assert!(odd.len() > ENVELOPE_BYTES_MAX && odd.len() < ENVELOPE_BYTES_MAX + 5);
}

#[test]
fn what_is_no_trace_context_counts_as_absent() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for broken in [
        "",
        "00-short",
        "00-x\r\nEvil: yes",
        &trace.to_uppercase(),
        &format!("{trace}-1"),
        &trace.replacen("00", "01", 1),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ] {
        assert_eq!(TraceParent::parse(broken), None, "{broken:?}");
    }
}
