//! Between etcd's messages and the store's values.

use bytes::Bytes;
use triarch_mvcc::{
    Event, EventKind, FacadeCompare, FacadeEnd, FacadeOp, FacadePut, FacadeRange, FacadeResult, FacadeTarget,
    FacadeTxn, Key, Object, Revision, Stored, facade_key, facade_key_bytes, facade_lease,
};

use crate::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};
use crate::mvccpb;

/// etcd's range: no end is one key, a NUL as end is everything from the key
/// on, and both NUL is everything.
pub(crate) fn range(key: &[u8], range_end: &[u8]) -> FacadeRange {
    let start = facade_key(if key == [0] && range_end == [0] { b"" } else { key });
    let end = match range_end {
        [] => FacadeEnd::Single,
        [0] => FacadeEnd::Unbounded,
        end => FacadeEnd::Before(facade_key(end)),
    };
    FacadeRange { start, end }
}

fn kv(key: &Key, object: &Object, create: Revision, modified: Revision) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: facade_key_bytes(key),
        create_revision: create as i64,
        mod_revision: modified as i64,
        version: object.meta.generation,
        value: object.bytes.clone(),
        lease: facade_lease(object),
    }
}

pub(crate) fn key_value(s: &Stored) -> mvccpb::KeyValue {
    kv(&s.key, &s.object, s.create_revision, s.mod_revision)
}

pub(crate) fn event(e: &Event, prev_kv: bool) -> mvccpb::Event {
    let (kind, now) = match (&e.kind, &e.object) {
        (EventKind::Put, Some(object)) => {
            (mvccpb::event::EventType::Put, kv(&e.key, object, e.create_revision, e.revision))
        }
        _ => {
            let (key, mod_revision) = (facade_key_bytes(&e.key), e.revision as i64);
            (mvccpb::event::EventType::Delete, mvccpb::KeyValue { key, mod_revision, ..Default::default() })
        }
    };
    let prev = e.prev.as_ref().filter(|_| prev_kv);
    let prev_kv = prev.map(|prev| kv(&e.key, prev, e.create_revision, e.prev_revision));
    mvccpb::Event { r#type: kind as i32, kv: Some(now), prev_kv }
}

/// A value on its way to the store: copied, so that it keeps no receive buffer alive.
pub(crate) fn value(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The writes of a checked transaction, and the revisions that its ranges read.
pub(crate) fn txn(request: &TxnRequest) -> FacadeTxn {
    FacadeTxn {
        compare: request.compare.iter().map(compare).collect(),
        success: request.success.iter().filter_map(op).collect(),
        failure: request.failure.iter().filter_map(op).collect(),
    }
}

fn op(op: &RequestOp) -> Option<FacadeOp> {
    match op.request.as_ref()? {
        Request::RequestRange(r) => (r.revision != 0).then_some(FacadeOp::At(r.revision)),
        Request::RequestPut(r) => Some(put(r)),
        Request::RequestDeleteRange(delete) => Some(FacadeOp::Delete(range(&delete.key, &delete.range_end))),
        Request::RequestTxn(nested) => Some(FacadeOp::Txn(Box::new(txn(nested)))),
    }
}

/// The write of a checked put.
pub(crate) fn put(r: &PutRequest) -> FacadeOp {
    let (key, value) = (facade_key(&r.key), (!r.ignore_value).then(|| value(&r.value)));
    if r.lease == 0 && !r.ignore_lease {
        return FacadeOp::Put(key, value);
    }
    FacadeOp::PutLeased(Box::new(FacadePut { key, value, lease: (!r.ignore_lease).then_some(r.lease) }))
}

pub(crate) fn compare(c: &Compare) -> FacadeCompare {
    let number = match &c.target_union {
        Some(
            TargetUnion::Version(n)
            | TargetUnion::CreateRevision(n)
            | TargetUnion::ModRevision(n)
            | TargetUnion::Lease(n),
        ) => *n,
        Some(TargetUnion::Value(_)) | None => 0,
    };
    let target = match c.target() {
        CompareTarget::Version => FacadeTarget::Version(number),
        CompareTarget::Create => FacadeTarget::Create(number),
        CompareTarget::Mod => FacadeTarget::Mod(number),
        CompareTarget::Lease => FacadeTarget::Lease(number),
        CompareTarget::Value => FacadeTarget::Value(match &c.target_union {
            Some(TargetUnion::Value(v)) => value(v),
            _ => Bytes::new(),
        }),
    };
    let result = match c.result() {
        CompareResult::Equal => FacadeResult::Equal,
        CompareResult::Greater => FacadeResult::Greater,
        CompareResult::Less => FacadeResult::Less,
        CompareResult::NotEqual => FacadeResult::NotEqual,
    };
    FacadeCompare { range: range(&c.key, &c.range_end), target, result }
}
