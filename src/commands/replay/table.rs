//! The replay as a table for people and as JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::protocol::gate::{Band, Reason};
use crate::protocol::packet::Posture;
use crate::protocol::view::Decision;

use super::outcome::{Outcome, Row};

/// Invalid reports that are listed one by one; the rest is a number.
const INVALID_SHOWN_MAX: usize = 20;

/// All bands, mildest first.
pub(super) const BANDS: [Band; 4] = [Band::Open, Band::Caution, Band::Blocked, Band::Isolated];

/// The policy in words.
pub(super) fn policy(outcome: &Outcome) -> String {
    let scr = outcome
        .policy
        .assumed_scr
        .map_or_else(String::new, |scr| format!(", assumed SCR {}", scr.value()));
    format!("accept {}{scr}", outcome.policy.accept.word())
}

/// Writes the table.
pub(super) fn write(outcome: &Outcome, to: &mut dyn Write) -> io::Result<()> {
    if let Some(advice) = outcome.advice() {
        writeln!(to, "{advice}\n")?;
    }
    let marks = outcome.policy.thresholds;
    writeln!(to, "profile   {}", outcome.profile.name())?;
    writeln!(to, "policy    {}", policy(outcome))?;
    writeln!(
        to,
        "marks     reopen below {}, block from {}, isolate from {}; in caution 1 report in {}",
        marks.reopen, marks.block, marks.isolate, outcome.caution_every
    )?;
    writeln!(to)?;
    writeln!(
        to,
        "{:>6}  {:>6}  {:<8}  {:<10}  {:<8}  {:<8}  reasons",
        "cycle", "di", "source", "posture", "band", "verdict"
    )?;
    for row in &outcome.rows {
        write_row(row, to)?;
    }
    writeln!(to)?;
    write_sums(outcome, to)?;
    write_invalid(outcome, to)
}

fn write_row(row: &Row, to: &mut dyn Write) -> io::Result<()> {
    let cycle = row.cycle.map_or_else(|| "-".to_owned(), |cycle| cycle.to_string());
    let di = row.di.map_or_else(|| "-".to_owned(), |di| format!("{di:.4}"));
    let reasons: Vec<&str> = row.reasons.iter().map(|reason| reason.word()).collect();
    let line = format!(
        "{cycle:>6}  {di:>6}  {:<8}  {:<10}  {:<8}  {:<8}  {}",
        row.source.word(),
        row.posture.word(),
        row.band.word(),
        row.verdict.word(),
        reasons.join(" ")
    );
    writeln!(to, "{}", line.trim_end())
}

fn write_sums(outcome: &Outcome, to: &mut dyn Write) -> io::Result<()> {
    let total = outcome.rows.len();
    for band in BANDS {
        let count = outcome.count(band);
        writeln!(to, "{:<10}{count:>6}  {:>5.1} %", band.word(), outcome.percent(count))?;
    }
    writeln!(to, "{:<10}{total:>6}", "cycles")?;
    writeln!(to, "{:<10}{:>6}", "exported", outcome.decided(Decision::Export))?;
    let unfillable = outcome.unfillable();
    for (name, count, what) in [
        ("throttled", outcome.decided(Decision::Throttle), "in caution, not the one that is sent"),
        ("unfillable", unfillable, "passed the gate with a bare index, which cannot fill a packet"),
        (
            "held",
            outcome.decided(Decision::Hold).saturating_sub(unfillable),
            "left the gate as it was and are no evidence to be sent",
        ),
    ] {
        if count > 0 {
            writeln!(to, "{name:<10}{count:>6}  {what}")?;
        }
    }
    if outcome.retries > 0 {
        writeln!(
            to,
            "{:<10}{:>6}  repeated the report before, not judged",
            "retries", outcome.retries
        )?;
    }
    writeln!(to, "{:<10}{:>6}", "changes", outcome.transitions)?;
    writeln!(to, "{:<10}{:>6}  cycles closed in a row", "longest", outcome.longest_closed)
}

/// Lists the reports that could not be read.
pub(super) fn write_invalid(outcome: &Outcome, to: &mut dyn Write) -> io::Result<()> {
    let invalid: Vec<(&Row, &String)> = outcome
        .rows
        .iter()
        .filter_map(|row| row.problem.as_ref().map(|problem| (row, problem)))
        .collect();
    if invalid.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{} invalid reports; each closes the gate:", invalid.len())?;
    for (row, problem) in invalid.iter().take(INVALID_SHOWN_MAX) {
        writeln!(to, "  {}: {problem}", row.place)?;
    }
    if invalid.len() > INVALID_SHOWN_MAX {
        writeln!(to, "  and {} more", invalid.len() - INVALID_SHOWN_MAX)?;
    }
    Ok(())
}

/// The replay as programs read it.
#[derive(Serialize)]
struct Report<'a> {
    profile: &'a str,
    cycles: Vec<CycleLine<'a>>,
    totals: Totals,
    transitions: usize,
    longest_closed: usize,
}

#[derive(Serialize)]
struct CycleLine<'a> {
    cycle: Option<u64>,
    di: Option<f64>,
    drift_source: &'static str,
    posture: Posture,
    band: Band,
    verdict: Decision,
    reasons: &'a [Reason],
}

#[derive(Serialize)]
struct Totals {
    open: usize,
    caution: usize,
    blocked: usize,
    isolated: usize,
    retries: usize,
    exported: usize,
    throttled: usize,
    held: usize,
}

/// Writes the JSON, and a line feed.
pub(super) fn write_json(outcome: &Outcome, to: &mut dyn Write) -> io::Result<()> {
    let report = Report {
        profile: outcome.profile.name(),
        cycles: outcome
            .rows
            .iter()
            .map(|row| CycleLine {
                cycle: row.cycle,
                di: row.di,
                drift_source: row.source.word(),
                posture: row.posture,
                band: row.band,
                verdict: row.verdict,
                reasons: &row.reasons,
            })
            .collect(),
        totals: Totals {
            open: outcome.count(Band::Open),
            caution: outcome.count(Band::Caution),
            blocked: outcome.count(Band::Blocked),
            isolated: outcome.count(Band::Isolated),
            retries: outcome.retries,
            exported: outcome.decided(Decision::Export),
            throttled: outcome.decided(Decision::Throttle),
            held: outcome.decided(Decision::Hold),
        },
        transitions: outcome.transitions,
        longest_closed: outcome.longest_closed,
    };
    serde_json::to_writer(&mut *to, &report)?;
    writeln!(to)
}
