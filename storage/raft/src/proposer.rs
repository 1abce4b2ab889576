//! The write door: batches what is queued while earlier batches are on their
//! way, proposes here or through the leader, and sees each batch through
//! elections and unknown outcomes inside a bound.
//!
//! ```text
//!   commit ─► queue ─► batch ─► leader here?  ─► propose
//!                               leader there? ─► forward stream ─► its propose
//!   outcome ◄──────────────── this replica's own apply
//! ```
//!
//! Invariants: only "not the leader" means not appended; after anything else a
//! batch is retried under the same names, and the store returns the first
//! outcome. A batch is never waited for without end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use triarch_mutants::mutant;
use triarch_mvcc::{CommitError, Committed, ProposalId, Txn, TxnOutcome, levels};

use crate::codec;
use crate::core::{Core, ProposeError};
use crate::counters::add;
use crate::link::Link;
use crate::outcomes::Refused;
use crate::shared::{Shared, yield_now};
use crate::transport::{Lane, Message};
use crate::types::{NodeId, Payload};
use crate::wire::{Forward, ForwardResult, Forwarded};

/// Between attempts that fail at once.
const RETRY: Duration = Duration::from_millis(5);

struct Pending {
    txn: Txn,
    size: usize,
    sequence: u64,
}

pub(crate) struct Proposer {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Pending>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Proposer {
    /// Starts the proposer's task.
    pub fn start(shared: Arc<Shared>, core: Arc<dyn Core>) -> Proposer {
        let (queue, rx) = mpsc::channel(shared.config.limits.queue_txns);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let batcher = Batcher {
            shared: shared.clone(),
            core,
            slots: Arc::new(Semaphore::new(shared.config.limits.inflight_batches.max(1))),
            links: Arc::default(),
            batches: Arc::default(),
            queued_bytes: queued_bytes.clone(),
        };
        shared.env.spawn_in(&shared.scope, "proposer", batcher.run(rx));
        Proposer { shared, queue, queued_bytes }
    }

    /// Transactions that wait for a batch, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        (self.queue.max_capacity() - self.queue.capacity(), self.queued_bytes.load(Ordering::Relaxed))
    }

    pub async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let limits = &self.shared.config.limits;
        let size = txn.weight();
        if size > limits.txn_bytes {
            return Err(CommitError::TooLarge { size, limit: limits.txn_bytes });
        }
        if self.shared.scope.is_cancelled() {
            return Err(self.shared.stopped_error());
        }
        // What is applied here stands before whatever is proposed now.
        let needs = txn.level();
        if needs > levels::FIRST {
            let level = self.shared.mvcc.feature_level();
            if needs > level {
                return Err(CommitError::FeatureLevel { needs, level });
            }
        }
        if self.queued_bytes.fetch_add(size, Ordering::Relaxed) + size > limits.queue_bytes {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(CommitError::Overloaded);
        }
        let epoch = txn.epoch;
        // The request's, so that what apply logs names it.
        let span = tracing::enabled!(tracing::Level::DEBUG).then(tracing::Span::current);
        let (sequence, answer) = match self.shared.outcomes.register(self.shared.env.mono(), span) {
            Ok(named) => named,
            Err(refused) => {
                self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
                return Err(match refused {
                    Refused::Full => CommitError::Overloaded,
                    Refused::Closed => self.shared.stopped_error(),
                });
            }
        };
        tracing::debug!(incarnation = self.shared.life, sequence, "proposed");
        if let Err(e) = self.queue.try_send(Pending { txn, size, sequence }) {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            let error = match e {
                mpsc::error::TrySendError::Full(_) => CommitError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => self.shared.stopped_error(),
            };
            self.shared.outcomes.resolve(sequence, Err(error));
        }
        let answer = match answer.await {
            Ok(answer) => answer,
            // In hand when the replica stopped: nobody here will learn what became of it.
            Err(_) => Err(CommitError::Unknown(format!("the replica is stopping: {}", self.shared.stop_reason()))),
        };
        match (&answer, epoch) {
            (Ok(_), _) => add(&self.shared.counters.commits, 1),
            (Err(_), _) => add(&self.shared.counters.commit_errors, 1),
        }
        match (answer, epoch) {
            (Ok(Committed { outcome: TxnOutcome::Fenced, .. }), Some(epoch)) => Err(CommitError::Fenced(epoch)),
            (answer, _) => answer,
        }
    }
}

type ForwardLinks = Mutex<BTreeMap<NodeId, Link<Forwarded>>>;

#[derive(Clone)]
struct Batcher {
    shared: Arc<Shared>,
    core: Arc<dyn Core>,
    slots: Arc<Semaphore>,
    links: Arc<ForwardLinks>,
    batches: Arc<AtomicU64>,
    queued_bytes: Arc<AtomicUsize>,
}

/// A batch on its way.
struct Batch {
    payload: Payload,
    sequences: Vec<u64>,
}

/// How one attempt to place a batch ended.
enum Attempt {
    /// Its entry is committed; our own apply will say so.
    Committed(u64),
    NotLeader,
    Overloaded,
    Unknown(String),
    Stopped(String),
}

impl Batcher {
    async fn run(self, mut rx: mpsc::Receiver<Pending>) {
        let limits = &self.shared.config.limits;
        let mut carried: Option<Pending> = None;
        loop {
            // The slot first: whatever is queued while we wait for it goes together.
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
            let first = match carried.take() {
                Some(p) => p,
                None => match rx.recv().await {
                    Some(p) => {
                        // Whoever has a request in hand already gets it in, which costs
                        // nothing when nobody has.
                        yield_now().await;
                        p
                    }
                    None => return,
                },
            };
            let mut bytes = first.size;
            let mut batch = vec![first];
            while batch.len() < limits.batch_txns && bytes < limits.batch_bytes {
                match rx.try_recv() {
                    Ok(p) if bytes + p.size > limits.batch_bytes => {
                        carried = Some(p);
                        break;
                    }
                    Ok(p) => {
                        bytes += p.size;
                        batch.push(p);
                    }
                    Err(_) => break,
                }
            }
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let named: Vec<(ProposalId, &Txn)> = batch
                .iter()
                .map(|p| (ProposalId { incarnation: self.shared.life, sequence: p.sequence }, &p.txn))
                .collect();
            let payload = codec::encode_batch(&named, bytes);
            let batch = Batch { payload, sequences: batch.iter().map(|p| p.sequence).collect() };
            add(&self.shared.counters.batches, 1);
            let this = self.clone();
            self.shared.env.spawn_in(&self.shared.scope, "batch", async move {
                this.see_through(batch).await;
                drop(slot);
            });
        }
    }

    /// Places one batch and answers its waiters, whatever happens.
    async fn see_through(&self, batch: Batch) {
        let shared = &self.shared;
        let first = batch.sequences[0];
        let applied = shared.outcomes.register_batch(first).fuse();
        let mut applied = std::pin::pin!(applied);
        let timers = &shared.config.timers;
        let start = shared.env.mono();
        let mut deadline = shared.env.sleep(timers.commit_deadline).fuse();
        // Set once the batch may have been appended somewhere.
        let mut maybe = false;
        let mut why = String::from("no answer from the leader");
        let failure = loop {
            let view = shared.leadership.view();
            let Some(leader) = view.leader else {
                // One that may have been appended waits for its outcome as long as it can.
                let held = if maybe { timers.commit_deadline } else { timers.no_leader_hold };
                let waited = shared.env.mono().since(start);
                futures::select_biased! {
                    _ = applied => return,
                    _ = shared.leadership.await_leader_change(view).fuse() => continue,
                    () = deadline => {}
                    () = shared.env.sleep(held.saturating_sub(waited)).fuse() => {}
                }
                break if maybe { CommitError::Unknown(why) } else { CommitError::NoLeader(timers.no_leader_hold) };
            };
            let attempt = futures::select_biased! {
                _ = applied => return,
                attempt = self.attempt(leader, &batch.payload).fuse() => attempt,
                _ = shared.leadership.await_leader_change(view).fuse() => Attempt::Unknown("the leader changed".into()),
                () = deadline => {
                    break if maybe || shared.leadership.view().leader.is_some() {
                        CommitError::Unknown(why)
                    } else {
                        CommitError::NoLeader(timers.no_leader_hold)
                    };
                }
            };
            match attempt {
                Attempt::Unknown(_) if mutant("unknown-told-as-refused") => {
                    break CommitError::NoLeader(timers.no_leader_hold);
                }
                Attempt::Committed(index) => {
                    futures::select_biased! {
                        _ = applied => return,
                        () = deadline => {}
                    }
                    break CommitError::Unknown(format!("committed at {index}, but not applied here in time"));
                }
                Attempt::NotLeader => {}
                Attempt::Overloaded if !maybe => break CommitError::Overloaded,
                Attempt::Overloaded => {}
                Attempt::Unknown(e) => {
                    maybe = true;
                    why = e;
                }
                Attempt::Stopped(e) => break if maybe { CommitError::Unknown(e) } else { CommitError::Stopped(e) },
            }
            add(&shared.counters.batch_retries, 1);
            if !maybe && shared.env.mono().since(start) >= timers.no_leader_hold {
                break CommitError::NoLeader(timers.no_leader_hold);
            }
            futures::select_biased! {
                _ = applied => return,
                _ = shared.leadership.await_leader_change(view).fuse() => {}
                () = shared.env.sleep(RETRY).fuse() => {}
            }
        };
        shared.outcomes.forget_batch(first);
        for sequence in &batch.sequences {
            shared.outcomes.resolve(*sequence, Err(failure.clone()));
        }
    }

    async fn attempt(&self, leader: NodeId, payload: &Payload) -> Attempt {
        if leader == self.shared.id() {
            return match self.core.propose(payload.clone()).await {
                Ok(index) => Attempt::Committed(index),
                Err(ProposeError::NotLeader) => Attempt::NotLeader,
                Err(ProposeError::Unknown(e)) => Attempt::Unknown(e),
                Err(ProposeError::Stopped(e)) => Attempt::Stopped(e),
            };
        }
        let Some(link) = self.link(leader) else { return Attempt::NotLeader };
        let Ok(conn) = link.conn(self.shared.config.timers.connect).await else { return Attempt::NotLeader };
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let Some(mut route) = conn.route(batch) else { return Attempt::NotLeader };
        let message = Message { body: codec::encode(&Forward { batch }), payloads: vec![payload.0.clone()] };
        add(&self.shared.counters.forwarded, 1);
        if conn.send(message).await.is_err() {
            return Attempt::Unknown("the stream to the leader broke".into());
        }
        match route.rx.recv().await.map(|f| f.result) {
            Some(ForwardResult::NotLeader) => Attempt::NotLeader,
            Some(ForwardResult::Overloaded) => Attempt::Overloaded,
            Some(ForwardResult::Unknown(e)) => Attempt::Unknown(e),
            None => Attempt::Unknown("the stream to the leader broke".into()),
        }
    }

    fn link(&self, leader: NodeId) -> Option<Link<Forwarded>> {
        let peer = self.shared.peer(leader)?;
        let mut links = self.links.lock();
        if let Some(link) = links.get(&leader)
            && *link.peer() == peer
        {
            return Some(link.clone());
        }
        let s = &self.shared;
        let link = Link::new(
            s.env.clone(),
            s.scope.clone(),
            s.transport.clone(),
            peer,
            Lane::Forward,
            s.config.timers.clone(),
            s.counters.clone(),
        );
        links.insert(leader, link.clone());
        Some(link)
    }
}
