//! A process is stopped for a while and goes on as if nothing had been.

use std::sync::Arc;

use triarch_raft::NodeId;

use super::{between, leader_or_any};
use crate::run::Run;

async fn pause(run: &Arc<Run>, id: NodeId, name: &'static str) {
    let Some(up) = run.up(id) else { return };
    run.tally.fault(name);
    run.trace.line(|| format!("r{id} is paused"));
    let at = {
        let mut history = run.history.lock();
        history.pauses.push((up.life, run.env.mono(), None));
        history.pauses.len() - 1
    };
    up.process.pause();
    run.env.sleep(between(run, 50, 3000)).await;
    run.trace.line(|| format!("r{id} goes on"));
    run.history.lock().pauses[at].2 = Some(run.env.mono());
    up.process.resume();
}

pub async fn any(run: Arc<Run>) {
    let id = run.any();
    pause(&run, id, "pause").await;
}

pub async fn leader(run: Arc<Run>) {
    let id = leader_or_any(&run);
    pause(&run, id, "leader-pause").await;
}
