//! What must hold, one file each. Some are checked while the run goes on
//! (`observe.rs`, the workloads), the rest against the whole history at its end.

mod acked;
mod applied_once;
mod bindings;
mod containers;
mod epochs;
mod linearizable;
mod log_complete;
pub mod restart;
mod watches;

use crate::run::Run;

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
    "bound-once",
    "capacity",
    "containers-untouched",
    crate::workloads::deployment::CONVERGES,
    "no-panic",
    "settles",
];

/// Checks the history of a run that has ended.
pub fn check(run: &Run) {
    let mut log = run.log.lock();
    log.index();
    let history = run.history.lock();
    log_complete::check(
        &log,
        &run.tally,
        run.ups().iter().map(|(_, up)| {
            use triarch_mvcc::Db;
            up.db.mvcc().revision()
        }),
    );
    acked::check(&log, &history, &run.tally);
    applied_once::check(&log, &history, &run.tally);
    linearizable::check(&log, &history, &run.tally);
    watches::check(&log, &history, &run.tally);
    epochs::check(&log, &history, &run.tally, run.settings.quorum_ack_max_age);
    restart::check(&log, &history, &run.tally);
    bindings::check(&log, &run.tally);
    containers::check(&log, &run.tally);
    let elected: std::collections::BTreeSet<_> = history.acting.iter().map(|a| a.epoch).collect();
    run.tally.with(|c| c.elections += elected.len() as u64);
}
