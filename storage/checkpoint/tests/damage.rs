//! Damage at rest: whatever happens to a checkpoint that nobody has open, it
//! is a state that was reached, whole; or it is lost, and says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use triarch_checkpoint::{
    AppliedLog, Change, CheckpointError, CheckpointStore, Generations, Header, MemoryGenerations, Opened,
    SledGenerations, StoredObject,
};
use triarch_env::disk::damage::{Damage, Image, flips, read_tree, write_tree};
use triarch_mvcc::{Key, Object};

type Content = BTreeMap<Key, StoredObject>;

fn header(cluster: &str, revision: u64) -> Header {
    let applied = Some(AppliedLog { index: revision, term: 1, node: 1 });
    Header { cluster_id: cluster.into(), node_id: 1, revision, applied, ..Header::default() }
}

fn object(name: u64, revision: u64, size: usize) -> StoredObject {
    let bytes: Vec<u8> = (0..size).map(|i| (i as u64 * 31 + name * 7 + revision) as u8).collect();
    let key = Key::new("pods", "default", &format!("p{name}"));
    StoredObject { key, object: Object::plain(bytes), create_revision: 1, mod_revision: revision }
}

fn advance(store: &CheckpointStore, content: &mut Content, objects: Vec<StoredObject>, header: Header) {
    let change = |o: &StoredObject| Change {
        key: o.key.clone(),
        object: Some((o.object.clone(), o.create_revision, o.mod_revision)),
    };
    store.advance(objects.iter().map(change).collect(), header).unwrap();
    content.extend(objects.into_iter().map(|o| (o.key.clone(), o)));
}

/// What a checkpoint is good for after an opening.
#[derive(Debug, PartialEq)]
enum Found {
    Whole(Header, Content),
    /// With what is said of it.
    Lost(String),
    Nothing,
}

fn open(generations: Arc<dyn Generations>) -> Found {
    let (store, opened) = CheckpointStore::open(generations).expect("no damage is the disk's refusal");
    let header = match opened {
        Opened::Empty => return Found::Nothing,
        Opened::Lost(why) => return Found::Lost(why),
        Opened::Found(header) => header,
    };
    let mut content = Content::new();
    let mut read = || -> Result<(), CheckpointError> {
        let mut pages = store.pages()?;
        while let Some(page) = pages.next_page(10_000)? {
            content.extend(page.into_iter().map(|o| (o.key.clone(), o)));
        }
        Ok(())
    };
    match read() {
        Ok(()) => Found::Whole(header, content),
        Err(e) => Found::Lost(e.to_string()),
    }
}

/// The pairs of a store as files: the key's length, the key, the value.
fn image_of(memory: &MemoryGenerations) -> Image {
    let mut image = Image::new();
    memory.damage(|pairs| {
        for (n, (k, v)) in pairs.iter().enumerate() {
            image.insert(format!("{n:02}").into(), [&[k.len() as u8], &k[..], v].concat());
        }
    });
    image
}

fn put_image(memory: &MemoryGenerations, image: &Image) {
    memory.damage(|pairs| {
        *pairs = image
            .values()
            .map(|b| {
                let (key, value) = b[1..].split_at(b.len().saturating_sub(1).min(b[0] as usize));
                (key.to_vec(), value.to_vec())
            })
            .collect();
    });
}

fn in_memory(cluster: &str) -> (MemoryGenerations, Content) {
    let memory = MemoryGenerations::new();
    let (store, _) = CheckpointStore::open(Arc::new(memory.clone())).unwrap();
    let mut content = Content::new();
    // One record longer than a chunk; one that was shorter before.
    advance(&store, &mut content, vec![object(1, 2, 90), object(2, 3, 17_000), object(3, 4, 0)], header(cluster, 4));
    advance(&store, &mut content, vec![object(3, 5, 200)], header(cluster, 5));
    (memory, content)
}

#[test]
fn every_flipped_byte_of_every_key_and_value_loses_the_checkpoint() {
    let (memory, content) = in_memory("c");
    let image = image_of(&memory);
    let mut lost = 0;
    for (file, bytes) in &image {
        for damage in flips(bytes.len()).skip(1) {
            put_image(&memory, &damage.done_to(file, &image));
            match open(Arc::new(memory.clone())) {
                Found::Lost(why) => {
                    assert!(why.len() > 10, "{file:?} {damage:?}: {why}");
                    lost += 1;
                }
                other => panic!("{file:?} {damage:?}: {other:?}"),
            }
        }
    }
    put_image(&memory, &image);
    assert_eq!(open(Arc::new(memory)), Found::Whole(header("c", 5), content));
    assert!(lost > 17_000, "{lost}");
}

#[test]
fn pairs_that_are_missing_cut_swapped_or_foreign_lose_the_checkpoint() {
    let (memory, content) = in_memory("c");
    let (image, other) = (image_of(&memory), image_of(&in_memory("d").0));
    let older = {
        // The same replica's, one advance earlier.
        let memory = MemoryGenerations::new();
        let (store, _) = CheckpointStore::open(Arc::new(memory.clone())).unwrap();
        let objects = vec![object(1, 2, 90), object(2, 3, 17_000), object(3, 4, 0)];
        advance(&store, &mut Content::new(), objects, header("c", 4));
        image_of(&memory)
    };
    let whole = Found::Whole(header("c", 5), content);
    let mut rows = 0;
    for (file, bytes) in &image {
        let cuts = [1, bytes[0] as usize, bytes.len() / 2, bytes.len() - 1].map(Damage::Cut);
        let swaps = image.keys().filter(|f| *f != file).map(|f| Damage::SwappedWith(f.clone()));
        let foreign = [(&other, "another replica's"), (&older, "an older one")]
            .map(|(i, what)| i.get(file).map(|b| Damage::ReplacedBy(what, b.clone())));
        let all = [Damage::Missing].into_iter().chain(cuts).chain(swaps).chain(foreign.into_iter().flatten());
        for damage in all {
            let damaged = damage.done_to(file, &image);
            put_image(&memory, &damaged);
            rows += 1;
            match open(Arc::new(memory.clone())) {
                Found::Lost(_) => {}
                // Keys and values swapped together, or the same bytes in their place.
                found if found == whole => assert!(
                    matches!(damage, Damage::SwappedWith(_)) || damaged == image,
                    "{file:?} {damage:?} went unnoticed"
                ),
                // Another cluster's header over the same objects: its reader refuses it by its name.
                Found::Whole(h, _) if h.cluster_id == "d" => {}
                other => panic!("{file:?} {damage:?}: {other:?}"),
            }
        }
    }
    assert!(rows > 40, "{rows}");
}

#[test]
fn a_lost_note_of_which_generation_is_current_costs_nothing() {
    for current in [None, Some(77)] {
        let (memory, content) = in_memory("c");
        memory.set_current(current);
        let generations: Arc<dyn Generations> = Arc::new(memory.clone());
        assert_eq!(open(generations.clone()), Found::Whole(header("c", 5), content.clone()), "{current:?}");
        assert_eq!(generations.current().unwrap(), Some(1), "it is noted again");
        assert_eq!(open(generations), Found::Whole(header("c", 5), content));
    }
}

#[test]
fn a_lost_checkpoint_is_not_removed_before_there_is_a_good_one() {
    let (memory, _) = in_memory("c");
    assert!(memory.lose_pair(0));
    let generations: Arc<dyn Generations> = Arc::new(memory);
    let (store, opened) = CheckpointStore::open(generations.clone()).unwrap();
    assert!(matches!(opened, Opened::Lost(_)), "{opened:?}");
    assert_eq!(generations.list().unwrap(), [1]);
    store.replace_with([vec![object(9, 9, 9)]], header("c", 9)).unwrap();
    drop(store);
    assert!(matches!(open(generations.clone()), Found::Whole(..)));
    assert_eq!(generations.list().unwrap().len(), 1);
}

/// A directory with a sled that was advanced a few times, each state that it was in.
fn on_disk(dir: &Path) -> BTreeMap<u64, Content> {
    let sled = Arc::new(SledGenerations::new(dir).unwrap());
    let (store, _) = CheckpointStore::open(sled).unwrap();
    let (mut content, mut states) = (Content::new(), BTreeMap::new());
    for revision in 1..=6u64 {
        let objects = (0..8).map(|n| object(n * revision % 11, revision, 40 + 300 * n as usize)).collect();
        advance(&store, &mut content, objects, header("c", revision));
        states.insert(revision, content.clone());
    }
    store.advance(Vec::new(), header("c", 7)).unwrap();
    states.insert(7, content);
    states
}

#[test]
fn a_damaged_sled_is_a_state_that_was_reached_or_lost() {
    let at = tempfile::tempdir().unwrap();
    let states = on_disk(&at.path().join("checkpoint"));
    let image = read_tree(at.path()).unwrap();
    let seed = 11;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut whole, mut older, mut lost) = (0, 0, 0);
    for (file, bytes) in &image {
        let mut rows = vec![Damage::Missing, Damage::Cut(0), Damage::ReplacedBy("text", b"hello".to_vec())];
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
        if used > 100 {
            for _ in 0..50 {
                rows.push(Damage::Flip { offset: rng.random_range(0..used), mask: 1 << rng.random_range(0..8) });
            }
            rows.extend((0..10).map(|_| Damage::Cut(rng.random_range(1..used))));
            rows.extend((0..10).map(|_| Damage::LostSector { offset: rng.random_range(0..used) / 512 * 512 }));
        } else {
            rows.extend(flips(bytes.len()));
        }
        for damage in rows {
            let dir = tempfile::tempdir().unwrap();
            write_tree(dir.path(), &damage.done_to(file, &image)).unwrap();
            let found = open(Arc::new(SledGenerations::new(&dir.path().join("checkpoint")).unwrap()));
            match found {
                Found::Whole(h, content) => {
                    let want = states.get(&h.revision);
                    assert!(want == Some(&content), "seed {seed}: {file:?} {damage:?}: a state that never was");
                    if h.revision == 7 { whole += 1 } else { older += 1 }
                }
                Found::Lost(_) => lost += 1,
                Found::Nothing => panic!("seed {seed}: {file:?} {damage:?}: there was one"),
            }
        }
    }
    println!("whole={whole} older={older} lost={lost}");
    assert!(whole > 10 && lost > 20, "whole={whole} older={older} lost={lost}");
}
