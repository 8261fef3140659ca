//! What a changed configuration does to a running sidecar: all of it, or nothing but what removes
//! and tightens.

use core::fmt;
use std::collections::BTreeSet;

use super::Config;
use super::key::{Effect, Section};
use super::settings::Peer;

/// One key that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; for one peer `peers.critic`, for one key `integrity.keys.k1`.
    pub key: String,
    /// When it takes effect.
    pub effect: Effect,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.key, self.effect.word())
    }
}

/// What becomes of a reload.
#[derive(Clone, Debug)]
pub enum Reload {
    /// The new configuration takes the place of the old one.
    Taken(Box<Config>),
    /// It cannot, for these keys take a restart.
    Refused {
        /// Their names.
        keys: Vec<String>,
        /// The old configuration without the peers and keys that the new one removes, and with what
        /// it tightens.
        tightened: Box<Config>,
    },
}

impl Config {
    /// Every key in which `new` differs from `old`, in the order of the sections. Values are not in
    /// the result, so it may be logged.
    #[must_use]
    pub fn difference(old: &Self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        sections(old, new, &mut changes);
        let live = |key| Change { key, effect: Effect::Live };
        let peers: BTreeSet<_> = old.peers.keys().chain(new.peers.keys()).collect();
        let peers = peers.into_iter().filter(|id| old.peers.get(id) != new.peers.get(id));
        changes.extend(peers.map(|id| live(format!("peers.{id}"))));
        let keys: BTreeSet<_> = old.keys.keys().chain(new.keys.keys()).collect();
        let keys = keys.into_iter().filter(|id| old.keys.get(*id) != new.keys.get(*id));
        changes.extend(keys.map(|id| live(format!("integrity.keys.{id}"))));
        changes
    }

    /// What `new` does to this configuration in a running sidecar.
    #[must_use]
    pub fn reload(&self, new: Self) -> Reload {
        let mut changes = Self::difference(self, &new);
        changes.retain(|change| change.effect == Effect::Restart);
        if changes.is_empty() {
            return Reload::Taken(Box::new(new));
        }
        let keys = changes.into_iter().map(|change| change.key).collect();
        Reload::Refused { keys, tightened: Box::new(self.tightened(&new)) }
    }

    /// Of each live key the stricter value of the two, of peers and keys what both have.
    fn tightened(&self, new: &Self) -> Self {
        let mut both = self.clone();
        both.containment.tighten(&new.containment);
        both.flapping.tighten(&new.flapping);
        both.peers.retain(|id, peer| new.peers.get(id).is_some_and(|new| peer.tighten_to(new)));
        both.keys.retain(|id, key| new.keys.get(id) == Some(key));
        // A signer that is gone is not replaced by one that the old configuration does not name.
        let signer = Some(&both.integrity.sign_with).filter(|id| both.keys.contains_key(*id));
        if let Ok(keyring) = both.ring(signer.map(String::as_str)) {
            both.keyring = keyring;
        }
        both
    }
}

impl PartialEq for Config {
    /// The rows decide.
    fn eq(&self, other: &Self) -> bool {
        Self::difference(self, other).is_empty()
    }
}

impl Peer {
    /// Takes away what `new` does not grant; whether anything is left to say.
    fn tighten_to(&mut self, new: &Self) -> bool {
        self.export = self.export.and(new.export);
        self.import = self.import.and(new.import);
        self.expires = match (self.expires, new.expires) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (one, None) | (None, one) => one,
        };
        if new.accept < self.accept {
            self.accept = new.accept;
        }
        self.allowed_use.retain(|allowed| new.allowed_use.contains(allowed));
        // Pinned to two different keys, it can sign with neither; so with scopes and uses.
        tighten_to(&mut self.key_id, &new.key_id)
            && tighten_to(&mut self.scope, &new.scope)
            && !self.allowed_use.is_empty()
    }
}

/// What has to be so where either says it; whether it can be.
fn tighten_to(old: &mut Option<String>, new: &Option<String>) -> bool {
    let can_be = new.is_none() || old.is_none() || old == new;
    if old.is_none() {
        old.clone_from(new);
    }
    can_be
}

fn sections(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    fn section<S: Section>(old: &S, new: &S, changes: &mut Vec<Change>) {
        old.compare(new, &mut |key, effect| {
            changes.push(Change { key: format!("{}.{key}", S::PATH), effect });
        });
    }
    section(&old.runtime, &new.runtime, changes);
    section(&old.nats, &new.nats, changes);
    section(&old.tls, &new.tls, changes);
    section(&old.listen, &new.listen, changes);
    section(&old.console, &new.console, changes);
    section(&old.ingest, &new.ingest, changes);
    section(&old.tail, &new.tail, changes);
    section(&old.containment, &new.containment, changes);
    section(&old.flapping, &new.flapping, changes);
    section(&old.integrity, &new.integrity, changes);
    section(&old.snapshot, &new.snapshot, changes);
    section(&old.deliver, &new.deliver, changes);
    section(&old.audit, &new.audit, changes);
    section(&old.log, &new.log, changes);
}
