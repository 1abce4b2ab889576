//! The multi-version store: pure, no IO, no async runtime.
//!
//! Ordered keys `(resource, namespace, name)`; the current value and the
//! history inside the watch window; an event log with watchers as cursors into
//! it. [`Db`] is the one door that everything above storage uses; [`LocalDb`]
//! is that door over a single in-memory store, for tests.

mod db;
mod key;
mod object;
mod txn;

pub use db::{CommitError, Committed, Db};
pub use key::{Key, Prefix};
pub use object::{Meta, Object, OwnerRef, RV_SLOT_LEN};
pub use txn::{Epoch, Guard, Op, Revision, Txn, TxnOutcome};
