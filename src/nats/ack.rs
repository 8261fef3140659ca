//! What the broker says to a JetStream publish: stored, or why not.
//!
//! Only such an answer counts. No answer is no outcome; deadlines are the driver's.

use std::borrow::Cow;

use async_nats::{Message, StatusCode};

/// JetStream error "too many requests": the stream's ingest queue is full.
const ERR_TOO_MANY_REQUESTS: u32 = 10_167;
/// JetStream error "message size exceeds maximum allowed".
const ERR_MESSAGE_TOO_LARGE: u32 = 10_054;
/// JetStream errors "insufficient resources", of account, memory and storage; the store failed,
/// as with `discard = new` it does for a full stream; and the account's limits.
const ERR_FULL: [u32; 7] = [10_002, 10_023, 10_028, 10_047, 10_077, 10_120, 10_122];

/// A packet that is on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place on the stream.
    pub stream_seq: u64,
    /// The stream already held this message id. At the first try that is an alarm: somebody used
    /// our id.
    pub duplicate: bool,
}

/// Why a publish is not stored, as far as the broker or the client said; [`Self::reason`] sorts it
/// in one word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishFault {
    /// The broker is overloaded: slow down and try again.
    #[error("the stream takes no more for the moment: {0}")]
    Busy(String),
    /// Our side: the link's acknowledgement subscription is closed, so nothing was sent.
    #[error("not sent: the acknowledgement subscription is closed")]
    Deaf,
    /// The server does not permit the subject, in its words.
    #[error("the broker does not permit it: {0}")]
    Denied(String),
    /// The stream, the account or the broker's disk has no room, in the broker's words.
    #[error("the broker has no room ({err_code}): {description}")]
    Full {
        /// JetStream error number.
        err_code: u32,
        /// Description.
        description: String,
    },
    /// The answer cannot be read; the outcome is unknown.
    #[error("the broker's acknowledgement cannot be read")]
    Malformed,
    /// The stream is missing or has no leader.
    #[error("no stream answers on the subject")]
    NoResponders,
    /// The broker's own words: a limit, a setting.
    #[error("the broker refused ({err_code}): {description}")]
    Refused {
        /// HTTP-like class.
        code: u16,
        /// JetStream error number.
        err_code: u32,
        /// Description.
        description: String,
    },
    /// Larger than the server or the stream takes. Nothing was stored.
    #[error("the message is larger than the broker takes")]
    TooLarge,
    /// Our side: not a subject that can be published to; nothing was sent.
    #[error("not a subject to publish to")]
    Unpublishable,
    /// Stored, but on a stream that is not ours: the promise of `stream_out` is broken.
    #[error("stored on the stream {stream:?}, which is not the one configured")]
    WrongStream {
        /// The stream.
        stream: String,
        /// Its place there.
        stream_seq: u64,
    },
}

impl PublishFault {
    /// One word for a label: at most ten, fixed.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Busy(_) => "busy",
            Self::Deaf => "deaf",
            Self::Denied(_) => "denied",
            Self::Full { .. } => "full",
            Self::Malformed => "malformed",
            Self::NoResponders => "no_responders",
            Self::Refused { .. } => "refused",
            Self::TooLarge => "too_large",
            Self::Unpublishable => "unpublishable",
            Self::WrongStream { .. } => "wrong_stream",
        }
    }
}

/// What it says beside an error is read where it stands: there is one with each packet.
#[derive(serde::Deserialize)]
struct PubAck<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

/// The error object of every JetStream answer.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

/// Reads the answer to a publish that should end on `stream`.
pub(super) fn outcome(message: &Message, stream: &str) -> Result<Stored, PublishFault> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(PublishFault::NoResponders);
    }
    let answer: PubAck<'_> =
        serde_json::from_slice(&message.payload).map_err(|_| PublishFault::Malformed)?;
    if let Some(ApiError { code, err_code, description }) = answer.error {
        return Err(match (code, err_code) {
            (429, _) | (_, ERR_TOO_MANY_REQUESTS) => PublishFault::Busy(description),
            (_, ERR_MESSAGE_TOO_LARGE) => PublishFault::TooLarge,
            (_, err_code) if ERR_FULL.contains(&err_code) => {
                PublishFault::Full { err_code, description }
            }
            _ => PublishFault::Refused { code, err_code, description },
        });
    }
    match answer {
        PubAck { stream: named, seq, .. } if named != stream => Err(if named.is_empty() {
            PublishFault::Malformed
        } else {
            PublishFault::WrongStream { stream: named.into_owned(), stream_seq: seq }
        }),
        PubAck { seq: 0, .. } => Err(PublishFault::Malformed),
        PubAck { seq, duplicate, .. } => Ok(Stored { stream_seq: seq, duplicate }),
    }
}
