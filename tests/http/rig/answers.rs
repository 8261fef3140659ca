//! What the scripted driver answers.

use std::collections::VecDeque;

use driftgate::protocol::bridge::GateState;
use driftgate::protocol::gate::{Band, Mode, Reason, Sample, Thresholds};
use driftgate::protocol::packet::Posture;
use driftgate::protocol::profile::{Continuity, Malformed};
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::view::{
    Barrier, CriticalView, Decision, EnvelopeView, GateView, PacketLine, PacketStatus,
    ParametersView, ParseView, PosturesView, ReportReply, SafetyView, ThresholdsView, TraceView,
};

use super::runtime;

pub(super) fn out_of_range() -> Malformed {
    let (field, problem) = ("/drift_metrics/sdi".into(), "must be 0 to 1".into());
    Malformed { field, problem, key_bytes: 0 }
}

pub(super) fn trace() -> TraceView {
    TraceView {
        runtime_id: runtime("planner"),
        mode: Mode::Enforce,
        seq: Some(7),
        at: Timestamp::default(),
        profile: "srip-05".into(),
        parse: ParseView::default(),
        cycle: Some(7),
        continuity: Some(Continuity::Next { missed: 0 }),
        index: None,
        table: Sample::default().rows(&Thresholds::default()).into(),
        gate: GateView {
            before: Band::Open,
            asked: Band::Blocked,
            after: Band::Blocked,
            verdict: Decision::Block,
            reasons: vec![Reason::Incomplete],
            barrier: None,
        },
        targets: Vec::new(),
        targets_omitted: 0,
        would_reopen: None,
        reopening: None,
    }
}

/// Where a report leaves the gate that nobody can read.
pub(super) fn closed() -> GateState {
    let (reasons, barrier) = (vec![Reason::Invalid], Some(Barrier::Confirmed));
    GateState { band: Band::Blocked, reasons, barrier }
}

pub(super) fn reply(is_isolated: bool) -> ReportReply {
    ReportReply {
        verdict: if is_isolated { Decision::Isolate } else { Decision::Export },
        band: if is_isolated { Band::Isolated } else { Band::Open },
        di: Some(0.25),
        drift_source: "native",
        reasons: Vec::new(),
        seq: 1,
        packets: vec![PacketLine {
            target: runtime("critic"),
            status: PacketStatus::Stored,
            stream_seq: Some(9),
        }],
        barrier: None,
        check: false,
        ignored: Vec::new(),
    }
}

pub(super) fn safety() -> SafetyView {
    SafetyView {
        runtime_id: runtime("planner"),
        mode: Mode::Enforce,
        band: Band::Open,
        reasons: Vec::new(),
        since: Timestamp::default(),
        epoch: 0,
        di: None,
        drift_source: "none",
        posture: Posture::Unknown,
        thresholds: ThresholdsView { reopen: 0.45, caution: 0.45, block: 0.5, isolate: 0.6 },
        critical: CriticalView::of(None),
        postures: PosturesView::IN_FORCE,
        parameters: ParametersView {
            max_recursion_depth: None,
            phase_lock_timeout: None,
            drift_limit: 0.5,
            entropy_threshold: None,
        },
        envelope: EnvelopeView {
            accept: "native",
            caution_every: 3,
            dwell: 1,
            stale_after_s: 120.0,
            silence_isolates_after_s: None,
            isolate_after_s: None,
        },
        would_reopen: None,
        reopening: None,
        operator_hold: false,
        hold: None,
        in_doubt: false,
        in_doubt_until: None,
        targets: Vec::new(),
        transitions: VecDeque::new(),
    }
}
