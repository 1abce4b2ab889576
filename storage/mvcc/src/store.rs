//! The store: the lock round the state, and reads.

use std::sync::Arc;
use std::task::Waker;

use parking_lot::RwLock;

use crate::apply;
use crate::state::State;
use crate::{
    AppliedAt, Key, Limits, ListRequest, ListResult, Prefix, ProposalId, ReadError, Revision, Stored, Txn, TxnOutcome,
};

/// Items read under one hold of the lock. A longer list goes on at the same
/// revision under the next.
const CHUNK: usize = 512;

/// The multi-version store of one replica. One writer applies; any number read.
/// Locks are held for a bounded number of keys and never across an await.
#[derive(Debug)]
pub struct Mvcc {
    pub(crate) state: RwLock<State>,
}

impl Mvcc {
    pub fn new(limits: Limits) -> Arc<Mvcc> {
        Arc::new(Mvcc { state: RwLock::new(State::new(limits)) })
    }

    /// Applies one entry. Later transactions see earlier ones; readers and
    /// watchers see the whole entry or nothing of it. An entry without a batch
    /// is applied too, so that the store knows how far it is.
    pub fn apply(&self, batch: &[(ProposalId, Txn)], at: AppliedAt) -> Vec<TxnOutcome> {
        let mut wakes = Vec::new();
        let mut state = self.state.write();
        let outcomes =
            batch.iter().map(|(_, txn)| apply::transaction(&mut state, txn, Some(at.epoch()), &mut wakes)).collect();
        state.prune(batch.len());
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        outcomes
    }

    /// Applies one transaction without a log; its epoch counts as the entry's.
    pub(crate) fn apply_local(&self, txn: &Txn) -> (TxnOutcome, Revision) {
        let mut wakes = Vec::new();
        let mut state = self.state.write();
        let outcome = apply::transaction(&mut state, txn, txn.epoch, &mut wakes);
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

    /// A page at one revision. `Compacted` is also possible without
    /// [`ListRequest::at`], when the floor overtakes a very long list.
    pub fn list(&self, req: &ListRequest) -> Result<ListResult, ReadError> {
        let limit = if req.limit == 0 { usize::MAX } else { req.limit };
        let resource = req.prefix.resource.as_bytes();
        let (mut at, mut after) = (req.at, req.after.clone());
        let mut items = Vec::new();
        // Counting goes on past the page; whole-prefix lists of the present know their total.
        let (mut remaining, mut total) = (0, None);
        loop {
            let state = self.state.read();
            let domain = state.domain_of(resource);
            let revision = domain.readable(at)?;
            let Some(table) = state.table(resource) else {
                return Ok(ListResult { revision, items, more: false, remaining: 0 });
            };
            if at.is_none() && req.after.is_none() {
                total = Some(table.count(&req.prefix));
            }
            at = Some(revision);
            let mut seen = 0;
            let mut last = None;
            for (key, slot) in table.range(&req.prefix, after.as_ref()) {
                if seen == CHUNK || (items.len() == limit && total.is_some()) {
                    break;
                }
                seen += 1;
                last = Some(key);
                if !req.prefix.contains(key) {
                    continue;
                }
                if items.len() < limit {
                    items.extend(slot.at(key, revision));
                } else {
                    remaining += u64::from(slot.alive_at(revision));
                }
            }
            if items.len() == limit
                && let Some(total) = total
            {
                remaining = total.saturating_sub(limit as u64);
                return Ok(ListResult { revision, items, more: remaining > 0, remaining });
            }
            if seen < CHUNK {
                return Ok(ListResult { revision, items, more: remaining > 0, remaining });
            }
            after = last.cloned();
        }
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
