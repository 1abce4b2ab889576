//! The Maintenance service: how a replica is, and hashes to compare replicas by.

use tonic::{Request, Response, Status};
use triarch_mvcc::FacadeHash;

use crate::cluster::MoveError;
use crate::etcdserverpb::alarm_request::AlarmAction;
use crate::etcdserverpb::maintenance_server::Maintenance;
use crate::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, StatusRequest, StatusResponse,
};
use crate::{ETCD_VERSION, Facade, error};

/// Keys hashed before others get a turn.
const HASH_STEP: usize = 1024;

impl Facade {
    /// The hash of the keyspace at a revision (`None`: the present), and the
    /// revision. Equal on all replicas, whatever each has compacted.
    async fn hash_at(&self, revision: Option<u64>) -> Result<(u32, u64), Status> {
        let mut hash = FacadeHash::begin(self.db.mvcc(), revision).map_err(error::read)?;
        loop {
            if let Some(done) = hash.step(HASH_STEP) {
                return Ok((done, hash.revision()));
            }
            yield_now().await;
        }
    }
}

/// Lets the tasks that are ready run first.
async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[tonic::async_trait]
impl Maintenance for Facade {
    /// There are none: what etcd raises an alarm for stops a replica here.
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        if request.into_inner().action() == AlarmAction::Activate {
            return Err(error::not_capable());
        }
        Ok(Response::new(AlarmResponse { header: self.header(self.head()), alarms: Vec::new() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let is = self.cluster.condition();
        let errors = if is.leader == 0 { vec![error::no_leader().message().to_owned()] } else { Vec::new() };
        Ok(Response::new(StatusResponse {
            header: self.header(self.head()),
            version: ETCD_VERSION.into(),
            db_size: is.disk_bytes as i64,
            leader: is.leader,
            raft_index: is.committed,
            raft_term: is.term,
            raft_applied_index: is.applied,
            errors,
            db_size_in_use: is.disk_bytes as i64,
            is_learner: is.learner,
        }))
    }

    /// Space is given back as it becomes free; there is nothing to do.
    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse { header: self.header(self.head()) }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (hash, revision) = self.hash_at(None).await?;
        Ok(Response::new(HashResponse { header: self.header(revision), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let asked = u64::try_from(request.into_inner().revision).ok().filter(|r| *r > 0);
        let (hash, revision) = self.hash_at(asked).await?;
        Ok(Response::new(HashKvResponse {
            header: self.header(self.head()),
            hash,
            compact_revision: self.db.mvcc().window().facade.floor as i64,
            hash_revision: revision as i64,
        }))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        self.cluster.move_leader(request.into_inner().target_id).await.map_err(|e| match e {
            MoveError::NotLeader => error::not_leader(),
            MoveError::NoVoter => error::bad_leader_transferee(),
            MoveError::Failed(_) => error::timeout(),
        })?;
        Ok(Response::new(MoveLeaderResponse { header: self.header(self.head()) }))
    }
}
