//! One cycle of a replay, explained: what its index was made of, why the gate went where it went,
//! and what would reopen it.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Fault;
use super::outcome::{Outcome, Row};

/// The row of a cycle; the last one where a number came again.
///
/// # Errors
/// [`Fault::NoCycle`], with the numbers that there are.
pub(super) fn find(outcome: &Outcome, cycle: u64) -> Result<&Row, Fault> {
    let found = outcome.rows.iter().rev().find(|row| row.cycle == Some(cycle));
    found.ok_or_else(|| {
        let numbers = || outcome.rows.iter().filter_map(|row| row.cycle);
        Fault::NoCycle(match (numbers().min(), numbers().max()) {
            (Some(first), Some(last)) => {
                format!("there is no cycle {cycle}; they go from {first} to {last}")
            }
            _ => format!("there is no cycle {cycle}; none of the reports has a number"),
        })
    })
}

/// Writes the explanation.
pub(super) fn write(
    outcome: &Outcome,
    row: &Row,
    json: bool,
    to: &mut dyn Write,
) -> io::Result<()> {
    if json { writeln!(to, "{}", to_json(outcome, row)) } else { write_text(outcome, row, to) }
}

/// What would reopen a gate that the row leaves closed.
fn reopens(outcome: &Outcome, row: &Row) -> Option<String> {
    let policy = &outcome.policy;
    row.band.is_closed().then(|| {
        format!(
            "a report with di < {}, posture stable and {} drift metrics",
            policy.thresholds.reopen,
            policy.accept.word()
        )
    })
}

fn to_json(outcome: &Outcome, row: &Row) -> Value {
    let reason = |reason: &crate::protocol::gate::Reason| json!({ "reason": reason, "meaning": reason.meaning(), "is_remark": reason.is_remark() });
    let marks = outcome.policy.thresholds;
    json!({
        "cycle": row.cycle,
        "place": row.place.to_string(),
        "di": row.di,
        "drift_source": row.source.word(),
        "parts": row.parts.map(|parts| json!({
            "sdi": parts.sdi.value(), "sv": parts.sv.value(), "pd": parts.pd.value(), "scr": parts.scr.value(),
        })),
        "thresholds": { "reopen": marks.reopen, "block": marks.block, "isolate": marks.isolate },
        "posture": row.posture,
        "before": row.before,
        "band": row.band,
        "verdict": row.verdict,
        "reasons": row.reasons.iter().map(reason).collect::<Vec<_>>(),
        "problem": row.problem,
        "would_reopen": reopens(outcome, row),
    })
}

fn write_text(outcome: &Outcome, row: &Row, to: &mut dyn Write) -> io::Result<()> {
    let cycle = row.cycle.map_or_else(|| "-".to_owned(), |cycle| cycle.to_string());
    writeln!(to, "cycle    {cycle}, {} of the log", row.place)?;
    if let Some(problem) = &row.problem {
        writeln!(to, "report   invalid: {problem}")?;
    }
    let marks = outcome.policy.thresholds;
    match row.di {
        Some(di) => writeln!(to, "index    {di:.4}, {}", row.source.word())?,
        None => writeln!(to, "index    none")?,
    }
    if let Some(parts) = row.parts {
        let (sdi, sv, pd, scr) =
            (parts.sdi.value(), parts.sv.value(), parts.pd.value(), parts.scr.value());
        writeln!(to, "         (sdi {sdi} + sv {sv} + pd {pd}) / (3 x scr {scr})")?;
    }
    writeln!(
        to,
        "marks    reopen below {}, block from {}, isolate from {}",
        marks.reopen, marks.block, marks.isolate
    )?;
    writeln!(to, "posture  {}", row.posture.word())?;
    writeln!(to, "gate     {} -> {}", row.before.word(), row.band.word())?;
    writeln!(to, "verdict  {}", row.verdict.word())?;
    if row.reasons.is_empty() {
        writeln!(to, "reasons  none: nothing spoke against it")?;
    }
    for (place, reason) in row.reasons.iter().enumerate() {
        let name = if place == 0 { "reasons" } else { "" };
        writeln!(to, "{name:<9}{}: {}", reason.word(), reason.meaning())?;
    }
    match reopens(outcome, row) {
        Some(reopens) => writeln!(to, "reopens  {reopens}"),
        None => Ok(()),
    }
}
