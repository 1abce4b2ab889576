//! Watches: every event of the prefix once, in order, none missing up to where
//! the watch says it has come, each exactly as it happened.

use crate::history::History;
use crate::log::Log;
use crate::tally::Tally;

pub fn check(log: &Log, history: &History, tally: &Tally) {
    for span in &history.watches {
        let last = span.seen.last().map_or(span.after, |(r, _)| *r);
        if span.progress < last {
            tally.violation("watches", format!("{} says {} after an event of {last}", span.watcher, span.progress));
        }
        let mut expected = log.under(&span.prefix, span.after, span.progress.max(last));
        let wrong = span.seen.iter().find_map(|(revision, entry)| {
            tally.checked("watches", 1);
            let next = expected.next();
            let right = next == Some((*revision, entry));
            (!right).then(|| format!("revision {revision} {entry:?} where {next:?} was to come"))
        });
        let missed = || expected.next().map(|(r, e)| format!("revision {r} {e:?} was never shown"));
        if let Some(what) = wrong.or_else(missed) {
            let text = format!("{} after {}, which says {}: {what}", span.watcher, span.after, span.progress);
            tally.violation("watches", text);
        }
    }
}
