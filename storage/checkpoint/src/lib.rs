//! The checkpoint: a lagging copy of the store on disk, and what a restart
//! begins with. It is never trusted with an acknowledgement; the log is.
//!
//! ```text
//!   advance(changes, header) ─► one atomic batch ─► flush ─► fdatasync
//!   open ─► header ─► pages of objects ─► digest compared at the end
//!   replace (snapshot install, rotation) ─► a fresh generation ─► CURRENT switched
//! ```
//!
//! Invariants:
//! - What is on disk is the state at exactly one header: either every change of
//!   a batch and its header is there, or none.
//! - The header carries a digest of all objects. A checkpoint whose pages do not
//!   add up to it is *lost*, never used in part: a peer sends a snapshot.
//! - Only `sled_kv.rs` knows sled.

mod codec;
mod error;
mod kv;
mod memory_kv;
mod replace;
mod restore;
mod sled_kv;
mod store;

pub use codec::{AppliedLog, Header, StoredObject};
pub use error::CheckpointError;
pub use kv::{Batch, Generations, Kv};
pub use memory_kv::MemoryGenerations;
pub use replace::Replacement;
pub use restore::Pages;
pub use sled_kv::SledGenerations;
pub use store::{ADVISED_BATCH_BYTES, Change, CheckpointStore, MAX_BATCH_BYTES, Opened};
