//! From a verdict to packets and a reply: who gets one, what is in it, when the reply may go.

use super::{
    AttractorState, Barrier, Bridge, Decision, DriftIndex, Duration, Effect, EncodedPayload,
    Header, Judgement, MemorySnapshot, Now, OPEN_REPLIES_MAX, OpenReply, Origin, PROTOCOL_VERSION,
    PacketLine, PacketStatus, Payload, Phase, RETENTION_MIN, Reason, ReportReply, RuntimeId,
    SafetyFlags, StateReport, TraceParent,
};
use crate::protocol::drift::Provenance;
use crate::protocol::gate::Band;

impl Bridge {
    /// One packet per authorised target, or one line that says why there is none.
    pub(super) fn compose(
        &mut self,
        now: Now,
        seq: u64,
        report: &StateReport,
        judgement: &Judgement,
        trace: Option<TraceParent>,
    ) -> ReportReply {
        let band = judgement.verdict.band;
        let mut reply = ReportReply {
            verdict: match band {
                Band::Open | Band::Caution => Decision::Export,
                Band::Blocked => Decision::Block,
                Band::Isolated => Decision::Isolate,
            },
            band,
            di: judgement.di.map(DriftIndex::value),
            drift_source: report.drift.provenance.word(),
            reasons: judgement.verdict.reasons.clone(),
            seq,
            packets: Vec::new(),
            barrier: None,
        };
        let payload = if judgement.exportable {
            let payload = self.payload(report);
            if payload.is_none() {
                reply.reasons.push(Reason::Unfillable);
            }
            payload
        } else {
            None
        };
        let targets: Vec<(RuntimeId, bool)> = self
            .settings
            .peers
            .values()
            .filter(|peer| peer.export_state && peer.is_current(now.wall))
            .map(|peer| (peer.id.clone(), peer.export_snapshot))
            .collect();
        let origin = Origin { provenance: report.drift.provenance, trace };
        self.fan_out(now, payload.as_ref(), &targets, &origin, judgement, &mut reply);
        self.sum_up(payload.is_some(), &mut reply);
        reply
    }

    fn fan_out(
        &mut self,
        now: Now,
        payload: Option<&Payload>,
        targets: &[(RuntimeId, bool)],
        origin: &Origin,
        judgement: &Judgement,
        reply: &mut ReportReply,
    ) {
        let clearance = judgement.verdict.clear(&self.settings.policy.thresholds);
        // Encoded once per report, however many targets there are.
        let full = payload.map(|payload| EncodedPayload::new(payload, true));
        let minimal = payload.map(|payload| EncodedPayload::new(payload, false));
        let caution = reply.band == Band::Caution;
        for (line, (target, with_snapshot)) in targets.iter().enumerate() {
            let lane = self.outbox.lane(target);
            let encoded = if *with_snapshot { &full } else { &minimal };
            let status = match (&clearance, encoded) {
                (Some(clearance), Some(encoded)) => {
                    if caution && !self.is_due(lane) {
                        PacketStatus::Throttled
                    } else {
                        let header = Header {
                            protocol_version: PROTOCOL_VERSION.to_owned(),
                            source_runtime_id: self.settings.runtime_id.clone(),
                            target_runtime_id: target.clone(),
                            timestamp: now.wall,
                        };
                        match self.keyring.seal(clearance, &header, encoded, reply.seq) {
                            Ok(packet) => {
                                self.outbox.offer(lane, line, packet, origin.clone());
                                PacketStatus::Pending
                            }
                            Err(reason) => {
                                // A failing inspection holds the packet (P6).
                                self.counters.inspection_failed += 1;
                                if !reply.reasons.contains(&reason) {
                                    reply.reasons.push(reason);
                                }
                                PacketStatus::Held
                            }
                        }
                    }
                }
                (Some(_) | None, _) => PacketStatus::Held,
            };
            if status != PacketStatus::Pending {
                self.outbox.book(lane, status);
            }
            reply.packets.push(PacketLine { target: target.clone(), status, stream_seq: None });
        }
    }

    fn is_due(&mut self, lane: usize) -> bool {
        !self.settings.caution_blocks
            && self.outbox.is_due_in_caution(lane, self.settings.caution_every)
    }

    /// In caution the verdict says whether this report was the one in `caution_every`.
    fn sum_up(&self, payload: bool, reply: &mut ReportReply) {
        let throttled = reply.packets.iter().any(|packet| packet.status == PacketStatus::Throttled);
        let sent = reply.packets.iter().any(|packet| packet.status == PacketStatus::Pending);
        if reply.band == Band::Caution && payload && throttled {
            reply.reasons.push(Reason::Throttled);
            if !sent {
                reply.verdict = Decision::Throttle;
            }
        }
    }

    /// The part of the packet that is the same for all targets; `None` when the report cannot fill
    /// it: nothing is ever made up (SPEC section 4b).
    fn payload(&self, report: &StateReport) -> Option<Payload> {
        let drift = report.drift.parts?;
        if report.drift.provenance == Provenance::Reported {
            return None;
        }
        let phase = Phase::of_word(report.attractor.phase.as_deref()?)?;
        let memory_snapshot = match (&self.snapshot_digest, report.retention_index) {
            (Some(digest), Some(retention)) if retention.value() >= RETENTION_MIN => {
                Some(MemorySnapshot { summary_hash: digest.clone(), retention_index: retention })
            }
            (Some(_) | None, _) => None,
        };
        Some(Payload {
            attractor_state: AttractorState {
                id: report.attractor.id.clone()?,
                kind: report.attractor.kind.or(self.settings.attractor_type)?,
                stability: report.attractor.stability?,
                phase: phase.word().to_owned(),
            },
            drift,
            di: drift.index(),
            memory_snapshot,
            safety_flags: SafetyFlags {
                aegida_status: "nominal".to_owned(),
                phase_lock: false,
                recenter_active: false,
            },
        })
    }

    /// Keeps a reply until its packets have settled, its closing has ended, or its time is up.
    pub(super) fn hold_reply(&mut self, now: Now, seq: u64, reply: ReportReply, closes: bool) {
        let open =
            reply.packets.iter().filter(|packet| packet.status == PacketStatus::Pending).count();
        // With no broker to wait for, or too many waiting already, the answer is `pending` at once.
        let has_room = self.open_replies.len() < OPEN_REPLIES_MAX;
        let open = if self.connected && has_room { open } else { 0 };
        let mut reply = reply;
        if closes && !has_room {
            // The gate closes all the same; only this answer does not wait to hear of the silence.
            reply.barrier = Some(Barrier::Unconfirmed);
            reply.reasons.push(Reason::Unconfirmed);
        }
        let closes = closes && has_room;
        let timeout = if closes {
            self.settings.barrier_timeout + self.settings.reply_timeout
        } else {
            self.settings.reply_timeout
        };
        let deadline = now.mono + timeout;
        self.open_replies.insert(seq, OpenReply { reply, open, deadline, closing: closes });
        self.reply_deadline = self.reply_deadline.min(deadline);
        self.touched.push(seq);
    }

    /// The broker is gone: what waits for acknowledgements is answered as it stands.
    pub(super) fn answer_waiting(&mut self) {
        for (seq, reply) in &mut self.open_replies {
            reply.open = 0;
            self.touched.push(*seq);
        }
    }

    /// Writes settled packets into their replies and sends the replies that are complete.
    pub(super) fn collect(&mut self, now: Now) {
        for settled in self.outbox.take_settled() {
            let Some(open) = self.open_replies.get_mut(&settled.seq) else { continue };
            if let Some(line) = open.reply.packets.get_mut(settled.line) {
                line.status = settled.status;
                line.stream_seq = settled.stream_seq;
                open.open = open.open.saturating_sub(1);
                self.touched.push(settled.seq);
            }
        }
        let late = now.mono >= self.reply_deadline;
        let candidates: Vec<u64> = if late {
            self.touched.clear();
            self.open_replies.keys().copied().collect()
        } else {
            core::mem::take(&mut self.touched)
        };
        for seq in candidates {
            let complete = self
                .open_replies
                .get(&seq)
                .is_some_and(|open| now.mono >= open.deadline || (open.open == 0 && !open.closing));
            if complete && let Some(mut open) = self.open_replies.remove(&seq) {
                if open.closing {
                    open.reply.barrier = Some(Barrier::Unconfirmed);
                    open.reply.reasons.push(Reason::Unconfirmed);
                }
                self.effects.push(Effect::Answer { seq, reply: Box::new(open.reply) });
            }
        }
        if late {
            let waiting = self.open_replies.values();
            self.reply_deadline = waiting.map(|open| open.deadline).min().unwrap_or(Duration::MAX);
        } else if self.open_replies.is_empty() {
            self.reply_deadline = Duration::MAX;
        }
    }
}
