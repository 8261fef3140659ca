//! The real binary beside a real nats-server, watched by a foreign client that hears everything:
//! the walk of a report, the exchange between sidecars, hostile peers, outages, the process's life.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "in a test a panic is the report, and figures are printed"
)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(test)]
mod telemetry;
#[cfg(test)]
mod tls;

#[cfg(test)]
mod first_hour;
#[cfg(test)]
mod ndjson;

#[cfg(test)]
mod walk;

#[cfg(test)]
mod figures;
#[cfg(test)]
mod golden;

#[cfg(test)]
mod permissions;

#[cfg(test)]
mod exchange;

#[cfg(test)]
mod manifests;

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod cookbook;
#[cfg(test)]
mod container;
#[cfg(test)]
mod readme;
mod delivery;
#[cfg(test)]
mod described;
mod effects;

#[cfg(test)]
mod quarantine;

#[cfg(test)]
mod canary;
#[cfg(test)]
mod commands;

#[cfg(test)]
mod limits;

#[cfg(test)]
mod isolation;

#[cfg(test)]
mod outage;

#[cfg(test)]
mod life;

#[cfg(test)]
mod tail;

#[cfg(test)]
mod reload;

#[cfg(test)]
mod follow;

#[cfg(test)]
mod memory;

#[cfg(test)]
mod operator;

#[cfg(test)]
mod snapshots;

#[cfg(test)]
mod rotation;
#[cfg(test)]
mod service;

#[cfg(test)]
mod handshake;
#[cfg(test)]
mod health;

#[cfg(test)]
mod presence;

#[cfg(test)]
mod watch;
