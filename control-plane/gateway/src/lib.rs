//! The control plane's side of node agents: assignments out, status in,
//! tunnels both ways.
//!
//! ```text
//!   mvcc ─watch─► Board ─dirty keys─► session ─Assign, Delta─► agent
//!   registry ◄─status, events, tokens─ session ◄─AgentMessage─ agent
//!   HTTP connectors ─open─► TunnelHub ─TunnelOpen─► agent ─Tunnel─► bytes
//! ```
//!
//! An agent sees its own node's pods, the ConfigMaps and Secrets that these
//! refer to, and the cluster's Services, EndpointSlices and Nodes; nothing
//! else. What it writes goes through the registry, as its own user, after the
//! session has checked that the object belongs to its node.

pub mod board;
pub mod join;
pub mod liveness;
pub mod node_set;
pub mod refs;
pub mod service;
pub mod session;
pub mod tunnels;
pub mod writes;

pub use board::Board;
pub use liveness::Liveness;
pub use service::Gateway;
pub use tunnels::{Tunnel, TunnelHub};
