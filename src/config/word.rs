//! The words of settings that take one of a closed list.

use super::settings::{
    BlockedInbound, Caution, DriftSource, Durability, LogFormat, LogLevel, Mode,
};
use crate::protocol::drift::Provenance;
use crate::protocol::keyring::Alg;

/// A word of a closed list.
pub(super) trait Word: Copy + 'static {
    /// Every value with its word, in the order in which a message lists them.
    const WORDS: &'static [(&'static str, Self)];
}

/// The words of one setting.
macro_rules! words {
    ($type:ty { $($word:literal => $value:expr),+ $(,)? }) => {
        impl Word for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $value)),+];
        }
    };
}

words!(Durability {
    "acked" => Self::Acked, "replicated" => Self::Replicated, "synced" => Self::Synced,
});
words!(DriftSource { "native" => Self::Native, "derived" => Self::Derived });
words!(Mode { "enforce" => Self::Enforce, "shadow" => Self::Shadow });
words!(BlockedInbound { "deliver" => Self::Deliver, "hold" => Self::Hold });
words!(Caution { "throttle" => Self::Throttle, "block" => Self::Block });
words!(Alg { "hmac-sha256" => Self::HmacSha256, "ed25519" => Self::Ed25519 });
words!(LogLevel {
    "error" => Self::Error, "warn" => Self::Warn, "info" => Self::Info, "debug" => Self::Debug,
    "trace" => Self::Trace,
});
words!(LogFormat { "json" => Self::Json, "text" => Self::Text });
// The weakest evidence that an operator may accept; none at all is not a choice.
words!(Provenance {
    "native" => Self::Native, "reported" => Self::Reported, "derived" => Self::Derived,
});
