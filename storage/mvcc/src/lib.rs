//! The multi-version store: pure, no IO, no async runtime.
//!
//! Ordered keys `(resource, namespace, name)`; the current value and the
//! history inside the watch window; an event log with watchers as cursors into
//! it. [`Db`] is the one door that everything above storage uses; [`LocalDb`]
//! is that door over a single in-memory store, for tests.

mod apply;
mod chain;
mod db;
mod dedup;
mod domain;
mod event;
mod export;
mod facade;
mod group;
mod key;
pub mod levels;
mod limits;
mod local;
mod object;
mod read;
mod slot;
mod state;
mod store;
mod table;
mod track;
mod txn;
mod watch;
mod window;
mod wire;

pub use apply::{AppliedAt, ProposalId};
pub use db::{CommitError, Committed, Db};
pub use dedup::DEDUP_WINDOW;
pub use event::{Event, EventKind};
pub use export::{Change, Export, ExportLost, Header, Import, ImportError, Pin};
pub use facade::{
    FacadeCompare, FacadeEnd, FacadeHash, FacadeLease, FacadeOp, FacadeOutcome, FacadePut, FacadeRange, FacadeResult,
    FacadeTarget, FacadeTxn, LEASE_RESOURCE, facade_key, facade_key_bytes, facade_lease, facade_object, lease_event,
    lease_key, lease_object,
};
pub use key::{Key, Prefix};
pub use limits::Limits;
pub use local::LocalDb;
pub use object::{Meta, Object, OwnerRef, RV_SLOT_LEN};
pub use read::{ListRequest, ListResult, ReadError, Stored};
pub use store::Mvcc;
pub use txn::{Epoch, Guard, Op, Revision, Txn, TxnOutcome};
pub use watch::{WatchError, Watcher};
pub use window::{DomainStats, WindowStats};

/// The resource of the etcd facade's keys. Their revisions are the facade's own.
pub const FACADE_RESOURCE: &str = "~etcd";
