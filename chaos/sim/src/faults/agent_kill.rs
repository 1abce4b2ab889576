//! A node's agent is killed. Its pods run on, and the next agent takes them up.

use std::sync::Arc;

use super::between;
use crate::agents::NODES;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let index = run.env.random_below(u64::from(NODES)) as u32;
    if !run.agents.kill(&run, index) {
        return;
    }
    run.tally.fault("agent-kill");
    run.env.sleep(between(&run, 10, 3000)).await;
    run.agents.start(&run, index);
}
