//! Watch histories: ordered, unique, gapless, and true.
//!
//! The truth is put together from everybody: acknowledged writes with their
//! revisions, and every event that any watcher saw. One revision is one change,
//! so two sources that tell different things of a revision are a violation, and
//! each watcher must show exactly the truth between its start and its end.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Action, Operation, Violation};

/// Most violations that one watch is reported for.
const MAX_REPORTED: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One event. A deletion shows the value that was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: u64,
    pub key: String,
    pub kind: ChangeKind,
    pub value: u64,
}

/// What one watcher saw from just after `start` up to `end`, over all its
/// resumptions.
#[derive(Clone, Debug, Default)]
pub struct WatchHistory {
    pub name: String,
    /// What the watched keys held at `start`, as listed.
    pub initial: BTreeMap<String, u64>,
    pub start: u64,
    /// Up to here it says to have shown everything.
    pub end: u64,
    pub changes: Vec<Change>,
}

/// Everything known to have happened, by revision.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    by_revision: BTreeMap<u64, Change>,
    by_value: HashMap<u64, u64>,
    deletes: HashMap<String, Vec<u64>>,
}

impl Truth {
    /// Collects from watchers and acknowledged writes, and reports where they
    /// contradict each other.
    pub fn collect(history: &[Operation], watches: &[WatchHistory]) -> (Truth, Vec<Violation>) {
        let mut truth = Truth::default();
        let mut found = Vec::new();
        for watch in watches {
            for change in &watch.changes {
                match truth.by_revision.get(&change.revision) {
                    Some(known) if known != change => found.push(untrue(&watch.name, change, known)),
                    Some(_) => {}
                    None => truth.insert(change.clone()),
                }
            }
        }
        for operation in history {
            let (Some(revision), Some(value)) = (operation.revision(), operation.value_set()) else { continue };
            let kind =
                if matches!(operation.action, Action::Create(_)) { ChangeKind::Added } else { ChangeKind::Modified };
            let told = Change { revision, key: operation.key.clone(), kind, value };
            match truth.by_revision.get(&revision) {
                Some(known) if (&known.key, known.value) != (&told.key, value) || known.kind == ChangeKind::Deleted => {
                    found.push(untrue("of all", known, &told));
                }
                Some(_) => {}
                // Acknowledged and seen by nobody: each watcher will be told of the gap.
                None => truth.insert(told),
            }
        }
        (truth, found)
    }

    fn insert(&mut self, change: Change) {
        match change.kind {
            ChangeKind::Deleted => self.deletes.entry(change.key.clone()).or_default().push(change.revision),
            ChangeKind::Added | ChangeKind::Modified => {
                self.by_value.insert(change.value, change.revision);
            }
        }
        self.by_revision.insert(change.revision, change);
    }

    /// The revision of a write whose answer named none. A key that is deleted
    /// more than once has no answer for its deletes.
    pub fn revision_of(&self, operation: &Operation) -> Option<u64> {
        match operation.value_set() {
            Some(value) => self.by_value.get(&value).copied(),
            None => match self.deletes.get(&operation.key).map(Vec::as_slice) {
                Some([revision]) => Some(*revision),
                _ => None,
            },
        }
    }

    /// What `revision` left in `key`, when it wrote there.
    pub fn at(&self, key: &str, revision: u64) -> Option<Option<u64>> {
        let change = self.by_revision.get(&revision).filter(|c| c.key == key)?;
        Some((change.kind != ChangeKind::Deleted).then_some(change.value))
    }

    /// The last change of each key.
    pub fn last(&self) -> BTreeMap<&str, &Change> {
        self.by_revision.values().map(|c| (c.key.as_str(), c)).collect()
    }

    pub fn len(&self) -> usize {
        self.by_revision.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_revision.is_empty()
    }
}

/// Checks one watcher against the truth.
pub fn check_watch(watch: &WatchHistory, truth: &Truth) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut previous = watch.start;
    for change in &watch.changes {
        if change.revision <= previous {
            let (watch, revision) = (watch.name.clone(), change.revision);
            found.push(Violation::Disorder { watch, previous, revision });
        }
        previous = previous.max(change.revision);
    }
    if previous > watch.end {
        let what = format!("claims to be complete up to {} and shows revision {previous}", watch.end);
        found.push(Violation::Broken { watch: watch.name.clone(), what });
    }
    gaps(watch, truth, &mut found);
    kinds(watch, &mut found);
    found.truncate(MAX_REPORTED);
    found
}

fn gaps(watch: &WatchHistory, truth: &Truth, found: &mut Vec<Violation>) {
    if watch.start >= watch.end {
        return;
    }
    let shown: HashMap<u64, &Change> = watch.changes.iter().map(|c| (c.revision, c)).collect();
    for (revision, change) in truth.by_revision.range(watch.start + 1..=watch.end) {
        match shown.get(revision) {
            None => {
                let (watch, key) = (watch.name.clone(), change.key.clone());
                found.push(Violation::Gap { watch, revision: *revision, key });
            }
            Some(c) if (&c.key, c.value) != (&change.key, change.value) => found.push(untrue(&watch.name, c, change)),
            Some(_) => {}
        }
    }
}

/// ADDED only of what is absent, the others only of what is there, and a
/// deletion shows what was there.
fn kinds(watch: &WatchHistory, found: &mut Vec<Violation>) {
    let mut held: BTreeMap<&str, u64> = watch.initial.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    for change in &watch.changes {
        let before = held.get(change.key.as_str()).copied();
        let right = match change.kind {
            ChangeKind::Added => before.is_none(),
            ChangeKind::Modified => before.is_some(),
            ChangeKind::Deleted => before == Some(change.value),
        };
        if !right {
            let (watch, revision) = (watch.name.clone(), change.revision);
            let truth = format!("{} holding {before:?} until then", change.key);
            found.push(Violation::Untrue { watch, revision, shown: format!("{change:?}"), truth });
        }
        match change.kind {
            ChangeKind::Deleted => held.remove(change.key.as_str()),
            _ => held.insert(&change.key, change.value),
        };
    }
}

fn untrue(watch: &str, shown: &Change, truth: &Change) -> Violation {
    Violation::Untrue {
        watch: watch.to_owned(),
        revision: shown.revision,
        shown: format!("{shown:?}"),
        truth: format!("{truth:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, key: &str, kind: ChangeKind, value: u64) -> Change {
        Change { revision, key: key.into(), kind, value }
    }

    fn good() -> WatchHistory {
        WatchHistory {
            name: "w".into(),
            initial: [("a".to_owned(), 1)].into(),
            start: 10,
            end: 14,
            changes: vec![
                change(11, "a", ChangeKind::Modified, 2),
                change(12, "b", ChangeKind::Added, 3),
                change(14, "a", ChangeKind::Deleted, 2),
            ],
        }
    }

    fn against(watch: &WatchHistory) -> Vec<Violation> {
        check_watch(watch, &Truth::collect(&[], &[good()]).0)
    }

    #[test]
    fn a_watch_that_shows_all_in_order_is_right() {
        assert_eq!(against(&good()), []);
    }

    #[test]
    fn a_missing_event_a_double_one_and_a_swapped_pair_are_found() {
        let mut gap = good();
        gap.changes.remove(1);
        assert!(matches!(against(&gap)[..], [Violation::Gap { revision: 12, .. }]));
        let mut double = good();
        double.changes.insert(1, double.changes[0].clone());
        assert!(matches!(against(&double)[..], [Violation::Disorder { revision: 11, .. }]));
        let mut swapped = good();
        swapped.changes.swap(0, 1);
        assert!(matches!(against(&swapped)[..], [Violation::Disorder { previous: 12, revision: 11, .. }]));
    }

    #[test]
    fn a_deletion_shows_what_was_there_before() {
        let mut wrong = good();
        wrong.changes[2].value = 1;
        let found = against(&wrong);
        assert!(found.iter().any(|v| matches!(v, Violation::Untrue { revision: 14, .. })), "{found:?}");
    }

    #[test]
    fn an_event_type_must_fit_what_was_there() {
        let mut wrong = good();
        wrong.changes[1].kind = ChangeKind::Modified;
        assert!(!against(&wrong).is_empty());
    }

    #[test]
    fn two_watchers_never_tell_different_things_of_one_revision() {
        let mut other = good();
        other.changes[0].value = 9;
        let (_, found) = Truth::collect(&[], &[good(), other]);
        assert!(matches!(found[..], [Violation::Untrue { revision: 11, .. }]), "{found:?}");
    }

    #[test]
    fn an_acknowledged_write_that_no_watcher_shows_is_a_gap_of_each() {
        let write = Operation {
            client: 0,
            key: "c".into(),
            action: Action::Write(5),
            outcome: crate::Outcome::Ok { revision: 13, value: None },
            start: 0,
            end: 1,
        };
        let (truth, found) = Truth::collect(&[write], &[good()]);
        assert_eq!(found, []);
        assert!(matches!(check_watch(&good(), &truth)[..], [Violation::Gap { revision: 13, .. }]));
    }
}
