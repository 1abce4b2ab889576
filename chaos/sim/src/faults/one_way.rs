//! Some directions carry nothing while the opposite ones do.

use std::sync::Arc;

use super::between;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    if run.alone() {
        return;
    }
    run.tally.fault("partition-one-way");
    let id = run.any();
    let others = run.ids().into_iter().filter(|o| *o != id);
    let (all, out) = (run.env.random_below(2) == 0, run.env.random_below(2) == 0);
    run.trace.line(|| {
        format!("r{id} is {} by {}", if out { "not heard" } else { "not reached" }, if all { "all" } else { "one" })
    });
    for other in others.take(if all { usize::MAX } else { 1 }) {
        if out { run.network.block(id, other) } else { run.network.block(other, id) }
    }
    run.env.sleep(between(&run, 100, 3000)).await;
    run.network.unblock_all();
}
