//! The replicated store: [`triarch_mvcc`]'s memory behind a Raft log.
//!
//! The only crate that knows openraft. What stands above sees [`RaftDb`], which
//! is a [`triarch_mvcc::Db`], [`LeaderWatch`] and the [`PeerTransport`] seam.
//!
//! ```text
//!   commit ─► proposer ─► openraft ─► WAL ─┐            ┌─► LeaderWatch ─► leader scopes
//!               │            │  ▲          │ quorum     │
//!               └─ forward   │  └──────────┘            │
//!   read_barrier ─► read index ▼                        │
//!                          apply ─► Mvcc ─► waiters, watchers
//!                                     └─► checkpointer ─► checkpoint = snapshot ─► log purge
//! ```
//!
//! How a server starts a replica:
//! ```ignore
//! let stores = Stores { wal, .. };                                // opened by the caller
//! let db = RaftDb::start(config, env, stores, transport).await?;  // Arc<RaftDb>: Db
//! listener.serve(db.peer_handler());                              // what peers call
//! db.initialize().await?;                                         // only with --init
//! db.ready().await;
//! db.leader_watch().run_as_leader(&env, &scope, |epoch, scope| async move { … }).await;
//! ```
//!
//! Deliberately absent: leases (reads are ReadIndex rounds), elections by any
//! other means than Raft's, and anything that knows what an object is.

mod barrier;
mod checkpointer;
mod codec;
mod config;
mod core;
mod counters;
mod db;
mod failover;
mod leadership;
mod link;
pub mod local;
mod log_store;
mod members;
mod network;
mod node;
mod outcomes;
mod progress;
mod proposer;
mod service;
mod shared;
mod snapshot;
mod state_machine;
mod transport;
mod types;
mod wire;

pub use codec::CodecError;
pub use config::{RaftConfig, RaftLimits, Timers, Window};
pub use core::MembershipError;
pub use counters::Counters;
pub use db::{ClusterStatus, RaftDb, ReplicaStatus, StartError, Stores};
pub use leadership::{LeaderView, LeaderWatch};
pub use transport::{
    Call, Lane, Message, NoPeers, Peer, PeerError, PeerHandler, PeerStream, PeerTransport, STREAM_DEPTH, Sender,
    SharedTransport,
};
pub use types::{NodeId, Replica};
