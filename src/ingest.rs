//! How reports come in without the runtime calling us.
//!
//! [`tail`] follows a file that the runtime appends to. A source of reports reads, cuts and parses;
//! it ends in a bounded channel and knows nothing of who takes from it.
//!
//! What deliberately is not here: ingest by HTTP, which is a route (`http`); translating a report
//! and judging it, which is `protocol`; and what a line that cannot be read does to the gate, which
//! is the driver's to say.

pub mod tail;
