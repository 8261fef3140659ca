//! Cycles of the shapes that runtimes report, made here. Every text in them holds [`CANARY`], so a
//! test can see whether any text got further than it may (P9).

use serde_json::{Value, json};

/// In every prompt, reply and motif of these traces.
pub(crate) const CANARY: &str = "canary-7f3a";

/// The native shape, with an index of `(sdi + 0.2) / 2.4`.
pub(crate) fn native(cycle: u64, sdi: f64) -> Value {
    json!({
        "cycle": cycle,
        "attractor_state":
            {"id": "a-1", "type": "symbolic", "stability": 0.91, "phase": "stable", "scr": 0.8},
        "drift_metrics": {"sdi": sdi, "sv": 0.1, "pd": 0.1},
        "memory_snapshot": {"retention_index": 0.82},
        "safety_flags":
            {"aegida_status": "nominal", "phase_lock": false, "recenter_active": false},
        "response": CANARY,
    })
}

/// The shape of reference 0.3.x, stable and settled, with `total` as its drift. Like the public
/// runtimes it writes cycle 1 as zero drift, and negative zero where a similarity is cut off.
pub(crate) fn reference_03(cycle: u64, total: f64) -> Value {
    let total = if cycle == 1 { 0.0 } else { total };
    json!({
        "cycle": cycle,
        "user_input": format!("{CANARY} asks"),
        "response": format!("{CANARY} answers"),
        "attractor_state": {
            "active_attractor": "demo_01", "attractor_generation": 1, "phase": "stable",
            "cycles_in_phase": cycle, "stability": 0.9, "symbolic_density": 0.3,
            "motif_count": 3, "top_motifs": [format!("{CANARY}-a"), "b", "c", "d"]
        },
        "drift_metrics": {"semantic": total, "tonal": total, "total": total},
        "coherence_metrics":
            {"semantic_continuity": 0.9, "topic_coherence": 0.8, "overall_coherence": 0.8},
        "semantic_similarity": if cycle == 1 { 1.0 } else { -0.0 },
        "pil_id": "DEMO",
        "total_context_tokens": 400, "context_size": 5, "latency_sec": 1.5,
        "compression":
            {"active": false, "structure_pattern": "list", "list_length": 3, "has_metaphor": false}
    })
}

/// The flat shape of reference 0.1 logs.
pub(crate) fn reference_01(cycle: u64, total: f64) -> Value {
    json!({
        "cycle": cycle,
        "user_input": format!("{CANARY} asks"),
        "response": format!("{CANARY} answers"),
        "phase": "forming", "stability": 0.6, "symbolic_density": 0.4, "drift_total": total,
        "intent_mode": "analysis", "top_motifs": [format!("{CANARY}-a")],
        "usage": {"latency_sec": 1.2, "input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    })
}
