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
//!  <dir>/00000001.wal  header │ state at its start │ records … │ seal   (synced)
//!  <dir>/00000002.wal  header │ state at its start │ records … │ zeros  (the last)
//! ```
//!
//! Invariants:
//! - A callback says `Ok` only after an fdatasync that covers its records.
//! - Records have consecutive sequence numbers across segments, and each says
//!   up to which number the log was known to be synced when it was written. A
//!   bad record with a later witness that it was synced is corruption and is
//!   refused by file and offset. Without one it is cut off as a torn tail only
//!   when it looks like one: a write that is torn lacks whole sectors, which
//!   then hold the zeros that were there before (`tail.rs`).
//! - A segment gets its name when it is whole and durable, and the one before
//!   it a seal that says so, before anything in the new one is acknowledged. So
//!   a segment that is missing, empty or short was damaged.
//! - All segments carry the log's own random number.
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
mod tail;
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
