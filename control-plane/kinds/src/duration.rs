//! Ages as kubectl prints them.

use serde_json::Value;
use triarch_env::Wall;

/// `5s`, `3m20s`, `7h5m`, `12d`, …: two units near a change of scale, one
/// otherwise. Two seconds into the future is `<invalid>`, less is `0s`.
pub fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |a: i64, ua: &str, b: i64, ub: &str| if b == 0 { format!("{a}{ua}") } else { format!("{a}{ua}{b}{ub}") };
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => two(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// A timestamp in the API's form as microseconds since the epoch.
pub fn micros(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

/// The time since a `Time` or `MicroTime` field, or `<unknown>`.
pub fn since(timestamp: &Value, now: Wall) -> String {
    match timestamp.as_str().and_then(micros) {
        // Truncated toward zero, as Go's conversion from seconds to int is.
        Some(then) => human(now.micros.saturating_sub(then) / 1_000_000),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_only_near_a_change_of_scale() {
        let hour = 3600;
        let day = 24 * hour;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (3 * hour, "3h"),
            (3 * hour + 60, "3h1m"),
            (8 * hour, "8h"),
            (47 * hour, "47h"),
            (48 * hour, "2d"),
            (49 * hour, "2d1h"),
            (8 * day, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (8 * 365 * day, "8y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn an_absent_timestamp_is_unknown() {
        assert_eq!(since(&Value::Null, Wall::from_secs(10)), "<unknown>");
        assert_eq!(since(&"1970-01-01T00:00:00Z".into(), Wall::from_secs(10)), "10s");
        assert_eq!(since(&"1970-01-01T00:00:00.500000Z".into(), Wall::from_secs(10)), "9s");
    }
}
