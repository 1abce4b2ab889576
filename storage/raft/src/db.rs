//! The replica: [`Db`] over Raft.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::AsyncRuntime;
use triarch_env::{Env, Scope};
use triarch_mvcc::{CommitError, Committed, Db, Epoch, Mvcc, Revision, Txn};
use triarch_wal::WalHandle;

use crate::ask::Answers;
use crate::barrier::Barrier;
use crate::birth;
use crate::checkpointer::{Checkpointer, log_rec};
use crate::codec::CodecError;
use crate::compactor;
use crate::config::RaftConfig;
use crate::core::{Core, MembershipError};
use crate::counters::Counters;
use crate::failover::Failover;
use crate::figures::{Latencies, Queues};
use crate::leadership::{LeaderView, LeaderWatch};
use crate::levels;
use crate::log_store::LogStore;
use crate::node::Node;
use crate::proposer::Proposer;
use crate::service::Service;
use crate::shared::Shared;
use crate::starts::{self, Starts};
use crate::state_machine::StateMachine;
use crate::store::Disk;
use crate::stores::Stores;
use crate::transport::{Peer, PeerHandler, SharedTransport};
use crate::types::{LogId, NodeId, Replica, StoredMembership};

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("raft does not start: {0}")]
    Raft(String),
    #[error("the checkpoint cannot be used: {0}")]
    Checkpoint(String),
    #[error(
        "the data directory is not this replica's: {0}; use its own --data-dir, or, when a file was damaged or put in \
         the place of another, restore it, or remove this replica and join it again"
    )]
    Foreign(String),
    #[error(
        "replica {0} has an identity but an empty log: its data was wiped. It cannot come back under its old id, since \
         it forgot what it acknowledged: remove it from the cluster, empty its data directory and join again"
    )]
    Wiped(NodeId),
    /// It is too old a release for this cluster.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Wal(#[from] triarch_wal::WalError),
}

/// One replica, as `triarch status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub id: NodeId,
    pub name: String,
    pub client_address: String,
    pub peer_address: String,
    pub voter: bool,
    /// It answered.
    pub reachable: bool,
    pub ready: bool,
    pub pid: u32,
    pub applied_index: u64,
    pub applied_revision: Revision,
    pub disk_bytes: u64,
    /// The highest feature level that it applies; 0: it has not said.
    pub supports: u64,
    /// When the leader last heard of it; of the leader: of a quorum.
    pub last_ack: Option<Duration>,
}

/// The cluster as this replica sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    pub term: u64,
    pub leader: Option<NodeId>,
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica of the store.
pub struct RaftDb {
    shared: Arc<Shared>,
    core: Arc<dyn Core>,
    proposer: Proposer,
    barrier: Barrier,
    handler: Arc<dyn PeerHandler>,
    starts: Starts,
}

impl RaftDb {
    /// Starts a replica on tokio; see [`RaftDb::start_on`].
    pub async fn start(
        config: RaftConfig,
        env: Env,
        stores: Stores,
        transport: SharedTransport,
    ) -> Result<Arc<RaftDb>, StartError> {
        #[allow(deprecated)] // the crate that it moved to is not among our dependencies
        RaftDb::start_on::<openraft::impls::TokioRuntime>(config, env, stores, transport).await
    }

    /// Starts a replica on runtime `R`, which `env` must belong to. The first
    /// replica of a cluster is then told [`RaftDb::initialize`]; the others are
    /// added by [`RaftDb::add_replica`] on one that is a member.
    pub async fn start_on<R: AsyncRuntime>(
        config: RaftConfig,
        env: Env,
        stores: Stores,
        transport: SharedTransport,
    ) -> Result<Arc<RaftDb>, StartError> {
        birth::own_log(&config, &stores.wal).await?;
        let start = birth::start_from(&config, &env, &stores, &*transport).await?;
        let bad = |e: CodecError| StartError::Checkpoint(e.to_string());
        let applied = start.state.as_ref().map(|(header, _)| log_rec(header));
        let membership = StoredMembership::try_from(start.membership.clone()).map_err(bad)?;
        let mvcc = match start.state {
            Some((_, import)) => import.finish(),
            None => Mvcc::new(config.mvcc.clone()),
        };
        levels::begin(mvcc.feature_level(), config.supports)?;
        let shared = Shared::new(env, Scope::new(), config, mvcc, transport);
        shared.progress.advance(applied.map_or(0, |a| a.index), shared.mvcc.revision());
        *shared.membership.write() = Arc::new(membership.clone());
        let disk =
            Disk { store: stores.checkpoint, cluster_id: shared.config.cluster_id.clone(), node_id: shared.id() };
        let log_size = (stores.wal.clone(), stores.segment_bytes);
        let (starts, noting) = (stores.starts.clone(), stores.noting.clone());
        // A snapshot may be on disk that the log has not heard of.
        let (held, from) = (stores.wal.clone(), applied.map(|a| a.index));
        let last = move || held.state().last.map(|l| l.index).max(from);
        let durable = applied.filter(|_| start.durable);
        let checkpointer =
            Checkpointer::new(shared.clone(), Arc::new(disk), stores.blocking, start.membership, durable, log_size);
        if applied.is_some() && !start.durable {
            checkpointer.write_exported().await.map_err(StartError::Checkpoint)?;
        }
        let log = LogStore::new(stores.wal.clone(), shared.config.limits.append_bytes);
        let machine = StateMachine::new(shared.clone(), checkpointer.clone(), applied.map(LogId::from), membership);
        let node = Node::<R>::start(shared.clone(), log.clone(), machine, checkpointer.clone()).await.map_err(|e| {
            if shared.is_refused() { StartError::Refused(shared.stop_reason()) } else { StartError::Raft(e) }
        })?;
        let failover = Failover::new(shared.clone(), node.raft.clone(), log);
        let handler = Arc::new(Service::new(shared.clone(), node.clone(), failover, starts.clone(), noting));
        let core: Arc<dyn Core> = node;
        let proposer = Proposer::start(shared.clone(), core.clone());
        let barrier = Barrier::start(shared.clone(), core.clone());
        shared.env.spawn_in(&shared.scope, "checkpointer", checkpointer.drive(core.clone()));
        let others = shared.others(&stores.peers);
        shared.env.spawn_in(
            &shared.scope,
            "introduction",
            starts::introduce(shared.clone(), starts.clone(), last, others),
        );
        let db = Arc::new(RaftDb { shared, core, proposer, barrier, handler, starts });
        db.clone().watch_disk(stores.wal);
        db.clone().catch_up();
        db.clone().lead("compaction", compactor::run);
        db.clone().lead("feature level", |db, epoch| {
            let (shared, core) = (db.shared.clone(), db.core.clone());
            levels::run(db, shared, core, epoch)
        });
        Ok(db)
    }

    /// While this replica leads, it does this.
    fn lead<Fut>(
        self: Arc<Self>,
        name: &'static str,
        work: impl Fn(Arc<RaftDb>, Epoch) -> Fut + Clone + Send + Sync + 'static,
    ) where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let this = Arc::downgrade(&self);
        let shared = self.shared.clone();
        self.shared.env.spawn_in(&self.shared.scope, name, async move {
            let work = |epoch, _| {
                let (this, work) = (this.clone(), work.clone());
                async move {
                    if let Some(db) = this.upgrade() {
                        work(db, epoch).await;
                    }
                }
            };
            shared.leadership.run_as_leader(&shared.env, &shared.scope, work).await;
        });
    }

    /// Stops everything when the log has failed: nothing can be acknowledged any more.
    fn watch_disk(self: Arc<Self>, wal: WalHandle) {
        let shared = self.shared.clone();
        self.shared.env.spawn_in(&self.shared.scope, "disk watch", async move {
            let error = wal.failed().await;
            tracing::error!(%error, "the log failed; stopping");
            shared.stop(error.to_string());
        });
    }

    /// Ready once a read point of the cluster is applied here.
    fn catch_up(self: Arc<Self>) {
        let this = self.clone();
        self.shared.env.spawn_in(&self.shared.scope, "catch up", async move {
            while this.barrier.wait().await.is_err() {
                this.shared.env.sleep(Duration::from_millis(100)).await;
            }
            this.shared.set_ready();
        });
    }

    /// Makes this replica the first of a new cluster, which begins at the feature level that it supports.
    pub async fn initialize(&self) -> Result<(), MembershipError> {
        self.core.initialize().await?;
        levels::born(&self.shared).await;
        Ok(())
    }

    /// Gives a joining replica its id and adds it to the cluster as a learner.
    /// The same replica (name and incarnation) asking again gets the same id.
    /// `supports`: the highest feature level that it applies, 0 when it has not said.
    pub async fn add_replica(&self, replica: Replica, supports: u64) -> Result<NodeId, MembershipError> {
        crate::members::add(self, &self.shared, &*self.core, replica, supports).await
    }

    /// Makes a learner a voter, once it has caught up.
    pub async fn promote(&self, id: NodeId) -> Result<(), MembershipError> {
        crate::members::promote(&self.shared, &*self.core, id).await
    }

    /// Takes a replica out for good; its id is never used again.
    pub async fn remove_replica(&self, id: NodeId) -> Result<(), MembershipError> {
        self.core.remove(id).await
    }

    /// Hands leadership to `to`, or to the most advanced other voter; returns
    /// the new view once it has happened.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<LeaderView, MembershipError> {
        crate::members::transfer(&self.shared, &*self.core, to).await
    }

    /// The cluster as this replica sees it; asks every peer for its own part.
    pub async fn status(&self) -> ClusterStatus {
        crate::members::status(&self.shared, &*self.core).await
    }

    /// Who answers for this replica while it leads; see [`RaftDb::ask_leader`].
    pub fn answer_with(&self, answers: Arc<dyn Answers>) {
        *self.shared.answers.write() = Some(answers);
    }

    /// Has the leader's [`Answers`] answer, on whichever replica it is. Waits
    /// within the bound for a missing leader. It may be asked more than once.
    pub async fn ask_leader(&self, question: Bytes) -> Result<Bytes, CommitError> {
        crate::ask::ask(&self.shared, question).await
    }

    /// Bytes of log and checkpoint, as of the last look.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.disk_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The members, learners too, in the order of their ids, and whether each votes.
    pub fn members(&self) -> Vec<(NodeId, Replica, bool)> {
        let members = self.shared.membership.read().clone();
        let voters: Vec<NodeId> = members.voter_ids().collect();
        let nodes = members.membership().nodes();
        nodes.map(|(id, r)| (*id, r.clone(), voters.contains(id))).collect()
    }

    /// What the transport delivers calls and streams to.
    pub fn peer_handler(&self) -> Arc<dyn PeerHandler> {
        self.handler.clone()
    }

    pub fn leader_watch(&self) -> &LeaderWatch {
        &self.shared.leadership
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    pub fn latencies(&self) -> &Arc<Latencies> {
        &self.shared.latencies
    }

    /// What waits, now.
    pub fn queues(&self) -> Queues {
        let (proposals, proposal_bytes) = self.proposer.queued();
        Queues {
            proposals,
            proposal_bytes,
            unanswered: self.shared.outcomes.unanswered(),
            apply: self.core.apply_backlog(),
        }
    }

    pub(crate) fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The other members and where they listen; see `DataDir::save_peers`.
    pub fn peers(&self) -> Vec<Peer> {
        let members = self.shared.membership.read().clone();
        let others = members.membership().nodes().filter(|(id, _)| **id != self.shared.id());
        others.map(|(id, r)| Peer { id: *id, address: r.peer_address.clone() }).collect()
    }

    /// A member, voter or learner.
    pub fn replica(&self, id: NodeId) -> Option<Replica> {
        self.shared.replica(id)
    }

    /// The voters as the membership shows them, in the order of their ids.
    pub fn voters(&self) -> Vec<(NodeId, Replica)> {
        self.members().into_iter().filter(|(_, _, votes)| *votes).map(|(id, r, _)| (id, r)).collect()
    }

    pub fn config(&self) -> &RaftConfig {
        &self.shared.config
    }

    /// Whether this replica has caught up since it started and knows a leader.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready() && self.shared.leadership.view().leader.is_some()
    }

    /// Resolves once this replica has caught up since it started.
    pub async fn ready(&self) {
        self.shared.ready().await;
    }

    /// This replica has stopped and serves nothing any more.
    pub fn is_stopped(&self) -> bool {
        self.shared.scope.is_cancelled()
    }

    /// This replica has stopped because its data directory must not be used.
    pub fn is_refused(&self) -> bool {
        self.shared.is_refused()
    }

    /// The starts of replicas that are noted here.
    pub fn starts(&self) -> &Starts {
        &self.starts
    }

    /// Resolves with the reason when this replica has stopped by itself.
    pub async fn stopped(&self) -> String {
        self.shared.scope.cancelled().await;
        self.shared.stop_reason()
    }

    /// Stops this replica's tasks; the log is closed by its owner.
    pub async fn shutdown(&self) {
        self.shared.stop("shutting down");
        self.core.shutdown().await;
    }

    /// Ends this replica where it stands, as a kill would: nothing is flushed or said.
    pub fn abandon(&self) {
        self.shared.stop("abandoned");
    }
}

#[async_trait]
impl Db for RaftDb {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        self.proposer.commit(txn).await
    }

    async fn read_barrier(&self) -> Result<Revision, CommitError> {
        self.barrier.wait().await
    }

    async fn wait_revision(&self, revision: Revision, timeout: Duration) -> bool {
        if self.shared.progress.revision() >= revision {
            return true;
        }
        self.shared.env.timeout(timeout, self.shared.progress.wait_revision(revision)).await.is_ok()
    }

    fn mvcc(&self) -> &Arc<Mvcc> {
        &self.shared.mvcc
    }
}
