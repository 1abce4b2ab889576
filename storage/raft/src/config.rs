//! What a replica is told when it starts: who it is, its clocks and its bounds.

use std::time::Duration;

use crate::types::{NodeId, Replica};

/// A replica's identity and settings.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    pub cluster_id: String,
    pub node_id: NodeId,
    /// This replica as the membership shows it to the others.
    pub replica: Replica,
    /// The replica has just been born: an empty log is no sign of a wiped one.
    pub new_log: bool,
    /// The highest feature level that this replica applies: its release's.
    pub supports: u64,
    pub timers: Timers,
    pub limits: RaftLimits,
    pub window: Window,
    pub mvcc: triarch_mvcc::Limits,
}

impl RaftConfig {
    /// The defaults for replica `node_id` of `cluster_id`.
    pub fn new(cluster_id: impl Into<String>, node_id: NodeId, replica: Replica) -> RaftConfig {
        RaftConfig {
            cluster_id: cluster_id.into(),
            node_id,
            replica,
            new_log: false,
            supports: triarch_mvcc::levels::LATEST,
            timers: Timers::default(),
            limits: RaftLimits::default(),
            window: Window::default(),
            mvcc: triarch_mvcc::Limits::default(),
        }
    }
}

/// Durations. The elections' are openraft's, the rest are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Between two signs of life from the leader. Default 20 ms.
    pub heartbeat: Duration,
    /// A follower that heard nothing this long may stand for election: default 100 to 150 ms.
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a write or a read waits for a leader before it gives up: 10 s.
    pub no_leader_hold: Duration,
    /// How long a write may take in all before its outcome is called unknown: 15 s.
    pub commit_deadline: Duration,
    /// One call to a peer.
    pub call: Duration,
    /// Opening a stream to a peer.
    pub connect: Duration,
    /// A stream with unanswered requests and no answer for this long is broken off.
    pub stream_stall: Duration,
    /// No snapshot page in this long: the transfer is broken off, and later resumed.
    pub snapshot_stall: Duration,
    /// A leader without a quorum's ack for this long does no leader-only work.
    pub quorum_ack_max_age: Duration,
    /// After a leader was agreed to be lost: the time each election attempt gets. An attempt
    /// takes a sync of two logs; one that is cut short begins again with nothing.
    pub failover_step: Duration,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            heartbeat: Duration::from_millis(20),
            election_min: Duration::from_millis(100),
            election_max: Duration::from_millis(150),
            no_leader_hold: Duration::from_secs(10),
            commit_deadline: Duration::from_secs(15),
            call: Duration::from_secs(2),
            connect: Duration::from_secs(1),
            stream_stall: Duration::from_secs(5),
            snapshot_stall: Duration::from_secs(20),
            quorum_ack_max_age: Duration::from_millis(500),
            failover_step: Duration::from_millis(20),
        }
    }
}

/// Bounds of queues and sizes; past them a caller is told so at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftLimits {
    /// One transaction, bytes.
    pub txn_bytes: usize,
    /// One batch: transactions and bytes (a single larger transaction is a batch of its own).
    pub batch_txns: usize,
    pub batch_bytes: usize,
    /// Batches of this replica on their way at once.
    pub inflight_batches: usize,
    /// Transactions and bytes that wait for a batch.
    pub queue_txns: usize,
    pub queue_bytes: usize,
    /// Reads that wait for a read index.
    pub barrier_waiters: usize,
    /// Batches of followers that the leader has in hand at once.
    pub forwarded_batches: usize,
    /// One message of entries to a follower, bytes (a single larger entry goes alone).
    pub append_bytes: usize,
    /// One snapshot page, bytes.
    pub snapshot_page_bytes: usize,
    /// How long the log behind a snapshot is kept after its transfer was last
    /// heard of: who comes back for the rest must find what follows it.
    pub transfer_grace: Duration,
}

impl Default for RaftLimits {
    fn default() -> RaftLimits {
        RaftLimits {
            txn_bytes: 8 * 1024 * 1024,
            batch_txns: 512,
            batch_bytes: 1024 * 1024,
            inflight_batches: 4,
            queue_txns: 8192,
            queue_bytes: 64 * 1024 * 1024,
            barrier_waiters: 65_536,
            forwarded_batches: 64,
            append_bytes: 4 * 1024 * 1024,
            snapshot_page_bytes: 512 * 1024,
            transfer_grace: Duration::from_secs(60),
        }
    }
}

/// The watch window: how much history stays in memory, and how far the
/// checkpoint stays behind the head. Whichever is reached first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub age: Duration,
    pub events: u64,
    pub bytes: u64,
    /// How often the leader looks whether the floor must rise, and every
    /// replica whether its checkpoint can advance.
    pub check: Duration,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            age: Duration::from_secs(300),
            events: 100_000,
            bytes: 256 * 1024 * 1024,
            check: Duration::from_secs(5),
        }
    }
}
