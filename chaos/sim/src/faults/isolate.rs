//! A replica is cut off from both others, in both directions, without a word.

use std::sync::Arc;

use triarch_raft::NodeId;

use super::{between, leader_or_any};
use crate::run::Run;

async fn isolate(run: &Arc<Run>, id: NodeId, name: &'static str) {
    run.tally.fault(name);
    run.trace.line(|| format!("r{id} is cut off"));
    for other in (1..=run.replicas).filter(|o| *o != id) {
        run.network.block(id, other);
        run.network.block(other, id);
    }
    run.env.sleep(between(run, 100, 4000)).await;
    run.trace.line(|| format!("r{id} is reached again"));
    run.network.unblock_all();
}

pub async fn any(run: Arc<Run>) {
    let id = run.any();
    isolate(&run, id, "partition").await;
}

pub async fn leader(run: Arc<Run>) {
    let id = leader_or_any(&run);
    isolate(&run, id, "leader-cut-off").await;
}
