//! The store: the lock round the state, and reads.

use std::sync::Arc;
use std::task::Waker;

use parking_lot::RwLock;
use triarch_mutants::mutant;

use crate::apply;
use crate::dedup::Seen;
use crate::domain::DomainId;
use crate::state::State;
use crate::table;
use crate::{
    AppliedAt, Key, Limits, ListRequest, ListResult, Prefix, ProposalId, ReadError, Revision, Stored, Txn, TxnOutcome,
};

/// The multi-version store of one replica. One writer applies; any number read.
/// Locks are held for a bounded number of keys and never across an await.
#[derive(Debug)]
pub struct Mvcc {
    pub(crate) state: RwLock<State>,
}

impl Mvcc {
    pub fn new(limits: Limits) -> Arc<Mvcc> {
        Mvcc::with_state(State::new(limits))
    }

    pub(crate) fn with_state(state: State) -> Arc<Mvcc> {
        Arc::new(Mvcc { state: RwLock::new(state) })
    }

    /// Applies one entry. Later transactions see earlier ones; readers and
    /// watchers see the whole entry or nothing of it. A proposal that the dedup
    /// window knows gets its first outcome and changes nothing. An entry
    /// without a batch is applied too, so that the store knows how far it is;
    /// an entry at or before the last applied one changes nothing.
    pub fn apply(&self, batch: &[(ProposalId, Txn)], at: AppliedAt) -> Vec<TxnOutcome> {
        let mut wakes = Vec::new();
        let mut guard = self.state.write();
        let state = &mut *guard;
        let again = at.index <= state.applied.index;
        let mut outcomes = Vec::with_capacity(batch.len());
        for (id, txn) in batch {
            let outcome = match state.dedup.look(*id).filter(|_| !mutant("dedup-dropped")) {
                Some(outcome) => outcome,
                None if again => TxnOutcome::Expired,
                None => {
                    let outcome = apply::transaction(state, txn, Some(at.epoch()), &mut wakes);
                    let seen = Seen::of(&outcome);
                    state.track.note(at.index, *id, seen.clone());
                    state.dedup.note(*id, at.index, seen);
                    outcome
                }
            };
            outcomes.push(outcome);
        }
        if !again {
            state.close(at);
            state.prune(batch.len());
        }
        drop(guard);
        wakes.into_iter().for_each(Waker::wake);
        outcomes
    }

    /// Applies one transaction without a log; its epoch counts as the entry's.
    pub(crate) fn apply_local(&self, txn: &Txn) -> (TxnOutcome, Revision) {
        let mut wakes = Vec::new();
        let mut state = self.state.write();
        let outcome = apply::transaction(&mut state, txn, txn.epoch, &mut wakes);
        let index = state.applied.index + 1;
        state.close(AppliedAt { index, term: 1, node: 1 });
        state.prune(1);
        let revision = state.main().revision;
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        (outcome, revision)
    }

    /// The head.
    pub fn revision(&self) -> Revision {
        self.state.read().main().revision
    }

    /// The floor: reads and watches below it are refused.
    pub fn compacted(&self) -> Revision {
        self.state.read().main().lowest()
    }

    /// How far the log is applied.
    pub fn applied(&self) -> AppliedAt {
        self.state.read().applied
    }

    /// The chain hash after the last applied entry: equal on all replicas.
    pub fn chain(&self) -> [u8; 32] {
        self.state.read().chain.hash
    }

    /// The head of the etcd facade's own counter (1 before its first write).
    pub fn facade_revision(&self) -> Revision {
        self.state.read().domains[DomainId::Facade as usize].revision
    }

    pub fn get(&self, key: &Key) -> Option<Stored> {
        let state = self.state.read();
        state.table(key.resource_bytes())?.slots.get(key)?.now(key)
    }

    /// What the key holds, and the head at that moment.
    pub fn get_with_revision(&self, key: &Key) -> (Option<Stored>, Revision) {
        let state = self.state.read();
        let revision = state.domain_of(key.resource_bytes()).revision;
        let slot = state.table(key.resource_bytes()).and_then(|t| t.slots.get(key));
        (slot.and_then(|s| s.now(key)), revision)
    }

    pub fn get_at(&self, key: &Key, at: Revision) -> Result<Option<Stored>, ReadError> {
        let state = self.state.read();
        let at = state.domain_of(key.resource_bytes()).readable(Some(at))?;
        Ok(state.table(key.resource_bytes()).and_then(|t| t.slots.get(key)).and_then(|s| s.at(key, at)))
    }

    /// A page at one revision. The lock is held only to take a view of the
    /// resource; counting what remains costs time only when a page is not the
    /// first or is not of the present.
    pub fn list(&self, req: &ListRequest) -> Result<ListResult, ReadError> {
        let limit = if req.limit == 0 { usize::MAX } else { req.limit };
        let resource = req.prefix.resource.as_bytes();
        let (revision, slots, total) = {
            let state = self.state.read();
            let revision = state.domain_of(resource).readable(req.at)?;
            let Some(table) = state.table(resource) else {
                return Ok(ListResult { revision, items: Vec::new(), more: false, remaining: 0 });
            };
            let whole = req.at.is_none() && req.after.is_none();
            (revision, table.slots.clone(), whole.then(|| table.count(&req.prefix)))
        };
        let mut items = Vec::with_capacity(total.unwrap_or(0).min(limit as u64) as usize);
        let mut range =
            table::range(&slots, &req.prefix, req.after.as_ref()).filter(|(key, _)| req.prefix.contains(key));
        for (key, slot) in range.by_ref() {
            items.extend(if mutant("page-of-the-present") { slot.now(key) } else { slot.at(key, revision) });
            if items.len() == limit {
                break;
            }
        }
        let remaining = match total {
            Some(total) => total.saturating_sub(items.len() as u64),
            None => range.filter(|(_, slot)| slot.alive_at(revision)).count() as u64,
        };
        Ok(ListResult { revision, items, more: remaining > 0, remaining })
    }

    /// Live keys under `prefix`.
    pub fn count(&self, prefix: &Prefix) -> u64 {
        let state = self.state.read();
        state.table(prefix.resource.as_bytes()).map_or(0, |t| t.count(prefix))
    }

    /// Objects with an owner reference to `owner_uid`, in key order.
    pub fn dependents(&self, owner_uid: &str) -> Vec<Stored> {
        let state = self.state.read();
        let get = |key: &Key| state.table(key.resource_bytes())?.slots.get(key)?.now(key);
        state.owned(owner_uid).filter_map(get).collect()
    }
}
