//! One row of the fault table, as `make faults` prints it.

use std::fmt::Display;
use std::time::Instant;

/// Prints what was injected, promised and observed, and the time since `recovery` began.
#[allow(clippy::print_stdout, reason = "the table is printed")]
pub(crate) fn row(
    injected: &str,
    promised: &str,
    observed: impl Display,
    recovery: Option<Instant>,
) {
    let took = recovery.map_or_else(|| "-".to_owned(), |begin| format!("{:.0?}", begin.elapsed()));
    println!("FAULT | {injected} | {promised} | {observed} | {took}");
}
