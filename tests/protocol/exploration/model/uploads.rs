//! What leaves beside packets, on a connection of its own.

use driftgate::protocol::bridge::{Announcement, Effect, LINGER_MAX};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::gate::Band;

use super::super::events::Upload;
use super::{WIRE_MAX, World};

#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Uploads {
    /// Something was granted and may be on its way.
    pub(super) is_running: bool,
    /// It was told to stop, and something of it may be unread.
    pub(super) is_stopping: bool,
    /// For a closing or a revocation, not for caution.
    bars: bool,
    /// Whether the spool of the earlier life has been read.
    pub(super) is_recovered: bool,
    /// In this life something has said that the runtime is unstable, or has closed the gate: what
    /// an earlier one had accepted never leaves.
    pub(super) is_doomed: bool,
}

impl Uploads {
    pub(super) fn stopped(&mut self) {
        (self.is_stopping, self.is_running, self.bars) = (false, false, false);
    }
}

impl World {
    pub(super) fn stop_uploads(&mut self, revoke: bool) {
        self.demand(!revoke || self.uploads.is_doomed, "P8: revoked without a reason");
        self.uploads.is_stopping = true;
        self.uploads.bars |= revoke || self.is_closing;
    }

    pub(super) fn can_upload(&self, event: Upload) -> bool {
        match event {
            Upload::Push => !self.uploads.is_running,
            Upload::Stored => self.uploads.is_running && self.wire.len() < WIRE_MAX,
            Upload::Quiet | Upload::QuietUnconfirmed => self.uploads.is_stopping,
            Upload::Lost => self.uploads.is_running,
            Upload::Fetch => true,
            Upload::Recovered => !self.uploads.is_recovered,
        }
    }

    pub(super) fn upload(&mut self, event: Upload) {
        let may_start = !self.is_closing && !self.uploads.bars;
        match event {
            Upload::Push => {
                let is_open = self.band == Band::Open && may_start && !self.is_shadow();
                let is_granted = self.bridge.grant_push(self.now).is_some();
                self.demand(is_granted == is_open, "P1: a snapshot is accepted, or is not");
                self.uploads.is_running |= is_granted;
            }
            Upload::Fetch => {
                let may_fetch = self.band != Band::Isolated && may_start;
                let is_granted = self.bridge.grant_fetch(self.now).is_some();
                self.demand(is_granted == may_fetch, "P4: a snapshot is fetched, or is not");
            }
            Upload::Stored => self.perform(|bridge, now| {
                let manifest = bytes::Bytes::from_static(b"{}");
                let announced = Announcement { manifest, envelope: "".into() };
                bridge.stored(now, Digest::of(b""), Some(announced))
            }),
            Upload::Lost => {
                self.lingers_until = self.now.mono + LINGER_MAX;
                self.perform(|bridge, now| bridge.uploads_unread(now));
            }
            Upload::Recovered => self.recover(),
            Upload::Quiet | Upload::QuietUnconfirmed => {
                let is_confirmed = event == Upload::Quiet;
                self.uploads.stopped();
                if !is_confirmed {
                    self.lingers_until = self.now.mono + LINGER_MAX;
                }
                self.perform(|bridge, now| bridge.uploads_quiet(now, is_confirmed));
            }
        }
    }

    /// The spool comes up, and holds something (P5).
    fn recover(&mut self) {
        self.uploads.is_recovered = true;
        let must_revoke = self.uploads.is_doomed;
        let mut revokes = false;
        self.perform(|bridge, now| {
            let effects = bridge.recovered(now, 0, true);
            let revoking = |effect: &Effect| matches!(effect, Effect::StopUploads { revoke: true });
            revokes = effects.iter().any(revoking);
            effects
        });
        self.demand(revokes == must_revoke, "P5: what an earlier life accepted is revoked, or not");
    }
}
