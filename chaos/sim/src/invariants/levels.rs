//! The feature level rises when every member supports more, not before; it is
//! never lowered; nobody's memory is above what its release supports; what a level
//! brings is in the log behind the entry that raised it; and in the end it is the
//! newest that everybody supports.

use std::sync::Arc;

use triarch_mvcc::{Db, LEASE_RESOURCE, Revision, levels};
use triarch_raft::NodeId;

use crate::log::Log;
use crate::machine::Up;
use crate::run::{Run, SETTLE};
use crate::tally::Tally;

pub const NAME: &str = "levels";

/// The highest level that was seen in a run, and who did not support it then.
#[derive(Debug, Default)]
pub struct Raised {
    level: u64,
    too_old: Vec<(NodeId, u64)>,
}

/// A look at one replica.
pub fn look(run: &Run, id: NodeId, up: &Up, level: u64) {
    if level > up.supports {
        let what = format!("replica {id} applied level {level} with a release of level {}", up.supports);
        run.tally.violation(NAME, what);
    }
    let mut raised = run.raised.lock();
    if level > raised.level {
        raised.level = level;
        let machines = run.machines.lock();
        let too_old = machines.iter().filter(|(_, m)| m.supports < level).map(|(id, _)| (*id, level));
        raised.too_old.extend(too_old);
        run.trace.line(|| format!("the feature level is {level}"));
    }
}

/// Waits for the level to be the newest, everywhere.
pub async fn settle(run: &Arc<Run>) {
    let newest = |up: &Up| up.db.mvcc().feature_level() == levels::LATEST;
    run.tally.checked(NAME, 1);
    if !run.until(SETTLE, || run.all(newest)).await {
        let at: Vec<_> = run.ups().iter().map(|(id, up)| (*id, up.db.mvcc().feature_level())).collect();
        run.tally.violation(NAME, format!("everybody supports {}, and they are at {at:?}", levels::LATEST));
    }
}

pub fn check(run: &Run, log: &Log) {
    // Who was a member then and is one now; one that was being removed may be left behind.
    let members = run.ids();
    for (id, level) in run.raised.lock().too_old.iter().filter(|(id, _)| members.contains(id)) {
        run.tally.violation(NAME, format!("the level was raised to {level} when replica {id} did not support it"));
    }
    history(log, &run.tally);
}

fn history(log: &Log, tally: &Tally) {
    let (mut level, key) = (levels::FIRST, levels::feature_level_key());
    let wrong = |revision: Revision, what: String| tally.violation(NAME, format!("revision {revision}: {what}"));
    for (revision, entry) in &log.entries {
        if entry.key == key {
            let text = entry.value.as_ref().and_then(|v| std::str::from_utf8(v).ok()?.parse::<u64>().ok());
            tally.checked(NAME, 1);
            match text {
                Some(to) if to > level => level = to,
                _ => wrong(*revision, format!("the level goes from {level} to {:?}", entry.value)),
            }
        }
        if entry.key.resource() == LEASE_RESOURCE {
            tally.checked(NAME, 1);
            if level < levels::LATEST {
                wrong(*revision, format!("a lease at level {level}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Entry;
    use triarch_mvcc::{Key, lease_key};

    #[test]
    fn a_level_that_falls_and_a_lease_before_its_level_are_found() {
        let entry = |key: Key, value: &str| Entry {
            key,
            value: Some(bytes::Bytes::from(value.to_owned())),
            slot: None,
            prev: None,
            prev_revision: 0,
            create_revision: 1,
        };
        let level = |value| entry(levels::feature_level_key(), value);
        let lease = || entry(lease_key(1), "60");
        let violations = |entries: Vec<Entry>| {
            let (mut log, tally) = (Log::default(), Tally::default());
            log.entries.extend((1..).zip(entries));
            history(&log, &tally);
            tally.counts().violations.len()
        };
        assert_eq!(violations(vec![level("2"), lease()]), 0);
        assert_eq!(violations(vec![lease(), level("2")]), 1);
        assert_eq!(violations(vec![level("2"), level("1"), level("2")]), 2);
        assert_eq!(violations(vec![level("two")]), 1);
    }
}
