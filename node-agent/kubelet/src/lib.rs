//! The kubelet: pods as values in, actions on a container runtime out.
//!
//! ```text
//!   assignment ─► Kubelet ─► a worker for each pod ─► Runtime (CRI or hollow)
//!                               │  ▲ PLEG events, relist, probe results
//!                               └► Reporter (statuses, events)
//! ```
//! Decisions are pure functions (`pod::actions`, `pod::status`, `pod::env`,
//! `pod::container`); workers do what they say. Time and tasks come from the
//! environment, containers and disk from traits, so that the hollow agent and
//! the simulation run exactly this. Does not own: the control plane session,
//! volumes' files, services (`triarch-agent`, `triarch-volume`, `triarch-proxy`).

pub mod backoff;
mod kubelet;
pub mod model;
pub mod pod;
pub mod ports;
pub mod probe;
pub mod quantity;
pub mod runtime;

pub use kubelet::Kubelet;
