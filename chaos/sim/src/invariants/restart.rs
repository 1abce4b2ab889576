//! Checkpoint and log together give back what was in memory: the state right
//! after a restart, when caught up, and at the end, equals the replay of the
//! common log up to its revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use triarch_mvcc::{Db, Key, Revision};
use triarch_raft::NodeId;

use crate::history::{History, Snapshot};
use crate::log::{Cell, Log, digest};
use crate::machine::Up;
use crate::observe::state;
use crate::run::Run;
use crate::tally::Tally;

/// Takes the state of a replica that has just started, and again when it has caught up.
pub fn follow(run: &Arc<Run>, id: NodeId, up: Up) {
    take(run, id, &up, true);
    let r = run.clone();
    up.process.clone().spawn(async move {
        up.db.ready().await;
        r.trace.line(|| format!("r{id} has caught up at revision {}", up.db.mvcc().revision()));
        take(&r, id, &up, true);
        // And now and then while it lives.
        loop {
            up.env.sleep(std::time::Duration::from_secs(5)).await;
            take(&r, id, &up, false);
        }
    });
}

fn take(run: &Run, replica: NodeId, up: &Up, fresh: bool) {
    let (revision, digest) = state(up.db.mvcc());
    run.history.lock().snapshots.push(Snapshot { replica, fresh, revision, digest });
}

pub fn check(log: &Log, history: &History, tally: &Tally) {
    let mut wanted: BTreeMap<Revision, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in &history.snapshots {
        wanted.entry(snapshot.revision).or_default().push(snapshot);
    }
    let mut cells: BTreeMap<Key, Cell> = BTreeMap::new();
    let mut entries = log.entries.iter().peekable();
    for (upto, snapshots) in wanted {
        while let Some((revision, entry)) = entries.next_if(|(r, _)| **r <= upto) {
            match &entry.value {
                Some(v) => cells.insert(entry.key.clone(), (v.clone(), entry.create_revision, *revision)),
                None => cells.remove(&entry.key),
            };
        }
        let expected = digest(cells.iter());
        for s in snapshots {
            let name = if s.fresh { "restart" } else { "replay-equal" };
            tally.checked(name, 1);
            if s.digest != expected {
                tally.violation(name, format!("replica {} at revision {upto} is not the replay of the log", s.replica));
            }
        }
    }
}
