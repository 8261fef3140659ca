//! Faults against a real broker, each with its promise held against a foreign observer, and the
//! hammer: many reporters, drift that crosses the marks at random, and not one packet too many.
//!
//! Each test prints a row of the fault table: what was injected, what was promised, what was
//! observed, how long the recovery took. `make faults` shows the table alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "in a test a panic is the report, figures are printed and times are taken"
)]

#[path = "../support/mod.rs"]
mod support;

use support::row::row;

#[cfg(test)]
mod network;

#[cfg(test)]
mod corruption;

#[cfg(test)]
mod poison;

#[cfg(test)]
mod silence;

#[cfg(test)]
mod broker;

#[cfg(test)]
mod cluster;

#[cfg(test)]
mod refusal;

#[cfg(test)]
mod disk;

#[cfg(test)]
mod crash;

#[cfg(test)]
mod hammer;

#[cfg(test)]
mod audit;

#[cfg(test)]
mod busy;
