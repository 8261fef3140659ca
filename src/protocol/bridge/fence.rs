//! What may no longer leave for a reason that is no report: a twin, a peer that was removed.

use super::{Band, Bridge, Cause, Effect, Fence, Judgement, Now, RuntimeId, exchanges};

impl Bridge {
    /// Another sidecar with this runtime's id is seen, or is gone. Lifting a fence opens nothing:
    /// the next good report does.
    #[must_use]
    pub fn fence(&mut self, now: Now, fence: Option<Fence>) -> Vec<Effect> {
        self.pass(now);
        self.set_fence(now, fence);
        self.settle(now)
    }

    pub(super) fn set_fence(&mut self, now: Now, fence: Option<Fence>) {
        self.fence = fence;
        if let Some(fence) = fence
            && !self.band().is_closed()
        {
            let verdict = self.judge.tighten(Band::Blocked, fence.reason());
            self.enter(now, &verdict, Cause::default());
        }
    }

    /// A verdict that would leave the gate open, or open it, does not while fenced.
    pub(super) fn fence_off(&mut self, judgement: &mut Judgement) {
        let is_closed = judgement.verdict.band.is_closed();
        if let Some(fence) = self.fence.filter(|_| !is_closed) {
            self.is_fit();
            // A closed gate leaves its band to open only, and it does not open.
            let band = judgement.verdict.from.max(Band::Blocked);
            let verdict = self.judge.tighten(band, fence.reason());
            judgement.verdict.band = verdict.band;
            judgement.verdict.reasons = verdict.reasons;
            judgement.clearance = None;
        }
    }

    /// Revokes what waits and may no longer leave.
    pub(super) fn revoke_waiting(&mut self, now: Now) {
        let (live, exchanges) = (&self.live, &self.exchanges);
        let is_held = live.caution_blocks && self.judge.gate().band() == Band::Caution;
        let block = self.judge.policy().thresholds.block;
        let links =
            |target: &RuntimeId| live.peers.get(target).is_some_and(|peer| peer.export_snapshot);
        self.outbox.revoke_unless(|target, cleared, full| {
            !is_held
                && exchanges::may_reach(&live.peers, exchanges, now.wall, target)
                && cleared.is_under(block)
                && (!full || links(target))
        });
    }
}
