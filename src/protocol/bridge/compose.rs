//! From a verdict to packets and a reply: who gets one, what is in it, when the reply may go.

use super::{
    Answer, Arc, AttractorState, Barrier, Bridge, Cause, Connection, Decision, DriftIndex,
    Duration, Effect, EncodedPayload, Event, GateState, Judgement, Malformed, MemorySnapshot, Mode,
    Now, PacketLine, PacketStatus, Payload, Phase, RETENTION_MIN, Reason, ReportReply, SafetyFlags,
    StateReport, Ticket, TraceParent, WAITING_MAX, Waiting,
};
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::gate::Band;
use crate::protocol::inbox::Peer;
use crate::protocol::outbox::Cleared;
use crate::protocol::view::{Inspection, TargetTrace};

impl Bridge {
    /// One packet per authorised target, or one line that says why there is none.
    pub(super) fn compose(
        &mut self,
        now: Now,
        (ticket, seq): (Ticket, u64),
        report: &StateReport,
        judgement: &Judgement,
        trace: Option<TraceParent>,
    ) -> ReportReply {
        let band = judgement.verdict.band;
        let mut reply = ReportReply {
            verdict: Decision::without_packets(band),
            band,
            di: judgement.di.map(DriftIndex::value),
            drift_source: judgement.measurement.provenance.word(),
            reasons: judgement.verdict.reasons.clone(),
            seq,
            packets: Vec::new(),
            barrier: None,
            check: false,
            ignored: Vec::new(),
        };
        let payload = if judgement.clearance.is_some() {
            let payload = self.payload(report, judgement);
            if payload.is_none() {
                reply.reasons.push(Reason::Unfillable);
            }
            payload
        } else {
            None
        };
        let live = Arc::clone(&self.live);
        let targets: Vec<(&Peer, ExchangeMode)> = live
            .peers
            .values()
            .filter(|peer| peer.export_state && peer.is_current(now.wall))
            .map(|peer| {
                let mode = self.exchange_mode(now, &peer.id);
                let most = if peer.export_snapshot { mode } else { ExchangeMode::Minimal };
                (peer, mode.min(most))
            })
            .collect();
        let filled = payload.zip(judgement.clearance.as_ref());
        let cleared = filled.map(|(payload, clearance)| {
            let modes = targets.iter().map(|(_, mode)| *mode);
            let [full, minimal] = encode(&payload, modes);
            Arc::new(Cleared {
                seq,
                at: now.wall,
                clearance: clearance.under(self.judge.policy().thresholds.block),
                full,
                minimal,
                provenance: judgement.measurement.provenance,
                trace,
            })
        });
        for (line, (peer, mode)) in targets.into_iter().enumerate() {
            self.line((ticket, line), cleared.as_ref(), peer, mode, &mut reply);
        }
        sum_up(&mut reply);
        reply
    }

    /// One more target of a report: its packet enters its lane, or its line says why there is none.
    fn line(
        &mut self,
        line: (Ticket, usize),
        cleared: Option<&Arc<Cleared>>,
        peer: &Peer,
        mode: ExchangeMode,
        reply: &mut ReportReply,
    ) {
        let lane = self.outbox.lane(&peer.id);
        let cleared = cleared.filter(|_| mode >= ExchangeMode::Minimal);
        let (inspection, status) = match cleared {
            None => (Inspection::NotBegun, PacketStatus::Held),
            Some(_) if reply.band == Band::Caution && !self.is_due(lane) => {
                (Inspection::NotBegun, PacketStatus::Throttled)
            }
            Some(cleared) => {
                let full = mode == ExchangeMode::Full;
                match self.inspect(cleared, full, &peer.id) {
                    Ok(()) if self.identity.mode == Mode::Shadow => {
                        (Inspection::Passed, PacketStatus::Shadow)
                    }
                    Ok(()) => {
                        self.outbox.offer(lane, line, (Arc::clone(cleared), full));
                        (Inspection::Passed, PacketStatus::Pending)
                    }
                    Err(step) => {
                        // A failing inspection holds the packet (P6).
                        self.counters.inspection_failed += 1;
                        if !reply.reasons.contains(&Reason::InspectionFailed) {
                            reply.reasons.push(Reason::InspectionFailed);
                        }
                        (Inspection::Failed(step), PacketStatus::Held)
                    }
                }
            }
        };
        if status != PacketStatus::Pending {
            self.outbox.book(lane, status);
        }
        let (stream_seq, target) = (None, peer.id.clone());
        self.traces.target(TargetTrace {
            target: target.clone(),
            mode,
            inspection,
            status,
            stream_seq,
        });
        reply.packets.push(PacketLine { target, status, stream_seq });
    }

    fn is_due(&mut self, lane: usize) -> bool {
        !self.live.caution_blocks && self.outbox.is_due_in_caution(lane, self.live.caution_every)
    }

    /// The part of the packet that is the same for all targets; `None` when the report cannot fill
    /// it: nothing is ever made up.
    fn payload(&self, report: &StateReport, judgement: &Judgement) -> Option<Payload> {
        let drift = judgement.measurement.parts?;
        let phase = Phase::of_word(report.attractor.phase.as_deref()?)?;
        let memory_snapshot = match (self.snapshot_digest, report.retention_index) {
            (Some(digest), Some(retention))
                if retention.value() >= RETENTION_MIN && !judgement.withholds_memory =>
            {
                Some(MemorySnapshot { summary_hash: digest, retention_index: retention })
            }
            (Some(_) | None, _) => None,
        };
        Some(Payload {
            attractor_state: AttractorState {
                id: report.attractor.id.clone()?,
                kind: report.attractor.kind.or(self.identity.attractor_type)?,
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

    /// What cannot be read closes the gate.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        ticket: Ticket,
        fault: Option<Malformed>,
    ) -> Vec<Effect> {
        self.counters.malformed += 1;
        let unreadable = fault.is_none();
        self.effects.push(Effect::Record(Event::ReportRefused { unreadable }));
        let verdict = self.judge.malformed();
        self.enter(now, &verdict, Cause::default());
        self.keep_refusal((now, ticket), fault.as_ref(), verdict);
        let answer = Answer::Refused { fault, state: self.state() };
        self.wait(now, ticket, answer, self.closing.is_some());
        self.settle(now)
    }

    pub(super) fn state(&self) -> GateState {
        GateState { band: self.band(), reasons: self.reasons.clone(), barrier: None }
    }

    /// Keeps an answer until its packets have settled, its closing has ended, or its time is up.
    pub(super) fn wait(&mut self, now: Now, ticket: Ticket, mut answer: Answer, closing: bool) {
        // With no broker to wait for, or one that is known to take nothing, or too many waiting
        // already, the answer is `pending` at once (P10).
        let has_room = self.waiting.len() < WAITING_MAX;
        let open = match &answer {
            Answer::Report(reply) | Answer::Retry(reply) if self.may_settle() && has_room => {
                let pending = |line: &&PacketLine| line.status == PacketStatus::Pending;
                reply.packets.iter().filter(pending).count()
            }
            Answer::Report(_) | Answer::Retry(_) | Answer::Refused { .. } | Answer::Order(_) => 0,
        };
        if closing && !has_room {
            // The gate closes all the same; only this answer does not wait to hear of the silence.
            answer.close(Barrier::Unconfirmed);
        }
        let closing = closing && has_room;
        let reply_timeout = self.identity.reply_timeout;
        let timeout = if closing { self.barrier_timeout() + reply_timeout } else { reply_timeout };
        let deadline = now.mono + timeout;
        self.waiting.insert(ticket, Waiting { answer, open, deadline, closing, repeats: None });
        self.answer_deadline = self.answer_deadline.min(deadline);
        self.touched.push(ticket);
    }

    /// Whether it makes sense to wait for the broker.
    fn may_settle(&self) -> bool {
        self.connection != Connection::Down && !self.outbox.is_refused()
    }

    /// The broker is gone, or takes nothing: what waits for acknowledgements is answered as it
    /// stands.
    pub(super) fn answer_waiting(&mut self) {
        for (ticket, waiting) in &mut self.waiting {
            waiting.open = 0;
            self.touched.push(*ticket);
        }
    }

    /// Writes settled packets into their replies and gives the answers that are complete.
    pub(super) fn collect(&mut self, now: Now) {
        for settled in self.outbox.take_settled() {
            self.traces.settle(&settled);
            self.settle_retries(&settled);
            let Some(waiting) = self.waiting.get_mut(&settled.ticket) else { continue };
            let Answer::Report(reply) = &mut waiting.answer else { continue };
            if settled.write(reply) {
                waiting.open = waiting.open.saturating_sub(1);
                self.touched.push(settled.ticket);
            }
        }
        let late = now.mono >= self.answer_deadline;
        let candidates: Vec<Ticket> = if late {
            self.touched.clear();
            self.waiting.keys().copied().collect()
        } else {
            core::mem::take(&mut self.touched)
        };
        for ticket in candidates {
            let complete = self.waiting.get(&ticket).is_some_and(|waiting| {
                now.mono >= waiting.deadline || (waiting.open == 0 && !waiting.closing)
            });
            if complete && let Some(mut waiting) = self.waiting.remove(&ticket) {
                if waiting.closing {
                    waiting.answer.close(Barrier::Unconfirmed);
                }
                self.keep_answer(ticket, &waiting.answer);
                self.effects.push(Effect::Answer { ticket, answer: waiting.answer });
            }
        }
        if late {
            let deadlines = self.waiting.values().map(|waiting| waiting.deadline);
            self.answer_deadline = deadlines.min().unwrap_or(Duration::MAX);
        } else if self.waiting.is_empty() {
            self.answer_deadline = Duration::MAX;
        }
    }
}

/// The payload with the link to the newest snapshot and without, as far as somebody needs it: once
/// per report, however many targets there are.
fn encode(
    payload: &Payload,
    modes: impl Iterator<Item = ExchangeMode>,
) -> [Option<EncodedPayload>; 2] {
    let has_link = payload.memory_snapshot.is_some();
    let (mut full, mut minimal) = (false, false);
    for mode in modes.filter(|mode| *mode >= ExchangeMode::Minimal) {
        let takes_link = has_link && mode == ExchangeMode::Full;
        full |= takes_link;
        minimal |= !takes_link;
    }
    [(full, true), (minimal, false)]
        .map(|(is_needed, full)| is_needed.then(|| EncodedPayload::new(payload, full)))
}

/// The verdict says what became of the report where the gate let it through: it is an export only
/// where at least one packet is under way.
fn sum_up(reply: &mut ReportReply) {
    if reply.band.is_closed() {
        return;
    }
    let is_any = |status| reply.packets.iter().any(|packet| packet.status == status);
    let throttled = is_any(PacketStatus::Throttled);
    reply.verdict = if is_any(PacketStatus::Pending) {
        Decision::Export
    } else if is_any(PacketStatus::Shadow) {
        Decision::Observe
    } else if throttled {
        Decision::Throttle
    } else {
        Decision::Hold
    };
    if throttled {
        reply.reasons.push(Reason::Throttled);
    }
}
