//! Wake-ups: watchers of the same prefix share a group, and a write tells only
//! the groups that cover its key.
//!
//! A watcher that has read everything rests in its group. The first event for
//! the group after that is noted in its seat, so it need not scan what happened
//! to other keys meanwhile, and is not told "too slow" when only other keys'
//! events left the window.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use crate::{Key, Prefix};

/// The watchers of one prefix.
#[derive(Debug, Default)]
pub(crate) struct Group(Mutex<Waiters>);

#[derive(Debug, Default)]
struct Waiters {
    seats: Vec<Seat>,
    free: Vec<usize>,
    /// Seats that may be resting, each once.
    listed: Vec<usize>,
}

#[derive(Debug, Default)]
struct Seat {
    resting: bool,
    listed: bool,
    waker: Option<Waker>,
    /// Sequence number of the event that ended the rest.
    pending: u64,
}

impl Group {
    pub fn sit(&self) -> usize {
        let mut w = self.0.lock();
        w.free.pop().unwrap_or_else(|| {
            w.seats.push(Seat::default());
            w.seats.len() - 1
        })
    }

    /// Returns the seat's waker for dropping outside every lock.
    pub fn leave(&self, seat: usize) -> Option<Waker> {
        let mut w = self.0.lock();
        w.free.push(seat);
        w.seats[seat].resting = false;
        w.seats[seat].waker.take()
    }

    /// The watcher has read everything up to now, which the caller's lock on
    /// the state keeps from moving.
    pub fn rest(&self, seat: usize) {
        let mut guard = self.0.lock();
        let w = &mut *guard;
        let s = &mut w.seats[seat];
        s.resting = true;
        if !s.listed {
            s.listed = true;
            w.listed.push(seat);
        }
    }

    /// The event that ended the rest; `None`: it goes on.
    pub fn pending(&self, seat: usize) -> Option<u64> {
        let w = self.0.lock();
        let s = &w.seats[seat];
        (!s.resting).then_some(s.pending)
    }

    /// A resting watcher is to be woken by the next event.
    pub fn arm(&self, seat: usize, waker: &Waker) {
        let s = &mut self.0.lock().seats[seat];
        if !s.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            s.waker = Some(waker.clone());
        }
    }

    /// Ends every rest, and moves out the wakers; the caller wakes them after
    /// its locks are released.
    fn notify(&self, sequence: u64, wakes: &mut Vec<Waker>) {
        let mut guard = self.0.lock();
        let w = &mut *guard;
        for seat in w.listed.drain(..) {
            let s = &mut w.seats[seat];
            s.listed = false;
            if std::mem::take(&mut s.resting) {
                s.pending = sequence;
                wakes.extend(s.waker.take());
            }
        }
    }
}

/// The groups of one resource.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    all: Option<Arc<Group>>,
    namespaces: BTreeMap<Box<str>, Arc<Group>>,
    /// Watches of a name without a namespace.
    names: BTreeMap<Box<str>, Arc<Group>>,
    keys: BTreeMap<Key, Arc<Group>>,
}

impl Groups {
    pub fn join(&mut self, prefix: &Prefix) -> Arc<Group> {
        match (prefix.namespace.as_deref(), prefix.name.as_deref()) {
            (None, None) => self.all.get_or_insert_default(),
            (Some(ns), None) => self.namespaces.entry(ns.into()).or_default(),
            (None, Some(name)) => self.names.entry(name.into()).or_default(),
            (Some(ns), Some(name)) => self.keys.entry(Key::new(&prefix.resource, ns, name)).or_default(),
        }
        .clone()
    }

    /// Forgets `group` when only the caller and this index hold it.
    pub fn part(&mut self, prefix: &Prefix, group: &Arc<Group>) {
        if Arc::strong_count(group) > 2 {
            return;
        }
        match (prefix.namespace.as_deref(), prefix.name.as_deref()) {
            (None, None) => self.all = None,
            (Some(ns), None) => drop(self.namespaces.remove(ns)),
            (None, Some(name)) => drop(self.names.remove(name)),
            (Some(ns), Some(name)) => drop(self.keys.remove(&Key::new(&prefix.resource, ns, name))),
        }
    }

    pub fn notify(&self, key: &Key, sequence: u64, wakes: &mut Vec<Waker>) {
        if let Some(g) = &self.all {
            g.notify(sequence, wakes);
        }
        if !self.namespaces.is_empty()
            && let Some(g) = self.namespaces.get(key.namespace())
        {
            g.notify(sequence, wakes);
        }
        if !self.names.is_empty()
            && let Some(g) = self.names.get(key.name())
        {
            g.notify(sequence, wakes);
        }
        if !self.keys.is_empty()
            && let Some(g) = self.keys.get(key)
        {
            g.notify(sequence, wakes);
        }
    }

    /// Every group: the whole content was replaced.
    pub fn notify_all(&self, sequence: u64, wakes: &mut Vec<Waker>) {
        let groups =
            self.all.iter().chain(self.namespaces.values()).chain(self.names.values()).chain(self.keys.values());
        for g in groups {
            g.notify(sequence, wakes);
        }
    }
}
