//! Watchers: cursors into a resource's ring. Nothing is queued or copied for
//! a watcher, so a slow one costs nothing and holds up nobody: when the events
//! that it has not read leave the window it is told so.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use triarch_mutants::mutant;

use crate::group::Group;
use crate::state::State;
use crate::{Event, Mvcc, Prefix, ReadError, Revision};

/// Events looked at under one hold of the lock (to the end of a revision).
const SCAN: usize = 2048;

/// Why a watch cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Events that this watcher had not read are gone; those after `floor` are here.
    #[error("the watch fell behind and its next events have been compacted (floor {floor})")]
    Compacted { floor: Revision },
}

/// Every event of a prefix after a revision, in order, once each.
#[derive(Debug)]
pub struct Watcher {
    store: Arc<Mvcc>,
    prefix: Prefix,
    table: u32,
    group: Arc<Group>,
    seat: usize,
    /// Sequence number of the next event to look at.
    cursor: u64,
    /// Everything there was has been read: the seat in the group tells whether
    /// and where there is more.
    drained: bool,
    after: Revision,
    progress: Revision,
}

impl Mvcc {
    /// Events with a revision above `after`. One in the future waits for it. A
    /// list at revision R and a watch after R have no gap and no double.
    pub fn watch(self: &Arc<Self>, prefix: Prefix, after: Revision) -> Result<Watcher, ReadError> {
        let mut state = self.state.write();
        let domain = state.domain_of(prefix.resource.as_bytes());
        if after < domain.watchable() {
            return Err(ReadError::Compacted { floor: domain.watchable() });
        }
        let head = domain.revision;
        let table = state.open_table(prefix.resource.as_bytes());
        let t = &mut state.tables[table as usize].1;
        let behind = t.ring.partition_point(|e| e.revision <= after) as u64;
        let skipped = u64::from(behind == 0 && t.first > 1 && mutant("first-event-skipped"));
        let cursor = (t.first + behind + skipped).min(t.end());
        let group = t.groups.join(&prefix);
        let seat = group.sit();
        let drained = cursor == t.end();
        if drained {
            group.rest(seat);
        }
        drop(state);
        let store = self.clone();
        let progress = after.min(head);
        Ok(Watcher { store, prefix, table, group, seat, cursor, drained, after, progress })
    }
}

impl Watcher {
    /// Waits for at least one event and returns up to `max` (events of one
    /// revision are never split, so it can be a few more).
    pub async fn next(&mut self, max: usize) -> Result<Vec<Arc<Event>>, WatchError> {
        poll_fn(|cx| self.poll_next(cx, max)).await
    }

    /// [`Watcher::next`] as a poll function.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Vec<Arc<Event>>, WatchError>> {
        loop {
            let store = self.store.clone();
            let state = store.state.read();
            let (events, drained) = self.read(&state, max)?;
            if !events.is_empty() {
                return Poll::Ready(Ok(events));
            }
            if drained {
                // Still under the lock: an event that comes later finds the waker.
                self.group.arm(self.seat, cx.waker());
                return Poll::Pending;
            }
        }
    }

    /// What is there now: up to `max` events, or none.
    pub fn try_next(&mut self, max: usize) -> Result<Vec<Arc<Event>>, WatchError> {
        loop {
            let store = self.store.clone();
            let state = store.state.read();
            let (events, drained) = self.read(&state, max)?;
            if drained || !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Every matching event up to this revision has been returned by `next`, or
    /// was before the watch's beginning: never below where it began, also while
    /// this replica has not come so far, so that nothing is told twice to who
    /// goes on from it.
    pub fn progress(&self) -> Revision {
        let known = self.known();
        if mutant("progress-behind-the-start") { known } else { known.max(self.after) }
    }

    /// How far it has read.
    fn known(&self) -> Revision {
        let state = self.store.state.read();
        let (domain, _) = &state.tables[self.table as usize];
        let drained = self.drained && self.group.pending(self.seat).is_none();
        if drained || mutant("progress-before-events") {
            return state.domains[*domain as usize].revision;
        }
        self.progress
    }

    /// Reads on from the cursor. The flag: there is nothing more now.
    fn read(&mut self, state: &State, max: usize) -> Result<(Vec<Arc<Event>>, bool), WatchError> {
        let (domain, table) = &state.tables[self.table as usize];
        let domain = &state.domains[*domain as usize];
        let mut events: Vec<Arc<Event>> = Vec::new();
        if self.drained {
            let Some(pending) = self.group.pending(self.seat) else {
                self.cursor = table.end();
                self.progress = domain.revision;
                return Ok((events, true));
            };
            let again = u64::from(mutant("event-shown-twice"));
            self.cursor = self.cursor.max(pending).saturating_sub(again);
            self.drained = false;
        }
        if self.cursor < table.first {
            if self.after < domain.dropped && !mutant("compacted-watcher-not-told") {
                return Err(WatchError::Compacted { floor: domain.watchable() });
            }
            // Only events from before the watch's beginning are gone.
            self.cursor = table.first;
        }
        let skip = self.cursor - table.first;
        let (mut looked, mut before) = (0, 0);
        for event in table.ring.range(skip as usize..) {
            if event.revision != before && (events.len() >= max.max(1) || looked >= SCAN) {
                return Ok((events, false));
            }
            (looked, before) = (looked + 1, event.revision);
            self.cursor += 1;
            let wanted = event.revision > self.after || mutant("future-watch-shows-the-past");
            if wanted && self.prefix.contains(&event.key) {
                events.push(event.clone());
            }
            self.progress = event.revision;
        }
        self.drained = true;
        self.group.rest(self.seat);
        self.progress = domain.revision;
        if mutant("events-out-of-order") {
            events.reverse();
        }
        Ok((events, true))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let waker = self.group.leave(self.seat);
        let mut state = self.store.state.write();
        state.tables[self.table as usize].1.groups.part(&self.prefix, &self.group);
        drop(state);
        drop(waker);
    }
}
