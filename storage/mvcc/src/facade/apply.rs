//! What a facade transaction does to the state. It is a function of the two:
//! nothing here asks for the time, so a lease ends only when a write says so.

use std::sync::{Arc, LazyLock};
use std::task::Waker;

use bytes::Bytes;

use super::{FacadeCompare, FacadeEnd, FacadeOp, FacadeOutcome, FacadeRange, FacadeTxn, lease};
use crate::domain::DomainId;
use crate::slot::Slot;
use crate::state::State;
use crate::{FACADE_RESOURCE, Key, Meta, Object, Op, Prefix, Revision, table};

/// Applies a facade transaction. All comparisons and checks are made before any write.
pub(crate) fn transaction(state: &mut State, txn: &FacadeTxn, wakes: &mut Vec<Waker>) -> FacadeOutcome {
    let succeeded = txn.compare.iter().all(|c| compare(state, c));
    let mut writes = Vec::new();
    if let Err(refused) = plan(state, if succeeded { &txn.success } else { &txn.failure }, &mut writes) {
        return refused;
    }
    let revision = state.domains[DomainId::Facade as usize].revision;
    let next = revision + 1;
    let mut wrote = false;
    for write in writes {
        match write {
            FacadeOp::Put(key, value) => {
                put(state, key, value.as_ref(), Some(0), next, wakes);
                wrote = true;
            }
            FacadeOp::PutLeased(leased) => {
                put(state, &leased.key, leased.value.as_ref(), leased.lease, next, wakes);
                wrote = true;
            }
            FacadeOp::Delete(range) => wrote |= delete(state, &keys(state, range), next, wakes),
            FacadeOp::Revoke(id) => {
                let attached: Vec<Key> = lease::attached(state, *id).cloned().collect();
                wrote |= delete(state, &attached, next, wakes);
                crate::apply::operation(state, &Op::Delete(lease::lease_key(*id)), wakes);
            }
            FacadeOp::Txn(_) | FacadeOp::At(_) => {}
        }
    }
    if wrote {
        state.domains[DomainId::Facade as usize].revision = next;
    }
    FacadeOutcome::Done { revision: if wrote { next } else { revision }, wrote, succeeded }
}

/// Writes a key; without a value or a lease it keeps the one that it has.
fn put(
    state: &mut State,
    key: &Key,
    value: Option<&Bytes>,
    lease: Option<i64>,
    revision: Revision,
    wakes: &mut Vec<Waker>,
) {
    let was = held(state, key).and_then(|s| s.object.as_ref());
    let version = was.map_or(0, |o| o.meta.generation) + 1;
    let lease = lease.or_else(|| was.map(lease::facade_lease)).unwrap_or(0);
    let bytes = value.or_else(|| was.map(|o| &o.bytes)).cloned().unwrap_or_default();
    state.write(key, Some(facade_object(bytes, version, lease)), revision, wakes);
}

fn delete(state: &mut State, keys: &[Key], revision: Revision, wakes: &mut Vec<Waker>) -> bool {
    for key in keys {
        state.write(key, None, revision, wakes);
    }
    !keys.is_empty()
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

/// The writes of the branches taken, in order, or why one cannot be done.
/// Depth is bounded where requests come in and by the decoder of entries.
fn plan<'t>(state: &State, ops: &'t [FacadeOp], writes: &mut Vec<&'t FacadeOp>) -> Result<(), FacadeOutcome> {
    let kept = |key: &Key, keeps: bool| match keeps && held(state, key).is_none() {
        true => Err(FacadeOutcome::KeyNotFound),
        false => Ok(()),
    };
    let granted = |id: i64| match id == 0 || lease::granted(state, id) {
        true => Ok(()),
        false => Err(FacadeOutcome::LeaseNotFound),
    };
    for op in ops {
        match op {
            FacadeOp::Put(key, value) => kept(key, value.is_none())?,
            FacadeOp::PutLeased(put) => {
                kept(&put.key, put.value.is_none() || put.lease.is_none())?;
                granted(put.lease.unwrap_or(0))?;
            }
            FacadeOp::Delete(_) => {}
            FacadeOp::Revoke(id) if *id == 0 => return Err(FacadeOutcome::LeaseNotFound),
            FacadeOp::Revoke(id) => granted(*id)?,
            FacadeOp::At(revision) => readable(state, *revision)?,
            FacadeOp::Txn(txn) => {
                let succeeded = txn.compare.iter().all(|c| compare(state, c));
                plan(state, if succeeded { &txn.success } else { &txn.failure }, writes)?;
                continue;
            }
        }
        writes.push(op);
    }
    Ok(())
}

/// Whether a read inside a transaction may be of this revision. Only what is
/// replicated decides (the floor, not what one replica has dropped), so that
/// every replica decides the same.
fn readable(state: &State, revision: i64) -> Result<(), FacadeOutcome> {
    let domain = &state.domains[DomainId::Facade as usize];
    match u64::try_from(revision) {
        Ok(0) => Ok(()),
        Ok(at) if at > domain.revision => Err(FacadeOutcome::Future),
        Ok(at) if at >= domain.floor => Ok(()),
        _ => Err(FacadeOutcome::Compacted),
    }
}

fn compare(state: &State, c: &FacadeCompare) -> bool {
    let holds = |s: &Slot| {
        let (create, modified) = (s.create_revision as i64, s.mod_revision as i64);
        s.object.as_ref().is_some_and(|o| c.holds(create, modified, Some(o)))
    };
    if c.range.end == FacadeEnd::Single {
        return match held(state, &c.range.start) {
            Some(slot) => holds(slot),
            None => c.holds(0, 0, None),
        };
    }
    let mut none = true;
    let all = slots(state, &c.range).all(|(_, s)| {
        none = false;
        holds(s)
    });
    if none { c.holds(0, 0, None) } else { all }
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

/// A value as the store keeps it: its version counts in `generation`, and the
/// lease that it is attached to owns it, so that the index of owners knows a
/// lease's keys.
pub fn facade_object(bytes: Bytes, version: i64, lease: i64) -> Object {
    Object { bytes, slot: None, meta: meta(version, lease) }
}

/// Metadata that holds only a version; the usual ones are shared.
fn meta(version: i64, lease: i64) -> Arc<Meta> {
    static LOW: LazyLock<Vec<Arc<Meta>>> =
        LazyLock::new(|| (0..32).map(|generation| Arc::new(Meta { generation, ..Meta::default() })).collect());
    if lease != 0 {
        let owners = Box::new([lease::owner(lease)]);
        return Arc::new(Meta { generation: version, owners, ..Meta::default() });
    }
    let shared = usize::try_from(version).ok().and_then(|v| LOW.get(v));
    shared.cloned().unwrap_or_else(|| Arc::new(Meta { generation: version, ..Meta::default() }))
}
