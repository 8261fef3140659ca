//! What the tests share: guards for the world outside.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "each test program uses a part of it, and in a test a panic is the report"
)]

pub(crate) mod link;
pub(crate) mod nats_server;
