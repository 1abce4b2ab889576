//! One sync takes seconds.

use std::sync::Arc;

use super::{between, leader_or_any};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = if run.env.random_below(2) == 0 { leader_or_any(&run) } else { run.any() };
    run.tally.fault("disk-stall");
    run.trace.line(|| format!("r{id}'s disk stalls"));
    run.machine_mut(id, |m| m.set_sync(between(&run, 500, 2500)));
    // Long enough for one sync to begin; the next ones are quick again.
    run.env.sleep(between(&run, 20, 200)).await;
    run.machine_mut(id, |m| m.set_sync(crate::machine::SYNC));
    run.env.sleep(between(&run, 500, 2500)).await;
}
