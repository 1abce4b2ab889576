//! The checkers against a naive one that tries every order.

use proptest::prelude::*;
use triarch_check::search::{self, Verdict};
use triarch_check::{Action, Operation, Outcome, Truth, revisions};

/// Tries every order and every choice of unknown operations.
fn naive(history: &[Operation], done: &mut Vec<bool>, state: Option<u64>) -> bool {
    let open = |done: &[bool]| (0..history.len()).filter(|i| !done[*i]).collect::<Vec<_>>();
    let rest = open(done);
    if rest.iter().all(|i| history[*i].outcome == Outcome::Unknown) {
        return true;
    }
    let end = |o: &Operation| if o.outcome == Outcome::Unknown { u64::MAX } else { o.end };
    for i in &rest {
        let o = &history[*i];
        if rest.iter().any(|j| end(&history[*j]) < o.start) {
            continue;
        }
        let next = match (&o.action, o.outcome) {
            (Action::Read, Outcome::Ok { value, .. }) if value == state => state,
            (Action::Read, Outcome::Ok { .. }) => continue,
            (Action::Write(v), _) => Some(*v),
            (Action::Create(v), _) if state.is_none() => Some(*v),
            (Action::Delete, _) if state.is_some() => None,
            (Action::Create(_) | Action::Delete, _) => continue,
            _ => state,
        };
        done[*i] = true;
        let works = naive(history, done, next);
        done[*i] = false;
        if works {
            return true;
        }
    }
    false
}

fn history() -> impl Strategy<Value = Vec<Operation>> {
    let one = (0..10u8, 0..12u64, 1..8u64, proptest::option::of(0..5u64), prop::bool::weighted(0.2));
    prop::collection::vec(one, 1..7).prop_map(|all| {
        let make = |(i, (kind, start, length, value, unknown)): (usize, (u8, u64, u64, Option<u64>, bool))| {
            let action = match kind {
                0..4 => Action::Write(i as u64),
                4 => Action::Create(i as u64),
                5 => Action::Delete,
                _ => Action::Read,
            };
            let value = if action == Action::Read { value } else { None };
            let unknown = unknown && action != Action::Read;
            let outcome = if unknown { Outcome::Unknown } else { Outcome::Ok { revision: 0, value } };
            Operation { client: i as u32, key: "k".into(), action, outcome, start, end: start + length }
        };
        all.into_iter().enumerate().map(make).collect()
    })
}

/// A register that is right: each write takes its revision at a moment between
/// start and end, each read sees the register at such a moment.
fn executed() -> impl Strategy<Value = Vec<Operation>> {
    let one = (prop::bool::ANY, 0..40u64, 1..10u64, 0..10u64);
    prop::collection::vec(one, 1..12).prop_map(|all| {
        let mut moments: Vec<(u64, usize)> =
            all.iter().enumerate().map(|(i, (_, start, length, at))| (start + at % length, i)).collect();
        moments.sort();
        let (mut revision, mut value) = (100, None);
        let mut out = vec![None; all.len()];
        for (_, i) in moments {
            let (is_write, start, length, _) = all[i];
            let (action, outcome) = if is_write {
                revision += 1;
                value = Some(i as u64);
                (Action::Write(i as u64), Outcome::Ok { revision, value: None })
            } else {
                let at = if value.is_some() { revision } else { 0 };
                (Action::Read, Outcome::Ok { revision: at, value })
            };
            let key = "k".to_owned();
            out[i] = Some(Operation { client: i as u32, key, action, outcome, start, end: start + length });
        }
        out.into_iter().flatten().collect()
    })
}

fn searched(history: &[Operation]) -> Verdict {
    search::check_key(&history.iter().collect::<Vec<_>>(), None, 1_000_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_trying_every_order(history in history()) {
        let expected = naive(&history, &mut vec![false; history.len()], None);
        let found = searched(&history);
        prop_assert_eq!(found == Verdict::Linearizable, expected);
        prop_assert_ne!(found, Verdict::Undecided);
    }

    #[test]
    fn a_register_that_is_right_passes_both_checkers(history in executed()) {
        prop_assert_eq!(revisions::check(&history, &Truth::default()), []);
        prop_assert_eq!(searched(&history), Verdict::Linearizable);
    }

    #[test]
    fn what_the_search_refuses_never_passes_by_revisions(history in executed(), which in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        // A read is given another one's answer: right by luck, or found by both.
        let mut history = history;
        let reads: Vec<usize> = (0..history.len()).filter(|i| history[*i].action == Action::Read).collect();
        prop_assume!(!reads.is_empty());
        let from = history[*to.get(&reads)].outcome;
        history[*which.get(&reads)].outcome = from;
        if searched(&history) == Verdict::Not {
            prop_assert!(!revisions::check(&history, &Truth::default()).is_empty());
        }
    }
}
