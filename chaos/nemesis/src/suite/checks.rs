//! The promises that a run is held to, and how often each was kept.

use std::collections::BTreeMap;

/// One promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    Whole,
    GoesOn,
    Undisturbed,
    Unnoticed,
    WatchesStay,
    Lost,
    Order,
    Watches,
    Pods,
    Panics,
}

impl Check {
    /// For who reads the report.
    pub fn text(self) -> &'static str {
        match self {
            Check::Whole => "after each fault all replicas are ready and caught up within a minute",
            Check::GoesOn => "the others acknowledge writes again within five seconds",
            Check::Undisturbed => "a replica that comes back causes no election",
            Check::Unnoticed => {
                "no command fails during a stop, a transfer, a rolling restart or upgrade, a clock's jump"
            }
            Check::WatchesStay => "no watch breaks at a replica that was not hit",
            Check::Lost => "every acknowledged write is there in the end, on each replica",
            Check::Order => "answers are linearizable, revisions increase, replicas hold the same",
            Check::Watches => "each watch is ordered, unique and gapless over all its resumptions, without a relist",
            Check::Pods => "pods are as many as there are to be when faults have ended",
            Check::Panics => "no replica has panicked",
        }
    }
}

/// How often a promise was looked at, and each time that it was not kept.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub looked: u64,
    pub failed: Vec<String>,
    /// What stands behind one look (operations, events, …), added up.
    pub behind: u64,
}

/// Failures that are kept with their words.
const KEPT: usize = 40;

/// All verdicts.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    verdicts: BTreeMap<Check, Verdict>,
    failed: u64,
}

impl Checks {
    /// One look; `why` when it was not kept.
    pub fn look(&mut self, check: Check, behind: u64, why: Option<String>) {
        let verdict = self.verdicts.entry(check).or_default();
        verdict.looked += 1;
        verdict.behind += behind;
        if let Some(why) = why {
            self.failed += 1;
            eprintln!("FAILED: {}: {why}", check.text());
            if verdict.failed.len() < KEPT {
                verdict.failed.push(why);
            }
        }
    }

    pub fn looked(&self) -> u64 {
        self.verdicts.values().map(|v| v.looked).sum()
    }

    pub fn failed(&self) -> u64 {
        self.failed
    }

    pub fn all(&self) -> impl Iterator<Item = (&Check, &Verdict)> {
        self.verdicts.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_look_counts_and_each_failure_keeps_its_words() {
        let mut checks = Checks::default();
        checks.look(Check::Whole, 3, None);
        checks.look(Check::Whole, 2, Some("b is missing".into()));
        checks.look(Check::Lost, 10, None);
        assert_eq!((checks.looked(), checks.failed()), (3, 1));
        let whole = checks.all().find(|(c, _)| **c == Check::Whole).unwrap().1;
        assert_eq!((whole.behind, whole.failed.clone()), (5, vec!["b is missing".to_owned()]));
    }
}
