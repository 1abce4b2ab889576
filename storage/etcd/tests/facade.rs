//! The facade as an etcd client meets it, over loopback gRPC.

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use triarch_etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use triarch_etcd::etcdserverpb::watch_client::WatchClient;
use triarch_etcd::etcdserverpb::watch_request::RequestUnion;
use triarch_etcd::etcdserverpb::*;
use triarch_mvcc::{Db, Limits, LocalDb};

struct Client {
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
    db: Arc<LocalDb>,
}

async fn client() -> Client {
    let db = LocalDb::new(Limits::default());
    let channel = common::serve(db.clone(), common::Alone::default()).await;
    Client { kv: KvClient::new(channel.clone()), watch: WatchClient::new(channel), db }
}

fn get(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..Default::default() }
}

fn prefix(key: &'static str, end: &'static str) -> RangeRequest {
    RangeRequest { range_end: end.into(), ..get(key) }
}

fn put_op(key: &'static str, value: &'static str) -> RequestOp {
    let put = PutRequest { key: key.into(), value: value.into(), prev_kv: true, ..Default::default() };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

fn get_op(r: RangeRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestRange(r)) }
}

fn delete_op(key: &'static str, end: &'static str) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: true };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
}

fn txn_op(txn: TxnRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestTxn(txn)) }
}

fn when(key: &'static str, target: CompareTarget, result: CompareResult, to: TargetUnion) -> Compare {
    let (result, target) = (result as i32, target as i32);
    Compare { result, target, key: key.into(), target_union: Some(to), ..Default::default() }
}

fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().unwrap().revision
}

impl Client {
    async fn put(&mut self, key: &'static str, value: &'static str) -> i64 {
        let r = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        revision(&self.kv.put(r).await.unwrap().into_inner().header)
    }

    async fn range(&mut self, r: RangeRequest) -> Result<RangeResponse, Status> {
        self.kv.range(r).await.map(tonic::Response::into_inner)
    }

    async fn keys(&mut self, r: RangeRequest) -> Vec<String> {
        names(&self.range(r).await.unwrap().kvs)
    }

    async fn txn(&mut self, r: TxnRequest) -> Result<TxnResponse, Status> {
        self.kv.txn(r).await.map(tonic::Response::into_inner)
    }

    async fn compact(&mut self, revision: i64) -> Result<CompactionResponse, Status> {
        self.kv.compact(CompactionRequest { revision, physical: true }).await.map(tonic::Response::into_inner)
    }

    async fn stream(&mut self) -> Stream {
        let (send, requests) = mpsc::channel(100);
        let responses = self.watch.watch(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Stream { send, responses, held: VecDeque::new() }
    }
}

fn names(kvs: &[triarch_etcd::mvccpb::KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

struct Stream {
    send: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    held: VecDeque<WatchResponse>,
}

impl Stream {
    async fn say(&mut self, request: RequestUnion) {
        self.send.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        if let Some(held) = self.held.pop_front() {
            return held;
        }
        let next = tokio::time::timeout(Duration::from_secs(20), self.responses.message());
        next.await.expect("a response").unwrap().expect("the stream goes on")
    }

    /// Creates a watch and takes its first response.
    async fn create(&mut self, r: WatchCreateRequest) -> WatchResponse {
        self.say(RequestUnion::CreateRequest(r)).await;
        self.next().await
    }

    /// Events of the next responses, as `id:type key=value@revision`.
    async fn events(&mut self, n: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < n {
            let r = self.next().await;
            for e in &r.events {
                let kv = e.kv.as_ref().unwrap();
                let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
                let kind = if e.r#type == 0 { "put" } else { "delete" };
                let prev = e.prev_kv.as_ref().map_or(String::new(), |p| format!(" was {}", text(&p.value)));
                all.push(format!(
                    "{}:{kind} {}={}@{}{prev}",
                    r.watch_id,
                    text(&kv.key),
                    text(&kv.value),
                    kv.mod_revision
                ));
            }
        }
        all
    }
}

fn expect<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, message: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, message));
}

#[tokio::test]
async fn puts_count_revisions_and_versions_as_etcd_does() {
    let mut c = client().await;
    assert_eq!(revision(&c.range(get("a")).await.unwrap().header), 1);
    assert_eq!((c.put("a", "1").await, c.put("a", "1").await, c.put("b", "x").await), (2, 3, 4));
    let got = c.range(get("a")).await.unwrap();
    let kv = &got.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, &kv.value[..]), (2, 3, 2, &b"1"[..]));
    assert_eq!((revision(&got.header), got.count, got.more), (4, 1, false));
    let header = got.header.unwrap();
    assert_eq!((header.cluster_id, header.member_id), (7, 9));
    let r = PutRequest { key: "a".into(), value: "2".into(), prev_kv: true, ..Default::default() };
    let prev = c.kv.put(r.clone()).await.unwrap().into_inner().prev_kv.unwrap();
    assert_eq!((prev.mod_revision, prev.version, &prev.value[..]), (3, 2, &b"1"[..]));
    let r = PutRequest { ignore_value: true, value: "".into(), ..r };
    c.kv.put(r.clone()).await.unwrap();
    let kv = c.range(get("a")).await.unwrap().kvs.remove(0);
    assert_eq!((kv.mod_revision, kv.version, &kv.value[..]), (6, 4, &b"2"[..]));
    let r = PutRequest { key: "none".into(), ..r };
    expect(c.kv.put(r).await, Code::InvalidArgument, "etcdserver: key not found");
    // The API objects' counter has not moved.
    assert_eq!(c.db.mvcc().revision(), 0);
}

#[tokio::test]
async fn ranges_limit_sort_filter_and_count() {
    let mut c = client().await;
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "3"), ("d/1", "0"), ("d/2", "9")] {
        c.put(key, value).await;
    }
    let all = || prefix("\0", "\0");
    assert_eq!(c.keys(all()).await, ["a", "b", "c", "d/1", "d/2"]);
    assert_eq!(c.keys(prefix("d/", "d0")).await, ["d/1", "d/2"]);
    assert_eq!(c.keys(prefix("b", "\0")).await, ["b", "c", "d/1", "d/2"]);
    assert_eq!(c.keys(prefix("c", "b")).await, [""; 0]);
    let page = c.range(RangeRequest { limit: 2, ..all() }).await.unwrap();
    assert_eq!((names(&page.kvs), page.more, page.count), (vec!["a".into(), "b".into()], true, 5));
    let count = c.range(RangeRequest { count_only: true, ..all() }).await.unwrap();
    assert_eq!((count.kvs.len(), count.count), (0, 5));
    let keys_only = c.range(RangeRequest { keys_only: true, ..get("a") }).await.unwrap();
    assert!(keys_only.kvs[0].value.is_empty() && keys_only.kvs[0].version == 2);
    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        ..all()
    };
    assert_eq!(c.keys(sorted(SortTarget::Value, SortOrder::None)).await, ["d/1", "b", "c", "a", "d/2"]);
    assert_eq!(c.keys(sorted(SortTarget::Mod, SortOrder::Descend)).await, ["d/2", "d/1", "a", "c", "b"]);
    let last = RangeRequest { limit: 1, ..sorted(SortTarget::Create, SortOrder::Descend) };
    let last = c.range(last).await.unwrap();
    assert_eq!((names(&last.kvs), last.more, last.count), (vec!["d/2".into()], true, 5));
    assert_eq!(c.keys(RangeRequest { min_mod_revision: 5, max_mod_revision: 6, ..all() }).await, ["a", "d/1"]);
    assert_eq!(c.keys(RangeRequest { revision: 3, ..all() }).await, ["a", "b"]);
}

#[tokio::test]
async fn deletes_take_a_revision_only_when_something_goes() {
    let mut c = client().await;
    for key in ["a", "b", "c"] {
        c.put(key, "v").await;
    }
    let r = DeleteRangeRequest { key: "a".into(), range_end: "c".into(), prev_kv: true };
    let gone = c.kv.delete_range(r.clone()).await.unwrap().into_inner();
    assert_eq!((gone.deleted, names(&gone.prev_kvs), revision(&gone.header)), (2, vec!["a".into(), "b".into()], 5));
    let gone = c.kv.delete_range(r).await.unwrap().into_inner();
    assert_eq!((gone.deleted, revision(&gone.header)), (0, 5));
    c.put("a", "again").await;
    let kv = c.range(get("a")).await.unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.version), (6, 1));
}

#[tokio::test]
async fn a_transaction_compares_branches_and_answers_each_operation_in_order() {
    let mut c = client().await;
    c.put("a", "1").await;
    c.put("z", "1").await;
    let txn = TxnRequest {
        compare: vec![
            when("a", CompareTarget::Value, CompareResult::Equal, TargetUnion::Value("1".into())),
            when("b", CompareTarget::Create, CompareResult::Equal, TargetUnion::CreateRevision(0)),
            when("a", CompareTarget::Version, CompareResult::Less, TargetUnion::Version(2)),
        ],
        success: vec![
            get_op(prefix("a", "c")),
            put_op("a", "2"),
            put_op("b", "2"),
            delete_op("y", "\0"),
            get_op(prefix("\0", "\0")),
            txn_op(TxnRequest {
                compare: vec![when("a", CompareTarget::Mod, CompareResult::Greater, TargetUnion::ModRevision(2))],
                success: vec![put_op("c", "wrong branch")],
                failure: vec![put_op("c", "nested")],
            }),
        ],
        failure: vec![get_op(get("a"))],
    };
    let done = c.txn(txn.clone()).await.unwrap();
    assert!(done.succeeded && revision(&done.header) == 4);
    let responses: Vec<_> = done.responses.into_iter().map(|r| r.response.unwrap()).collect();
    let [
        response_op::Response::ResponseRange(before),
        response_op::Response::ResponsePut(put),
        response_op::Response::ResponsePut(new),
        response_op::Response::ResponseDeleteRange(deleted),
        response_op::Response::ResponseRange(after),
        response_op::Response::ResponseTxn(nested),
    ] = &responses[..]
    else {
        panic!("{responses:?}")
    };
    assert_eq!((names(&before.kvs), revision(&before.header)), (vec!["a".into()], 3));
    assert_eq!((&put.prev_kv.as_ref().unwrap().value[..], revision(&put.header)), (&b"1"[..], 4));
    assert_eq!(new.prev_kv, None);
    assert_eq!((deleted.deleted, names(&deleted.prev_kvs)), (1, vec!["z".into()]));
    assert_eq!(names(&after.kvs), ["a", "b"]);
    assert_eq!((after.kvs[0].mod_revision, after.kvs[0].version), (4, 2));
    assert!(!nested.succeeded);
    assert_eq!(c.keys(prefix("\0", "\0")).await, ["a", "b", "c"]);
    assert_eq!(&c.range(get("c")).await.unwrap().kvs[0].value[..], b"nested");
    // What the answer said is what was stored.
    assert_eq!(c.range(get("a")).await.unwrap().kvs[0], after.kvs[0]);
    let again = c.txn(txn).await.unwrap();
    assert!(!again.succeeded && revision(&again.header) == 4);
    let range = Compare {
        range_end: "\0".into(),
        ..when("a", CompareTarget::Mod, CompareResult::Equal, TargetUnion::ModRevision(4))
    };
    assert!(c.txn(TxnRequest { compare: vec![range], ..Default::default() }).await.unwrap().succeeded);
    // No value is equal or unequal to that of a key that is not there.
    let absent = when("none", CompareTarget::Value, CompareResult::NotEqual, TargetUnion::Value("1".into()));
    assert!(!c.txn(TxnRequest { compare: vec![absent], ..Default::default() }).await.unwrap().succeeded);
}

#[tokio::test]
async fn bad_requests_are_refused_in_etcds_words() {
    let mut c = client().await;
    let invalid = Code::InvalidArgument;
    expect(c.range(get("")).await, invalid, "etcdserver: key is not provided");
    expect(c.range(RangeRequest { sort_order: 9, ..get("a") }).await, invalid, "etcdserver: invalid sort option");
    expect(
        c.range(RangeRequest { revision: 9, ..get("a") }).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    let put = PutRequest { key: "a".into(), value: "v".into(), ..Default::default() };
    expect(c.kv.put(PutRequest { ignore_value: true, ..put.clone() }).await, invalid, "etcdserver: value is provided");
    expect(
        c.kv.put(PutRequest { lease: 5, ..put.clone() }).await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    expect(
        c.kv.put(PutRequest { lease: 5, ignore_lease: true, ..put.clone() }).await,
        invalid,
        "etcdserver: lease is provided",
    );
    let large = PutRequest { value: vec![0; 1_600_000].into(), ..put.clone() };
    expect(c.kv.put(large).await, invalid, "etcdserver: request is too large");
    let txn = |success: Vec<RequestOp>| TxnRequest { success, ..Default::default() };
    expect(c.txn(txn(vec![put_op("a", "1"); 129])).await, invalid, "etcdserver: too many operations in txn request");
    for twice in [
        vec![put_op("a", "1"), put_op("a", "2")],
        vec![put_op("b", "1"), delete_op("a", "c")],
        vec![txn_op(txn(vec![put_op("a", "1")])), put_op("a", "1")],
        vec![
            txn_op(txn(vec![put_op("a", "1")])),
            txn_op(TxnRequest { failure: vec![delete_op("a", "")], ..Default::default() }),
        ],
    ] {
        expect(c.txn(txn(twice)).await, invalid, "etcdserver: duplicate key given in txn request");
    }
    let branches =
        TxnRequest { success: vec![put_op("a", "1")], failure: vec![put_op("a", "2")], ..Default::default() };
    assert!(c.txn(txn(vec![txn_op(branches), delete_op("b", "c"), delete_op("b", "d")])).await.unwrap().succeeded);
    let mut deep = txn(vec![]);
    for _ in 0..40 {
        deep = txn(vec![txn_op(deep)]);
    }
    expect(c.txn(deep).await, invalid, "etcdserver: too many operations in txn request");
}

#[tokio::test]
async fn compaction_ends_reads_and_watches_of_the_past() {
    let mut c = client().await;
    for n in ["1", "2", "3", "4"] {
        c.put("a", n).await;
    }
    let out = Code::OutOfRange;
    expect(c.compact(9).await, out, "etcdserver: mvcc: required revision is a future revision");
    c.compact(4).await.unwrap();
    expect(c.compact(4).await, out, "etcdserver: mvcc: required revision has been compacted");
    let at = |revision| RangeRequest { revision, ..get("a") };
    expect(c.range(at(3)).await, out, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(&c.range(at(4)).await.unwrap().kvs[0].value[..], b"3");
    let mut s = c.stream().await;
    let created = s.create(WatchCreateRequest { key: "a".into(), start_revision: 3, ..Default::default() }).await;
    assert!(created.created && !created.canceled);
    let ended = s.next().await;
    assert!(ended.canceled && ended.compact_revision == 4 && ended.watch_id == created.watch_id);
    assert!(s.create(WatchCreateRequest { key: "a".into(), start_revision: -1, ..Default::default() }).await.created);
    let ended = s.next().await;
    assert!(ended.canceled && ended.compact_revision == 4);
    s.create(WatchCreateRequest { key: "a".into(), start_revision: 5, ..Default::default() }).await;
    assert_eq!(s.events(1).await, ["2:put a=4@5"]);
}

#[tokio::test]
async fn a_watch_may_start_at_the_compacted_revision_itself_and_at_the_first_one() {
    let mut c = client().await;
    let mut s = c.stream().await;
    let from = |start_revision| WatchCreateRequest { key: "a".into(), start_revision, ..Default::default() };
    assert!(!s.create(from(1)).await.canceled);
    for n in ["1", "2", "3"] {
        c.put("a", n).await;
    }
    assert_eq!(s.events(3).await, ["0:put a=1@2", "0:put a=2@3", "0:put a=3@4"]);
    c.compact(3).await.unwrap();
    // Enough entries for everything that the floor releases to be gone.
    for _ in 0..4 {
        c.put("b", "x").await;
    }
    // What the client is told to go on from is a revision that it may go on from.
    s.create(from(2)).await;
    let ended = s.next().await;
    assert!(ended.canceled && ended.compact_revision == 3);
    assert!(!s.create(from(ended.compact_revision)).await.canceled);
    assert_eq!(s.events(2).await, ["2:put a=2@3", "2:put a=3@4"]);
}

#[tokio::test]
async fn watches_share_a_stream_and_get_their_own_events_from_any_revision_on() {
    let mut c = client().await;
    c.put("a/1", "x").await;
    c.put("b", "x").await;
    let mut s = c.stream().await;
    let watch = |key: &'static str, end: &'static str| WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    let first = s.create(WatchCreateRequest { start_revision: 2, prev_kv: true, ..watch("a/", "a0") }).await;
    assert!(first.created && first.watch_id == 0 && revision(&first.header) == 3);
    assert_eq!(s.events(1).await, ["0:put a/1=x@2"]);
    assert_eq!(s.create(watch("b", "")).await.watch_id, 1);
    let nodelete = WatchCreateRequest { filters: vec![1], watch_id: 77, ..watch("a/", "a0") };
    assert_eq!(s.create(nodelete.clone()).await.watch_id, 77);
    let twice = s.create(nodelete).await;
    assert!(twice.canceled && twice.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = s.create(watch("b", "a")).await;
    assert!(empty.canceled && empty.watch_id == -1 && empty.cancel_reason == "mvcc: watcher range is empty");
    c.txn(TxnRequest {
        success: vec![put_op("a/2", "y"), delete_op("a/1", ""), put_op("b", "y")],
        ..Default::default()
    })
    .await
    .unwrap();
    let mut got = s.events(4).await;
    got.sort();
    assert_eq!(got, ["0:delete a/1=@4 was x", "0:put a/2=y@4", "1:put b=y@4", "77:put a/2=y@4"]);
    s.say(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = s.next().await;
    assert_eq!((progress.watch_id, revision(&progress.header), progress.events.len()), (-1, 4, 0));
    s.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 })).await;
    let ended = s.next().await;
    assert!(ended.canceled && ended.watch_id == 0 && ended.compact_revision == 0);
    c.put("a/3", "z").await;
    assert_eq!(s.events(1).await, ["77:put a/3=z@5"]);
}

#[tokio::test]
async fn a_transactions_events_are_one_response_unless_the_client_takes_fragments() {
    let mut c = client().await;
    let mut s = c.stream().await;
    let all = |fragment| WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        fragment,
        prev_kv: true,
        ..Default::default()
    };
    s.create(all(false)).await;
    s.create(all(true)).await;
    // Two generations of two large keys: with previous values over a fragment's size.
    let large: &'static str = Box::leak("v".repeat(700_000).into_boxed_str());
    for _ in 0..2 {
        c.txn(TxnRequest { success: vec![put_op("a", large), put_op("b", large)], ..Default::default() })
            .await
            .unwrap();
    }
    let mut shapes: Vec<_> = Vec::new();
    for _ in 0..5 {
        let r = s.next().await;
        shapes.push((r.watch_id, r.events.len(), r.fragment));
    }
    shapes.sort();
    assert_eq!(shapes, [(0, 2, false), (0, 2, false), (1, 1, false), (1, 1, true), (1, 2, false)]);
}

#[tokio::test]
async fn a_thousand_watches_miss_nothing_under_concurrent_puts() {
    let mut c = client().await;
    let mut s = c.stream().await;
    for n in 0..1000 {
        let key = format!("k/{:03}", n % 100);
        s.create(WatchCreateRequest { key: key.into(), ..Default::default() }).await;
    }
    let puts: Vec<_> = (0..8)
        .map(|_| {
            let mut kv = c.kv.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    let put = PutRequest { key: format!("k/{n:03}").into(), value: "v".into(), ..Default::default() };
                    kv.put(put).await.unwrap();
                }
            })
        })
        .collect();
    let mut last = vec![0; 1000];
    let mut seen = vec![0; 1000];
    while seen.iter().sum::<usize>() < 8000 {
        let r = s.next().await;
        for e in r.events {
            let kv = e.kv.unwrap();
            assert!(kv.mod_revision > last[r.watch_id as usize], "out of order or twice");
            last[r.watch_id as usize] = kv.mod_revision;
            seen[r.watch_id as usize] += 1;
        }
    }
    for p in puts {
        p.await.unwrap();
    }
    assert!(seen.iter().all(|n| *n == 8));
}

/// etcd's issue 18667: there the members that did not serve the client left the
/// range out, and wrote what the client was told had failed.
#[tokio::test]
async fn a_range_that_cannot_be_read_fails_its_whole_transaction_before_anything_is_written() {
    let mut c = client().await;
    for n in ["1", "2", "3"] {
        c.put("a", n).await;
    }
    c.compact(3).await.unwrap();
    let (compacted, future) = (
        "etcdserver: mvcc: required revision has been compacted",
        "etcdserver: mvcc: required revision is a future revision",
    );
    let at = |revision| get_op(RangeRequest { revision, ..get("a") });
    let nested = |op| txn_op(TxnRequest { success: vec![op], ..Default::default() });
    for (bad, message) in [(2, compacted), (-1, compacted), (5, future), (99, future)] {
        for read in [at(bad), nested(at(bad))] {
            for ops in [vec![put_op("b", "x"), read.clone()], vec![read.clone(), delete_op("a", "")], vec![read]] {
                let txn = TxnRequest { success: ops, ..Default::default() };
                expect(c.txn(txn).await, Code::OutOfRange, message);
            }
        }
    }
    let all = c.range(prefix("\0", "\0")).await.unwrap();
    assert_eq!((names(&all.kvs), revision(&all.header)), (vec!["a".into()], 4));
    // Of the branch that is not taken nothing is asked.
    let other = TxnRequest { success: vec![put_op("b", "x")], failure: vec![at(2)], ..Default::default() };
    assert!(c.txn(other).await.unwrap().succeeded);
    let past = TxnRequest { success: vec![put_op("a", "4"), at(3), get_op(get("a"))], ..Default::default() };
    let done = c.txn(past).await.unwrap();
    let values: Vec<_> = done.responses[1..]
        .iter()
        .map(|r| match r.response.as_ref().unwrap() {
            response_op::Response::ResponseRange(r) => r.kvs[0].value.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values, ["2", "4"]);
}

#[tokio::test]
async fn a_watch_that_needs_a_leader_is_told_when_there_is_none_and_one_that_does_not_goes_on() {
    let db = LocalDb::new(Limits::default());
    let cluster = common::Alone::default();
    let lost = cluster.lost.clone();
    let channel = common::serve(db.clone(), cluster).await;
    let mut streams = Vec::new();
    for needs in [true, false] {
        let (send, requests) = mpsc::channel(100);
        let mut request = tonic::Request::new(ReceiverStream::new(requests));
        if needs {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let responses = WatchClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
        let mut s = Stream { send, responses, held: VecDeque::new() };
        assert!(s.create(WatchCreateRequest { key: "a".into(), ..Default::default() }).await.created);
        streams.push(s);
    }
    lost.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), streams[0].responses.message()).await.unwrap();
    expect(ended, Code::Unavailable, "etcdserver: no leader");
    let mut kv = KvClient::new(channel);
    kv.put(PutRequest { key: "a".into(), value: "1".into(), ..Default::default() }).await.unwrap();
    assert_eq!(streams[1].events(1).await, ["0:put a=1@2"]);
}
