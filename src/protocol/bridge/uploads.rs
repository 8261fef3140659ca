//! Snapshots and the gate: they leave in band `open` only, and a closing waits for their connection
//! as it waits for its own (P1, P2, P5).
//!
//! What deliberately is not here: the snapshots themselves, and the connection they go out on.

use super::{Announcement, Band, Bridge, Effect, LINGER_MAX, Mode, Now, Reason};
use crate::protocol::digest::Digest;
use crate::protocol::gate::Verdict;
use crate::protocol::snapshot::Evidence;

/// What the uploader does, as far as a closing has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// It was not used since the last closing.
    Idle,
    /// It holds a connection, and nothing that may have to be revoked.
    Fetching,
    /// Something is accepted or under way.
    Running,
    /// It was told to stop and is not quiet yet.
    Stopping,
}

/// What an earlier life accepted while its gate was open. A start is no closing, so this is held,
/// and revoked only by evidence that the runtime is unstable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Earlier {
    /// The spool has not been read: what it may hold waits for that, and for an opening.
    Unread,
    /// The same, and it never leaves, whatever the gate does until the spool is read.
    Revoked,
    /// It is like everything else that was accepted.
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Uploads {
    state: State,
    /// Whether something accepted may be unsent.
    holds: bool,
    earlier: Earlier,
}

impl Uploads {
    pub(super) fn new() -> Self {
        Self { state: State::Idle, holds: false, earlier: Earlier::Unread }
    }

    pub(super) fn is_stopping(self) -> bool {
        self.state == State::Stopping
    }

    /// Whether the broker may have to read something of ours on that connection.
    pub(super) fn is_sending(self) -> bool {
        matches!(self.state, State::Running | State::Stopping)
    }
}

/// Whether a reason says that the runtime is unstable, rather than that too little is known. A hold
/// does, too, but it is no matter of one reason.
fn is_instability(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::DiBlock
            | Reason::DiIsolate
            | Reason::DiCritical
            | Reason::DiJump
            | Reason::Flapping
            | Reason::PsiLow
            | Reason::PsdHigh
            | Reason::ErHigh
            | Reason::PostureReflective
            | Reason::PostureRecenter
            | Reason::SdiCritical
            | Reason::SvCritical
            | Reason::PdCritical
            | Reason::ScrCritical
            | Reason::Collapse
    )
}

impl Bridge {
    /// Whether a snapshot may be accepted, or the next one uploaded, now.
    #[must_use]
    pub fn may_upload(&self) -> bool {
        self.identity.mode == Mode::Enforce
            && self.judge.gate().band() == Band::Open
            && !self.newest.withholds_memory
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

    /// Whether somebody may have what is uploaded, beside that it may leave: an authorised peer is
    /// in full mode. What was accepted waits until one is.
    #[must_use]
    pub fn may_share(&self, now: Now) -> bool {
        self.may_upload() && self.has_reader(now)
    }

    /// Grants that a snapshot is accepted now, under a sequence number from the same clock as those
    /// of packets; `None` while none may be.
    pub fn grant_push(&mut self, now: Now) -> Option<u64> {
        (self.may_upload() && !self.is_overdue(now)).then(|| {
            self.uploads.state = State::Running;
            self.uploads.holds = true;
            self.take_seq(now)
        })
    }

    /// Grants in the same way that the next one is uploaded now.
    pub fn grant_upload(&mut self, now: Now) -> Option<u64> {
        if self.has_reader(now) { self.grant_push(now) } else { None }
    }

    /// The report under which a snapshot leaves that is granted now.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence { drift_source: self.newest.source, trace: self.newest.trace.clone() }
    }

    /// Grants that a connection is opened in order to fetch a peer's snapshot.
    pub fn grant_fetch(&mut self, now: Now) -> Option<u64> {
        (self.may_fetch() && !self.is_overdue(now)).then(|| {
            if self.uploads.state == State::Idle {
                self.uploads.state = State::Fetching;
            }
            self.take_seq(now)
        })
    }

    /// What the spool of an earlier life holds: numbers from here on are above `newest`, and
    /// something may be waiting for the gate.
    #[must_use]
    pub fn recovered(&mut self, now: Now, newest: u64, is_waiting: bool) -> Vec<Effect> {
        self.seq = self.seq.max(newest);
        self.uploads.holds |= is_waiting;
        let earlier = core::mem::replace(&mut self.uploads.earlier, Earlier::Read);
        if earlier == Earlier::Revoked {
            self.revoke_uploads();
        } else if is_waiting && self.uploads.state == State::Idle {
            self.uploads.state = State::Running;
        }
        self.settle(now)
    }

    /// A snapshot is stored: packets from here on link to this digest, and its signed manifest is
    /// announced, if there is one and something may leave. Whoever misses the announcement finds
    /// the manifest at the broker.
    #[must_use]
    pub fn stored(
        &mut self,
        now: Now,
        digest: Digest,
        announcement: Option<Announcement>,
    ) -> Vec<Effect> {
        self.pass(now);
        self.snapshot_digest = Some(digest);
        if let Some(announcement) = announcement
            && self.may_send()
            && self.may_share(now)
        {
            self.outbox.stamp();
            self.effects.push(Effect::Announce(announcement));
        }
        self.settle(now)
    }

    /// The uploader has stopped: what is unsent is revoked for good, its connection is gone.
    /// `confirmed` says whether the broker has acknowledged or echoed all that was sent on it.
    #[must_use]
    pub fn uploads_quiet(&mut self, now: Now, confirmed: bool) -> Vec<Effect> {
        self.pass(now);
        if self.uploads.is_stopping() {
            self.uploads.state = State::Idle;
        }
        // Also where caution had it stop: that connection has ended like any other.
        if confirmed { self.settle(now) } else { self.uploads_unread(now) }
    }

    /// A connection of the uploader has ended, and the broker may still read what was sent on it.
    #[must_use]
    pub fn uploads_unread(&mut self, now: Now) -> Vec<Effect> {
        self.pass(now);
        self.uncertain_until = now.mono + LINGER_MAX;
        self.settle(now)
    }

    /// What a verdict means for snapshots: a closing and evidence of instability revoke them,
    /// caution holds them back.
    pub(super) fn judge_uploads(&mut self, verdict: &Verdict) {
        // To let go of a hold says nothing about the runtime; to hold it does.
        let is_unstable = self.judge.gate().operator_hold()
            || verdict.reasons.iter().any(|reason| is_instability(*reason));
        if !verdict.band.is_closed() {
            let is_held = verdict.band == Band::Caution && verdict.from == Band::Open;
            if is_held && self.uploads.state == State::Running {
                self.effects.push(Effect::StopUploads { revoke: false });
            }
        } else if !verdict.from.is_closed() || is_unstable {
            if self.uploads.earlier == Earlier::Unread {
                self.uploads.earlier = Earlier::Revoked;
            }
            self.revoke_uploads();
        }
    }

    /// Nothing that was accepted and is not sent will ever be sent (P5).
    fn revoke_uploads(&mut self) {
        if core::mem::take(&mut self.uploads.holds) {
            self.uploads.state = State::Stopping;
            self.effects.push(Effect::StopUploads { revoke: true });
        }
    }

    /// The runtime's memory has become too weak to be shared: what waits goes on waiting.
    pub(super) fn withhold_uploads(&mut self) {
        if self.uploads.state == State::Running {
            self.effects.push(Effect::StopUploads { revoke: false });
        }
    }

    /// Nobody may have a snapshot any more: what waits goes on waiting.
    pub(super) fn stop_unread_uploads(&mut self, now: Now) {
        if !self.has_reader(now) {
            self.withhold_uploads();
        }
    }

    /// Stops the uploader for a closing.
    pub(super) fn stop_uploads(&mut self) {
        if matches!(self.uploads.state, State::Fetching | State::Running) {
            self.uploads.state = State::Stopping;
            self.effects.push(Effect::StopUploads { revoke: false });
        }
    }

    /// The uploader was too slow.
    pub(super) fn sever_uploads(&mut self, now: Now) {
        self.uploads.state = State::Idle;
        self.uncertain_until = now.mono + LINGER_MAX;
        self.effects.push(Effect::SeverUploads);
    }
}
