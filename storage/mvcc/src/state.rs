//! The whole state behind the lock: tables, counters, the owner index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Waker;

use triarch_mutants::mutant;

use crate::chain::Chain;
use crate::dedup::Dedup;
use crate::domain::{Domain, DomainId};
use crate::table::Table;
use crate::track::{Boundary, Track};
use crate::{AppliedAt, Event, FACADE_RESOURCE, Key, Limits, Object, Revision};

/// Events released per entry beyond what the entry itself added, so that a
/// raised floor frees memory in steps and never holds up a write.
const PRUNE_STEP: usize = 512;

#[derive(Debug)]
pub(crate) struct State {
    pub limits: Limits,
    pub domains: [Domain; 2],
    pub applied: AppliedAt,
    pub chain: Chain,
    pub dedup: Dedup,
    pub track: Track,
    /// By table id, which never changes.
    pub tables: Vec<(DomainId, Table)>,
    names: BTreeMap<Box<[u8]>, u32>,
    owners: BTreeMap<Box<str>, BTreeSet<Key>>,
    /// First sequence number of tables made from now on: later than any that a
    /// watcher of replaced content may hold.
    first: u64,
}

impl State {
    pub fn new(limits: Limits) -> State {
        // An etcd that nobody has written to is at revision 1; there is nothing below.
        let facade = Domain { revision: 1, floor: 1, keeps_floor: true, ..Domain::default() };
        State {
            domains: [Domain::default(), facade],
            applied: AppliedAt::default(),
            chain: Chain::default(),
            dedup: Dedup::default(),
            track: Track::new(limits.exports, 2 * limits.window_events),
            limits,
            tables: Vec::new(),
            names: BTreeMap::new(),
            owners: BTreeMap::new(),
            first: 1,
        }
    }

    pub fn main(&self) -> &Domain {
        &self.domains[DomainId::Main as usize]
    }

    /// The state now, as a boundary.
    pub fn boundary(&self) -> Boundary {
        let revisions = [0, 1].map(|d: usize| self.domains[d].revision);
        let floors = [0, 1].map(|d: usize| self.domains[d].floor);
        Boundary { applied: self.applied, revisions, floors, chain: self.chain.hash }
    }

    /// An entry is done: closes its link of the chain and its boundary.
    pub fn close(&mut self, at: AppliedAt) {
        self.applied = at;
        self.chain.close(at.index, [0, 1].map(|d: usize| self.domains[d].floor));
        self.track.close(self.boundary());
    }

    /// Takes over the watchers of `old`, all of which have lost what they had
    /// not read. Table ids stay as they were.
    pub fn take_watchers(&mut self, old: &mut State, wakes: &mut Vec<Waker>) {
        let first = old.tables.iter().map(|(_, t)| t.end()).max().unwrap_or(0).max(old.first) + 1;
        let loaded = std::mem::take(&mut self.tables);
        let mut loaded: Vec<_> = loaded.into_iter().map(Some).collect();
        let names = std::mem::take(&mut self.names);
        let mut by_id: Vec<_> = old.names.iter().map(|(name, id)| (*id, name)).collect();
        by_id.sort();
        let new = names.keys().filter(|name| !old.names.contains_key(*name));
        for name in by_id.into_iter().map(|(_, name)| name).chain(new) {
            let id = self.tables.len() as u32;
            let table = names.get(name).and_then(|id| loaded[*id as usize].take());
            let (domain, mut table) = table.unwrap_or_else(|| (domain_id(name), Table::new(first)));
            if !mutant("old-cursors-kept") {
                table.first = first;
            }
            if let Some((_, old)) = old.tables.get_mut(id as usize) {
                table.groups = std::mem::take(&mut old.groups);
                table.groups.notify_all(first - 1, wakes);
            }
            self.tables.push((domain, table));
            self.names.insert(name.clone(), id);
        }
        self.first = first;
    }

    pub fn table_id(&self, resource: &[u8]) -> Option<u32> {
        self.names.get(resource).copied()
    }

    pub fn table(&self, resource: &[u8]) -> Option<&Table> {
        Some(&self.tables[self.table_id(resource)? as usize].1)
    }

    pub fn domain_of(&self, resource: &[u8]) -> &Domain {
        &self.domains[domain_id(resource) as usize]
    }

    /// The table of `resource`, made when it is new.
    pub fn open_table(&mut self, resource: &[u8]) -> u32 {
        if let Some(id) = self.table_id(resource) {
            return id;
        }
        let id = self.tables.len() as u32;
        self.tables.push((domain_id(resource), Table::new(self.first)));
        self.names.insert(resource.into(), id);
        id
    }

    /// Resources in key order.
    pub fn tables_in_order(&self) -> impl Iterator<Item = (&[u8], &Table)> {
        self.names.iter().map(|(name, id)| (&name[..], &self.tables[*id as usize].1))
    }

    /// Writes a key at `revision` and shows it to the watchers' groups. The
    /// caller has checked that something changes, and owns the counter.
    pub fn write(
        &mut self,
        key: &Key,
        object: Option<Object>,
        revision: Revision,
        wakes: &mut Vec<Waker>,
    ) -> Arc<Event> {
        let id = self.open_table(key.resource_bytes());
        let (domain, table) = &mut self.tables[id as usize];
        let sequence = table.end();
        let event = table.write(key, object, revision);
        table.groups.notify(key, sequence, wakes);
        self.chain.write(*domain, &event);
        let domain = &mut self.domains[*domain as usize];
        domain.order.push_back(id);
        domain.bytes += event.weight();
        self.index_owners(&event);
        event
    }

    fn index_owners(&mut self, event: &Event) {
        let was = event.prev.as_ref().map_or(&[][..], |o| &o.meta.owners);
        let is = event.object.as_ref().map_or(&[][..], |o| &o.meta.owners);
        if was == is {
            return;
        }
        for owner in was {
            self.disown(&owner.uid, &event.key);
        }
        for owner in is {
            self.own(&owner.uid, &event.key);
        }
    }

    pub fn own(&mut self, uid: &str, key: &Key) {
        match self.owners.get_mut(uid) {
            Some(keys) => drop(keys.insert(key.clone())),
            None => drop(self.owners.insert(uid.into(), BTreeSet::from([key.clone()]))),
        }
    }

    fn disown(&mut self, uid: &str, key: &Key) {
        if let Some(keys) = self.owners.get_mut(uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.owners.remove(uid);
            }
        }
    }

    pub fn owned<'s>(&'s self, uid: &str) -> impl Iterator<Item = &'s Key> + use<'s> {
        self.owners.get(uid).into_iter().flatten()
    }

    /// Lets history go: what the floors release (a bounded number a call), and
    /// what exceeds the window's hard bounds.
    pub fn prune(&mut self, added: usize) {
        let hold = self.track.hold();
        for id in [DomainId::Main, DomainId::Facade] {
            let mut budget = PRUNE_STEP + 2 * added;
            while let Some(&table) = self.domains[id as usize].order.front() {
                let domain = &self.domains[id as usize];
                let ring = &self.tables[table as usize].1.ring;
                let oldest = ring.front().expect("the order names only tables with events").revision;
                let early = mutant("delete-behind-the-floor-lost") && ring.front().is_some_and(|e| e.object.is_none());
                let released = early || oldest <= domain.releasable().min(hold[id as usize]) && budget > 0;
                let (events, bytes) = (self.limits.window_events, self.limits.window_bytes);
                // A transaction's events leave together, like they came.
                let split = oldest <= domain.dropped;
                if !(released || split || domain.order.len() > events || domain.bytes > bytes) {
                    break;
                }
                budget = budget.saturating_sub(1);
                let event = self.tables[table as usize].1.pop().expect("the ring has a front");
                let domain = &mut self.domains[id as usize];
                domain.order.pop_front();
                domain.bytes -= event.weight();
                if !early {
                    domain.dropped = event.revision;
                }
            }
        }
    }
}

/// The facade's keys have their own counter; all others share the main one.
pub(crate) fn domain_id(resource: &[u8]) -> DomainId {
    if resource == FACADE_RESOURCE.as_bytes() { DomainId::Facade } else { DomainId::Main }
}
