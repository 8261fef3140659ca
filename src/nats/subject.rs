//! Subjects: built from parts that are valid by type, and read back into them.
//!
//! Only a [`RuntimeId`] or an [`AssetName`] becomes part of a subject, so no wildcard, dot or
//! space can enter one. What a packet on a subject means is not decided here.

use core::fmt;

use async_nats::Subject;

use crate::protocol::packet::RuntimeId;

/// Longest prefix, in bytes: leaves room for two ids in what every server accepts as a subject.
pub const PREFIX_BYTES_MAX: usize = 128;
/// Longest stream or consumer name, in bytes: what the server recommends is 32, and a consumer
/// name holds a runtime id of 64.
pub const ASSET_NAME_BYTES_MAX: usize = 128;

/// Whether `text` is one or more dot-separated tokens of `[A-Za-z0-9_-]`.
fn is_token_path(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    text.split('.').all(|token| !token.is_empty() && token.bytes().all(allowed))
}

/// The name of a stream or consumer: `[A-Za-z0-9_-]`, 1 to [`ASSET_NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetName(String);

impl AssetName {
    /// `None` when `text` is no such name.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= ASSET_NAME_BYTES_MAX && !text.contains('.') && is_token_path(text))
            .then(|| Self(text.to_owned()))
    }

    /// `DRIFTGATE_STATE`, the stream of packets.
    #[must_use]
    pub fn of_state() -> Self {
        Self("DRIFTGATE_STATE".to_owned())
    }

    /// `DRIFTGATE_QUARANTINE`, the stream of refused inbound bytes.
    #[must_use]
    pub fn of_quarantine() -> Self {
        Self("DRIFTGATE_QUARANTINE".to_owned())
    }

    /// The durable consumer of one runtime: `driftgate-{id}`.
    #[must_use]
    pub fn consumer_of(runtime: &RuntimeId) -> Self {
        Self(format!("driftgate-{runtime}"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AssetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What all our subjects begin with, `driftgate.v1` by default: tokens of `[A-Za-z0-9_-]`, at most
/// [`PREFIX_BYTES_MAX`] bytes. Also the form of an inbox prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// `None` when `text` is no such prefix.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= PREFIX_BYTES_MAX && is_token_path(text)).then(|| Self(text.to_owned()))
    }

    /// `driftgate.v1`, the default.
    #[must_use]
    pub fn of_version_1() -> Self {
        Self("driftgate.v1".to_owned())
    }

    /// The prefix of our replies: `_INBOX.{id}`, so that a server can grant each runtime its own.
    #[must_use]
    pub fn inbox_of(runtime: &RuntimeId) -> Self {
        Self(format!("_INBOX.{runtime}"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a packet of `source` for `target` is stored.
    #[must_use]
    pub fn state(&self, source: &RuntimeId, target: &RuntimeId) -> Subject {
        Subject::from(format!("{}.state.{source}.{target}", self.0))
    }

    /// Where `source` announces its gate transitions.
    #[must_use]
    pub fn containment(&self, source: &RuntimeId) -> Subject {
        Subject::from(format!("{}.containment.{source}", self.0))
    }

    /// Every notice of a gate transition.
    #[must_use]
    pub fn every_containment(&self) -> String {
        format!("{}.containment.*", self.0)
    }

    /// Where inbound bytes that `target` refused are kept.
    #[must_use]
    pub fn quarantine(&self, target: &RuntimeId) -> Subject {
        Subject::from(format!("{}.quarantine.{target}", self.0))
    }

    /// Where `source` sends its phase telemetry.
    #[must_use]
    pub fn telemetry(&self, source: &RuntimeId) -> Subject {
        Subject::from(format!("{}.telemetry.{source}", self.0))
    }

    /// The phase telemetry of all.
    #[must_use]
    pub fn every_telemetry(&self) -> String {
        format!("{}.telemetry.*", self.0)
    }

    /// Where `source` announces its snapshot manifests.
    #[must_use]
    pub fn snapshot(&self, source: &RuntimeId) -> Subject {
        Subject::from(format!("{}.snapshot.{source}", self.0))
    }

    /// Where `target` answers handshakes.
    #[must_use]
    pub fn handshake(&self, target: &RuntimeId) -> Subject {
        Subject::from(format!("{}.handshake.{target}", self.0))
    }

    /// Where an endpoint of `owner`'s micro service is asked; `*` for all of them.
    #[must_use]
    pub fn service(&self, owner: &RuntimeId, endpoint: &str) -> Subject {
        Subject::from(format!("{}.service.{owner}.{endpoint}", self.0))
    }

    /// Every packet: the subject of the stream `DRIFTGATE_STATE`.
    #[must_use]
    pub fn every_state(&self) -> String {
        format!("{}.state.*.*", self.0)
    }

    /// Every packet for `target`: the filter of its consumer.
    #[must_use]
    pub fn every_state_for(&self, target: &RuntimeId) -> String {
        format!("{}.state.*.{target}", self.0)
    }

    /// All refused bytes: the subject of the stream `DRIFTGATE_QUARANTINE`.
    #[must_use]
    pub fn every_quarantine(&self) -> String {
        format!("{}.quarantine.*", self.0)
    }

    /// Reads one of our subjects; `None` for any other.
    ///
    /// ```
    /// use driftgate::nats::subject::{Address, Prefix};
    /// let prefix = Prefix::new("driftgate.v1").expect("two tokens");
    /// let address = prefix.parse("driftgate.v1.state.planner.critic");
    /// assert!(matches!(address, Some(Address::State { .. })));
    /// assert_eq!(prefix.parse("driftgate.v1.state.planner.*"), None);
    /// ```
    #[must_use]
    pub fn parse(&self, subject: &str) -> Option<Address> {
        let rest = subject.strip_prefix(self.as_str())?.strip_prefix('.')?;
        let mut tokens = rest.split('.');
        let (kind, first, second) = (tokens.next()?, tokens.next()?, tokens.next());
        if tokens.next().is_some() {
            return None;
        }
        let id = RuntimeId::new(first)?;
        match (kind, second) {
            ("state", Some(second)) => {
                Some(Address::State { source: id, target: RuntimeId::new(second)? })
            }
            ("containment", None) => Some(Address::Containment { source: id }),
            ("handshake", None) => Some(Address::Handshake { target: id }),
            ("quarantine", None) => Some(Address::Quarantine { target: id }),
            ("snapshot", None) => Some(Address::Snapshot { source: id }),
            ("telemetry", None) => Some(Address::Telemetry { source: id }),
            _ => None,
        }
    }
}

/// One of our subjects, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `{p}.containment.{source}`.
    Containment {
        /// Who announces.
        source: RuntimeId,
    },
    /// `{p}.handshake.{target}`.
    Handshake {
        /// Who is asked.
        target: RuntimeId,
    },
    /// `{p}.quarantine.{target}`.
    Quarantine {
        /// Who refused.
        target: RuntimeId,
    },
    /// `{p}.snapshot.{source}`.
    Snapshot {
        /// Who announces.
        source: RuntimeId,
    },
    /// `{p}.state.{source}.{target}`.
    State {
        /// Who publishes, by the subject; the packet's header must say the same.
        source: RuntimeId,
        /// Who it is for, by the subject; the packet's header must say the same.
        target: RuntimeId,
    },
    /// `{p}.telemetry.{source}`.
    Telemetry {
        /// Whose phase it is.
        source: RuntimeId,
    },
}
