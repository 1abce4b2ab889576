//! Where each entry is: the log as its readers see it. Pure memory.
//!
//! An entry is readable as soon as it is appended here, before it is written;
//! the payloads of the most recent entries stay in a tail bounded by bytes, so
//! that apply and followers that keep up never read the disk. A payload that
//! is not yet written never leaves the tail.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::codec::LogId;
use crate::error::WalError;

/// A log entry: an opaque payload and its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: LogId,
    pub payload: Bytes,
}

/// Where a record is on disk. `len` 0: nowhere yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u32,
    pub offset: u32,
    pub len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    term: u64,
    node: u64,
    place: Place,
    /// Tells this entry from a truncated one that had the same index.
    ticket: u32,
}

/// A piece of an answer to a read.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Memory(Entry),
    Disk(LogId, Place),
}

/// The small state beside the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Small {
    pub vote: Option<Bytes>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub identity: Option<Bytes>,
}

#[derive(Debug)]
pub(crate) struct LogIndex {
    pub small: Small,
    /// Index of `slots[0]`.
    first: u64,
    slots: VecDeque<Slot>,
    /// Payloads of the last `tail.len()` slots.
    tail: VecDeque<Bytes>,
    tail_bytes: usize,
    tail_limit: usize,
    ticket: u32,
}

impl LogIndex {
    pub(crate) fn new(tail_limit: usize) -> LogIndex {
        LogIndex {
            small: Small::default(),
            first: 0,
            slots: VecDeque::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_limit,
            ticket: 0,
        }
    }

    /// One past the last entry.
    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        self.slot(index).map(|s| LogId { index, term: s.term, node: s.node })
    }

    /// The last entry, or the last purged one when there is none.
    pub(crate) fn last(&self) -> Option<LogId> {
        if self.slots.is_empty() { self.small.purged } else { self.id_at(self.end() - 1) }
    }

    /// Index of the first entry, or the next one to come; 0 in an empty log.
    pub(crate) fn first(&self) -> u64 {
        if self.slots.is_empty() { self.small.purged.map_or(0, |p| p.index + 1) } else { self.first }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds an entry; the ticket names it to [`LogIndex::written`]. A log with
    /// neither entries nor a purge mark may start anywhere.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<u32, WalError> {
        let index = entry.id.index;
        match self.last() {
            Some(last) if last.index + 1 != index => {
                return Err(WalError::NotNext { expected: last.index + 1, got: index });
            }
            _ => {}
        }
        Ok(self.push_unchecked(entry))
    }

    /// As [`LogIndex::push`] during recovery, where purge marks come late: only
    /// what is held must be contiguous.
    pub(crate) fn replay(&mut self, entry: &Entry, place: Place) -> Result<(), WalError> {
        if !self.slots.is_empty() && entry.id.index != self.end() {
            return Err(WalError::NotNext { expected: self.end(), got: entry.id.index });
        }
        let ticket = self.push_unchecked(entry);
        self.written(entry.id.index, ticket, place);
        Ok(())
    }

    fn push_unchecked(&mut self, entry: &Entry) -> u32 {
        if self.slots.is_empty() {
            self.first = entry.id.index;
        }
        self.ticket = self.ticket.wrapping_add(1);
        self.slots.push_back(Slot {
            term: entry.id.term,
            node: entry.id.node,
            place: Place::default(),
            ticket: self.ticket,
        });
        self.tail_bytes += entry.payload.len();
        self.tail.push_back(entry.payload.clone());
        self.ticket
    }

    /// The entry is in its file; its payload may leave memory.
    pub(crate) fn written(&mut self, index: u64, ticket: u32, place: Place) {
        let Some(at) = index.checked_sub(self.first).and_then(|i| usize::try_from(i).ok()) else { return };
        if let Some(slot) = self.slots.get_mut(at).filter(|s| s.ticket == ticket) {
            slot.place = place;
        }
        self.evict();
    }

    fn evict(&mut self) {
        while self.tail_bytes > self.tail_limit && self.tail.len() > 1 {
            let oldest = self.slots.len() - self.tail.len();
            if self.slots[oldest].place.len == 0 {
                break;
            }
            self.tail_bytes -= self.tail.pop_front().map_or(0, |p| p.len());
        }
    }

    /// Drops the entries after `after` (all when `None`).
    pub(crate) fn truncate(&mut self, after: Option<u64>) {
        let end = after.map_or(0, |a| a.saturating_add(1));
        let keep = usize::try_from(end.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.slots.len());
        for _ in keep..self.slots.len() {
            self.tail_bytes -= self.tail.pop_back().map_or(0, |p| p.len());
        }
        self.slots.truncate(keep);
        if self.small.committed.is_some_and(|c| after.is_none_or(|a| c.index > a)) {
            self.small.committed = self.last();
        }
    }

    /// Drops the entries up to `upto`, which may lie beyond the last one.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.small.purged.is_some_and(|p| p.index >= upto.index) {
            return;
        }
        self.small.purged = Some(upto);
        while !self.slots.is_empty() && self.first <= upto.index {
            if self.tail.len() == self.slots.len() {
                self.tail_bytes -= self.tail.pop_front().map_or(0, |p| p.len());
            }
            self.slots.pop_front();
            self.first += 1;
        }
        if self.slots.capacity() > 4096 && self.slots.capacity() / 4 > self.slots.len() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// The entries of `start..end` that exist, until their payloads pass
    /// `max_bytes` (at least one). The beginning must not have been purged.
    pub(crate) fn find(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Found>, WalError> {
        let first = self.first();
        if start < first && start < end && self.last().is_some() {
            return Err(WalError::Purged { index: start, first });
        }
        let end = end.min(self.end());
        let in_memory_from = self.end() - self.tail.len() as u64;
        let mut out = Vec::with_capacity(usize::try_from(end.saturating_sub(start)).unwrap_or(0).min(1024));
        let mut bytes = 0usize;
        for index in start..end {
            let Some(slot) = self.slot(index) else { break };
            let id = LogId { index, term: slot.term, node: slot.node };
            let (found, size) = if index >= in_memory_from {
                let payload = self.tail[(index - in_memory_from) as usize].clone();
                let size = payload.len();
                (Found::Memory(Entry { id, payload }), size)
            } else {
                (Found::Disk(id, slot.place), slot.place.len as usize)
            };
            bytes = bytes.saturating_add(size);
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            out.push(found);
        }
        Ok(out)
    }

    /// Payload bytes held in memory.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, size: usize) -> Entry {
        Entry { id: LogId { index, term: 1, node: 1 }, payload: vec![index as u8; size].into() }
    }

    fn id(index: u64) -> LogId {
        entry(index, 0).id
    }

    fn filled(n: u64, tail_limit: usize) -> LogIndex {
        let mut log = LogIndex::new(tail_limit);
        for i in 0..n {
            let ticket = log.push(&entry(i, 10)).unwrap();
            log.written(i, ticket, Place { segment: 1, offset: 64 + i as u32 * 64, len: 64 });
        }
        log
    }

    #[test]
    fn a_payload_leaves_memory_only_when_it_is_written() {
        let mut log = LogIndex::new(25);
        let tickets: Vec<u32> = (0..5).map(|i| log.push(&entry(i, 10)).unwrap()).collect();
        assert_eq!(log.tail_bytes(), 50);
        log.written(0, tickets[0], Place { segment: 1, offset: 64, len: 64 });
        assert_eq!(log.tail_bytes(), 40);
        let found = log.find(0, 3, usize::MAX).unwrap();
        assert!(matches!(&found[..], [Found::Disk(..), Found::Memory(_), Found::Memory(_)]));
    }

    #[test]
    fn a_truncated_entry_does_not_give_its_place_to_its_successor() {
        let mut log = LogIndex::new(0);
        let old = log.push(&entry(0, 10)).unwrap();
        log.truncate(None);
        log.push(&entry(0, 10)).unwrap();
        log.written(0, old, Place { segment: 1, offset: 64, len: 64 });
        assert_eq!(log.slots[0].place.len, 0);
    }

    #[test]
    fn truncation_reaches_below_the_tail_and_takes_committed_with_it() {
        for after in 0..10 {
            let mut log = filled(10, 25);
            log.small.committed = Some(id(9));
            log.truncate(Some(after));
            assert_eq!((log.last(), log.small.committed), (Some(id(after)), Some(id(after))));
            assert_eq!(log.tail_bytes(), log.tail.iter().map(Bytes::len).sum::<usize>());
            assert_eq!(log.find(0, 99, usize::MAX).unwrap().len() as u64, after + 1);
            log.push(&entry(after + 1, 10)).unwrap();
        }
    }

    #[test]
    fn a_purge_may_pass_the_end_and_the_log_goes_on_behind_it() {
        let mut log = filled(10, 25);
        log.purge(id(3));
        assert!(matches!(log.find(3, 5, 99), Err(WalError::Purged { index: 3, first: 4 })));
        assert_eq!(log.find(4, 99, usize::MAX).unwrap().len(), 6);
        log.purge(id(20));
        assert_eq!((log.len(), log.first(), log.last(), log.tail_bytes()), (0, 21, Some(id(20)), 0));
        assert!(matches!(log.push(&entry(11, 1)), Err(WalError::NotNext { expected: 21, got: 11 })));
        log.push(&entry(21, 1)).unwrap();
    }

    #[test]
    fn a_read_is_bounded_by_bytes_and_gives_at_least_one_entry() {
        let log = filled(10, 1000);
        assert_eq!(log.find(0, 10, 25).unwrap().len(), 2);
        assert_eq!(log.find(5, 10, 0).unwrap().len(), 1);
        assert_eq!(log.find(10, 12, 25).unwrap().len(), 0);
    }
}
