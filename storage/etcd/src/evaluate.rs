//! What a request answers: reads of one revision, and a transaction's
//! responses, worked out from the state before it and the request.
//!
//! A transaction's writes are applied by the store. Its answers (which branch,
//! what a range inside it saw, previous values) are a function of the state at
//! the revision before and the request, so they need not be replicated.

use std::collections::BTreeMap;

use tonic::Status;
use triarch_mvcc::{FacadeEnd, FacadeRange, Key, Mvcc, Revision, Stored, facade_key, facade_lease, facade_object};

use crate::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::response_op::Response;
use crate::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::{convert, error, mvccpb};

/// The state that a transaction sees: one revision, and its own writes over it.
pub(crate) struct View<'m> {
    mvcc: &'m Mvcc,
    base: Revision,
    /// The revision of its writes.
    next: Revision,
    written: BTreeMap<Key, Option<Stored>>,
}

impl<'m> View<'m> {
    pub fn new(mvcc: &'m Mvcc, base: Revision) -> View<'m> {
        View { mvcc, base, next: base + 1, written: BTreeMap::new() }
    }

    fn header(&self) -> Option<ResponseHeader> {
        let revision = if self.written.is_empty() { self.base } else { self.next };
        Some(ResponseHeader { revision: revision as i64, ..ResponseHeader::default() })
    }

    /// Live keys of a range in order.
    fn range(&self, range: &FacadeRange) -> Result<Vec<Stored>, Status> {
        let held = self.mvcc.facade_range(range, Some(self.base), usize::MAX).map_err(error::read)?.items;
        if self.written.is_empty() {
            return Ok(held);
        }
        let mut all: BTreeMap<Key, Stored> = held.into_iter().map(|s| (s.key.clone(), s)).collect();
        for (key, stored) in self.written.iter().filter(|(key, _)| range.contains(key)) {
            match stored {
                Some(stored) => drop(all.insert(key.clone(), stored.clone())),
                None => drop(all.remove(key)),
            }
        }
        Ok(all.into_values().collect())
    }

    fn get(&self, key: &Key) -> Result<Option<Stored>, Status> {
        match self.written.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.mvcc.get_at(key, self.base).map_err(error::read),
        }
    }

    fn put(&mut self, r: &PutRequest) -> Result<PutResponse, Status> {
        let key = facade_key(&r.key);
        let prev = self.get(&key)?;
        let bytes = match &prev {
            Some(prev) if r.ignore_value => prev.object.bytes.clone(),
            _ => r.value.clone(),
        };
        let generation = prev.as_ref().map_or(0, |p| p.object.meta.generation) + 1;
        let lease = match &prev {
            Some(prev) if r.ignore_lease => facade_lease(&prev.object),
            _ => r.lease,
        };
        let object = facade_object(bytes, generation, lease);
        let create_revision = prev.as_ref().map_or(self.next, |p| p.create_revision);
        let stored = Stored { key: key.clone(), object, create_revision, mod_revision: self.next };
        self.written.insert(key, Some(stored));
        let prev_kv = prev.as_ref().filter(|_| r.prev_kv).map(convert::key_value);
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    pub fn delete(&mut self, r: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        let gone = self.range(&convert::range(&r.key, &r.range_end))?;
        let prev_kvs = if r.prev_kv { gone.iter().map(convert::key_value).collect() } else { Vec::new() };
        let deleted = gone.len() as i64;
        self.written.extend(gone.into_iter().map(|s| (s.key, None)));
        Ok(DeleteRangeResponse { header: self.header(), deleted, prev_kvs })
    }

    fn read(&self, r: &RangeRequest) -> Result<RangeResponse, Status> {
        // Of the past, as it was before the transaction. etcd takes a negative one for compacted here.
        match Revision::try_from(r.revision) {
            Ok(0) => {}
            Ok(at) if at > self.base => return Err(error::future_revision()),
            Ok(at) => return range(self.mvcc, r, Some(at), self.header()),
            Err(_) => return Err(error::compacted()),
        }
        if self.written.is_empty() {
            return range(self.mvcc, r, Some(self.base), self.header());
        }
        let items = self.range(&convert::range(&r.key, &r.range_end))?;
        Ok(select(items, r, self.header()))
    }

    /// Comparisons are made against the state before the whole transaction.
    fn holds(&self, c: &Compare) -> Result<bool, Status> {
        let c = convert::compare(c);
        let found = self.mvcc.facade_range(&c.range, Some(self.base), usize::MAX).map_err(error::read)?.items;
        if found.is_empty() {
            return Ok(c.holds(0, 0, None));
        }
        Ok(found.iter().all(|s| {
            let (create, modified) = (s.create_revision as i64, s.mod_revision as i64);
            c.holds(create, modified, Some(&s.object))
        }))
    }

    pub fn txn(&mut self, r: &TxnRequest) -> Result<TxnResponse, Status> {
        let mut succeeded = true;
        for c in &r.compare {
            succeeded &= self.holds(c)?;
        }
        let ops = if succeeded { &r.success } else { &r.failure };
        let responses = ops.iter().map(|op| self.op(op)).collect::<Result<_, _>>()?;
        Ok(TxnResponse { header: self.header(), succeeded, responses })
    }

    fn op(&mut self, op: &RequestOp) -> Result<ResponseOp, Status> {
        let response = match &op.request {
            Some(Request::RequestRange(r)) => Some(Response::ResponseRange(self.read(r)?)),
            Some(Request::RequestPut(r)) => Some(Response::ResponsePut(self.put(r)?)),
            Some(Request::RequestDeleteRange(r)) => Some(Response::ResponseDeleteRange(self.delete(r)?)),
            Some(Request::RequestTxn(r)) => Some(Response::ResponseTxn(self.txn(r)?)),
            None => None,
        };
        Ok(ResponseOp { response })
    }
}

/// Whether a transaction can write anything, whichever way it goes.
pub(crate) fn writes(r: &TxnRequest) -> bool {
    r.success.iter().chain(&r.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => true,
        Some(Request::RequestTxn(r)) => writes(r),
        Some(Request::RequestRange(_)) | None => false,
    })
}

/// Whether all reads of a transaction accept this replica's state as it is.
pub(crate) fn serializable(r: &TxnRequest) -> bool {
    r.success.iter().chain(&r.failure).all(|op| match &op.request {
        Some(Request::RequestRange(r)) => r.serializable,
        Some(Request::RequestTxn(r)) => serializable(r),
        _ => false,
    })
}

/// A read at one revision; `header` is completed with it when it has none.
pub(crate) fn range(
    mvcc: &Mvcc,
    r: &RangeRequest,
    at: Option<Revision>,
    header: Option<ResponseHeader>,
) -> Result<RangeResponse, Status> {
    let asked = convert::range(&r.key, &r.range_end);
    let plain = in_key_order(r) && !filtered(r);
    let limit = match r.limit {
        _ if r.count_only => 0,
        n if n > 0 && plain => n as usize,
        _ => usize::MAX,
    };
    let list = mvcc.facade_range(&asked, at, limit).map_err(error::read)?;
    let count = list.items.len() as u64 + list.remaining;
    if r.count_only {
        return Ok(RangeResponse { header, kvs: Vec::new(), more: false, count: count as i64 });
    }
    let mut response = select(list.items, r, header);
    response.count = count as i64;
    response.more |= list.more;
    Ok(response)
}

fn in_key_order(r: &RangeRequest) -> bool {
    r.sort_target() == SortTarget::Key && r.sort_order() != SortOrder::Descend || asked_for_one(r)
}

fn asked_for_one(r: &RangeRequest) -> bool {
    convert::range(&r.key, &r.range_end).end == FacadeEnd::Single
}

fn filtered(r: &RangeRequest) -> bool {
    [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision].iter().any(|n| *n != 0)
}

/// Filters, sorts and cuts what a range found.
fn select(mut items: Vec<Stored>, r: &RangeRequest, header: Option<ResponseHeader>) -> RangeResponse {
    let count = items.len() as i64;
    if r.count_only {
        return RangeResponse { header, kvs: Vec::new(), more: false, count };
    }
    let within = |n: Revision, min: i64, max: i64| (min == 0 || n as i64 >= min) && (max == 0 || n as i64 <= max);
    items.retain(|s| {
        within(s.mod_revision, r.min_mod_revision, r.max_mod_revision)
            && within(s.create_revision, r.min_create_revision, r.max_create_revision)
    });
    match r.sort_target() {
        SortTarget::Key => {}
        SortTarget::Version => items.sort_by_key(|s| s.object.meta.generation),
        SortTarget::Create => items.sort_by_key(|s| s.create_revision),
        SortTarget::Mod => items.sort_by_key(|s| s.mod_revision),
        SortTarget::Value => items.sort_by(|a, b| a.object.bytes.cmp(&b.object.bytes)),
    }
    if r.sort_order() == SortOrder::Descend {
        items.reverse();
    }
    let more = r.limit > 0 && items.len() > r.limit as usize;
    if more {
        items.truncate(r.limit as usize);
    }
    let strip =
        |kv: mvccpb::KeyValue| if r.keys_only { mvccpb::KeyValue { value: Default::default(), ..kv } } else { kv };
    RangeResponse { header, kvs: items.iter().map(convert::key_value).map(strip).collect(), more, count }
}
