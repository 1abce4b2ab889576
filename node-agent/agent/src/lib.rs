//! The node agent: one session with the control plane, many pods.
//!
//! ```text
//!   session (Assign, Delta) ─► node: ledger, store ─► kubelet ─► runtime
//!   statuses, events, heartbeats ◄── outbox           net: proxy, routes ─► kernel
//!   tunnel: exec, attach, port-forward, logs, dial
//! ```
//! Owns the wiring of `triarch-kubelet`, `triarch-volume` and `triarch-proxy` to a
//! control plane. Invariant: losing the control plane, or this process, stops
//! no running pod and no programmed service; the node boots from its own ledger.
//! `session` and `node` name no async runtime: the simulation runs them.

pub mod address;
pub mod app;
pub mod cli;
pub mod dialer;
pub mod facts;
pub mod host;
pub mod http;
pub mod identity;
pub mod log_rotation;
pub mod logs;
pub mod net;
pub mod node;
pub mod node_status;
pub mod session;
pub mod thresholds;
pub mod tunnel;
pub mod uplink;
