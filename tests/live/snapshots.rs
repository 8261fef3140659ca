//! Memory snapshots through the real binary and a real nats-server: what is promised survives what
//! the world does, and what the gate revoked never leaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "in a test a panic is the report, and figures are printed"
)]

#[cfg(test)]
mod push;

#[cfg(test)]
mod gate;

#[cfg(test)]
mod life;

#[cfg(test)]
mod peers;

#[cfg(test)]
mod spool;

#[cfg(test)]
mod damage;

#[cfg(test)]
mod death;

#[cfg(test)]
mod foreign;

#[cfg(test)]
mod horizon;

#[cfg(test)]
mod command;

#[cfg(test)]
mod notices;

#[cfg(test)]
mod promises;

#[cfg(test)]
mod exchange;
