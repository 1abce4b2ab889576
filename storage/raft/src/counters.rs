//! Counters that `/metrics` and `triarch status` show. Plain atomics: the write
//! path only adds.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What this replica's store has counted since it started.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Counters {
            /// Names and values, in a fixed order.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed))),*]
            }
        }
    };
}

counters! {
    /// Transactions that were answered with an outcome.
    commits,
    /// Transactions that were answered with an error.
    commit_errors,
    /// Batches proposed, and attempts beyond each one's first.
    batches,
    batch_retries,
    /// Batches that went to another replica.
    forwarded,
    /// Entries and transactions applied.
    entries_applied,
    txns_applied,
    /// Read barriers answered, and read-index rounds that answered them.
    barriers,
    barrier_rounds,
    /// Streams to peers that broke, and peers that were refused.
    streams_broken,
    peers_refused,
    /// A stream from the leader broke; a quorum agreed that it is lost; it came back by itself.
    leader_lost_seen,
    leader_lost_agreed,
    leader_lost_false,
    /// Elections that this replica started for a lost leader.
    failover_elections,
    /// Asked a peer whether it would vote, because nothing was heard of the leader for an election timeout.
    pre_votes_asked,
    /// Checkpoint advances, and snapshots sent and installed.
    checkpoints,
    snapshots_sent,
    snapshots_installed,
    /// Pages of snapshots received, and transfers that went on where they had broken.
    snapshot_pages_received,
    snapshots_resumed,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
