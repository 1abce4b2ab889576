//! A checkpoint of some time ago is put back under a log that has gone on: the
//! log fills what is missing, or, where it was purged, another replica does.

use std::sync::Arc;

use triarch_env::SimDisk;

use super::{back_whole, between};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    if run.alone() {
        return;
    }
    let id = run.any();
    let seed = run.env.random_u64();
    let old = run.machine_mut(id, |m| SimDisk::holding(seed, &m.checkpoint.image()));
    run.env.sleep(between(&run, 500, 5000)).await;
    if !run.power_off(id) {
        return;
    }
    run.tally.fault("checkpoint-old");
    run.trace.line(|| format!("r{id} finds an old checkpoint"));
    run.machine_mut(id, |m| m.checkpoint = old);
    back_whole(&run, id).await;
}
