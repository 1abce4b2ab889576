//! The checkpoint's disk fails to sync. It is written whole again, and the log
//! keeps what it does not have.

use std::sync::Arc;

use super::between;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = run.any();
    run.tally.fault("checkpoint-error");
    run.trace.line(|| format!("r{id}'s checkpoint fails to sync"));
    run.machine_mut(id, |m| m.checkpoint.fail_syncs(1));
    run.env.sleep(between(&run, 500, 3000)).await;
    run.machine_mut(id, |m| m.checkpoint.fail_syncs(0));
}
