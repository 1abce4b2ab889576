//! What happened, by revision, put together from everybody.
//!
//! Sources are answers that name their revisions, and every event that any
//! watcher saw. Two that tell different things of a revision are a violation,
//! as is a value that nobody wrote, one that is written twice, a transaction of
//! which only a part happened, and a revision at which nothing did.

use std::collections::{BTreeMap, HashMap};

use super::watch::{Seen, WatchLog};
use super::{Answer, Kept, Key, Request};
use crate::history::Violation;

/// Most violations that are reported.
const MAX_REPORTED: usize = 100;

/// One key's part of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub key: Key,
    pub before: Option<Kept>,
    pub after: Option<Kept>,
}

/// Everything known to have happened after `base`.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pub(crate) base: u64,
    pub(crate) steps: BTreeMap<u64, Vec<Step>>,
    /// Revisions of requests by the values that they wrote.
    by_value: HashMap<u64, u64>,
    /// What is held after all of it.
    pub(crate) held: BTreeMap<Key, Kept>,
}

/// Values set and keys removed at one revision.
type Effects = BTreeMap<Key, Option<u64>>;

impl Timeline {
    /// Collects and replays. At `base` the watched keys are all absent.
    pub fn collect(base: u64, requests: &[Request], logs: &[WatchLog]) -> (Timeline, Vec<Violation>) {
        let mut found = Vec::new();
        let mut effects = seen_by_watchers(logs, &mut found);
        answered(requests, &mut effects, &mut found);
        let mut timeline = Timeline { base, ..Timeline::default() };
        timeline.claim(requests, &effects, &mut found);
        timeline.replay(&effects, &mut found);
        found.truncate(MAX_REPORTED);
        (timeline, found)
    }

    /// The last revision at which something is known to have happened.
    pub fn last(&self) -> u64 {
        self.steps.keys().next_back().copied().unwrap_or(self.base)
    }

    /// Effective transactions.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What one key was and became at a revision.
    pub fn step(&self, revision: u64, key: &str) -> Option<&Step> {
        self.steps.get(&revision)?.iter().find(|s| &*s.key == key)
    }

    /// Where a write took place: by its answer, else by a value of its.
    pub(crate) fn revision_of(&self, request: &Request) -> Option<u64> {
        match request.answer {
            Answer::Wrote { revision } => Some(revision),
            Answer::Saw { .. } => None,
            Answer::Unknown => request.writes.iter().find_map(|(_, value)| self.by_value.get(value.as_ref()?).copied()),
        }
    }

    /// Each value is of a request that may have written it, and of one revision.
    fn claim(&mut self, requests: &[Request], effects: &BTreeMap<u64, Effects>, found: &mut Vec<Violation>) {
        let mut asked: HashMap<u64, &Request> = HashMap::new();
        let mut removals: HashMap<&str, usize> = HashMap::new();
        let mut removed: Vec<u64> = Vec::new();
        for request in requests.iter().filter(|r| !matches!(r.answer, Answer::Saw { .. })) {
            asked.extend(request.writes.iter().filter_map(|(_, value)| Some(((*value)?, request))));
            match (&request.answer, &request.writes[..]) {
                (Answer::Unknown, [(key, None)]) => *removals.entry(&**key).or_default() += 1,
                (Answer::Wrote { revision }, _) => removed.push(*revision),
                _ => {}
            }
        }
        removed.sort_unstable();
        for (revision, wrote) in effects {
            for (key, value) in wrote.iter().filter_map(|(k, v)| Some((k, (*v)?))) {
                let Some(request) = asked.get(&value).filter(|r| r.writes.contains(&(key.clone(), Some(value)))) else {
                    found.push(Violation::FromNowhere { key: key.to_string(), value });
                    continue;
                };
                if let Some(other) = self.by_value.insert(value, *revision)
                    && other != *revision
                {
                    let key = key.to_string();
                    found.push(Violation::AppliedTwice { key, value, one: other, other: *revision });
                }
                if !agrees(&request.writes, wrote) {
                    let (asked, happened) = (request.describe(), format!("{wrote:?}"));
                    found.push(Violation::Partial { revision: *revision, asked, happened });
                }
            }
            if let (1, Some((key, None))) = (wrote.len(), wrote.iter().next())
                && removed.binary_search(revision).is_err()
            {
                match removals.get_mut(&**key) {
                    Some(n) if *n > 0 => *n -= 1,
                    _ => found.push(Violation::Unasked { key: key.to_string(), revision: *revision }),
                }
            }
        }
    }

    fn replay(&mut self, effects: &BTreeMap<u64, Effects>, found: &mut Vec<Violation>) {
        let mut previous = self.base;
        for (&revision, wrote) in effects {
            found.extend((previous + 1..revision).take(MAX_REPORTED).map(|revision| Violation::Unused { revision }));
            previous = revision;
            let mut steps = Vec::with_capacity(wrote.len());
            for (key, value) in wrote {
                let before = self.held.get(key).copied();
                let after = value.map(|value| match before {
                    Some(b) => Kept { value, created: b.created, modified: revision, version: b.version + 1 },
                    None => Kept { value, created: revision, modified: revision, version: 1 },
                });
                match after {
                    Some(kept) => self.held.insert(key.clone(), kept),
                    None => self.held.remove(key),
                };
                if before.is_some() || after.is_some() {
                    steps.push(Step { key: key.clone(), before, after });
                }
            }
            self.steps.insert(revision, steps);
        }
    }
}

/// Whether a request that was carried out would do this. A removal of what is
/// absent leaves no trace.
fn agrees(asked: &[(Key, Option<u64>)], happened: &Effects) -> bool {
    happened.iter().all(|(key, value)| asked.contains(&(key.clone(), *value)))
        && asked.iter().all(|(key, value)| value.is_none() || happened.get(key) == Some(value))
}

fn seen_by_watchers(logs: &[WatchLog], found: &mut Vec<Violation>) -> BTreeMap<u64, Effects> {
    let mut effects: BTreeMap<u64, Effects> = BTreeMap::new();
    for log in logs {
        for event in log.seen.iter().filter_map(Seen::event) {
            let value = event.after.map(|kept| kept.value);
            let known = effects.entry(event.revision).or_default().insert(event.key.clone(), value);
            if let Some(known) = known.filter(|k| *k != value) {
                effects.entry(event.revision).or_default().insert(event.key.clone(), known);
                let (watch, revision) = (log.name.clone(), event.revision);
                let (shown, truth) = (format!("{event:?}"), format!("{known:?} for others"));
                found.push(Violation::Untrue { watch, revision, shown, truth });
            }
        }
    }
    effects
}

/// Adds what answers tell, where nobody saw it, and compares where somebody did.
fn answered(requests: &[Request], effects: &mut BTreeMap<u64, Effects>, found: &mut Vec<Violation>) {
    let mut owner: HashMap<u64, &Request> = HashMap::new();
    for request in requests {
        let Answer::Wrote { revision } = request.answer else { continue };
        if let Some(other) = owner.insert(revision, request) {
            found.push(Violation::RevisionTwice { revision, one: other.describe(), other: request.describe() });
            continue;
        }
        match effects.get(&revision) {
            Some(happened) if !agrees(&request.writes, happened) => {
                let (asked, happened) = (request.describe(), format!("{happened:?}"));
                found.push(Violation::Partial { revision, asked, happened });
            }
            Some(_) => {}
            None => {
                effects.insert(revision, request.writes.iter().cloned().collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{history, log, put, timeline, write};
    use super::*;

    fn found(requests: &[Request], logs: &[WatchLog]) -> Vec<Violation> {
        Timeline::collect(1, requests, logs).1
    }

    #[test]
    fn answers_and_events_of_one_history_agree_and_each_is_enough_alone() {
        let (one, two) = (timeline(&history(), &[log()]), timeline(&history(), &[]));
        assert_eq!(one.steps, two.steps);
        assert_eq!(one.last(), 5);
        let a = Kept { value: 3, created: 2, modified: 4, version: 3 };
        assert_eq!(one.held, [("a".into(), a)].into());
    }

    #[test]
    fn two_answers_of_one_revision_are_found() {
        let mut twice = history();
        twice.push(put("c", 9, 4, 40));
        assert!(matches!(found(&twice, &[])[0], Violation::RevisionTwice { revision: 4, .. }));
    }

    #[test]
    fn a_revision_at_which_nothing_happened_is_found() {
        let mut hole = history();
        hole.remove(1);
        assert_eq!(found(&hole, &[]), [Violation::Unused { revision: 3 }]);
    }

    #[test]
    fn a_value_of_an_unknown_write_may_appear_once_and_whole() {
        let mut unknown = history();
        unknown[2].answer = Answer::Unknown;
        assert_eq!(found(&unknown, &[log()]), []);
        unknown[2].writes.push(("c".into(), Some(8)));
        assert!(matches!(found(&unknown, &[log()])[0], Violation::Partial { revision: 4, .. }));
    }

    #[test]
    fn a_value_that_was_refused_or_appears_twice_is_found() {
        let mut refused = history();
        refused[1].answer = Answer::Saw { revision: 2, found: Vec::new() };
        assert_eq!(found(&refused, &[log()]), [Violation::FromNowhere { key: "a".into(), value: 2 }]);
        let mut twice = log();
        twice.seen.push(super::super::examples::event(
            6,
            "a",
            Some(Kept { value: 3, created: 2, modified: 6, version: 4 }),
            None,
        ));
        let found = found(&history(), &[twice]);
        assert!(found.contains(&Violation::AppliedTwice { key: "a".into(), value: 3, one: 4, other: 6 }), "{found:?}");
    }

    #[test]
    fn a_removal_needs_somebody_who_asked_for_it() {
        let mut requests = history();
        requests.pop();
        assert_eq!(found(&requests, &[log()]), [Violation::Unasked { key: "b".into(), revision: 5 }]);
        requests.push(Request { answer: Answer::Unknown, ..write(&[("b", None)], 0, 30) });
        assert_eq!(found(&requests, &[log()]), []);
    }

    #[test]
    fn watchers_that_tell_different_things_of_a_revision_are_found() {
        let mut other = log();
        if let Seen::Event(e) = &mut other.seen[2] {
            e.after = e.after.map(|k| Kept { value: 7, ..k });
        }
        assert!(matches!(found(&history(), &[log(), other])[0], Violation::Untrue { revision: 3, .. }));
    }
}
