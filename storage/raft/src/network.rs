//! openraft's way to the other replicas, over [`PeerTransport`](crate::PeerTransport).
//!
//! A session is one `stream_append` of openraft's: requests in order, answers in
//! order, over the one long-lived stream of its lane. Nothing here dials:
//! `new_client` runs in openraft's core loop.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend};
use triarch_mutants::mutant;
use triarch_mvcc::Epoch;

use crate::acks::Stamp;
use crate::checkpointer::Checkpointer;
use crate::codec::{self, LogRec, VoteRec};
use crate::counters::add;
use crate::link::{Link, Route};
use crate::shared::{Shared, yield_now};
use crate::snapshot::SnapshotData;
use crate::transport::{Call, Lane, Message, Peer};
use crate::types::{LeaderId, LogId, NodeId, Replica, TypeConfig, Vote, epoch_of};
use crate::wire::{Append, AppendResult, Appended, TransferCall, TransferReply, VoteCall, VoteReply};

/// Turns of other tasks before a peer is told what is committed: as many as an
/// entry takes from there through its apply to a client's answer.
const APPLY_FIRST: usize = 6;

/// Makes the clients of one replica; links are kept per peer and lane.
pub(crate) struct Factory {
    shared: Arc<Shared>,
    checkpointer: Arc<Checkpointer>,
    links: BTreeMap<(NodeId, Lane), Link<Appended>>,
    sessions: Arc<AtomicU64>,
}

impl Factory {
    pub fn new(shared: Arc<Shared>, checkpointer: Arc<Checkpointer>) -> Factory {
        Factory { shared, checkpointer, links: BTreeMap::new(), sessions: Arc::new(AtomicU64::new(1)) }
    }

    fn client(&mut self, target: NodeId, node: &Replica, lane: Lane) -> Network {
        let peer = Peer { id: target, address: node.peer_address.clone() };
        let s = &self.shared;
        let make = || {
            let (env, scope) = (s.env.clone(), s.scope.clone());
            let timers = s.config.timers.clone();
            Link::new(env, scope, s.transport.clone(), peer.clone(), lane, timers, s.counters.clone())
        };
        let link = self.links.entry((target, lane)).or_insert_with(make);
        if *link.peer() != peer {
            *link = make();
        }
        Network {
            shared: s.clone(),
            checkpointer: self.checkpointer.clone(),
            peer,
            lane,
            link: link.clone(),
            sessions: self.sessions.clone(),
        }
    }
}

impl<R: AsyncRuntime> RaftNetworkFactory<TypeConfig<R>> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &Replica) -> Network {
        self.client(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Replica) -> Network {
        self.client(target, node, Lane::Heartbeat)
    }
}

/// One client of one peer.
pub(crate) struct Network {
    shared: Arc<Shared>,
    checkpointer: Arc<Checkpointer>,
    peer: Peer,
    lane: Lane,
    link: Link<Appended>,
    sessions: Arc<AtomicU64>,
}

impl Network {
    async fn call<R: AsyncRuntime, T: serde::de::DeserializeOwned>(
        &self,
        call: Call,
        body: bytes::Bytes,
        within: Duration,
    ) -> Result<T, RPCError<TypeConfig<R>>> {
        let asked = self.shared.env.timeout(within, self.shared.transport.call(&self.peer, call, body)).await;
        let body = match asked {
            Ok(Ok(body)) => body,
            Ok(Err(e)) => return Err(unreachable(e)),
            Err(_) => return Err(unreachable(format!("no answer to {call:?} within {within:?}"))),
        };
        codec::decode("an answer", &body).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }
}

fn unreachable<R: AsyncRuntime>(e: impl ToString) -> RPCError<TypeConfig<R>> {
    RPCError::Unreachable(Unreachable::from_string(e))
}

fn broken<R: AsyncRuntime>() -> RPCError<TypeConfig<R>> {
    RPCError::Network(NetworkError::from_string("the stream to the peer broke"))
}

impl<R: AsyncRuntime> RaftNetworkV2<TypeConfig<R>> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        let input = futures::stream::iter([rpc]);
        let mut answers = RaftNetworkV2::stream_append(self, input, option).await?;
        match answers.next().await {
            Some(answer) => Ok(answer?.into()),
            None => Err(broken()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig<R>>, RPCError<TypeConfig<R>>>>,
            RPCError<TypeConfig<R>>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig<R>>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let conn = self.link.conn(self.shared.config.timers.connect).await.map_err(unreachable)?;
            let number = self.sessions.fetch_add(1, Ordering::Relaxed);
            let route = conn.route(number).ok_or_else(broken)?;
            if self.lane == Lane::Log {
                conn.forgive();
            }
            let (shared, peer) = (self.shared.clone(), self.peer.id);
            let session = Session {
                shared,
                peer,
                lane: self.lane,
                number,
                input: Some(input),
                route,
                unsent: None,
                unanswered: VecDeque::new(),
                spoken_for: None,
                matching: None,
                over: false,
            };
            Ok(Box::pin(futures::stream::unfold(session, Session::next)) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        self.ask_vote(rpc, false, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        self.ask_vote(rpc, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::Snapshot<LeaderId, NodeId, Replica, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig<R>>, StreamingError<TypeConfig<R>>> {
        let sending = crate::snapshot::send(
            &self.shared,
            &self.checkpointer,
            &self.peer,
            Some((&vote).into()),
            &snapshot.snapshot,
        );
        futures::select_biased! {
            sent = sending.fuse() => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote.into())),
                Err(e) => Err(StreamingError::Unreachable(Unreachable::from_string(e))),
            },
            closed = std::pin::pin!(cancel.fuse()) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        let body = codec::encode(&TransferCall {
            from: req.from_leader().into(),
            to: *req.to_node_id(),
            last: req.last_log_id().copied().map(LogRec::from),
        });
        let reply = self.call(Call::TransferLeader, body, option.soft_ttl()).await?;
        Ok(match reply {
            TransferReply::Accepted => Ok(()),
            TransferReply::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TransferReply::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(LogId::from),
                actual: actual.map(LogId::from),
            }),
        })
    }
}

impl Network {
    async fn ask_vote<R: AsyncRuntime>(
        &self,
        rpc: VoteRequest<TypeConfig<R>>,
        pre: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<R>>, RPCError<TypeConfig<R>>> {
        if pre {
            add(&self.shared.counters.pre_votes_asked, 1);
        } else {
            let (term, transfer) = (rpc.vote.leader_id.term, rpc.leadership_transfer);
            tracing::info!(peer = self.peer.id, term, transfer, "stands for election");
        }
        let body = codec::encode(&VoteCall {
            pre,
            transfer: rpc.leadership_transfer,
            vote: (&rpc.vote).into(),
            last: rpc.last_log_id.map(LogRec::from),
        });
        let reply: VoteReply = self.call(Call::Vote, body, option.soft_ttl()).await?;
        Ok(VoteResponse::new(Vote::from(reply.vote), reply.last.map(LogId::from), reply.granted))
    }
}

/// One exchange over a lane's stream.
struct Session<S> {
    shared: Arc<Shared>,
    peer: NodeId,
    lane: Lane,
    number: u64,
    /// `None` once it has ended.
    input: Option<S>,
    route: Route<Appended>,
    unsent: Option<Unsent>,
    /// The requests without an answer, oldest first.
    unanswered: VecDeque<Unanswered>,
    /// The last entry that an answer of this session is for, or is to come for.
    spoken_for: Option<LogId>,
    /// The last entry that the peer has said it has.
    matching: Option<LogId>,
    over: bool,
}

/// A request that is to be sent.
struct Unsent {
    message: Message,
    /// An answer is to come.
    answered: bool,
    /// Turns that other tasks get first.
    turns: usize,
}

/// A request that openraft waits for.
enum Unanswered {
    /// Whose leadership's it is, and when it was made.
    Asked(Epoch, Stamp),
    /// It only says what is committed, behind this entry: answered here once the
    /// peer has said that it has the entry, and by the peer if something is wrong.
    Quiet(LogId),
}

enum Step<T> {
    Answer(Option<Appended>),
    Input(Option<T>),
    Sent(bool),
}

type Item<R> = Result<StreamAppendResult<TypeConfig<R>>, RPCError<TypeConfig<R>>>;

impl<S> Session<S> {
    /// Sends what openraft has and gives it the next answer.
    async fn next<R>(mut self) -> Option<(Item<R>, Session<S>)>
    where
        R: AsyncRuntime,
        S: Stream<Item = AppendEntriesRequest<TypeConfig<R>>> + Unpin,
    {
        loop {
            if self.over || (self.input.is_none() && self.unsent.is_none() && self.unanswered.is_empty()) {
                return None;
            }
            if let Some(Unanswered::Quiet(at)) = self.unanswered.front()
                && self.unsent.is_none()
                && self.matching >= Some(*at)
            {
                let at = *at;
                self.unanswered.pop_front();
                return Some((Ok(Ok(Some(at))), self));
            }
            match self.step().await {
                Step::Answer(Some(answer)) => {
                    let request = self.unanswered.pop_front();
                    let item = match answer.result {
                        AppendResult::Matching(at) => {
                            // One more answer than requests says nothing.
                            if let Some(Unanswered::Asked(epoch, made)) = request {
                                let made = if mutant("old-answer-taken-for-new") {
                                    self.shared.acks.stamp(self.shared.env.mono())
                                } else {
                                    made
                                };
                                self.shared.acks.accepted(self.peer, epoch, made);
                            }
                            let at = at.map(LogId::from);
                            self.matching = self.matching.max(at);
                            Ok(Ok(at))
                        }
                        AppendResult::Conflict(at) => Ok(Err(StreamAppendError::Conflict(at.into()))),
                        AppendResult::HigherVote(v) => Ok(Err(StreamAppendError::HigherVote(v.into()))),
                        AppendResult::Failed(e) => Err(unreachable(e)),
                    };
                    self.over = !matches!(item, Ok(Ok(_)));
                    return Some((item, self));
                }
                Step::Answer(None) | Step::Sent(false) => {
                    self.over = true;
                    return Some((Err(broken()), self));
                }
                Step::Sent(true) => {}
                Step::Input(Some(request)) => {
                    let quiet = self.quiet(&request);
                    self.unanswered.push_back(match quiet {
                        Some(at) => Unanswered::Quiet(at),
                        None => Unanswered::Asked(
                            epoch_of(&request.vote.leader_id),
                            self.shared.acks.stamp(self.shared.env.mono()),
                        ),
                    });
                    // What is committed is applied and answered here before others are told.
                    let first = quiet.is_some() && self.shared.outcomes.unanswered() > 0;
                    self.unsent = Some(Unsent {
                        message: encode_append(self.number, request, quiet.is_some()),
                        answered: quiet.is_none(),
                        turns: if first { APPLY_FIRST } else { 0 },
                    });
                }
                Step::Input(None) => self.input = None,
            }
        }
    }

    /// The entry behind which a request says nothing but what is committed, when
    /// the answer for that entry says all that openraft wants to know.
    fn quiet<R: AsyncRuntime>(&mut self, request: &AppendEntriesRequest<TypeConfig<R>>) -> Option<LogId> {
        let last = request.entries.last().map(|e| e.log_id).or(request.prev_log_id);
        let told = self.lane == Lane::Log && request.entries.is_empty() && last.is_some() && last <= self.spoken_for;
        self.spoken_for = self.spoken_for.max(last);
        last.filter(|_| told)
    }

    async fn step<R>(&mut self) -> Step<AppendEntriesRequest<TypeConfig<R>>>
    where
        R: AsyncRuntime,
        S: Stream<Item = AppendEntriesRequest<TypeConfig<R>>> + Unpin,
    {
        let conn = self.route.conn.clone();
        let (unsent, input) = (&mut self.unsent, &mut self.input);
        let drive = async {
            if let Some(unsent) = unsent {
                while unsent.turns > 0 {
                    unsent.turns -= 1;
                    yield_now().await;
                }
            }
            if unsent.is_some() {
                return match conn.reserve().await {
                    Ok(room) => {
                        let Unsent { message, answered, .. } = unsent.take().expect("looked at above");
                        room.send(message, answered);
                        Step::Sent(true)
                    }
                    Err(()) => Step::Sent(false),
                };
            }
            match input {
                Some(input) => Step::Input(input.next().await),
                None => std::future::pending().await,
            }
        };
        futures::select_biased! {
            answer = self.route.rx.recv().fuse() => Step::Answer(answer),
            step = std::pin::pin!(drive.fuse()) => step,
        }
    }
}

fn encode_append<R: AsyncRuntime>(session: u64, rpc: AppendEntriesRequest<TypeConfig<R>>, quiet: bool) -> Message {
    let header = Append {
        session,
        vote: VoteRec::from(&rpc.vote),
        prev: rpc.prev_log_id.map(LogRec::from),
        commit: rpc.leader_commit.map(LogRec::from),
        entries: rpc.entries.iter().map(|e| e.log_id.into()).collect(),
        quiet,
    };
    Message {
        body: codec::encode(&header),
        payloads: rpc.entries.iter().map(|e| codec::encode_payload(&e.payload)).collect(),
    }
}

/// An append request as it came in.
pub(crate) struct Received<R: AsyncRuntime> {
    pub session: u64,
    /// Not answered when it matches.
    pub quiet: bool,
    pub request: AppendEntriesRequest<TypeConfig<R>>,
}

/// The inverse of [`encode_append`].
pub(crate) fn decode_append<R: AsyncRuntime>(message: Message) -> Result<Received<R>, codec::CodecError> {
    let header: Append = codec::decode("an append request", &message.body)?;
    if header.entries.len() != message.payloads.len() {
        return Err(codec::CodecError::Empty);
    }
    let entries = header.entries.iter().zip(message.payloads).map(|(at, payload)| {
        Ok(crate::types::Entry { log_id: (*at).into(), payload: codec::decode_payload(payload)? })
    });
    let request = AppendEntriesRequest {
        vote: header.vote.into(),
        prev_log_id: header.prev.map(LogId::from),
        entries: entries.collect::<Result<_, codec::CodecError>>()?,
        leader_commit: header.commit.map(LogId::from),
    };
    Ok(Received { session: header.session, quiet: header.quiet, request })
}
