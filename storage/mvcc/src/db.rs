//! The door to the store for everything above storage.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Epoch, Mvcc, Revision, Txn, TxnOutcome};
use std::sync::Arc;

/// What a commit answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub outcome: TxnOutcome,
    /// The store's head revision just after the transaction's batch entry.
    pub revision: Revision,
}

/// Why a commit or a read barrier has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// There was no leader inside the bound, and the write was certainly not made.
    #[error("no leader elected within {0:?}")]
    NoLeader(Duration),
    /// The write may or may not have been made, or may still be.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// Queues are full; certainly not made.
    #[error("too many writes in flight")]
    Overloaded,
    /// A leader-only write of a leadership that has ended; certainly not made.
    #[error("leadership {0:?} has ended")]
    Fenced(Epoch),
    /// Larger than one proposal may be, in bytes; certainly not made.
    #[error("request is too large: {size} bytes, limit {limit}")]
    TooLarge { size: usize, limit: usize },
    /// What it does needs a higher feature level than the cluster's; certainly not made.
    #[error(
        "feature level {needs} is needed, and the cluster is at {level}, until every replica runs a release that \
         supports it"
    )]
    FeatureLevel { needs: u64, level: u64 },
    /// The replica is stopping or its disk failed.
    #[error("replica is stopping: {0}")]
    Stopped(String),
}

/// The store as seen from a replica. Every change of state goes through
/// [`Db::commit`]; reads are taken from [`Db::mvcc`], after
/// [`Db::read_barrier`] when they must be linearizable.
#[async_trait]
pub trait Db: Send + Sync + 'static {
    /// Proposes a transaction and waits until this replica has applied it, so
    /// that the caller reads its own write from [`Db::mvcc`]. Retries inside a
    /// bound while there is no leader; a retry is recognised by the store and
    /// never applied twice.
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError>;

    /// A linearizable read point: resolves to a revision that this replica has
    /// applied and that covers every write acknowledged before the call.
    async fn read_barrier(&self) -> Result<Revision, CommitError>;

    /// Waits until this replica has applied `revision`; `false` after `timeout`.
    async fn wait_revision(&self, revision: Revision, timeout: Duration) -> bool;

    /// This replica's memory.
    fn mvcc(&self) -> &Arc<Mvcc>;
}
