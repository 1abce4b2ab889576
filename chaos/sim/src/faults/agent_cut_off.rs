//! A node reaches no replica for a while, without a word.

use std::sync::Arc;

use super::between;
use crate::agents::{NODES, name};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let index = run.env.random_below(u64::from(NODES)) as u32;
    run.tally.fault("agent-cut-off");
    run.trace.line(|| format!("{} is cut off", name(index)));
    run.network.cut_off(index);
    // Shorter and longer than an agent waits for a word of its replica, and than a node's grace.
    run.env.sleep(between(&run, 100, 7000)).await;
    run.trace.line(|| format!("{} reaches the replicas again", name(index)));
    run.network.reconnect(index);
}
