//! The trace context that a report may come with (W3C Trace Context, section 3.2 `traceparent`).
//!
//! It names a trace and says nothing about the runtime: 55 characters of lower-case hex and
//! hyphens, so no text of anybody's can leave in it (P9). What deliberately is not here: making
//! one.

use std::sync::Arc;

/// A well-formed `traceparent` of version 00.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(Arc<str>);

impl TraceParent {
    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`; all-zero ids are not ids. `None` for anything else,
    /// which the standard has a receiver treat as absent.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let is_id = |part: &str, len: usize| {
            part.len() == len && is_hex(part) && part.bytes().any(|byte| byte != b'0')
        };
        let mut parts = text.split('-');
        let holds = parts.next() == Some("00")
            && parts.next().is_some_and(|trace| is_id(trace, 32))
            && parts.next().is_some_and(|parent| is_id(parent, 16))
            && parts.next().is_some_and(|flags| flags.len() == 2 && is_hex(flags))
            && parts.next().is_none();
        holds.then(|| Self(text.into()))
    }

    /// The id of the trace: 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }

    /// As it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
