//! What a put costs the store, alone and under watchers, and what lists cost.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use triarch_mvcc::*;

const KEYS: usize = 10_000;

/// A store with pods in 100 namespaces, and a cursor for more entries.
struct Load {
    db: Arc<Mvcc>,
    n: u64,
}

impl Load {
    fn new() -> Load {
        let mut load = Load { db: Mvcc::new(Limits::default()), n: 0 };
        (0..KEYS).for_each(|_| load.put());
        load
    }

    fn key(n: usize) -> Key {
        Key::new("pods", &format!("ns-{}", n % 100), &format!("pod-{n}"))
    }

    fn entry(&mut self, op: Op) {
        self.n += 1;
        let id = ProposalId { incarnation: 1, sequence: self.n };
        let txn = Txn { ops: vec![op], ..Txn::default() };
        let outcome = self.db.apply(&[(id, txn)], AppliedAt { index: self.n, term: 1, node: 1 });
        if self.n.is_multiple_of(100) {
            // As a leader and a checkpoint would.
            if let Some(floor) = self.db.revision().checked_sub(100_000) {
                self.n += 1;
                let txn = Txn { ops: vec![Op::Compact(floor)], ..Txn::default() };
                let id = ProposalId { incarnation: 1, sequence: self.n };
                self.db.apply(&[(id, txn)], AppliedAt { index: self.n, term: 1, node: 1 });
            }
        }
        black_box(outcome);
    }

    /// 256 bytes, different each time.
    fn value(&self) -> Bytes {
        let mut value = vec![b'v'; 256];
        value[..8].copy_from_slice(&self.n.to_le_bytes());
        value.into()
    }

    fn put(&mut self) {
        let value = self.value();
        self.entry(Op::Put(Load::key(self.n as usize * 7919 % KEYS), Object::plain(value)));
    }

    fn facade_put(&mut self) {
        let value = self.value();
        let key = facade_key(format!("key-{}", self.n as usize * 7919 % KEYS).as_bytes());
        self.entry(Op::Facade(FacadeTxn::put(key, value)));
    }
}

fn puts(c: &mut Criterion) {
    let mut group = c.benchmark_group("put");
    group.throughput(Throughput::Elements(1));
    let mut load = Load::new();
    group.bench_function("object", |b| b.iter(|| load.put()));
    group.bench_function("facade", |b| b.iter(|| load.facade_put()));
    // Compaction and exports cost what they cost while puts go on.
    group.bench_function("object_with_checkpoint", |b| {
        b.iter(|| {
            load.put();
            if load.n.is_multiple_of(1000)
                && let Ok(Some(export)) = load.db.export(load.db.compacted(), 10_000)
            {
                load.db.exported(&export);
            }
        });
    });
    group.finish();
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("put_under_watchers");
    for (name, idle, busy) in [("idle_10000", 10_000, 0), ("busy_100", 0, 100), ("busy_1000", 0, 1000)] {
        let mut load = Load::new();
        let head = load.db.revision();
        let other = |n| Prefix { name: Some(format!("other-{n}")), ..Prefix::namespaced("pods", "other") };
        let mut idlers: Vec<_> =
            (0..idle).map(|n| load.db.watch(other(n), head).expect("the head is watchable")).collect();
        let all = Prefix::resource("pods");
        let mut watchers: Vec<_> =
            (0..busy).map(|_| load.db.watch(all.clone(), head).expect("the head is watchable")).collect();
        idlers.iter_mut().for_each(|w| drop(black_box(w.try_next(1))));
        group.throughput(Throughput::Elements(busy.max(1)));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                load.put();
                watchers.iter_mut().for_each(|w| drop(black_box(w.try_next(100))));
            });
        });
    }
    group.finish();
}

fn lists(c: &mut Criterion) {
    let mut group = c.benchmark_group("list");
    let mut load = Load::new();
    (0..20_000).for_each(|_| load.put());
    let past = load.db.revision() - 5_000;
    let namespace = ListRequest::all(Prefix::namespaced("pods", "ns-7"));
    let all = ListRequest::all(Prefix::resource("pods"));
    let page = ListRequest { limit: 500, after: Some(Load::key(500)), at: Some(past), ..all.clone() };
    group.bench_function("namespace_100", |b| b.iter(|| black_box(load.db.list(&namespace))));
    group.bench_function("all_10000", |b| b.iter(|| black_box(load.db.list(&all))));
    group.bench_function("page_500_of_the_past", |b| b.iter(|| black_box(load.db.list(&page))));
    group.bench_function("get", |b| b.iter(|| black_box(load.db.get(&Load::key(77)))));
    group.finish();
}

criterion_group!(benches, puts, fan_out, lists);
criterion_main!(benches);
