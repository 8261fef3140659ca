//! Ways in other than HTTP.
pub mod tail;
