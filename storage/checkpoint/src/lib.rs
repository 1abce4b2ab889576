//! The checkpoint: a lagging copy of the store on disk, and what a restart
//! begins with. It is never trusted with an acknowledgement; the log is.
//!
//! ```text
//!   advance(changes, header) ─► one run, synced ─► named
//!   open ─► the chain of runs, newest root ─► pages of objects, merged, all checked
//!   tidy ─► runs merged into one       replace ─► one run that holds everything
//! ```
//!
//! Invariants:
//! - What is on disk is the state at exactly one header, the newest run's: a run
//!   has its name only when all of it is durable.
//! - Every byte is under a checksum, every run counts its records and names the
//!   run that it goes on from. A checkpoint that does not add up is *lost*, never
//!   used in part: a peer sends a snapshot.
//! - A run is removed only when the chain does without it.

mod chain;
mod codec;
mod error;
mod merge;
mod replace;
mod restore;
mod run;
mod store;

pub use codec::{AppliedLog, Header, StoredObject};
pub use error::CheckpointError;
pub use replace::Replacement;
pub use restore::Pages;
pub use store::{ADVISED_PAGE_BYTES, Change, CheckpointStore, Opened};
