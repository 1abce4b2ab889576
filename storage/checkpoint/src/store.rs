//! The checkpoint's own rules: atomic advances, one header, totals that must
//! add up, generations that are switched whole.
//!
//! Calls block on the disk; a replica makes them from a thread that may.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use triarch_mutants::mutant;
use triarch_mvcc::{Key, Object, Revision};

use crate::codec::{self, CHUNK, Header, ROOT_PREFIX, Root, Totals};
use crate::error::CheckpointError;
use crate::kv::{Batch, Generations, Kv};
use crate::replace::Replacement;
use crate::restore::Pages;

/// A batch near this size keeps sled's memory small: measured, a batch costs
/// six times its size beyond the page cache, and sled keeps it.
pub const ADVISED_BATCH_BYTES: usize = 256 << 10;
/// A larger batch is refused.
pub const MAX_BATCH_BYTES: usize = 128 << 20;
/// The disk may hold this many times the live data before a rotation, and
/// always this many bytes.
const OUTGROWN: u64 = 4;
const ROTATE_ABOVE: u64 = 64 << 20;

/// Reasons for which a store does not open that are not the store's own.
const REFUSED: [io::ErrorKind; 3] =
    [io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull, io::ErrorKind::WouldBlock];

/// What became of a key: its object with create and mod revision, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    pub object: Option<(Object, Revision, Revision)>,
}

/// What a data directory held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// No checkpoint was ever made here.
    Empty,
    /// There was one and it cannot be used.
    Lost(String),
    Found(Header),
}

/// A checkpoint; clones share it.
#[derive(Clone)]
pub struct CheckpointStore(Arc<Inner>);

pub(crate) struct Inner {
    generations: Arc<dyn Generations>,
    inside: Mutex<Inside>,
}

struct Inside {
    state: Current,
    next_generation: u64,
}

enum Current {
    Empty,
    Lost(String),
    Open(Open),
}

pub(crate) struct Open {
    pub generation: u64,
    pub kv: Arc<dyn Kv>,
    pub root: Root,
}

/// Reads a record from its chunks; `None` when there is none.
pub(crate) fn read_record(kv: &dyn Kv, prefix: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
    let get = |n| kv.get(&codec::chunk_key(prefix, n)).map_err(CheckpointError::io("read a record"));
    let Some(mut record) = get(0)? else { return Ok(None) };
    let len = codec::record_len(&record).ok_or_else(|| codec::lost("a record has no envelope", prefix))?;
    for n in 1..len.div_ceil(CHUNK) as u32 {
        record.extend(get(n)?.ok_or_else(|| codec::lost("a record lacks a part", prefix))?);
    }
    Ok(Some(record))
}

/// Adds to `batch` what replaces the record whose first chunk is `old`.
pub(crate) fn write_record(batch: &mut Batch, prefix: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) {
    let chunks = new.map_or(0, |r| r.len().div_ceil(CHUNK));
    for (n, part) in new.unwrap_or_default().chunks(CHUNK).enumerate() {
        batch.put(codec::chunk_key(prefix, n as u32), part.to_vec());
    }
    let old = old.and_then(codec::record_len).map_or(0, |len| len.div_ceil(CHUNK));
    for n in chunks..old {
        batch.remove(codec::chunk_key(prefix, n as u32));
    }
}

/// The next header and its totals, as part of `batch`.
pub(crate) fn write_root(batch: &mut Batch, old: Option<&Root>, new: &Root) -> Result<(), CheckpointError> {
    let old = old.map(codec::encode_root).transpose()?;
    write_record(batch, ROOT_PREFIX, old.as_deref(), Some(&codec::encode_root(new)?));
    Ok(())
}

impl CheckpointStore {
    /// Opens what is there. Only a checkpoint of a later version, and a disk
    /// that refuses access, are errors: anything else unusable is [`Opened::Lost`].
    ///
    /// When the note of which generation is current is damaged or points to
    /// nothing usable, the newest one that was finished takes its place: it is
    /// a state that was reached, and whoever starts from it checks that the log
    /// goes on from there. Nothing is removed until there is a good one.
    pub fn open(generations: Arc<dyn Generations>) -> Result<(CheckpointStore, Opened), CheckpointError> {
        let mut existing = generations.list().map_err(CheckpointError::io("list its generations"))?;
        existing.sort_unstable();
        let current = match generations.current() {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(e.to_string()),
            other => Ok(other.map_err(CheckpointError::io("read which generation is current"))?),
        };
        let named = current.as_ref().ok().copied().flatten();
        let mut state = match current {
            Ok(None) => Current::Empty,
            Ok(Some(generation)) => Self::load(&*generations, generation)?,
            Err(why) => Current::Lost(why),
        };
        if !matches!(state, Current::Open(_)) {
            for generation in existing.iter().rev().copied().filter(|g| Some(*g) != named) {
                if let Current::Open(open) = Self::load(&*generations, generation)? {
                    tracing::warn!(generation, "which checkpoint is current was not to be read; the newest is");
                    generations.switch(generation).map_err(CheckpointError::io("switch generations"))?;
                    state = Current::Open(open);
                    break;
                }
            }
        }
        let last = existing.last().copied().max(named).unwrap_or(0);
        let (opened, keep) = match &state {
            Current::Empty => (Opened::Empty, None),
            Current::Lost(why) => (Opened::Lost(why.clone()), None),
            Current::Open(open) => (Opened::Found(open.root.header.clone()), Some(open.generation)),
        };
        if !matches!(opened, Opened::Lost(_)) {
            // What a crash in the middle of a replacement left behind.
            for old in existing.into_iter().filter(|g| Some(*g) != keep) {
                generations.remove(old).map_err(CheckpointError::io("remove an old generation"))?;
            }
        }
        let inside = Mutex::new(Inside { state, next_generation: last + 1 });
        Ok((CheckpointStore(Arc::new(Inner { generations, inside })), opened))
    }

    fn load(generations: &dyn Generations, generation: u64) -> Result<Current, CheckpointError> {
        let kv: Arc<dyn Kv> = match generations.open(generation) {
            Ok(kv) => kv.into(),
            Err(e) if REFUSED.contains(&e.kind()) => {
                return Err(CheckpointError::Io { action: "open its store", source: e });
            }
            Err(e) => return Ok(Current::Lost(format!("generation {generation} does not open: {e}"))),
        };
        let root = read_record(&*kv, ROOT_PREFIX).and_then(|r| match r {
            Some(record) => codec::decode_root(&record),
            None => Err(CheckpointError::Lost("there is no header".into())),
        });
        match root {
            Ok(root) => Ok(Current::Open(Open { generation, kv, root })),
            Err(e @ CheckpointError::Unsupported(_)) => Err(e),
            Err(CheckpointError::Lost(why)) => Ok(Current::Lost(why)),
            Err(e) => Ok(Current::Lost(e.to_string())),
        }
    }

    /// The header on disk.
    pub fn header(&self) -> Option<Header> {
        match &self.0.inside.lock().state {
            Current::Open(open) => Some(open.root.header.clone()),
            _ => None,
        }
    }

    /// Objects, and their bytes as stored.
    pub fn totals(&self) -> (u64, u64) {
        match &self.0.inside.lock().state {
            Current::Open(open) => (open.root.totals.objects, open.root.totals.bytes),
            _ => (0, 0),
        }
    }

    /// Applies the changes and the header in one atomic batch, durable on
    /// return. Of several changes of a key the last counts. After an error
    /// other than [`CheckpointError::TooLarge`] the checkpoint must be opened
    /// again: it then holds either the old state or the new one.
    pub fn advance(&self, changes: Vec<Change>, header: Header) -> Result<(), CheckpointError> {
        let mut inside = self.0.inside.lock();
        if let Current::Empty = inside.state {
            drop(inside);
            let mut first = self.replace()?;
            let last: BTreeMap<Key, _> = changes.into_iter().map(|c| (c.key, c.object)).collect();
            for (key, object) in last {
                if let Some((object, create, modified)) = object {
                    first.push_object(&key, &object, create, modified)?;
                }
            }
            return first.finish(header);
        }
        let open = inside.open()?;
        let (mut batch, mut totals) = (Batch::default(), open.root.totals);
        let mut last: BTreeMap<Key, _> = changes.into_iter().map(|c| (c.key, c.object)).collect();
        if mutant("change-not-exported") {
            last.pop_last();
        }
        for (key, object) in last {
            let prefix = codec::object_prefix(&key);
            let old = open.kv.get(&codec::chunk_key(&prefix, 0)).map_err(CheckpointError::io("read a record"))?;
            let new = object.map(|(o, create, modified)| codec::encode_object(&prefix, create, modified, &o));
            let new = new.transpose()?;
            old.as_deref().and_then(|r| codec::weight(&prefix, r)).into_iter().for_each(|w| totals.remove(w));
            new.as_deref().and_then(|r| codec::weight(&prefix, r)).into_iter().for_each(|w| totals.add(w));
            write_record(&mut batch, &prefix, old.as_deref(), new.as_deref());
            if batch.bytes() > MAX_BATCH_BYTES {
                return Err(CheckpointError::TooLarge { size: batch.bytes(), limit: MAX_BATCH_BYTES });
            }
        }
        let root = Root { header, totals };
        write_root(&mut batch, Some(&open.root), &root)?;
        let done = if mutant("header-before-changes") {
            let (mut first, mut rest) = (Batch::default(), Batch::default());
            write_root(&mut first, Some(&open.root), &root)?;
            let heads: Vec<_> = first.changes.iter().map(|(key, _)| key.clone()).collect();
            rest.changes.extend(batch.changes.into_iter().filter(|(key, _)| !heads.contains(key)));
            let durable = open.kv.apply(first).and_then(|()| open.kv.sync());
            durable.and_then(|()| open.kv.apply(rest))
        } else if mutant("checkpoint-not-synced") {
            open.kv.apply(batch)
        } else {
            open.kv.apply(batch).and_then(|()| open.kv.sync())
        };
        match done {
            Ok(()) => {
                open.root = root;
                Ok(())
            }
            Err(source) => {
                inside.state = Current::Lost(format!("an advance failed ({source}); open it again"));
                Err(CheckpointError::Io { action: "write a batch", source })
            }
        }
    }

    /// All objects, page by page. Not while the checkpoint advances.
    pub fn pages(&self) -> Result<Pages, CheckpointError> {
        let mut inside = self.0.inside.lock();
        match &inside.state {
            Current::Empty => Ok(Pages::empty()),
            _ => inside.open().map(|open| Pages::new(open.kv.clone(), open.root.totals)),
        }
    }

    /// Starts a new content beside the present one, which stays until
    /// [`Replacement::finish`].
    pub fn replace(&self) -> Result<Replacement, CheckpointError> {
        let generation = {
            let mut inside = self.0.inside.lock();
            inside.next_generation += 1;
            inside.next_generation - 1
        };
        let kv = self.0.generations.create(generation).map_err(CheckpointError::io("create a generation"))?;
        Ok(Replacement::new(self.0.clone(), generation, kv.into()))
    }

    /// [`CheckpointStore::replace`] from pages at hand.
    pub fn replace_with(
        &self,
        pages: impl IntoIterator<Item = Vec<crate::StoredObject>>,
        header: Header,
    ) -> Result<(), CheckpointError> {
        let mut new = self.replace()?;
        for page in pages {
            new.push(&page)?;
        }
        new.finish(header)
    }

    pub fn size_on_disk(&self) -> Result<u64, CheckpointError> {
        match &self.0.inside.lock().state {
            Current::Open(open) => open.kv.size_on_disk().map_err(CheckpointError::io("measure its size")),
            _ => Ok(0),
        }
    }

    /// Whether the file has outgrown its live data; see [`CheckpointStore::rotate`].
    pub fn outgrown(&self) -> Result<bool, CheckpointError> {
        let live = self.totals().1;
        Ok(self.size_on_disk()? > ROTATE_ABOVE.max(live.saturating_mul(OUTGROWN)))
    }

    /// Copies the live data to a fresh generation and switches to it. The
    /// caller does not advance meanwhile.
    pub fn rotate(&self) -> Result<(), CheckpointError> {
        let Some(header) = self.header() else { return Ok(()) };
        let (mut pages, mut new) = (self.pages()?, self.replace()?);
        while let Some(page) = pages.next_page(ADVISED_BATCH_BYTES)? {
            new.push(&page)?;
        }
        new.finish(header)
    }
}

impl Inside {
    fn open(&mut self) -> Result<&mut Open, CheckpointError> {
        match &mut self.state {
            Current::Open(open) => Ok(open),
            Current::Lost(why) => Err(CheckpointError::Lost(why.clone())),
            Current::Empty => Err(CheckpointError::Lost("there is none yet".into())),
        }
    }
}

impl Inner {
    /// Makes a written and synced generation the checkpoint.
    pub(crate) fn switch(&self, generation: u64, kv: Arc<dyn Kv>, root: Root) -> Result<(), CheckpointError> {
        let mut inside = self.inside.lock();
        self.generations.switch(generation).map_err(CheckpointError::io("switch generations"))?;
        let old = std::mem::replace(&mut inside.state, Current::Open(Open { generation, kv, root }));
        if let Current::Open(Open { generation, kv, .. }) = old {
            drop(kv);
            // A reader may still hold it; opening removes what is left.
            if let Err(e) = self.generations.remove(generation) {
                tracing::warn!(generation, error = %e, "an old checkpoint was not removed");
            }
        }
        Ok(())
    }

    pub(crate) fn discard(&self, generation: u64) {
        let _ = self.generations.remove(generation); // the next opening removes it
    }
}

impl Totals {
    pub(crate) fn check(&self, seen: &Totals) -> Result<(), CheckpointError> {
        if self == seen {
            return Ok(());
        }
        Err(CheckpointError::Lost(format!(
            "it holds {} objects with digest {:016x} where its header says {} with {:016x}",
            seen.objects, seen.digest, self.objects, self.digest
        )))
    }
}
