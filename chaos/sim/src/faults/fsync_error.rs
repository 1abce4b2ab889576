//! A sync of the log, or a write to it, fails with EIO. The replica must stop:
//! what is in the page cache is not to be trusted any more.

use std::sync::Arc;

use super::{back_whole, between, must_stop};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = run.any();
    if run.up(id).is_none() {
        return;
    }
    let disk = run.machine_mut(id, |m| m.disk.clone());
    let before = disk.injected().eio;
    if run.env.random_below(3) == 0 {
        disk.fail_writes(1)
    } else {
        disk.fail_syncs(1)
    }
    run.trace.line(|| format!("r{id}'s disk is about to fail"));
    must_stop(&run, id, || disk.injected().eio > before).await;
    disk.fail_writes(0);
    disk.fail_syncs(0);
    if disk.injected().eio > before {
        run.tally.fault("fsync-error");
        run.power_off(id);
        run.env.sleep(between(&run, 10, 1000)).await;
        back_whole(&run, id).await;
    }
}
