//! The protocol: everything Driftgate decides, and nothing it does.
//!
//! Pure by rule (a test keeps it so): no async, no clock, no environment, no files, no sockets, no
//! threads, no randomness. Time is an argument, outputs are return values. That is what lets the
//! simulation in `tests/` run the very code that runs beside a runtime.
//!
//! Modules in reading order, each using only those below it.

pub mod memory;
pub mod bridge;
pub mod handshake;
pub mod capabilities;
pub mod inbox;
pub mod outbox;
pub mod audit;
pub mod view;
pub mod seal;
pub mod judge;
pub mod phase;
pub mod profile;
pub mod snapshot;
pub mod envelope;
pub mod presence;
pub mod document;
pub mod keyring;
pub mod gate;
pub mod wire;
mod fields;
pub mod exchange;
pub mod delivery;
pub mod schema;
pub mod packet;
pub mod refusal;
pub mod reason;
pub mod digest;
pub mod trace;
pub mod drift;
pub mod syntax;
pub mod canonical;
pub mod time;
