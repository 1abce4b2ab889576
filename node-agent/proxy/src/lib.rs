//! Services on a node: cluster IPs and node ports as flat nftables maps.
//!
//! ```text
//!   Service, EndpointSlice ─► desired ─► State::update ─► nft transaction (delta)
//!                                                     └► conntrack clean-up
//! ```
//! `objects`, `desired` and `state` are pure; [`Applier`] alone runs `nft`. A chain is
//! made for each distinct number of endpoints and never for a service, so ten
//! thousand services are ten thousand map elements. The kernel is never listed
//! to find out what to change: the agent keeps a mirror of it, also on disk.
//! Invariant: nothing is ever flushed; every change, also a full load, is one
//! transaction, so a programmed service answers through any restart of an agent.
//! Not yet: IPv6.

mod apply;
mod desired;
mod host_ports;
mod objects;
mod state;
mod table;

pub use apply::{Applier, ApplyError};
pub use desired::{Backend, Desired, PortKey, desired};
pub use host_ports::HostPort;
pub use objects::{Endpoint, EndpointSlice, Protocol, Service, ServicePort};
pub use state::{Cleanup, State, Update};
pub use table::TABLE;
