//! What was acknowledged is there in the end, or was overwritten by something
//! later that is known.

use std::collections::BTreeMap;

use crate::history::{Operation, Violation};
use crate::revisions::describe;
use crate::watches::{ChangeKind, Truth};

/// What one replica holds at the end: value and revision of each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    pub name: String,
    pub keys: BTreeMap<String, (u64, u64)>,
}

/// Checks a replica's last state against all that was acknowledged: each
/// violation is one lost write.
pub fn check_acks(history: &[Operation], truth: &Truth, state: &FinalState) -> Vec<Violation> {
    let last = truth.last();
    let mut found = Vec::new();
    for o in history.iter().filter(|o| o.is_acked() && o.is_write()) {
        let lost = |what: String| Violation::Lost {
            key: o.key.clone(),
            operation: describe(o),
            found: format!("{}: {what}", state.name),
        };
        let held = state.keys.get(&o.key);
        let last = last.get(o.key.as_str());
        let Some(revision) = o.revision().or_else(|| truth.revision_of(o)) else {
            // A delete that named no revision and that no watcher saw.
            found.push(lost("no watcher saw it".into()));
            continue;
        };
        match (held, last) {
            (Some((_, at)), _) if *at < revision => found.push(lost(format!("the key is at revision {at}"))),
            (Some((value, at)), _) if *at == revision && o.value_set() != Some(*value) => {
                found.push(lost(format!("revision {at} holds {value}")));
            }
            (None, Some(c)) if c.kind != ChangeKind::Deleted || c.revision < revision => {
                found.push(lost("the key is absent".into()));
            }
            (None, None) => found.push(lost("the key is absent and nothing is known of it".into())),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Outcome};
    use crate::watches::{Change, WatchHistory};

    fn write(v: u64, revision: u64) -> Operation {
        let outcome = Outcome::Ok { revision, value: None };
        Operation { client: 0, key: "k".into(), action: Action::Write(v), outcome, start: 0, end: 1 }
    }

    fn state(held: Option<(u64, u64)>) -> FinalState {
        FinalState { name: "a".into(), keys: held.map(|h| ("k".to_owned(), h)).into_iter().collect() }
    }

    fn lost(held: Option<(u64, u64)>, changes: Vec<Change>) -> usize {
        let history = [write(1, 10), write(2, 11)];
        let watch = WatchHistory { changes, ..WatchHistory::default() };
        check_acks(&history, &Truth::collect(&history, &[watch]).0, &state(held)).len()
    }

    #[test]
    fn the_last_write_or_a_later_one_must_be_there() {
        assert_eq!(lost(Some((2, 11)), vec![]), 0);
        assert_eq!(lost(Some((7, 15)), vec![]), 0);
        assert_eq!(lost(Some((1, 10)), vec![]), 1);
        assert_eq!(lost(Some((1, 11)), vec![]), 1);
        assert_eq!(lost(None, vec![]), 2);
    }

    #[test]
    fn a_key_may_be_absent_after_a_deletion_that_was_seen() {
        let deleted = Change { revision: 12, key: "k".into(), kind: ChangeKind::Deleted, value: 2 };
        assert_eq!(lost(None, vec![deleted]), 0);
    }
}
