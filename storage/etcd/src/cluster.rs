//! The cluster behind the facade: what it asks of its replica beyond the store,
//! and the Cluster and Auth services, which only tell.

use bytes::Bytes;
use futures::future::BoxFuture;
use tonic::{Request, Response, Status};
use triarch_mvcc::CommitError;

use crate::Facade;
use crate::etcdserverpb::auth_server::Auth;
use crate::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthRoleListRequest, AuthRoleListResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserListRequest, AuthUserListResponse, Member, MemberListRequest, MemberListResponse,
    cluster_server,
};

/// A replica, as a member of an etcd cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMember {
    pub id: u64,
    pub name: String,
    /// `scheme://host:port`.
    pub peer_url: String,
    /// Where its facade listens; `None`: it is off there.
    pub client_url: Option<String>,
    pub learner: bool,
}

/// How this replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Id of the leader that this replica knows; 0: none.
    pub leader: u64,
    pub term: u64,
    /// Last log entry that is known to be committed.
    pub committed: u64,
    pub applied: u64,
    /// Log and checkpoint.
    pub disk_bytes: u64,
    pub learner: bool,
}

/// Why leadership was not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    #[error("this replica is not the leader")]
    NotLeader,
    #[error("no voter has this id")]
    NoVoter,
    #[error("{0}")]
    Failed(String),
}

/// The replicas, as one of them knows them.
#[tonic::async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// All members, in the order of their ids.
    fn members(&self) -> Vec<ClusterMember>;

    fn condition(&self) -> Condition;

    /// Resolves once this replica has no leader, and has had none for longer
    /// than an election takes.
    fn lost(&self) -> BoxFuture<'static, ()>;

    /// Has the leader's [`crate::Lessor`] answer; waits within a bound while
    /// there is no leader.
    async fn ask_leader(&self, question: Bytes) -> Result<Bytes, CommitError>;

    /// Hands leadership from this replica to another; returns when it has it.
    async fn move_leader(&self, to: u64) -> Result<(), MoveError>;
}

#[tonic::async_trait]
impl cluster_server::Cluster for Facade {
    async fn member_list(&self, request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        self.barrier(!request.into_inner().linearizable).await?;
        let member = |m: ClusterMember| Member {
            id: m.id,
            name: m.name,
            peer_ur_ls: vec![m.peer_url],
            client_ur_ls: m.client_url.into_iter().collect(),
            is_learner: m.learner,
        };
        let members = self.cluster.members().into_iter().map(member).collect();
        Ok(Response::new(MemberListResponse { header: self.header(self.head()), members }))
    }
}

/// There are no users and no roles, and there is nothing to switch off.
#[tonic::async_trait]
impl Auth for Facade {
    async fn auth_status(&self, _: Request<AuthStatusRequest>) -> Result<Response<AuthStatusResponse>, Status> {
        Ok(Response::new(AuthStatusResponse { header: self.header(self.head()), enabled: false, auth_revision: 1 }))
    }

    async fn auth_disable(&self, _: Request<AuthDisableRequest>) -> Result<Response<AuthDisableResponse>, Status> {
        Ok(Response::new(AuthDisableResponse { header: self.header(self.head()) }))
    }

    async fn user_list(&self, _: Request<AuthUserListRequest>) -> Result<Response<AuthUserListResponse>, Status> {
        Ok(Response::new(AuthUserListResponse { header: self.header(self.head()), users: Vec::new() }))
    }

    async fn role_list(&self, _: Request<AuthRoleListRequest>) -> Result<Response<AuthRoleListResponse>, Status> {
        Ok(Response::new(AuthRoleListResponse { header: self.header(self.head()), roles: Vec::new() }))
    }
}
