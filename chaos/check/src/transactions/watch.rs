//! What a watcher of all keys was shown, against the timeline.

use std::collections::BTreeSet;

use super::timeline::Timeline;
use super::{Kept, Key};
use crate::history::Violation;

/// Most violations that one watch is reported for.
const MAX_REPORTED: usize = 20;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: u64,
    pub key: Key,
    /// `None`: it was removed.
    pub after: Option<Kept>,
    /// What it held before, as the event says.
    pub before: Option<Kept>,
}

/// What came on a watch's streams, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A new stream begins where the last one was left.
    Resumed,
    Event(Event),
    /// The server says that everything up to here was shown.
    Progress(u64),
}

impl Seen {
    pub fn event(&self) -> Option<&Event> {
        match self {
            Seen::Event(event) => Some(event),
            Seen::Resumed | Seen::Progress(_) => None,
        }
    }
}

/// A watch of all keys from just after `start`, over all its resumptions.
#[derive(Clone, Debug, Default)]
pub struct WatchLog {
    pub name: String,
    pub start: u64,
    /// Up to here it says to have shown everything.
    pub end: u64,
    pub seen: Vec<Seen>,
}

/// Checks one watcher against the timeline.
pub fn check_log(log: &WatchLog, timeline: &Timeline) -> Vec<Violation> {
    let mut reader = Reader { log, timeline, shown: log.start, open: None, floor: 0, found: Vec::new() };
    for seen in &log.seen {
        match seen {
            Seen::Resumed => {
                reader.close();
                reader.floor = 0;
            }
            Seen::Event(event) => reader.event(event),
            Seen::Progress(revision) => reader.progress(*revision),
        }
    }
    reader.close();
    reader.up_to(log.end);
    reader.found.truncate(MAX_REPORTED);
    reader.found
}

struct Reader<'a> {
    log: &'a WatchLog,
    timeline: &'a Timeline,
    /// Everything up to here was shown, or told to be missing.
    shown: u64,
    /// A revision of which events are still coming, and the keys so far.
    open: Option<(u64, BTreeSet<Key>)>,
    /// Newest revision on the present stream.
    floor: u64,
    found: Vec<Violation>,
}

impl Reader<'_> {
    fn event(&mut self, event: &Event) {
        let (watch, revision) = (self.log.name.clone(), event.revision);
        let newest = self.open.as_ref().map_or(self.shown, |(at, _)| *at);
        let again = matches!(&self.open, Some((at, keys)) if *at == revision && keys.contains(&event.key));
        if revision <= self.shown || revision < newest || again {
            self.found.push(Violation::Disorder { watch, previous: newest, revision });
            return;
        }
        if newest < revision {
            self.close();
            self.up_to(revision - 1);
            self.open = Some((revision, BTreeSet::new()));
        }
        if let Some((_, keys)) = &mut self.open {
            keys.insert(event.key.clone());
        }
        self.floor = revision;
        let step = self.timeline.step(revision, &event.key);
        if step.is_none_or(|s| (s.before, s.after) != (event.before, event.after)) {
            let (shown, truth) = (format!("{event:?}"), format!("{step:?}"));
            self.found.push(Violation::Untrue { watch, revision, shown, truth });
        }
    }

    fn progress(&mut self, revision: u64) {
        if revision < self.floor {
            let (watch, previous) = (self.log.name.clone(), self.floor);
            self.found.push(Violation::Disorder { watch, previous, revision });
            return;
        }
        self.close();
        self.up_to(revision);
        self.floor = revision;
    }

    /// No more events come of the open revision.
    fn close(&mut self) {
        let Some((revision, keys)) = self.open.take() else { return };
        let steps = self.timeline.steps.get(&revision).into_iter().flatten();
        for step in steps.filter(|s| !keys.contains(&s.key)) {
            let (watch, key) = (self.log.name.clone(), step.key.to_string());
            self.found.push(Violation::Gap { watch, revision, key });
        }
        self.shown = self.shown.max(revision);
    }

    /// Everything up to `revision` should have been shown.
    fn up_to(&mut self, revision: u64) {
        if revision <= self.shown {
            return;
        }
        for (at, steps) in self.timeline.steps.range(self.shown + 1..=revision).take(MAX_REPORTED) {
            let key = steps.first().map(|s| s.key.to_string()).unwrap_or_default();
            self.found.push(Violation::Gap { watch: self.log.name.clone(), revision: *at, key });
        }
        self.shown = revision;
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{history, kept, log, timeline};
    use super::*;

    fn check(change: impl FnOnce(&mut WatchLog)) -> Vec<Violation> {
        let mut changed = log();
        change(&mut changed);
        check_log(&changed, &timeline(&history(), &[log()]))
    }

    #[test]
    fn a_watch_that_shows_all_in_order_is_right_however_often_it_resumed() {
        assert_eq!(check(|_| {}), []);
        assert_eq!(check(|l| l.seen.insert(3, Seen::Resumed)), []);
    }

    #[test]
    fn a_missing_event_is_a_gap_also_inside_a_transaction_and_at_the_end() {
        assert!(matches!(check(|l| drop(l.seen.remove(2)))[..], [Violation::Gap { revision: 3, .. }]));
        assert!(
            matches!(&check(|l| drop(l.seen.remove(5)))[..], [Violation::Gap { revision: 4, key, .. }] if key == "b")
        );
        assert!(matches!(check(|l| drop(l.seen.pop()))[..], [Violation::Gap { revision: 5, .. }]));
    }

    #[test]
    fn an_event_twice_or_after_a_later_one_is_disorder() {
        let again = check(|l| l.seen.push(l.seen[6].clone()));
        assert!(matches!(again[..], [Violation::Disorder { revision: 5, .. }]));
        let inside = check(|l| l.seen.insert(5, l.seen[4].clone()));
        assert!(matches!(inside[..], [Violation::Disorder { revision: 4, .. }]));
        let swapped = check(|l| l.seen.swap(1, 2));
        assert!(swapped.iter().any(|v| matches!(v, Violation::Disorder { previous: 3, revision: 2, .. })));
    }

    #[test]
    fn progress_ahead_of_events_or_behind_them_is_a_lie() {
        let ahead = check(|l| l.seen[3] = Seen::Progress(4));
        assert!(ahead.iter().any(|v| matches!(v, Violation::Gap { revision: 4, .. })), "{ahead:?}");
        let behind = check(|l| l.seen[3] = Seen::Progress(2));
        assert!(matches!(behind[..], [Violation::Disorder { previous: 3, revision: 2, .. }]));
        // A member that lags behind may say so on a new stream.
        assert_eq!(check(|l| drop(l.seen.splice(3..4, [Seen::Resumed, Seen::Progress(2)]))), []);
    }

    #[test]
    fn a_previous_value_that_was_not_there_is_untrue() {
        let wrong = check(|l| {
            if let Seen::Event(e) = &mut l.seen[6] {
                e.before = Some(kept(3, 4, 4, 1));
            }
        });
        assert!(matches!(wrong[..], [Violation::Untrue { revision: 5, .. }]));
    }
}
