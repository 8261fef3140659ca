//! NATS: connecting, subjects, publishing, consuming, provisioning.
//!
//! It knows NATS and not what a packet means: the bytes come sealed from `protocol`, the decision
//! what may leave comes from the driver, and so does every decision to connect again. The driver
//! owns at most one [`link::Link`], which is one TCP connection's life and nothing longer.
//!
//! What is deliberately absent:
//! - **Reconnecting.** async-nats would do it alone and then flush what it had queued, also what
//!   the gate has revoked since (P5). A link ends; a new one is the driver's decision, paced by
//!   [`backoff::backoff`].
//! - **async-nats's requests.** `Client::request` and `jetstream::Context::publish` share an inbox
//!   subscription that lasts as long as the client, which no cut could remove (P4), and keep an
//!   entry for every answer that never comes. `connection` has one table of subscriptions and
//!   one of who waits; `requests` is its handle for tasks.
//! - **A retry.** An unanswered publish has an unknown outcome; whether it is published again,
//!   superseded or revoked is for the driver.
//!
//! Modules in reading order, each using only those below it.

pub mod grants;
pub mod entries;
pub mod survey;
pub mod assets;
pub mod object;
pub mod reclaim;
mod wanted;
mod monitor;
pub mod link;
mod connection;
pub mod presence;
mod asset;
mod requests;
mod event;
pub mod responder;
mod pull;
mod session;
pub mod ack;
pub mod inbound;
pub mod headers;
pub mod settings;
pub mod subject;
pub mod backoff;
pub mod child;

pub use async_nats::{HeaderMap, Subject};
pub use wanted::{STATE_AGE_S, STATE_EACH};
