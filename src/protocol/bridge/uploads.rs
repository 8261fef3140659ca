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

    /// Grants that a snapshot is accepted, or the next one uploaded, now, under a sequence number
    /// from the same clock as those of packets; `None` while none may be.
    pub fn grant_upload(&mut self, now: Now) -> Option<u64> {
        self.may_upload().then(|| {
            self.uploads = Uploads::Running;
            self.next_seq(now.wall)
        })
    }

    /// Grants that a connection is opened in order to fetch a peer's snapshot.
    pub fn grant_fetch(&mut self, now: Now) -> Option<u64> {
        self.may_fetch().then(|| {
            if self.uploads == Uploads::Idle {
                self.uploads = Uploads::Fetching;
            }
            self.next_seq(now.wall)
        })
    }

    /// What the spool of an earlier life holds: numbers from here on are above `newest`, and
    /// something may be waiting for the gate.
    pub fn recovered(&mut self, newest: u64, is_waiting: bool) {
        self.seq = self.seq.max(newest);
        if is_waiting && !self.uploads.is_stopping() {
            self.uploads = Uploads::Running;
        }
    }

    /// The uploader has stopped: what is unsent is revoked for good, its connection is gone.
    /// `confirmed` says whether the broker has acknowledged or echoed all that was sent on it.
    #[must_use]
    pub fn uploads_quiet(&mut self, now: Now, confirmed: bool) -> Vec<Effect> {
        if self.uploads.is_stopping() {
            self.uploads = Uploads::Idle;
            if !confirmed {
                self.uncertain_until = now.mono + LINGER_MAX;
            }
        }
        self.settle(now)
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
            let revoke_to = Some(self.next_seq(now.wall));
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
