//! The handle on a thread over real files, and as a task over a simulated disk.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use triarch_env::{Env, RealDisk, Scope, SimDisk, TokioRuntime};
use triarch_wal::{Config, Entry, LogId, Wal, WalError, WalHandle};

fn entry(index: u64) -> Entry {
    Entry { id: LogId { index, term: 1, node: 1 }, payload: format!("payload {index}").into_bytes().into() }
}

/// Appends 0..n one by one without waiting; the order of completions.
async fn append_all(wal: &WalHandle, n: u64) -> Vec<u64> {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (tx, rx) = futures::channel::oneshot::channel();
    let mut tx = Some(tx);
    for i in 0..n {
        let (order, tx) = (order.clone(), if i + 1 == n { tx.take() } else { None });
        let done = Box::new(move |r: std::io::Result<()>| {
            r.unwrap();
            order.lock().unwrap().push(i);
            if let Some(tx) = tx {
                tx.send(()).unwrap();
            }
        });
        wal.append(vec![entry(i)], done).await.unwrap();
        assert_eq!(wal.read(i..i + 1).unwrap(), [entry(i)], "readable before it is durable");
    }
    rx.await.unwrap();
    let order = order.lock().unwrap();
    order.clone()
}

#[tokio::test]
async fn the_thread_commits_in_groups_and_completes_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 64 << 10, tail_bytes: 4096, ..Config::default() };
    let env = Env::new(TokioRuntime::current());
    let observed = Arc::new(Mutex::new(0u64));
    let seen = observed.clone();
    let (wal, _) = Wal::open(Arc::new(RealDisk), dir.path(), &config).unwrap();
    let observe: triarch_wal::ObserveFsync = Arc::new(move |_| *seen.lock().unwrap() += 1);
    let wal = WalHandle::start_thread(wal, &config, env.clone(), Some(observe)).unwrap();
    assert_eq!(append_all(&wal, 3000).await, (0..3000).collect::<Vec<_>>());
    wal.save_vote("vote".into()).await.unwrap();
    wal.save_committed(Some(entry(2000).id)).unwrap();
    wal.truncate_after(Some(2500)).await.unwrap();
    wal.purge(entry(999).id).await.unwrap();
    let m = wal.metrics();
    println!(
        "3000 appends: {} groups, {} fsyncs, {} writes",
        m.groups.load(Relaxed),
        m.fsyncs.load(Relaxed),
        m.writes.load(Relaxed)
    );
    assert!(m.groups.load(Relaxed) < 3000 && *observed.lock().unwrap() <= m.fsyncs.load(Relaxed));
    assert!(wal.state().tail_bytes <= 4096);
    let check = |wal: &WalHandle| {
        assert_eq!(wal.read(1000..9999).unwrap(), (1000..=2500).map(entry).collect::<Vec<_>>());
        assert_eq!(wal.read_limited(1500..2000, 30).unwrap().len(), 1, "a disk read is bounded too");
        assert!(matches!(wal.read(999..1001), Err(WalError::Purged { first: 1000, .. })));
        let s = wal.state();
        assert_eq!((s.vote, s.committed, s.last), (Some("vote".into()), Some(entry(2000).id), Some(entry(2500).id)));
    };
    check(&wal);
    wal.shutdown().await;
    assert!(matches!(wal.failed().await, WalError::Closed));
    let (again, repair) = Wal::open(Arc::new(RealDisk), dir.path(), &config).unwrap();
    assert_eq!(repair, None);
    check(&WalHandle::start_thread(again, &config, env, None).unwrap());
}

async fn start_sim(disk: &SimDisk, scope: &Scope, latency: Duration) -> WalHandle {
    let config = Config { segment_bytes: 4096, ..Config::default() };
    let (wal, _) = Wal::open(Arc::new(disk.restart()), Path::new("/wal"), &config).unwrap();
    WalHandle::start_task(wal, &config, Env::new(TokioRuntime::current()), scope, latency, None)
}

#[tokio::test]
async fn the_task_does_what_the_thread_does() {
    let (disk, scope) = (SimDisk::new(1), Scope::new());
    let wal = start_sim(&disk, &scope, Duration::ZERO).await;
    assert_eq!(append_all(&wal, 100).await.len(), 100);
    wal.save_identity("who".into()).await.unwrap();
    wal.shutdown().await;
    disk.crash();
    let wal = start_sim(&disk, &scope, Duration::ZERO).await;
    assert_eq!(wal.read(0..100).unwrap(), (0..100).map(entry).collect::<Vec<_>>());
    assert_eq!(wal.state().identity, Some("who".into()));
}

#[tokio::test]
async fn a_task_killed_between_write_and_sync_acknowledges_nothing() {
    let (disk, scope) = (SimDisk::new(1), Scope::new());
    let wal = start_sim(&disk, &scope, Duration::from_secs(3600)).await;
    let (tx, rx) = futures::channel::oneshot::channel();
    wal.append(vec![entry(0)], Box::new(move |r| drop(tx.send(r)))).await.unwrap();
    tokio::task::yield_now().await;
    scope.cancel();
    assert!(rx.await.is_err(), "the callback was dropped uncalled");
    assert!(matches!(wal.append(vec![entry(1)], Box::new(drop)).await, Err(WalError::Closed)));
}

#[tokio::test]
async fn a_failed_sync_fails_its_group_everything_queued_and_everything_later() {
    let (disk, scope) = (SimDisk::new(1), Scope::new());
    let wal = start_sim(&disk, &scope, Duration::ZERO).await;
    append_all(&wal, 3).await;
    disk.fail_syncs(1);
    let results = Arc::new(Mutex::new(Vec::new()));
    for i in 3..6 {
        let results = results.clone();
        wal.append(vec![entry(i)], Box::new(move |r| results.lock().unwrap().push(r.is_ok()))).await.unwrap();
    }
    let error = wal.failed().await;
    assert!(error.to_string().contains("no longer certain") && !error.is_full(), "{error}");
    tokio::task::yield_now().await;
    assert_eq!(*results.lock().unwrap(), [false; 3]);
    assert!(wal.append(vec![entry(6)], Box::new(drop)).await.is_err());
    assert!(wal.save_vote("v".into()).await.is_err());
    assert!(wal.save_committed(None).is_err());
    disk.crash();
    let wal = start_sim(&disk, &scope, Duration::ZERO).await;
    assert_eq!(wal.read(0..3).unwrap().len(), 3, "what was acknowledged is there");
}

#[tokio::test]
async fn a_refused_command_changes_nothing_and_does_not_fail_the_log() {
    let (disk, scope) = (SimDisk::new(1), Scope::new());
    let wal = start_sim(&disk, &scope, Duration::ZERO).await;
    append_all(&wal, 3).await;
    let before = wal.state();
    let hole = wal.append(vec![entry(4)], Box::new(drop)).await;
    assert!(matches!(hole, Err(WalError::NotNext { expected: 3, got: 4 })));
    assert!(matches!(wal.append(vec![entry(3), entry(5)], Box::new(drop)).await, Err(WalError::NotNext { .. })));
    assert!(matches!(wal.save_vote(vec![0; 65 << 10].into()).await, Err(WalError::TooLarge { .. })));
    assert_eq!(wal.state(), before);
    wal.save_vote("fine".into()).await.unwrap();
}
