//! A part of the replicas is cut off from the others, in both directions, without a word.

use std::collections::BTreeSet;
use std::sync::Arc;

use triarch_raft::NodeId;

use super::{between, leader_or_any};
use crate::run::Run;

/// Cuts `part` off from the others.
pub fn cut(run: &Run, part: &BTreeSet<NodeId>) {
    for inside in part {
        for outside in run.ids().iter().filter(|o| !part.contains(o)) {
            run.network.block(*inside, *outside);
            run.network.block(*outside, *inside);
        }
    }
}

async fn isolate(run: &Arc<Run>, part: BTreeSet<NodeId>, name: &'static str) {
    if run.alone() {
        return;
    }
    run.tally.fault(name);
    run.trace.line(|| format!("{part:?} are cut off"));
    cut(run, &part);
    run.env.sleep(between(run, 100, 4000)).await;
    run.trace.line(|| format!("{part:?} are reached again"));
    run.network.unblock_all();
}

/// Any part that leaves others behind: of five it may be two, or three.
pub async fn any(run: Arc<Run>) {
    let mut ids = run.ids();
    let size = 1 + run.env.random_below((ids.len() as u64).saturating_sub(2).max(1));
    let first = run.env.random_below(ids.len() as u64) as usize;
    ids.rotate_left(first);
    let part = ids.into_iter().take(size as usize).collect();
    isolate(&run, part, "partition").await;
}

/// From its quorum, and not from its clients.
pub async fn leader(run: Arc<Run>) {
    let id = leader_or_any(&run);
    isolate(&run, BTreeSet::from([id]), "leader-cut-off").await;
}
