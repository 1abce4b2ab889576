//! The checkpoint's own rules: an advance is one run, the newest root is the
//! state, and old runs go when others hold what they held.
//!
//! Calls block on the disk; a replica makes them from a thread that may.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use triarch_env::Disk;
use triarch_mutants::mutant;
use triarch_mvcc::{Key, Object, Revision};

use crate::chain::{chain, merge_from};
use crate::codec::{Body, Header, Span};
use crate::error::CheckpointError;
use crate::merge::Merged;
use crate::replace::Replacement;
use crate::restore::Pages;
use crate::run::{Place, Run, Writer, inspect, missing};

/// A good size for a page of objects, bytes.
pub const ADVISED_PAGE_BYTES: usize = 256 << 10;
/// Left by a version that kept its checkpoint in another way.
const FORMAT_1: &str = "CURRENT";

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
    place: Place,
    inside: Mutex<Inside>,
}

struct Inside {
    state: Current,
    /// Of the next run.
    next: u64,
    /// Runs that are in no chain, to be removed once there is a good one.
    leftover: Vec<Span>,
}

enum Current {
    Empty,
    Lost(String),
    /// The chain, the oldest first; never empty.
    Open(Vec<Run>),
}

/// Reads what there is: the chain's runs, and those that belong to none.
fn look(place: &Place, there: &[Span]) -> Result<Vec<Run>, CheckpointError> {
    let spans = chain(there.to_vec()).map_err(|gap| {
        let from = format!("{:016x}-…", gap.at);
        missing(&place.dir.join(from))
    })?;
    let mut runs: Vec<Run> = Vec::with_capacity(spans.len());
    for span in spans {
        let run = inspect(place, span)?;
        let (mark, header) = runs.last().map_or((0, &run.root.header), |last| (last.mark, &last.root.header));
        let whose = (&header.cluster_id, header.node_id);
        if run.root.previous != mark || whose != (&run.root.header.cluster_id, run.root.header.node_id) {
            let path = place.path(span);
            return Err(CheckpointError::Lost(format!("{} does not go on from the run before it", path.display())));
        }
        runs.push(run);
    }
    Ok(runs)
}

impl CheckpointStore {
    /// Opens what is in `dir`, which is made when it is missing. Only a
    /// checkpoint of another version, and a disk that fails, are errors: anything
    /// else unusable is [`Opened::Lost`], and stays until there is a good one.
    ///
    /// # Errors
    /// [`CheckpointError::Unsupported`] and [`CheckpointError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(CheckpointStore, Opened), CheckpointError> {
        let place = Place { disk, dir: dir.to_path_buf() };
        let list = || {
            place.disk.create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                place.disk.sync_dir(parent)?;
            }
            place.disk.list(dir)
        };
        let names = list().map_err(CheckpointError::io("list its files"))?;
        let there: Vec<Span> = names.iter().filter_map(|name| Span::parse(name)).collect();
        if there.is_empty() && names.iter().any(|name| name == FORMAT_1) {
            let text = format!("{} is of format 1", dir.join(FORMAT_1).display());
            return Err(CheckpointError::Unsupported(text));
        }
        let state = match look(&place, &there) {
            Ok(runs) if runs.is_empty() => Current::Empty,
            Ok(runs) => Current::Open(runs),
            Err(CheckpointError::Lost(why)) => Current::Lost(why),
            Err(e) => return Err(e),
        };
        let opened = match &state {
            Current::Empty => Opened::Empty,
            Current::Lost(why) => Opened::Lost(why.clone()),
            Current::Open(runs) => Opened::Found(newest(runs).root.header.clone()),
        };
        for name in names.iter().filter(|name| name.strip_suffix(".tmp").and_then(Span::parse).is_some()) {
            let _ = place.disk.remove_file(&dir.join(name)); // what a crash left half written
        }
        let next = there.iter().map(|span| span.to + 1).max().unwrap_or(0);
        let kept = |span: &Span| matches!(&state, Current::Open(runs) if runs.iter().any(|run| run.span == *span));
        let leftover = there.into_iter().filter(|span| !kept(span)).collect();
        let good = !matches!(state, Current::Lost(_));
        let mut inside = Inside { state, next, leftover };
        if good {
            inside.tidy_up(&place);
        }
        Ok((CheckpointStore(Arc::new(Inner { place, inside: Mutex::new(inside) })), opened))
    }

    /// The header on disk.
    pub fn header(&self) -> Option<Header> {
        match &self.0.inside.lock().state {
            Current::Open(runs) => Some(newest(runs).root.header.clone()),
            _ => None,
        }
    }

    /// Applies the changes and the header together, durable on return. Of several
    /// changes of a key the last counts. After an error other than
    /// [`CheckpointError::TooLarge`] the checkpoint must be opened again: it then
    /// holds either the old state or the new one.
    ///
    /// # Errors
    /// The disk's, and [`CheckpointError::Lost`] when there is nothing to advance.
    pub fn advance(&self, changes: Vec<Change>, header: Header) -> Result<(), CheckpointError> {
        let mut inside = self.0.inside.lock();
        let previous = match &inside.state {
            Current::Open(runs) => newest(runs).mark,
            Current::Empty => 0,
            Current::Lost(why) => return Err(CheckpointError::Lost(why.clone())),
        };
        let mut last: BTreeMap<Key, _> = changes.into_iter().map(|c| (c.key, c.object)).collect();
        if mutant("change-not-exported") {
            last.pop_last();
        }
        let first = matches!(inside.state, Current::Empty);
        let mut write = |last: BTreeMap<Key, Option<(Object, Revision, Revision)>>, previous| {
            let at = if first { 0 } else { inside.next };
            let span = Span { from: at, to: inside.next };
            let mut writer = Writer::create(&self.0.place, span, !mutant("checkpoint-not-synced"))?;
            for (key, object) in &last {
                let body: Option<Body<'_>> = object.as_ref().map(|(o, create, modified)| (*create, *modified, o));
                writer.put(key.as_bytes(), body.as_ref())?;
            }
            let run = writer.finish(header.clone(), previous)?;
            inside.next += 1;
            Ok(run)
        };
        let done = match mutant("header-before-changes") && !first {
            true => write(BTreeMap::new(), previous).and_then(|run| {
                let next = write(last, run.mark)?;
                Ok(vec![run, next])
            }),
            false => write(last, previous).map(|run| vec![run]),
        };
        match done {
            Ok(new) => match &mut inside.state {
                Current::Open(runs) => runs.extend(new),
                other => *other = Current::Open(new),
            },
            Err(CheckpointError::Io { action, source }) => {
                let lost = Current::Lost(format!("an advance failed ({source}); open it again"));
                if let Current::Open(runs) = std::mem::replace(&mut inside.state, lost) {
                    inside.leftover.extend(runs.iter().map(|run| run.span));
                }
                return Err(CheckpointError::Io { action, source });
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// All objects, page by page. Not while the checkpoint advances.
    ///
    /// # Errors
    /// The disk's, and [`CheckpointError::Lost`].
    pub fn pages(&self) -> Result<Pages, CheckpointError> {
        match &self.0.inside.lock().state {
            Current::Empty => Ok(Pages::new(None)),
            Current::Lost(why) => Err(CheckpointError::Lost(why.clone())),
            Current::Open(runs) => Merged::open(&self.0.place, runs).map(|merged| Pages::new(Some(merged))),
        }
    }

    /// Starts a new content beside the present one, which stays until
    /// [`Replacement::finish`].
    ///
    /// # Errors
    /// The disk's.
    pub fn replace(&self) -> Result<Replacement, CheckpointError> {
        let to = {
            let mut inside = self.0.inside.lock();
            inside.next += 1;
            inside.next - 1
        };
        let writer = Writer::create(&self.0.place, Span { from: 0, to }, !mutant("generation-not-synced"))?;
        Ok(Replacement::new(self.0.clone(), writer))
    }

    /// [`CheckpointStore::replace`] from pages at hand.
    ///
    /// # Errors
    /// Those of [`Replacement`].
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

    /// Bytes on the disk.
    pub fn size_on_disk(&self) -> u64 {
        match &self.0.inside.lock().state {
            Current::Open(runs) => runs.iter().map(|run| run.bytes).sum(),
            _ => 0,
        }
    }

    /// Merges runs where they have become many, or outweigh what they change.
    /// The caller does not advance meanwhile. After an error the checkpoint is
    /// what it was.
    ///
    /// # Errors
    /// The disk's, and damage that is found.
    pub fn tidy(&self) -> Result<(), CheckpointError> {
        let (runs, from) = match &self.0.inside.lock().state {
            Current::Open(runs) => {
                let bytes: Vec<u64> = runs.iter().map(|run| run.bytes).collect();
                let Some(from) = merge_from(&bytes) else { return Ok(()) };
                (runs.clone(), from)
            }
            _ => return Ok(()),
        };
        let merging = &runs[from..];
        let (Some(oldest), newest) = (merging.first(), newest(&runs)) else { return Ok(()) };
        let span = Span { from: oldest.span.from, to: newest.span.to };
        let mut merged = Merged::open(&self.0.place, merging)?;
        let mut writer = Writer::create(&self.0.place, span, true)?;
        while merged.step()? {
            // In everything there is nothing to be removed.
            if let Some(record) = merged.record().filter(|record| from > 0 || record.body.is_some()) {
                writer.copy(&record)?;
            }
        }
        let run = writer.finish(newest.root.header.clone(), oldest.root.previous)?;
        let mut inside = self.0.inside.lock();
        inside.leftover.extend(merging.iter().map(|run| run.span));
        let mut kept = runs;
        kept.truncate(from);
        kept.push(run);
        inside.state = Current::Open(kept);
        inside.tidy_up(&self.0.place);
        Ok(())
    }
}

fn newest(runs: &[Run]) -> &Run {
    runs.last().expect("a chain is never empty")
}

impl Inside {
    fn tidy_up(&mut self, place: &Place) {
        self.leftover.drain(..).for_each(|span| place.remove(span));
    }
}

impl Inner {
    /// `run`, which holds everything, is the checkpoint.
    pub(crate) fn replaced(&self, run: Run) {
        let mut inside = self.inside.lock();
        if let Current::Open(old) = std::mem::replace(&mut inside.state, Current::Open(vec![run])) {
            inside.leftover.extend(old.iter().map(|run| run.span));
        }
        inside.tidy_up(&self.place);
    }
}
