//! Throughput and latency, second by second.

use hdrhistogram::Histogram;
use triarch_check::Operation;

/// One second of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Writes that were acknowledged in it.
    pub acked: u32,
    /// Requests that ended in it without an answer that says anything.
    pub unknown: u32,
    /// Of acknowledged writes, microseconds.
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

const NANOS: u64 = 1_000_000_000;
/// Slower ones count as that slow, microseconds.
const SLOWEST: u64 = 60_000_000;
/// A longer run is cut here.
const MOST: usize = 25 * 3600;

/// Adds one round's operations to the run's seconds. Rounds follow one another,
/// so no second's histogram is needed twice but the border's, which the later
/// round's replaces when it has more.
pub fn add(seconds: &mut Vec<Second>, history: &[Operation]) {
    let mut by_second: std::collections::BTreeMap<usize, Vec<&Operation>> = Default::default();
    for o in history.iter().filter(|o| o.is_write()) {
        by_second.entry((o.end / NANOS) as usize).or_default().push(o);
    }
    for (at, operations) in by_second.range(..MOST) {
        if seconds.len() <= *at {
            seconds.resize(at + 1, Second::default());
        }
        let second = of(operations);
        if second.acked >= seconds[*at].acked {
            seconds[*at] = second;
        }
    }
}

fn of(operations: &[&Operation]) -> Second {
    let mut latency = Histogram::<u64>::new_with_max(SLOWEST, 2).expect("bounds that are valid");
    let mut second = Second::default();
    for o in operations {
        if o.is_acked() {
            second.acked += 1;
            latency.saturating_record((o.end - o.start) / 1_000);
        } else if o.outcome == triarch_check::Outcome::Unknown {
            second.unknown += 1;
        }
    }
    let at = |q| if second.acked == 0 { 0 } else { latency.value_at_quantile(q) };
    Second { p50: at(0.5), p99: at(0.99), max: at(1.0), ..second }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_check::{Action, Outcome};

    #[test]
    fn writes_count_in_the_second_in_which_they_end() {
        let op = |end_ms: u64, took_ms: u64, outcome| Operation {
            client: 0,
            key: "k".into(),
            action: Action::Write(1),
            outcome,
            start: (end_ms - took_ms) * 1_000_000,
            end: end_ms * 1_000_000,
        };
        let ok = || Outcome::Ok { revision: 1, value: None };
        let history = [op(2_100, 10, ok()), op(2_900, 30, ok()), op(2_950, 900, Outcome::Unknown)];
        let mut seconds = Vec::new();
        add(&mut seconds, &history);
        assert_eq!(seconds.len(), 3);
        assert_eq!((seconds[2].acked, seconds[2].unknown), (2, 1));
        assert!((9_900..=10_200).contains(&seconds[2].p50) && (29_700..=30_300).contains(&seconds[2].max));
    }
}
