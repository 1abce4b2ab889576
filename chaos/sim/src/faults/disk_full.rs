//! The disk fills up. The replica stops; with room again it comes back.

use std::sync::Arc;

use super::{back_whole, between, must_stop};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = run.any();
    if run.up(id).is_none() {
        return;
    }
    let disk = run.machine_mut(id, |m| m.disk.clone());
    let before = disk.injected().enospc;
    disk.set_capacity(disk.used() + run.env.random_below(20_000));
    run.trace.line(|| format!("r{id}'s disk is nearly full"));
    must_stop(&run, id, || disk.injected().enospc > before).await;
    disk.set_capacity(u64::MAX);
    if disk.injected().enospc > before {
        run.tally.fault("disk-full");
        run.kill(id);
        run.env.sleep(between(&run, 10, 1000)).await;
        back_whole(&run, id).await;
    }
}
