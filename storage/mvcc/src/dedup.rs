//! The dedup window: what became of recent proposals, so that a retry gets the
//! first answer and is applied once.
//!
//! Replicated state: only applied entries change it, and eviction depends on
//! nothing else. One window per proposer incarnation, of the last
//! [`DEDUP_WINDOW`] sequence numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::wire::{Reader, Writer};
use crate::{FacadeOutcome, ImportError, ProposalId, Revision, TxnOutcome};

/// Sequence numbers remembered per incarnation. A proposer must not have a
/// larger distance between its oldest unanswered proposal and its newest.
pub const DEDUP_WINDOW: u64 = 8192;

/// Incarnations remembered; the one that was silent for longest is forgotten.
const INCARNATIONS: usize = 32;

/// An outcome, small where outcomes are usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seen {
    #[default]
    Nothing,
    /// Committed one operation.
    One(Revision),
    /// A facade transaction that succeeded and wrote.
    Facade(Revision),
    Other(Arc<TxnOutcome>),
}

impl Seen {
    pub fn of(outcome: &TxnOutcome) -> Seen {
        match outcome {
            TxnOutcome::Committed { revisions } if revisions.len() == 1 => Seen::One(revisions[0]),
            TxnOutcome::Facade(FacadeOutcome::Done { revision, wrote: true, succeeded: true }) => {
                Seen::Facade(*revision)
            }
            other => Seen::Other(Arc::new(other.clone())),
        }
    }

    fn outcome(&self) -> Option<TxnOutcome> {
        match self {
            Seen::Nothing => None,
            Seen::One(revision) => Some(TxnOutcome::Committed { revisions: vec![*revision] }),
            Seen::Facade(revision) => {
                Some(TxnOutcome::Facade(FacadeOutcome::Done { revision: *revision, wrote: true, succeeded: true }))
            }
            Seen::Other(outcome) => Some((**outcome).clone()),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    /// When the incarnation was last heard, as a log index.
    heard: u64,
    /// Sequence number of the first slot.
    base: u64,
    slots: VecDeque<Seen>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dedup(BTreeMap<u64, Window>);

impl Dedup {
    /// The first outcome of a proposal that was seen (`Expired` when the window
    /// has passed it); `None` for a new one.
    pub fn look(&self, id: ProposalId) -> Option<TxnOutcome> {
        let window = self.0.get(&id.incarnation)?;
        match id.sequence.checked_sub(window.base) {
            None => Some(TxnOutcome::Expired),
            Some(at) => window.slots.get(at as usize)?.outcome(),
        }
    }

    /// Remembers what became of a new proposal in the entry at `index`.
    pub fn note(&mut self, id: ProposalId, index: u64, seen: Seen) {
        let window = self
            .0
            .entry(id.incarnation)
            .or_insert_with(|| Window { base: id.sequence.saturating_sub(DEDUP_WINDOW - 1), ..Window::default() });
        window.heard = index;
        let Some(at) = id.sequence.checked_sub(window.base) else { return };
        if at >= window.slots.len() as u64 {
            // Move the window so that this sequence number is its last.
            let base = window.base.max(id.sequence.saturating_sub(DEDUP_WINDOW - 1));
            let gone = (base - window.base).min(window.slots.len() as u64) as usize;
            window.slots.drain(..gone);
            window.base = base;
            window.slots.resize((id.sequence - base + 1) as usize, Seen::Nothing);
        }
        let at = (id.sequence - window.base) as usize;
        window.slots[at] = seen;
        if self.0.len() > INCARNATIONS {
            let silent = self.0.iter().min_by_key(|(id, w)| (w.heard, **id)).map(|(id, _)| *id);
            silent.map(|id| self.0.remove(&id));
        }
    }

    pub fn write(&self, out: &mut Writer) {
        out.number(self.0.len() as u64);
        for (incarnation, window) in &self.0 {
            out.number(*incarnation);
            out.number(window.heard);
            out.number(window.base);
            out.number(window.slots.len() as u64);
            window.slots.iter().for_each(|seen| write_seen(out, seen));
        }
    }

    pub fn read(from: &mut Reader<'_>) -> Result<Dedup, ImportError> {
        let mut windows = BTreeMap::new();
        for _ in 0..from.count(INCARNATIONS as u64)? {
            let incarnation = from.number()?;
            let (heard, base) = (from.number()?, from.number()?);
            let n = from.count(DEDUP_WINDOW)?;
            let slots = (0..n).map(|_| read_seen(from)).collect::<Result<_, _>>()?;
            windows.insert(incarnation, Window { heard, base, slots });
        }
        Ok(Dedup(windows))
    }
}

fn write_seen(out: &mut Writer, seen: &Seen) {
    let simple = |out: &mut Writer, tag: u8, n: u64| {
        out.byte(tag);
        out.number(n);
    };
    match seen {
        Seen::Nothing => out.byte(0),
        Seen::One(revision) => simple(out, 1, *revision),
        Seen::Facade(revision) => simple(out, 2, *revision),
        Seen::Other(outcome) => match &**outcome {
            TxnOutcome::Committed { revisions } => {
                simple(out, 3, revisions.len() as u64);
                revisions.iter().for_each(|r| out.number(*r));
            }
            TxnOutcome::GuardFailed { index, found: None } => simple(out, 4, u64::from(*index)),
            TxnOutcome::GuardFailed { index, found: Some(revision) } => {
                simple(out, 5, u64::from(*index));
                out.number(*revision);
            }
            TxnOutcome::Fenced => out.byte(6),
            TxnOutcome::TooLarge => out.byte(7),
            TxnOutcome::Expired => out.byte(8),
            TxnOutcome::Facade(FacadeOutcome::Done { revision, wrote, succeeded }) => {
                simple(out, 9 + u8::from(*wrote) + 2 * u8::from(*succeeded), *revision);
            }
            TxnOutcome::Facade(FacadeOutcome::Compacted) => out.byte(13),
            TxnOutcome::Facade(FacadeOutcome::Future) => out.byte(14),
            TxnOutcome::Facade(FacadeOutcome::KeyNotFound) => out.byte(15),
            TxnOutcome::Facade(FacadeOutcome::LeaseNotFound) => out.byte(16),
        },
    }
}

fn read_seen(from: &mut Reader<'_>) -> Result<Seen, ImportError> {
    let other = |outcome| Ok(Seen::Other(Arc::new(outcome)));
    match from.byte()? {
        0 => Ok(Seen::Nothing),
        1 => Ok(Seen::One(from.number()?)),
        2 => Ok(Seen::Facade(from.number()?)),
        3 => {
            let n = from.count(u64::from(u32::MAX))?;
            other(TxnOutcome::Committed { revisions: (0..n).map(|_| from.number()).collect::<Result<_, _>>()? })
        }
        4 => other(TxnOutcome::GuardFailed { index: from.number()? as u32, found: None }),
        5 => other(TxnOutcome::GuardFailed { index: from.number()? as u32, found: Some(from.number()?) }),
        6 => other(TxnOutcome::Fenced),
        7 => other(TxnOutcome::TooLarge),
        8 => other(TxnOutcome::Expired),
        tag @ 9..=12 => {
            let (wrote, succeeded) = ((tag - 9) & 1 == 1, (tag - 9) & 2 == 2);
            other(TxnOutcome::Facade(FacadeOutcome::Done { revision: from.number()?, wrote, succeeded }))
        }
        13 => other(TxnOutcome::Facade(FacadeOutcome::Compacted)),
        14 => other(TxnOutcome::Facade(FacadeOutcome::Future)),
        15 => other(TxnOutcome::Facade(FacadeOutcome::KeyNotFound)),
        16 => other(TxnOutcome::Facade(FacadeOutcome::LeaseNotFound)),
        tag => Err(ImportError::Malformed(format!("unknown outcome tag {tag}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(incarnation: u64, sequence: u64) -> ProposalId {
        ProposalId { incarnation, sequence }
    }

    #[test]
    fn a_retry_inside_the_window_gets_the_first_outcome_and_one_before_it_is_expired() {
        let mut d = Dedup::default();
        assert_eq!(d.look(id(7, 1)), None);
        for s in 1..=DEDUP_WINDOW + 10 {
            d.note(id(7, s), s, Seen::One(s * 2));
        }
        assert_eq!(d.look(id(7, 10)), Some(TxnOutcome::Expired));
        assert_eq!(d.look(id(7, 11)), Some(TxnOutcome::Committed { revisions: vec![22] }));
        assert_eq!(d.look(id(7, DEDUP_WINDOW + 11)), None);
        assert_eq!(d.look(id(8, 1)), None);
    }

    #[test]
    fn sequences_may_arrive_out_of_order_or_jump_by_any_distance() {
        let mut d = Dedup::default();
        d.note(id(1, 5), 1, Seen::One(1));
        assert_eq!(d.look(id(1, 3)), None);
        d.note(id(1, 3), 2, Seen::One(2));
        assert_eq!(d.look(id(1, 3)), Some(TxnOutcome::Committed { revisions: vec![2] }));
        d.note(id(1, u64::MAX), 3, Seen::One(3));
        assert_eq!(d.look(id(1, 5)), Some(TxnOutcome::Expired));
        assert_eq!(d.look(id(1, u64::MAX)), Some(TxnOutcome::Committed { revisions: vec![3] }));
        assert_eq!(d.0[&1].slots.len() as u64, DEDUP_WINDOW);
    }

    #[test]
    fn the_incarnation_that_was_silent_for_longest_is_forgotten() {
        let mut d = Dedup::default();
        for n in 0..=INCARNATIONS as u64 {
            d.note(id(n, 1), 100 - n, Seen::One(n));
        }
        assert_eq!(d.0.len(), INCARNATIONS);
        assert_eq!(d.look(id(INCARNATIONS as u64, 1)), None);
        assert!(d.look(id(0, 1)).is_some());
    }

    #[test]
    fn every_outcome_survives_the_checkpoint() {
        let done = |wrote, succeeded| TxnOutcome::Facade(FacadeOutcome::Done { revision: 300, wrote, succeeded });
        let outcomes = [
            TxnOutcome::Committed { revisions: vec![9] },
            TxnOutcome::Committed { revisions: vec![] },
            TxnOutcome::Committed { revisions: vec![1, u64::MAX, 0] },
            TxnOutcome::GuardFailed { index: 3, found: None },
            TxnOutcome::GuardFailed { index: 0, found: Some(12) },
            TxnOutcome::Fenced,
            TxnOutcome::TooLarge,
            TxnOutcome::Expired,
            done(false, false),
            done(true, false),
            done(false, true),
            done(true, true),
            TxnOutcome::Facade(FacadeOutcome::Compacted),
            TxnOutcome::Facade(FacadeOutcome::Future),
            TxnOutcome::Facade(FacadeOutcome::KeyNotFound),
            TxnOutcome::Facade(FacadeOutcome::LeaseNotFound),
        ];
        let mut d = Dedup::default();
        for (n, o) in outcomes.iter().enumerate() {
            d.note(id(1 << 60, 2 * n as u64), n as u64, Seen::of(o));
        }
        let mut out = Writer::default();
        d.write(&mut out);
        let bytes = out.finish();
        assert_eq!(Dedup::read(&mut Reader::new(&bytes)).unwrap(), d);
        for cut in 0..bytes.len() {
            assert!(Dedup::read(&mut Reader::new(&bytes[..cut])).is_err());
        }
        for (n, o) in outcomes.iter().enumerate() {
            assert_eq!(d.look(id(1 << 60, 2 * n as u64)).as_ref(), Some(o));
        }
    }
}
