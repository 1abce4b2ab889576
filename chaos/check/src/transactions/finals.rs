//! Every member holds, in the end, what the timeline ends with.

use std::collections::BTreeMap;

use super::timeline::Timeline;
use super::{Kept, Key};
use crate::history::Violation;

/// Most violations that one member is reported for.
const MAX_REPORTED: usize = 20;

/// What one member says, asked alone when nothing is written any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub revision: u64,
    pub keys: BTreeMap<Key, Kept>,
    /// Of its whole history, when it has such a thing.
    pub hash: Option<u32>,
}

/// Checks all members against the timeline and each other.
pub fn check_members(members: &[Member], timeline: &Timeline) -> Vec<Violation> {
    let mut found = Vec::new();
    for member in members {
        let mut own = Vec::new();
        let broken = |what| Violation::Broken { watch: format!("member {}", member.name), what };
        if member.revision != timeline.last() {
            own.push(broken(format!("is at revision {} of {}", member.revision, timeline.last())));
        }
        for (key, kept) in &timeline.held {
            let held = member.keys.get(key);
            if held != Some(kept) {
                let (key, operation) = (key.to_string(), format!("{kept:?}"));
                own.push(Violation::Lost { key, operation, found: format!("{}: {held:?}", member.name) });
            }
        }
        for (key, held) in member.keys.iter().filter(|(key, _)| !timeline.held.contains_key(*key)) {
            own.push(broken(format!("holds {key} = {held:?}, which is removed")));
        }
        own.truncate(MAX_REPORTED);
        found.append(&mut own);
    }
    for pair in members.windows(2) {
        if let (Some(one), Some(other)) = (pair[0].hash, pair[1].hash)
            && one != other
        {
            let what = format!("hash {other:08x}, and {one:08x} at {}", pair[0].name);
            found.push(Violation::Broken { watch: format!("member {}", pair[1].name), what });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::examples::{history, kept, log, timeline};
    use super::*;

    fn check(change: impl FnOnce(&mut Member)) -> Vec<Violation> {
        let good =
            Member { name: "a".into(), revision: 5, keys: [("a".into(), kept(3, 2, 4, 3))].into(), hash: Some(7) };
        let mut changed = Member { name: "b".into(), ..good.clone() };
        change(&mut changed);
        check_members(&[good, changed], &timeline(&history(), &[log()]))
    }

    #[test]
    fn members_that_hold_the_end_of_the_timeline_are_right() {
        assert_eq!(check(|_| {}), []);
        assert_eq!(check(|m| m.hash = None), []);
    }

    #[test]
    fn a_lost_write_a_removed_key_another_revision_and_another_hash_are_each_found() {
        assert!(matches!(check(|m| m.keys.clear())[..], [Violation::Lost { .. }]));
        let back = check(|m| _ = m.keys.insert("b".into(), kept(4, 4, 4, 1)));
        assert!(matches!(back[..], [Violation::Broken { .. }]));
        assert!(matches!(check(|m| m.revision = 4)[..], [Violation::Broken { .. }]));
        assert!(matches!(check(|m| m.hash = Some(8))[..], [Violation::Broken { .. }]));
    }
}
