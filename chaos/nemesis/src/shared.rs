//! What writers, watchers and the one who hurts have in common.

use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::board::Board;

/// A [`Board`] with the time line of acknowledgements.
#[derive(Debug)]
pub struct Shared {
    board: Board,
    namespace: String,
    acks: Mutex<Vec<u64>>,
    head: AtomicU64,
    generation: AtomicU64,
}

impl Deref for Shared {
    type Target = Board;

    fn deref(&self) -> &Board {
        &self.board
    }
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
            board: Board::new(began),
            namespace: namespace.to_owned(),
            acks: Mutex::default(),
            head: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where writers and watchers meet.
    pub fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// A write was acknowledged at `at`.
    pub fn ack(&self, at: u64, revision: u64) {
        self.head.fetch_max(revision, Ordering::Relaxed);
        self.board.ack();
        self.acks.lock().expect("no holder panics").push(at);
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
}
