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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowStats {
    pub main: DomainStats,
    pub facade: DomainStats,
}

fn stats(d: &Domain) -> DomainStats {
    let (events, bytes, oldest) = (d.order.len(), d.bytes, d.lowest());
    DomainStats { events, bytes, oldest, floor: d.floor, revision: d.revision }
}

impl DomainStats {
    /// The floor that leaves at most so many revisions and about so many bytes.
    fn floor_for(&self, events: u64, bytes: usize) -> Revision {
        let by_events = self.revision.saturating_sub(events);
        let weight = (self.bytes / self.events.max(1)).max(1);
        let by_bytes = if self.bytes > bytes { self.revision.saturating_sub((bytes / weight) as u64) } else { 0 };
        by_events.max(by_bytes)
    }
}

impl Mvcc {
    pub fn window(&self) -> WindowStats {
        let state = self.state.read();
        let of = |d: DomainId| stats(&state.domains[d as usize]);
        WindowStats { main: of(DomainId::Main), facade: of(DomainId::Facade) }
    }
}

impl WindowStats {
    /// The compactions that keep each counter's window within `events` and
    /// `bytes`, and above the revisions of `expired` (main, facade), which is
    /// what the heads were when the window's time began. Each is a transaction
    /// of its own. None: there is nothing to raise.
    pub fn compactions(&self, events: u64, bytes: usize, expired: (Revision, Revision)) -> Vec<Op> {
        let main = self.main.floor_for(events, bytes).max(expired.0).min(self.main.revision);
        let facade = self.facade.floor_for(events, bytes).max(expired.1).min(self.facade.revision);
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
        let d = DomainStats { events: 1000, bytes: 100_000, oldest: 0, floor: 0, revision: 1000 };
        let w = WindowStats { main: d, facade: DomainStats { events: 0, bytes: 0, revision: 1, ..d } };
        assert_eq!(w.compactions(1000, 100_000, (0, 0)), []);
        assert_eq!(w.compactions(400, 100_000, (0, 0)), [Op::Compact(600)]);
        assert_eq!(w.compactions(400, 10_000, (0, 0)), [Op::Compact(900)]);
        assert_eq!(w.compactions(400, 10_000, (950, 1)), [Op::Compact(950), Op::CompactFacade(1)]);
        assert_eq!(w.compactions(400, 10_000, (5000, 0)), [Op::Compact(1000)]);
    }
}
