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

mod support;

#[cfg(test)]
#[path = "live/walk.rs"]
mod walk;

#[cfg(test)]
#[path = "live/exchange.rs"]
mod exchange;

#[cfg(test)]
#[path = "live/hostile.rs"]
mod hostile;

#[cfg(test)]
#[path = "live/canary.rs"]
mod canary;

#[cfg(test)]
#[path = "live/outage.rs"]
mod outage;

#[cfg(test)]
#[path = "live/life.rs"]
mod life;

#[cfg(test)]
#[path = "live/tail.rs"]
mod tail;
