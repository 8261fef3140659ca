//! The headers of packets and of quarantined bytes, written and read.

use async_nats::{HeaderMap, HeaderName, HeaderValue};

use crate::protocol::digest::Digest;
use crate::protocol::drift::Provenance;
use crate::protocol::envelope::ENVELOPE_BYTES_MAX;
use crate::protocol::trace::TraceParent;

/// JetStream deduplication id: checksum, colon, seq.
const MESSAGE_ID: HeaderName = async_nats::header::NATS_MESSAGE_ID;
const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");
const LINK: HeaderName = HeaderName::from_static("Link");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const DRIFT_SOURCE: HeaderName = HeaderName::from_static("Driftgate-Drift-Source");
const EXCHANGE: HeaderName = HeaderName::from_static("Driftgate-Exchange");
const REASON: HeaderName = HeaderName::from_static("Driftgate-Reason");
const SUBJECT: HeaderName = HeaderName::from_static("Driftgate-Subject");
const TOKEN: HeaderName = HeaderName::from_static("Driftgate-Token");
/// The condition of a write: the newest sequence number of the subject.
pub(super) const EXPECTED_SUBJECT_SEQ: HeaderName =
    HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
/// After what a message expires, with its unit.
pub(super) const TTL: HeaderName = HeaderName::from_static("Nats-TTL");
/// Where a message stands that was read directly.
pub(super) const SEQUENCE: HeaderName = HeaderName::from_static("Nats-Sequence");
/// What makes a message of a KV bucket a marker: written by a client, or by the server.
pub(super) const KV_OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
pub(super) const MARKER_REASON: HeaderName = HeaderName::from_static("Nats-Marker-Reason");
const STREAM_SEQ: HeaderName = HeaderName::from_static("Driftgate-Stream-Seq");

/// Longest inbound header value that is handed over, in bytes: ours are far shorter, and a longer
/// one is treated as absent.
pub const HEADER_BYTES_MAX: usize = 256;

/// What the headers of one packet are made of.
#[derive(Clone, Copy, Debug)]
pub struct PacketHeaders<'a> {
    /// The packet's checksum.
    pub checksum: Digest,
    /// The `seq` of the integrity token.
    pub seq: u64,
    /// IRI of the JSON-LD context.
    pub context: &'a str,
    /// W3C trace context of the report, when the runtime sent one.
    pub traceparent: Option<&'a TraceParent>,
    /// Where the drift metrics came from.
    pub drift_source: Provenance,
    /// The exchange envelope.
    pub envelope: &'a str,
}

impl PacketHeaders<'_> {
    /// The headers to publish with.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        add(&mut headers, MESSAGE_ID, &format!("{}:{}", self.checksum, self.seq));
        headers.insert(CONTENT_TYPE, "application/ld+json");
        let link = format!("<{}>; rel=\"http://www.w3.org/ns/json-ld#context\"", self.context);
        add(&mut headers, LINK, &link);
        if let Some(traceparent) = self.traceparent {
            add(&mut headers, TRACEPARENT, traceparent.as_str());
        }
        add(&mut headers, DRIFT_SOURCE, self.drift_source.word());
        add(&mut headers, EXCHANGE, self.envelope);
        headers
    }
}

/// The headers of quarantined bytes: why they were refused, and where they came from.
#[must_use]
pub fn quarantine(reason: &str, subject: &str, stream_seq: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    add(&mut headers, REASON, reason);
    add(&mut headers, SUBJECT, subject);
    add(&mut headers, STREAM_SEQ, &stream_seq.to_string());
    headers
}

/// The header of a body that is signed from outside; none where there is no token.
#[must_use]
pub fn signed(token: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        add(&mut headers, TOKEN, token);
    }
    headers
}

/// The header of a document that travels in an exchange envelope; none where there is none.
#[must_use]
pub fn enclosed(envelope: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(envelope) = envelope {
        add(&mut headers, EXCHANGE, envelope);
    }
    headers
}

/// The token of a body that is signed from outside, as it came.
#[must_use]
pub fn token(headers: Option<&HeaderMap>) -> Option<String> {
    let value = headers?.get(TOKEN)?.as_str();
    (value.len() <= HEADER_BYTES_MAX).then(|| value.to_owned())
}

/// The exchange envelope as it came: several with commas between them, and one that is too long
/// cut behind its bound, so that neither is taken for none.
#[must_use]
pub fn envelope(headers: Option<&HeaderMap>) -> Option<String> {
    let mut values = headers?.get_all(EXCHANGE);
    let mut text = values.next()?.as_str().to_owned();
    for more in values {
        text.push(',');
        text.push_str(more.as_str());
    }
    let mut end = text.len().min(ENVELOPE_BYTES_MAX + 1);
    while !text.is_char_boundary(end) {
        end += 1;
    }
    text.truncate(end);
    Some(text)
}

fn add(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = text.parse::<HeaderValue>() {
        headers.insert(name, value);
    }
}

/// The headers of an inbound packet that anyone reads. Unproven: whoever published wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboundHeaders {
    /// `Nats-Msg-Id`.
    pub message_id: Option<String>,
    /// `traceparent`, if well formed.
    pub traceparent: Option<TraceParent>,
    /// `Driftgate-Drift-Source`.
    pub drift_source: Option<String>,
    /// `Driftgate-Exchange`; see [`envelope`].
    pub envelope: Option<String>,
}

impl InboundHeaders {
    /// Reads what is known; everything else is left behind.
    #[must_use]
    pub fn of(headers: Option<&HeaderMap>) -> Self {
        let text = |name: HeaderName| {
            let value = headers?.get(name)?.as_str();
            (value.len() <= HEADER_BYTES_MAX).then(|| value.to_owned())
        };
        Self {
            message_id: text(MESSAGE_ID),
            traceparent: text(TRACEPARENT).and_then(|text| TraceParent::parse(&text)),
            drift_source: text(DRIFT_SOURCE),
            envelope: envelope(headers),
        }
    }
}
