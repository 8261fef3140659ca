//! What the tests share: guards for the world outside.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "each test program uses a part of it; in a test a panic is the report, and it times things"
)]

pub(crate) mod books;
pub(crate) mod cluster;
pub(crate) mod described;
pub(crate) mod forge;
pub(crate) mod horizon;
pub(crate) mod http;
pub(crate) mod jwt;
pub(crate) mod least;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod nats_cli;
pub(crate) mod manifest;
pub(crate) mod nats_command;
pub(crate) mod nats_server;
pub(crate) mod object;
pub(crate) mod observer;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod report;
pub(crate) mod rig;
pub(crate) mod row;
pub(crate) mod runtime;
pub(crate) mod sentry;
pub(crate) mod sidecar;
pub(crate) mod snapshots;
pub(crate) mod traces;
pub(crate) mod wait;
