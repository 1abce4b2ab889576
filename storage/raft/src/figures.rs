//! Latencies and queue lengths of one replica's store, for `/metrics`.
//!
//! The write path only adds to atomics; what a queue holds is read from the
//! queue itself when somebody asks. Nothing here decides anything.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bound of the first bucket; each further one is twice the one before.
const FIRST: Duration = Duration::from_micros(50);
/// Buckets with a bound (50 µs to 1.6 s); one more holds what is longer.
const BOUNDED: usize = 16;

/// A histogram of durations, without a lock.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BOUNDED + 1],
    nanos: AtomicU64,
}

/// What a [`Latency`] holds at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyFigures {
    pub seconds: f64,
    pub count: u64,
    /// Upper bounds in seconds, the last one infinite, and how many fell into each alone.
    pub buckets: Vec<(f64, u64)>,
}

impl Latency {
    pub(crate) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Doublings of the first bound that it takes to hold it.
        let times = nanos.saturating_sub(1) / FIRST.as_nanos() as u64;
        let bucket = (u64::BITS - times.leading_zeros()) as usize;
        self.buckets[bucket.min(BOUNDED)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    pub fn figures(&self) -> LatencyFigures {
        let bounds = (0..BOUNDED).map(|i| FIRST.as_secs_f64() * f64::from(1u32 << i)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(&self.buckets).map(|(bound, n)| (bound, n.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        LatencyFigures { seconds: Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64(), count, buckets }
    }
}

/// The store's latencies since it started.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Of transactions with an outcome, from the proposal to the answer.
    pub commit: Latency,
    /// Of entries: applying one to memory and telling who waits.
    pub apply: Latency,
}

/// What waits, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Transactions that wait for a place in a batch, and their bytes.
    pub proposals: usize,
    pub proposal_bytes: usize,
    /// Transactions without an answer, these among them.
    pub unanswered: usize,
    /// Entries committed and not yet applied here.
    pub apply: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let latency = Latency::default();
        for micros in [0, 50, 51, 100, 101, 1_638_400, 1_638_401, 3_600_000_000] {
            latency.observe(Duration::from_micros(micros));
        }
        let figures = latency.figures();
        let filled: Vec<_> = figures.buckets.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(filled, [&(50e-6, 2), &(100e-6, 2), &(200e-6, 1), &(1.6384, 1), &(f64::INFINITY, 2)]);
        assert_eq!(figures.count, 8);
        assert!((figures.seconds - 3_603.277_103).abs() < 1e-6, "{}", figures.seconds);
    }
}
