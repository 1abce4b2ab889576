//! Judging a run.

use std::collections::BTreeMap;

use triarch_check::search::{self, Verdict};
use triarch_check::{FinalState, Operation, Truth, Violation, check_acks, check_watch, revisions};

use crate::watcher::Watched;

/// Configurations that the search looks at for each key.
const SEARCH_BOUND: usize = 100_000;

/// What was found, by kind.
#[derive(Debug, Default)]
pub struct Findings {
    pub lost: Vec<Violation>,
    pub order: Vec<Violation>,
    pub watches: Vec<Violation>,
    /// Keys whose order the search could not decide inside its bound.
    pub undecided: usize,
    pub keys: usize,
}

/// Checks everything against everything.
pub fn judge(history: &[Operation], watched: &[Watched], finals: &[FinalState]) -> Findings {
    let histories: Vec<_> = watched.iter().map(|w| w.history.clone()).collect();
    let (truth, mut watches) = Truth::collect(history, &histories);
    for w in watched {
        watches.extend(w.violations.iter().cloned());
        watches.extend(check_watch(&w.history, &truth));
    }
    let mut order = revisions::check(history, &truth);
    let verdicts = search::check(history, &BTreeMap::new(), SEARCH_BOUND);
    let not = verdicts.iter().filter(|(_, v)| **v == Verdict::Not);
    order.extend(not.map(|(key, _)| Violation::NotLinearizable { key: key.clone() }));
    let mut lost: Vec<Violation> = finals.iter().flat_map(|state| check_acks(history, &truth, state)).collect();
    for pair in finals.windows(2).filter(|pair| pair[0].keys != pair[1].keys) {
        let watch = format!("final list of {}", pair[1].name);
        order.push(Violation::Broken { watch, what: format!("differs from that of {}", pair[0].name) });
    }
    lost.dedup();
    let undecided = verdicts.values().filter(|v| **v == Verdict::Undecided).count();
    Findings { lost, order, watches, undecided, keys: verdicts.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_check::{Action, Change, ChangeKind, Outcome, WatchHistory};

    fn history() -> Vec<Operation> {
        let op =
            |action, outcome, start| Operation { client: 0, key: "r".into(), action, outcome, start, end: start + 1 };
        let ok = |revision, value| Outcome::Ok { revision, value };
        vec![
            op(Action::Create(1), ok(10, None), 0),
            op(Action::Read, ok(10, Some(1)), 2),
            op(Action::Write(2), ok(11, None), 4),
            op(Action::Write(3), Outcome::Unknown, 6),
            op(Action::Read, ok(12, Some(3)), 8),
        ]
    }

    fn watched() -> Watched {
        let change = |revision, value| Change { revision, key: "r".into(), kind: ChangeKind::Modified, value };
        let initial = [("r".to_owned(), 1)].into();
        let changes = vec![change(11, 2), change(12, 3)];
        let history = WatchHistory { name: "0".into(), initial, start: 10, end: 12, changes };
        Watched { history, violations: Vec::new(), resumed: Vec::new() }
    }

    fn state(name: &str, held: (u64, u64)) -> FinalState {
        FinalState { name: name.into(), keys: [("r".to_owned(), held)].into() }
    }

    fn counts(history: &[Operation], watched: Watched, finals: &[FinalState]) -> (usize, usize, usize) {
        let f = judge(history, &[watched], finals);
        (f.lost.len(), f.order.len(), f.watches.len())
    }

    #[test]
    fn a_run_in_which_all_is_well_has_no_findings() {
        assert_eq!(counts(&history(), watched(), &[state("a", (3, 12)), state("b", (3, 12))]), (0, 0, 0));
    }

    #[test]
    fn a_lost_write_a_stale_read_a_gap_and_differing_replicas_are_each_found() {
        assert_eq!(counts(&history(), watched(), &[state("a", (1, 10))]).0, 1);
        let mut stale = history();
        stale[4].outcome = Outcome::Ok { revision: 10, value: Some(1) };
        assert!(counts(&stale, watched(), &[]).1 > 0);
        let mut gap = watched();
        gap.history.changes.remove(0);
        assert_eq!(counts(&history(), gap, &[]).2, 1);
        assert_eq!(counts(&history(), watched(), &[state("a", (3, 12)), state("b", (2, 11))]).1, 1);
    }
}
