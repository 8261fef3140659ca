//! Time as a value: the core never asks what time it is, it is told.

use core::fmt;
use core::time::Duration;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Wall-clock time in milliseconds since the Unix epoch, UTC.
///
/// On the wire it is RFC 3339 with exactly three decimals and `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest instant that RFC 3339 can write with a four-digit year.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// Milliseconds since the Unix epoch, clamped to the years 1970 to 9999.
    #[must_use]
    pub fn from_unix_ms(ms: i64) -> Self {
        Self(ms.clamp(0, Self::MAX.0))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// Microseconds since the Unix epoch, the origin of packet sequence numbers.
    #[must_use]
    pub fn unix_us(self) -> u64 {
        self.0.unsigned_abs().saturating_mul(1000)
    }

    /// What an instant must be, for error messages.
    pub const RULE: &str = "must be RFC 3339, 1970 to 9999";

    /// Reads RFC 3339 in any offset; more than three decimals are cut. `None` when it is not
    /// RFC 3339 or lies outside the years 1970 to 9999.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(UtcOffset::UTC);
        let ms = i64::try_from(instant.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (0..=Self::MAX.0).contains(&ms).then_some(Self(ms))
    }

    /// This instant moved by `later`, held at [`Self::MAX`].
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self::from_unix_ms(
            self.0.saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant =
            OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000)).map_err(|_| fmt::Error)?;
        let (year, month, day) = instant.to_calendar_date();
        let (hour, minute, second) = instant.to_hms();
        let (year, ms) = (year.unsigned_abs(), self.0.rem_euclid(1000).unsigned_abs());
        // Three in each packet: many times as quick as a format, and one piece.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let parts = [
            (0..4, u64::from(year)),
            (5..7, u64::from(u8::from(month))),
            (8..10, u64::from(day)),
            (11..13, u64::from(hour)),
            (14..16, u64::from(minute)),
            (17..19, u64::from(second)),
            (20..23, ms),
        ];
        for (place, number) in parts {
            write_number(text.get_mut(place).unwrap_or_default(), number);
        }
        formatter.write_str(core::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The last decimal digits of a number, as many as there is room for.
fn write_number(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The two clocks at one moment: the wall for what others read, the monotonic one for waits.
///
/// A step of the wall clock must not open, close or stall anything, so every timer of the core
/// runs on `mono`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time.
    pub wall: Timestamp,
    /// Time since an arbitrary origin of this process; never falls back.
    pub mono: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_with_three_decimals_and_read_back() {
        for text in
            ["1970-01-01T00:00:00.000Z", "2026-11-23T01:02:03.450Z", "9999-12-31T23:59:59.999Z"]
        {
            assert_eq!(Timestamp::parse(text).map(|read| read.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Timestamp::parse("2025-12-12T19:55:09.1+00:00Z"), None);
        assert_eq!(Timestamp::parse("1969-12-31T23:59:59Z"), None);
        assert_eq!(
            Timestamp::parse("2026-01-01T01:00:00.1239+01:00"),
            Timestamp::parse("2026-01-01T00:00:00.123Z")
        );
    }
}
