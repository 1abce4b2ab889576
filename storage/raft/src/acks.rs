//! Who has accepted this replica's leadership, and how lately: the proof that a
//! read index needs, and the age by which a leader that hears from nobody stops
//! acting.
//!
//! openraft dates an acknowledgement by its log id: the answer to entries up to
//! N also dates an empty request after N that was sent later and has not been
//! answered at all. With several requests in flight a leader that others have
//! replaced meanwhile takes old answers for new ones. Here each answer is
//! matched with its own request and dated by when that was made, also when it
//! lay in a queue for long; requests and reads are ordered by one counter, not
//! by a clock.
//!
//! Invariant: [`Acks::confirmed`] since S means that a quorum has accepted a
//! request of that leadership which was made after S; hence no later leadership
//! had committed anything before S.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::Mono;
use triarch_mutants::mutant;
use triarch_mvcc::Epoch;

use crate::types::NodeId;

/// A point in the order of requests and reads of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    order: u64,
    at: Mono,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// Per peer: the latest request that it accepted, by when it was made.
    accepted: BTreeMap<NodeId, (Epoch, Stamp)>,
}

#[derive(Debug, Default)]
pub(crate) struct Acks {
    state: Mutex<State>,
    changed: Notify,
}

impl Acks {
    /// Later than every stamp before it.
    pub fn stamp(&self, now: Mono) -> Stamp {
        let mut state = self.state.lock();
        state.last += 1;
        Stamp { order: state.last, at: now }
    }

    /// `peer` has accepted a request of `epoch` that was made at `made`.
    pub fn accepted(&self, peer: NodeId, epoch: Epoch, made: Stamp) {
        {
            let mut state = self.state.lock();
            if state.accepted.get(&peer).is_some_and(|known| *known >= (epoch, made)) {
                return;
            }
            state.accepted.insert(peer, (epoch, made));
        }
        self.changed.notify_waiters();
    }

    /// Whether in each of `configs` a majority, this replica `me` included, has
    /// accepted a request of `epoch` made after `since`.
    pub fn confirmed(&self, me: NodeId, configs: &[BTreeSet<NodeId>], epoch: Epoch, since: Stamp) -> bool {
        if mutant("lease-read") {
            return true;
        }
        let state = self.state.lock();
        let agrees =
            |id: &NodeId| *id == me || state.accepted.get(id).is_some_and(|(of, made)| *of == epoch && *made > since);
        !configs.is_empty() && configs.iter().all(|c| c.iter().filter(|id| agrees(id)).count() * 2 > c.len())
    }

    /// How long ago the latest requests of `epoch` were made of which each of
    /// `configs` has accepted one by a majority, this replica `me` included.
    /// `None`: no majority has accepted any.
    pub fn quorum_age(
        &self,
        me: NodeId,
        configs: &[BTreeSet<NodeId>],
        epoch: Epoch,
        now: Mono,
    ) -> Option<std::time::Duration> {
        let state = self.state.lock();
        let made = |id: &NodeId| match state.accepted.get(id) {
            _ if *id == me => Some(now),
            Some((of, made)) if *of == epoch => Some(made.at),
            _ => None,
        };
        let ages = configs.iter().map(|c| {
            let mut times: Vec<_> = c.iter().map(made).collect();
            // Latest first: the last of the smallest majority.
            times.sort_by(|a, b| b.cmp(a));
            Some(now - times.get(c.len() / 2).copied().flatten()?)
        });
        ages.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Resolves once `done` says so; it is asked again after each acknowledgement.
    pub async fn until(&self, mut done: impl FnMut() -> bool) {
        loop {
            let notified = self.changed.notified();
            let mut notified = std::pin::pin!(notified);
            // Registered before the look, so that no change falls in between.
            notified.as_mut().enable();
            if done() {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EPOCH: Epoch = Epoch { term: 4, node: 1 };
    const NOW: Mono = Mono(Duration::from_secs(100));

    fn of(ids: &[NodeId]) -> BTreeSet<NodeId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn only_requests_made_after_the_read_confirm_it() {
        let (acks, three) = (Acks::default(), [of(&[1, 2, 3])]);
        let (before, read, after) = (acks.stamp(NOW), acks.stamp(NOW), acks.stamp(NOW));
        let confirmed = |since| acks.confirmed(1, &three, EPOCH, since);
        acks.accepted(2, EPOCH, before);
        acks.accepted(3, EPOCH, before);
        assert!(!confirmed(read));
        acks.accepted(2, EPOCH, after);
        assert!(confirmed(read));
        acks.accepted(2, EPOCH, before);
        assert!(confirmed(read), "an older answer that comes later takes nothing away");
        assert!(!confirmed(after));
    }

    #[test]
    fn another_leaderships_answers_and_learners_confirm_nothing() {
        let acks = Acks::default();
        let (read, after) = (acks.stamp(NOW), acks.stamp(NOW));
        acks.accepted(2, Epoch { term: 3, node: 1 }, after);
        acks.accepted(9, EPOCH, after);
        assert!(!acks.confirmed(1, &[of(&[1, 2, 3])], EPOCH, read));
        assert!(acks.confirmed(1, &[of(&[1])], EPOCH, read), "alone it is the quorum");
        assert!(!acks.confirmed(1, &[], EPOCH, read));
    }

    #[test]
    fn while_the_membership_changes_both_configurations_must_agree() {
        let (acks, joint) = (Acks::default(), [of(&[1, 2, 3]), of(&[1, 4, 5])]);
        let (read, after) = (acks.stamp(NOW), acks.stamp(NOW));
        acks.accepted(2, EPOCH, after);
        assert!(!acks.confirmed(1, &joint, EPOCH, read));
        acks.accepted(5, EPOCH, after);
        assert!(acks.confirmed(1, &joint, EPOCH, read));
    }

    #[test]
    fn a_quorums_age_is_that_of_the_request_and_not_of_its_answer() {
        let acks = Acks::default();
        let second = Duration::from_secs(1);
        let age = |configs: &[BTreeSet<NodeId>]| acks.quorum_age(1, configs, EPOCH, NOW);
        let three = [of(&[1, 2, 3])];
        assert_eq!(age(&three), None, "nobody has accepted anything");
        acks.accepted(3, Epoch { term: 3, node: 1 }, acks.stamp(NOW));
        assert_eq!(age(&three), None, "an earlier leadership's answer");
        // However late these arrive.
        acks.accepted(2, EPOCH, acks.stamp(Mono(99 * second)));
        assert_eq!(age(&three), Some(second));
        assert_eq!(age(&[of(&[1, 2, 3, 4, 5])]), None, "two of five");
        acks.accepted(4, EPOCH, acks.stamp(Mono(95 * second)));
        acks.accepted(5, EPOCH, acks.stamp(Mono(97 * second)));
        assert_eq!(age(&[of(&[1, 2, 3, 4, 5])]), Some(3 * second));
        assert_eq!(age(&[of(&[1, 2, 3]), of(&[1, 4, 5])]), Some(3 * second), "both configurations must agree");
        assert_eq!(age(&[of(&[1])]), Some(Duration::ZERO), "alone it is the quorum");
        assert_eq!(age(&[]), None);
    }
}
