//! The etcd facade: etcd v3's API over gRPC, on the same store.
//!
//! Its keyspace is apart from the API objects and keeps etcd's rules: a
//! revision counter of its own, one revision per transaction, events of one
//! transaction together. What it does not do is refused in etcd's words
//! (`refuse.rs`): changes of members, users and roles, snapshots.
//!
//! ```text
//!   Put, Txn, …  ─► check ─► plan (FacadeTxn) ─► Db::commit ─► answer from history
//!   Range        ─► check ─► Db::read_barrier ─────────────► read
//!   Watch        ─► cursors into the store's ring, polled by the connection itself
//!   LeaseGrant   ─► Db::commit
//!   KeepAlive    ─► Cluster::ask_leader ─► Lessor ─► Deadlines      no write
//!   a lease ends ─► Lessor, in the leader's scope ─► Db::commit, fenced by its epoch
//! ```

mod check;
mod cluster;
mod codec;
mod convert;
mod deadlines;
mod error;
mod evaluate;
mod kv;
mod lease;
mod lessor;
mod maintenance;
mod refuse;
mod services;
mod watch;

use std::sync::Arc;

use triarch_env::Env;
use triarch_mvcc::Db;

pub use cluster::{Cluster, ClusterMember, Condition, MoveError};
pub use lease::{MAX_LEASE_TTL, MAX_LEASES, MIN_LEASE_TTL};
pub use lessor::Lessor;
pub use services::Services;

/// etcd's messages, generated from `proto/*.proto`.
#[allow(clippy::large_enum_variant)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// etcd's keys, values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Largest request: key and value of a put, or a transaction's together. etcd's default.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;

/// Most comparisons or operations in a transaction. etcd's default.
pub const MAX_TXN_OPS: usize = 128;

/// The etcd whose API this is, as clients are told who ask for the version.
pub const ETCD_VERSION: &str = "3.5.21";

/// What the facade says about itself in every header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: u64,
}

/// The facade over one replica's store. Cheap to clone.
#[derive(Clone)]
pub struct Facade {
    pub(crate) db: Arc<dyn Db>,
    pub(crate) env: Env,
    pub(crate) identity: Identity,
    pub(crate) cluster: Arc<dyn Cluster>,
}

impl Facade {
    pub fn new(db: Arc<dyn Db>, env: Env, identity: Identity, cluster: Arc<dyn Cluster>) -> Facade {
        Facade { db, env, identity, cluster }
    }

    /// The facade's revision, now.
    pub(crate) fn head(&self) -> u64 {
        self.db.mvcc().facade_head().0
    }

    /// The header of an answer at `revision`.
    pub(crate) fn header(&self, revision: u64) -> Option<etcdserverpb::ResponseHeader> {
        let raft_term = self.db.mvcc().facade_head().1;
        let Identity { cluster_id, member_id } = self.identity;
        Some(etcdserverpb::ResponseHeader { cluster_id, member_id, revision: revision as i64, raft_term })
    }
}
