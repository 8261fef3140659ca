//! A message that was pulled from the inbound stream, before anyone believes it.

use async_nats::{Message, Subject};
use bytes::Bytes;

use super::headers::InboundHeaders;
use super::subject::AssetName;

/// What a JetStream reply subject begins with.
const ACK_PREFIX: &str = "$JS.ACK.";
/// Longest inbound payload that is handed over whole, in bytes. Larger than any packet, so that a
/// cut one is still refused for its size; small, because a peer chooses the bytes and a queue
/// holds many.
pub const INBOUND_BYTES_MAX: usize = 64 * 1024;

/// A pulled message. Nothing in it is proven; `reply` alone is checked to be an acknowledgement
/// subject of our consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundMessage {
    /// The subject it was published on.
    pub subject: Subject,
    /// Known headers.
    pub headers: InboundHeaders,
    /// The bytes, a copy of their own, cut at [`INBOUND_BYTES_MAX`].
    pub payload: Bytes,
    /// Whether the payload was cut.
    pub is_cut: bool,
    /// Where [`Link::ack`](super::link::Link::ack) and its kin answer.
    pub reply: String,
    /// What the broker says about this delivery.
    pub delivery: Delivery,
}

/// What the broker says about one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// 1 for the first delivery.
    pub attempt: u64,
    /// Place on the stream.
    pub stream_seq: u64,
    /// How many messages wait behind it.
    pub pending: u64,
}

impl InboundMessage {
    /// `None` unless the reply subject is one of `consumer` on `stream`: anything else was put on
    /// our inbox by somebody else, and answering it would publish wherever they please.
    pub(super) fn of(message: Message, stream: &AssetName, consumer: &AssetName) -> Option<Self> {
        let reply = message.reply?;
        let delivery = Delivery::parse(&reply, stream, consumer)?;
        let is_cut = message.payload.len() > INBOUND_BYTES_MAX;
        let kept = message.payload.get(..INBOUND_BYTES_MAX).unwrap_or(&message.payload);
        Some(Self {
            subject: message.subject,
            headers: InboundHeaders::of(message.headers.as_ref()),
            // A copy, because the slice would keep the connection's whole read buffer alive.
            payload: Bytes::copy_from_slice(kept),
            is_cut,
            reply: reply.into_string(),
            delivery,
        })
    }
}

impl Delivery {
    /// Reads both forms: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.`
    /// `<time>.<pending>`, and the newer one with `<domain>.<account hash>` in front and perhaps
    /// a token at the end.
    fn parse(reply: &str, stream: &AssetName, consumer: &AssetName) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix(ACK_PREFIX)?.split('.').collect();
        let fields = match tokens.len() {
            7 => tokens.get(..)?,
            9 | 10 => tokens.get(2..9)?,
            _ => return None,
        };
        let [named_stream, named_consumer, attempt, stream_seq, _, _, pending] = fields else {
            return None;
        };
        if *named_stream != stream.as_str() || *named_consumer != consumer.as_str() {
            return None;
        }
        Some(Self {
            attempt: attempt.parse().ok()?,
            stream_seq: stream_seq.parse().ok()?,
            pending: pending.parse().ok()?,
        })
    }
}

/// Whether a text can be the reply subject of a pulled message.
pub(super) fn is_ack_subject(reply: &str) -> bool {
    reply.starts_with(ACK_PREFIX) && !reply.contains(char::is_whitespace)
}
