//! Concurrent creations a second: transactions that put a key if it is absent,
//! each a new one.

use triarch_etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use triarch_etcd::etcdserverpb::request_op::Request;
use triarch_etcd::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};

use super::SHAPES;
use crate::client::{load, value};
use crate::round::Round;

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    let (before, mut made) = (round.cpu()?, 0);
    for (part, (clients, bytes)) in SHAPES.into_iter().enumerate() {
        let load = load(round.endpoints(), clients, round.part, move |mut kv, client, n| async move {
            let key = format!("create/{part}/{client:03}/{n:08}");
            let absent = Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Create.into(),
                key: key.clone().into(),
                target_union: Some(TargetUnion::CreateRevision(0)),
                ..Compare::default()
            };
            let put = PutRequest { key: key.into(), value: value(n, bytes).into(), ..PutRequest::default() };
            let put = RequestOp { request: Some(Request::RequestPut(put)) };
            let done = kv.txn(TxnRequest { compare: vec![absent], success: vec![put], failure: Vec::new() }).await?;
            match done.into_inner().succeeded {
                true => Ok(()),
                false => Err(tonic::Status::already_exists("a new key was there")),
            }
        });
        let load = load.await?;
        made += load.done();
        round.add(format!("create_{clients}_{bytes}"), load.per_second);
    }
    round.add_cpu("create", before, made)
}
