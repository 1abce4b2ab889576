//! What leaves the store for a checkpoint or a snapshot, and comes back.
//!
//! ```text
//!   checkpoint ──base────────────boundary──────head
//!                  └── export ──────┘             export: changes between two entries
//!                pin_exported()        pin(), begin_whole()  pin: everything at one entry, by pages
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use triarch_mutants::mutant;

use crate::chain::Chain;
use crate::dedup::Dedup;
use crate::domain::DomainId;
use crate::state::State;
use crate::table::Slots;
use crate::track::Boundary;
use crate::wire::{Reader, Writer};
use crate::{AppliedAt, Key, Limits, Mvcc, Revision, Stored, levels};

/// Version of [`Header::dedup`]'s encoding.
const FORMAT: u8 = 1;

/// Everything beside the objects: the state just after an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub applied: AppliedAt,
    pub revision: Revision,
    /// The replicated compaction floor.
    pub floor: Revision,
    pub chain: [u8; 32],
    /// The dedup window and the facade's counters, encoded. Opaque.
    pub dedup: Bytes,
}

/// A key's state at a boundary; `None`: it holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    pub stored: Option<Stored>,
}

/// What brings a checkpoint from one boundary to a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub header: Header,
    /// Each changed key once, in key order.
    pub changes: Vec<Change>,
    boundary: Boundary,
}

/// The changes since the last confirmed export are no longer all here (more
/// happened than the window may hold, or exports are off): write a whole one
/// from [`Mvcc::begin_whole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint has fallen behind the window; a whole one is needed")]
pub struct ExportLost;

/// Why a checkpoint or snapshot cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("the header's bookkeeping has format {found}, this version reads up to {FORMAT}")]
    Format { found: u8 },
    #[error("the header's bookkeeping is malformed: {0}")]
    Malformed(String),
    #[error("{key:?} was written at revision {revision}, after the header's {head}")]
    FromTheFuture { key: Key, revision: Revision, head: Revision },
}

fn header(at: &Boundary, dedup: &Dedup) -> Header {
    let mut out = Writer::default();
    out.byte(FORMAT);
    out.number(at.revisions[DomainId::Facade as usize]);
    out.number(at.floors[DomainId::Facade as usize]);
    dedup.write(&mut out);
    let (revision, floor) = (at.revisions[DomainId::Main as usize], at.floors[DomainId::Main as usize]);
    Header { applied: at.applied, revision, floor, chain: at.chain, dedup: out.finish() }
}

fn boundary(header: &Header) -> Result<(Boundary, Dedup), ImportError> {
    let mut from = Reader::new(&header.dedup);
    match from.byte()? {
        FORMAT => {}
        found => return Err(ImportError::Format { found }),
    }
    let (facade_revision, facade_floor) = (from.number()?, from.number()?);
    let dedup = Dedup::read(&mut from)?;
    if !from.is_done() {
        return Err(ImportError::Malformed("bytes are left over".into()));
    }
    let revisions = [header.revision, facade_revision];
    let floors = [header.floor, facade_floor];
    Ok((Boundary { applied: header.applied, revisions, floors, chain: header.chain }, dedup))
}

impl Mvcc {
    /// The state's header at the head.
    pub fn header(&self) -> Header {
        let (at, dedup) = {
            let state = self.state.read();
            (state.boundary(), state.dedup.clone())
        };
        header(&at, &dedup)
    }

    /// The changes from the last confirmed export up to a later entry whose
    /// revision is not above `not_after`, nor its facade revision above what the
    /// facade's floor releases (a checkpoint passes [`Mvcc::compacted`], so that
    /// restarts rebuild all history above the floors from the log). About
    /// `events` changes at most, but at least one step. `None`: no such entry.
    pub fn export(&self, not_after: Revision, events: usize) -> Result<Option<Export>, ExportLost> {
        let state = self.state.read();
        let (base, _) = state.track.base().ok_or(ExportLost)?;
        // At its first revision the facade has no events yet.
        let not_after = [not_after, state.domains[DomainId::Facade as usize].releasable().max(1)];
        let Some(to) = state.track.pick(state.boundary(), not_after, events as u64) else { return Ok(None) };
        if (0..2).any(|d| state.domains[d].dropped > base.revisions[d]) {
            return Err(ExportLost);
        }
        let mut changed = BTreeMap::new();
        for (domain, table) in &state.tables {
            let (from, to) = (base.revisions[*domain as usize], to.revisions[*domain as usize]);
            let start = table.ring.partition_point(|e| e.revision <= from);
            for event in table.ring.range(start..).take_while(|e| e.revision <= to) {
                let stored = event.object.clone().map(|object| Stored {
                    key: event.key.clone(),
                    object,
                    create_revision: event.create_revision,
                    mod_revision: event.revision,
                });
                changed.insert(event.key.clone(), stored);
            }
        }
        let dedup = state.track.dedup_at(&to).ok_or(ExportLost)?;
        drop(state);
        let changes = changed.into_iter().map(|(key, stored)| Change { key, stored }).collect();
        Ok(Some(Export { header: header(&to, &dedup), changes, boundary: to }))
    }

    /// `export` is durable: the next one starts from it, and history that was
    /// only held for it may go.
    pub fn exported(&self, export: &Export) {
        let mut state = self.state.write();
        state.track.confirm(&export.boundary);
        state.prune(0);
    }

    /// A view of everything at the head, which costs the writer only the map
    /// nodes it touches and which no compaction disturbs.
    pub fn pin(&self) -> Pin {
        let state = self.state.read();
        Pin::new(&state, state.boundary(), state.dedup.clone())
    }

    /// Like [`Mvcc::pin`], for writing a whole checkpoint: the next export
    /// starts from this view. When the checkpoint cannot be written, begin
    /// again before any export.
    pub fn begin_whole(&self) -> Pin {
        let mut state = self.state.write();
        let (boundary, dedup) = (state.boundary(), state.dedup.clone());
        if state.limits.exports {
            state.track.restart(boundary, dedup.clone());
        }
        Pin::new(&state, boundary, dedup)
    }

    /// A view of everything at the last confirmed export: what the checkpoint holds.
    pub fn pin_exported(&self) -> Result<Pin, ExportLost> {
        let state = self.state.read();
        let (boundary, dedup) = state.track.base().cloned().ok_or(ExportLost)?;
        if (0..2).any(|d| state.domains[d].dropped > boundary.revisions[d]) {
            return Err(ExportLost);
        }
        Ok(Pin::new(&state, boundary, dedup))
    }

    /// Replaces everything. All watchers are told [`crate::WatchError::Compacted`].
    pub fn install(&self, import: Import) {
        let mut wakes = Vec::new();
        let mut state = self.state.write();
        let mut new = import.state;
        new.take_watchers(&mut state, &mut wakes);
        let old = std::mem::replace(&mut *state, new);
        drop(state);
        drop(old);
        wakes.into_iter().for_each(Waker::wake);
    }
}

/// Everything at one boundary, in key order.
#[derive(Debug)]
pub struct Pin {
    boundary: Boundary,
    dedup: Dedup,
    /// In key order.
    tables: Vec<(Box<[u8]>, Revision, Slots)>,
}

impl Pin {
    fn new(state: &State, boundary: Boundary, dedup: Dedup) -> Pin {
        let at = |resource: &[u8]| boundary.revisions[crate::state::domain_id(resource) as usize];
        let tables = state.tables_in_order().map(|(name, t)| (name.into(), at(name), t.slots.clone())).collect();
        Pin { boundary, dedup, tables }
    }

    pub fn header(&self) -> Header {
        header(&self.boundary, &self.dedup)
    }

    /// Up to `items` objects after `after`, fewer when they exceed `bytes`
    /// (but at least one). Empty: that was all.
    pub fn page(&self, after: Option<&Key>, items: usize, bytes: usize) -> Vec<Stored> {
        let mut page = Vec::new();
        let mut size = 0;
        let from = after.map_or(&[][..], Key::resource_bytes);
        for (name, at, slots) in self.tables.iter().filter(|(name, ..)| &**name >= from) {
            let low = match after {
                Some(key) if **name == *from => Bound::Excluded(key.as_bytes().as_ref()),
                _ => Bound::Unbounded,
            };
            for (key, slot) in slots.range::<_, [u8]>((low, Bound::Unbounded)) {
                let found = if mutant("snapshot-at-a-moving-cursor") { slot.now(key) } else { slot.at(key, *at) };
                let Some(stored) = found else { continue };
                let more = key.as_bytes().len() + stored.object.bytes.len();
                if page.len() >= items.max(1) || (!page.is_empty() && size + more > bytes) {
                    return page;
                }
                size += more;
                page.push(stored);
            }
        }
        page
    }
}

/// A store being loaded from a checkpoint or snapshot.
#[derive(Debug)]
pub struct Import {
    state: State,
}

impl Import {
    pub fn new(limits: Limits, header: &Header) -> Result<Import, ImportError> {
        let (at, dedup) = boundary(header)?;
        let mut state = State::new(limits);
        for d in 0..2 {
            let domain = &mut state.domains[d];
            // Events up to here are not loaded: there is no history below. A
            // counter that has not moved never had any.
            domain.dropped = if at.revisions[d] > domain.revision { at.revisions[d] } else { 0 };
            (domain.revision, domain.floor) = (at.revisions[d], at.floors[d]);
        }
        state.applied = at.applied;
        state.chain = Chain::new(at.chain);
        if state.limits.exports {
            state.track.restart(at, dedup.clone());
        }
        if !mutant("dedup-not-restored") {
            state.dedup = dedup;
        }
        Ok(Import { state })
    }

    /// Adds an object, in any order.
    pub fn add(&mut self, stored: Stored) -> Result<(), ImportError> {
        let resource = stored.key.resource_bytes();
        let head = self.state.domain_of(resource).revision;
        if stored.mod_revision > head {
            return Err(ImportError::FromTheFuture { revision: stored.mod_revision, key: stored.key, head });
        }
        let table = self.state.open_table(resource);
        for owner in &stored.object.meta.owners {
            self.state.own(&owner.uid, &stored.key);
        }
        self.state.tables[table as usize].1.load(stored);
        Ok(())
    }

    /// The feature level of what has been added.
    pub fn feature_level(&self) -> u64 {
        levels::of(&self.state)
    }

    /// A store of its own.
    pub fn finish(mut self) -> Arc<Mvcc> {
        if mutant("revision-of-the-newest-object") {
            let newest = self.state.tables.iter().flat_map(|(_, t)| t.slots.values().map(|s| s.mod_revision)).max();
            self.state.domains[0].revision = newest.unwrap_or(0);
        }
        Mvcc::with_state(self.state)
    }
}
