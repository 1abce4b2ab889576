//! Looks into every replica's memory while it runs: its events go into the
//! common [`Log`](crate::log::Log), its chain hash is compared with the others'.
//!
//! The observer is a task of the replica's process: it is paused and killed
//! with it, and sees nothing that a client on that replica could not see.

use std::sync::Arc;
use std::time::Duration;

use triarch_mvcc::{Db, FACADE_RESOURCE, ListRequest, Mvcc, Prefix, Revision, Watcher};
use triarch_raft::NodeId;

use crate::invariants::levels;
use crate::log::{Cell, Digest32, digest};
use crate::machine::Up;
use crate::run::Run;
use crate::workloads::RESOURCES;

const EVERY: Duration = Duration::from_millis(4);
/// What changes no revision is looked for this often.
const IDLE: Duration = Duration::from_millis(500);
const BATCH: usize = 1024;

/// Starts to follow a replica.
pub fn follow(run: &Arc<Run>, id: NodeId, up: &Up) {
    let (run, up2) = (run.clone(), up.clone());
    up.process.spawn(async move {
        let mvcc = up2.db.mvcc().clone();
        let resources = RESOURCES.iter().chain([&FACADE_RESOURCE]);
        let mut watchers: Vec<(&str, Option<Watcher>)> = resources.map(|r| (*r, None)).collect();
        let mut seen = None;
        loop {
            if seen == Some(mvcc.applied()) {
                let _ = up2.db.wait_revision(mvcc.revision() + 1, IDLE).await;
                if Some(mvcc.applied()) == seen {
                    continue;
                }
            }
            seen = Some(mvcc.applied());
            for (resource, watcher) in &mut watchers {
                look(&run, id, &mvcc, resource, watcher);
            }
            chain(&run, id, &mvcc);
            levels::look(&run, id, &up2, mvcc.feature_level());
            up2.env.sleep(EVERY).await;
        }
    });
}

/// A look at what no observer has come to yet.
pub fn last_look(run: &Run) {
    for (id, up) in run.ups() {
        let mvcc = up.db.mvcc();
        for resource in RESOURCES.iter().chain([&FACADE_RESOURCE]) {
            look(run, id, mvcc, resource, &mut None);
        }
        chain(run, id, mvcc);
    }
}

fn look(run: &Run, id: NodeId, mvcc: &Arc<Mvcc>, resource: &str, watcher: &mut Option<Watcher>) {
    let (floor, log) = match resource {
        FACADE_RESOURCE => (mvcc.window().facade.floor, &run.facade.log),
        _ => (mvcc.compacted(), &run.log),
    };
    loop {
        let w = match watcher {
            Some(w) => w,
            // Everything that is still there: what a restart rebuilt must be what was there before.
            None => match mvcc.watch(Prefix::resource(resource), floor) {
                Ok(w) => watcher.insert(w),
                Err(_) => return,
            },
        };
        match w.try_next(BATCH) {
            Ok(events) if events.is_empty() => return,
            Ok(events) => {
                let mut log = log.lock();
                for event in events {
                    match log.note(&event) {
                        Ok(again) => run.tally.checked("revisions-equal", u64::from(again)),
                        Err(known) => run.tally.violation(
                            "revisions-equal",
                            format!("replica {id} shows {event:?}, another showed {known:?}"),
                        ),
                    }
                }
            }
            // A snapshot was installed, or the window has moved on.
            Err(_) => *watcher = None,
        }
    }
}

fn chain(run: &Run, id: NodeId, mvcc: &Mvcc) {
    let (at, hash, revision) = (mvcc.applied(), mvcc.chain(), mvcc.revision());
    let mut chains = run.chains.lock();
    match chains.get(&at.index) {
        None => {
            chains.insert(at.index, (id, hash, revision));
        }
        Some((other, known, r)) if other != &id => {
            run.tally.checked("state-equal", 1);
            if (*known, *r) != (hash, revision) {
                run.tally.violation(
                    "state-equal",
                    format!("after entry {} replica {id} is at revision {revision}, replica {other} at {r}, or their histories differ", at.index),
                );
            }
        }
        Some(_) => {}
    }
}

/// The whole state now: its revision and a digest.
pub fn state(mvcc: &Mvcc) -> (Revision, Digest32) {
    let mut cells: Vec<(triarch_mvcc::Key, Cell)> = Vec::new();
    for resource in RESOURCES.iter() {
        let list = mvcc.list(&ListRequest::all(Prefix::resource(*resource)));
        let items = list.map(|l| l.items).unwrap_or_default();
        cells.extend(items.into_iter().map(|s| (s.key, (s.object.bytes, s.create_revision, s.mod_revision))));
    }
    cells.sort();
    (mvcc.revision(), digest(cells.iter().map(|(k, c)| (k, c))))
}
