//! The etcd facade's part of the state: one revision per transaction, on a
//! counter of its own.
//!
//! Keys are etcd's byte strings, written so that [`Key`]'s order is theirs. A
//! value's version counts in its object's `generation`. What a transaction
//! answers beyond its revision is read from history afterwards (the state at
//! `revision - 1` and the request give every answer), so outcomes stay small.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};
use std::task::Waker;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::DomainId;
use crate::slot::Slot;
use crate::state::State;
use crate::table;
use crate::{FACADE_RESOURCE, Key, ListResult, Meta, Mvcc, Object, Prefix, ReadError, Revision};

/// A transaction of etcd's: compares, then one of two lists of writes. Ranges
/// are not in it: they change nothing.
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
    /// A compaction at or below the floor.
    Compacted,
    /// A compaction above the head.
    Future,
    /// A put that keeps the value of a key that holds none; nothing was written.
    KeyNotFound,
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
                FacadeOp::Delete(range) => (1, key(&range.start)),
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
                FacadeOp::Delete(r) => range(r),
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
    /// Whether a key with this (version, create, mod, value) passes; an absent
    /// key has version, create and mod revision 0, and no value passes a value
    /// comparison.
    pub fn holds(&self, version: i64, create: i64, modified: i64, value: Option<&[u8]>) -> bool {
        let order = match &self.target {
            FacadeTarget::Version(v) => version.cmp(v),
            FacadeTarget::Create(v) => create.cmp(v),
            FacadeTarget::Mod(v) => modified.cmp(v),
            FacadeTarget::Lease(v) => 0.cmp(v),
            FacadeTarget::Value(v) => match value {
                Some(value) => value.cmp(v),
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

/// The store's key for an etcd key: order-preserving and free of NULs. ASCII
/// above `\x01` is unchanged.
pub fn facade_key(key: &[u8]) -> Key {
    if key.iter().all(|b| matches!(b, 2..=0x7f)) {
        return Key::new(FACADE_RESOURCE, "", std::str::from_utf8(key).expect("all of it is ASCII"));
    }
    let mut text = String::with_capacity(key.len() * 2);
    for b in key {
        match b {
            0 => text.push_str("\u{1}\u{1}"),
            1 => text.push_str("\u{1}\u{2}"),
            b => text.push(char::from(*b)),
        }
    }
    Key::new(FACADE_RESOURCE, "", &text)
}

/// The inverse of [`facade_key`].
pub fn facade_key_bytes(key: &Key) -> Bytes {
    let all = key.as_bytes();
    let name = all.slice(FACADE_RESOURCE.len() + 2..);
    if name.iter().all(|b| matches!(b, 2..=0x7f)) {
        return name;
    }
    let mut out = Vec::with_capacity(name.len());
    let mut chars = key.name().chars();
    while let Some(c) = chars.next() {
        let c = if c == '\u{1}' { chars.next().map_or(0, |c| c as u32 - 1) } else { c as u32 };
        out.push(c as u8);
    }
    out.into()
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

/// Applies a facade transaction. All comparisons are made before any write.
pub(crate) fn transaction(state: &mut State, txn: &FacadeTxn, wakes: &mut Vec<Waker>) -> FacadeOutcome {
    let succeeded = txn.compare.iter().all(|c| compare(state, c));
    let mut writes = Vec::new();
    if !plan(state, if succeeded { &txn.success } else { &txn.failure }, &mut writes) {
        return FacadeOutcome::KeyNotFound;
    }
    let revision = state.domains[DomainId::Facade as usize].revision;
    let next = revision + 1;
    let mut wrote = false;
    for write in writes {
        match write {
            FacadeOp::Put(key, value) => {
                let (object, version) = held(state, key).map_or((None, 0), |s| (s.object.as_ref(), version(s)));
                let bytes = value.clone().or_else(|| object.map(|o| o.bytes.clone())).unwrap_or_default();
                let object = Object { bytes, slot: None, meta: meta(version + 1) };
                state.write(key, Some(object), next, wakes);
                wrote = true;
            }
            FacadeOp::Delete(range) => {
                for key in keys(state, range) {
                    state.write(&key, None, next, wakes);
                    wrote = true;
                }
            }
            FacadeOp::Txn(_) => {}
        }
    }
    if wrote {
        state.domains[DomainId::Facade as usize].revision = next;
    }
    FacadeOutcome::Done { revision: if wrote { next } else { revision }, wrote, succeeded }
}

/// Raises the facade's floor.
pub(crate) fn compact(state: &mut State, floor: Revision) -> FacadeOutcome {
    let domain = &mut state.domains[DomainId::Facade as usize];
    if floor <= domain.floor {
        return FacadeOutcome::Compacted;
    }
    if floor > domain.revision {
        return FacadeOutcome::Future;
    }
    domain.floor = floor;
    FacadeOutcome::Done { revision: domain.revision, wrote: false, succeeded: true }
}

/// The writes of the branches taken, in order; `false` when one cannot be done.
/// Depth is bounded where requests come in and by the decoder of entries.
fn plan<'t>(state: &State, ops: &'t [FacadeOp], writes: &mut Vec<&'t FacadeOp>) -> bool {
    ops.iter().all(|op| match op {
        FacadeOp::Put(key, None) if held(state, key).is_none() => false,
        FacadeOp::Txn(txn) => {
            let succeeded = txn.compare.iter().all(|c| compare(state, c));
            plan(state, if succeeded { &txn.success } else { &txn.failure }, writes)
        }
        op => {
            writes.push(op);
            true
        }
    })
}

fn compare(state: &State, c: &FacadeCompare) -> bool {
    let holds = |s: &Slot| {
        let value = s.object.as_ref().map(|o| &o.bytes[..]);
        c.holds(version(s), s.create_revision as i64, s.mod_revision as i64, value)
    };
    if c.range.end == FacadeEnd::Single {
        return match held(state, &c.range.start) {
            Some(slot) => holds(slot),
            None => c.holds(0, 0, 0, None),
        };
    }
    let mut none = true;
    let all = slots(state, &c.range).all(|(_, s)| {
        none = false;
        holds(s)
    });
    if none { c.holds(0, 0, 0, None) } else { all }
}

fn held<'s>(state: &'s State, key: &Key) -> Option<&'s Slot> {
    let slot = state.table(FACADE_RESOURCE.as_bytes())?.slots.get(key)?;
    slot.object.is_some().then_some(slot)
}

fn slots<'s>(state: &'s State, range: &FacadeRange) -> impl Iterator<Item = (&'s Key, &'s Slot)> {
    let prefix = Prefix::resource(FACADE_RESOURCE);
    let table = state.table(FACADE_RESOURCE.as_bytes());
    let range = range.clone();
    let from = range.start.clone();
    table
        .into_iter()
        .flat_map(move |t| table::range_from(&t.slots, &prefix, &from))
        .map(|(k, s)| (k, &**s))
        .take_while(move |(k, _)| range.contains(k))
        .filter(|(_, s)| s.object.is_some())
}

fn keys(state: &State, range: &FacadeRange) -> Vec<Key> {
    if range.end == FacadeEnd::Single {
        return held(state, &range.start).map(|_| range.start.clone()).into_iter().collect();
    }
    slots(state, range).map(|(k, _)| k.clone()).collect()
}

fn version(slot: &Slot) -> i64 {
    slot.object.as_ref().map_or(0, |o| o.meta.generation)
}

/// Metadata that holds only a version; the usual ones are shared.
fn meta(version: i64) -> Arc<Meta> {
    static LOW: LazyLock<Vec<Arc<Meta>>> =
        LazyLock::new(|| (0..32).map(|generation| Arc::new(Meta { generation, ..Meta::default() })).collect());
    let shared = usize::try_from(version).ok().and_then(|v| LOW.get(v));
    shared.cloned().unwrap_or_else(|| Arc::new(Meta { generation: version, ..Meta::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_etcds_order_and_come_back_as_they_were() {
        let mut raw: Vec<Vec<u8>> = vec![b"".to_vec(), b"a".to_vec(), b"/registry/x".to_vec()];
        for a in 0..=255u8 {
            raw.extend([vec![a], vec![a, 0], vec![a, 1], vec![a, a], vec![b'a', a]]);
        }
        raw.sort();
        raw.dedup();
        let keys: Vec<Key> = raw.iter().map(|k| facade_key(k)).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|w| w[0] != w[1]));
        for (raw, key) in raw.iter().zip(&keys) {
            assert_eq!(facade_key_bytes(key), raw);
            assert!(Key::from_bytes(key.as_bytes().clone()).is_some());
        }
    }
}
