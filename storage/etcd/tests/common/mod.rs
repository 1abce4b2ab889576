//! A facade over one store, on loopback.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_etcd::{Cluster, ClusterMember, Condition, Facade, Identity, Lessor, MoveError, Services};
use triarch_mvcc::{CommitError, Db};

/// A cluster of one, that has a leader when it has a lessor.
#[derive(Default)]
pub struct Alone {
    pub lessor: Option<Arc<Lessor>>,
    pub members: Vec<ClusterMember>,
    /// Ends with the leader.
    pub lost: Scope,
}

#[tonic::async_trait]
impl Cluster for Alone {
    fn members(&self) -> Vec<ClusterMember> {
        self.members.clone()
    }

    fn condition(&self) -> Condition {
        Condition { leader: 9, term: 3, committed: 12, applied: 11, disk_bytes: 4096, learner: false }
    }

    fn lost(&self) -> BoxFuture<'static, ()> {
        let lost = self.lost.clone();
        async move { lost.cancelled().await }.boxed()
    }

    async fn ask_leader(&self, question: Bytes) -> Result<Bytes, CommitError> {
        let none = || CommitError::NoLeader(Default::default());
        self.lessor.as_ref().ok_or_else(none)?.answer(&question).await.ok_or_else(none)
    }

    async fn move_leader(&self, to: u64) -> Result<(), MoveError> {
        match to {
            1 => Err(MoveError::NotLeader),
            2 => Err(MoveError::NoVoter),
            _ => Ok(()),
        }
    }
}

/// Serves a facade over `db` and connects to it.
pub async fn serve(db: Arc<dyn Db>, cluster: Alone) -> Channel {
    let env = Env::new(TokioRuntime::current());
    let facade = Facade::new(db, env, Identity { cluster_id: 7, member_id: 9 }, Arc::new(cluster));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Services::new(facade).routes();
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener)));
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}
