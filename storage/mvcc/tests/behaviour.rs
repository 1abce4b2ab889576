//! What single situations must lead to, and what they may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use triarch_mvcc::*;

fn put(key: &Key, value: &str) -> Txn {
    Txn { ops: vec![Op::Put(key.clone(), Object::plain(value.to_owned()))], ..Txn::default() }
}

fn pod(ns: &str, name: &str) -> Key {
    Key::new("pods", ns, name)
}

/// Applies entries one after the other.
struct Log(Arc<Mvcc>, u64);

impl Log {
    fn new(limits: Limits) -> Log {
        Log(Mvcc::new(limits), 0)
    }

    fn entry(&mut self, txns: &[Txn]) -> Vec<TxnOutcome> {
        self.1 += 1;
        let id = |n: usize| ProposalId { incarnation: 1, sequence: self.1 * 1000 + n as u64 };
        let batch: Vec<_> = txns.iter().enumerate().map(|(n, t)| (id(n), t.clone())).collect();
        self.0.apply(&batch, AppliedAt { index: self.1, term: 4, node: 2 })
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once; the counter tells how often it was woken since.
fn poll(watcher: &mut Watcher) -> (Poll<Result<Vec<Arc<Event>>, WatchError>>, Arc<Count>) {
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    (watcher.poll_next(&mut Context::from_waker(&waker), 100), count)
}

#[test]
fn a_put_wakes_the_watchers_of_its_key_and_nobody_else() {
    let mut log = Log::new(Limits::default());
    let one = |ns: &str, name: &str| Prefix { name: Some(name.into()), ..Prefix::namespaced("pods", ns) };
    let anywhere = |name: &str| Prefix { name: Some(name.into()), ..Prefix::resource("pods") };
    let watch = |log: &Log, p: Prefix| log.0.watch(p, 0).unwrap();
    let mut hit: Vec<_> = [one("a", "x"), anywhere("x"), Prefix::namespaced("pods", "a"), Prefix::resource("pods")]
        .map(|p| watch(&log, p))
        .into();
    let mut missed: Vec<_> =
        [one("a", "y"), one("b", "x"), anywhere("y"), Prefix::namespaced("pods", "b"), Prefix::resource("nodes")]
            .map(|p| watch(&log, p))
            .into();
    let hits: Vec<_> = hit.iter_mut().map(|w| poll(w).1).collect();
    let misses: Vec<_> = missed.iter_mut().map(|w| poll(w).1).collect();
    // Three events in one entry are one wake-up.
    log.entry(&[put(&pod("a", "x"), "1"), put(&pod("a", "x"), "2"), put(&pod("a", "x"), "3")]);
    assert!(hits.iter().all(|c| c.0.load(Ordering::SeqCst) == 1));
    assert!(misses.iter().all(|c| c.0.load(Ordering::SeqCst) == 0));
    for w in &mut hit {
        assert!(matches!(poll(w).0, Poll::Ready(Ok(events)) if events.len() == 3));
    }
    for w in &mut missed {
        assert!(poll(w).0.is_pending());
        assert_eq!(w.progress(), 3);
    }
}

#[test]
fn a_watcher_polled_again_is_woken_by_its_latest_waker_only_and_a_dropped_one_by_none() {
    let mut log = Log::new(Limits::default());
    let mut w = log.0.watch(Prefix::resource("pods"), 0).unwrap();
    let mut gone = log.0.watch(Prefix::resource("pods"), 0).unwrap();
    let old: Vec<_> = (0..5).map(|_| poll(&mut w).1).collect();
    let last = poll(&mut w).1;
    let dropped = poll(&mut gone).1;
    drop(gone);
    assert_eq!(Arc::strong_count(&dropped), 1, "a dropped watcher's waker is kept");
    log.entry(&[put(&pod("a", "x"), "1")]);
    assert!(old.iter().all(|c| c.0.load(Ordering::SeqCst) == 0));
    assert_eq!((last.0.load(Ordering::SeqCst), dropped.0.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn a_slow_watcher_is_told_and_an_idle_one_is_not() {
    let mut log = Log::new(Limits { window_events: 10, ..Limits::default() });
    let mut slow = log.0.watch(Prefix::resource("pods"), 0).unwrap();
    let mut idle = log.0.watch(Prefix::namespaced("pods", "quiet"), 0).unwrap();
    assert!(poll(&mut idle).0.is_pending());
    let woken = poll(&mut slow).1;
    for n in 0..100 {
        log.entry(&[put(&pod("busy", "x"), &n.to_string())]);
    }
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(slow.try_next(5), Err(WatchError::Compacted { floor: 90 }));
    assert_eq!(idle.try_next(5), Ok(vec![]));
    log.entry(&[put(&pod("quiet", "y"), "1")]);
    assert_eq!(idle.try_next(5).unwrap()[0].revision, 101);
    assert_eq!(log.0.watch(Prefix::resource("pods"), 89).unwrap_err(), ReadError::Compacted { floor: 91 });
    assert_eq!(log.0.watch(Prefix::resource("pods"), 95).unwrap().try_next(100).unwrap().len(), 6);
    assert_eq!(log.0.window().main.events, 10);
}

#[test]
fn a_byte_bound_limits_the_window_too() {
    let mut log = Log::new(Limits { window_bytes: 100_000, ..Limits::default() });
    for n in 0..100 {
        log.entry(&[put(&pod("a", "x"), &format!("{n:09000}"))]);
    }
    let main = log.0.window().main;
    assert!(main.bytes <= 100_000 && main.events >= 10, "{main:?}");
}

#[test]
fn a_watch_from_the_future_waits_for_it() {
    let mut log = Log::new(Limits::default());
    let mut w = log.0.watch(Prefix::resource("pods"), 2).unwrap();
    for n in 0..3 {
        assert_eq!(w.try_next(9), Ok(vec![]));
        assert_eq!(w.progress(), 2, "not back to the head");
        log.entry(&[put(&pod("a", "x"), &n.to_string())]);
    }
    assert_eq!(w.try_next(9).unwrap().iter().map(|e| e.revision).collect::<Vec<_>>(), [3]);
    assert_eq!(w.progress(), 3);
}

#[test]
fn an_old_leaders_entry_is_fenced_and_anybody_elses_write_is_not() {
    let mut log = Log::new(Limits::default());
    let of = |term, node| Txn { epoch: Some(Epoch { term, node }), ..put(&pod("a", "x"), "v") };
    let outcomes = log.entry(&[of(4, 1), of(3, 2), of(5, 2), of(4, 2)]);
    assert_eq!(outcomes[..3], [TxnOutcome::Fenced, TxnOutcome::Fenced, TxnOutcome::Fenced]);
    assert_eq!(outcomes[3], TxnOutcome::Committed { revisions: vec![1] });
}

#[test]
fn a_transaction_past_the_limits_changes_nothing() {
    let mut log = Log::new(Limits { txn_ops: 3, txn_bytes: 100, ..Limits::default() });
    let many = Txn { ops: vec![Op::Delete(pod("a", "x")); 4], ..Txn::default() };
    let big = put(&pod("a", "x"), &"v".repeat(200));
    let facade = FacadeTxn { success: vec![FacadeOp::Put(facade_key(b"k"), None); 4], ..FacadeTxn::default() };
    let nested = Txn { ops: vec![Op::Facade(facade)], ..Txn::default() };
    let mixed = Txn { ops: vec![Op::CompactFacade(1), Op::Compact(0)], ..Txn::default() };
    assert_eq!(log.entry(&[many, big, nested, mixed]), vec![TxnOutcome::TooLarge; 4]);
    assert_eq!(log.0.revision(), 0);
}

#[test]
fn an_entry_that_was_applied_changes_nothing_when_it_comes_again() {
    let mut log = Log::new(Limits::default());
    let first = log.entry(&[put(&pod("a", "x"), "1")]);
    log.entry(&[put(&pod("a", "x"), "2")]);
    let before = log.0.header();
    log.1 = 0;
    assert_eq!(log.entry(&[put(&pod("a", "x"), "1")]), first);
    assert_eq!(log.0.header(), before);
}

#[test]
fn owners_find_their_dependents() {
    let mut log = Log::new(Limits::default());
    let owned = |name: &str, uids: &[&str]| {
        let owners =
            uids.iter().map(|u| OwnerRef { uid: (*u).into(), controller: false, block_deletion: false }).collect();
        let meta = Arc::new(Meta { owners, ..Meta::default() });
        let object = Object { bytes: Bytes::from(format!("{name} {uids:?}")), slot: None, meta };
        Txn { ops: vec![Op::Put(pod("a", name), object)], ..Txn::default() }
    };
    let names =
        |log: &Log, uid: &str| log.0.dependents(uid).iter().map(|s| s.key.name().to_owned()).collect::<Vec<_>>();
    log.entry(&[owned("y", &["u1", "u2"]), owned("x", &["u1"])]);
    assert_eq!((names(&log, "u1"), names(&log, "u2")), (vec!["x".into(), "y".into()], vec!["y".into()]));
    log.entry(&[owned("y", &["u2"]), Txn { ops: vec![Op::Delete(pod("a", "x"))], ..Txn::default() }]);
    assert_eq!((names(&log, "u1"), names(&log, "u2")), (vec![], vec!["y".into()]));
    let pin = log.0.pin();
    let mut import = Import::new(Limits::default(), &pin.header()).unwrap();
    pin.page(None, 100, 1 << 20).into_iter().for_each(|s| import.add(s).unwrap());
    assert_eq!(import.finish().dependents("u2").len(), 1);
}

#[test]
fn a_pinned_view_outlives_deletion_and_compaction() {
    let mut log = Log::new(Limits::default());
    log.entry(&[put(&pod("a", "x"), "1"), put(&pod("a", "y"), "1"), put(&Key::new("~system", "", "s"), "1")]);
    let pin = log.0.pin();
    let head = log.0.revision();
    log.entry(&[
        Txn { ops: vec![Op::Delete(pod("a", "x")), Op::Compact(99)], ..Txn::default() },
        put(&pod("a", "y"), "2"),
    ]);
    let all = pin.page(None, 10, 1 << 20);
    assert_eq!(all.iter().map(|s| (s.key.name(), s.mod_revision)).collect::<Vec<_>>(), [("x", 1), ("y", 2), ("s", 3)]);
    assert_eq!(pin.header().revision, head);
}

#[test]
fn installing_a_snapshot_ends_every_watch_and_new_ones_go_on_from_it() {
    let mut far = Log::new(Limits::default());
    for n in 0..50 {
        far.entry(&[put(&pod("a", "x"), &n.to_string()), put(&Key::new("nodes", "", "n"), &n.to_string())]);
    }
    let pin = far.0.pin();
    let mut near = Log::new(Limits::default());
    near.entry(&[put(&pod("a", "x"), "old"), put(&Key::new("leases", "", "l"), "old")]);
    let mut watches = ["pods", "leases", "nodes"].map(|r| near.0.watch(Prefix::resource(r), 2).unwrap());
    let wakes = watches.each_mut().map(|w| poll(w).1);
    let mut import = Import::new(Limits::default(), &pin.header()).unwrap();
    pin.page(None, 100, 1 << 20).into_iter().for_each(|s| import.add(s).unwrap());
    near.0.install(import);
    assert!(wakes.iter().all(|c| c.0.load(Ordering::SeqCst) == 1));
    for w in &mut watches {
        assert_eq!(w.try_next(9), Err(WatchError::Compacted { floor: 100 }));
    }
    assert_eq!(near.0.header(), far.0.header());
    assert_eq!(near.0.get(&Key::new("leases", "", "l")), None);
    let mut w = near.0.watch(Prefix::resource("pods"), 100).unwrap();
    drop(watches);
    (near.1, far.1) = (50, 50);
    near.entry(&[put(&pod("a", "x"), "new")]);
    far.entry(&[put(&pod("a", "x"), "new")]);
    assert_eq!(w.try_next(9).unwrap()[0].prev.as_ref().unwrap().bytes, "49");
    assert_eq!(near.0.chain(), far.0.chain());
}

#[test]
fn the_chain_hash_of_known_entries_is_known() {
    let mut log = Log::new(Limits::default());
    log.entry(&[put(&pod("a", "x"), "1"), put(&pod("a", "x"), "1")]);
    log.entry(&[]);
    log.entry(&[Txn { ops: vec![Op::Delete(pod("a", "x")), Op::Compact(1)], ..Txn::default() }]);
    log.entry(&[Txn {
        ops: vec![Op::Facade(FacadeTxn::put(facade_key(b"k\0"), Bytes::from_static(b"v")))],
        ..Txn::default()
    }]);
    let hex: String = log.0.chain().iter().map(|b| format!("{b:02x}")).collect();
    // Changes of this value are changes of the replicated format: gate them by feature level.
    assert_eq!(hex, "eb9710fb50c31e6ecfabac27e6c9fb0a34e30f500b3283ada3c4b21e30ba8ee0");
}

#[test]
fn a_header_that_was_cut_or_is_of_another_format_is_refused() {
    let mut log = Log::new(Limits::default());
    log.entry(&[put(&pod("a", "x"), "1")]);
    let header = log.0.header();
    for cut in 0..header.dedup.len() {
        assert!(
            Import::new(Limits::default(), &Header { dedup: header.dedup.slice(..cut), ..header.clone() }).is_err()
        );
    }
    let other = Header { dedup: Bytes::from_static(&[9]), ..header.clone() };
    assert_eq!(Import::new(Limits::default(), &other).unwrap_err(), ImportError::Format { found: 9 });
    let mut import = Import::new(Limits::default(), &header).unwrap();
    let (key, object) = (pod("a", "x"), Object::plain("1"));
    assert!(import.add(Stored { key, object, create_revision: 2, mod_revision: 2 }).is_err());
}

#[test]
fn facade_transactions_take_one_revision_of_their_own_and_their_events_stay_together() {
    let mut log = Log::new(Limits::default());
    let k = |n: u8| facade_key(&[b'k', n]);
    let puts = |n: u8| (0..n).map(|i| FacadeOp::Put(k(i), Some(Bytes::from(vec![n])))).collect::<Vec<_>>();
    let txn = |success| Txn { ops: vec![Op::Facade(FacadeTxn { success, ..FacadeTxn::default() })], ..Txn::default() };
    let done = |revision, wrote| TxnOutcome::Facade(FacadeOutcome::Done { revision, wrote, succeeded: true });
    let mut w = log.0.watch(Prefix::resource(FACADE_RESOURCE), 1).unwrap();
    assert_eq!(
        log.entry(&[txn(puts(3)), put(&pod("a", "x"), "1"), txn(vec![])]),
        [done(2, true), TxnOutcome::Committed { revisions: vec![1] }, done(2, false)]
    );
    assert_eq!(log.entry(&[txn(puts(3))]), [done(3, true)]);
    assert_eq!(w.try_next(1).unwrap().iter().map(|e| e.revision).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(w.progress(), 2);
    assert_eq!(w.try_next(4).unwrap().len(), 3);
    let stored = log.0.get(&k(1)).unwrap();
    assert_eq!((stored.create_revision, stored.mod_revision, stored.object.meta.generation), (2, 3, 2));
    let range = FacadeRange { start: k(1), end: FacadeEnd::Unbounded };
    assert_eq!(
        log.entry(&[txn(vec![FacadeOp::Delete(range.clone())]), txn(vec![FacadeOp::Delete(range)])]),
        [done(4, true), done(4, false)]
    );
    assert_eq!(log.0.list(&ListRequest::all(Prefix::resource(FACADE_RESOURCE))).unwrap().items.len(), 1);
    assert_eq!((log.0.revision(), log.0.facade_revision()), (1, 4));
    let missing = txn(vec![FacadeOp::Put(k(0), None), FacadeOp::Put(k(9), None)]);
    assert_eq!(log.entry(&[missing]), [TxnOutcome::Facade(FacadeOutcome::KeyNotFound)]);
    let compact = |r| Txn { ops: vec![Op::CompactFacade(r)], ..Txn::default() };
    assert_eq!(
        log.entry(&[compact(5), compact(3), compact(3)]),
        [TxnOutcome::Facade(FacadeOutcome::Future), done(4, false), TxnOutcome::Facade(FacadeOutcome::Compacted)]
    );
    assert_eq!(log.0.get_at(&k(1), 2), Err(ReadError::Compacted { floor: 3 }));
    assert!(log.0.get_at(&k(1), 3).unwrap().is_some());
}

#[test]
fn a_checkpoint_follows_a_load_of_facade_writes() {
    let mut log = Log::new(Limits::default());
    log.entry(&[put(&pod("a", "x"), "1")]);
    let value = Bytes::from(vec![b'v'; 256]);
    let mut exported = 0;
    for n in 0..20_000u32 {
        let key = facade_key(format!("key-{}", n % 100).as_bytes());
        log.entry(&[Txn { ops: vec![Op::Facade(FacadeTxn::put(key, value.clone()))], ..Txn::default() }]);
        if n % 500 == 0 {
            for op in log.0.window().compactions(2000, 100 << 20, (0, 0)) {
                log.entry(&[Txn { ops: vec![op], ..Txn::default() }]);
            }
            while let Some(export) = log.0.export(log.0.compacted(), 1000).unwrap() {
                exported += export.changes.len();
                log.0.exported(&export);
            }
        }
    }
    let facade = log.0.window().facade;
    assert!(facade.events < 4000 && exported > 1000, "{facade:?}, {exported} exported");
    let pin = log.0.pin_exported().unwrap();
    let mut import = Import::new(Limits::default(), &pin.header()).unwrap();
    pin.page(None, 1000, 1 << 20).into_iter().for_each(|s| import.add(s).unwrap());
    let restored = import.finish();
    let watch = |db: &Arc<Mvcc>, after| db.watch(Prefix::resource(FACADE_RESOURCE), after).map(drop);
    assert_eq!(watch(&restored, facade.floor), Ok(()));
    assert!(restored.facade_revision() < facade.floor);
    // As in etcd, the events of the floor itself can still be watched, on both.
    for db in [&log.0, &restored] {
        assert_eq!(watch(db, facade.floor - 1), Ok(()));
    }
    assert_eq!(watch(&log.0, facade.floor - 2), Err(ReadError::Compacted { floor: facade.floor - 1 }));
}

fn leased(key: &[u8], lease: i64) -> Txn {
    let put = FacadePut { key: facade_key(key), value: Some(Bytes::from_static(b"v")), lease: Some(lease) };
    Txn {
        ops: vec![Op::Facade(FacadeTxn { success: vec![FacadeOp::PutLeased(put.into())], ..FacadeTxn::default() })],
        ..Txn::default()
    }
}

fn grant(id: i64) -> Txn {
    Txn { ops: vec![Op::Put(lease_key(id), lease_object(60))], ..Txn::default() }
}

#[test]
fn revoking_a_lease_deletes_its_own_keys_and_nothing_that_only_names_it_as_its_owner() {
    let mut log = Log::new(Limits::default());
    log.entry(&[grant(7), grant(8), leased(b"a", 7), leased(b"b", 7), leased(b"c", 8), leased(b"b", 0)]);
    // An API object says what it likes.
    let owner = log.0.get(&facade_key(b"a")).unwrap().object.meta.owners.clone();
    let meta = Arc::new(Meta { owners: owner, ..Meta::default() });
    let object = Object { bytes: Bytes::from_static(b"1"), slot: None, meta };
    log.entry(&[Txn { ops: vec![Op::Put(pod("a", "x"), object)], ..Txn::default() }]);
    assert_eq!(log.0.lease_keys(7), [facade_key(b"a")]);
    let revoke = Txn {
        ops: vec![Op::Facade(FacadeTxn { success: vec![FacadeOp::Revoke(7)], ..FacadeTxn::default() })],
        ..Txn::default()
    };
    let before = (log.0.revision(), log.0.facade_revision());
    let outcomes = log.entry(&[revoke.clone(), revoke]);
    let done = FacadeOutcome::Done { revision: before.1 + 1, wrote: true, succeeded: true };
    assert_eq!(outcomes, [TxnOutcome::Facade(done), TxnOutcome::Facade(FacadeOutcome::LeaseNotFound)]);
    assert!(log.0.get(&pod("a", "x")).is_some() && log.0.get(&facade_key(b"b")).is_some());
    assert!(log.0.get(&facade_key(b"a")).is_none() && log.0.lease(7).is_none());
    // The lease is an object of the main counter, its keys are of the facade's.
    assert_eq!((log.0.revision(), log.0.facade_revision()), (before.0 + 1, before.1 + 1));
    assert_eq!(log.0.leases().0.iter().map(|l| l.id).collect::<Vec<_>>(), [8]);
}

#[test]
fn the_chain_tells_keys_of_different_leases_apart() {
    let chain = |lease| {
        let mut log = Log::new(Limits::default());
        log.entry(&[grant(7), grant(8), leased(b"a", lease)]);
        log.0.chain()
    };
    assert!(chain(7) == chain(7) && chain(7) != chain(8) && chain(7) != chain(0));
}

#[test]
fn what_one_replica_has_dropped_of_its_history_decides_no_transaction() {
    let outcomes = |window_events| {
        let mut log = Log::new(Limits { window_events, ..Limits::default() });
        for _ in 0..10 {
            log.entry(&[leased(b"a", 0)]);
        }
        let at = |revision| Txn {
            ops: vec![Op::Facade(FacadeTxn { success: vec![FacadeOp::At(revision)], ..FacadeTxn::default() })],
            ..Txn::default()
        };
        let readable = log.0.get_at(&facade_key(b"a"), 3).is_ok();
        (readable, log.entry(&[at(3), at(0), at(11), at(12), at(-1)]))
    };
    let ((all, kept), (some, dropped)) = (outcomes(1000), outcomes(3));
    assert!(all && !some && kept == dropped);
    let done = TxnOutcome::Facade(FacadeOutcome::Done { revision: 11, wrote: false, succeeded: true });
    let refused = [FacadeOutcome::Future, FacadeOutcome::Compacted].map(TxnOutcome::Facade);
    assert_eq!(kept, [&[done.clone(), done.clone(), done][..], &refused].concat());
}
