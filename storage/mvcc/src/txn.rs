//! What is proposed: a transaction of guards and operations, applied atomically.

use serde::{Deserialize, Serialize};

use crate::{FacadeOutcome, FacadeTxn, Key, Object};

/// A store revision: strictly increasing across the cluster, one per effective
/// object write. `resourceVersion` is this number. 0 is before everything.
pub type Revision = u64;

/// A leadership, as Raft names it. Ordered by term, then node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    pub term: u64,
    pub node: u64,
}

/// A condition on the state that the transaction meets. All must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// The key holds nothing.
    Absent(Key),
    /// The key holds something.
    Present(Key),
    /// The key was last written at exactly this revision.
    ModRevision(Key, Revision),
    /// The key's object has this uid.
    Uid(Key, Box<str>),
}

impl Guard {
    pub fn key(&self) -> &Key {
        match self {
            Guard::Absent(k) | Guard::Present(k) | Guard::ModRevision(k, _) | Guard::Uid(k, _) => k,
        }
    }
}

/// One change. Later operations of a batch see earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Takes a revision unless the key already holds exactly these bytes.
    Put(Key, Object),
    /// Takes a revision unless the key holds nothing.
    Delete(Key),
    /// Raises the compaction floor: history at and below it may go. Lower than
    /// the present floor does nothing. Takes no revision.
    Compact(Revision),
    /// A transaction on the etcd facade's keyspace, the only operation of its
    /// [`Txn`]. Takes one of the facade's own revisions when it writes.
    Facade(FacadeTxn),
    /// Raises the facade's floor, the only operation of its [`Txn`].
    CompactFacade(Revision),
}

/// An atomic unit: either every guard holds and every operation is applied, or
/// nothing happens and no revision is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
    /// Set on leader-only writes: applied only inside an entry whose own log id
    /// has this leader id.
    pub epoch: Option<Epoch>,
}

impl Txn {
    /// What it takes in a batch, roughly and not less: keys, values, metadata.
    pub fn weight(&self) -> usize {
        let guards: usize = self.guards.iter().map(|g| g.key().as_bytes().len() + 16).sum();
        let op = |op: &Op| match op {
            Op::Put(k, o) => k.as_bytes().len() + o.bytes.len() + o.meta.weight() + 64,
            Op::Delete(k) => k.as_bytes().len() + 16,
            Op::Facade(txn) => txn.weight(),
            Op::Compact(_) | Op::CompactFacade(_) => 16,
        };
        guards + self.ops.iter().map(op).sum::<usize>() + 32
    }
}

/// What became of a transaction. It is part of the replicated state (dedup
/// window), so it is small and the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOutcome {
    /// Applied; the revision of each operation in order (for one that changed
    /// nothing, the key's present revision, or 0 when the key holds nothing).
    Committed { revisions: Vec<Revision> },
    /// The guard at `index` did not hold; `found` is the mod revision of its
    /// key (`None`: the key holds nothing).
    GuardFailed { index: u32, found: Option<Revision> },
    /// The transaction names an epoch that is not the entry's.
    Fenced,
    /// Past a limit that apply enforces (operations, bytes).
    TooLarge,
    /// The proposal is older than the dedup window of its proposer, so whether
    /// it was applied before is no longer known. It was not applied now.
    Expired,
    /// What became of a [`Op::Facade`] or [`Op::CompactFacade`].
    Facade(FacadeOutcome),
}
