//! Controllers: pure reconcilers under one driver.
//!
//! ```text
//!  reconcile(snapshot at one revision, key, now) -> writes + when to look again
//! ```
//! A reconciler does no IO and keeps no state; [`Manager`] runs all of
//! [`CONTROLLERS`] for one epoch of leadership and is the only place that
//! writes. To add one: a file in `controllers/` and a line in the list.

pub mod controllers;
mod driver;
mod feed;
mod index;
mod meta;
mod name;
mod queue;
mod recorder;
mod registry_writer;
pub mod resources;
pub mod selector;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod world;
mod write;
mod writer;

pub use controllers::CONTROLLERS;
pub use driver::{Context, Controller, Manager, Setup};
pub use feed::{Feed, Listener, yield_once};
pub use index::{Index, Store};
pub use meta::*;
pub use name::{Key, Name};
pub use queue::Queue;
pub use recorder::{Correlator, Recorder};
pub use registry_writer::{RegistryWriter, kinds_of};
pub use resources::{KindInfo, Kinds};
pub use store::{Item, Lookup};
pub use triarch_mvcc::Revision;
pub use world::{Any, Change, World};
pub use write::{DeleteOptions, Note, ObjectRef, Op, Plan, Step, Write};
pub use writer::{WriteError, Writer, Written};
