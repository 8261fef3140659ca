//! The local interface: the whole status table in-process, then the listener over raw sockets.
//!
//! Every raw test ends with a request that works: nothing a client does takes the listener down.

#[path = "../support/described.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a panic is the report"
)]
mod described;

#[cfg(test)]
mod ndjson;
#[cfg(test)]
mod rig;

#[cfg(test)]
mod table;

#[cfg(test)]
mod check;

#[cfg(test)]
mod forms;

#[cfg(test)]
mod operator;

#[cfg(test)]
mod openapi;

#[cfg(test)]
mod access;

#[cfg(test)]
mod body;

#[cfg(test)]
mod console;

#[cfg(test)]
mod connection;

#[cfg(test)]
mod handshake;
#[cfg(test)]
mod hang_up;

#[cfg(test)]
mod stream;

#[cfg(test)]
mod websocket;

#[cfg(test)]
mod socket;
