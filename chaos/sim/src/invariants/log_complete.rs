//! Revisions are gapless: each number up to the head is one write that some
//! replica has shown. And every write says rightly what it replaced.

use std::collections::BTreeMap;

use triarch_mvcc::{Key, Revision};

use crate::log::{Entry, Log};
use crate::tally::Tally;

pub fn check(log: &Log, tally: &Tally, first: Revision, heads: impl Iterator<Item = Revision>) {
    let last = log.head().max(first - 1);
    for (expected, revision) in (first..).zip(log.entries.keys()) {
        if expected != *revision {
            tally.violation("revisions-gapless", format!("revision {expected} was never seen, {revision} was"));
            break;
        }
    }
    for head in heads {
        tally.checked("revisions-gapless", 1);
        if head != last {
            tally.violation("revisions-gapless", format!("a replica is at revision {head}, the log at {last}"));
        }
    }
    let mut state: BTreeMap<&Key, (Revision, Revision, &Entry)> = BTreeMap::new();
    for (revision, entry) in &log.entries {
        let before = state.get(&entry.key);
        let prev = before.and_then(|(r, _, e)| Some((*r, e.value.clone()?)));
        let create = before.map_or(*revision, |(_, create, _)| *create);
        let expected = (prev.clone().map(|p| p.1), prev.map_or(0, |p| p.0), create);
        if expected != (entry.prev.clone(), entry.prev_revision, entry.create_revision) {
            tally.violation("previous", format!("revision {revision}: {entry:?} follows {before:?}"));
        }
        match entry.value {
            Some(_) => state.insert(&entry.key, (*revision, create, entry)),
            None => state.remove(&entry.key),
        };
        tally.checked("previous", 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: Option<&str>, prev: Option<&str>, prev_revision: u64, create_revision: u64) -> Entry {
        let bytes = |s: &str| bytes::Bytes::from(s.to_owned());
        Entry {
            key: Key::new("r", "d", "k"),
            value: value.map(bytes),
            slot: None,
            prev: prev.map(bytes),
            prev_revision,
            create_revision,
        }
    }

    fn verdict(entries: &[(u64, Entry)], head: u64) -> Vec<&'static str> {
        let (mut log, tally) = (Log::default(), Tally::default());
        log.entries.extend(entries.iter().cloned());
        log.index();
        check(&log, &tally, 1, [head].into_iter());
        tally.counts().violations.iter().map(|v| v.invariant).collect()
    }

    #[test]
    fn gaps_wrong_heads_and_wrong_predecessors_are_found() {
        let good = [
            (1, entry(Some("a"), None, 0, 1)),
            (2, entry(Some("b"), Some("a"), 1, 1)),
            (3, entry(None, Some("b"), 2, 1)),
            (4, entry(Some("c"), None, 0, 4)),
        ];
        assert!(verdict(&good, 4).is_empty());
        assert_eq!(verdict(&good, 5), ["revisions-gapless"]);
        assert_eq!(verdict(&[good[0].clone(), (3, entry(Some("b"), Some("a"), 1, 1))], 3), ["revisions-gapless"]);
        assert_eq!(verdict(&[good[0].clone(), (2, entry(Some("b"), Some("x"), 1, 1))], 2), ["previous"]);
        assert_eq!(verdict(&[good[0].clone(), (2, entry(Some("b"), Some("a"), 1, 2))], 2), ["previous"]);
    }
}
