//! What goes into a link and comes out of it, as values.

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;

use super::ack::{PublishFault, Stored};
use super::headers;
use super::inbound::InboundMessage;
use super::pull::PullFault;
use super::responder::{Dropped, Question};

/// What happened on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The broker's answer to the [`Link::publish`](super::link::Link::publish) of that token. At
    /// most one per publish; an answer that never comes is the driver's deadline.
    Ack {
        /// The driver's token.
        token: u64,
        /// Stored, or why not.
        outcome: Result<Stored, PublishFault>,
    },
    /// What came back to the [`Link::ask`](super::link::Link::ask) of that id: `None` when nobody
    /// is there who could answer. At most one for each.
    Answered {
        /// The driver's number.
        id: u64,
        /// The answer, unproven.
        answer: Option<Bytes>,
    },
    /// Somebody asks, or has asked what is not answered.
    Asked(Result<Question, Dropped>),
    /// The link is over and its socket closed. Always the last event, unless the driver does not
    /// read; the receiver then ends without it.
    Closed(String),
    /// The server has handled everything called before the
    /// [`Link::confirm`](super::link::Link::confirm) of that id.
    Confirmed(u64),
    /// A pulled message.
    Inbound(InboundMessage),
    /// The server is about to shut down: use the time to connect elsewhere.
    LameDuck,
    /// Somebody says where a gate stands. Nothing in it is proved.
    Notice(Told),
    /// Pulling has stopped, its subscription is gone;
    /// [`Link::start_pull`](super::link::Link::start_pull) begins anew.
    PullFault(PullFault),
    /// A peer tells of its phase. Nothing in it is proved.
    Telemetry(Told),
    /// The server complained, for instance about a permission. The link goes on.
    ServerFault(String),
}

/// A core message of a peer about itself, before anyone believes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The last token of its subject: who is said to speak.
    pub source: String,
    /// Header `Driftgate-Token`.
    pub token: Option<String>,
    /// The bytes.
    pub body: Bytes,
}

impl Told {
    pub(super) fn of(message: &Message) -> Self {
        Self {
            source: message.subject.rsplit('.').next().unwrap_or_default().to_owned(),
            token: headers::token(message.headers.as_ref()),
            body: message.payload.clone(),
        }
    }
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub subject: Subject,
    /// Headers; may be empty.
    pub headers: HeaderMap,
    /// The bytes. Together with the headers at most
    /// [`Link::max_payload`](super::link::Link::max_payload).
    pub payload: Bytes,
}
