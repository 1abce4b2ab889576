//! The receiving side of the peer protocol: what other replicas ask of this one.
//!
//! Every call and stream names its sender; who belongs to another cluster, means
//! another replica, or comes back wiped under an old id is refused by name.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use openraft::AsyncRuntime;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderError, TransferLeaderRequest, VoteRequest,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::ask;
use crate::blocking::Blocking;
use crate::codec::{self, CodecError, LogRec};
use crate::core::{Core, ProposeError, ReadIndexError};
use crate::counters::add;
use crate::failover::Failover;
use crate::network::{Received, decode_append};
use crate::node::{Node, Raft};
use crate::shared::Shared;
use crate::starts::{self, Starts};
use crate::transport::{Call, Lane, Message, PeerError, PeerHandler, PeerStream, STREAM_DEPTH, Sender};
use crate::types::{LogId, NodeId, Payload, TypeConfig};
use crate::wire::{
    AppendResult, Appended, Forward, ForwardResult, Forwarded, Introduced, Introduction, Lost, ReadIndexReply,
    TransferCall, TransferReply, VoteCall, VoteReply,
};

/// Requests of one session that wait for openraft.
const SESSION_DEPTH: usize = 64;

pub(crate) struct Service<R: AsyncRuntime> {
    shared: Arc<Shared>,
    node: Arc<Node<R>>,
    failover: Arc<Failover<R>>,
    starts: Starts,
    /// Where starts are noted.
    noting: Blocking,
    /// Batches of followers in hand.
    forwarded: Arc<Semaphore>,
}

impl<R: AsyncRuntime> Clone for Service<R> {
    fn clone(&self) -> Self {
        Service {
            shared: self.shared.clone(),
            node: self.node.clone(),
            failover: self.failover.clone(),
            starts: self.starts.clone(),
            noting: self.noting.clone(),
            forwarded: self.forwarded.clone(),
        }
    }
}

impl<R: AsyncRuntime> Service<R> {
    pub fn new(
        shared: Arc<Shared>,
        node: Arc<Node<R>>,
        failover: Arc<Failover<R>>,
        starts: Starts,
        noting: Blocking,
    ) -> Service<R> {
        let forwarded = Arc::new(Semaphore::new(shared.config.limits.forwarded_batches.max(1)));
        Service { shared, node, failover, starts, noting, forwarded }
    }

    fn raft(&self) -> &Raft<R> {
        &self.node.raft
    }

    fn failed(&self, e: impl ToString) -> PeerError {
        PeerError::Failed(self.shared.id(), e.to_string())
    }

    fn admit(&self, from: &Sender) -> Result<(), PeerError> {
        let refused = |why: String| {
            self.refused(from, &why);
            Err(PeerError::Refused(why))
        };
        if self.shared.scope.is_cancelled() {
            return Err(PeerError::Unreachable(self.shared.id(), "stopping".into()));
        }
        if from.cluster_id != self.shared.config.cluster_id {
            return refused(format!(
                "replica {} is of cluster {}, this one is of cluster {}",
                from.id, from.cluster_id, self.shared.config.cluster_id
            ));
        }
        if from.to != self.shared.id() {
            return refused(format!("meant for replica {}, this is replica {}", from.to, self.shared.id()));
        }
        // A replica that is not known yet is not refused: this one may be the newcomer.
        if let Some(known) = self.shared.replica(from.id)
            && known.incarnation != from.incarnation
        {
            return refused(format!(
                "replica {} ({}) comes with another data directory than the one that joined; a wiped replica cannot \
                 come back under its old id: remove it and join again",
                from.id, known.name
            ));
        }
        Ok(())
    }

    /// Before it is introduced this replica promises nothing to anybody.
    fn takes_part(&self) -> Result<(), PeerError> {
        match self.shared.gate.is_open() {
            true => Ok(()),
            false => Err(PeerError::Unreachable(self.shared.id(), "not introduced yet".into())),
        }
    }

    async fn vote(&self, body: Bytes) -> Result<Bytes, PeerError> {
        let call: VoteCall = codec::decode("a vote request", &body).map_err(|e| self.failed(e))?;
        let mut request = VoteRequest::<TypeConfig<R>>::new(call.vote.into(), call.last.map(LogId::from));
        request.leadership_transfer = call.transfer;
        let answer = if call.pre { self.raft().pre_vote(request).await } else { self.raft().vote(request).await };
        let answer = answer.map_err(|e| self.failed(e))?;
        Ok(codec::encode(&VoteReply {
            vote: (&answer.vote).into(),
            granted: answer.vote_granted,
            last: answer.last_log_id.map(LogRec::from),
        }))
    }

    async fn transfer(&self, body: Bytes) -> Result<Bytes, PeerError> {
        let call: TransferCall = codec::decode("a leadership transfer", &body).map_err(|e| self.failed(e))?;
        let request = TransferLeaderRequest::new(call.from.into(), call.to, call.last.map(LogId::from));
        let answer = self.raft().handle_transfer_leader(request).await.map_err(|e| self.failed(e))?;
        Ok(codec::encode(&match answer {
            Ok(()) => TransferReply::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                TransferReply::VoteChanged { expected: (&expected).into(), actual: (&actual).into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                TransferReply::LogNotFlushed { expected: expected.map(LogRec::from), actual: actual.map(LogRec::from) }
            }
        }))
    }

    async fn read_index(&self) -> Bytes {
        codec::encode(&match self.node.read_index().await {
            Ok(index) => ReadIndexReply::Index(index),
            Err(ReadIndexError::NotLeader) => ReadIndexReply::NotLeader,
            Err(e) => ReadIndexReply::Failed(e.to_string()),
        })
    }

    async fn introduce(&self, from: NodeId, body: Bytes) -> Result<Bytes, PeerError> {
        let introduction: Introduction = codec::decode_grown("an introduction", &body).map_err(|e| self.failed(e))?;
        let status = self.node.status();
        let leads = status.leader == Some(self.shared.id());
        let led = status.followers.get(&from).and_then(|(matched, _)| *matched).filter(|_| leads);
        let (starts, level) = (self.starts.clone(), self.shared.mvcc.feature_level());
        let answered = self.noting.run(move || starts::answer(&starts, from, &introduction, led, level)).await;
        let introduced = answered.map_err(|e| self.failed(e))?.map_err(|e| {
            // As when the log's disk refuses: who cannot note a start must not vouch for it later.
            tracing::error!(error = %e, "the starts of replicas cannot be noted; stopping");
            self.shared.stop(format!(
                "the starts of replicas could not be written: {e}; free space or check the disk, then start the replica \
                 again: it lost nothing that it acknowledged"
            ));
            self.failed(e)
        })?;
        if introduced != Introduced::Welcome {
            add(&self.shared.counters.peers_refused, 1);
            tracing::warn!(from, ?introduced, "a replica comes with an old data directory or release");
        }
        Ok(codec::encode(&introduced))
    }

    async fn leader_lost(&self, from: NodeId, body: Bytes) -> Result<Bytes, PeerError> {
        let told: Lost = codec::decode("a lost leader", &body).map_err(|e| self.failed(e))?;
        let lost = self.failover.told(from, told).await.ok_or_else(|| self.failed("stopping"))?;
        Ok(codec::encode(&lost))
    }

    /// Entries: one session after another, pipelined inside each.
    async fn log_lane(self, from: NodeId, mut stream: PeerStream) {
        let _open = self.failover.opened(from);
        let mut session: Option<(u64, mpsc::Sender<_>, Arc<Mutex<VecDeque<bool>>>)> = None;
        while let Some(message) = stream.rx.recv().await {
            let Received { session: number, quiet, request } = match decode_append::<R>(message) {
                Ok(decoded) => decoded,
                Err(e) => return self.malformed(from, &e),
            };
            let (input, unanswered) = match &session {
                Some((current, input, unanswered)) if *current == number => (input, unanswered),
                _ => {
                    let (input, requests) = mpsc::channel(SESSION_DEPTH);
                    // Of each request without an answer, oldest first: whether it is quiet.
                    let unanswered = Arc::new(Mutex::new(VecDeque::new()));
                    let quiets = unanswered.clone();
                    let requests =
                        futures::stream::unfold(requests, |mut rx| async move { rx.recv().await.map(|m| (m, rx)) });
                    let answers = self.raft().stream_append(requests);
                    let tx = stream.tx.clone();
                    self.shared.env.spawn_in(&self.shared.scope, "append session", async move {
                        let mut answers = std::pin::pin!(answers);
                        while let Some(answer) = answers.next().await {
                            let quiet = quiets.lock().pop_front().unwrap_or(false);
                            let result = match answer {
                                Ok(Ok(_)) if quiet => continue,
                                Ok(Ok(at)) => AppendResult::Matching(at.map(LogRec::from)),
                                Ok(Err(StreamAppendError::Conflict(at))) => AppendResult::Conflict(at.into()),
                                Ok(Err(StreamAppendError::HigherVote(v))) => AppendResult::HigherVote((&v).into()),
                                Err(fatal) => AppendResult::Failed(fatal.to_string()),
                            };
                            let body = codec::encode(&Appended { session: number, result });
                            if tx.send(Message { body, payloads: Vec::new() }).await.is_err() {
                                return;
                            }
                        }
                    });
                    let (_, input, unanswered) = session.insert((number, input, unanswered));
                    (&*input, &*unanswered)
                }
            };
            unanswered.lock().push_back(quiet);
            // The session may be over already; what comes late for it is void.
            let _ = input.send(request).await;
        }
    }

    /// Signs of life. openraft answers one once everything that it had accepted before is on the
    /// disk; those that come meanwhile are taken in all the same, for a disk that stands still is
    /// no leader that is gone. What is answered to the latest is the answer to those before it;
    /// each has one, for the leader's side counts them to notice a silent stream.
    async fn heartbeat_lane(self, from: NodeId, mut stream: PeerStream) {
        let _open = self.failover.opened(from);
        let mut waiting = VecDeque::new();
        let mut answer = std::pin::pin!(futures::future::Fuse::terminated());
        loop {
            futures::select_biased! {
                result = answer => {
                    for session in waiting.drain(..) {
                        let body = codec::encode(&Appended { session, result: AppendResult::clone(&result) });
                        if stream.tx.send(Message { body, payloads: Vec::new() }).await.is_err() {
                            return;
                        }
                    }
                }
                message = stream.rx.recv().fuse() => {
                    let Some(message) = message else { return };
                    let Received { session, request, .. } = match decode_append::<R>(message) {
                        Ok(decoded) => decoded,
                        Err(e) => return self.malformed(from, &e),
                    };
                    // Long before so many are on their way a leader breaks the stream off.
                    if waiting.len() == STREAM_DEPTH {
                        waiting.pop_front();
                    }
                    waiting.push_back(session);
                    answer.set(self.sign_of_life(request).fuse());
                }
            }
        }
    }

    async fn sign_of_life(&self, request: AppendEntriesRequest<TypeConfig<R>>) -> AppendResult {
        let last = request.entries.last().map(|e| e.log_id).or(request.prev_log_id);
        let prev = request.prev_log_id;
        match self.raft().append_entries(request).await {
            Ok(answer) => match answer.into_stream_result(prev, last) {
                Ok(at) => AppendResult::Matching(at.map(LogRec::from)),
                Err(StreamAppendError::Conflict(at)) => AppendResult::Conflict(at.into()),
                Err(StreamAppendError::HigherVote(v)) => AppendResult::HigherVote((&v).into()),
            },
            Err(e) => AppendResult::Failed(e.to_string()),
        }
    }

    /// A follower's batches.
    async fn forward_lane(self, from: NodeId, mut stream: PeerStream) {
        let largest = self.shared.config.limits.txn_bytes + self.shared.config.limits.batch_bytes + (1 << 20);
        while let Some(mut message) = stream.rx.recv().await {
            let forward: Forward = match codec::decode("a forwarded batch", &message.body) {
                Ok(f) => f,
                Err(e) => return self.malformed(from, &e),
            };
            let payload = match (message.payloads.pop(), message.payloads.is_empty()) {
                (Some(p), true) if codec::is_batch(&p) && p.len() <= largest => Payload(p),
                _ => return self.malformed(from, &CodecError::Empty),
            };
            let (this, tx) = (self.clone(), stream.tx.clone());
            let slot = self.forwarded.clone().try_acquire_owned();
            self.shared.env.spawn_in(&self.shared.scope, "forwarded batch", async move {
                let result = match slot {
                    Err(_) => ForwardResult::Overloaded,
                    Ok(_slot) => match this.node.propose(payload).await {
                        // The follower learns it with the log.
                        Ok(_) => return,
                        Err(ProposeError::NotLeader) => ForwardResult::NotLeader,
                        Err(e) => ForwardResult::Unknown(e.to_string()),
                    },
                };
                let body = codec::encode(&Forwarded { batch: forward.batch, result });
                let _ = tx.send(Message { body, payloads: Vec::new() }).await;
            });
        }
    }

    fn malformed(&self, from: NodeId, e: &CodecError) {
        add(&self.shared.counters.peers_refused, 1);
        tracing::warn!(from, error = %e, "a peer sent something that cannot be read; closing its stream");
    }
}

#[async_trait]
impl<R: AsyncRuntime> PeerHandler for Service<R> {
    async fn call(&self, from: &Sender, call: Call, body: Bytes) -> Result<Bytes, PeerError> {
        self.admit(from)?;
        if !starts::harmless(call) {
            self.takes_part()?;
        }
        match call {
            Call::Vote => self.vote(body).await,
            Call::TransferLeader => self.transfer(body).await,
            Call::ReadIndex => Ok(self.read_index().await),
            Call::LeaderLost => self.leader_lost(from.id, body).await,
            Call::Status => Ok(codec::encode(&self.shared.own_status())),
            Call::Introduce => self.introduce(from.id, body).await,
            Call::Ask => Ok(codec::encode(&ask::answer(&self.shared, body).await)),
        }
    }

    fn refused(&self, from: &Sender, why: &str) {
        add(&self.shared.counters.peers_refused, 1);
        tracing::warn!(from = from.id, why, "refused a peer");
    }

    fn stream(&self, from: &Sender, lane: Lane, stream: PeerStream) -> Result<(), PeerError> {
        self.admit(from)?;
        self.takes_part()?;
        let (this, from) = (self.clone(), from.id);
        let (env, scope) = (self.shared.env.clone(), self.shared.scope.clone());
        match lane {
            Lane::Log => env.spawn_in(&scope, "log lane", this.log_lane(from, stream)),
            Lane::Heartbeat => env.spawn_in(&scope, "heartbeat lane", this.heartbeat_lane(from, stream)),
            Lane::Forward => env.spawn_in(&scope, "forward lane", this.forward_lane(from, stream)),
            Lane::Snapshot => {
                env.spawn_in(&scope, "snapshot lane", async move { this.node.snapshot_lane(stream).await })
            }
        }
        Ok(())
    }
}
