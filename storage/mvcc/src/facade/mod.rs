//! The etcd facade's part of the state: one revision per transaction, on a
//! counter of its own.
//!
//! Keys are etcd's byte strings, written so that [`Key`]'s order is theirs. A
//! value's version counts in its object's `generation`. What a transaction
//! answers beyond its revision is read from history afterwards (the state at
//! `revision - 1` and the request give every answer), so outcomes stay small.

mod apply;
mod hash;
mod key;
mod lease;

use std::cmp::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use apply::facade_object;
pub(crate) use apply::{compact, transaction};
pub use hash::FacadeHash;
pub use key::{facade_key, facade_key_bytes};
pub use lease::{FacadeLease, LEASE_RESOURCE, facade_lease, lease_event, lease_key, lease_object};

use crate::domain::DomainId;
use crate::table;
use crate::{FACADE_RESOURCE, Key, ListResult, Mvcc, Object, Prefix, ReadError, Revision};

/// A transaction of etcd's: compares, then one of two lists of writes. Of its
/// ranges only the revisions are in it: they change nothing, but one that cannot
/// be read fails the whole transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacadeTxn {
    pub compare: Vec<FacadeCompare>,
    pub success: Vec<FacadeOp>,
    pub failure: Vec<FacadeOp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FacadeOp {
    /// `None` keeps the value that is there, which must be.
    Put(Key, Option<Bytes>),
    Delete(FacadeRange),
    Txn(Box<FacadeTxn>),
    /// A put with a lease, or one that keeps it.
    PutLeased(Box<FacadePut>),
    /// Ends a lease and deletes its keys, in one revision when it has any.
    Revoke(i64),
    /// A range reads at this revision (0: the present), which must be readable
    /// when the transaction begins; otherwise nothing is written.
    At(i64),
}

/// A put that says something of the key's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacadePut {
    pub key: Key,
    /// `None` keeps the value that is there, which must be.
    pub value: Option<Bytes>,
    /// One that was granted, or 0 for none; `None` keeps the lease of what is
    /// there, which must be.
    pub lease: Option<i64>,
}

/// Keys from `start` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacadeRange {
    pub start: Key,
    pub end: FacadeEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FacadeEnd {
    /// Just `start`.
    Single,
    /// Up to, without, this key.
    Before(Key),
    /// All keys at and after `start`.
    Unbounded,
}

/// A condition on every key of a range (none: on the absent key).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacadeCompare {
    pub range: FacadeRange,
    pub target: FacadeTarget,
    pub result: FacadeResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FacadeTarget {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(Bytes),
    Lease(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FacadeResult {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What became of a facade transaction or compaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FacadeOutcome {
    /// The facade's revision after it, which is its own when it `wrote`.
    Done { revision: Revision, wrote: bool, succeeded: bool },
    /// A compaction at or below the floor, or a range below it.
    Compacted,
    /// A compaction or a range above the head.
    Future,
    /// A put that keeps the value of a key that holds none; nothing was written.
    KeyNotFound,
    /// No such lease was granted; nothing was written.
    LeaseNotFound,
}

impl FacadeTxn {
    /// A single put.
    pub fn put(key: Key, value: Bytes) -> FacadeTxn {
        FacadeTxn { success: vec![FacadeOp::Put(key, Some(value))], ..FacadeTxn::default() }
    }

    /// Compares and operations, nested ones too, and bytes of keys and values.
    pub(crate) fn size(&self) -> (usize, usize) {
        let key = |k: &Key| k.as_bytes().len();
        let mut total = (self.compare.len(), self.compare.iter().map(|c| key(&c.range.start)).sum());
        for op in self.success.iter().chain(&self.failure) {
            let (ops, bytes) = match op {
                FacadeOp::Put(k, value) => (1, key(k) + value.as_ref().map_or(0, |v| v.len())),
                FacadeOp::PutLeased(p) => (1, key(&p.key) + p.value.as_ref().map_or(0, |v| v.len())),
                FacadeOp::Delete(range) => (1, key(&range.start)),
                FacadeOp::Revoke(_) | FacadeOp::At(_) => (1, 0),
                FacadeOp::Txn(txn) => txn.size(),
            };
            total = (total.0 + ops, total.1 + bytes);
        }
        total
    }

    /// What it takes encoded, roughly and not less: keys, values, and each
    /// operation's own bytes.
    pub(crate) fn weight(&self) -> usize {
        const EACH: usize = 32;
        let key = |k: &Key| k.as_bytes().len();
        let range = |r: &FacadeRange| key(&r.start) + if let FacadeEnd::Before(end) = &r.end { key(end) } else { 0 };
        let compare = |c: &FacadeCompare| {
            let value = if let FacadeTarget::Value(v) = &c.target { v.len() } else { 0 };
            EACH + range(&c.range) + value
        };
        let op = |op: &FacadeOp| {
            EACH + match op {
                FacadeOp::Put(k, value) => key(k) + value.as_ref().map_or(0, |v| v.len()),
                FacadeOp::PutLeased(p) => key(&p.key) + p.value.as_ref().map_or(0, |v| v.len()),
                FacadeOp::Delete(r) => range(r),
                FacadeOp::Revoke(_) | FacadeOp::At(_) => 0,
                FacadeOp::Txn(txn) => txn.weight(),
            }
        };
        let ops = self.success.iter().chain(&self.failure);
        self.compare.iter().map(compare).sum::<usize>() + ops.map(op).sum::<usize>()
    }
}

impl FacadeRange {
    pub fn single(key: Key) -> FacadeRange {
        FacadeRange { start: key, end: FacadeEnd::Single }
    }

    pub fn contains(&self, key: &Key) -> bool {
        match &self.end {
            FacadeEnd::Single => *key == self.start,
            FacadeEnd::Before(end) => *key >= self.start && key < end,
            FacadeEnd::Unbounded => *key >= self.start,
        }
    }
}

impl FacadeCompare {
    /// Whether a key passes that has these create and mod revisions and holds
    /// `object`. An absent key has revisions, version and lease 0, and no value
    /// passes a value comparison.
    pub fn holds(&self, create: i64, modified: i64, object: Option<&Object>) -> bool {
        let order = match &self.target {
            FacadeTarget::Version(v) => object.map_or(0, |o| o.meta.generation).cmp(v),
            FacadeTarget::Create(v) => create.cmp(v),
            FacadeTarget::Mod(v) => modified.cmp(v),
            FacadeTarget::Lease(v) => object.map_or(0, facade_lease).cmp(v),
            FacadeTarget::Value(v) => match object {
                Some(object) => object.bytes[..].cmp(v),
                None => return false,
            },
        };
        match self.result {
            FacadeResult::Equal => order == Ordering::Equal,
            FacadeResult::NotEqual => order != Ordering::Equal,
            FacadeResult::Greater => order == Ordering::Greater,
            FacadeResult::Less => order == Ordering::Less,
        }
    }
}

impl Mvcc {
    /// The keys of a range in order, at one of the facade's revisions (`None`:
    /// the head): the first `limit`, and how many more there are.
    pub fn facade_range(
        &self,
        range: &FacadeRange,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<ListResult, ReadError> {
        let (revision, slots) = {
            let state = self.state.read();
            let revision = state.domains[DomainId::Facade as usize].readable(at)?;
            let table = state.table(FACADE_RESOURCE.as_bytes());
            if range.end == FacadeEnd::Single {
                let held = table.and_then(|t| t.slots.get(&range.start)?.at(&range.start, revision));
                let remaining = u64::from(limit == 0 && held.is_some());
                let items = held.into_iter().take(limit).collect();
                return Ok(ListResult { revision, items, more: remaining > 0, remaining });
            }
            (revision, table.map(|t| t.slots.clone()).unwrap_or_default())
        };
        let prefix = Prefix::resource(FACADE_RESOURCE);
        let mut found = table::range_from(&slots, &prefix, &range.start).take_while(|(key, _)| range.contains(key));
        let mut items = Vec::new();
        while items.len() < limit
            && let Some((key, slot)) = found.next()
        {
            items.extend(slot.at(key, revision));
        }
        let remaining = found.filter(|(_, slot)| slot.alive_at(revision)).count() as u64;
        Ok(ListResult { revision, items, more: remaining > 0, remaining })
    }

    /// What the facade's header says: its revision, and the term of the last applied entry.
    pub fn facade_head(&self) -> (Revision, u64) {
        let state = self.state.read();
        (state.domains[DomainId::Facade as usize].revision, state.applied.term)
    }
}
