//! One pod on the node.
//!
//! ```text
//!   Pod, Observed, Memory, now ─► actions::compute ─► Plan ─► worker acts
//!                              └► status::generate ─► PodStatus ─► reporter
//! ```
//! `actions`, `status`, `env`, `container` are pure; `worker` alone acts.

pub mod actions;
pub mod admission;
pub mod container;
pub mod env;
pub mod images;
pub mod memory;
pub mod qos;
pub mod slot;
pub mod status;
mod stop;
pub mod worker;
