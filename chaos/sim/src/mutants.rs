//! The mistakes that the simulation must find, and the invariant that must find
//! each. A simulation that cannot find a bug that is there proves nothing.
//!
//! The places where they are made are marked `mutant("name")` in the code; see
//! [`triarch_mutants`]. Without the feature `mutants` none of them is built.

use std::fmt::Write;

/// A mistake.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    pub name: &'static str,
    /// What is done wrong.
    pub what: &'static str,
    /// The invariant that must find it.
    pub invariant: &'static str,
    /// The issue of etcd's in which the like was made.
    pub etcd: Option<u32>,
}

macro_rules! etcd {
    () => {
        None
    };
    ($number:literal) => {
        Some($number)
    };
}

macro_rules! mutants {
    ($($name:literal $(($etcd:literal))? found by $invariant:literal: $what:literal;)*) => {
        &[$(Mutant {
            name: $name,
            what: $what,
            invariant: $invariant,
            etcd: etcd!($($etcd)?),
        }),*]
    };
}

/// Every mistake.
pub const MUTANTS: &[Mutant] = mutants! {
    "ack-before-fsync" (14370) found by "acked": "the log says that it is durable before it is";
    "header-before-changes" (13766) found by "state-equal": "the checkpoint's header is durable before what it speaks of";
    "progress-before-events" (15220) found by "watches": "a watch says that it is further than the events that it has shown";
    "progress-behind-the-start" (20221) found by "watches": "a watch from the future says that it is where the replica is";
    "future-watch-shows-the-past" (15271) found by "watches": "a watch that goes on at a replica that is behind shows old events";
    "compacted-watcher-not-told" (17529) found by "watches": "a slow watch goes on behind the events that were compacted";
    "delete-behind-the-floor-lost" (18089) found by "revisions-equal": "a deletion right behind the floor is compacted and nobody is told";
    "fsync-error-ignored" found by "disk-failure-stops": "a sync that failed counts as done";
    "truncation-forgotten" found by "restart": "entries that were cut off the log are back after a restart";
    "vote-not-kept" found by "revisions-equal": "a vote is not written down";
    "stale-epoch-accepted" found by "epoch-fence": "a leader-only write of an epoch that is over is made";
    "isolated-leader-acts" found by "one-leader": "a leader that no quorum answers goes on acting";
    "dedup-dropped" found by "applied-once": "a proposal that is retried is applied again";
    "unknown-told-as-refused" found by "applied-once": "a write that may have been made is said to be refused";
    "guard-unchecked" found by "snapshot-lists": "a write is made although its condition does not hold";
    "transaction-torn" found by "snapshot-lists": "of a transaction only the first operation is made";
    "page-of-the-present" found by "snapshot-lists": "a later page shows what is there now";
    "create-revision-kept" found by "previous": "what is created again keeps its first create revision";
    "first-event-skipped" found by "watches": "a watch that begins at the window's edge misses the first event";
    "lease-read" found by "linearizable": "a leader answers reads without asking a quorum";
    "old-answer-taken-for-new" (20418) found by "linearizable": "an answer to an old request confirms a new read";
    "barrier-does-not-wait" found by "linearizable": "a read is answered before its read point is applied";
    "log-purged-too-far" found by "restart": "the log is purged up to a checkpoint that is not durable";
    "checkpoint-not-synced" found by "restart": "a checkpoint counts as durable without a sync";
    "revision-of-the-newest-object" (17780) found by "revisions-equal": "a restart takes the newest object's revision for the head";
    "dedup-not-restored" found by "applied-once": "a restart forgets which proposals were applied";
    "snapshot-at-a-moving-cursor" found by "restart": "a checkpoint is written from what is there meanwhile";
    "old-cursors-kept" found by "no-panic": "a watch reads on where it was in content that was replaced";
    "revision-shared" found by "revisions-equal": "two writes of a transaction have one revision";
    "event-shown-twice" found by "watches": "a watch that slept shows its last event again";
    "events-out-of-order" found by "watches": "a watch shows the newest of several events first";
    "scope-outlives-its-epoch" found by "one-leader": "what a leader has started goes on after its leadership";
    "read-joins-a-round-under-way" found by "linearizable": "a read is answered by a round that began before it";
    "generation-not-synced" found by "restart": "a whole checkpoint is switched to before it is durable";
    "range-dropped-elsewhere" (18667) found by "state-equal": "a range that cannot be read fails its transaction only where its client is connected";
    "takes-part-unintroduced" found by "introduced-first": "a replica votes and takes entries before it is introduced";
    "level-raised-early" found by "levels": "a leader raises the feature level without asking the others";
    "old-start-accepted" found by "old-disk-refused": "a replica on an old copy of its disks takes part";
    "change-not-exported" found by "restart": "the checkpoint misses a change";
};

/// The mistake of that name.
pub fn named(name: &str) -> Option<&'static Mutant> {
    MUTANTS.iter().find(|m| m.name == name)
}

/// What came of one mistake.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub mutant: &'static Mutant,
    /// The first seed in which the named invariant found it.
    pub found: Option<u64>,
    /// Seeds that were run.
    pub seeds: u64,
    /// What else complained meanwhile.
    pub others: Vec<&'static str>,
}

/// One line each, then how many were found.
pub fn text(verdicts: &[Verdict]) -> String {
    let mut out = format!("{:<28} {:<20} {:>6} {:>6}  also\n", "mutant", "invariant", "etcd", "seed");
    for v in verdicts {
        let etcd = v.mutant.etcd.map_or(String::new(), |n| n.to_string());
        let seed = v.found.map_or("MISSED".to_owned(), |s| s.to_string());
        let also = v.others.join(" ");
        let _ = writeln!(out, "{:<28} {:<20} {etcd:>6} {seed:>6}  {also}", v.mutant.name, v.mutant.invariant);
    }
    let found = verdicts.iter().filter(|v| v.found.is_some()).count();
    let _ = write!(out, "mutants={} found={found}", verdicts.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::INVARIANTS;

    #[test]
    fn every_mistake_has_a_name_of_its_own_and_an_invariant_that_exists() {
        for (n, m) in MUTANTS.iter().enumerate() {
            assert!(INVARIANTS.contains(&m.invariant), "{}", m.name);
            assert!(MUTANTS[..n].iter().all(|other| other.name != m.name), "{}", m.name);
        }
    }

    #[test]
    fn a_mistake_that_was_missed_is_said_and_counted() {
        let verdict = |found| Verdict { mutant: &MUTANTS[0], found, seeds: 9, others: vec!["restart"] };
        let text = text(&[verdict(Some(3)), verdict(None)]);
        assert!(text.contains("MISSED") && text.ends_with("mutants=2 found=1"), "{text}");
    }
}
