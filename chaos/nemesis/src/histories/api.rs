//! One request to one member, and what its answer says.

use std::time::Duration;

use tonic::Status;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use triarch_check::transactions::{Answer, Kept, Key, Member};
use triarch_etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::request_op::Request as RequestKind;
use triarch_etcd::etcdserverpb::response_op::Response as ResponseKind;
use triarch_etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
};
use triarch_etcd::mvccpb::KeyValue;

/// All keys begin so.
pub const PREFIX: &str = "h/";
/// The first key after them.
pub const PREFIX_END: &str = "h0";
/// A request without an answer by then has an unknown outcome.
pub const REQUEST: Duration = Duration::from_secs(3);

/// What a client may ask for in one step.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub guard: Option<(Key, u64)>,
    pub writes: Vec<(Key, Option<u64>)>,
    /// Asked only where nothing is written.
    pub reads: Vec<Key>,
    /// Every key is compared before anything is written, in a way that always
    /// holds: members look long at what they are about to change.
    pub survey: bool,
}

/// What a key holds; `None` for a value that is none of ours.
pub fn kept(kv: &KeyValue) -> Option<Kept> {
    let value = std::str::from_utf8(&kv.value).ok()?.parse().ok()?;
    let [created, modified, version] = [kv.create_revision, kv.mod_revision, kv.version].map(|n| n.max(0) as u64);
    Some(Kept { value, created, modified, version })
}

pub fn key(kv: &KeyValue) -> Key {
    String::from_utf8_lossy(&kv.key).into()
}

fn revision(header: Option<ResponseHeader>) -> Result<u64, Status> {
    let revision = header.map(|h| h.revision).filter(|r| *r > 0);
    revision.map(|r| r as u64).ok_or_else(|| Status::data_loss("an answer without a revision"))
}

fn bytes(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn range_of(key: &Key) -> RangeRequest {
    RangeRequest { key: key.as_bytes().to_vec().into(), ..RangeRequest::default() }
}

fn found(key: &Key, kvs: &[KeyValue]) -> Result<(Key, Option<Kept>), Status> {
    match kvs {
        [] => Ok((key.clone(), None)),
        [kv] => match kept(kv) {
            Some(held) => Ok((key.clone(), Some(held))),
            None => Err(Status::data_loss("a value that nobody wrote")),
        },
        _ => Err(Status::data_loss("several values of one key")),
    }
}

fn write_op((key, value): &(Key, Option<u64>)) -> RequestOp {
    let name = key.as_bytes().to_vec().into();
    let request = match value {
        Some(v) => RequestKind::RequestPut(PutRequest { key: name, value: bytes(*v).into(), ..PutRequest::default() }),
        None => RequestKind::RequestDeleteRange(DeleteRangeRequest { key: name, ..DeleteRangeRequest::default() }),
    };
    RequestOp { request: Some(request) }
}

fn read_op(key: &Key) -> RequestOp {
    RequestOp { request: Some(RequestKind::RequestRange(range_of(key))) }
}

/// Whether there was no connection to send the request on.
pub fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Asks one member. An error says nothing of what was done.
///
/// # Errors
/// No answer, or one that makes no sense.
pub async fn ask(kv: &mut KvClient<Channel>, ask: &Ask) -> Result<Answer, Status> {
    if ask.survey {
        return transaction(kv, ask).await;
    }
    match (&ask.guard, &ask.writes[..], &ask.reads[..]) {
        (None, [(name, Some(value))], _) => {
            let put =
                PutRequest { key: name.as_bytes().to_vec().into(), value: bytes(*value).into(), ..Default::default() };
            Ok(Answer::Wrote { revision: revision(kv.put(put).await?.into_inner().header)? })
        }
        (None, [(name, None)], _) => {
            let delete = DeleteRangeRequest { key: name.as_bytes().to_vec().into(), ..Default::default() };
            let done = kv.delete_range(delete).await?.into_inner();
            let revision = revision(done.header)?;
            match done.deleted {
                0 => Ok(Answer::Saw { revision, found: vec![(name.clone(), None)] }),
                _ => Ok(Answer::Wrote { revision }),
            }
        }
        (None, [], [name]) => {
            let read = kv.range(range_of(name)).await?.into_inner();
            Ok(Answer::Saw { revision: revision(read.header)?, found: vec![found(name, &read.kvs)?] })
        }
        _ => transaction(kv, ask).await,
    }
}

async fn transaction(kv: &mut KvClient<Channel>, ask: &Ask) -> Result<Answer, Status> {
    let survey = ask.survey.then(|| Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Create.into(),
        key: PREFIX.into(),
        range_end: PREFIX_END.into(),
        target_union: Some(TargetUnion::CreateRevision(-1)),
    });
    let compare = ask.guard.iter().map(|(name, revision)| Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: name.as_bytes().to_vec().into(),
        target_union: Some(TargetUnion::ModRevision(*revision as i64)),
        ..Compare::default()
    });
    let reads = ask.writes.is_empty();
    let otherwise: Vec<&Key> = ask.guard.iter().map(|(name, _)| name).collect();
    let request = TxnRequest {
        compare: compare.chain(survey).collect(),
        success: if reads {
            ask.reads.iter().map(read_op).collect()
        } else {
            ask.writes.iter().map(write_op).collect()
        },
        failure: otherwise.iter().map(|name| read_op(name)).collect(),
    };
    let done = kv.txn(request).await?.into_inner();
    let revision = revision(done.header)?;
    if done.succeeded && !reads {
        return Ok(Answer::Wrote { revision });
    }
    let asked: Vec<&Key> = if done.succeeded { ask.reads.iter().collect() } else { otherwise };
    if asked.len() != done.responses.len() {
        return Err(Status::data_loss("an answer with other parts than the request"));
    }
    let found = asked.into_iter().zip(&done.responses).map(|(name, part)| match &part.response {
        Some(ResponseKind::ResponseRange(range)) => found(name, &range.kvs),
        _ => Err(Status::data_loss("an answer of another kind than the request")),
    });
    Ok(Answer::Saw { revision, found: found.collect::<Result<_, _>>()? })
}

/// What one member holds by itself.
///
/// # Errors
/// No answer, or a value that is none of ours.
pub async fn member(channel: Channel, name: &str) -> Result<Member, Status> {
    let all =
        RangeRequest { key: PREFIX.into(), range_end: PREFIX_END.into(), serializable: true, ..Default::default() };
    let held = KvClient::new(channel).range(all).await?.into_inner();
    let revision = revision(held.header)?;
    let keys = held.kvs.iter().map(|kv| Some((key(kv), kept(kv)?))).collect::<Option<_>>();
    let keys = keys.ok_or_else(|| Status::data_loss("a value that nobody wrote"))?;
    Ok(Member { name: name.to_owned(), revision, keys, hash: None })
}

/// Question for the hash of all history up to a revision.
#[derive(Clone, PartialEq, prost::Message)]
struct HashKvRequest {
    #[prost(int64, tag = "1")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HashKvResponse {
    #[prost(uint32, tag = "2")]
    hash: u32,
}

/// A member's hash of its history; `None` where there is no such service.
///
/// # Errors
/// No answer.
pub async fn hash(channel: Channel, revision: u64) -> Result<Option<u32>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/HashKV");
    let codec = tonic_prost::ProstCodec::<HashKvRequest, HashKvResponse>::default();
    let request = tonic::Request::new(HashKvRequest { revision: revision as i64 });
    match grpc.unary(request, path, codec).await {
        Ok(answer) => Ok(Some(answer.into_inner().hash)),
        Err(e) if e.code() == tonic::Code::Unimplemented => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_lab::etcd::dial_lazy;

    #[tokio::test]
    async fn a_request_to_a_port_where_nobody_listens_was_never_sent_and_others_may_have_been() {
        let port = triarch_lab::ports::free(1).unwrap()[0];
        let mut kv = KvClient::new(dial_lazy(&format!("http://127.0.0.1:{port}"), None).unwrap());
        let writes = vec![("h/k".into(), Some(1))];
        let refused = ask(&mut kv, &Ask { writes, ..Ask::default() }).await.unwrap_err();
        assert!(never_sent(&refused), "{refused:?}");
        assert!(!never_sent(&Status::unavailable("tcp connect error")));
    }

    #[test]
    fn only_values_of_the_run_are_kept() {
        let held = |value: &'static str| KeyValue { value: value.into(), mod_revision: 3, ..KeyValue::default() };
        assert_eq!(kept(&held("17")).map(|k| (k.value, k.modified)), Some((17, 3)));
        assert_eq!(kept(&held("x")), None);
    }
}
