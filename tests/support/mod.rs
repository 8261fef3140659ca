//! What the tests share: guards for the world outside.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test program uses a part of it, and in a test a panic is the report"
)]

pub(crate) mod nats_server;
