//! Subjects: built from parts that are valid by type, and read back into them.
//!
//! Only a [`RuntimeId`] or an [`AssetName`] becomes part of a subject, so no wildcard, dot or
//! space can enter one. What a packet on a subject means is not decided here.

use async_nats::Subject;

pub use crate::config::names::{AssetName, Prefix};
use crate::protocol::packet::RuntimeId;

/// The bucket of keys that says who is there.
pub const PRESENCE: &str = "driftgate-presence";
/// The bucket of keys that says what each runtime can do.
pub const CAPABILITIES: &str = "driftgate-capabilities";
/// The bucket of keys with the signed manifest of each snapshot.
pub const MANIFESTS: &str = "driftgate-manifests";
/// The object bucket of the snapshots' bytes.
pub const SNAPSHOTS: &str = "driftgate-snapshots";

impl Prefix {
    /// Where a packet of `source` for `target` is stored.
    #[must_use]
    pub fn state(&self, source: &RuntimeId, target: &RuntimeId) -> Subject {
        Subject::from(format!("{}.state.{source}.{target}", self.as_str()))
    }

    /// Where `source` announces its gate transitions.
    #[must_use]
    pub fn containment(&self, source: &RuntimeId) -> Subject {
        Subject::from(format!("{}.containment.{source}", self.as_str()))
    }

    /// Every notice of a gate transition.
    #[must_use]
    pub fn every_containment(&self) -> String {
        format!("{}.containment.*", self.as_str())
    }

    /// Where inbound bytes that `target` refused are kept.
    #[must_use]
    pub fn quarantine(&self, target: &RuntimeId) -> Subject {
        Subject::from(format!("{}.quarantine.{target}", self.as_str()))
    }

    /// Where `source` sends its phase telemetry.
    #[must_use]
    pub fn telemetry(&self, source: &RuntimeId) -> Subject {
        Subject::from(format!("{}.telemetry.{source}", self.as_str()))
    }

    /// The phase telemetry of all.
    #[must_use]
    pub fn every_telemetry(&self) -> String {
        format!("{}.telemetry.*", self.as_str())
    }

    /// Where `source` announces its snapshot manifests.
    #[must_use]
    pub fn snapshot(&self, source: &RuntimeId) -> Subject {
        Subject::from(format!("{}.snapshot.{source}", self.as_str()))
    }

    /// Where `target` answers handshakes.
    #[must_use]
    pub fn handshake(&self, target: &RuntimeId) -> Subject {
        Subject::from(format!("{}.handshake.{target}", self.as_str()))
    }

    /// Where an endpoint of `owner`'s micro service is asked; `*` for all of them.
    #[must_use]
    pub fn service(&self, owner: &RuntimeId, endpoint: &str) -> Subject {
        Subject::from(format!("{}.service.{owner}.{endpoint}", self.as_str()))
    }

    /// Every packet: the subject of the stream `DRIFTGATE_STATE`.
    #[must_use]
    pub fn every_state(&self) -> String {
        format!("{}.state.*.*", self.as_str())
    }

    /// Every packet for `target`: the filter of its consumer.
    #[must_use]
    pub fn every_state_for(&self, target: &RuntimeId) -> String {
        format!("{}.state.*.{target}", self.as_str())
    }

    /// All refused bytes: the subject of the stream `DRIFTGATE_QUARANTINE`.
    #[must_use]
    pub fn every_quarantine(&self) -> String {
        format!("{}.quarantine.*", self.as_str())
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

/// Whether every subject that `wanted` matches is matched by `pattern`, both with wildcards.
#[must_use]
pub fn covers(pattern: &str, wanted: &str) -> bool {
    let mut wanted_tokens = wanted.split('.');
    for token in pattern.split('.') {
        match (token, wanted_tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(wanted)) if wanted != ">" => {}
            (token, Some(wanted)) if token == wanted => {}
            (_, Some(_) | None) => return false,
        }
    }
    wanted_tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::covers;

    fn check(pattern: &str, wanted: &str, expected: bool) {
        assert_eq!(covers(pattern, wanted), expected, "{pattern} {wanted}");
    }

    #[test]
    fn a_pattern_covers_what_it_matches_and_nothing_else() {
        check("p.state.*.*", "p.state.*.*", true);
        check("p.>", "p.state.*.*", true);
        check(">", "p.state.*.*", true);
        check("*.*.*.*", "p.state.*.*", true);
        check("p.state.*.me", "p.state.*.*", false);
        check("p.state.*", "p.state.*.*", false);
        check("p.state.*.*.*", "p.state.*.*", false);
        check("p.state.*.*", "p.state.>", false);
        check("q.>", "p.state.*.*", false);
    }
}
