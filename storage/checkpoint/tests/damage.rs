//! Damage at rest: whatever happens to a checkpoint that nobody has open, it
//! is a state that was reached, whole; or it is lost, and says where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use triarch_checkpoint::{AppliedLog, Change, CheckpointError, CheckpointStore, Header, Opened, StoredObject};
use triarch_env::SimDisk;
use triarch_env::disk::damage::{Damage, Image, cuts, flips};
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

const DIR: &str = "/checkpoint";

/// What a checkpoint is good for after an opening.
#[derive(Debug, PartialEq)]
enum Found {
    Whole(Header, Content),
    /// With what is said of it.
    Lost(String),
    Nothing,
}

fn open(image: &Image) -> Found {
    let disk = Arc::new(SimDisk::holding(1, image));
    let (store, opened) = CheckpointStore::open(disk, Path::new(DIR)).expect("no damage is the disk's refusal");
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

/// A checkpoint of several runs, and each state that it was in.
fn made(cluster: &str) -> (Image, BTreeMap<u64, Content>) {
    let disk = SimDisk::new(1);
    let (store, _) = CheckpointStore::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    let (mut content, mut states) = (Content::new(), BTreeMap::new());
    let advances = [
        vec![object(1, 2, 90), object(2, 2, 700), object(3, 2, 0)],
        vec![object(3, 3, 200)],
        vec![object(2, 4, 40), object(4, 4, 300)],
    ];
    for (n, objects) in advances.into_iter().enumerate() {
        let revision = n as u64 + 2;
        advance(&store, &mut content, objects, header(cluster, revision));
        states.insert(revision, content.clone());
    }
    (disk.image(), states)
}

/// Whatever was done to `file`: lost, with a file's name; or a state that was.
fn judge(row: &str, damaged: &Image, states: &BTreeMap<u64, Content>) -> bool {
    match open(damaged) {
        Found::Lost(why) => {
            assert!(why.contains(".run") || why.contains("-…"), "{row}: {why}");
            false
        }
        Found::Whole(header, content) => {
            assert_eq!(header.cluster_id, "c", "{row}");
            assert_eq!(states.get(&header.revision), Some(&content), "{row}: a state that never was");
            true
        }
        Found::Nothing => panic!("{row}: there was one"),
    }
}

#[test]
fn every_flipped_byte_of_every_run_loses_the_checkpoint() {
    let (image, states) = made("c");
    assert!(judge("undamaged", &image, &states));
    let mut rows = 0;
    for (file, bytes) in &image {
        for damage in flips(bytes.len()) {
            let whole = judge(&format!("{file:?} {damage:?}"), &damage.done_to(file, &image), &states);
            assert!(!whole, "{file:?} {damage:?} went unnoticed");
            rows += 1;
        }
    }
    assert!(rows > 1500, "{rows}");
}

#[test]
fn a_run_that_is_cut_swapped_or_foreign_loses_the_checkpoint() {
    let (image, states) = made("c");
    let (other, _) = made("d");
    let mut rows = 0;
    for (file, bytes) in &image {
        let swaps = image.keys().filter(|f| *f != file).map(|f| Damage::SwappedWith(f.clone()));
        let foreign = Damage::ReplacedBy("another replica's", other[file].clone());
        let text = Damage::ReplacedBy("text", b"hello".to_vec());
        for damage in cuts(bytes.len()).chain(swaps).chain([foreign, text]) {
            let whole = judge(&format!("{file:?} {damage:?}"), &damage.done_to(file, &image), &states);
            assert!(!whole, "{file:?} {damage:?} went unnoticed");
            rows += 1;
        }
    }
    assert!(rows > 20, "{rows}");
}

/// The newest run may be missing without a trace: the state before it is one
/// that was reached, and whoever starts from it checks that the log goes on there.
#[test]
fn a_run_that_is_missing_loses_the_checkpoint_unless_it_was_the_newest() {
    let (image, states) = made("c");
    let files: Vec<PathBuf> = image.keys().cloned().collect();
    for (n, file) in files.iter().enumerate() {
        let whole = judge(&format!("{file:?} missing"), &Damage::Missing.done_to(file, &image), &states);
        assert_eq!(whole, n + 1 == files.len(), "{file:?}");
    }
}

#[test]
fn strange_files_cost_nothing_and_stay() {
    let (image, states) = made("c");
    let file = image.keys().next().unwrap().clone();
    let mut with = image.clone();
    for strange in ["README", "old.tar", "1-2.run", "lost+found"] {
        with.insert(Path::new(DIR).join(strange), b"hello".to_vec());
    }
    assert!(judge("strange files", &with, &states));
    // A run that went into another, or a half-written one, is no part of it.
    let half: PathBuf = format!("{}.tmp", file.display()).into();
    with.insert(half, image[&file][..40].to_vec());
    assert!(judge("a half-written run", &with, &states));
}
