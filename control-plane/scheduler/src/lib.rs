//! The scheduler: a node for every pod that has none.
//!
//! ```text
//!  Feed ─► changes ─► Queue ─► schedule() over the dense node cache ─► assume ─► bind
//!                       ▲        Filter* · Score* · pick                          │
//!                       └───────────────── back-off, FailedScheduling ◄───────────┘
//! ```
//! [`schedule::schedule`] is pure: a pod, the nodes and a random number give a
//! node or the reasons why not. [`Scheduler`] is the only part that writes.
//! To add a plugin: a file in `plugins/` named as upstream names it, and a line
//! in [`PLUGINS`].

pub mod cache;
pub mod diagnosis;
pub mod framework;
pub mod plugins;
pub mod pod_info;
mod queue;
pub mod resource;
pub mod schedule;
mod scheduler;

pub use plugins::PLUGINS;
pub use queue::Queue;
pub use scheduler::Scheduler;
