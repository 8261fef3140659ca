//! The only reader of the clock.

use std::time::{Duration, Instant, SystemTime};

use crate::protocol::time::{Now, Timestamp};

/// Both clocks, with the origin of the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

/// How far both clocks may come apart between two looks before that counts as a jump.
const JUMP_MIN_MS: u64 = 5_000;

/// Notices that the wall clock was set, or that the machine slept.
#[derive(Debug)]
pub(super) struct Watch {
    /// Wall time less monotonic time, in milliseconds.
    offset_ms: i64,
}

impl Watch {
    pub(super) fn new(now: Now) -> Self {
        Self { offset_ms: offset_ms(now) }
    }

    /// By how many milliseconds the wall clock has jumped since the last look, if it has.
    pub(super) fn jump_ms(&mut self, now: Now) -> Option<i64> {
        let offset_ms = offset_ms(now);
        let jump_ms = offset_ms - self.offset_ms;
        // A clock that is slewed comes along.
        self.offset_ms = offset_ms;
        (jump_ms.unsigned_abs() >= JUMP_MIN_MS).then_some(jump_ms)
    }
}

fn offset_ms(now: Now) -> i64 {
    now.wall.unix_ms() - i64::try_from(now.mono.as_millis()).unwrap_or(i64::MAX / 2)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_is_a_jump_once_and_time_that_passes_is_none() {
        let at = |wall_ms, mono_s| Now {
            wall: Timestamp::from_unix_ms(wall_ms),
            mono: Duration::from_secs(mono_s),
        };
        let mut watch = Watch::new(at(1_000_000, 1));
        assert_eq!(watch.jump_ms(at(4_600_000, 3601)), None, "an hour has passed");
        assert_eq!(watch.jump_ms(at(4_601_900, 3602)), None, "slewed");
        assert_eq!(watch.jump_ms(at(8_202_900, 3603)), Some(3_600_000));
        assert_eq!(watch.jump_ms(at(8_203_900, 3604)), None, "said once");
        assert_eq!(watch.jump_ms(at(4_603_900, 3604)), Some(-3_600_000), "backwards");
    }
}
