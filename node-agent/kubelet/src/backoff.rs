//! Restart and pull back-off: 10 s, doubled up to 300 s, forgotten after twice that.
//!
//! Values on a clock that is handed in; the caller keeps them by container or
//! image. As upstream: the first restart is at once, each further one waits
//! since the container last ended.

use std::collections::BTreeMap;
use std::time::Duration;

use triarch_env::Wall;

pub const INITIAL: Duration = Duration::from_secs(10);
pub const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: Duration,
    updated: Wall,
}

/// Back-offs by key; the caller bounds the keys (a pod's containers, its images).
#[derive(Clone, Debug, Default)]
pub struct Backoffs(BTreeMap<String, Entry>);

fn between(earlier: Wall, later: Wall) -> Duration {
    Duration::from_micros(u64::try_from(later.micros.saturating_sub(earlier.micros)).unwrap_or(0))
}

impl Backoffs {
    /// The delay in force and what is left of it, when something that
    /// happened at `since` must still wait.
    pub fn waiting(&self, key: &str, since: Wall, now: Wall) -> Option<(Duration, Duration)> {
        let entry = self.0.get(key)?;
        if between(entry.updated, since) > MAX * 2 {
            return None;
        }
        let passed = between(since, now);
        (passed < entry.delay).then(|| (entry.delay, entry.delay - passed))
    }

    /// Notes one more attempt, following something that happened at `since`.
    pub fn next(&mut self, key: &str, since: Wall, now: Wall) {
        let delay = match self.0.get(key) {
            Some(e) if between(e.updated, since) <= MAX * 2 => (e.delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.0.insert(key.to_owned(), Entry { delay, updated: now });
    }

    pub fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

/// `10s`, `1m20s`, `5m0s`: a duration as upstream's messages print it.
pub fn text(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_ten_seconds_to_five_minutes() {
        let mut b = Backoffs::default();
        let mut now = Wall::from_secs(1000);
        assert_eq!(b.waiting("c", now, now), None, "the first restart is at once");
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            b.next("c", now, now);
            let (delay, left) = b.waiting("c", now, now).expect("waits");
            assert_eq!((delay.as_secs(), left.as_secs()), (expected, expected));
            let half = now + Duration::from_secs(expected / 2);
            assert_eq!(b.waiting("c", now, half).expect("still waits").1.as_secs(), expected / 2);
            now = now + Duration::from_secs(expected);
            assert_eq!(b.waiting("c", Wall::from_secs(now.secs() - expected as i64), now), None);
        }
    }

    #[test]
    fn a_container_that_ran_for_long_starts_over() {
        let mut b = Backoffs::default();
        b.next("c", Wall::from_secs(0), Wall::from_secs(0));
        b.next("c", Wall::from_secs(20), Wall::from_secs(20));
        let ended = Wall::from_secs(20 + 601);
        assert_eq!(b.waiting("c", ended, ended), None);
        b.next("c", ended, ended);
        assert_eq!(b.waiting("c", ended, ended).expect("waits").0, INITIAL);
    }

    #[test]
    fn durations_read_as_in_upstreams_messages() {
        assert_eq!(text(Duration::from_secs(10)), "10s");
        assert_eq!(text(Duration::from_secs(80)), "1m20s");
        assert_eq!(text(Duration::from_secs(300)), "5m0s");
    }
}
