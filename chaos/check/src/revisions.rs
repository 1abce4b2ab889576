//! Linearizability when writes name their revisions: the order of writes is
//! then given, and only has to be checked.
//!
//! Every operation gets a place: a write its revision, a read the place just
//! after the write that it saw. That order explains each answer by itself; it
//! is a linearization if nothing that was asked after another's answer comes
//! before it. One sweep by time, instead of a search.
//!
//! Writes of different keys share one counter, so their order is checked over
//! all keys together; a read says something about its own key only.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Action, Operation, Outcome, Violation};
use crate::watches::Truth;

/// Most violations that are reported.
const MAX_REPORTED: usize = 100;

/// Place of an operation: revision, then writes before reads.
type Place = (u64, bool);

struct Placed<'a> {
    operation: &'a Operation,
    place: Place,
    /// `u64::MAX` when nobody saw its answer.
    end: u64,
}

/// Checks a history. `truth` (what watchers saw) gives writes of unknown
/// outcome, and deletes, their revisions.
pub fn check(history: &[Operation], truth: &Truth) -> Vec<Violation> {
    let mut found = Vec::new();
    let placed = place(history, truth, &mut found);
    values(&placed, truth, &mut found);
    let mut keys: BTreeMap<&str, Vec<&Placed<'_>>> = BTreeMap::new();
    for p in &placed {
        keys.entry(&p.operation.key).or_default().push(p);
    }
    for operations in keys.values() {
        sweep(operations, &mut found);
        swaps(operations, &mut found);
    }
    // Across keys: one counter for all writes.
    let writes: Vec<&Placed<'_>> = placed.iter().filter(|p| p.operation.is_write()).collect();
    sweep(&writes, &mut found);
    found.dedup();
    found.truncate(MAX_REPORTED);
    found
}

fn place<'a>(history: &'a [Operation], truth: &Truth, found: &mut Vec<Violation>) -> Vec<Placed<'a>> {
    let mut placed = Vec::with_capacity(history.len());
    let mut owner: HashMap<u64, &Operation> = HashMap::new();
    for operation in history {
        let known = match (&operation.action, operation.outcome) {
            (_, Outcome::Refused) | (Action::Read, Outcome::Unknown) => continue,
            (Action::Read, Outcome::Ok { revision, .. }) => Some(revision),
            _ => operation.revision().or_else(|| truth.revision_of(operation)),
        };
        // Not seen by anybody: it may not have happened.
        let Some(revision) = known else { continue };
        if operation.is_write()
            && let Some(other) = owner.insert(revision, operation)
        {
            found.push(Violation::RevisionTwice { revision, one: describe(other), other: describe(operation) });
        }
        let end = if operation.is_acked() { operation.end } else { u64::MAX };
        placed.push(Placed { operation, place: (revision, !operation.is_write()), end });
    }
    placed
}

/// Reads found what the revision that they name wrote.
fn values(placed: &[Placed<'_>], truth: &Truth, found: &mut Vec<Violation>) {
    let mut wrote: HashMap<(&str, u64), Option<u64>> = HashMap::new();
    for p in placed.iter().filter(|p| p.operation.is_write()) {
        wrote.insert((&p.operation.key, p.place.0), p.operation.value_set());
    }
    for p in placed.iter().filter(|p| !p.operation.is_write()) {
        let Outcome::Ok { revision, value } = p.operation.outcome else { continue };
        let key = &p.operation.key;
        let by_clients = wrote.get(&(key.as_str(), revision)).copied();
        match by_clients.or_else(|| truth.at(key, revision)) {
            Some(wrote) if wrote != value => {
                found.push(Violation::WrongValue { key: key.clone(), revision, found: value, wrote });
            }
            Some(_) => {}
            None => {
                if let Some(value) = value {
                    found.push(Violation::FromNowhere { key: key.clone(), value });
                }
            }
        }
    }
}

/// Nothing comes before what was answered before it was asked.
fn sweep(operations: &[&Placed<'_>], found: &mut Vec<Violation>) {
    let mut by_start: Vec<&Placed<'_>> = operations.to_vec();
    by_start.sort_by_key(|p| p.operation.start);
    let mut by_end: Vec<&Placed<'_>> = operations.iter().copied().filter(|p| p.end != u64::MAX).collect();
    by_end.sort_by_key(|p| p.end);
    let mut done = by_end.into_iter().peekable();
    let mut last: Option<&Placed<'_>> = None;
    for p in by_start {
        while let Some(e) = done.next_if(|e| e.end < p.operation.start) {
            if last.is_none_or(|l| l.place < e.place) {
                last = Some(e);
            }
        }
        if let Some(l) = last
            && (p.place < l.place || (p.place == l.place && p.operation.is_write()))
        {
            found.push(Violation::Order {
                key: p.operation.key.clone(),
                earlier: describe(l.operation),
                later: describe(p.operation),
            });
        }
    }
}

/// A compare-and-write that succeeded had nothing between what it compared
/// with and itself.
fn swaps(operations: &[&Placed<'_>], found: &mut Vec<Violation>) {
    let mut revisions: Vec<u64> = operations.iter().filter(|p| p.operation.is_write()).map(|p| p.place.0).collect();
    revisions.sort_unstable();
    for p in operations {
        if let Action::Swap { from, .. } = p.operation.action {
            let at = revisions.partition_point(|r| *r < p.place.0);
            if let Some(before) = at.checked_sub(1).map(|i| revisions[i])
                && before > from
            {
                let key = p.operation.key.clone();
                found.push(Violation::LostUpdate { key, from, revision: p.place.0, found: before });
            }
        }
    }
}

pub(crate) fn describe(o: &Operation) -> String {
    let outcome = match o.outcome {
        Outcome::Ok { revision, value } => format!("ok revision={revision} value={value:?}"),
        Outcome::Refused => "refused".into(),
        Outcome::Unknown => "unknown".into(),
    };
    format!("client {} {:?} {} [{}..{}] {outcome}", o.client, o.action, o.key, o.start, o.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(action: Action, outcome: Outcome, start: u64, end: u64) -> Operation {
        Operation { client: 1, key: "k".into(), action, outcome, start, end }
    }

    fn write(v: u64, revision: u64, start: u64, end: u64) -> Operation {
        op(Action::Write(v), Outcome::Ok { revision, value: None }, start, end)
    }

    fn read(v: u64, revision: u64, start: u64, end: u64) -> Operation {
        op(Action::Read, Outcome::Ok { revision, value: Some(v) }, start, end)
    }

    fn run(history: &[Operation]) -> Vec<Violation> {
        check(history, &Truth::default())
    }

    #[test]
    fn overlapping_writes_may_take_either_order() {
        assert_eq!(run(&[write(1, 11, 0, 10), write(2, 10, 5, 15), read(1, 11, 20, 21)]), []);
    }

    #[test]
    fn a_read_of_what_was_overwritten_before_it_was_asked_is_stale() {
        let found = run(&[write(1, 10, 0, 1), write(2, 11, 2, 3), read(1, 10, 4, 5)]);
        assert!(matches!(found[..], [Violation::Order { .. }]), "{found:?}");
    }

    #[test]
    fn a_later_write_never_has_a_lower_revision_also_on_another_key() {
        let other = Operation { key: "other".into(), ..write(2, 9, 2, 3) };
        let found = run(&[write(1, 10, 0, 1), other]);
        assert!(matches!(found[..], [Violation::Order { .. }]), "{found:?}");
    }

    #[test]
    fn two_writes_never_share_a_revision() {
        let found = run(&[write(1, 10, 0, 9), write(2, 10, 0, 9)]);
        assert!(found.iter().any(|v| matches!(v, Violation::RevisionTwice { .. })), "{found:?}");
    }

    #[test]
    fn a_read_that_names_a_revision_shows_its_value() {
        let found = run(&[write(1, 10, 0, 1), read(7, 10, 2, 3)]);
        assert!(matches!(found[..], [Violation::WrongValue { .. }]), "{found:?}");
        assert!(matches!(run(&[read(7, 3, 0, 1)])[..], [Violation::FromNowhere { .. }]));
    }

    #[test]
    fn a_compare_and_write_over_a_newer_revision_is_a_lost_update() {
        let swap = |from| op(Action::Swap { from, to: 3 }, Outcome::Ok { revision: 12, value: None }, 4, 5);
        let found = run(&[write(1, 10, 0, 1), write(2, 11, 2, 3), swap(10)]);
        assert!(matches!(found[..], [Violation::LostUpdate { from: 10, found: 11, .. }]), "{found:?}");
        assert_eq!(run(&[write(1, 10, 0, 1), write(2, 11, 2, 3), swap(11)]), []);
    }
}
