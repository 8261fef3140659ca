//! Presence as far as the driver does it: reads in tasks, writes on the link, what is said of it.

use tokio::sync::oneshot;

use super::run::Driver;
use crate::nats::ack::{PublishFault, Stored};
use crate::nats::link::Outgoing;
use crate::nats::presence::{self, STREAM};
use crate::protocol::audit::{Act, Way};
use crate::protocol::bridge::{Fence, PresenceEffect, Written};
use crate::protocol::gate::Band;
use crate::protocol::view::FleetView;
use crate::telemetry::Condition;

use super::connection::Read;
use super::{OperatorOrder, ReadFault};

/// Tokens from here up name writes of presence; the bridge numbers them with its packets.
pub(super) const PRESENCE_TOKENS: u64 = 1 << 62;

impl Driver {
    /// Does what the bridge asks for about presence.
    pub(super) fn presence(&mut self, effect: PresenceEffect) {
        match effect {
            PresenceEffect::ReadOwn => self.connector.read_own(),
            PresenceEffect::ReadPeers(peers) => self.connector.read_peers(peers),
            PresenceEffect::Write { token, bytes, expected, lasting } => {
                self.keeper.doubt();
                let expires = self.connector.presence_expires() && !lasting;
                let Some((link, settings)) = self.connector.link_and_settings() else {
                    return self.presence_written(token, Written::NotSent);
                };
                let outgoing = Outgoing {
                    subject: presence::subject(&settings.runtime_id),
                    headers: presence::write_headers(expected, expires),
                    payload: bytes,
                };
                if link.publish(PRESENCE_TOKENS + token, outgoing).is_err() {
                    self.presence_written(token, Written::NotSent);
                }
            }
            PresenceEffect::Hold => {
                let (answer, _) = oneshot::channel();
                self.operate(OperatorOrder::new(Act::Isolate, Way::Presence), answer);
            }
        }
    }

    fn presence_written(&mut self, token: u64, written: Written) {
        let now = self.clock.now();
        self.effects.extend(self.bridge.presence_written(now, token, written));
    }

    /// What the broker said to a write.
    pub(super) fn presence_answered(&mut self, token: u64, outcome: Result<Stored, PublishFault>) {
        let written = match outcome {
            // The link knows one stream as ours; the bucket is another.
            Err(PublishFault::WrongStream { stream, stream_seq }) if stream == STREAM => {
                self.conditions.end(Condition::PresenceUnwritten);
                Written::Stored(stream_seq)
            }
            Err(PublishFault::Refused { err_code, .. }) if presence::is_lost(err_code) => {
                Written::Lost
            }
            Ok(_) => Written::Refused,
            Err(fault) => {
                if fault == PublishFault::NoResponders {
                    self.connector.repair();
                }
                self.conditions.begin(Condition::PresenceUnwritten, fault.to_string());
                Written::Refused
            }
        };
        self.presence_written(token, written);
    }

    /// What a read has found.
    pub(super) fn presence_read(&mut self, read: Read) {
        let now = self.clock.now();
        match read {
            Read::Own(held) => self.effects.extend(self.bridge.presence_read(now, held)),
            Read::Peers(held) => self.bridge.peers_read(now, held),
            Read::Fleet(found, answer) => {
                let fleet = found.map(|found| self.bridge.fleet(now, found));
                drop(answer.send(fleet.ok_or(ReadFault::NoBroker)));
            }
        }
    }

    /// Reads who is there, as far as `all` or the configured peers go. What is cut off looks at
    /// nobody.
    pub(super) fn look_at_fleet(
        &mut self,
        all: bool,
        answer: oneshot::Sender<Result<FleetView, ReadFault>>,
    ) {
        if self.bridge.band() == Band::Isolated {
            return drop(answer.send(Err(ReadFault::Isolated)));
        }
        let owners = (!all).then(|| self.bridge.fleet_owners());
        self.connector.read_fleet(owners, answer);
    }

    /// Says whether another sidecar has our name, and whether our entry is ours.
    pub(super) fn show_presence(&self) {
        let twin = self.bridge.fenced_by().map(|fence| match fence {
            Fence::Twin => "another live sidecar holds the name of this runtime; this one waits",
            Fence::Replaced => "another sidecar has taken over the name of this runtime",
        });
        self.conditions.set(Condition::Twin, twin.map(str::to_owned).into_iter().collect());
        let foreign = self.bridge.presence_foreign();
        let text = foreign.map(|why| format!("the entry under our name is not ours: {why}"));
        self.conditions.set(Condition::PresenceForeign, text.into_iter().collect());
    }
}
