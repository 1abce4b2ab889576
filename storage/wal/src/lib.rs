//! The write-ahead log: the one place where an acknowledged write is durable.
//!
//! It holds log entries (opaque payloads under a [`LogId`]), the vote, the
//! committed index, purge and truncate marks and one small opaque identity. It
//! knows nothing of Raft beyond those words, and nothing of what a payload
//! means.
//!
//! ```text
//!  raft ─► WalHandle ─► queue ─► driver: drain all ─► one write ─► one fdatasync ─► callbacks
//!            │                     (WAL thread, or a task in the simulation)
//!            └─► LogIndex: where each entry is, and an in-memory tail of payloads
//!
//!  <dir>/00000001.wal  header │ state at its start │ records …          (sealed, synced)
//!  <dir>/00000002.wal  header │ state at its start │ records … │ zeros  (the last)
//! ```
//!
//! Invariants:
//! - A callback says `Ok` only after an fdatasync that covers its records.
//! - Records have consecutive sequence numbers across segments, and each says
//!   up to which number the log was known to be synced when it was written. A
//!   bad record with a later witness that it was synced is corruption and is
//!   refused by file and offset; without one it is a torn tail and is cut off.
//! - After a failed write or sync nothing is trusted: every later call fails,
//!   and [`WalHandle::failed`] tells the process to stop.
//! - Every segment starts with the whole small state (vote, committed, purged,
//!   identity), so that older segments can be deleted.

mod codec;
mod driver;
mod error;
mod handle;
mod index;
mod metrics;
mod queue;
mod recover;
mod scan;
mod segment;
mod wal;
mod writer;

pub use codec::{LogId, MAX_PAYLOAD};
pub use driver::SyncLatency;
pub use error::WalError;
pub use handle::{Callback, State, WalHandle};
pub use index::Entry;
pub use metrics::{ObserveFsync, WalMetrics};
pub use recover::Repair;
pub use wal::{Command, Config, Wal};
