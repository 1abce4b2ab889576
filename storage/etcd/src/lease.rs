//! The Lease service: granting and revoking are writes, keeping alive is a
//! question to the leader.

use futures::stream::BoxStream;
use futures::{StreamExt, future};
use tonic::{Request, Response, Status, Streaming};
use triarch_mvcc::{FacadeOp, FacadeTxn, Guard, Op, Txn, TxnOutcome, facade_key_bytes, lease_key, lease_object};

use crate::etcdserverpb::lease_server::Lease;
use crate::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::lessor::{self, Question, Time};
use crate::{Facade, error};

/// A shorter lease is granted for this long, seconds: what etcd's default
/// election timeout comes to.
pub const MIN_LEASE_TTL: i64 = 2;
/// Longest lease, seconds. etcd's.
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;
/// Leases of a cluster, about: counted before one is granted.
pub const MAX_LEASES: u64 = 1 << 18;
/// Keep-alives of one stream that are in hand at once; answered in order.
const KEEP_ALIVES: usize = 64;

impl Facade {
    async fn ask(&self, question: Question) -> Result<Option<Time>, Status> {
        let answer = self.cluster.ask_leader(question.encode()).await.map_err(error::commit)?;
        lessor::decode(&answer).ok_or_else(|| Status::internal("the leader's answer cannot be read"))
    }

    async fn keep_alive(self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        // One that is not there is answered with no time, and the stream goes on.
        let time = self.ask(Question::Renew(id)).await?;
        Ok(LeaseKeepAliveResponse { header: self.header(self.head()), id, ttl: time.map_or(0, |t| t.granted) })
    }

    /// `false`: the id is taken.
    async fn grant(&self, id: i64, ttl: i64) -> Result<bool, Status> {
        let key = lease_key(id);
        let txn =
            Txn { guards: vec![Guard::Absent(key.clone())], ops: vec![Op::Put(key, lease_object(ttl))], epoch: None };
        match self.db.commit(txn).await.map_err(error::commit)?.outcome {
            TxnOutcome::Committed { .. } => Ok(true),
            TxnOutcome::GuardFailed { .. } => Ok(false),
            TxnOutcome::Expired => Err(error::timeout()),
            other => Err(Status::internal(format!("unexpected outcome {other:?}"))),
        }
    }
}

#[tonic::async_trait]
impl Lease for Facade {
    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let r = request.into_inner();
        if r.ttl > MAX_LEASE_TTL {
            return Err(error::lease_ttl_too_large());
        }
        if self.db.mvcc().lease_count() >= MAX_LEASES {
            return Err(error::too_many_requests());
        }
        let ttl = r.ttl.max(MIN_LEASE_TTL);
        let id = loop {
            // Positive, as etcd's are.
            let id = if r.id == 0 { (self.env.random_u64() >> 1) as i64 } else { r.id };
            if id != 0 && self.grant(id, ttl).await? {
                break id;
            }
            if r.id != 0 {
                return Err(error::lease_exists());
            }
        };
        Ok(Response::new(LeaseGrantResponse { header: self.header(self.head()), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let revoke = FacadeOp::Revoke(request.into_inner().id);
        let (revision, _) = self.write(FacadeTxn { success: vec![revoke], ..FacadeTxn::default() }).await?;
        Ok(Response::new(LeaseRevokeResponse { header: self.header(revision) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let facade = self.clone();
        let answers = request
            .into_inner()
            // A client that is gone is nothing to answer.
            .take_while(|r| future::ready(r.is_ok()))
            .filter_map(|r| future::ready(r.ok()))
            .map(move |r| facade.clone().keep_alive(r.id))
            .buffered(KEEP_ALIVES);
        // The stream ends with its first failure; the client opens another.
        let answers = answers.scan(false, |failed, answer| {
            let over = std::mem::replace(failed, answer.is_err());
            future::ready((!over).then_some(answer))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let r = request.into_inner();
        let time = self.ask(Question::Remaining(r.id)).await?;
        self.barrier(false).await?;
        let mvcc = self.db.mvcc();
        let mut response = LeaseTimeToLiveResponse { header: self.header(self.head()), id: r.id, ..Default::default() };
        match time.filter(|_| mvcc.lease(r.id).is_some()) {
            Some(time) => {
                (response.ttl, response.granted_ttl) = (time.left, time.granted);
                if r.keys {
                    response.keys = mvcc.lease_keys(r.id).iter().map(facade_key_bytes).collect();
                }
            }
            None => response.ttl = -1,
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.barrier(false).await?;
        let leases = self.db.mvcc().leases().0.iter().map(|l| LeaseStatus { id: l.id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header(self.head()), leases }))
    }
}
