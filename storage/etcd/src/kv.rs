//! The KV service.

use tonic::{Request, Response, Status};
use triarch_mvcc::{FacadeOp, FacadeOutcome, FacadeTxn, Op, Txn, TxnOutcome, facade_key};

use crate::etcdserverpb::kv_server::Kv;
use crate::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::evaluate::{self, View};
use crate::{Facade, check, convert, error};

impl Facade {
    /// Proposes one facade operation.
    async fn commit(&self, op: Op) -> Result<FacadeOutcome, Status> {
        let txn = Txn { ops: vec![op], ..Txn::default() };
        match self.db.commit(txn).await.map_err(error::commit)?.outcome {
            TxnOutcome::Facade(outcome) => Ok(outcome),
            TxnOutcome::TooLarge => Err(error::too_large()),
            // Too old to know whether it was made.
            TxnOutcome::Expired => Err(error::timeout()),
            other => Err(Status::internal(format!("unexpected outcome {other:?}"))),
        }
    }

    /// Proposes a transaction; its revision, and the one that it found.
    pub(crate) async fn write(&self, txn: FacadeTxn) -> Result<(u64, u64), Status> {
        match self.commit(Op::Facade(txn)).await? {
            FacadeOutcome::Done { revision, wrote, .. } => Ok((revision, revision - u64::from(wrote))),
            FacadeOutcome::KeyNotFound => Err(error::key_not_found()),
            FacadeOutcome::LeaseNotFound => Err(error::lease_not_found()),
            FacadeOutcome::Compacted => Err(error::compacted()),
            FacadeOutcome::Future => Err(error::future_revision()),
        }
    }

    /// A point to read at that covers every write acknowledged before.
    pub(crate) async fn barrier(&self, serializable: bool) -> Result<(), Status> {
        if !serializable {
            self.db.read_barrier().await.map_err(error::commit)?;
        }
        Ok(())
    }
}

/// The write is made, but what it found can no longer be read: a compaction came
/// in between. Saying "compacted" would say that nothing was written.
fn unanswered<E>(_: E) -> Status {
    error::timeout()
}

#[tonic::async_trait]
impl Kv for Facade {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let r = request.into_inner();
        check::range(&r)?;
        self.barrier(r.serializable).await?;
        let head = self.db.mvcc().facade_head().0;
        let at = if r.revision > 0 { r.revision as u64 } else { head };
        Ok(Response::new(evaluate::range(self.db.mvcc(), &r, Some(at), self.header(head))?))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let r = request.into_inner();
        check::put(&r)?;
        let key = facade_key(&r.key);
        let put = convert::put(&r);
        let (revision, before) = self.write(FacadeTxn { success: vec![put], ..FacadeTxn::default() }).await?;
        let prev_kv = match r.prev_kv {
            true => self.db.mvcc().get_at(&key, before).map_err(unanswered)?.as_ref().map(convert::key_value),
            false => None,
        };
        Ok(Response::new(PutResponse { header: self.header(revision), prev_kv }))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let r = request.into_inner();
        check::delete(&r)?;
        let delete = FacadeOp::Delete(convert::range(&r.key, &r.range_end));
        let (revision, before) = self.write(FacadeTxn { success: vec![delete], ..FacadeTxn::default() }).await?;
        let mut response = if revision == before {
            DeleteRangeResponse::default()
        } else {
            View::new(self.db.mvcc(), before).delete(&r).map_err(unanswered)?
        };
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let r = request.into_inner();
        check::txn(&r)?;
        let writes = evaluate::writes(&r);
        let (revision, before) = if writes {
            self.write(convert::txn(&r)).await?
        } else {
            self.barrier(evaluate::serializable(&r)).await?;
            let head = self.db.mvcc().facade_head().0;
            (head, head)
        };
        let answer = View::new(self.db.mvcc(), before).txn(&r);
        let mut response = if writes { answer.map_err(unanswered)? } else { answer? };
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        // `physical` asks to wait until space is given back; memory is, in steps, without being waited for.
        let floor = u64::try_from(request.into_inner().revision).unwrap_or(0);
        match self.commit(Op::CompactFacade(floor)).await? {
            FacadeOutcome::Done { revision, .. } => {
                Ok(Response::new(CompactionResponse { header: self.header(revision) }))
            }
            FacadeOutcome::Compacted => Err(error::compacted()),
            FacadeOutcome::Future => Err(error::future_revision()),
            FacadeOutcome::KeyNotFound | FacadeOutcome::LeaseNotFound => {
                Err(Status::internal("unexpected outcome of a compaction"))
            }
        }
    }
}
