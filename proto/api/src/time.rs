//! `metav1.Time` and `metav1.MicroTime`: RFC 3339 in, UTC out.
//!
//! Parsing gives the texts that Go's parser gives. A clock is none of this
//! module's business: callers pass the time.

use std::fmt;

/// A moment in UTC: seconds since the epoch and nanoseconds of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    pub secs: i64,
    pub nanos: u32,
}

/// Go's text: `parsing time "x" as "layout": cannot parse "y" as "z"`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimeError(pub String);

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";
/// The zero moment of Go (0001-01-01), which the API writes as null.
const GO_ZERO: i64 = -62_135_596_800;

impl Timestamp {
    pub fn from_micros(micros: i64) -> Timestamp {
        Timestamp { secs: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1000) as u32 }
    }

    pub fn micros(&self) -> i64 {
        self.secs.saturating_mul(1_000_000).saturating_add(i64::from(self.nanos) / 1000)
    }

    /// Go's zero time, which is written as `null`.
    pub fn is_go_zero(&self) -> bool {
        self.secs == GO_ZERO && self.nanos == 0
    }
}

/// `metav1.Time`: RFC 3339, with or without a fraction.
pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
    Parser { text, rest: text, layout: LAYOUT }.run(false)
}

/// `metav1.MicroTime`: RFC 3339 with exactly six digits of fraction.
pub fn parse_micro(text: &str) -> Result<Timestamp, TimeError> {
    Parser { text, rest: text, layout: MICRO_LAYOUT }.run(true)
}

/// As `metav1.Time` is written: seconds, UTC.
pub fn format(t: Timestamp) -> String {
    format!("{}Z", Civil::of(t.secs))
}

/// As `metav1.MicroTime` is written: six digits, UTC.
pub fn format_micro(t: Timestamp) -> String {
    format!("{}.{:06}Z", Civil::of(t.secs), t.nanos / 1000)
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl<'a> Parser<'a> {
    fn run(mut self, micro: bool) -> Result<Timestamp, TimeError> {
        let year = self.digits(4, "2006")?;
        self.literal("-")?;
        let month = self.digits(2, "01")?;
        if !(1..=12).contains(&month) {
            return Err(self.range("month"));
        }
        self.literal("-")?;
        let day = self.digits(2, "02")?;
        self.literal("T")?;
        let hour = self.digits(2, "15")?;
        if hour > 23 {
            return Err(self.range("hour"));
        }
        self.literal(":")?;
        let minute = self.digits(2, "04")?;
        if minute > 59 {
            return Err(self.range("minute"));
        }
        self.literal(":")?;
        let second = self.digits(2, "05")?;
        if second > 59 {
            return Err(self.range("second"));
        }
        let nanos = self.fraction(micro)?;
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(TimeError(format!(
                "parsing time {}: extra text: {}",
                crate::text::quote(self.text),
                crate::text::quote(self.rest)
            )));
        }
        if day < 1 || day > days_in(year, month) {
            return Err(self.range("day"));
        }
        let days = days_from_civil(year, month, day);
        Ok(Timestamp { secs: days * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos })
    }

    fn cannot(&self, as_what: &str) -> TimeError {
        TimeError(format!(
            "parsing time {} as {}: cannot parse {} as {}",
            crate::text::quote(self.text),
            crate::text::quote(self.layout),
            crate::text::quote(self.rest),
            crate::text::quote(as_what)
        ))
    }

    fn range(&self, what: &str) -> TimeError {
        TimeError(format!("parsing time {}: {what} out of range", crate::text::quote(self.text)))
    }

    fn digits(&mut self, n: usize, as_what: &str) -> Result<i64, TimeError> {
        let ok = self.rest.len() >= n && self.rest.as_bytes()[..n].iter().all(u8::is_ascii_digit);
        if !ok {
            return Err(self.cannot(as_what));
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Ok(head.bytes().fold(0, |v, b| v * 10 + i64::from(b - b'0')))
    }

    fn literal(&mut self, what: &str) -> Result<(), TimeError> {
        match self.rest.strip_prefix(what) {
            Some(tail) => {
                self.rest = tail;
                Ok(())
            }
            None => Err(self.cannot(what)),
        }
    }

    fn fraction(&mut self, micro: bool) -> Result<u32, TimeError> {
        let n = match self.rest.as_bytes() {
            [b'.' | b',', digits @ ..] => digits.iter().take_while(|b| b.is_ascii_digit()).count(),
            _ => 0,
        };
        if micro && n < 6 {
            return Err(self.cannot(".000000"));
        }
        if n == 0 {
            return Ok(0);
        }
        let take = if micro { 6 } else { n };
        let digits = &self.rest[1..=take];
        self.rest = &self.rest[take + 1..];
        let nanos = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
        Ok(nanos.fold(0, |v, b| v * 10 + u32::from(b - b'0')))
    }

    fn offset(&mut self) -> Result<i64, TimeError> {
        if let Some(tail) = self.rest.strip_prefix('Z') {
            self.rest = tail;
            return Ok(0);
        }
        let b = self.rest.as_bytes();
        let shape = b.len() >= 6
            && matches!(b[0], b'+' | b'-')
            && b[3] == b':'
            && [1, 2, 4, 5].iter().all(|&i| b[i].is_ascii_digit());
        if !shape {
            return Err(self.cannot("Z07:00"));
        }
        let two = |i: usize| i64::from(b[i] - b'0') * 10 + i64::from(b[i + 1] - b'0');
        let (hours, minutes) = (two(1), two(4));
        if hours > 24 {
            return Err(self.range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.range("time zone offset minute"));
        }
        let sign = if b[0] == b'-' { -1 } else { 1 };
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

/// A date and a time of day.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    second: i64,
}

impl Civil {
    fn of(secs: i64) -> Civil {
        let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        // Days to civil, by eras of 400 years starting in March.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Civil { year: yoe + era * 400 + i64::from(month <= 2), month, day, second }
    }
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s) = (self.second / 3600, self.second / 60 % 60, self.second % 60);
        write!(f, "{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}", self.year, self.month, self.day)
    }
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_utc_and_fractions_go() {
        let t = parse("2024-02-29T23:30:00.75+01:00").unwrap();
        assert_eq!(format(t), "2024-02-29T22:30:00Z");
        assert_eq!(format_micro(t), "2024-02-29T22:30:00.750000Z");
        assert_eq!(parse("1969-12-31T23:59:59Z").unwrap().secs, -1);
        assert!(parse("0001-01-01T00:00:00Z").unwrap().is_go_zero());
    }

    #[test]
    fn every_day_of_four_centuries_round_trips() {
        for days in (-800_000i64..800_000).step_by(997) {
            let t = Timestamp { secs: days * 86_400 + 12_345, nanos: 0 };
            assert!(!(0..9999).contains(&Civil::of(t.secs).year) || parse(&format(t)).unwrap() == t);
        }
    }

    #[test]
    fn errors_read_as_gos_do() {
        let text = |r: Result<Timestamp, TimeError>| r.unwrap_err().to_string();
        assert_eq!(text(parse("x")), r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#);
        assert_eq!(text(parse("2024-13-01T00:00:00Z")), r#"parsing time "2024-13-01T00:00:00Z": month out of range"#);
        assert_eq!(text(parse("2023-02-29T00:00:00Z")), r#"parsing time "2023-02-29T00:00:00Z": day out of range"#);
        assert!(text(parse_micro("2024-01-01T00:00:00Z")).ends_with(r#"cannot parse "Z" as ".000000""#));
    }

    #[test]
    fn micro_times_round_trip() {
        let s = "2026-01-02T03:04:05.678901Z";
        assert_eq!(format_micro(parse_micro(s).unwrap()), s);
    }
}
