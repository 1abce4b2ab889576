//! Who waits for which proposal. Apply hands the outcomes in, whatever way the
//! entry took to get there.
//!
//! Invariant: every waiter gets exactly one answer: the outcome of the first
//! application, or an error from its batch.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use triarch_mvcc::{CommitError, Committed, DEDUP_WINDOW};

pub(crate) type Answer = Result<Committed, CommitError>;

#[derive(Debug, Default)]
pub(crate) struct Outcomes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Batches by their first sequence: told when their entry is applied.
    batches: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Outcomes {
    /// Names a proposal and waits for its outcome. `None` when the oldest one
    /// without an outcome is so far back that the store's dedup window would
    /// forget it.
    pub fn register(&self) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let (tx, rx) = oneshot::channel();
        let mut inner = self.0.lock();
        let sequence = inner.last + 1;
        let oldest = inner.waiting.first_key_value().map_or(sequence, |(s, _)| *s);
        if sequence - oldest >= DEDUP_WINDOW {
            return None;
        }
        inner.last = sequence;
        inner.waiting.insert(sequence, tx);
        Some((sequence, rx))
    }

    pub fn register_batch(&self, first: u64) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        self.0.lock().batches.insert(first, tx);
        rx
    }

    /// Answers one waiter; nothing when it has its answer already.
    pub fn resolve(&self, sequence: u64, answer: Answer) {
        let waiter = self.0.lock().waiting.remove(&sequence);
        if let Some(tx) = waiter {
            let _ = tx.send(answer);
        }
    }

    /// Answers the waiters of one applied entry.
    pub fn applied(&self, answers: impl Iterator<Item = (u64, Answer)>) {
        let mut done = Vec::new();
        let mut batches = Vec::new();
        {
            let mut inner = self.0.lock();
            for (sequence, answer) in answers {
                if let Some(tx) = inner.waiting.remove(&sequence) {
                    done.push((tx, answer));
                }
                if let Some(tx) = inner.batches.remove(&sequence) {
                    batches.push(tx);
                }
            }
        }
        for (tx, answer) in done {
            let _ = tx.send(answer);
        }
        for tx in batches {
            let _ = tx.send(());
        }
    }

    pub fn forget_batch(&self, first: u64) {
        self.0.lock().batches.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unanswered_proposal_never_leaves_the_dedup_window() {
        let outcomes = Outcomes::default();
        let (first, _rx) = outcomes.register().unwrap();
        let mut held = Vec::new();
        for _ in 1..DEDUP_WINDOW {
            held.push(outcomes.register().unwrap());
        }
        assert!(outcomes.register().is_none());
        outcomes.resolve(first, Err(CommitError::Overloaded));
        assert!(outcomes.register().is_some());
        assert!(outcomes.register().is_none());
    }

    #[test]
    fn each_waiter_is_answered_once_and_its_batch_is_told() {
        let outcomes = Outcomes::default();
        let (a, mut answer) = outcomes.register().unwrap();
        let mut batch = outcomes.register_batch(a);
        let done = |revision| Ok(Committed { outcome: triarch_mvcc::TxnOutcome::Fenced, revision });
        outcomes.applied([(a, done(1))].into_iter());
        outcomes.applied([(a, done(2))].into_iter());
        assert_eq!(answer.try_recv().unwrap().unwrap().revision, 1);
        assert_eq!(batch.try_recv(), Ok(()));
    }
}
