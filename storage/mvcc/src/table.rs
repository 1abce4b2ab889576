//! One resource: its keys in order, its events in order, its watchers.
//!
//! ```text
//!   keys:  a ─► Slot{now, history: [e1,      e4]}
//!          b ─► Slot{now, history: [   e2      ]}
//!   ring:  [e1, e2, e4, …]  sequence numbers first..end; watchers hold one
//! ```
//!
//! The map is persistent (nodes are shared and copied when written), so that a
//! pinned view of any size costs a writer nothing but the nodes it touches.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use triarch_mutants::mutant;

use crate::group::Groups;
use crate::slot::Slot;
use crate::{Event, EventKind, Key, Object, Prefix, Revision, Stored};

pub(crate) type Slots = OrdMap<Key, Arc<Slot>>;

#[derive(Debug)]
pub(crate) struct Table {
    pub slots: Slots,
    pub ring: VecDeque<Arc<Event>>,
    /// Sequence number of the ring's front (or of the next event when empty).
    pub first: u64,
    pub groups: Groups,
    live: u64,
    live_by_namespace: BTreeMap<Box<str>, u64>,
}

impl Table {
    /// Its first event will have the sequence number `first`.
    pub fn new(first: u64) -> Table {
        Table {
            slots: OrdMap::new(),
            ring: VecDeque::new(),
            first,
            groups: Groups::default(),
            live: 0,
            live_by_namespace: BTreeMap::new(),
        }
    }

    /// The sequence number that the next event will have.
    pub fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// Writes a key. The caller has checked that something changes.
    pub fn write(&mut self, key: &Key, object: Option<Object>, revision: Revision) -> Arc<Event> {
        let kind = if object.is_some() { EventKind::Put } else { EventKind::Delete };
        let event = match self.slots.get_mut(key) {
            Some(slot) => {
                let slot = Arc::make_mut(slot);
                let prev = std::mem::replace(&mut slot.object, object.clone());
                let prev_revision = if prev.is_some() { slot.mod_revision } else { 0 };
                if prev.is_none() && !mutant("create-revision-kept") {
                    slot.create_revision = revision;
                }
                slot.mod_revision = revision;
                let create_revision = slot.create_revision;
                let key = key.clone();
                let event = Arc::new(Event { revision, key, kind, object, prev, prev_revision, create_revision });
                slot.push(event.clone());
                event
            }
            None => {
                let mut slot = Slot::new(object.clone(), revision, revision);
                let (prev, prev_revision, create_revision) = (None, 0, revision);
                let event =
                    Arc::new(Event { revision, key: key.clone(), kind, object, prev, prev_revision, create_revision });
                slot.push(event.clone());
                self.slots.insert(key.clone(), Arc::new(slot));
                event
            }
        };
        match (event.prev.is_some(), event.object.is_some()) {
            (false, true) => self.count_in(key),
            (true, false) => self.count_out(key),
            _ => {}
        }
        self.ring.push_back(event.clone());
        event
    }

    /// Adds a key as it was in a checkpoint: no event, no history.
    pub fn load(&mut self, stored: Stored) {
        let Stored { key, object, create_revision, mod_revision } = stored;
        let slot = Arc::new(Slot::new(Some(object), create_revision, mod_revision));
        if self.slots.insert(key.clone(), slot).is_none_or(|old| old.object.is_none()) {
            self.count_in(&key);
        }
    }

    /// The oldest event leaves the window.
    pub fn pop(&mut self) -> Option<Arc<Event>> {
        let event = self.ring.pop_front()?;
        self.first += 1;
        let gone = self.slots.get_mut(&event.key).is_some_and(|slot| Arc::make_mut(slot).pop());
        if gone {
            self.slots.remove(&event.key);
        }
        if self.ring.capacity() > 1024 && self.ring.len() * 4 < self.ring.capacity() {
            self.ring.shrink_to(self.ring.len() * 2);
        }
        Some(event)
    }

    fn count_in(&mut self, key: &Key) {
        self.live += 1;
        let namespace = key.namespace();
        match self.live_by_namespace.get_mut(namespace) {
            Some(n) => *n += 1,
            None => drop(self.live_by_namespace.insert(namespace.into(), 1)),
        }
    }

    fn count_out(&mut self, key: &Key) {
        self.live -= 1;
        let namespace = key.namespace();
        if let Some(n) = self.live_by_namespace.get_mut(namespace) {
            *n -= 1;
            if *n == 0 {
                self.live_by_namespace.remove(namespace);
            }
        }
    }

    /// Live keys under `prefix`, now.
    pub fn count(&self, prefix: &Prefix) -> u64 {
        match (&prefix.namespace, &prefix.name) {
            (None, None) => self.live,
            (Some(ns), None) => self.live_by_namespace.get(ns.as_str()).copied().unwrap_or(0),
            _ => range(&self.slots, prefix, None).filter(|(k, s)| s.object.is_some() && prefix.contains(k)).count()
                as u64,
        }
    }
}

/// Slots (tombstones too) from `start` on, to the end of the resource.
pub(crate) fn range_from<'a>(
    slots: &'a Slots,
    prefix: &Prefix,
    start: &Key,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Slot>)> + use<'a> {
    let (_, high) = prefix.bounds();
    let (low, high) = (Bound::Included(&start.as_bytes()[..]), Bound::Excluded(high.as_slice()));
    slots.range::<_, [u8]>((low, high))
}

/// Slots (tombstones too) that can be under `prefix`, after `after`, in order.
pub(crate) fn range<'a>(
    slots: &'a Slots,
    prefix: &Prefix,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Slot>)> + use<'a> {
    let (low, high) = prefix.bounds();
    let after = after.map(|key| &key.as_bytes()[..]).filter(|key| *key >= low.as_slice());
    let low = after.map_or(Bound::Included(low.as_slice()), Bound::Excluded);
    // Past the end: an empty range, not one turned round.
    let high = if after.is_some_and(|key| key >= high.as_slice()) { after.unwrap_or_default() } else { &high };
    let low = if matches!(low, Bound::Excluded(l) if l == high) { Bound::Included(high) } else { low };
    slots.range::<_, [u8]>((low, Bound::Excluded(high)))
}
