//! Who has accepted this replica's leadership, and how lately: the proof that a
//! read index needs.
//!
//! openraft dates an acknowledgement by its log id: the answer to entries up to
//! N also dates an empty request after N that was sent later and has not been
//! answered at all. With several requests in flight a leader that others have
//! replaced meanwhile takes old answers for new ones. Here each answer is
//! matched with its own request, and requests and reads are ordered by one
//! counter, not by a clock.
//!
//! Invariant: [`Acks::confirmed`] since S means that a quorum has accepted a
//! request of that leadership which was made after S; hence no later leadership
//! had committed anything before S.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_mvcc::Epoch;

use crate::types::NodeId;

/// A point in the order of requests and reads of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

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
    pub fn stamp(&self) -> Stamp {
        let mut state = self.state.lock();
        state.last += 1;
        Stamp(state.last)
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
        let state = self.state.lock();
        let agrees =
            |id: &NodeId| *id == me || state.accepted.get(id).is_some_and(|(of, made)| *of == epoch && *made > since);
        !configs.is_empty() && configs.iter().all(|c| c.iter().filter(|id| agrees(id)).count() * 2 > c.len())
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
    use super::*;

    const EPOCH: Epoch = Epoch { term: 4, node: 1 };

    fn of(ids: &[NodeId]) -> BTreeSet<NodeId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn only_requests_made_after_the_read_confirm_it() {
        let (acks, three) = (Acks::default(), [of(&[1, 2, 3])]);
        let (before, read, after) = (acks.stamp(), acks.stamp(), acks.stamp());
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
        let (read, after) = (acks.stamp(), acks.stamp());
        acks.accepted(2, Epoch { term: 3, node: 1 }, after);
        acks.accepted(9, EPOCH, after);
        assert!(!acks.confirmed(1, &[of(&[1, 2, 3])], EPOCH, read));
        assert!(acks.confirmed(1, &[of(&[1])], EPOCH, read), "alone it is the quorum");
        assert!(!acks.confirmed(1, &[], EPOCH, read));
    }

    #[test]
    fn while_the_membership_changes_both_configurations_must_agree() {
        let (acks, joint) = (Acks::default(), [of(&[1, 2, 3]), of(&[1, 4, 5])]);
        let (read, after) = (acks.stamp(), acks.stamp());
        acks.accepted(2, EPOCH, after);
        assert!(!acks.confirmed(1, &joint, EPOCH, read));
        acks.accepted(5, EPOCH, after);
        assert!(acks.confirmed(1, &joint, EPOCH, read));
    }
}
