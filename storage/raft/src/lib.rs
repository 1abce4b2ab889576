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
//! let mut dir = DataDir::open(path)?;                             // dir.create_identity(…) at birth
//! let stores = Stores::open(&dir, &env, &wal_config, None)?;
//! let config = RaftConfig::new(cluster_id, node_id, replica);     // new_log: true at birth
//! let transport = Arc::new(GrpcTransport::new(cluster_id, node_id, incarnation, tls, connect));
//! let db = RaftDb::start(config, env, stores, transport).await?;  // Arc<RaftDb>: Db
//! listener.serve(grpc::raft_service(db.peer_handler(), verify));
//! db.initialize().await?;                                         // only with --init
//! db.ready().await;
//! db.leader_watch().run_as_leader(&env, &scope, |epoch, scope| async move { … }).await;
//! ```
//!
//! Deliberately absent: leases (reads are ReadIndex rounds), elections by any
//! other means than Raft's, and anything that knows what an object is.

mod acks;
mod ask;
mod barrier;
mod birth;
mod blocking;
mod checkpointer;
mod codec;
mod compactor;
mod config;
mod core;
mod counters;
mod datadir;
mod db;
mod failover;
mod figures;
pub mod grpc;
mod leader_call;
mod leadership;
mod levels;
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
pub mod sim;
mod snapshot;
mod starts;
mod state_machine;
mod store;
mod stores;
mod transport;
mod types;
mod wire;

pub use ask::Answers;
pub use blocking::Blocking;
pub use codec::CodecError;
pub use config::{RaftConfig, RaftLimits, Timers, Window};
pub use core::MembershipError;
pub use counters::Counters;
pub use datadir::{DataDir, DataDirError, FORMAT, Identity, save_peers};
pub use db::{ClusterStatus, RaftDb, ReplicaStatus, StartError};
pub use figures::{Latencies, Latency, LatencyFigures, Queues};
pub use leadership::{LeaderView, LeaderWatch};
pub use starts::Starts;
pub use stores::{OpenError, Stores};
pub use transport::{
    Call, Incoming, Lane, Message, NoPeers, Peer, PeerError, PeerHandler, PeerStream, PeerTransport, STREAM_DEPTH,
    Sender, SharedTransport,
};
pub use types::{NodeId, Replica};
