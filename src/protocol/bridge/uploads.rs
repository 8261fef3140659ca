//! Snapshots and the gate: they leave in band `open` only, and a closing waits for their connection
//! as it waits for its own (P1, P2, P5).
//!
//! What deliberately is not here: the snapshots themselves, and the connection they go out on.

use super::{Band, Bridge, Effect, LINGER_MAX, Now};
use crate::protocol::gate::Verdict;

/// Whether the uploader has to be asked at a closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uploads {
    /// It was not used since the last closing.
    Idle,
    /// It holds a connection, and nothing that may have to be revoked.
    Fetching,
    /// Something is accepted or under way.
    Running,
    /// It was told to stop and is not quiet yet.
    Stopping,
}

impl Uploads {
    pub(super) fn is_stopping(self) -> bool {
        self == Self::Stopping
    }
}

impl Bridge {
    /// Whether a snapshot may be accepted, or the next one uploaded, now.
    #[must_use]
    pub fn may_upload(&self) -> bool {
        self.judge.gate().band() == Band::Open
            && self.closing.is_none()
            && !self.uploads.is_stopping()
    }

    /// Whether snapshots of peers may be fetched now: an isolated bridge asks the broker for
    /// nothing.
    #[must_use]
    pub fn may_fetch(&self) -> bool {
        self.judge.gate().band() != Band::Isolated
            && self.closing.is_none()
            && !self.uploads.is_stopping()
    }

    /// A sequence number for a snapshot, from the same clock as those of packets.
    pub fn snapshot_seq(&mut self, now: Now) -> u64 {
        self.next_seq(now.wall)
    }

    /// Numbers from here on are above `seq`, which an earlier life has used.
    pub fn raise_seq(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    /// A snapshot is about to be accepted or uploaded, or one of an earlier life is waiting.
    pub fn uploads_started(&mut self) {
        if !self.uploads.is_stopping() {
            self.uploads = Uploads::Running;
        }
    }

    /// A connection is about to be opened in order to fetch.
    pub fn fetch_started(&mut self) {
        if self.uploads == Uploads::Idle {
            self.uploads = Uploads::Fetching;
        }
    }

    /// The uploader has stopped: what is unsent is revoked for good, its connection is gone.
    /// `confirmed` says whether the broker has acknowledged or echoed all that was sent on it.
    pub fn uploads_quiet(&mut self, now: Now, confirmed: bool) {
        if self.uploads.is_stopping() {
            self.uploads = Uploads::Idle;
            if !confirmed {
                self.uncertain_until = now.mono + LINGER_MAX;
            }
        }
        self.settle(now);
    }

    /// The digest of the newest stored snapshot, for the packets from here on.
    pub fn set_snapshot(&mut self, digest: Option<String>) {
        self.snapshot_digest = digest;
    }

    /// What a verdict means for snapshots where it starts no closing: caution holds them back, and
    /// a closed verdict after a restart revokes what an earlier life had accepted.
    pub(super) fn hold_uploads(&mut self, now: Now, verdict: &Verdict) {
        if self.uploads != Uploads::Running {
            return;
        }
        if verdict.band == Band::Caution && verdict.from == Band::Open {
            self.effects.push(Effect::StopUploads { revoke_to: None });
        } else if verdict.band.is_closed() && verdict.band == verdict.from {
            self.stop_uploads(now);
        }
    }

    /// Stops the uploader for a closing.
    pub(super) fn stop_uploads(&mut self, now: Now) {
        if matches!(self.uploads, Uploads::Fetching | Uploads::Running) {
            self.uploads = Uploads::Stopping;
            let revoke_to = Some(self.snapshot_seq(now));
            self.effects.push(Effect::StopUploads { revoke_to });
        }
    }

    /// The uploader was too slow.
    pub(super) fn sever_uploads(&mut self, now: Now) {
        self.uploads = Uploads::Idle;
        self.uncertain_until = now.mono + LINGER_MAX;
        self.effects.push(Effect::SeverUploads);
    }
}
