//! When leases end: a function of the times that it is given.
//!
//! ```text
//!   granted, taken over ─► runs until its deadline ─► due ─► ending ─► revoked
//!                            ▲      │                          │
//!                            └ renew┘◄───────── again ─────────┘
//! ```
//!
//! Leases are in order of their deadlines, so that looking costs what is due and
//! not what there is. One that is ending is not renewed any more: its client is
//! told that it is gone, as it will be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triarch_env::Mono;
use triarch_mvcc::FacadeLease;

struct Held {
    lease: FacadeLease,
    deadline: Mono,
    /// Being revoked: not in the order.
    ending: bool,
}

/// The leases of a cluster as its leader sees them.
#[derive(Default)]
pub(crate) struct Deadlines {
    leases: BTreeMap<i64, Held>,
    order: BTreeSet<(Mono, i64)>,
}

/// A lease's whole time.
pub(crate) fn ttl(lease: &FacadeLease) -> Duration {
    Duration::from_secs(lease.ttl.unsigned_abs())
}

impl Deadlines {
    /// A lease was granted, or is taken over from another leader: it has its
    /// whole time from `now`. One that is known goes on as it is.
    pub fn granted(&mut self, lease: FacadeLease, now: Mono) {
        if self.leases.get(&lease.id).is_some_and(|held| held.lease == lease) {
            return;
        }
        self.revoked(lease.id);
        self.run(lease, now + ttl(&lease));
    }

    fn run(&mut self, lease: FacadeLease, deadline: Mono) {
        self.order.insert((deadline, lease.id));
        self.leases.insert(lease.id, Held { lease, deadline, ending: false });
    }

    /// A lease is gone.
    pub fn revoked(&mut self, id: i64) {
        if let Some(held) = self.leases.remove(&id) {
            self.order.remove(&(held.deadline, id));
        }
    }

    /// Only these are left; new ones among them begin now.
    pub fn replace(&mut self, leases: &[FacadeLease], now: Mono) {
        let present: BTreeSet<i64> = leases.iter().map(|l| l.id).collect();
        let gone: Vec<i64> = self.leases.keys().filter(|id| !present.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| self.revoked(id));
        leases.iter().for_each(|lease| self.granted(*lease, now));
    }

    /// Gives a lease its whole time again; `false`: it is not there, or ending.
    pub fn renew(&mut self, id: i64, now: Mono) -> bool {
        match self.leases.get_mut(&id) {
            Some(held) if !held.ending => {
                self.order.remove(&(held.deadline, id));
                held.deadline = now + ttl(&held.lease);
                self.order.insert((held.deadline, id));
                true
            }
            _ => false,
        }
    }

    /// What is left of a lease's time; `None`: it is not there, or ending.
    pub fn remaining(&self, id: i64, now: Mono) -> Option<Duration> {
        self.leases.get(&id).filter(|held| !held.ending).map(|held| held.deadline.since(now))
    }

    /// Up to `max` leases whose time is over. They count as ending from here on.
    pub fn due(&mut self, now: Mono, max: usize) -> Vec<FacadeLease> {
        let mut due = Vec::new();
        while due.len() < max
            && let Some((deadline, id)) = self.order.first().copied()
            && deadline <= now
        {
            self.order.pop_first();
            if let Some(held) = self.leases.get_mut(&id) {
                held.ending = true;
                due.push(held.lease);
            }
        }
        due
    }

    /// A lease that was ending is not known to be revoked: it is due again at `at`.
    pub fn again(&mut self, lease: &FacadeLease, at: Mono) {
        if self.leases.get(&lease.id).is_some_and(|held| held.ending && held.lease == *lease) {
            self.run(*lease, at);
        }
    }

    /// When the next lease is due.
    pub fn next(&self) -> Option<Mono> {
        self.order.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    fn lease(id: i64, ttl: i64, revision: u64) -> FacadeLease {
        FacadeLease { id, ttl, revision }
    }

    fn ids(leases: &[FacadeLease]) -> Vec<i64> {
        leases.iter().map(|l| l.id).collect()
    }

    #[test]
    fn leases_are_due_in_the_order_of_their_deadlines_and_each_once() {
        let mut d = Deadlines::default();
        for (id, ttl) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            d.granted(lease(id, ttl, 1), at(0));
        }
        assert_eq!(d.next(), Some(at(10)));
        assert_eq!(ids(&d.due(at(9), 9)), [0i64; 0]);
        assert_eq!(ids(&d.due(at(25), 2)), [2, 4]);
        assert_eq!(ids(&d.due(at(25), 2)), [3]);
        assert_eq!(ids(&d.due(at(25), 2)), [0i64; 0]);
        assert_eq!(d.next(), Some(at(30)));
    }

    #[test]
    fn a_renewed_lease_has_its_whole_time_again_and_an_ending_one_is_not_renewed() {
        let mut d = Deadlines::default();
        d.granted(lease(1, 10, 1), at(0));
        assert!(d.renew(1, at(8)) && !d.renew(2, at(8)));
        assert_eq!(d.remaining(1, at(12)), Some(Duration::from_secs(6)));
        assert_eq!(ids(&d.due(at(17), 9)), [0i64; 0]);
        assert_eq!(ids(&d.due(at(18), 9)), [1]);
        assert!(!d.renew(1, at(18)));
        assert_eq!(d.remaining(1, at(18)), None);
        // Whether it was revoked is not known: it is tried again, and may be renewed before.
        d.again(&lease(1, 10, 1), at(19));
        assert_eq!(ids(&d.due(at(19), 9)), [1]);
        d.revoked(1);
        d.again(&lease(1, 10, 1), at(20));
        assert_eq!(d.next(), None);
    }

    #[test]
    fn a_lease_that_is_heard_of_twice_keeps_its_time_and_one_granted_anew_does_not() {
        let mut d = Deadlines::default();
        d.granted(lease(1, 10, 1), at(0));
        d.granted(lease(1, 10, 1), at(5));
        assert_eq!(d.next(), Some(at(10)));
        assert_eq!(ids(&d.due(at(10), 9)), [1]);
        d.granted(lease(1, 10, 7), at(11));
        d.again(&lease(1, 10, 1), at(12));
        assert_eq!(d.next(), Some(at(21)));
        d.replace(&[lease(2, 5, 9), lease(1, 10, 7)], at(12));
        assert_eq!((d.next(), d.remaining(1, at(12))), (Some(at(17)), Some(Duration::from_secs(9))));
        d.replace(&[lease(2, 5, 9)], at(13));
        assert_eq!(d.remaining(1, at(13)), None);
    }
}
