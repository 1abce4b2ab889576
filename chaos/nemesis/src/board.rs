//! What clients, watchers and the one who hurts have in common, whatever they write to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The clock and the counters of one run.
#[derive(Debug)]
pub struct Board {
    began: Instant,
    acked: AtomicU64,
    values: AtomicU64,
    stopping: AtomicBool,
    last_revision: AtomicU64,
}

impl Default for Board {
    fn default() -> Board {
        Board::new(Instant::now())
    }
}

impl Board {
    /// Times count from `began`.
    pub fn new(began: Instant) -> Board {
        let [acked, values, last_revision] = [0, 1, 0].map(AtomicU64::new);
        Board { began, acked, values, stopping: AtomicBool::new(false), last_revision }
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a run does not last 500 years")
    }

    /// A value that nobody else writes.
    pub fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// A write was acknowledged.
    pub fn ack(&self) {
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub fn stop_writing(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Watchers end once they have shown everything up to here.
    pub fn end_at(&self, revision: u64) {
        self.last_revision.store(revision, Ordering::Relaxed);
    }

    /// 0 until known.
    pub fn last_revision(&self) -> u64 {
        self.last_revision.load(Ordering::Relaxed)
    }
}
