//! Judging an episode.

use std::collections::BTreeMap;

use triarch_check::Violation;
use triarch_check::search::{self, Verdict};
use triarch_check::transactions::{Member, Request, Timeline, check_log, check_members, check_requests, operations};

use super::client;
use super::watcher::Watched;

/// Configurations that the search looks at for each key.
const SEARCH_BOUND: usize = 100_000;
/// Violations of a kind that are shown.
const SHOWN: usize = 3;

/// What was found, by kind.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub kinds: BTreeMap<&'static str, Vec<Violation>>,
    pub searched: usize,
    /// Keys whose order the search could not decide inside its bound.
    pub undecided: usize,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        self.kinds.is_empty()
    }

    fn add(&mut self, violation: Violation) {
        let all = self.kinds.entry(kind(&violation)).or_default();
        if !all.contains(&violation) {
            all.push(violation);
        }
    }

    /// The system does not do any more what it is for.
    pub fn gave_up(&mut self, what: String) {
        let violation = Violation::Broken { watch: "of the whole system".into(), what };
        self.kinds.entry("gave-up").or_default().push(violation);
    }

    pub fn join(&mut self, other: Findings) {
        for (kind, mut found) in other.kinds {
            self.kinds.entry(kind).or_default().append(&mut found);
        }
        self.searched += other.searched;
        self.undecided += other.undecided;
    }

    /// The first few of each kind.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, &Violation)> {
        self.kinds.iter().flat_map(|(kind, all)| all.iter().take(SHOWN).map(move |v| (*kind, v)))
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_clean() {
            return f.write_str("clean");
        }
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, all)| format!("{kind}:{}", all.len())).collect();
        f.write_str(&kinds.join(","))
    }
}

/// One word for what is wrong.
fn kind(violation: &Violation) -> &'static str {
    match violation {
        Violation::Lost { .. } => "lost-write",
        Violation::RevisionTwice { .. } => "revision-twice",
        Violation::Order { .. } => "stale-or-reordered",
        Violation::NotLinearizable { .. } => "not-linearizable",
        Violation::LostUpdate { .. } | Violation::Refused { .. } => "wrong-compare",
        Violation::AppliedTwice { .. } => "applied-twice",
        Violation::Partial { .. } | Violation::Unused { .. } | Violation::Unasked { .. } => "wrong-effect",
        Violation::Disorder { .. } => "watch-disorder",
        Violation::Gap { .. } => "watch-gap",
        Violation::Untrue { .. } | Violation::WrongValue { .. } | Violation::FromNowhere { .. } => "untrue",
        Violation::Broken { watch, .. } if watch.starts_with("member ") => "members-differ",
        _ => "broken",
    }
}

/// Checks everything against everything.
pub fn judge(base: u64, requests: &[Request], watched: &[Watched], members: &[Member]) -> Findings {
    let mut findings = Findings::default();
    let logs: Vec<_> = watched.iter().map(|w| w.log.clone()).collect();
    let (timeline, contradictions) = Timeline::collect(base, requests, &logs);
    let verdicts = search::check(&operations(requests, client::is_contended), &BTreeMap::new(), SEARCH_BOUND);
    let unordered = verdicts.iter().filter(|(_, v)| **v == Verdict::Not);
    let all = contradictions
        .into_iter()
        .chain(check_requests(requests, &timeline))
        .chain(unordered.map(|(key, _)| Violation::NotLinearizable { key: key.clone() }))
        .chain(watched.iter().flat_map(|w| w.violations.clone()))
        .chain(logs.iter().flat_map(|log| check_log(log, &timeline)))
        .chain(check_members(members, &timeline));
    all.for_each(|violation| findings.add(violation));
    findings.searched = verdicts.len();
    findings.undecided = verdicts.values().filter(|v| **v == Verdict::Undecided).count();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_check::transactions::{Answer, Event, Kept, Seen, WatchLog};

    fn requests() -> Vec<Request> {
        let request = |answer, writes, start| Request { client: 0, start, end: start + 1, guard: None, writes, answer };
        let kept = Kept { value: 2, created: 2, modified: 3, version: 2 };
        vec![
            request(Answer::Wrote { revision: 2 }, vec![("h/r1".into(), Some(1))], 0),
            request(Answer::Wrote { revision: 3 }, vec![("h/r1".into(), Some(2))], 2),
            request(Answer::Saw { revision: 3, found: vec![("h/r1".into(), Some(kept))] }, Vec::new(), 4),
        ]
    }

    fn watched() -> Watched {
        let one = Kept { value: 1, created: 2, modified: 2, version: 1 };
        let two = Kept { value: 2, created: 2, modified: 3, version: 2 };
        let event = |revision, after, before| Seen::Event(Event { revision, key: "h/r1".into(), after, before });
        let seen = vec![event(2, Some(one), None), event(3, Some(two), Some(one))];
        let log = WatchLog { name: "0".into(), start: 1, end: 3, seen };
        Watched { log, violations: Vec::new(), resumed: 0 }
    }

    fn member(name: &str) -> Member {
        let kept = Kept { value: 2, created: 2, modified: 3, version: 2 };
        Member { name: name.into(), revision: 3, keys: [("h/r1".into(), kept)].into(), hash: Some(1) }
    }

    #[test]
    fn an_episode_in_which_all_is_well_is_clean() {
        let found = judge(1, &requests(), &[watched()], &[member("a"), member("b")]);
        assert_eq!((found.to_string().as_str(), found.searched), ("clean", 1));
    }

    #[test]
    fn a_member_that_misses_an_entry_is_found_in_several_ways() {
        // What a member does that skipped revision 2: its revisions are one behind.
        let mut wrong = member("b");
        (wrong.revision, wrong.hash) = (2, Some(9));
        let mut answered = requests();
        answered[1].answer = Answer::Wrote { revision: 2 };
        let found = judge(1, &answered, &[watched()], &[member("a"), wrong]);
        assert!(found.kinds.contains_key("revision-twice") && found.kinds.contains_key("members-differ"), "{found}");
    }
}
