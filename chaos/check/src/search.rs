//! Linearizability without revisions: looks for an order of one key's
//! operations that explains every answer (the search of Wing and Gong, with
//! Lowe's memory of visited configurations).
//!
//! Exponential at worst, so bounded: past the bound the answer is undecided.
//! The register holds a value or is absent; compare-and-write by revision is
//! [`crate::revisions`]' matter and counts as a plain write here.

use std::collections::{BTreeMap, HashSet};

use crate::history::{Action, Operation, Outcome};

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    Not,
    /// Too many configurations for the bound.
    Undecided,
}

/// One operation as the search sees it.
#[derive(Clone, Debug)]
struct Step {
    start: u64,
    end: u64,
    effect: Effect,
    /// It may never have happened.
    optional: bool,
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Set(u64),
    Create(u64),
    Delete,
    See(Option<u64>),
}

impl Effect {
    /// The state after it; `None` when its answer contradicts the state.
    fn apply(self, state: Option<u64>) -> Option<Option<u64>> {
        match self {
            Effect::Set(v) => Some(Some(v)),
            Effect::Create(v) => state.is_none().then_some(Some(v)),
            Effect::Delete => state.is_some().then_some(None),
            Effect::See(v) => (v == state).then_some(state),
        }
    }
}

/// Searches one key's operations, from `initial`, through at most `bound`
/// configurations.
pub fn check_key(operations: &[&Operation], initial: Option<u64>, bound: usize) -> Verdict {
    let mut steps: Vec<Step> = operations.iter().filter_map(|o| step(o)).collect();
    // Values are unique: where nothing asks only whether there is one, an
    // unknown write whose value nobody saw may as well not have happened.
    if !steps.iter().any(|s| matches!(s.effect, Effect::Delete)) {
        let seen = |s: &Step| if let Effect::See(v) = s.effect { v } else { None };
        let seen: HashSet<u64> = steps.iter().filter_map(seen).collect();
        steps.retain(|s| !s.optional || !matches!(s.effect, Effect::Set(v) if !seen.contains(&v)));
    }
    steps.sort_by_key(|s| (s.start, s.end));
    search(&steps, initial, bound)
}

/// Searches every key by itself.
pub fn check(history: &[Operation], initial: &BTreeMap<String, u64>, bound: usize) -> BTreeMap<String, Verdict> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for o in history {
        keys.entry(&o.key).or_default().push(o);
    }
    keys.into_iter().map(|(k, ops)| (k.to_owned(), check_key(&ops, initial.get(k).copied(), bound))).collect()
}

fn step(o: &Operation) -> Option<Step> {
    let effect = match (&o.action, o.outcome) {
        (_, Outcome::Refused) | (Action::Read, Outcome::Unknown) => return None,
        (Action::Write(v) | Action::Swap { to: v, .. }, _) => Effect::Set(*v),
        (Action::Create(v), _) => Effect::Create(*v),
        (Action::Delete, _) => Effect::Delete,
        (Action::Read, Outcome::Ok { value, .. }) => Effect::See(value),
    };
    let optional = o.outcome == Outcome::Unknown;
    Some(Step { start: o.start, end: if optional { u64::MAX } else { o.end }, effect, optional })
}

/// Depth first over sets of operations already placed. A configuration is the
/// set and the state; operations are placed roughly by start, so the set is
/// kept as the length of its full front and a short rest.
fn search(steps: &[Step], initial: Option<u64>, bound: usize) -> Verdict {
    let mut visited: HashSet<Configuration> = HashSet::new();
    let mut stack = vec![Configuration { front: 0, rest: Vec::new(), state: initial }];
    while let Some(at) = stack.pop() {
        if at.missing(steps).all(|i| steps[i].optional) {
            return Verdict::Linearizable;
        }
        if !visited.insert(at.clone()) {
            continue;
        }
        if visited.len() > bound {
            return Verdict::Undecided;
        }
        // Only what was asked before the first open answer can be next.
        let limit = at.missing(steps).map(|i| steps[i].end).min().unwrap_or(u64::MAX);
        let candidates: Vec<usize> = at.missing(steps).take_while(|i| steps[*i].start <= limit).collect();
        for i in candidates.into_iter().rev() {
            if let Some(state) = steps[i].effect.apply(at.state) {
                stack.push(at.with(i, state));
            }
        }
    }
    Verdict::Not
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration {
    /// All steps below are placed.
    front: usize,
    /// Placed steps at or above `front`, ascending.
    rest: Vec<usize>,
    state: Option<u64>,
}

impl Configuration {
    fn missing<'a>(&'a self, steps: &'a [Step]) -> impl Iterator<Item = usize> + 'a {
        (self.front..steps.len()).filter(|i| self.rest.binary_search(i).is_err())
    }

    fn with(&self, i: usize, state: Option<u64>) -> Configuration {
        let mut rest = self.rest.clone();
        let at = rest.partition_point(|r| *r < i);
        rest.insert(at, i);
        let mut front = self.front;
        let full = rest.iter().take_while(|r| {
            let next = **r == front;
            front += usize::from(next);
            next
        });
        let full = full.count();
        rest.drain(..full);
        Configuration { front, rest, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(action: Action, outcome: Outcome, start: u64, end: u64) -> Operation {
        Operation { client: 0, key: "k".into(), action, outcome, start, end }
    }

    const OK: Outcome = Outcome::Ok { revision: 0, value: None };

    fn saw(v: Option<u64>) -> Outcome {
        Outcome::Ok { revision: 0, value: v }
    }

    fn verdict(history: &[Operation]) -> Verdict {
        check_key(&history.iter().collect::<Vec<_>>(), None, 100_000)
    }

    #[test]
    fn a_stale_read_has_no_order() {
        let mut history =
            vec![op(Action::Write(1), OK, 0, 1), op(Action::Write(2), OK, 2, 3), op(Action::Read, saw(Some(1)), 4, 5)];
        assert_eq!(verdict(&history), Verdict::Not);
        history[2].start = 2;
        assert_eq!(verdict(&history), Verdict::Linearizable);
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_but_not_twice() {
        let unknown = op(Action::Write(1), Outcome::Unknown, 0, 0);
        let read = |v, at| op(Action::Read, saw(v), at, at + 1);
        assert_eq!(verdict(&[unknown.clone(), read(None, 2), read(Some(1), 4)]), Verdict::Linearizable);
        let again = [unknown, read(Some(1), 2), op(Action::Write(2), OK, 4, 5), read(Some(2), 6), read(Some(1), 8)];
        assert_eq!(verdict(&again), Verdict::Not);
    }

    #[test]
    fn a_create_needs_absence_and_a_delete_presence() {
        let twice = [op(Action::Create(1), OK, 0, 1), op(Action::Create(2), OK, 2, 3)];
        assert_eq!(verdict(&twice), Verdict::Not);
        let between = [twice[0].clone(), op(Action::Delete, OK, 2, 3), op(Action::Create(2), OK, 4, 5)];
        assert_eq!(verdict(&between), Verdict::Linearizable);
        assert_eq!(verdict(&[op(Action::Delete, OK, 0, 1)]), Verdict::Not);
    }

    #[test]
    fn past_its_bound_the_search_says_so() {
        let mut history: Vec<Operation> = (0..20).map(|i| op(Action::Write(i), OK, 0, 100)).collect();
        history.push(op(Action::Read, saw(Some(99)), 200, 201));
        let all: Vec<&Operation> = history.iter().collect();
        assert_eq!(check_key(&all, None, 1000), Verdict::Undecided);
    }
}
