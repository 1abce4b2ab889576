//! A process is killed; what it had written stays in the page cache.

use std::sync::Arc;

use triarch_raft::NodeId;

use super::{between, leader_or_any};
use crate::run::Run;

async fn kill(run: &Arc<Run>, id: NodeId, name: &'static str) {
    if !run.kill(id) {
        return;
    }
    run.tally.fault(name);
    run.env.sleep(between(run, 5, 2000)).await;
    run.restart(id).await;
}

pub async fn any(run: Arc<Run>) {
    let id = run.any();
    kill(&run, id, "kill").await;
}

pub async fn leader(run: Arc<Run>) {
    let id = leader_or_any(&run);
    kill(&run, id, "leader-kill").await;
}
