//! What is shipped in `deploy/`: one sidecar, delivered in several ways that say the same.
//!
//! What a real cluster makes of it is `make kubernetes` (`tests/deploy/kubernetes`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report; the clippy setting does not reach helpers"
)]

#[cfg(test)]
mod brokers;
#[cfg(test)]
mod definition;
#[cfg(test)]
mod deliveries;
#[cfg(test)]
mod image;
#[cfg(test)]
mod inject;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod tools;
