//! The power of a machine fails, perhaps in the middle of a write: unsynced
//! bytes are lost or torn, and nothing tells the others.

use std::sync::Arc;

use triarch_raft::NodeId;

use super::{back_whole, between, leader_or_any};
use crate::run::Run;

async fn lose(run: &Arc<Run>, id: NodeId, name: &'static str) {
    if !run.power_off(id) {
        return;
    }
    run.tally.fault(name);
    run.env.sleep(between(run, 50, 3000)).await;
    back_whole(run, id).await;
}

pub async fn any(run: Arc<Run>) {
    let id = run.any();
    // A slow disk leaves more unsynced, so that there is something to tear.
    run.machine_mut(id, |m| m.set_sync(between(&run, 1, 30)));
    run.env.sleep(between(&run, 50, 400)).await;
    lose(&run, id, "power-loss").await;
    run.machine_mut(id, |m| m.set_sync(crate::machine::SYNC));
}

pub async fn leader(run: Arc<Run>) {
    let id = leader_or_any(&run);
    lose(&run, id, "leader-power-loss").await;
}
