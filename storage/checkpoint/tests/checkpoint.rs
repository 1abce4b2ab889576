//! The checkpoint against crashes and failures of its disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use triarch_checkpoint::{AppliedLog, Change, CheckpointError, CheckpointStore, Header, Opened, StoredObject};
use triarch_env::{Disk, RealDisk, SimDisk};
use triarch_mvcc::{Key, Object};

const DIR: &str = "/checkpoint";

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

fn open(disk: &SimDisk) -> (CheckpointStore, Opened) {
    CheckpointStore::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap()
}

fn files(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new(DIR)).unwrap()
}

/// Some objects of many sizes, changed again and again.
fn some(revision: u64) -> Vec<(u32, Option<usize>)> {
    let sizes = [0, 10, 16 << 10, 70_000, 300_000];
    let size = |n: u32| sizes[(u64::from(n) + revision) as usize % 5];
    (0..10u32).map(|n| (n * 7 % 13, (!(u64::from(n) + revision).is_multiple_of(4)).then(|| size(n)))).collect()
}

#[test]
fn what_was_advanced_to_is_what_is_opened() {
    let real = tempfile::tempdir().unwrap();
    let disks: [(Arc<dyn Disk>, &Path); 2] =
        [(Arc::new(SimDisk::new(1)), Path::new(DIR)), (Arc::new(RealDisk), &real.path().join("checkpoint"))];
    for (disk, dir) in disks {
        let (store, opened) = CheckpointStore::open(disk.clone(), dir).unwrap();
        assert_eq!(opened, Opened::Empty);
        assert!(read(&store, 100).unwrap().is_empty());
        let mut content = Content::new();
        for revision in 1..=20 {
            store.advance(changes(&mut content, &some(revision), revision), header(revision)).unwrap();
        }
        assert_eq!(read(&store, 1).unwrap(), content);
        drop(store);
        let (store, opened) = CheckpointStore::open(disk.clone(), dir).unwrap();
        assert_eq!(opened, Opened::Found(header(20)));
        assert_eq!(read(&store, 50_000).unwrap(), content);
        let ops = [(3, None), (4, Some(5)), (4, Some(6))];
        store.advance(changes(&mut content, &ops, 21), header(21)).unwrap();
        drop(store);
        let (store, opened) = CheckpointStore::open(disk, dir).unwrap();
        assert_eq!(opened, Opened::Found(header(21)));
        assert_eq!(read(&store, 50_000).unwrap(), content);
    }
}

#[test]
fn many_advances_are_merged_and_the_content_stays() {
    let disk = SimDisk::new(2);
    let (store, _) = open(&disk);
    let mut content = Content::new();
    let mut most = 0;
    for revision in 1..=300u64 {
        let name = |n: u64| (revision * 13 + n * 7) as u32 % 200;
        let ops: Vec<_> = (0..6).map(|n| (name(n), (n != 3).then_some(500 * n as usize))).collect();
        store.advance(changes(&mut content, &ops, revision), header(revision)).unwrap();
        store.tidy().unwrap();
        most = most.max(files(&disk).len());
        if revision.is_multiple_of(50) {
            assert_eq!(read(&store, 10_000).unwrap(), content, "revision {revision}");
            assert_eq!(open(&disk).1, Opened::Found(header(revision)));
        }
    }
    assert!((2..30).contains(&most), "{most} files");
    let whole: u64 = disk.used();
    assert_eq!(store.size_on_disk(), whole, "nothing else is left on the disk");
}

/// What is removed must not come back when everything is one run again.
#[test]
fn when_changes_outweigh_the_rest_everything_becomes_one_run_without_what_was_removed() {
    let disk = SimDisk::new(3);
    let (store, _) = open(&disk);
    let mut content = Content::new();
    for revision in 1..=60 {
        let ops = [(revision as u32, Some(300_000)), (revision as u32 % 5 + 100, (revision % 2 == 0).then_some(10))];
        store.advance(changes(&mut content, &ops, revision), header(revision)).unwrap();
        store.tidy().unwrap();
    }
    assert_eq!(read(&store, 10_000).unwrap(), content);
    assert!(files(&disk).iter().any(|f| f.starts_with("0000000000000000-") && !f.ends_with("-0000000000000000.run")));
    assert!(disk.used() < 36 << 20, "{}", disk.used());
    drop(store);
    assert_eq!(read(&open(&disk).0, 10_000).unwrap(), content);
}

#[test]
fn objects_in_another_order_than_their_keys_are_refused() {
    let disk = SimDisk::new(4);
    let (store, _) = open(&disk);
    let mut new = store.replace().unwrap();
    new.push(&[object(2, 1, 1)]).unwrap();
    for again in [object(2, 1, 1), object(0, 1, 1)] {
        let error = new.push(&[again]).unwrap_err().to_string();
        assert!(error.contains("in another order than their keys'"), "{error}");
    }
}

#[test]
fn an_unfinished_replacement_leaves_the_old_content_and_a_finished_one_replaces_all() {
    let disk = SimDisk::new(5);
    let (store, _) = open(&disk);
    let mut content = Content::new();
    store.advance(changes(&mut content, &[(1, Some(10)), (2, Some(20_000))], 1), header(1)).unwrap();
    let mut half = store.replace().unwrap();
    half.push(&[object(9, 5, 100)]).unwrap();
    drop(half);
    assert_eq!(read(&store, 100).unwrap(), content);
    assert_eq!(files(&disk).len(), 1);
    // A crash in the middle.
    let mut half = store.replace().unwrap();
    half.push(&(0..40).map(|n| object(n * 2, 5, 20_000)).collect::<Vec<_>>()).unwrap_err();
    let mut sorted: Vec<_> = (20..500).map(|n| object(n, 9, 20_000)).collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut half = store.replace().unwrap();
    half.push(&sorted).unwrap();
    disk.crash();
    drop((half, store));
    let disk = disk.restart();
    let (store, opened) = open(&disk);
    assert_eq!(opened, Opened::Found(header(1)));
    assert_eq!(files(&disk).len(), 1, "remains are removed");
    store.replace_with(sorted.chunks(7).map(<[_]>::to_vec), header(9)).unwrap();
    let want: Content = sorted.into_iter().map(|o| (o.key.clone(), o)).collect();
    assert_eq!(read(&store, 100_000).unwrap(), want);
    assert_eq!(store.header(), Some(header(9)));
    assert_eq!(files(&disk).len(), 1, "the old content is gone");
    store.advance(Vec::new(), header(10)).unwrap();
    assert_eq!(open(&disk).1, Opened::Found(header(10)));
}

#[test]
fn a_lost_checkpoint_stays_until_there_is_a_good_one() {
    let disk = SimDisk::new(6);
    let (store, _) = open(&disk);
    for revision in 1..=3 {
        store.advance(changes(&mut Content::new(), &some(revision), revision), header(revision)).unwrap();
    }
    drop(store);
    let names = files(&disk);
    disk.flip(&Path::new(DIR).join(&names[1]), 3, 1);
    let (store, opened) = open(&disk);
    let Opened::Lost(why) = opened else { panic!("{opened:?}") };
    assert!(why.contains(&names[1]) && why.contains("byte 0"), "{why}");
    assert!(matches!(store.advance(Vec::new(), header(4)), Err(CheckpointError::Lost(_))));
    assert!(matches!(store.pages(), Err(CheckpointError::Lost(_))));
    assert_eq!(files(&disk), names, "nothing is removed");
    store.replace_with([vec![object(1, 1, 1)]], header(5)).unwrap();
    assert_eq!(files(&disk).len(), 1);
    let (store, opened) = open(&disk);
    assert_eq!(opened, Opened::Found(header(5)));
    assert_eq!(read(&store, 100).unwrap().len(), 1);
}

#[test]
fn a_checkpoint_of_the_first_format_is_refused_by_its_name_and_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("CURRENT"), "1\n").unwrap();
    let error = CheckpointStore::open(Arc::new(RealDisk), dir.path()).err().unwrap().to_string();
    assert!(error.contains("CURRENT is of format 1") && error.contains("fetches one from another"), "{error}");
}

#[test]
fn after_a_failed_sync_the_checkpoint_wants_to_be_opened_again_or_replaced() {
    for crashes in [true, false] {
        let disk = SimDisk::new(7);
        let (store, _) = open(&disk);
        store.advance(Vec::new(), header(1)).unwrap();
        disk.fail_syncs(1);
        assert!(matches!(store.advance(Vec::new(), header(2)), Err(CheckpointError::Io { .. })));
        assert!(matches!(store.advance(Vec::new(), header(3)), Err(CheckpointError::Lost(_))));
        if crashes {
            disk.crash();
            assert_eq!(open(&disk.restart()).1, Opened::Found(header(1)));
        } else {
            store.replace_with([vec![object(1, 1, 1)]], header(4)).unwrap();
            assert_eq!(files(&disk).len(), 1);
            assert_eq!(open(&disk).1, Opened::Found(header(4)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_leaves_the_last_advance_or_the_one_that_was_being_made(
        steps in prop::collection::vec(prop::collection::vec((0u32..12, prop::option::of(0usize..40_000)), 0..8), 1..14),
        seed in any::<u64>(), fuse in prop::option::of(0u64..40),
    ) {
        let disk = SimDisk::new(seed);
        let (store, _) = open(&disk);
        store.advance(Vec::new(), header(1)).unwrap();
        let mut states = vec![Content::new()];
        if let Some(fuse) = fuse {
            disk.crash_after(fuse);
        }
        let mut done = 0;
        for (i, ops) in steps.iter().enumerate() {
            let mut content = states[i].clone();
            let revision = i as u64 + 2;
            let changes = changes(&mut content, ops, revision);
            states.push(content);
            // Merging changes nothing, however far it comes.
            if store.advance(changes, header(revision)).is_err() {
                break;
            }
            done = i + 1;
            if store.tidy().is_err() {
                break;
            }
        }
        drop(store);
        if !disk.crashed() {
            disk.crash();
        }
        let (store, opened) = open(&disk.restart());
        let Opened::Found(found) = opened else { panic!("{opened:?}") };
        let at = found.revision as usize - 1;
        prop_assert!(at == done || at == done + 1, "{} of {}", at, done);
        prop_assert_eq!(found, header(at as u64 + 1));
        prop_assert_eq!(read(&store, 30_000).unwrap(), states[at].clone());
    }
}
