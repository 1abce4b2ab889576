//! What must hold, one file each. Some are checked while the run goes on
//! (`observe.rs`, the workloads), the rest against the whole history at its end.

mod acked;
mod applied_once;
mod bindings;
mod containers;
mod epochs;
pub mod levels;
mod linearizable;
mod log_complete;
pub mod restart;
mod watches;

use triarch_mvcc::{Db, Mvcc, Revision};

use crate::history::History;
use crate::log::Log;
use crate::run::Run;
use crate::settings::Stack;
use crate::tally::Tally;

/// Every invariant. Over a run of many seeds each must have been checked
/// against at least one fact.
pub const INVARIANTS: &[&str] = &[
    "linearizable",
    "reads",
    "guards",
    "acked",
    "applied-once",
    "revisions-equal",
    "revisions-gapless",
    "previous",
    "state-equal",
    "replay-equal",
    "snapshot-lists",
    "watches",
    "epoch-fence",
    "one-leader",
    "restart",
    "disk-failure-stops",
    crate::faults::old_disk::REFUSED,
    crate::faults::old_disk::FIRST,
    crate::faults::lost_files::NAMED,
    levels::NAME,
    "no-panic",
    "settles",
    "bound-once",
    "capacity",
    "containers-untouched",
    crate::workloads::deployment::CONVERGES,
];

/// Those at the end of [`INVARIANTS`] that speak of pods.
const OF_PODS: usize = 4;

/// Every invariant of such a run.
pub fn names(stack: Stack) -> &'static [&'static str] {
    match stack {
        Stack::Whole => INVARIANTS,
        Stack::Store => &INVARIANTS[..INVARIANTS.len() - OF_PODS],
    }
}

/// What holds of every counter of revisions; `first` is the first write's.
fn keyspace(log: &Log, history: &History, tally: &Tally, first: Revision, heads: impl Iterator<Item = Revision>) {
    log_complete::check(log, tally, first, heads);
    acked::check(log, history, tally);
    applied_once::check(log, history, tally);
    linearizable::check(log, history, tally);
    watches::check(log, history, tally);
}

/// Checks the history of a run that has ended.
pub fn check(run: &Run) {
    let mut log = run.log.lock();
    log.index();
    let history = run.history.lock();
    let heads = |of: fn(&Mvcc) -> Revision| run.ups().into_iter().map(move |(_, up)| of(up.db.mvcc()));
    keyspace(&log, &history, &run.tally, 1, heads(Mvcc::revision));
    let mut facade = run.facade.log.lock();
    facade.index();
    // etcd's counter is at 1 before anything is written.
    keyspace(&facade, &run.facade.history.lock(), &run.tally, 2, heads(Mvcc::facade_revision));
    epochs::check(&log, &history, &run.tally, run.settings.quorum_ack_max_age);
    restart::check(&log, &history, &run.tally);
    levels::check(run, &log);
    bindings::check(&log, &run.tally);
    containers::check(&log, &run.tally);
    let elected: std::collections::BTreeSet<_> = history.acting.iter().map(|a| a.epoch).collect();
    run.tally.with(|c| c.elections += elected.len() as u64);
}
