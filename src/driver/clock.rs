//! The only reader of the clock.

use std::time::{Duration, Instant, SystemTime};

use crate::protocol::time::{Now, Timestamp};

/// Both clocks, with the origin of the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            wall: Timestamp::from_unix_ms(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
            mono: Instant::now().duration_since(self.origin),
        }
    }

    /// When `mono` will be, for timers; a day away at most, so that the far future is a timer too.
    pub(super) fn instant(&self, mono: Duration) -> tokio::time::Instant {
        let day = self.now().mono + Duration::from_secs(86_400);
        tokio::time::Instant::from_std(self.origin + mono.min(day))
    }
}
