//! Linearizable read points. Reads that arrive while a round is under way wait
//! for the next one, so that any number of readers costs one round at a time.
//!
//! Invariant: a reader is answered only by a round that began after its call,
//! and after this replica has applied what the round covers. Never a lease.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use triarch_mutants::mutant;
use triarch_mvcc::{CommitError, Revision};

use crate::codec;
use crate::core::{Core, ReadIndexError};
use crate::counters::add;
use crate::leader_call::at_the_leader;
use crate::shared::Shared;
use crate::transport::Call;
use crate::types::NodeId;
use crate::wire::ReadIndexReply;

type Waiter = oneshot::Sender<Result<Revision, CommitError>>;

pub(crate) struct Barrier {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Waiter>,
}

impl Barrier {
    /// Starts the barrier's task.
    pub fn start(shared: Arc<Shared>, core: Arc<dyn Core>) -> Barrier {
        let (queue, rx) = mpsc::channel(shared.config.limits.barrier_waiters);
        let rounds = Rounds { shared: shared.clone(), core };
        shared.env.spawn_in(&shared.scope, "read barrier", rounds.run(rx));
        Barrier { shared, queue }
    }

    pub async fn wait(&self) -> Result<Revision, CommitError> {
        let (tx, rx) = oneshot::channel();
        self.queue.try_send(tx).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CommitError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => self.shared.stopped_error(),
        })?;
        match self.shared.scope.run(rx).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) | None => Err(self.shared.stopped_error()),
        }
    }
}

#[derive(Clone)]
struct Rounds {
    shared: Arc<Shared>,
    core: Arc<dyn Core>,
}

impl Rounds {
    async fn run(self, mut rx: mpsc::Receiver<Waiter>) {
        while let Some(first) = rx.recv().await {
            let mut waiters = vec![first];
            while let Ok(w) = rx.try_recv() {
                waiters.push(w);
            }
            let index = self.round().await;
            while mutant("read-joins-a-round-under-way")
                && let Ok(w) = rx.try_recv()
            {
                waiters.push(w);
            }
            add(&self.shared.counters.barrier_rounds, 1);
            let shared = self.shared.clone();
            let finish = async move {
                let answer = match index {
                    Ok(index) => {
                        let deadline = shared.config.timers.commit_deadline;
                        let index = if mutant("barrier-does-not-wait") { 0 } else { index };
                        match shared.env.timeout(deadline, shared.progress.wait_index(index)).await {
                            Ok(()) => Ok(shared.progress.revision()),
                            Err(_) => Err(CommitError::Unknown(format!("entry {index} was not applied here in time"))),
                        }
                    }
                    Err(e) => Err(e),
                };
                add(&shared.counters.barriers, waiters.len() as u64);
                for w in waiters {
                    let _ = w.send(answer.clone());
                }
            };
            // Applied already: no task is needed. Otherwise the next round need not wait for it.
            let mut finish = finish.boxed();
            if (&mut finish).now_or_never().is_none() {
                self.shared.env.spawn_in(&self.shared.scope, "barrier apply", finish);
            }
        }
    }

    /// One read index, within the bound for a missing leader.
    async fn round(&self) -> Result<u64, CommitError> {
        at_the_leader(&self.shared, |leader| self.read_index(leader)).await
    }

    async fn read_index(&self, leader: NodeId) -> Result<Option<u64>, CommitError> {
        let shared = &self.shared;
        if leader == shared.id() {
            return match self.core.read_index().await {
                Ok(index) => Ok(Some(index)),
                Err(ReadIndexError::Stopped(e)) => Err(CommitError::Stopped(e)),
                Err(ReadIndexError::NotLeader | ReadIndexError::NoQuorum(_)) => Ok(None),
            };
        }
        let Some(peer) = shared.peer(leader) else { return Ok(None) };
        let call = shared.transport.call(&peer, Call::ReadIndex, bytes::Bytes::new());
        let Ok(Ok(body)) = shared.env.timeout(shared.config.timers.call, call).await else { return Ok(None) };
        Ok(match codec::decode("a read index", &body) {
            Ok(ReadIndexReply::Index(index)) => Some(index),
            Ok(ReadIndexReply::NotLeader | ReadIndexReply::Failed(_)) => None,
            Err(e) => {
                tracing::warn!(error = %e, leader, "cannot read the leader's answer");
                None
            }
        })
    }
}
