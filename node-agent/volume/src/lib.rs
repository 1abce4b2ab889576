//! Volumes of pods on a node's disk.
//!
//! ```text
//!   Volume + Sources ─► plan::files (pure) ─► atomic::write ─► a folder to mount
//! ```
//! `plan` decides which files with which bytes and modes; `atomic` swaps them in
//! behind one symbolic link, so that a container sees the old set or the new one
//! and never a mixture; `disk` makes and removes the folders. Does not own:
//! where objects and tokens come from ([`Sources`]).
//! Sources that a node does not offer are refused by name.

mod atomic;
mod disk;
mod plan;
pub mod spec;

pub use disk::{PodDir, sub_path};
pub use plan::{File, Files, Sources, VolumeError, files};
