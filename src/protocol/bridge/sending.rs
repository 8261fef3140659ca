//! From a lane to the wire: when a packet may go, and how it is made when its turn has come.

use super::{
    Band, Bridge, Cause, Connection, Effect, Event, Header, Live, Mode, Now, Origin,
    PROTOCOL_VERSION, Reason, RuntimeId, exchanges,
};
use crate::protocol::envelope::{self, Draft, EXCHANGE_MAX};
use crate::protocol::exchange::Artifact;
use crate::protocol::outbox::{Cleared, Unmade};
use crate::protocol::seal::{Sealed, Step};

impl Bridge {
    pub(super) fn may_send(&self) -> bool {
        self.identity.mode == Mode::Enforce
            && self.connection >= Connection::Acks
            && self.closing.is_none()
            && !self.judge.gate().band().is_closed()
            && self.is_name_known()
    }

    /// Hands out what may go now. `false` when that closed the gate, which has to be seen to first.
    pub(super) fn send(&mut self, now: Now) -> bool {
        while self.may_send() {
            let (live, exchanges) = (&self.live, &self.exchanges);
            let may_reach =
                |target: &RuntimeId| exchanges::may_reach(&live.peers, exchanges, now.wall, target);
            // The mark of now, if it is the stricter one.
            let block = self.judge.policy().thresholds.block;
            let source = &self.identity.runtime_id;
            let seal = |target: &RuntimeId, cleared: &Cleared, full| {
                seal((live, block), [source, target], cleared, full)
            };
            match self.outbox.next(now.mono, may_reach, seal) {
                None => return true,
                Some(Ok((token, packet, origin))) => {
                    self.effects.push(Effect::Publish { token, packet, origin });
                }
                Some(Err(unmade)) => {
                    self.fail_inspection(now, unmade);
                    return false;
                }
            }
        }
        true
    }

    /// Makes what waits under the settings of now, before they change.
    pub(super) fn seal_waiting(&mut self) {
        let (live, source) = (&self.live, &self.identity.runtime_id);
        let block = self.judge.policy().thresholds.block;
        self.outbox.seal_waiting(|target, cleared, full| {
            seal((live, block), [source, target], cleared, full)
        });
    }

    /// What of the inspection can be told before a packet is made.
    pub(super) fn inspect(
        &self,
        cleared: &Cleared,
        full: bool,
        target: &RuntimeId,
    ) -> Result<(), Step> {
        let payload = cleared.payload(full).ok_or(Step::Assertion)?;
        let ends = [&self.identity.runtime_id, target];
        self.live.keyring.inspect(&cleared.clearance, ends, payload)
    }

    /// A packet that had passed cannot be made now: something is wrong, so nothing more goes out
    /// (P6).
    fn fail_inspection(&mut self, now: Now, unmade: Unmade) {
        self.counters.inspection_failed += 1;
        self.traces.unmade(unmade);
        self.effects.push(Effect::Record(Event::InspectionFailed { seq: unmade.seq, packets: 1 }));
        let verdict = self.judge.tighten(Band::Blocked, Reason::InspectionFailed);
        self.enter(now, &verdict, Cause::default());
    }
}

/// One packet of a report, and the envelope that it travels in.
fn seal(
    (live, block): (&Live, f64),
    [source, target]: [&RuntimeId; 2],
    cleared: &Cleared,
    full: bool,
) -> Result<(Sealed, Origin), Step> {
    let keyring = &live.keyring;
    let payload = cleared.payload(full).ok_or(Step::Assertion)?;
    let peer = live.peers.get(target).ok_or(Step::Assertion)?;
    let header = Header {
        protocol_version: PROTOCOL_VERSION.into(),
        source_runtime_id: source.clone(),
        target_runtime_id: target.clone(),
        timestamp: cleared.at,
    };
    let packet = keyring.seal(&cleared.clearance.under(block), &header, payload, cleared.seq)?;
    let at_most = cleared.at.plus(EXCHANGE_MAX);
    let draft = Draft {
        artifact: Artifact::State,
        checksum: packet.checksum(),
        seq: cleared.seq,
        source,
        target: Some(target),
        at: cleared.at,
        expires: Some(peer.expires.map_or(at_most, |expires| expires.min(at_most))),
        drift_source: cleared.provenance,
        trace: cleared.trace.as_ref(),
    };
    let envelope = envelope::write(keyring, &peer.terms, &draft);
    let envelope = envelope.ok_or(Step::Evidence)?.into();
    Ok((packet, Origin { provenance: cleared.provenance, trace: cleared.trace.clone(), envelope }))
}
