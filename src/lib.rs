//! Driftgate: a sidecar that gates what an AI-agent runtime shares over NATS by how far it has
//! drifted.
//!
//! Modules in reading order; each uses only what stands below it (`tests/tidy` keeps it so).

pub mod commands;
pub mod sidecar;
pub mod http;
pub mod driver;
pub mod deliver;
pub mod snapshots;
pub mod nats;
pub mod ingest;
pub mod audit;
pub mod config;
pub mod telemetry;
pub mod profiles;
pub mod keys;
#[deny(clippy::disallowed_types)]
pub mod protocol;
