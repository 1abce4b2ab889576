//! The checkpoint over both stores, and against crashes and damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use triarch_checkpoint::{
    AppliedLog, Change, CheckpointError, CheckpointStore, Generations, Header, MemoryGenerations, Opened,
    SledGenerations, StoredObject,
};
use triarch_mvcc::{Key, Object};

type Content = BTreeMap<Key, StoredObject>;

fn object(name: u32, revision: u64, size: usize) -> StoredObject {
    let bytes: Bytes = (0..size).map(|i| (i as u64 ^ revision) as u8).collect::<Vec<u8>>().into();
    let key = Key::new("pods", if name.is_multiple_of(2) { "a" } else { "a-b" }, &format!("p{name}"));
    StoredObject { key, object: Object::plain(bytes), create_revision: 1, mod_revision: revision }
}

fn header(revision: u64) -> Header {
    let applied = Some(AppliedLog { index: revision * 2, term: 1, node: 1 });
    // A dedup window that grows and shrinks over several chunks.
    let dedup = vec![7; (revision as usize * 7919) % 50_000].into();
    Header { cluster_id: "c".into(), node_id: 1, revision, applied, dedup, ..Header::default() }
}

fn read(store: &CheckpointStore, page: usize) -> Result<Content, CheckpointError> {
    let (mut pages, mut out) = (store.pages()?, Content::new());
    let mut last = None;
    while let Some(page) = pages.next_page(page)? {
        for o in page {
            assert!(last.as_ref() < Some(&o.key), "in the order of keys");
            last = Some(o.key.clone());
            out.insert(o.key.clone(), o);
        }
    }
    Ok(out)
}

fn changes(content: &mut Content, ops: &[(u32, Option<usize>)], revision: u64) -> Vec<Change> {
    let change = |(name, size): &(u32, Option<usize>)| {
        let o = object(*name, revision, size.unwrap_or(0));
        match size {
            Some(_) => {
                content.insert(o.key.clone(), o.clone());
                Change { key: o.key, object: Some((o.object, o.create_revision, o.mod_revision)) }
            }
            None => {
                content.remove(&o.key);
                Change { key: o.key, object: None }
            }
        }
    };
    ops.iter().map(change).collect()
}

fn both() -> Vec<(Arc<dyn Generations>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let sled = SledGenerations::new(&dir.path().join("checkpoint")).unwrap();
    vec![(Arc::new(MemoryGenerations::new()), None), (Arc::new(sled), Some(dir))]
}

#[test]
fn what_was_advanced_to_is_what_is_opened() {
    for (generations, _dir) in both() {
        let (store, opened) = CheckpointStore::open(generations.clone()).unwrap();
        assert_eq!(opened, Opened::Empty);
        assert!(read(&store, 100).unwrap().is_empty());
        let mut content = Content::new();
        // Sizes around the chunk, and past what sled would put into a file.
        let sizes = [0, 10, 16 << 10, (16 << 10) + 1, 300_000];
        for revision in 1..=20u64 {
            let ops: Vec<_> = (0..10u32)
                .map(|n| {
                    (
                        n * 7 % 13,
                        (!(n as u64 + revision).is_multiple_of(4)).then(|| sizes[(n as usize + revision as usize) % 5]),
                    )
                })
                .collect();
            store.advance(changes(&mut content, &ops, revision), header(revision)).unwrap();
        }
        assert_eq!(read(&store, 1).unwrap(), content);
        assert_eq!(store.totals().0, content.len() as u64);
        drop(store);
        let (store, opened) = CheckpointStore::open(generations.clone()).unwrap();
        assert_eq!(opened, Opened::Found(header(20)));
        assert_eq!(read(&store, 50_000).unwrap(), content);

        store.rotate().unwrap();
        assert_eq!(read(&store, 50_000).unwrap(), content);
        assert_eq!(generations.list().unwrap().len(), 1, "the old generation is gone");
        let ops = [(3, None), (4, Some(5)), (4, Some(6))];
        store.advance(changes(&mut content, &ops, 21), header(21)).unwrap();
        drop(store);
        let (store, opened) = CheckpointStore::open(generations).unwrap();
        assert_eq!(opened, Opened::Found(header(21)));
        assert_eq!(read(&store, 50_000).unwrap(), content);
    }
}

/// sled's own threads may hold its lock a little longer than its handle lives.
#[test]
fn a_store_that_was_closed_opens_again_at_once_however_busy_the_machine_is() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..24 {
            threads.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let dir = tempfile::tempdir().unwrap();
        let generations = Arc::new(SledGenerations::new(&dir.path().join("checkpoint")).unwrap());
        let mut content = Content::new();
        let mut failed = None;
        for revision in 1..=100u64 {
            match CheckpointStore::open(generations.clone()) {
                Ok((store, _)) => {
                    let ops: Vec<_> = (0..20).map(|n| (n, Some(20_000))).collect();
                    store.advance(changes(&mut content, &ops, revision), header(revision)).unwrap();
                }
                Err(e) => {
                    failed = Some(format!("opening {revision}: {e}"));
                    break;
                }
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

#[test]
fn an_unfinished_replacement_leaves_the_old_content_and_a_finished_one_replaces_all() {
    for (generations, _dir) in both() {
        let (store, _) = CheckpointStore::open(generations.clone()).unwrap();
        let mut content = Content::new();
        store.advance(changes(&mut content, &[(1, Some(10)), (2, Some(20_000))], 1), header(1)).unwrap();
        let mut half = store.replace().unwrap();
        half.push(&[object(9, 5, 100)]).unwrap();
        drop(half);
        assert_eq!(read(&store, 100).unwrap(), content);
        // A crash in the middle: the generation is there, CURRENT is the old one.
        drop(generations.create(77).unwrap());
        drop(store);
        let (store, opened) = CheckpointStore::open(generations.clone()).unwrap();
        assert_eq!(opened, Opened::Found(header(1)));
        assert_eq!(generations.list().unwrap().len(), 1, "remains are removed");
        let page: Vec<_> = (20..500).map(|n| object(n, 9, 20_000)).collect();
        store.replace_with(page.chunks(7).map(<[_]>::to_vec), header(9)).unwrap();
        let want: Content = page.into_iter().map(|o| (o.key.clone(), o)).collect();
        assert_eq!(read(&store, 100_000).unwrap(), want);
        assert_eq!(store.header(), Some(header(9)));
    }
}

#[test]
fn a_pair_that_is_missing_makes_the_checkpoint_lost() {
    for n in 0..30 {
        let memory = MemoryGenerations::new();
        let (store, _) = CheckpointStore::open(Arc::new(memory.clone())).unwrap();
        let mut content = Content::new();
        let ops: Vec<_> = (0..10).map(|n| (n, Some(n as usize * 4000))).collect();
        store.advance(changes(&mut content, &ops, 3), header(3)).unwrap();
        drop(store);
        assert!(memory.lose_pair(n));
        match CheckpointStore::open(Arc::new(memory)).unwrap() {
            (_, Opened::Lost(_)) => {}
            (store, Opened::Found(_)) => {
                assert!(matches!(read(&store, 9000), Err(CheckpointError::Lost(_))), "pair {n}")
            }
            (_, Opened::Empty) => panic!("not empty"),
        }
    }
}

#[test]
fn a_store_that_does_not_open_is_lost_and_can_be_replaced() {
    for (damage, name) in [(true, "sled-1/db"), (false, "sled-1/db")] {
        let dir = tempfile::tempdir().unwrap();
        let sled = Arc::new(SledGenerations::new(dir.path()).unwrap());
        let (store, _) = CheckpointStore::open(sled.clone()).unwrap();
        let mut content = Content::new();
        let ops: Vec<_> = (0..50).map(|n| (n, Some(3000))).collect();
        store.advance(changes(&mut content, &ops, 3), header(3)).unwrap();
        drop(store);
        let path = dir.path().join(name);
        if damage {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().for_each(|b| *b ^= 0x55);
            std::fs::write(&path, bytes).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let (store, opened) = CheckpointStore::open(sled.clone()).unwrap();
        assert!(matches!(opened, Opened::Lost(_)), "{name}: {opened:?}");
        assert!(matches!(store.advance(Vec::new(), header(4)), Err(CheckpointError::Lost(_))));
        store.replace_with([vec![object(1, 1, 1)]], header(5)).unwrap();
        drop(store);
        let (store, opened) = CheckpointStore::open(sled).unwrap();
        assert_eq!(opened, Opened::Found(header(5)));
        assert_eq!(read(&store, 100).unwrap().len(), 1);
    }
}

#[test]
fn a_store_that_another_process_holds_is_refused_and_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let sled = Arc::new(SledGenerations::new(dir.path()).unwrap());
    let (store, _) = CheckpointStore::open(sled.clone()).unwrap();
    store.advance(Vec::new(), header(1)).unwrap();
    assert!(matches!(CheckpointStore::open(sled.clone()), Err(CheckpointError::Io { .. })));
    drop(store);
    assert_eq!(CheckpointStore::open(sled).unwrap().1, Opened::Found(header(1)));
}

#[test]
fn after_a_failed_sync_the_checkpoint_wants_to_be_opened_again() {
    let memory = MemoryGenerations::new();
    let (store, _) = CheckpointStore::open(Arc::new(memory.clone())).unwrap();
    store.advance(Vec::new(), header(1)).unwrap();
    memory.fail_syncs(1);
    assert!(matches!(store.advance(Vec::new(), header(2)), Err(CheckpointError::Io { .. })));
    assert!(matches!(store.advance(Vec::new(), header(3)), Err(CheckpointError::Lost(_))));
    memory.crash(0);
    let (_, opened) = CheckpointStore::open(Arc::new(memory)).unwrap();
    assert_eq!(opened, Opened::Found(header(1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_leaves_the_last_advance_or_the_one_that_was_being_made(
        steps in prop::collection::vec(prop::collection::vec((0u32..12, prop::option::of(0usize..40_000)), 0..8), 1..8),
        failing in any::<bool>(), keep in 0usize..2,
    ) {
        let memory = MemoryGenerations::new();
        let (store, _) = CheckpointStore::open(Arc::new(memory.clone())).unwrap();
        store.advance(Vec::new(), header(1)).unwrap();
        let (mut before, mut content) = (Content::new(), Content::new());
        let mut ok = true;
        for (i, ops) in steps.iter().enumerate() {
            before = content.clone();
            if failing && i + 1 == steps.len() {
                memory.fail_syncs(1);
            }
            ok = store.advance(changes(&mut content, ops, i as u64 + 2), header(i as u64 + 2)).is_ok();
        }
        drop(store);
        memory.crash(keep);
        let (store, opened) = CheckpointStore::open(Arc::new(memory)).unwrap();
        let revision = steps.len() as u64 + 1;
        let (want, at) = if ok || keep == 1 { (content, revision) } else { (before, revision - 1) };
        prop_assert_eq!(opened, Opened::Found(header(at)));
        prop_assert_eq!(read(&store, 30_000).unwrap(), want);
    }
}
