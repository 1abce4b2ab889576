//! Applying an entry: a batch of transactions, in order, without a clock.

use std::task::Waker;

use serde::{Deserialize, Serialize};
use triarch_mutants::mutant;

use crate::domain::DomainId;
use crate::state::State;
use crate::{Epoch, Guard, Key, Op, Revision, Txn, TxnOutcome, facade};

/// Names a proposal: who made it and its number there. A retry keeps the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// One life of one replica's process.
    pub incarnation: u64,
    /// Counts up from 1 within the incarnation.
    pub sequence: u64,
}

/// The log id of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppliedAt {
    pub index: u64,
    pub term: u64,
    pub node: u64,
}

impl AppliedAt {
    /// The leadership that appended the entry.
    pub fn epoch(&self) -> Epoch {
        Epoch { term: self.term, node: self.node }
    }
}

/// Applies one transaction: all of it or nothing.
pub(crate) fn transaction(state: &mut State, txn: &Txn, epoch: Option<Epoch>, wakes: &mut Vec<Waker>) -> TxnOutcome {
    let (ops, bytes) = size(txn);
    if ops > state.limits.txn_ops || bytes > state.limits.txn_bytes {
        return TxnOutcome::TooLarge;
    }
    if txn.epoch.is_some() && txn.epoch != epoch && !mutant("stale-epoch-accepted") {
        return TxnOutcome::Fenced;
    }
    for (index, guard) in txn.guards.iter().enumerate() {
        if let Err(found) = check(state, guard) {
            return TxnOutcome::GuardFailed { index: index as u32, found };
        }
    }
    match &txn.ops[..] {
        [Op::Facade(facade)] => return TxnOutcome::Facade(facade::transaction(state, facade, wakes)),
        [Op::CompactFacade(floor)] => return TxnOutcome::Facade(facade::compact(state, *floor)),
        [first, ..] if mutant("transaction-torn") => {
            return TxnOutcome::Committed { revisions: vec![operation(state, first, wakes)] };
        }
        ops if ops.iter().any(|op| matches!(op, Op::Facade(_) | Op::CompactFacade(_))) => return TxnOutcome::TooLarge,
        _ => {}
    }
    let mut revisions = Vec::with_capacity(txn.ops.len());
    for (n, op) in txn.ops.iter().enumerate() {
        if n > 0 && mutant("revision-shared") {
            state.domains[DomainId::Main as usize].revision -= 1;
        }
        revisions.push(operation(state, op, wakes));
    }
    TxnOutcome::Committed { revisions }
}

fn check(state: &State, guard: &Guard) -> Result<(), Option<Revision>> {
    let key = guard.key();
    let slot = state.table(key.resource_bytes()).and_then(|t| t.slots.get(key)).filter(|s| s.object.is_some());
    let holds = match (guard, slot) {
        (Guard::Absent(_), slot) => slot.is_none(),
        (Guard::Present(_), slot) => slot.is_some(),
        (Guard::ModRevision(_, rev), Some(slot)) => slot.mod_revision == *rev,
        (Guard::Uid(_, uid), Some(slot)) => slot.object.as_ref().is_some_and(|o| o.meta.uid == *uid),
        (Guard::ModRevision(..) | Guard::Uid(..), None) => false,
    };
    let holds = holds || mutant("guard-unchecked");
    if holds { Ok(()) } else { Err(slot.map(|s| s.mod_revision)) }
}

pub(crate) fn operation(state: &mut State, op: &Op, wakes: &mut Vec<Waker>) -> Revision {
    let (key, object) = match op {
        Op::Put(key, object) => (key, Some(object)),
        Op::Delete(key) => (key, None),
        Op::Compact(floor) => {
            let domain = &mut state.domains[DomainId::Main as usize];
            domain.floor = domain.floor.max((*floor).min(domain.revision));
            return 0;
        }
        Op::Facade(_) | Op::CompactFacade(_) => return 0,
    };
    let held = state.table(key.resource_bytes()).and_then(|t| t.slots.get(key)).filter(|s| s.object.is_some());
    match (held, object) {
        (None, None) => return 0,
        (Some(slot), Some(new)) if slot.object.as_ref().is_some_and(|o| o.bytes == new.bytes && o.slot == new.slot) => {
            return slot.mod_revision;
        }
        _ => {}
    }
    let revision = state.main().revision + 1;
    state.domains[DomainId::Main as usize].revision = revision;
    state.write(key, object.cloned(), revision, wakes);
    revision
}

/// Operations with nested ones, and bytes of keys and values.
fn size(txn: &Txn) -> (usize, usize) {
    let key = |k: &Key| k.as_bytes().len();
    let mut total = (txn.guards.len(), txn.guards.iter().map(|g| key(g.key())).sum());
    for op in &txn.ops {
        let (ops, bytes) = match op {
            Op::Put(k, o) => (1, key(k) + o.bytes.len()),
            Op::Delete(k) => (1, key(k)),
            Op::Compact(_) | Op::CompactFacade(_) => (1, 0),
            Op::Facade(txn) => txn.size(),
        };
        total = (total.0 + ops, total.1 + bytes);
    }
    total
}
