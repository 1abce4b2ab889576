//! Past entry boundaries, for a checkpoint that follows behind the head.
//!
//! Objects at a boundary come from history. What history does not hold (how
//! far, the floors, the chain hash, the dedup window) is kept here: boundaries
//! as marks, and the dedup window once more, as it was at the last confirmed
//! export, with what the entries since then added.

use std::collections::VecDeque;

use crate::dedup::{Dedup, Seen};
use crate::{AppliedAt, ProposalId, Revision};

/// The state just after an entry, without objects and dedup window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub applied: AppliedAt,
    /// By domain.
    pub revisions: [Revision; 2],
    pub floors: [Revision; 2],
    pub chain: [u8; 32],
}

/// Entries without a mark between two marks, at most, and revisions likewise.
const MARK_ENTRIES: u64 = 64;
const MARK_REVISIONS: u64 = 256;

#[derive(Debug)]
pub(crate) struct Track {
    /// The last confirmed export. `None`: exports are off, or too much happened
    /// since, and only a whole new export can follow.
    base: Option<(Boundary, Dedup)>,
    marks: VecDeque<Boundary>,
    noted: VecDeque<(u64, ProposalId, Seen)>,
    /// Most notes and marks that are kept.
    bound: usize,
}

impl Track {
    pub fn new(on: bool, bound: usize) -> Track {
        let base = on.then(|| (Boundary::default(), Dedup::default()));
        Track { base, marks: VecDeque::new(), noted: VecDeque::new(), bound }
    }

    pub fn base(&self) -> Option<&(Boundary, Dedup)> {
        self.base.as_ref()
    }

    /// The revisions at each mark, oldest first.
    pub fn revisions(&self) -> Vec<[Revision; 2]> {
        self.marks.iter().map(|m| m.revisions).collect()
    }

    /// History after these revisions must stay for the next export.
    pub fn hold(&self) -> [Revision; 2] {
        self.base.as_ref().map_or([Revision::MAX; 2], |(b, _)| b.revisions)
    }

    pub fn note(&mut self, index: u64, id: ProposalId, seen: Seen) {
        if self.base.is_some() {
            self.noted.push_back((index, id, seen));
        }
    }

    /// An entry has been applied and `head` is the state after it.
    pub fn close(&mut self, head: Boundary) {
        let Some((base, _)) = &self.base else { return };
        let last = self.marks.back().unwrap_or(base);
        let moved = |d: usize| head.revisions[d] - last.revisions[d] >= MARK_REVISIONS;
        if head.applied.index - last.applied.index >= MARK_ENTRIES || moved(0) || moved(1) {
            self.marks.push_back(head);
        }
        if self.noted.len() > self.bound || self.marks.len() > self.bound {
            self.lose();
        }
    }

    /// Too much happened since the last export.
    pub fn lose(&mut self) {
        *self = Track { base: None, marks: VecDeque::new(), noted: VecDeque::new(), bound: self.bound };
    }

    /// The furthest boundary that `fits`, after the base; `head` is one too.
    /// `events` counts revisions: the first boundary may exceed it.
    pub fn pick(&self, head: Boundary, not_after: [Revision; 2], events: u64) -> Option<Boundary> {
        let (base, _) = self.base.as_ref()?;
        let mut picked: Option<Boundary> = None;
        let distance = |b: &Boundary| (0..2).map(|d| b.revisions[d] - base.revisions[d]).sum::<u64>();
        for mark in self.marks.iter().chain([&head]).filter(|m| m.applied > base.applied) {
            let past = (0..2).any(|d| mark.revisions[d] > not_after[d]);
            if past || (picked.is_some() && distance(mark) > events) {
                break;
            }
            picked = Some(*mark);
        }
        picked
    }

    /// The dedup window as it was at `at`, a boundary at or after the base.
    pub fn dedup_at(&self, at: &Boundary) -> Option<Dedup> {
        let (_, dedup) = self.base.as_ref()?;
        let mut dedup = dedup.clone();
        for (index, id, seen) in self.noted.iter().take_while(|(index, ..)| *index <= at.applied.index) {
            dedup.note(*id, *index, seen.clone());
        }
        Some(dedup)
    }

    /// `at` is durable: it is the base from now on.
    pub fn confirm(&mut self, at: &Boundary) {
        let Some((base, dedup)) = &mut self.base else { return };
        if at.applied <= base.applied {
            return;
        }
        while let Some((index, id, seen)) = self.noted.pop_front_if(|(index, ..)| *index <= at.applied.index) {
            dedup.note(id, index, seen);
        }
        while self.marks.pop_front_if(|m| m.applied <= at.applied).is_some() {}
        *base = *at;
    }

    /// A whole export or import at `at`: tracking starts again from there.
    pub fn restart(&mut self, at: Boundary, dedup: Dedup) {
        *self = Track { base: Some((at, dedup)), marks: VecDeque::new(), noted: VecDeque::new(), bound: self.bound };
    }
}
