//! Every sync of a machine is slow for a while.

use std::sync::Arc;

use super::between;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = run.any();
    run.tally.fault("slow-fsync");
    run.trace.line(|| format!("r{id}'s syncs are slow"));
    run.machine_mut(id, |m| m.set_sync(between(&run, 15, 80)));
    run.env.sleep(between(&run, 500, 3000)).await;
    run.machine_mut(id, |m| m.set_sync(crate::machine::SYNC));
}
