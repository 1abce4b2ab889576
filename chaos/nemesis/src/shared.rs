//! What writers, watchers and the one who hurts have in common.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Counters and the time line of acknowledgements.
#[derive(Debug)]
pub struct Shared {
    began: Instant,
    namespace: String,
    acks: Mutex<Vec<u64>>,
    head: AtomicU64,
    values: AtomicU64,
    generation: AtomicU64,
    stopping: AtomicBool,
    last_revision: AtomicU64,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared::new(Instant::now(), "nemesis")
    }
}

impl Shared {
    /// Times count from `began`; the load is in `namespace`.
    pub fn new(began: Instant, namespace: &str) -> Shared {
        Shared {
            began,
            namespace: namespace.to_owned(),
            acks: Mutex::default(),
            head: AtomicU64::new(0),
            values: AtomicU64::new(1),
            generation: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            last_revision: AtomicU64::new(0),
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where writers and watchers meet.
    pub fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a run does not last 500 years")
    }

    /// A value that nobody else writes.
    pub fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// A write was acknowledged at `at`.
    pub fn ack(&self, at: u64, revision: u64) {
        self.head.fetch_max(revision, Ordering::Relaxed);
        self.acks.lock().expect("no holder panics").push(at);
    }

    pub fn acked(&self) -> u64 {
        self.acks.lock().expect("no holder panics").len() as u64
    }

    /// Highest acknowledged revision.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// When writes were acknowledged, ascending.
    pub fn ack_times(&self) -> Vec<u64> {
        let mut times = self.acks.lock().expect("no holder panics").clone();
        times.sort_unstable();
        times
    }

    /// All replicas are well: clients go back to their own.
    pub fn go_home(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
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
