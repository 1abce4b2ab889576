//! openraft itself: its configuration, the calls that the rest of this crate
//! makes of it, and the monitor that publishes who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::ReadLogId;
use openraft::{AsyncRuntime, ChangeMembers, Config, Instant, LinearizerOption, ServerState, SnapshotPolicy};

use triarch_mutants::mutant;
use triarch_mvcc::Epoch;

use crate::acks::Stamp;
use crate::checkpointer::Checkpointer;
use crate::config::{RaftConfig, RaftLimits};
use crate::core::{Core, CoreStatus, MembershipError, ProposeError, ReadIndexError};
use crate::leadership::LeaderView;
use crate::log_store::LogStore;
use crate::network::Factory;
use crate::shared::Shared;
use crate::state_machine::StateMachine;
use crate::transport::PeerStream;
use crate::types::{NodeId, Payload, Replica, StoredMembership, TypeConfig, epoch_of};

pub(crate) type Raft<R> = openraft::Raft<TypeConfig<R>, StateMachine>;

/// A read-index round that has no quorum by then is asked again.
const READ_INDEX_WAIT: Duration = Duration::from_millis(500);
const MEMBERSHIP_WAIT: Duration = Duration::from_secs(10);

pub(crate) struct Node<R: AsyncRuntime> {
    pub raft: Raft<R>,
    shared: Arc<Shared>,
    checkpointer: Arc<Checkpointer>,
    /// Held over both steps of a change of voters.
    changing: tokio::sync::Mutex<()>,
    /// Somebody is about to finish a change that another leader began.
    finishing: AtomicBool,
}

/// openraft's settings; why each is as it is stands in the design.
fn openraft_config(config: &RaftConfig) -> Config {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
    let RaftLimits { forwarded_batches, inflight_batches, .. } = config.limits;
    Config {
        cluster_name: config.cluster_id.clone(),
        heartbeat_interval: ms(config.timers.heartbeat),
        election_timeout_min: ms(config.timers.election_min),
        election_timeout_max: ms(config.timers.election_max),
        snapshot_policy: SnapshotPolicy::Never,
        // The checkpoint's lag is what is kept for followers that lag.
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        replication_lag_threshold: 1000,
        max_payload_entries: 1024,
        api_channel_size: Some(((forwarded_batches + inflight_batches) as u64 * 4).max(1024)),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        backoff: "5ms 10ms 20ms ...200ms".into(),
        broadcast_submitted_on_append: Some(true),
        install_snapshot_timeout: ms(config.timers.snapshot_stall),
        ..Config::default()
    }
}

impl<R: AsyncRuntime> Node<R> {
    pub async fn start(
        shared: Arc<Shared>,
        log: LogStore,
        state_machine: StateMachine,
        checkpointer: Arc<Checkpointer>,
    ) -> Result<Arc<Node<R>>, String> {
        let config = openraft_config(&shared.config).validate().map_err(|e| e.to_string())?;
        let factory = Factory::new(shared.clone(), checkpointer.clone());
        let raft = Raft::<R>::new(shared.id(), Arc::new(config), factory, log, state_machine)
            .await
            .map_err(|e| e.to_string())?;
        let node = Arc::new(Node {
            raft,
            shared,
            checkpointer,
            changing: tokio::sync::Mutex::default(),
            finishing: AtomicBool::new(false),
        });
        node.refresh();
        let monitor = node.clone();
        node.shared.env.spawn_in(&node.shared.scope, "leadership monitor", async move { monitor.monitor().await });
        Ok(node)
    }

    /// Publishes leadership and membership as they change, and ages the
    /// quorum's last ack meanwhile.
    async fn monitor(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        let established = self.shared.leadership.clone();
        loop {
            self.refresh();
            self.finish_change();
            let seen = established.last_established();
            let leading = self.raft.is_leader();
            // Only a leader has an age to watch.
            let pause =
                if leading { self.shared.config.timers.quorum_ack_max_age / 4 } else { Duration::from_secs(3600) };
            futures::select_biased! {
                changed = metrics.changed().fuse() => if changed.is_err() {
                    let reason = match &self.raft.metrics().borrow_watched().running_state {
                        Err(e) => e.to_string(),
                        Ok(()) => "raft stopped".into(),
                    };
                    tracing::error!(reason, "raft stopped");
                    self.shared.stop(reason);
                    return;
                },
                () = wait_established(&established, seen).fuse() => {}
                () = self.shared.env.sleep(pause).fuse() => {}
            }
        }
    }

    fn refresh(&self) {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        {
            let known = self.shared.membership.read().clone();
            if known.log_id() != metrics.membership_config.log_id() {
                *self.shared.membership.write() = metrics.membership_config.clone();
            }
        }
        let me = self.shared.id();
        let vote = metrics.vote;
        let leader = metrics.current_leader.filter(|l| vote.committed && vote.leader_id.node_id == *l);
        let epoch = epoch_of(&vote.leader_id);
        let leading = leader == Some(me)
            && metrics.state == ServerState::Leader
            && self.shared.leadership.last_established() == Some(epoch)
            && (mutant("isolated-leader-acts")
                || self.quorum_ack_age(epoch).is_some_and(|age| age <= self.shared.config.timers.quorum_ack_max_age));
        drop(metrics);
        self.shared.leadership.publish(LeaderView {
            term: vote.leader_id.term,
            leader,
            leading: leading.then_some(epoch),
        });
    }

    /// How long ago a quorum was asked that accepted this replica's leadership
    /// `epoch`; `None` when none has.
    fn quorum_ack_age(&self, epoch: Epoch) -> Option<Duration> {
        let members = self.shared.membership.read().clone();
        let configs = members.membership().get_joint_config();
        self.shared.acks.quorum_age(self.shared.id(), configs, epoch, self.shared.env.mono())
    }

    /// Serves a stream of snapshot pages, in either direction.
    pub async fn snapshot_lane(&self, stream: PeerStream) {
        crate::snapshot::serve(&self.shared, &self.checkpointer, &self.raft, stream).await;
    }

    /// Answers a read index once a quorum has accepted this leadership after
    /// the read had begun; see [`crate::acks`] for why openraft's word is not enough.
    async fn confirm(&self, at: &ReadLogId<TypeConfig<R>>, since: Stamp) -> Result<u64, ReadIndexError> {
        let (shared, me) = (&self.shared, self.shared.id());
        let epoch = epoch_of(at.committed_leader_id());
        let confirmed = shared.acks.until(|| {
            let members = self.published_members();
            shared.acks.confirmed(me, members.membership().get_joint_config(), epoch, since)
        });
        let replaced = shared.leadership.until(|v| (v.term > epoch.term).then_some(()));
        futures::select_biased! {
            () = confirmed.fuse() => Ok(at.index()),
            () = replaced.fuse() => Err(ReadIndexError::NotLeader),
            () = shared.env.sleep(READ_INDEX_WAIT).fuse() => {
                Err(ReadIndexError::NoQuorum(format!("no quorum confirmed the leader within {READ_INDEX_WAIT:?}")))
            }
        }
    }

    /// As of the metrics, which may be a moment behind.
    fn published_members(&self) -> Arc<StoredMembership> {
        self.raft.server_metrics().borrow_watched().membership_config.clone()
    }

    /// Ends a change of voters whose leader was lost between its two steps: until
    /// then a quorum of the old voters and one of the new ones are needed.
    fn finish_change(self: &Arc<Self>) {
        let joint = self.shared.membership.read().membership().get_joint_config().len() > 1;
        if !joint || self.shared.leadership.view().leading.is_none() || self.finishing.swap(true, Ordering::Relaxed) {
            return;
        }
        let this = self.clone();
        self.shared.env.spawn_in(&self.shared.scope, "finish a change of voters", async move {
            // One of this replica's own finishes itself, and is waited for here.
            let one = this.changing.lock().await;
            if this.members().await.is_ok_and(|m| m.membership().get_joint_config().len() > 1) {
                let done = this.change_now(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await;
                tracing::info!(?done, "a change of voters that another leader began");
            }
            drop(one);
            this.finishing.store(false, Ordering::Relaxed);
        });
    }

    async fn change(&self, change: ChangeMembers<NodeId, Replica>, retain: bool) -> Result<(), MembershipError> {
        let _one = self.changing.lock().await;
        self.change_now(change, retain).await
    }

    async fn change_now(&self, change: ChangeMembers<NodeId, Replica>, retain: bool) -> Result<(), MembershipError> {
        let changing = self.raft.change_membership(change, retain);
        match self.shared.env.timeout(MEMBERSHIP_WAIT, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(membership_error(e)),
            Err(_) => Err(MembershipError::Timeout(MEMBERSHIP_WAIT)),
        }
    }
}

async fn wait_established(watch: &crate::leadership::LeaderWatch, seen: Option<triarch_mvcc::Epoch>) {
    let watch2 = watch.clone();
    watch.until(move |_| (watch2.last_established() != seen).then_some(())).await;
}

fn membership_error<R: AsyncRuntime>(e: RaftError<TypeConfig<R>, ClientWriteError<TypeConfig<R>>>) -> MembershipError {
    use openraft::errors::ChangeMembershipError as C;
    match e {
        RaftError::APIError(ClientWriteError::ForwardToLeader(f)) => MembershipError::NotLeader(f.leader_id),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(C::InProgress(_))) => MembershipError::InProgress,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(C::LearnerNotFound(l))) => {
            MembershipError::Unknown(l.node_id)
        }
        e => MembershipError::Failed(e.to_string()),
    }
}

fn stopped<R: AsyncRuntime>(e: &Fatal<TypeConfig<R>>) -> String {
    e.to_string()
}

#[async_trait]
impl<R: AsyncRuntime> Core for Node<R> {
    async fn propose(&self, payload: Payload) -> Result<u64, ProposeError> {
        match self.raft.client_write(payload).await {
            Ok(done) => Ok(done.log_id.index),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
            Err(RaftError::APIError(e)) => Err(ProposeError::Unknown(e.to_string())),
            // What was queued when it stopped may be in the log.
            Err(RaftError::Fatal(e)) if self.shared.scope.is_cancelled() => Err(ProposeError::Stopped(stopped(&e))),
            Err(RaftError::Fatal(e)) => Err(ProposeError::Unknown(stopped(&e))),
        }
    }

    async fn read_index(&self) -> Result<u64, ReadIndexError> {
        let since = self.shared.acks.stamp(self.shared.env.mono());
        // A zero age asks for a round that begins now; there is no lease in it.
        let lease = if mutant("lease-read") { Duration::from_secs(3) } else { Duration::ZERO };
        let option = LinearizerOption::new(Some(lease), true).with_wait_timeout(READ_INDEX_WAIT);
        match self.raft.get_read_linearizer(option).await {
            Ok(l) => self.confirm(l.read_log_id(), since).await,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Err(ReadIndexError::NotLeader),
            Err(RaftError::APIError(e)) => Err(ReadIndexError::NoQuorum(e.to_string())),
            Err(RaftError::Fatal(e)) => Err(ReadIndexError::Stopped(stopped(&e))),
        }
    }

    async fn initialize(&self) -> Result<(), MembershipError> {
        let members = BTreeMap::from([(self.shared.id(), self.shared.config.replica.clone())]);
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(_)) => Err(MembershipError::NotEmpty),
            Err(e) => Err(MembershipError::Failed(e.to_string())),
        }
    }

    async fn members(&self) -> Result<Arc<StoredMembership>, MembershipError> {
        let asked = self.raft.with_raft_state(|state| state.membership_state.effective().clone());
        asked.await.map_err(|e| MembershipError::Failed(stopped(&e)))
    }

    async fn add_learner(&self, id: NodeId, replica: Replica) -> Result<(), MembershipError> {
        let adding = self.raft.add_learner(id, replica, false);
        match self.shared.env.timeout(MEMBERSHIP_WAIT, adding).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(membership_error(e)),
            Err(_) => Err(MembershipError::Timeout(MEMBERSHIP_WAIT)),
        }
    }

    async fn promote(&self, id: NodeId) -> Result<(), MembershipError> {
        // Not in the middle of a change, where a quorum of the old voters is needed too.
        let members = self.members().await?;
        if members.membership().get_joint_config().len() == 1 && members.voter_ids().any(|v| v == id) {
            return Ok(());
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
    }

    async fn remove(&self, id: NodeId) -> Result<(), MembershipError> {
        let members = self.members().await?;
        if members.voter_ids().eq([id]) {
            return Err(MembershipError::LastVoter(id));
        }
        if members.voter_ids().any(|v| v == id) {
            return self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await;
        }
        if members.membership().get_node(&id).is_none() {
            return Err(MembershipError::Unknown(id));
        }
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await
    }

    async fn transfer_leader(&self, to: NodeId) -> Result<(), MembershipError> {
        if !self.members().await?.voter_ids().any(|v| v == to) {
            return Err(MembershipError::Unknown(to));
        }
        if !self.raft.is_leader() {
            return Err(MembershipError::NotLeader(self.shared.leadership.view().leader));
        }
        self.raft.trigger().transfer_leader(to).await.map_err(|e| MembershipError::Failed(e.to_string()))
    }

    async fn checkpoint_advanced(&self) {
        if let Err(e) = self.raft.trigger().snapshot().await {
            tracing::debug!(error = %e, "raft stopped before it saw the checkpoint");
        }
    }

    fn status(&self) -> CoreStatus {
        let metrics = self.raft.metrics();
        // Held to the end: whoever asks openraft anything meanwhile may wait for a writer
        // that waits for this.
        let metrics = metrics.borrow_watched();
        let leads = metrics.state == ServerState::Leader;
        let members = metrics.membership_config.membership();
        let mut followers = BTreeMap::new();
        for (id, matched) in metrics.replication.iter().flatten() {
            followers.insert(*id, (matched.as_ref().map(|m| m.index), None));
        }
        for (id, acked) in metrics.heartbeat.iter().flatten() {
            followers.entry(*id).or_insert((None, None)).1 = acked.map(|at| at.into_inner().elapsed());
        }
        CoreStatus {
            leader: metrics.current_leader,
            last_log: metrics.last_log_index,
            quorum_ack: self.quorum_ack_age(epoch_of(&metrics.vote.leader_id)).filter(|_| leads),
            followers,
            voters: members.voter_ids().collect(),
            nodes: members.nodes().map(|(id, n)| (*id, n.clone())).collect(),
        }
    }

    fn apply_backlog(&self) -> u64 {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        index(&metrics.local_committed).saturating_sub(index(&metrics.last_applied))
    }

    async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::debug!(error = %e, "raft ended badly");
        }
    }
}
