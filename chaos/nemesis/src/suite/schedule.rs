//! Which fault comes when: a pure function of the seed.
//!
//! Faults come in rounds. Each round is all faults that can be done here, once,
//! in an order of its own; so every fault comes up early and often, and no two
//! rounds are alike.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::faults::{Kind, Target};

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub name: &'static str,
    /// Load alone before it, milliseconds.
    pub pause_ms: u64,
    /// How long it lasts, milliseconds.
    pub lasts_ms: u64,
    pub whom: Whom,
    /// For what else it has to decide.
    pub dice: u64,
}

/// Whom it hits, as it is when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Leader,
    /// The follower of that number, counted from 0.
    Follower(usize),
}

/// Pauses between faults, milliseconds.
const PAUSE: std::ops::Range<u64> = 800..2_500;

/// Faults without end, from a seed.
pub struct Schedule<'a> {
    kinds: Vec<&'a Kind>,
    followers: usize,
    rng: ChaCha8Rng,
    round: Vec<&'a Kind>,
}

impl<'a> Schedule<'a> {
    /// Of these kinds, for a cluster of `replicas`.
    pub fn new(seed: u64, kinds: Vec<&'a Kind>, replicas: usize) -> Schedule<'a> {
        let followers = replicas.saturating_sub(1).max(1);
        Schedule { kinds, followers, rng: ChaCha8Rng::seed_from_u64(seed), round: Vec::new() }
    }
}

impl Iterator for Schedule<'_> {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.round.is_empty() {
            self.round = self.kinds.clone();
            self.round.shuffle(&mut self.rng);
        }
        let kind = self.round.pop()?;
        let (from, below) = kind.lasts;
        let follower = Whom::Follower(self.rng.random_range(0..self.followers));
        // Each draw is made whatever the kind, so that one more kind does not
        // change what the others draw from a number on.
        let leader = self.rng.random_bool(0.5);
        let whom = match kind.target {
            Target::Leader | Target::All => Whom::Leader,
            Target::Follower => follower,
            Target::Any if leader => Whom::Leader,
            Target::Any => follower,
        };
        let share: f64 = self.rng.random();
        let lasts_ms = from + ((below - from) as f64 * share) as u64;
        Some(Planned {
            name: kind.name,
            pause_ms: self.rng.random_range(PAUSE),
            lasts_ms,
            whom,
            dice: self.rng.random(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FAULTS;
    use std::collections::BTreeSet;

    fn first(seed: u64, n: usize) -> Vec<Planned> {
        Schedule::new(seed, FAULTS.iter().collect(), 3).take(n).collect()
    }

    #[test]
    fn a_seed_decides_the_whole_schedule_and_another_seed_another() {
        assert_eq!(first(7, 200), first(7, 200));
        assert_ne!(first(7, 200), first(8, 200));
    }

    #[test]
    fn each_fault_comes_once_a_round() {
        let names: Vec<&str> = first(3, FAULTS.len() * 4).iter().map(|p| p.name).collect();
        for round in names.chunks(FAULTS.len()) {
            assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), FAULTS.len());
        }
    }

    #[test]
    fn faults_last_and_hit_as_their_kind_says() {
        for planned in first(11, 500) {
            let kind = crate::faults::by_name(planned.name).unwrap();
            assert!((kind.lasts.0..=kind.lasts.1).contains(&planned.lasts_ms), "{planned:?}");
            assert!(PAUSE.contains(&planned.pause_ms), "{planned:?}");
            match kind.target {
                Target::Leader | Target::All => assert_eq!(planned.whom, Whom::Leader),
                Target::Follower => assert!(matches!(planned.whom, Whom::Follower(0 | 1))),
                Target::Any => {}
            }
        }
        let hit = |whom: Whom| first(11, 500).iter().any(|p| p.name == "kill" && p.whom == whom);
        assert!(hit(Whom::Leader) && hit(Whom::Follower(0)) && hit(Whom::Follower(1)));
    }
}
