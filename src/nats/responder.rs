//! What others ask of us on core NATS: handshakes, and the micro service (NATS ADR-32).
//!
//! - **The cut (P4).** Each [`ServiceSubject`] is a subscription in the connection's table, so a
//!   cut removes it with all others, and what had come through it and is not answered yet is
//!   forgotten.
//! - **Replies.** Whoever asks chooses the reply subject, and the answer is published with our
//!   rights, not with his. So an answer goes only to an inbox, [`is_inbox`].
//! - **Floods.** A door is opened for [`QUESTIONS_MAX`] questions, after which the server itself
//!   closes it, and opened again after a pause. So nobody fills our memory by asking, or makes us
//!   a slow consumer; and at most [`ANSWERS_MAX`] answers leave in a second.
//!
//! What deliberately is not here: what a question means, and the answer to it. async-nats's own
//! `service` is not used: it answers any reply subject, and no cut could remove it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use strum::VariantArray as _;
use tokio::time::Instant;

use super::settings::Settings;

/// Questions that one door takes before it is closed for a second.
pub const QUESTIONS_MAX: u64 = 64;
/// Answers within a second, through all doors together.
pub const ANSWERS_MAX: usize = 20;
/// The second of both.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest question, in bytes: a signed handshake takes some 600.
pub const QUESTION_BYTES_MAX: usize = 4 * 1024;
/// Longest reply subject, in bytes: a prefix of 128, two ids of 22, and room.
pub const REPLY_BYTES_MAX: usize = 256;
/// Where every answer goes.
const INBOX: &str = "_INBOX.";
/// What the service is called.
pub const SERVICE: &str = "driftgate";

/// A subscription that questions come in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray)]
pub enum ServiceSubject {
    /// A peer's handshake: `{p}.handshake.{me}`.
    Handshake,
    /// To every service: `$SRV.PING` and the like.
    Everyone,
    /// To every sidecar: `$SRV.PING.driftgate`.
    Fleet,
    /// To this one: `$SRV.PING.driftgate.{instance}`.
    Instance,
    /// The service's endpoints: `{p}.service.{me}.safety` and the like.
    Endpoints,
}

impl ServiceSubject {
    pub(super) fn subject(self, settings: &Settings, instance: &str) -> String {
        let me = &settings.runtime_id;
        match self {
            Self::Handshake => settings.broker.prefix.handshake(me).into_string(),
            Self::Everyone => "$SRV.*".to_owned(),
            Self::Fleet => format!("$SRV.*.{SERVICE}"),
            Self::Instance => format!("$SRV.*.{SERVICE}.{instance}"),
            Self::Endpoints => settings.broker.prefix.service(me, "*").into_string(),
        }
    }

    /// What is asked by a message that came in here.
    fn asked(self, subject: &str) -> Option<Asked> {
        let mut tokens = subject.split('.');
        match self {
            Self::Handshake => Some(Asked::Handshake),
            Self::Everyone | Self::Fleet | Self::Instance => match tokens.nth(1)? {
                "INFO" => Some(Asked::Info),
                "PING" => Some(Asked::Ping),
                "STATS" => Some(Asked::Stats),
                _ => None,
            },
            Self::Endpoints => {
                let name = tokens.next_back()?;
                let endpoint = Endpoint::VARIANTS.iter().find(|one| one.word() == name)?;
                Some(Asked::Endpoint(*endpoint))
            }
        }
    }
}

/// One of the service's endpoints.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray, strum::IntoStaticStr,
)]
#[strum(serialize_all = "lowercase")]
pub enum Endpoint {
    /// Every peer, with its exchange mode.
    Peers,
    /// Thresholds, band and reasons.
    Safety,
    /// The index of our own snapshots.
    Snapshots,
}

impl Endpoint {
    /// Its name, and the last token of its subject.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An endpoint of the service.
    Endpoint(Endpoint),
    /// A handshake.
    Handshake,
    /// What the service is and has.
    Info,
    /// Who is there.
    Ping,
    /// What it has done.
    Stats,
}

/// A question that may be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What.
    pub asked: Asked,
    /// Where [`Link::respond`](super::link::Link::respond) sends the answer.
    pub reply: Subject,
    /// At most [`QUESTION_BYTES_MAX`].
    pub payload: Bytes,
}

/// Why a question gets no answer. Each is a label of `driftgate_questions_dropped_total`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, thiserror::Error,
)]
#[strum(serialize_all = "snake_case")]
pub enum Dropped {
    /// The gate is isolated or about to be, or nothing is exported at all.
    #[error("nothing is answered now")]
    Closed,
    /// The connection takes nothing.
    #[error("the connection takes no answer")]
    Connection,
    /// More than [`ANSWERS_MAX`] answers in a second.
    #[error("too many answers in a second")]
    Rate,
    /// Its reply subject is missing or no inbox.
    #[error("the reply subject is no inbox")]
    Reply,
    /// A handshake that does not verify, or whose time has not come.
    #[error("the handshake is refused")]
    Refused,
    /// Longer than [`QUESTION_BYTES_MAX`].
    #[error("the question is too long")]
    TooLong,
    /// Nothing that is answered here.
    #[error("an unknown question")]
    Unknown,
}

impl Dropped {
    /// The label.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Whether an answer may go there: an inbox, and no wildcard, space or empty token in it.
///
/// ```
/// use driftgate::nats::responder::is_inbox;
/// assert!(is_inbox("_INBOX.planner.Zk3.1"));
/// assert!(!is_inbox("$JS.API.STREAM.DELETE.KV_driftgate-presence"));
/// assert!(!is_inbox("_INBOX.>"));
/// ```
#[must_use]
pub fn is_inbox(reply: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    reply.len() <= REPLY_BYTES_MAX
        && reply.strip_prefix(INBOX).is_some_and(|rest| {
            rest.split('.').all(|token| !token.is_empty() && token.bytes().all(allowed))
        })
}

/// The subscriptions for questions of one connection.
#[derive(Debug, Default)]
pub(super) struct Responder {
    /// The micro service's id.
    instance: String,
    /// Doors that the server has closed, and when they are opened again.
    spent: BTreeMap<ServiceSubject, Instant>,
    /// When the newest answers left.
    answered: VecDeque<Instant>,
}

impl Responder {
    /// Names the instance, and says what to subscribe to for one; `None` while it pauses.
    pub(super) fn open(
        &mut self,
        service: ServiceSubject,
        settings: &Settings,
        instance: &str,
    ) -> Option<String> {
        instance.clone_into(&mut self.instance);
        (!self.spent.contains_key(&service)).then(|| service.subject(settings, instance))
    }

    /// The server has closed one.
    pub(super) fn spent(&mut self, service: ServiceSubject) {
        self.spent.insert(service, Instant::now() + PAUSE);
    }

    /// When the next door is to be opened again.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.spent.values().min().copied()
    }

    /// The doors whose pause is over, with their subjects.
    pub(super) fn woke(
        &mut self,
        now: Instant,
        settings: &Settings,
    ) -> Vec<(ServiceSubject, String)> {
        let is_due = |(_, at): &(&ServiceSubject, &Instant)| **at <= now;
        let due: Vec<ServiceSubject> =
            self.spent.iter().filter(is_due).map(|(service, _)| *service).collect();
        self.spent.retain(|service, _| !due.contains(service));
        due.into_iter()
            .map(|service| (service, service.subject(settings, &self.instance)))
            .collect()
    }

    /// Cut: no door opens by itself.
    pub(super) fn close(&mut self) {
        self.spent.clear();
    }

    /// Reads what came in through a door.
    pub(super) fn read(service: ServiceSubject, message: &Message) -> Result<Question, Dropped> {
        let reply = message.reply.clone().filter(|reply| is_inbox(reply)).ok_or(Dropped::Reply)?;
        let asked = service.asked(&message.subject).ok_or(Dropped::Unknown)?;
        if message.payload.len() > QUESTION_BYTES_MAX {
            return Err(Dropped::TooLong);
        }
        // A copy, because the slice would keep the connection's whole read buffer alive.
        Ok(Question { asked, reply, payload: Bytes::copy_from_slice(&message.payload) })
    }

    /// Whether one more answer may leave now.
    pub(super) fn admit(&mut self) -> Result<(), Dropped> {
        let now = Instant::now();
        if self.answered.len() >= ANSWERS_MAX {
            if self.answered.front().is_some_and(|oldest| now < *oldest + PAUSE) {
                return Err(Dropped::Rate);
            }
            self.answered.pop_front();
        }
        self.answered.push_back(now);
        Ok(())
    }
}
