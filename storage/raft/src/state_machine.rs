//! Applying committed entries to memory, in log order, and telling who waits.
//!
//! Invariant: what apply does depends on the entry and the state alone. It uses
//! no randomness, and a clock only to tell how long it took, so that replicas
//! stay equal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{AsyncRuntime, OptionalSend, RaftSnapshotBuilder};
use triarch_mutants::mutant;
use triarch_mvcc::{AppliedAt, Committed, FacadeOp, Op};

use crate::checkpointer::Checkpointer;
use crate::codec;
use crate::levels;
use crate::shared::{Shared, yield_now};
use crate::snapshot::SnapshotData;
use crate::types::{
    Entry, EntryPayload, LeaderId, LogId, NodeId, Replica, SnapshotMeta, StoredMembership, TypeConfig, epoch_of,
};

type Snapshot = openraft::Snapshot<LeaderId, NodeId, Replica, SnapshotData>;

/// Entries applied before other tasks get a turn.
const YIELD_EVERY: u64 = 128;

pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    checkpointer: Arc<Checkpointer>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    pub fn new(
        shared: Arc<Shared>,
        checkpointer: Arc<Checkpointer>,
        applied: Option<LogId>,
        membership: StoredMembership,
    ) -> StateMachine {
        StateMachine { shared, checkpointer, applied, membership }
    }

    fn apply_entry(&mut self, entry: Entry) -> io::Result<()> {
        let shared = &self.shared;
        let began = shared.env.mono();
        let at = AppliedAt {
            index: entry.log_id.index,
            term: entry.log_id.leader_id.term,
            node: entry.log_id.leader_id.node_id,
        };
        match entry.payload {
            EntryPayload::Blank => drop(shared.mvcc.apply(&[], at)),
            EntryPayload::Membership(m) => {
                shared.mvcc.apply(&[], at);
                self.membership = StoredMembership::new(Some(entry.log_id), m);
            }
            EntryPayload::Normal(payload) => {
                let mut batch = codec::decode_batch(&payload)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {}: {e}", at.index)))?;
                let own = batch.first().is_some_and(|(id, _)| id.incarnation == shared.life);
                if !own && mutant("range-dropped-elsewhere") {
                    for op in batch.iter_mut().flat_map(|(_, txn)| &mut txn.ops) {
                        if let Op::Facade(txn) = op {
                            txn.success.retain(|op| !matches!(op, FacadeOp::At(_)));
                        }
                    }
                }
                levels::admit_batch(shared, &batch, at)?;
                let outcomes = shared.mvcc.apply(&batch, at);
                if let Some((first, _)) = batch.first() {
                    let (incarnation, first) = (first.incarnation, first.sequence);
                    tracing::debug!(index = at.index, incarnation, first, txns = batch.len(), "applied an entry");
                }
                shared.counters.txns_applied.fetch_add(batch.len() as u64, Ordering::Relaxed);
                // A batch has one proposer.
                if own {
                    let revision = shared.mvcc.revision();
                    let answers = batch
                        .iter()
                        .zip(outcomes)
                        .map(|((id, _), outcome)| (id.sequence, Ok(Committed { outcome, revision })));
                    // Before the waiters go on: what they wrote counts as applied.
                    shared.progress.advance(at.index, revision);
                    shared.outcomes.applied(at.index, shared.env.mono(), &shared.latencies.commit, answers);
                }
            }
        }
        self.applied = Some(entry.log_id);
        shared.counters.entries_applied.fetch_add(1, Ordering::Relaxed);
        shared.progress.advance(at.index, shared.mvcc.revision());
        // Whatever this leadership's node does from here on sees all that came before it.
        if at.node == shared.id() && shared.leadership.last_established() != Some(at.epoch()) {
            shared.leadership.established(epoch_of(&entry.log_id.leader_id));
        }
        self.checkpointer.applied(&self.membership);
        self.shared.latencies.apply.observe(self.shared.env.mono().since(began));
        Ok(())
    }
}

impl<R: AsyncRuntime> RaftStateMachine<TypeConfig<R>> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig<R>>>> + Unpin + OptionalSend,
    {
        let mut n = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(());
            }
            n += 1;
            if n % YIELD_EVERY == 0 {
                yield_now().await;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.checkpointer.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.checkpointer.install(snapshot).await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.shared.progress.advance(meta.last_log_id.map_or(0, |id| id.index), self.shared.mvcc.revision());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.checkpointer.current())
    }
}

/// The snapshot is the checkpoint, so building one is only looking at it.
pub(crate) struct Builder(Arc<Checkpointer>);

impl<R: AsyncRuntime> RaftSnapshotBuilder<TypeConfig<R>> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        // Its meta says how far the log may be purged, so it is that of the disk.
        let none = || io::Error::other("there is no checkpoint yet");
        let meta = self.0.durable().ok_or_else(none)?;
        let current = self.0.current().ok_or_else(none)?;
        Ok(Snapshot { meta, snapshot: current.snapshot })
    }
}
