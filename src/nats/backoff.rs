//! How long to wait before the next connection attempt. Pure; the loop is the driver's.

use std::time::Duration;

/// Upper bound of the first delay, in milliseconds.
const BASE_MS: u64 = 100;
/// Upper bound of every delay, in milliseconds: a broker that is back is used within 5 s.
const CAP_MS: u64 = 5_000;

/// Full-jitter delay before connection attempt number `attempt` (0 is the first retry): evenly
/// spread between 0 and min(5 s, 100 ms x 2^attempt) by `random`, any 64 random bits.
///
/// The spread is what keeps a fleet from returning in step after a broker restart.
///
/// ```
/// use driftgate::nats::backoff::backoff;
/// use std::time::Duration;
/// assert_eq!(backoff(0, 0), Duration::ZERO);
/// assert_eq!(backoff(0, u64::MAX), Duration::from_millis(99));
/// assert!(backoff(400, u64::MAX) < Duration::from_secs(5));
/// ```
#[must_use]
pub fn backoff(attempt: u32, random: u64) -> Duration {
    let bound_ms = BASE_MS.saturating_mul(2_u64.saturating_pow(attempt)).min(CAP_MS);
    let scaled = (u128::from(bound_ms) * u128::from(random)) >> 64;
    Duration::from_millis(u64::try_from(scaled).unwrap_or(CAP_MS))
}
