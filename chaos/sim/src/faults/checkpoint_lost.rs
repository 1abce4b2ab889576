//! A checkpoint is damaged at rest, with the log before it long purged: the
//! replica must get its state from another one.

use std::sync::Arc;
use std::time::Duration;

use super::back_whole;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    if run.alone() {
        return;
    }
    // The others must have everything: this is damage to one replica at a time.
    let fit = |up: &crate::machine::Up| up.db.is_ready() && !up.process.is_paused();
    if !run.until(Duration::from_secs(5), || run.all(fit)).await {
        return;
    }
    let id = run.any();
    run.power_off(id);
    let n = run.env.random_below(1000) as usize;
    if run.machine_mut(id, |m| m.checkpoint.lose_pair(n)) {
        run.tally.fault("checkpoint-lost");
        run.trace.line(|| format!("r{id}'s checkpoint lost a pair"));
    }
    back_whole(&run, id).await;
}
