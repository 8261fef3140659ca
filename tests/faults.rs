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

mod support;

use support::row::row;

#[cfg(test)]
#[path = "faults/network.rs"]
mod network;

#[cfg(test)]
#[path = "faults/corruption.rs"]
mod corruption;

#[cfg(test)]
#[path = "faults/poison.rs"]
mod poison;

#[cfg(test)]
#[path = "faults/silence.rs"]
mod silence;

#[cfg(test)]
#[path = "faults/broker.rs"]
mod broker;

#[cfg(test)]
#[path = "faults/cluster.rs"]
mod cluster;

#[cfg(test)]
#[path = "faults/refusal.rs"]
mod refusal;

#[cfg(test)]
#[path = "faults/disk.rs"]
mod disk;

#[cfg(test)]
#[path = "faults/crash.rs"]
mod crash;

#[cfg(test)]
#[path = "faults/hammer.rs"]
mod hammer;
