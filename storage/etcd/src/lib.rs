//! The etcd facade: etcd v3's KV and Watch over gRPC, on the same store.
//!
//! Its keyspace is apart from the API objects and keeps etcd's rules: a
//! revision counter of its own, one revision per transaction, events of one
//! transaction together. Leases, auth and cluster membership are not here: a
//! put with a lease is refused as one with an unknown lease is.
//!
//! ```text
//!   Put, Txn, …  ─► check ─► plan (FacadeTxn) ─► Db::commit ─► answer from history
//!   Range        ─► check ─► Db::read_barrier ─────────────► read
//!   Watch        ─► cursors into the store's ring, polled by the connection itself
//! ```

mod check;
mod codec;
mod convert;
mod error;
mod evaluate;
mod kv;
mod watch;

use std::sync::Arc;

use tonic::service::Routes;
use triarch_env::Env;
use triarch_mvcc::Db;

use etcdserverpb::kv_server::KvServer;
use etcdserverpb::watch_server::WatchServer;

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
}

impl Facade {
    pub fn new(db: Arc<dyn Db>, env: Env, identity: Identity) -> Facade {
        Facade { db, env, identity }
    }

    /// Both services, for a server to mount.
    pub fn routes(self) -> Routes {
        let (kv, watch) = self.services();
        Routes::new(kv).add_service(watch)
    }

    /// Both services, for a server that tells their requests apart itself.
    pub fn services(self) -> (KvServer<Facade>, WatchServer<Facade>) {
        // Room beyond the largest request, so that a slightly larger one is
        // refused in etcd's words.
        let decode = MAX_REQUEST_BYTES + (512 << 10);
        let kv = KvServer::new(self.clone()).max_decoding_message_size(decode);
        let watch = WatchServer::new(self).max_decoding_message_size(decode);
        (kv, watch)
    }

    /// The header of an answer at `revision`.
    pub(crate) fn header(&self, revision: u64) -> Option<etcdserverpb::ResponseHeader> {
        let raft_term = self.db.mvcc().facade_head().1;
        let Identity { cluster_id, member_id } = self.identity;
        Some(etcdserverpb::ResponseHeader { cluster_id, member_id, revision: revision as i64, raft_term })
    }
}
