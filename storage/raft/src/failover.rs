//! A fast way out when the leader's connection breaks.
//!
//! Timers alone take a quarter of a second to replace a dead leader. A broken
//! stream is earlier evidence: the replicas that lost it tell one another, and
//! when a quorum of voters agrees, the one with the longest log (then the
//! highest id) stands for election at once; voters accept it inside their lease,
//! as if the leader had handed over to it. If nothing comes of it, it stands
//! again a little later.
//!
//! This changes when an election starts, never who may win it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::AsyncRuntime;
use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;

use crate::codec::{self, LogRec, VoteRec};
use crate::counters::add;
use crate::log_store::LogStore;
use crate::shared::Shared;
use crate::state_machine::StateMachine;
use crate::transport::Call;
use crate::types::{LogId, NodeId, TypeConfig, Vote};
use crate::wire::Lost;

/// Election attempts for one lost leader; after that the timers decide.
const ATTEMPTS: u32 = 12;
/// How long survivors are asked again before the timers are left to decide.
const ROUNDS: u32 = 8;

type Raft<R> = openraft::Raft<TypeConfig<R>, StateMachine>;

#[derive(Default)]
struct State {
    /// Open streams from each peer.
    open: BTreeMap<NodeId, usize>,
    /// The leadership whose streams are gone.
    lost: Option<VoteRec>,
    /// Who agrees, with their last log ids; includes this replica.
    agree: BTreeMap<NodeId, Option<LogRec>>,
    /// The leadership that was acted on already.
    acted: Option<VoteRec>,
}

pub(crate) struct Failover<R: AsyncRuntime> {
    shared: Arc<Shared>,
    raft: Raft<R>,
    log: LogStore,
    state: Mutex<State>,
}

/// Counts a stream from a peer as open until it is dropped.
pub(crate) struct OpenStream<R: AsyncRuntime> {
    failover: Arc<Failover<R>>,
    from: NodeId,
}

impl<R: AsyncRuntime> Drop for OpenStream<R> {
    fn drop(&mut self) {
        self.failover.closed(self.from);
    }
}

impl<R: AsyncRuntime> Failover<R> {
    pub fn new(shared: Arc<Shared>, raft: Raft<R>, log: LogStore) -> Arc<Failover<R>> {
        Arc::new(Failover { shared, raft, log, state: Mutex::default() })
    }

    /// A stream from `from` has opened.
    pub fn opened(self: &Arc<Self>, from: NodeId) -> OpenStream<R> {
        let mut state = self.state.lock();
        *state.open.entry(from).or_default() += 1;
        if state.lost.is_some_and(|v| v.node == from) {
            // It is alive after all.
            if state.acted != state.lost {
                add(&self.shared.counters.leader_lost_false, 1);
            }
            state.lost = None;
            state.agree.clear();
        }
        OpenStream { failover: self.clone(), from }
    }

    fn closed(self: &Arc<Self>, from: NodeId) {
        {
            let mut state = self.state.lock();
            let open = state.open.entry(from).or_default();
            *open = open.saturating_sub(1);
            if *open > 0 || self.shared.scope.is_cancelled() {
                return;
            }
        }
        if self.shared.leadership.view().leader != Some(from) {
            return;
        }
        let this = self.clone();
        self.shared.env.spawn_in(&self.shared.scope, "leader lost", async move { this.survivors(from).await });
    }

    /// This replica's vote and last log id.
    async fn standing(&self) -> Option<(Vote, Option<LogId>)> {
        let vote = self.raft.with_raft_state(|st| *st.vote_ref()).await.ok()?;
        Some((vote, self.log.last()))
    }

    /// Lost the stream from leader `from`: tells the others until a quorum
    /// agrees, the leader is back, or there is a new one.
    async fn survivors(self: Arc<Self>, from: NodeId) {
        let Some((vote, last)) = self.standing().await else { return };
        if !vote.committed || vote.leader_id.node_id != from {
            return;
        }
        let vote = VoteRec::from(&vote);
        add(&self.shared.counters.leader_lost_seen, 1);
        {
            let mut state = self.state.lock();
            if state.open.get(&from).copied().unwrap_or(0) > 0 || state.acted == Some(vote) {
                return;
            }
            state.lost = Some(vote);
            state.agree = BTreeMap::from([(self.shared.id(), last.map(LogRec::from))]);
        }
        for round in 0..ROUNDS {
            let body = codec::encode(&Lost { vote, last: last.map(LogRec::from), lost: true });
            let asked: FuturesUnordered<_> = self
                .others(from)
                .into_iter()
                .filter_map(|id| self.shared.peer(id))
                .map(|peer| {
                    let (this, body) = (self.clone(), body.clone());
                    async move {
                        let call = this.shared.transport.call(&peer, Call::LeaderLost, body);
                        let within = this.shared.config.timers.election_min;
                        let answer = this.shared.env.timeout(within, call).await.ok()?.ok()?;
                        codec::decode::<Lost>("an answer", &answer).ok().map(|lost| (peer.id, lost))
                    }
                })
                .collect();
            let mut asked = asked;
            while let Some(answer) = asked.next().await {
                if let Some((id, lost)) = answer {
                    self.note(id, &lost);
                }
                if self.decide(vote).await {
                    return;
                }
            }
            // Alone it may be the whole quorum's answer already (two voters of three).
            if self.decide(vote).await || self.state.lock().lost != Some(vote) {
                return;
            }
            self.shared.env.sleep(Duration::from_millis(2 << round.min(4))).await;
        }
    }

    /// A peer says what it knows of a lost leader; the answer is what we know.
    pub async fn told(self: &Arc<Self>, from: NodeId, told: Lost) -> Option<Lost> {
        let (vote, last) = self.standing().await?;
        self.note(from, &told);
        let lost = self.state.lock().lost == Some(told.vote);
        if lost {
            let this = self.clone();
            let vote = told.vote;
            self.shared.env.spawn_in(&self.shared.scope, "leader lost", async move {
                this.decide(vote).await;
            });
        }
        Some(Lost { vote: VoteRec::from(&vote), last: last.map(LogRec::from), lost })
    }

    fn note(&self, id: NodeId, told: &Lost) {
        let mut state = self.state.lock();
        if told.lost && state.lost == Some(told.vote) {
            state.agree.insert(id, told.last);
        }
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        self.shared.membership.read().voter_ids().collect()
    }

    fn others(&self, leader: NodeId) -> Vec<NodeId> {
        let me = self.shared.id();
        self.voters().into_iter().filter(|id| *id != me && *id != leader).collect()
    }

    /// Acts once a quorum agrees; true when there is nothing left to do here.
    async fn decide(self: &Arc<Self>, vote: VoteRec) -> bool {
        let voters = self.voters();
        let winner = {
            let mut state = self.state.lock();
            if state.lost != Some(vote) || state.acted == Some(vote) {
                return true;
            }
            let agree: Vec<_> = state.agree.iter().filter(|(id, _)| voters.contains(id)).collect();
            if agree.len() * 2 <= voters.len() {
                return false;
            }
            let winner = agree.iter().map(|(id, last)| (**last, **id)).max().map(|(_, id)| id);
            let Some(winner) = winner else { return false };
            state.acted = Some(vote);
            winner
        };
        add(&self.shared.counters.leader_lost_agreed, 1);
        self.campaign(vote, winner).await;
        true
    }

    /// Lets the lease of the lost leader go, and stands for election when it is
    /// this replica's turn.
    async fn campaign(&self, lost: VoteRec, winner: NodeId) {
        let Some((vote, last)) = self.standing().await else { return };
        if VoteRec::from(&vote) != lost {
            return;
        }
        let mine = winner == self.shared.id();
        tracing::info!(leader = lost.node, term = lost.term, winner, "a quorum agrees that the leader is lost");
        let transfer = TransferLeaderRequest::new(vote, winner, last);
        if mine {
            add(&self.shared.counters.failover_elections, 1);
        }
        if self.raft.handle_transfer_leader(transfer).await.is_err() || !self.voters().contains(&self.shared.id()) {
            return;
        }
        let step = self.shared.config.timers.failover_step;
        for attempt in 0..ATTEMPTS {
            // The others give the winner a head start, and each a different one.
            let head_start = if mine { 1 } else { 3 + (self.shared.id() % 4) as u32 };
            let wait = self.shared.env.jitter(step * head_start * (1 + attempt / 3), 30);
            let settled = self
                .shared
                .leadership
                .until(|v| (v.leader.is_some_and(|l| (v.term, l) != (lost.term, lost.node))).then_some(()));
            if self.shared.env.timeout(wait, settled).await.is_ok() {
                return;
            }
            add(&self.shared.counters.failover_elections, 1);
            if self.raft.trigger().elect(false).await.is_err() {
                return;
            }
        }
    }
}
