//! Who waits for which proposal. Apply hands the outcomes in, whatever way the
//! entry took to get there.
//!
//! Invariant: every waiter gets exactly one answer: the outcome of the first
//! application, or an error from its batch.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use triarch_env::Mono;
use triarch_mvcc::{CommitError, Committed, DEDUP_WINDOW};

use crate::figures::Latency;

pub(crate) type Answer = Result<Committed, CommitError>;

#[derive(Debug, Default)]
pub(crate) struct Outcomes(Mutex<Inner>);

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Answer>,
    since: Mono,
    /// The request's, when what it does is logged.
    span: Option<tracing::Span>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of proposals since the oldest one without an answer; sequence numbers follow each other.
    waiting: VecDeque<Option<Waiter>>,
    /// Sequence numbers before the first of `waiting`.
    before: u64,
    unanswered: usize,
    /// Batches by their first sequence: told when their entry is applied.
    batches: BTreeMap<u64, oneshot::Sender<()>>,
    closed: bool,
}

/// Why a proposal gets no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The oldest one without an outcome is so far back that the store's dedup
    /// window would forget it.
    Full,
    Closed,
}

impl Inner {
    fn take(&mut self, sequence: u64) -> Option<Waiter> {
        let at = sequence.checked_sub(self.before + 1)?;
        let waiter = self.waiting.get_mut(usize::try_from(at).ok()?)?.take()?;
        self.unanswered -= 1;
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.before += 1;
        }
        Some(waiter)
    }
}

impl Outcomes {
    /// Names a proposal and waits for its outcome.
    pub fn register(
        &self,
        since: Mono,
        span: Option<tracing::Span>,
    ) -> Result<(u64, oneshot::Receiver<Answer>), Refused> {
        let (answer, rx) = oneshot::channel();
        let mut inner = self.0.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.waiting.len() as u64 >= DEDUP_WINDOW {
            return Err(Refused::Full);
        }
        inner.waiting.push_back(Some(Waiter { answer, since, span }));
        inner.unanswered += 1;
        Ok((inner.before + inner.waiting.len() as u64, rx))
    }

    pub fn register_batch(&self, first: u64) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        self.0.lock().batches.insert(first, tx);
        rx
    }

    /// Answers one waiter; nothing when it has its answer already.
    pub fn resolve(&self, sequence: u64, answer: Answer) {
        let waiter = self.0.lock().take(sequence);
        if let Some(waiter) = waiter {
            let _ = waiter.answer.send(answer);
        }
    }

    /// Answers the waiters of the entry at `index`, applied at `now`.
    pub fn applied(
        &self,
        index: u64,
        now: Mono,
        latency: &Latency,
        answers: impl ExactSizeIterator<Item = (u64, Answer)>,
    ) {
        let mut done = Vec::with_capacity(answers.len());
        let mut batches = Vec::new();
        {
            let mut inner = self.0.lock();
            for (sequence, answer) in answers {
                if let Some(waiter) = inner.take(sequence) {
                    done.push((sequence, waiter, answer));
                }
                if let Some(tx) = inner.batches.remove(&sequence) {
                    batches.push(tx);
                }
            }
        }
        for (sequence, waiter, answer) in done {
            latency.observe(now.since(waiter.since));
            if let Some(span) = waiter.span {
                span.in_scope(|| tracing::debug!(index, sequence, ?answer, "applied"));
            }
            let _ = waiter.answer.send(answer);
        }
        for tx in batches {
            let _ = tx.send(());
        }
    }

    pub fn forget_batch(&self, first: u64) {
        self.0.lock().batches.remove(&first);
    }

    /// The replica stops: nobody will learn what became of what is in hand.
    pub fn close(&self) {
        let waiting = {
            let mut inner = self.0.lock();
            inner.closed = true;
            inner.before += inner.waiting.len() as u64;
            inner.unanswered = 0;
            std::mem::take(&mut inner.waiting)
        };
        drop(waiting);
    }

    pub fn unanswered(&self) -> usize {
        self.0.lock().unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(outcomes: &Outcomes) -> Result<(u64, oneshot::Receiver<Answer>), Refused> {
        outcomes.register(Mono::default(), None)
    }

    #[test]
    fn an_unanswered_proposal_never_leaves_the_dedup_window() {
        let outcomes = Outcomes::default();
        let (first, _rx) = register(&outcomes).unwrap();
        let mut held = Vec::new();
        for _ in 1..DEDUP_WINDOW {
            held.push(register(&outcomes).unwrap());
        }
        assert_eq!(register(&outcomes).unwrap_err(), Refused::Full);
        // One that is answered out of order makes no room before it.
        outcomes.resolve(held[1].0, Err(CommitError::Overloaded));
        assert_eq!(register(&outcomes).unwrap_err(), Refused::Full);
        outcomes.resolve(first, Err(CommitError::Overloaded));
        assert_eq!(register(&outcomes).unwrap().0, DEDUP_WINDOW + 1);
        assert_eq!(register(&outcomes).unwrap_err(), Refused::Full);
        assert_eq!(outcomes.unanswered() as u64, DEDUP_WINDOW - 1);
        outcomes.resolve(held[0].0, Err(CommitError::Overloaded));
        // Its neighbour had its answer already: room for both.
        assert!(register(&outcomes).is_ok() && register(&outcomes).is_ok());
        assert_eq!(register(&outcomes).unwrap_err(), Refused::Full);
    }

    #[test]
    fn each_waiter_is_answered_once_and_its_batch_is_told() {
        let (outcomes, latency) = (Outcomes::default(), Latency::default());
        let (a, mut answer) = register(&outcomes).unwrap();
        let mut batch = outcomes.register_batch(a);
        let done = |revision| Ok(Committed { outcome: triarch_mvcc::TxnOutcome::Fenced, revision });
        outcomes.applied(1, Mono::default(), &latency, [(a, done(1))].into_iter());
        outcomes.applied(1, Mono::default(), &latency, [(a, done(2)), (a + 7, done(2)), (0, done(2))].into_iter());
        assert_eq!(answer.try_recv().unwrap().unwrap().revision, 1);
        assert_eq!(batch.try_recv(), Ok(()));
        assert_eq!((latency.figures().count, outcomes.unanswered()), (1, 0));
    }

    #[test]
    fn after_the_end_nobody_waits_and_nobody_is_named() {
        let outcomes = Outcomes::default();
        let (a, mut answer) = register(&outcomes).unwrap();
        outcomes.close();
        assert_eq!(answer.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        outcomes.resolve(a, Err(CommitError::Overloaded));
        assert_eq!(register(&outcomes).unwrap_err(), Refused::Closed);
    }
}
