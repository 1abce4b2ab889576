//! How much history there is, and what a leader should propose about it.

use crate::domain::{Domain, DomainId};
use crate::{Mvcc, Op, Revision};

/// The window of one revision counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainStats {
    /// Events that are here.
    pub events: usize,
    /// Bytes that they keep.
    pub bytes: usize,
    /// The lowest revision that can be read and watched from.
    pub oldest: Revision,
    /// The replicated floor.
    pub floor: Revision,
    pub revision: Revision,
}

/// The whole window. The store has no clock: who wants a window of five
/// minutes remembers the revisions of five minutes ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowStats {
    pub main: DomainStats,
    pub facade: DomainStats,
    /// (main, facade) revisions at some entries since the last export, oldest first.
    marks: Vec<[Revision; 2]>,
}

fn stats(d: &Domain) -> DomainStats {
    let (events, bytes, oldest) = (d.order.len(), d.bytes, d.lowest());
    DomainStats { events, bytes, oldest, floor: d.floor, revision: d.revision }
}

impl DomainStats {
    /// Revisions after `floor`, and about the bytes that their events keep.
    fn after(&self, floor: Revision) -> (u64, u64) {
        let revisions = self.revision.saturating_sub(floor);
        // Facade transactions can have several events a revision.
        let kept = self.revision.saturating_sub(self.oldest).max(1);
        (revisions, (u128::from(revisions) * self.bytes as u128 / u128::from(kept)) as u64)
    }
}

impl Mvcc {
    pub fn window(&self) -> WindowStats {
        let state = self.state.read();
        let of = |d: DomainId| stats(&state.domains[d as usize]);
        WindowStats { main: of(DomainId::Main), facade: of(DomainId::Facade), marks: state.track.revisions() }
    }
}

impl WindowStats {
    /// The compactions that keep the window within `events` and `bytes`, and
    /// above the revisions of `expired` (main, facade), which is what the heads
    /// were when the window's time began. Each is a transaction of its own.
    /// None: there is nothing to raise.
    ///
    /// Both counters' floors rise to the same moment, so that a load on one
    /// does not leave the checkpoint waiting for the other.
    pub fn compactions(&self, events: u64, bytes: usize, expired: (Revision, Revision)) -> Vec<Op> {
        let fits = |main: Revision, facade: Revision| {
            let (main, facade) = (self.main.after(main), self.facade.after(facade));
            main.0 + facade.0 <= events && main.1 + facade.1 <= bytes as u64
        };
        let (mut main, mut facade) = (self.main.floor.max(expired.0), self.facade.floor.max(expired.1));
        if !fits(main, facade) {
            let at = self.marks.partition_point(|m| !fits(m[0], m[1]));
            let heads = [self.main.revision, self.facade.revision];
            let mark = self.marks.get(at).or(self.marks.last()).unwrap_or(&heads);
            (main, facade) = (main.max(mark[0]), facade.max(mark[1]));
        }
        let (main, facade) = (main.min(self.main.revision), facade.min(self.facade.revision));
        let main = (main > self.main.floor).then_some(Op::Compact(main));
        let facade = (facade > self.facade.floor).then_some(Op::CompactFacade(facade));
        main.into_iter().chain(facade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compactions_follow_the_tightest_of_count_bytes_and_time() {
        let main = DomainStats { events: 1000, bytes: 100_000, oldest: 0, floor: 0, revision: 1000 };
        let facade = DomainStats { events: 0, bytes: 0, oldest: 1, floor: 1, revision: 1 };
        let marks = (1..=10).map(|n| [100 * n, 1]).collect();
        let w = WindowStats { main, facade, marks };
        assert_eq!(w.compactions(1000, 100_000, (0, 0)), []);
        assert_eq!(w.compactions(420, 100_000, (0, 0)), [Op::Compact(600)]);
        assert_eq!(w.compactions(420, 10_000, (0, 0)), [Op::Compact(900)]);
        assert_eq!(w.compactions(420, 10_000, (950, 1)), [Op::Compact(950)]);
        assert_eq!(w.compactions(420, 10_000, (5000, 0)), [Op::Compact(1000)]);
    }

    #[test]
    fn a_load_on_one_counter_raises_the_floor_of_the_other_to_the_same_moment() {
        let main = DomainStats { events: 50, bytes: 5000, oldest: 0, floor: 0, revision: 50 };
        let facade = DomainStats { events: 2000, bytes: 200_000, oldest: 1, floor: 1, revision: 1001 };
        let marks = (1..=10).map(|n| [5 * n, 100 * n]).collect();
        let w = WindowStats { main, facade, marks };
        assert_eq!(w.compactions(450, 1 << 20, (0, 0)), [Op::Compact(30), Op::CompactFacade(600)]);
        let bare = WindowStats { marks: vec![], ..w };
        assert_eq!(bare.compactions(450, 1 << 20, (0, 0)), [Op::Compact(50), Op::CompactFacade(1001)]);
    }
}
