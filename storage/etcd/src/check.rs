//! What a request must be before anything is done with it.

use std::collections::BTreeSet;

use prost::Message;
use tonic::Status;
use triarch_mvcc::{FacadeRange, Key, facade_key};

use crate::convert;
use crate::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::{MAX_REQUEST_BYTES, MAX_TXN_OPS, error};

/// Transactions inside transactions, at most.
const MAX_DEPTH: usize = 16;

pub(crate) fn range(r: &RangeRequest) -> Result<(), Status> {
    if r.key.is_empty() {
        return Err(error::empty_key());
    }
    if SortOrder::try_from(r.sort_order).is_err() || SortTarget::try_from(r.sort_target).is_err() {
        return Err(error::invalid_sort());
    }
    Ok(())
}

pub(crate) fn put(r: &PutRequest) -> Result<(), Status> {
    if r.key.is_empty() {
        return Err(error::empty_key());
    }
    if r.ignore_value && !r.value.is_empty() {
        return Err(error::value_provided());
    }
    if r.ignore_lease && r.lease != 0 {
        return Err(error::lease_provided());
    }
    if r.key.len() + r.value.len() > MAX_REQUEST_BYTES {
        return Err(error::too_large());
    }
    Ok(())
}

pub(crate) fn delete(r: &DeleteRangeRequest) -> Result<(), Status> {
    if r.key.is_empty() { Err(error::empty_key()) } else { Ok(()) }
}

pub(crate) fn txn(r: &TxnRequest) -> Result<(), Status> {
    if r.encoded_len() > MAX_REQUEST_BYTES {
        return Err(error::too_large());
    }
    nested(r, MAX_TXN_OPS, MAX_DEPTH)?;
    touched(&r.success)?;
    touched(&r.failure)?;
    Ok(())
}

fn nested(r: &TxnRequest, ops: usize, depth: usize) -> Result<(), Status> {
    let most = r.compare.len().max(r.success.len()).max(r.failure.len());
    if most > ops || depth == 0 {
        return Err(error::too_many_ops());
    }
    if r.compare.iter().any(|c| c.key.is_empty()) {
        return Err(error::empty_key());
    }
    r.success.iter().chain(&r.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(r)) => range(r),
        Some(Request::RequestPut(r)) => put(r),
        Some(Request::RequestDeleteRange(r)) => delete(r),
        Some(Request::RequestTxn(r)) => nested(r, ops - most, depth - 1),
        None => Err(error::key_not_found()),
    })
}

/// What a list of operations may write.
#[derive(Default)]
struct Touched {
    puts: BTreeSet<Key>,
    deletes: Vec<FacadeRange>,
}

impl Touched {
    /// Whether both would write the same key. Deletes may overlap.
    fn meets(&self, other: &Touched) -> bool {
        let deleted =
            |puts: &BTreeSet<Key>, ranges: &[FacadeRange]| puts.iter().any(|k| ranges.iter().any(|r| r.contains(k)));
        !self.puts.is_disjoint(&other.puts)
            || deleted(&self.puts, &other.deletes)
            || deleted(&other.puts, &self.deletes)
    }

    fn merge(&mut self, other: Touched) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

/// A key is written at most once on any way through a transaction: its events
/// have one revision.
fn touched(ops: &[RequestOp]) -> Result<Touched, Status> {
    let mut all = Touched::default();
    for op in ops {
        let mut one = Touched::default();
        match &op.request {
            Some(Request::RequestPut(r)) => drop(one.puts.insert(facade_key(&r.key))),
            Some(Request::RequestDeleteRange(r)) => one.deletes.push(convert::range(&r.key, &r.range_end)),
            // Only one of the two is taken, so they may meet each other.
            Some(Request::RequestTxn(r)) => {
                one = touched(&r.success)?;
                one.merge(touched(&r.failure)?);
            }
            Some(Request::RequestRange(_)) | None => {}
        }
        if all.meets(&one) {
            return Err(error::duplicate_key());
        }
        all.merge(one);
    }
    Ok(all)
}
