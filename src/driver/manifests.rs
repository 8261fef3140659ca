//! Capability manifests at the broker: those of peers read, our own kept there.
//!
//! A look reads one entry after the other by direct get, at each connect and then every
//! [`LOOK_INTERVAL`], sooner while a peer has none: a fleet that starts together has found itself
//! within seconds. What deliberately is not here: whom to believe and what follows, which is the
//! bridge's.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::run::Driver;
use crate::nats::entries::{Entries, Entry};
use crate::nats::headers;
use crate::nats::link::Outgoing;
use crate::nats::object::StoreFault;
use crate::nats::subject::CAPABILITIES as BUCKET;
use crate::protocol::capabilities::Found;
use crate::protocol::exchange::ModeReason;
use crate::protocol::packet::RuntimeId;
use crate::telemetry::Condition;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Pause before the second look on a connection while a peer has no manifest; it doubles.
const LOOK_PAUSE_MIN: Duration = Duration::from_secs(1);

/// What one look has found.
#[derive(Debug)]
pub(super) struct Looked {
    differences: Vec<String>,
    own: Option<Entry>,
    peers: Vec<(RuntimeId, Option<Entry>)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Manifests {
    look: Option<JoinHandle<Result<Looked, StoreFault>>>,
    /// The number under which our own was published.
    pub(super) declared: Option<u64>,
    /// When the next look is due.
    due: Duration,
    pause: Duration,
}

impl Manifests {
    pub(super) fn new() -> Self {
        Self { look: None, declared: None, due: Duration::ZERO, pause: LOOK_PAUSE_MIN }
    }

    /// Nothing is read any more; the next connection looks at once.
    pub(super) fn stop(&mut self) {
        if let Some(look) = self.look.take() {
            look.abort();
        }
        *self = Self::new();
    }

    /// Something has changed: the next look is due now.
    pub(super) fn look_soon(&mut self) {
        self.due = Duration::ZERO;
    }

    /// Waits for the end of a look; for ever when there is none.
    ///
    /// # Cancel safety
    /// Safe: the look is a task of its own.
    pub(super) async fn looked(&mut self) -> Result<Looked, StoreFault> {
        let Some(look) = &mut self.look else { return std::future::pending().await };
        let looked = look.await;
        self.look = None;
        // It does not panic, and whoever aborts it forgets it.
        looked.unwrap_or_else(|error| Err(StoreFault::Lost(error.to_string())))
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        if let Some(look) = &self.look {
            look.abort();
        }
    }
}

fn found(entry: &Option<Entry>) -> Option<Found<'_>> {
    let entry = entry.as_ref()?;
    Some(Found { body: &entry.value, token: entry.token.as_deref() })
}

impl Driver {
    /// When the next look is due; never while it could not be made.
    pub(super) fn manifests_due(&self) -> Duration {
        let is_idle = self.manifests.look.is_none();
        let may = is_idle && self.connector.is_prepared() && self.bridge.may_declare();
        if may { self.manifests.due } else { Duration::MAX }
    }

    /// Begins a look, if one is due.
    pub(super) fn look_at_manifests(&mut self) {
        let now = self.clock.now();
        if self.manifests_due() > now.mono {
            return;
        }
        let Some((link, settings)) = self.connector.link_and_settings() else { return };
        let (entries, me) = (Entries::on(link, BUCKET), settings.runtime_id.clone());
        let peers: Vec<_> = self.bridge.exchanges(now).map(|(peer, _)| peer.clone()).collect();
        self.manifests.look = Some(tokio::spawn(async move {
            let differences = entries.ensure().await?;
            let own = entries.get(me.as_str()).await?;
            let mut looked = Looked { differences, own, peers: Vec::with_capacity(peers.len()) };
            for peer in peers {
                let entry = entries.get(peer.as_str()).await?;
                looked.peers.push((peer, entry));
            }
            Ok(looked)
        }));
    }

    /// Books what a look has found.
    pub(super) fn manifests_looked(&mut self, looked: Result<Looked, StoreFault>) {
        let now = self.clock.now();
        let looked = match looked {
            Ok(looked) => looked,
            Err(fault) => {
                // Nothing is known that was not before: every peer keeps its mode.
                self.conditions.begin(Condition::CapabilitiesUnread, fault.to_string());
                self.manifests.due = now.mono + LOOK_INTERVAL;
                return;
            }
        };
        self.conditions.set(Condition::CapabilitiesUnread, looked.differences);
        let own = found(&looked.own);
        match own.filter(|own| !self.bridge.is_own_manifest(*own)) {
            Some(_) => self.conditions.begin(
                Condition::CapabilitiesForeign,
                "what stood under our name is not signed with our key, and is written again",
            ),
            None => self.conditions.end(Condition::CapabilitiesForeign),
        }
        self.keeper.reserve(self.bridge.seq_next(now));
        self.effects.extend(self.bridge.declare(now, own));
        let before: Vec<_> = self.bridge.standings(now).map(|(_, standing)| standing).collect();
        for (peer, entry) in &looked.peers {
            self.effects.extend(self.bridge.peer_manifest(now, peer, found(entry)));
        }
        for (peer, number) in self.bridge.manifest_floors() {
            self.keeper.manifest(peer, number);
        }
        let mut waits = false;
        for ((peer, (mode, reason)), before) in self.bridge.standings(now).zip(before) {
            waits |= reason == ModeReason::NoManifest;
            if (mode, reason) != before {
                tracing::info!(%peer, mode = mode.word(), reason = reason.word(), "exchange mode");
            }
        }
        let pause = if waits { self.manifests.pause } else { LOOK_INTERVAL };
        self.manifests.pause = (pause * 2).min(LOOK_INTERVAL);
        self.manifests.due = now.mono + pause;
    }

    /// Carries out [`Effect::Declare`](crate::protocol::bridge::Effect::Declare). Should the broker
    /// not store it, the next look finds that.
    pub(super) fn declare(&mut self, number: u64, payload: Bytes, token: &str) {
        let Some((link, settings)) = self.connector.link_and_settings() else { return };
        self.keeper.doubt();
        let subject = format!("$KV.{BUCKET}.{}", settings.runtime_id).into();
        let headers = headers::signed(Some(token));
        self.manifests.declared = Some(number);
        if link.publish(number, Outgoing { subject, headers, payload }).is_err() {
            tracing::warn!("the capability manifest found the connection full");
        }
    }
}
