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

mod support;

#[cfg(test)]
#[path = "snapshots/rig.rs"]
mod rig;

#[cfg(test)]
#[path = "snapshots/push.rs"]
mod push;

#[cfg(test)]
#[path = "snapshots/gate.rs"]
mod gate;

#[cfg(test)]
#[path = "snapshots/life.rs"]
mod life;

#[cfg(test)]
#[path = "snapshots/peers.rs"]
mod peers;

#[cfg(test)]
#[path = "snapshots/spool.rs"]
mod spool;

#[cfg(test)]
#[path = "snapshots/damage.rs"]
mod damage;

#[cfg(test)]
#[path = "snapshots/death.rs"]
mod death;

#[cfg(test)]
#[path = "snapshots/foreign.rs"]
mod foreign;

#[cfg(test)]
#[path = "snapshots/horizon.rs"]
mod horizon;

#[cfg(test)]
#[path = "snapshots/command.rs"]
mod command;

#[cfg(test)]
#[path = "snapshots/told.rs"]
mod told;
