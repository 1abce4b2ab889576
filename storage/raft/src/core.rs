//! Raft as the rest of this crate sees it: a small trait without openraft's
//! types and without a runtime parameter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use triarch_mvcc::levels::TooOld;

use crate::types::{NodeId, Payload, Replica, StoredMembership};

/// Why a proposal has no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// Certainly not appended.
    #[error("not the leader")]
    NotLeader,
    #[error("{0}")]
    Unknown(String),
    #[error("raft stopped: {0}")]
    Stopped(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadIndexError {
    #[error("not the leader")]
    NotLeader,
    /// No quorum confirmed the leadership in time.
    #[error("{0}")]
    NoQuorum(String),
    #[error("raft stopped: {0}")]
    Stopped(String),
}

/// A change of the membership was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("not the leader (the leader is {0:?})")]
    NotLeader(Option<NodeId>),
    #[error("another membership change is under way; try again")]
    InProgress,
    #[error("replica {0} is not known; it has to join first")]
    Unknown(NodeId),
    #[error("replica id {0} was used before and is never used again; join with an empty data directory")]
    Reused(NodeId),
    #[error("removing replica {0} would leave no voter")]
    LastVoter(NodeId),
    #[error("this replica has data already")]
    NotEmpty,
    #[error(transparent)]
    TooOld(#[from] TooOld),
    #[error("no answer within {0:?}; the change may still be made")]
    Timeout(Duration),
    #[error("{0}")]
    Failed(String),
}

/// What the core knows of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoreStatus {
    pub leader: Option<NodeId>,
    pub last_log: Option<u64>,
    /// Age of the last quorum ack; only a leader has one.
    pub quorum_ack: Option<Duration>,
    /// Only a leader knows: matched index and age of the last heartbeat ack.
    pub followers: BTreeMap<NodeId, (Option<u64>, Option<Duration>)>,
    pub voters: Vec<NodeId>,
    pub nodes: BTreeMap<NodeId, Replica>,
}

#[async_trait]
pub(crate) trait Core: Send + Sync + 'static {
    /// Appends a batch as the leader; resolves to its index once it is applied there.
    async fn propose(&self, payload: Payload) -> Result<u64, ProposeError>;
    /// As the leader: an index that covers every write acknowledged before now.
    async fn read_index(&self) -> Result<u64, ReadIndexError>;
    async fn initialize(&self) -> Result<(), MembershipError>;
    /// The membership in force, asked of raft itself: [`Core::status`] may be
    /// behind a change that was answered already.
    async fn members(&self) -> Result<Arc<StoredMembership>, MembershipError>;
    async fn add_learner(&self, id: NodeId, replica: Replica) -> Result<(), MembershipError>;
    async fn promote(&self, id: NodeId) -> Result<(), MembershipError>;
    async fn remove(&self, id: NodeId) -> Result<(), MembershipError>;
    async fn transfer_leader(&self, to: NodeId) -> Result<(), MembershipError>;
    /// The checkpoint has advanced: let openraft see it and purge the log behind it.
    async fn checkpoint_advanced(&self);
    fn status(&self) -> CoreStatus;
    /// Entries committed and not yet applied here.
    fn apply_backlog(&self) -> u64;
    async fn shutdown(&self);
}
