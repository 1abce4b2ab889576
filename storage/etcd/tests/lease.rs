//! Leases as an etcd client meets them, on a clock that the test turns.

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use common::Alone;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use triarch_env::{Env, Mono, Runtime, Scope, TokioRuntime, Wall};
use triarch_etcd::Lessor;
use triarch_etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::lease_client::LeaseClient;
use triarch_etcd::etcdserverpb::watch_client::WatchClient;
use triarch_etcd::etcdserverpb::watch_request::RequestUnion;
use triarch_etcd::etcdserverpb::*;
use triarch_mvcc::{Db, Epoch, Import, LEASE_RESOURCE, Limits, LocalDb, Prefix};

/// tokio's tasks on a clock that stands until it is turned.
struct Clock {
    tokio: TokioRuntime,
    now: Mutex<(Mono, BTreeMap<(Mono, u64), Waker>)>,
}

struct Turned(Arc<Clock>);

impl Runtime for Turned {
    fn spawn(&self, name: &'static str, fut: BoxFuture<'static, ()>) {
        self.0.tokio.spawn(name, fut);
    }

    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        let (clock, until, id) = (self.0.clone(), self.mono() + d, self.random_u64());
        std::future::poll_fn(move |cx| {
            let mut now = clock.now.lock();
            if now.0 >= until {
                return std::task::Poll::Ready(());
            }
            now.1.insert((until, id), cx.waker().clone());
            std::task::Poll::Pending
        })
        .boxed()
    }

    fn mono(&self) -> Mono {
        self.0.now.lock().0
    }

    fn wall(&self) -> Wall {
        self.0.tokio.wall()
    }

    fn random_u64(&self) -> u64 {
        self.0.tokio.random_u64()
    }
}

impl Clock {
    fn turn(&self, by: Duration) {
        let mut now = self.now.lock();
        now.0 = now.0 + by;
        let after = now.0 + Duration::from_nanos(1);
        let later = now.1.split_off(&(after, 0));
        std::mem::replace(&mut now.1, later).into_values().for_each(Waker::wake);
    }
}

struct World {
    db: Arc<LocalDb>,
    clock: Arc<Clock>,
    env: Env,
    lessor: Arc<Lessor>,
    term: Arc<Mutex<Option<Epoch>>>,
    scope: Scope,
    lease: LeaseClient<Channel>,
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl World {
    async fn new() -> World {
        World::over(LocalDb::new(Limits::default())).await
    }

    /// A facade over `db` whose only replica leads.
    async fn over(db: Arc<LocalDb>) -> World {
        let clock = Arc::new(Clock { tokio: TokioRuntime::current(), now: Mutex::default() });
        let env = Env::new(Turned(clock.clone()));
        let term = Arc::new(Mutex::new(None));
        let leads = term.clone();
        let lessor = Lessor::new(db.clone(), env.clone(), move || *leads.lock());
        let channel = common::serve(db.clone(), Alone { lessor: Some(lessor.clone()), ..Alone::default() }).await;
        let (lease, kv) = (LeaseClient::new(channel.clone()), KvClient::new(channel.clone()));
        let watch = WatchClient::new(channel);
        let world = World { db, clock, env, lessor, term, scope: Scope::new(), lease, kv, watch };
        world.lead(1)
    }

    /// Ends the leadership there is, and begins another.
    fn lead(mut self, term: u64) -> World {
        self.scope.cancel();
        self.scope = Scope::new();
        let epoch = Epoch { term, node: 1 };
        *self.term.lock() = Some(epoch);
        self.env.spawn_in(&self.scope, "lessor", self.lessor.clone().lead(epoch));
        self
    }

    /// Turns the clock and waits until what is due is done: `settled`.
    async fn turn(&self, by: u64, settled: impl Fn(&LocalDb) -> bool) {
        self.idle().await;
        self.clock.turn(seconds(by));
        self.wait(|| settled(&self.db)).await;
        self.idle().await;
    }

    async fn wait(&self, done: impl Fn() -> bool) {
        let waiting = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(seconds(20), waiting).await.expect("it comes to that");
    }

    /// Lets the lessor see what was written.
    async fn idle(&self) {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn leases(&self) -> Vec<i64> {
        self.db.mvcc().leases().0.iter().map(|l| l.id).collect()
    }

    async fn grant(&mut self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        self.lease.lease_grant(LeaseGrantRequest { id, ttl }).await.map(tonic::Response::into_inner)
    }

    async fn put(&mut self, key: &'static str, lease: i64) -> Result<PutResponse, Status> {
        let put = PutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
        self.kv.put(put).await.map(tonic::Response::into_inner)
    }

    async fn revoke(&mut self, id: i64) -> Result<LeaseRevokeResponse, Status> {
        self.lease.lease_revoke(LeaseRevokeRequest { id }).await.map(tonic::Response::into_inner)
    }

    /// (remaining, granted, keys)
    async fn time(&mut self, id: i64) -> (i64, i64, Vec<String>) {
        let r = self.lease.lease_time_to_live(LeaseTimeToLiveRequest { id, keys: true }).await.unwrap().into_inner();
        (r.ttl, r.granted_ttl, r.keys.iter().map(|k| String::from_utf8(k.to_vec()).unwrap()).collect())
    }

    async fn keys(&mut self) -> Vec<String> {
        let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let kvs = self.kv.range(all).await.unwrap().into_inner().kvs;
        kvs.iter().map(|kv| format!("{}:{}", String::from_utf8(kv.key.to_vec()).unwrap(), kv.lease)).collect()
    }

    async fn keep_alive(&mut self) -> (mpsc::Sender<LeaseKeepAliveRequest>, Streaming<LeaseKeepAliveResponse>) {
        let (send, requests) = mpsc::channel(100);
        let answers = self.lease.lease_keep_alive(ReceiverStream::new(requests)).await.unwrap().into_inner();
        (send, answers)
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(seconds(20), what).await.expect("an answer")
}

fn expect<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, message: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, message));
}

#[tokio::test]
async fn leases_are_granted_with_an_id_or_without_one_and_at_least_for_etcds_shortest_time() {
    let mut w = World::new().await;
    let chosen = w.grant(0, 30).await.unwrap();
    assert!(chosen.id > 0 && chosen.ttl == 30 && chosen.header.unwrap().revision == 1);
    let short = w.grant(7, 0).await.unwrap();
    assert_eq!((short.id, short.ttl, short.error.as_str()), (7, 2, ""));
    expect(w.grant(7, 60).await, Code::FailedPrecondition, "etcdserver: lease already exists");
    expect(w.grant(8, 9_000_000_001).await, Code::OutOfRange, "etcdserver: too large lease TTL");
    let all = w.lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
    let mut ids: Vec<_> = all.leases.iter().map(|l| l.id).collect();
    ids.sort();
    assert_eq!(ids, [7, chosen.id]);
    assert_eq!(w.time(99).await, (-1, 0, vec![]));
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_with_it_in_one_revision() {
    let mut w = World::new().await;
    let (send, requests) = mpsc::channel(1);
    let create = WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: true, ..Default::default() };
    send.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
    let mut events = w.watch.watch(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert!(soon(events.message()).await.unwrap().unwrap().created);
    w.grant(7, 60).await.unwrap();
    w.grant(8, 60).await.unwrap();
    for (key, lease) in [("a", 7), ("b", 7), ("c", 8), ("d", 0)] {
        w.put(key, lease).await.unwrap();
    }
    assert_eq!(w.time(7).await, (60, 60, vec!["a".into(), "b".into()]));
    let mut revisions = Vec::new();
    while revisions.len() < 4 {
        let r = soon(events.message()).await.unwrap().unwrap();
        revisions.extend(r.events.iter().map(|e| e.kv.as_ref().map(|kv| (kv.lease, kv.mod_revision)).unwrap()));
    }
    assert_eq!(revisions, [(7, 2), (7, 3), (8, 4), (0, 5)]);
    assert_eq!(w.revoke(7).await.unwrap().header.unwrap().revision, 6);
    let r = soon(events.message()).await.unwrap().unwrap();
    let gone: Vec<_> = r.events.iter().map(|e| (e.r#type, e.kv.as_ref().unwrap().mod_revision)).collect();
    assert_eq!(gone, [(1, 6), (1, 6)]);
    assert_eq!(r.events[0].prev_kv.as_ref().unwrap().lease, 7);
    assert_eq!(w.keys().await, ["c:8", "d:0"]);
    expect(w.revoke(7).await, Code::NotFound, "etcdserver: requested lease not found");
    expect(w.revoke(0).await, Code::NotFound, "etcdserver: requested lease not found");
    expect(w.put("a", 7).await, Code::NotFound, "etcdserver: requested lease not found");
    // A lease without keys goes without a revision, and may come again.
    w.grant(7, 60).await.unwrap();
    assert_eq!(w.revoke(7).await.unwrap().header.unwrap().revision, 6);
}

#[tokio::test]
async fn a_put_moves_its_key_to_its_lease_or_away_from_one_unless_it_keeps_it() {
    let mut w = World::new().await;
    w.grant(7, 60).await.unwrap();
    w.grant(8, 60).await.unwrap();
    w.put("a", 7).await.unwrap();
    w.put("b", 7).await.unwrap();
    let keep = |key: &'static str| PutRequest {
        key: key.into(),
        value: "new".into(),
        ignore_lease: true,
        prev_kv: true,
        ..Default::default()
    };
    let prev = w.kv.put(keep("a")).await.unwrap().into_inner().prev_kv.unwrap();
    assert_eq!((prev.lease, &prev.value[..]), (7, &b"v"[..]));
    assert_eq!(w.keys().await, ["a:7", "b:7"]);
    expect(w.kv.put(keep("none")).await, Code::InvalidArgument, "etcdserver: key not found");
    let value = PutRequest { key: "b".into(), lease: 8, ignore_value: true, ..Default::default() };
    w.kv.put(value).await.unwrap();
    w.put("a", 0).await.unwrap();
    assert_eq!(w.keys().await, ["a:0", "b:8"]);
    assert_eq!(w.time(7).await.2, [""; 0]);
    // Transactions: the lease is compared, kept and refused as in a put.
    let when = |lease| Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Lease as i32,
        key: "b".into(),
        target_union: Some(TargetUnion::Lease(lease)),
        ..Default::default()
    };
    let op = |put| RequestOp { request: Some(request_op::Request::RequestPut(put)) };
    let read = RequestOp {
        request: Some(request_op::Request::RequestRange(RangeRequest { key: "b".into(), ..Default::default() })),
    };
    let txn = TxnRequest { compare: vec![when(8)], success: vec![op(keep("b")), read], ..Default::default() };
    let done = w.kv.txn(txn).await.unwrap().into_inner();
    let Some(response_op::Response::ResponseRange(seen)) = &done.responses[1].response else { panic!("{done:?}") };
    assert!(done.succeeded && seen.kvs[0].lease == 8);
    assert!(
        !w.kv.txn(TxnRequest { compare: vec![when(7)], ..Default::default() }).await.unwrap().into_inner().succeeded
    );
    let unknown = PutRequest { key: "z".into(), lease: 99, ..Default::default() };
    let both = TxnRequest {
        success: vec![op(PutRequest { key: "y".into(), ..Default::default() }), op(unknown)],
        ..Default::default()
    };
    expect(w.kv.txn(both).await, Code::NotFound, "etcdserver: requested lease not found");
    assert_eq!(w.keys().await, ["a:0", "b:8"]);
}

#[tokio::test]
async fn a_lease_ends_when_its_time_is_over_and_one_that_is_kept_alive_does_not() {
    let mut w = World::new().await;
    for (id, ttl) in [(1, 10), (2, 10), (3, 100)] {
        w.grant(id, ttl).await.unwrap();
    }
    for (key, lease) in [("a", 1), ("b", 2), ("c", 3)] {
        w.put(key, lease).await.unwrap();
    }
    let (send, mut answers) = w.keep_alive().await;
    w.turn(8, |_| true).await;
    assert_eq!(w.time(1).await, (2, 10, vec!["a".into()]));
    send.send(LeaseKeepAliveRequest { id: 2 }).await.unwrap();
    let kept = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!((kept.id, kept.ttl), (2, 10));
    w.turn(2, |db| db.mvcc().lease_count() == 2).await;
    assert_eq!((w.leases(), w.keys().await), (vec![2, 3], vec!["b:2".into(), "c:3".into()]));
    // One that is gone is answered with no time, and the stream goes on.
    for id in [1, 3] {
        send.send(LeaseKeepAliveRequest { id }).await.unwrap();
    }
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().ttl, 0);
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().ttl, 100);
    w.turn(9, |db| db.mvcc().lease_count() == 1).await;
    assert_eq!(w.keys().await, ["c:3"]);
}

#[tokio::test]
async fn a_new_leader_gives_every_lease_its_whole_time_again() {
    let mut w = World::new().await;
    w.grant(1, 10).await.unwrap();
    w.turn(9, |_| true).await;
    let mut w = w.lead(2);
    w.turn(9, |_| true).await;
    assert_eq!((w.leases(), w.time(1).await.0), (vec![1], 1));
    // Who does not lead ends nothing and answers nothing.
    w.scope.cancel();
    *w.term.lock() = None;
    w.turn(100, |_| true).await;
    assert_eq!(w.leases(), [1]);
    let lost = w.lease.lease_time_to_live(LeaseTimeToLiveRequest { id: 1, keys: false }).await;
    expect(lost, Code::Unavailable, "etcdserver: no leader");
    let mut w = w.lead(3);
    w.idle().await;
    assert_eq!(w.time(1).await.0, 10);
    w.turn(10, |db| db.mvcc().lease_count() == 0).await;
}

#[tokio::test]
async fn hundreds_of_leases_that_end_together_all_end() {
    let mut w = World::new().await;
    for id in 1..=300 {
        w.grant(id, 10 + id % 3).await.unwrap();
    }
    w.put("a", 300).await.unwrap();
    w.turn(20, |db| db.mvcc().lease_count() == 0).await;
    assert_eq!(w.keys().await, [""; 0]);
}

#[tokio::test]
async fn leases_and_their_keys_come_back_from_a_checkpoint() {
    let mut w = World::new().await;
    w.grant(7, 60).await.unwrap();
    w.grant(-1, 60).await.unwrap();
    w.put("a", 7).await.unwrap();
    w.put("b", -1).await.unwrap();
    let pin = w.db.mvcc().pin();
    let mut import = Import::new(Limits::default(), &pin.header()).unwrap();
    pin.page(None, 1000, 1 << 20).into_iter().for_each(|s| import.add(s).unwrap());
    let restored = import.finish();
    assert_eq!(restored.leases().0, w.db.mvcc().leases().0);
    assert_eq!(restored.lease_keys(7), w.db.mvcc().lease_keys(7));
    assert_eq!((restored.lease_keys(7).len(), restored.lease_keys(-1).len()), (1, 1));
    assert_eq!(restored.count(&Prefix::resource(LEASE_RESOURCE)), 2);
}
