//! Feature levels: which operations the log of a cluster may hold.
//!
//! Replicas of two releases run side by side during an upgrade, and the older
//! one cannot apply what it does not know. So a number that is replicated itself
//! says what may be proposed: it is raised once every member supports more, and
//! is never lowered. A release supports all levels up to its own.
//!
//! A new level is one line in [`LEVELS`] and, where it brings operations, one in
//! [`Txn::level`]. Where it changes what apply does with an entry, apply asks
//! for the level that is replicated at that entry, and for nothing else.

use std::sync::LazyLock;

use crate::facade::{FacadeOp, FacadeTarget, FacadeTxn};
use crate::state::State;
use crate::{Epoch, Guard, Key, LEASE_RESOURCE, Mvcc, Object, Op, Txn};

/// A level and what it brings.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub number: u64,
    pub brings: &'static str,
}

/// Of a cluster, or a replica, that says none.
pub const FIRST: u64 = 1;
const LEASES: u64 = 2;

/// Every level, in order.
pub const LEVELS: &[Level] = &[
    Level { number: FIRST, brings: "all that is not named below" },
    Level { number: LEASES, brings: "leases of the etcd facade" },
];

/// The highest level that this release supports.
pub const LATEST: u64 = LEVELS[LEVELS.len() - 1].number;

/// A release that does not support the level of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster is at feature level {level}, and this release supports levels up to {supports} only: install the \
     release that the other replicas run, or a newer one, and start it on the same data directory"
)]
pub struct TooOld {
    pub level: u64,
    pub supports: u64,
}

/// Whether a release that supports `supports` may take part at `level`.
pub fn fits(level: u64, supports: u64) -> Result<(), TooOld> {
    if level <= supports { Ok(()) } else { Err(TooOld { level, supports }) }
}

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new("~system", "", "feature-level"));

/// Where the level is kept, as a decimal number.
pub fn feature_level_key() -> Key {
    KEY.clone()
}

fn number(object: &Object) -> Option<u64> {
    std::str::from_utf8(&object.bytes).ok()?.parse().ok()
}

/// The level of a state.
pub(crate) fn of(state: &State) -> u64 {
    let slot = state.table(KEY.resource_bytes()).and_then(|t| t.slots.get(&*KEY));
    slot.and_then(|s| number(s.object.as_ref()?)).unwrap_or(FIRST)
}

impl Mvcc {
    /// The replicated feature level.
    pub fn feature_level(&self) -> u64 {
        of(&self.state.read())
    }

    /// The transaction by which the leader of `epoch` raises the level to `to`.
    /// It is applied once, and only while the level is what it is now.
    pub fn raise(&self, to: u64, epoch: Epoch) -> Txn {
        let guard = match self.get(&KEY) {
            Some(stored) => Guard::ModRevision(feature_level_key(), stored.mod_revision),
            None => Guard::Absent(feature_level_key()),
        };
        let put = Op::Put(feature_level_key(), Object::plain(to.to_string()));
        Txn { guards: vec![guard], ops: vec![put], epoch: Some(epoch) }
    }
}

impl Txn {
    /// The lowest feature level at which this may be proposed.
    pub fn level(&self) -> u64 {
        let op = |op: &Op| match op {
            Op::Put(key, _) | Op::Delete(key) if key.resource_bytes() == LEASE_RESOURCE.as_bytes() => LEASES,
            Op::Facade(txn) => facade(txn),
            Op::Put(..) | Op::Delete(_) | Op::Compact(_) | Op::CompactFacade(_) => FIRST,
        };
        self.ops.iter().map(op).max().unwrap_or(FIRST)
    }

    /// The feature level that this sets when it is applied in an entry of `epoch`.
    pub fn sets_level(&self, epoch: Epoch) -> Option<u64> {
        let set = |op: &Op| match op {
            Op::Put(key, object) if *key == *KEY => number(object),
            _ => None,
        };
        self.ops.iter().filter_map(set).max().filter(|_| self.epoch.is_none_or(|e| e == epoch))
    }
}

fn facade(txn: &FacadeTxn) -> u64 {
    let op = |op: &FacadeOp| match op {
        FacadeOp::PutLeased(_) | FacadeOp::Revoke(_) => LEASES,
        FacadeOp::Txn(txn) => facade(txn),
        FacadeOp::Put(..) | FacadeOp::Delete(_) | FacadeOp::At(_) => FIRST,
    };
    let compared = txn.compare.iter().map(|c| match c.target {
        FacadeTarget::Lease(_) => LEASES,
        _ => FIRST,
    });
    txn.success.iter().chain(&txn.failure).map(op).chain(compared).max().unwrap_or(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FacadeCompare, FacadePut, FacadeRange, FacadeResult, facade_key, lease_key, lease_object};

    #[test]
    fn levels_are_numbered_one_after_the_other_and_say_what_they_bring() {
        assert!(LEVELS.iter().zip(1..).all(|(l, n)| l.number == n && !l.brings.is_empty()));
        assert_eq!(fits(LATEST, LATEST), Ok(()));
        let text = fits(3, 2).unwrap_err().to_string();
        assert!(text.contains("at feature level 3") && text.contains("up to 2 only: install the release"), "{text}");
    }

    #[test]
    fn what_leases_bring_needs_their_level_wherever_it_stands() {
        let op = |op| Txn { ops: vec![op], ..Txn::default() };
        let ops = |success| op(Op::Facade(FacadeTxn { success, ..FacadeTxn::default() }));
        let key = facade_key(b"a");
        let leased = || FacadeOp::PutLeased(Box::new(FacadePut { key: key.clone(), value: None, lease: None }));
        let compare = |target| {
            let compare =
                FacadeCompare { range: FacadeRange::single(key.clone()), target, result: FacadeResult::Equal };
            op(Op::Facade(FacadeTxn { compare: vec![compare], ..FacadeTxn::default() }))
        };
        let nested = FacadeTxn { failure: vec![leased()], ..FacadeTxn::default() };
        for txn in [
            op(Op::Put(lease_key(7), lease_object(60))),
            op(Op::Delete(lease_key(7))),
            ops(vec![FacadeOp::At(0), FacadeOp::Revoke(7)]),
            ops(vec![FacadeOp::Txn(nested.into())]),
            compare(FacadeTarget::Lease(7)),
        ] {
            assert_eq!(txn.level(), LEASES, "{txn:?}");
        }
        for txn in [
            Txn::default(),
            op(Op::Put(Key::new("configmaps", "d", "a"), Object::plain("1"))),
            ops(vec![FacadeOp::At(0), FacadeOp::Put(key.clone(), None)]),
            compare(FacadeTarget::Version(1)),
        ] {
            assert_eq!(txn.level(), FIRST, "{txn:?}");
        }
    }

    #[test]
    fn a_level_is_raised_from_what_it_is_and_not_twice() {
        let mvcc = Mvcc::new(crate::Limits::default());
        assert_eq!(mvcc.feature_level(), FIRST);
        let epoch = Epoch { term: 1, node: 1 };
        let (two, three) = (mvcc.raise(2, epoch), mvcc.raise(3, epoch));
        assert_eq!(two.sets_level(epoch), Some(2));
        assert_eq!(two.sets_level(Epoch { term: 2, node: 1 }), None, "it would be fenced");
        mvcc.apply_local(&three);
        mvcc.apply_local(&two);
        assert_eq!(mvcc.feature_level(), 3, "an older decision does not lower it");
    }
}
