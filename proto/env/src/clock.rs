//! Two clocks that must not be mixed: monotonic for durations, wall for metav1 fields.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a process's monotonic clock. Only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

impl Mono {
    /// Time since `earlier`, zero when `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(d))
    }
}

impl Sub<Mono> for Mono {
    type Output = Duration;
    fn sub(self, other: Mono) -> Duration {
        self.since(other)
    }
}

/// Wall-clock time, microseconds since the Unix epoch, UTC. It goes into
/// metav1 Time and MicroTime fields and decides nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall {
    /// Microseconds since 1970-01-01T00:00:00Z; negative before it.
    pub micros: i64,
}

impl Wall {
    pub fn from_secs(secs: i64) -> Wall {
        Wall { micros: secs.saturating_mul(1_000_000) }
    }

    /// Whole seconds since the epoch, rounded towards negative infinity.
    pub fn secs(self) -> i64 {
        self.micros.div_euclid(1_000_000)
    }

    /// metav1.Time: RFC 3339, UTC, seconds (`2006-01-02T15:04:05Z`).
    pub fn rfc3339(self) -> String {
        let (y, mo, d, h, mi, s) = self.civil();
        format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
    }

    /// metav1.MicroTime: RFC 3339, UTC, six fractional digits.
    pub fn rfc3339_micro(self) -> String {
        let (y, mo, d, h, mi, s) = self.civil();
        let us = self.micros.rem_euclid(1_000_000);
        format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z")
    }

    /// Proleptic Gregorian date and time of day.
    fn civil(self) -> (i64, u32, u32, u32, u32, u32) {
        let secs = self.secs();
        let days = secs.div_euclid(86_400);
        let tod = secs.rem_euclid(86_400) as u32;
        // Days are counted in 400-year eras that start on 1 March, so that the
        // leap day is the last day of a year.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let d = (doy - (153 * mp + 2) / 5 + 1) as u32;
        let m = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
        let y = yoe + era * 400 + i64::from(m <= 2);
        (y, m, d, tod / 3600, tod / 60 % 60, tod % 60)
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, d: Duration) -> Wall {
        Wall { micros: self.micros.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_times_are_written_as_rfc3339_in_utc() {
        assert_eq!(Wall::from_secs(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(Wall::from_secs(951_782_400).rfc3339(), "2000-02-29T00:00:00Z");
        assert_eq!(Wall { micros: 1_700_000_000_123_456 }.rfc3339_micro(), "2023-11-14T22:13:20.123456Z");
        assert_eq!(Wall { micros: -1 }.rfc3339_micro(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_monotonic_difference_never_goes_negative() {
        let (a, b) = (Mono(Duration::from_secs(1)), Mono(Duration::from_secs(2)));
        assert_eq!(b - a, Duration::from_secs(1));
        assert_eq!(a - b, Duration::ZERO);
    }
}
