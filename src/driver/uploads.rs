//! The driver's side of the snapshots' room: permissions, orders to stop, the digest in packets.
//!
//! What deliberately is not here: any decision, which is the bridge's, and any waiting: an order is
//! a value in a watch channel, and whether it was carried out comes back as a question does.

use crate::nats::HeaderMap;
use crate::nats::link::Outgoing;
use crate::snapshots::gate::{Ask, DriverEnd, Grant, Order};

use super::run::Driver;

/// See the module's documentation. Without a room nothing ever asks, and there is nothing to stop.
#[derive(Debug)]
pub(super) struct Uploads(Option<DriverEnd>);

impl Uploads {
    pub(super) fn new(end: Option<DriverEnd>) -> Self {
        Self(end)
    }

    /// The next question. Pending for ever once the room is gone.
    ///
    /// # Cancel safety
    /// Safe: questions stay in their channel.
    pub(super) async fn ask(&mut self) -> Ask {
        if let Some(end) = &mut self.0
            && let Some(ask) = end.asks.recv().await
        {
            return ask;
        }
        self.0 = None;
        std::future::pending().await
    }

    /// A question that is there already.
    pub(super) fn try_ask(&mut self) -> Option<Ask> {
        self.0.as_mut()?.asks.try_recv().ok()
    }

    /// Orders to stop. `false` when nobody is there who could.
    fn stop(&self, revoke: bool) -> bool {
        let Some(end) = self.0.as_ref().filter(|end| !end.orders.is_closed()) else { return false };
        end.orders.send_modify(|order| {
            order.number += 1;
            (order.is_open, order.is_shared) = (false, false);
            order.revocations += u64::from(revoke);
        });
        true
    }

    /// The time of every order so far is over.
    fn sever(&self) {
        if let Some(end) = &self.0 {
            end.orders.send_modify(|order| order.sever = order.number);
        }
    }

    /// How many orders have revoked.
    fn revocations(&self) -> u64 {
        self.0.as_ref().map_or(0, |end| end.orders.borrow().revocations)
    }

    /// Whether the newest order has this number.
    fn is_newest(&self, number: u64) -> bool {
        self.0.as_ref().is_some_and(|end| end.orders.borrow().number == number)
    }

    fn show(&self, is_open: bool, is_shared: bool, is_isolated: bool) {
        if let Some(end) = &self.0 {
            end.orders.send_if_modified(|order| {
                let next = Order { is_open, is_shared, is_isolated, ..*order };
                let changed = *order != next;
                *order = next;
                changed
            });
        }
    }
}

impl Driver {
    /// Answers one question of the room.
    pub(super) fn upload(&mut self, ask: Ask) {
        let now = self.clock.now();
        self.keeper.reserve(self.bridge.seq_next(now));
        let revocations = self.uploads.revocations();
        let grant = |_| Grant { now: now.wall, revocations };
        match ask {
            // Whoever asked may have given up.
            Ask::Accept(answer) => {
                let _ = answer.send(self.bridge.grant_push(now).map(grant));
            }
            Ask::Upload(answer) => {
                let granted = self.bridge.grant_upload(now).map(grant);
                if granted.is_some() {
                    self.keeper.doubt();
                }
                let _ = answer.send(granted);
            }
            Ask::Fetch(answer) => {
                let _ = answer.send(self.bridge.grant_fetch(now).map(grant));
            }
            Ask::Recovered { is_waiting } => {
                self.effects.extend(self.bridge.recovered(now, 0, is_waiting));
            }
            Ask::Quiet { number, confirmed } => {
                // An older order's answer says nothing about what was granted since, but the doubt
                // of the connection that it ended stays.
                if self.uploads.is_newest(number) {
                    self.effects.extend(self.bridge.uploads_quiet(now, confirmed));
                } else if !confirmed {
                    self.effects.extend(self.bridge.uploads_unread(now));
                }
            }
            Ask::Stored { digest, manifest } => {
                let manifest = Some(manifest).filter(|manifest| !manifest.is_empty());
                self.effects.extend(self.bridge.stored(now, digest, manifest));
            }
        }
    }

    /// Carries out [`Effect::Announce`](crate::protocol::bridge::Effect::Announce), on
    /// `{p}.snapshot.{source}`.
    pub(super) fn announce(&mut self, manifest: bytes::Bytes) {
        let Some((link, settings)) = self.connector.link_and_settings() else { return };
        self.keeper.doubt();
        let subject = settings.prefix.snapshot(&settings.runtime_id);
        let announcement = Outgoing { subject, headers: HeaderMap::new(), payload: manifest };
        if link.notify(announcement).is_err() {
            tracing::warn!("a snapshot manifest found the connection full");
        }
    }

    /// Carries out [`Effect::StopUploads`](crate::protocol::bridge::Effect::StopUploads).
    pub(super) fn stop_uploads(&mut self, revoke: bool) {
        if !self.uploads.stop(revoke) {
            // A room that has ended has dropped its connection unconfirmed.
            self.effects.extend(self.bridge.uploads_quiet(self.clock.now(), false));
        }
    }

    /// Carries out [`Effect::SeverUploads`](crate::protocol::bridge::Effect::SeverUploads).
    pub(super) fn sever_uploads(&self) {
        tracing::warn!("the snapshot upload did not become quiet in time; dropping its connection");
        self.uploads.sever();
    }

    /// Tells the room where the gate stands.
    pub(super) fn show_uploads(&self) {
        let is_isolated = self.bridge.band() == crate::protocol::gate::Band::Isolated;
        let is_shared = self.bridge.may_share(self.clock.now());
        self.uploads.show(self.bridge.may_upload(), is_shared, is_isolated);
    }
}
