//! Why the store did not do what it was asked, from what the broker and the connection say.

use crate::nats::ack::PublishFault;
use crate::nats::requests::RequestFault;
use crate::nats::session::{ConnectFault, clipped};

/// JetStream errors "insufficient resources", of account, memory and storage.
const ERR_RESOURCES: [u32; 4] = [10_002, 10_023, 10_028, 10_047];

/// Why the store did not do what it was asked. Nothing is half done from outside: an object is
/// there with all its bytes or not at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The bucket is not there, and we may not create it (`nats.provision`).
    #[error("there is no bucket {0}")]
    Absent(String),
    /// Our caller's: a label that cannot be stored.
    #[error("not an object that can be stored: {0}")]
    BadLabel(&'static str),
    /// The broker is overloaded: slow down and try again.
    #[error("the bucket takes no more for the moment: {0}")]
    Busy(String),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectFault),
    /// The bytes in the bucket are not those that were described.
    #[error("the object {name:?} is damaged: {reason}")]
    Corrupt {
        /// The object.
        name: String,
        /// What does not match.
        reason: String,
    },
    /// The server's permissions do not allow it, in its words.
    #[error("the broker does not permit {call}: {words}")]
    Denied {
        /// What.
        call: String,
        /// The server's words.
        words: String,
    },
    /// The bucket, or the broker's disk, has no room.
    #[error("the bucket is full: {0}")]
    Full(String),
    /// Somebody else was at it, or the broker gave the reading up. Try again.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// The connection is over; the outcome of what was under way is unknown. Open another store.
    #[error("the connection to the bucket is over: {0}")]
    Lost(String),
    /// Something in the bucket, or an answer, that cannot be read.
    #[error("cannot be read: {0}")]
    Malformed(String),
    /// The name is taken by other bytes.
    #[error("the object {0:?} exists with other bytes")]
    NameTaken(String),
    /// The server or the account has no JetStream.
    #[error("the broker has no JetStream for us")]
    NoJetStream,
    /// No such object, or it was deleted.
    #[error("there is no object {0:?}")]
    NotFound(String),
    /// The broker refuses, in its words.
    #[error("the broker refused {call} ({err_code}): {description}")]
    Refused {
        /// The call.
        call: String,
        /// JetStream error number.
        err_code: u32,
        /// Description.
        description: String,
    },
    /// The store was quiesced: it sends nothing more.
    #[error("nothing more is sent: the gate has closed")]
    Revoked,
    /// Nothing moves, though the connection stands. The outcome of what was under way is unknown.
    #[error("the broker stalls: {0}")]
    Stalled(String),
    /// Our caller's: what is to be stored cannot be read.
    #[error("what is to be stored cannot be read: {0}")]
    Unreadable(String),
    /// More bytes than the caller wants.
    #[error("the object {name:?} has {size} bytes, more than {bytes_max}")]
    TooLarge {
        /// The object.
        name: String,
        /// What it claims, in bytes.
        size: u64,
        /// What was allowed.
        bytes_max: u64,
    },
}

impl StoreFault {
    /// Whether the same call may succeed later, on a new connection, with nothing changed by
    /// anybody but the broker's state.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Busy(_)
            | Self::Full(_)
            | Self::Interrupted(_)
            | Self::Lost(_)
            | Self::NoJetStream
            | Self::Stalled(_) => true,
            Self::Connect(fault) => match fault {
                ConnectFault::Starved(_)
                | ConnectFault::TimedOut
                | ConnectFault::Unreachable(_) => true,
                ConnectFault::Denied(_) | ConnectFault::Secret(_) | ConnectFault::Tls(_) => false,
            },
            Self::Absent(_)
            | Self::BadLabel(_)
            | Self::Corrupt { .. }
            | Self::Denied { .. }
            | Self::Malformed(_)
            | Self::NameTaken(_)
            | Self::NotFound(_)
            | Self::Refused { .. }
            | Self::Revoked
            | Self::TooLarge { .. }
            | Self::Unreadable(_) => false,
        }
    }
}

impl From<RequestFault> for StoreFault {
    fn from(fault: RequestFault) -> Self {
        match fault {
            RequestFault::Denied { call, words } => Self::Denied { call, words },
            RequestFault::Lost(reason) => Self::Lost(reason),
            RequestFault::Malformed(what) => Self::Malformed(what),
            RequestFault::NoJetStream => Self::NoJetStream,
            RequestFault::Refused { err_code, description, .. }
                if ERR_RESOURCES.contains(&err_code) =>
            {
                Self::Full(description)
            }
            RequestFault::Refused { call, err_code, description } => {
                Self::Refused { call, err_code, description }
            }
            RequestFault::Revoked => Self::Revoked,
            RequestFault::Stalled(what) => Self::Stalled(what),
        }
    }
}

impl From<PublishFault> for StoreFault {
    fn from(fault: PublishFault) -> Self {
        match fault {
            PublishFault::Busy(words) => Self::Busy(clipped(&words)),
            PublishFault::NoResponders => Self::NoJetStream,
            PublishFault::Full { description, .. } => Self::Full(clipped(&description)),
            PublishFault::Denied(words) => Self::Denied { call: "to store".to_owned(), words },
            PublishFault::Refused { err_code, description, .. } => Self::Refused {
                call: "to store".to_owned(),
                err_code,
                description: clipped(&description),
            },
            PublishFault::Deaf
            | PublishFault::Malformed
            | PublishFault::TooLarge
            | PublishFault::Unpublishable
            | PublishFault::WrongStream { .. } => Self::Malformed(fault.to_string()),
        }
    }
}
